//! The manifest's preprocessing steps, composed into one pass from stored values to the network's input.

mod channels;
mod pass;

use std::ops::Range;

pub use channels::{Plans, Previous, Seen};
use thiserror::Error;

use crate::geometry::{Affine, Coded, GeometryError, Grid};
use crate::gpu::GpuError;
use crate::kernels::bounding_box::Bounds;
use crate::kernels::{Backend, Background, Interpolation, Mask, Resample};
use crate::model::{Foreground, PreprocessStep};
use crate::volume::{ImageVolume, LabelMap, Volume};

/// The largest grid that a network runs on: 4 GiB of input, and as much again for each class of output.
pub const MAX_NETWORK_VOXELS: usize = 1 << 30;

/// Why preprocessing cannot run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// The network's grid would be empty or enormous.
    #[error("the network's grid cannot be made: {0}")]
    Grid(#[from] GeometryError),
    /// The network's grid would need more memory than a machine has.
    #[error(
        "the network's grid would have {voxels} voxels, {MAX_NETWORK_VOXELS} are allowed: the package's spacing is too fine for a series of this size"
    )]
    TooLarge {
        /// Voxels of the network's grid.
        voxels: usize,
    },
    /// Nothing to take statistics of.
    #[error(
        "no voxel of the image is above {above}, which the package crops to or normalises by: the series shows nothing that it could \
         analyse"
    )]
    NothingAbove {
        /// The package's threshold, physical units.
        above: f64,
    },
    /// Nothing to take statistics of, or to crop to.
    #[error("the image is 0 everywhere, and the package looks at what is not: the series shows nothing that it could analyse")]
    AllZero,
    /// A package that resamples axis by axis, and a source whose voxels are no boxes.
    #[error(
        "the series is sheared by {angle_deg:.2} degrees (gantry tilt), and the package's resampling (`area`, `antialiased`, \
         `nearest_beyond`, values before a spacing that is not `cubic`, or a `crop`) needs parallel axes: use a package with `cubic`, or with \
         `linear` that resamples first, and without a crop"
    )]
    Sheared {
        /// Of the stack.
        angle_deg: f64,
    },
    /// A stage that looks where an earlier one has found something, and that has found nothing.
    #[error(
        "an earlier stage of the package found no {} in the image, around which the next one is to look: the series shows nothing that it could \
         analyse, or the earlier stage has missed it", labels.join(" or ")
    )]
    NothingLocated {
        /// Names of the labels.
        labels: Vec<String>,
    },
    /// A package that resamples axis by axis, and a channel whose axes run otherwise than the reference's.
    #[error(
        "the channel `{channel}` has axes at an angle to the reference's, and the package's resampling (`area`, `antialiased`, or values before \
         a spacing that is not `cubic`) needs parallel ones: send it on the reference's grid, or use a package with `cubic`, or that resamples first"
    )]
    ObliqueChannel {
        /// Its name.
        channel: String,
    },
    /// The device failed.
    #[error(transparent)]
    Kernel(#[from] GpuError),
}

impl Coded for PreprocessError {
    fn code(&self) -> &'static str {
        match self {
            Self::Grid(_) => "preprocess.grid",
            Self::TooLarge { .. } => "preprocess.too-large",
            Self::NothingAbove { .. } => "preprocess.nothing-above",
            Self::AllZero => "preprocess.all-zero",
            Self::Sheared { .. } => "preprocess.sheared",
            Self::NothingLocated { .. } => "preprocess.nothing-located",
            Self::ObliqueChannel { .. } => "preprocess.oblique-channel",
            Self::Kernel(e) => e.code(),
        }
    }
}

/// All steps of a manifest for one source grid, as one kernel: orientation and spacing are one affine, values are clipped and
/// normalised as they are interpolated.
///
/// A sheared source (a gantry tilt) is straightened first, see [`Grid::straightened`], so a network sees box-shaped voxels whatever the
/// scanner did. The box has corners that the source does not reach. What lies there is unknown, and the edge voxels of a stack do
/// not continue into it, as they would smear a body that the stack cuts; it gets the clip's minimum where the package clips, and
/// the lowest value of the image where it does not: air in CT, no signal elsewhere.
#[derive(Debug, Clone)]
pub struct Plan {
    network_grid: Grid,
    kernel: Resample,
    measured: Option<Measured>,
    passes: Vec<PreprocessStep>,
    scores_interpolation: [Interpolation; 3],
    straightened_from: Option<f64>,
    /// Whether the network's grid reaches beyond the image, where its input is then 0.
    is_padded: bool,
    /// The voxels of the image that are measured; `None`: all of them.
    measured_in: Option<Bounds>,
    /// Whether the image is a channel on another grid than the one that the network's was made of.
    is_elsewhere: bool,
}

/// Normalisation by what the source image itself holds. By what it is after resampling: [`pass`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measured {
    ZScore { over: Over, masked: bool },
    Percentiles { ends: [f64; 2], over: Over },
}

/// Which voxels of the source image count.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Over {
    All,
    Above(f64),
    /// What is not 0, with its holes filled.
    Nonzero,
}

/// Spacings that differ by less than this part are the same: positions in headers have six digits or more.
const SAME_SPACING: f64 = 1e-6;

/// Parts of labels in a voxel that differ by less are the same.
const SAME_PART: f32 = 1e-5;

/// Least divisor: an image of one value becomes 0. nnU-Net has the same.
const LEAST_SPREAD: f64 = 1e-8;

/// The box of source voxels, first and last, that a `crop` among `steps` leaves of `image`; `None` where that is all of it.
///
/// # Errors
/// [`PreprocessError::NothingAbove`] and [`PreprocessError::AllZero`] where there is no foreground, [`PreprocessError::Kernel`] where the device
/// fails.
pub fn source_box(steps: &[PreprocessStep], backend: &Backend, image: &ImageVolume) -> Result<Option<Bounds>, PreprocessError> {
    let Some(crop) = Crop::among(steps) else { return Ok(None) };
    // Holes lie within the box of what is around them.
    let around = backend.bounding_box(image, crop.over.mask())?.ok_or_else(|| crop.over.nothing())?;
    Ok(crop.with_margin(around, image.grid()))
}

/// What a `crop` crops to.
struct Crop<'a> {
    /// Where it is no labels.
    over: Over,
    /// Names of labels of the stage before; none: by values.
    labelled: &'a [String],
    margin: u32,
    margin_mm: f64,
}

impl<'a> Crop<'a> {
    fn among(steps: &'a [PreprocessStep]) -> Option<Self> {
        steps.iter().find_map(|step| match step {
            PreprocessStep::Crop { above, labelled, margin, margin_mm, .. } => {
                Some(Self { over: above.map_or(Over::Nonzero, Over::Above), labelled, margin: *margin, margin_mm: *margin_mm })
            }
            _ => None,
        })
    }

    /// The box with the margin on each side, as far as the image goes; `None` where that is all of it.
    fn with_margin(&self, [low, high]: Bounds, grid: &Grid) -> Option<Bounds> {
        let (dims, spacing_mm) = (grid.dims(), grid.spacing_mm());
        let margin: [u32; 3] = std::array::from_fn(|n| self.margin.max((self.margin_mm / spacing_mm[n]).ceil() as u32));
        let low = std::array::from_fn(|n| low[n].saturating_sub(margin[n]));
        let high = std::array::from_fn(|n| high[n].saturating_add(margin[n]).min(dims[n] - 1));
        (low != [0; 3] || high != dims.map(|n| n - 1)).then_some([low, high])
    }
}

impl Plan {
    /// Composes `steps`, which the manifest guarantees to be in the order geometry, then values. `source_box` is what [`source_box`] found.
    ///
    /// # Errors
    /// [`PreprocessError::Grid`] where the spacing asked for, or a shear, makes no grid, [`PreprocessError::TooLarge`] where it makes too large
    /// a one, [`PreprocessError::Sheared`] where the package averages over voxels that are no boxes.
    pub fn new(steps: &[PreprocessStep], source: &Grid, source_box: Option<Bounds>) -> Result<Self, PreprocessError> {
        let straightened_from = (!source.is_straight()).then(|| source.shear());
        let seen = source_box.map_or(*source, |bounds| source.part(bounds));
        let mut network_grid = if straightened_from.is_some() { seen.straightened()? } else { seen };
        let mut measured = None;
        let mut thick = None;
        let mut is_padded = false;
        let mut kernel = Resample { source_box, ..Resample::new([0; 3], Affine::IDENTITY) };
        let first_pass = steps.iter().position(PreprocessStep::measures_resampled).unwrap_or(steps.len());
        let (fused, passes) = steps.split_at(first_pass);
        for step in fused {
            match *step {
                PreprocessStep::Orient { to } => network_grid = to.of(&network_grid),
                PreprocessStep::Crop { .. } => {} // done above: no axis is turned by it
                PreprocessStep::Resample { spacing_mm, interpolation, within, from_first, nearest_beyond } => {
                    let own_mm = network_grid.spacing_mm();
                    let spacing_mm = std::array::from_fn(|n| if spacing_mm[n] == 0.0 { own_mm[n] } else { spacing_mm[n] });
                    thick = nearest_beyond.and_then(|ratio| thick_axis(source, &network_grid, spacing_mm, ratio));
                    network_grid = match (within, from_first) {
                        (true, _) => network_grid.respaced_within(spacing_mm)?,
                        (_, true) => network_grid.respaced_from_first(spacing_mm)?,
                        _ => network_grid.respaced(spacing_mm)?,
                    };
                    kernel.interpolation = interpolation;
                    kernel.values_first = measured.is_some() || kernel.clip.is_some() || kernel.divide != 1.0 || kernel.subtract != 0.0;
                }
                PreprocessStep::Resize { to, interpolation } => {
                    network_grid = network_grid.fitted_into(to)?;
                    kernel.interpolation = interpolation;
                    kernel.values_first = measured.is_some() || kernel.clip.is_some() || kernel.divide != 1.0 || kernel.subtract != 0.0;
                    is_padded = true;
                }
                PreprocessStep::Clip { min, max } => kernel.clip = Some([min, max]),
                PreprocessStep::Normalize { subtract, divide } => (kernel.subtract, kernel.divide) = (subtract, divide),
                PreprocessStep::ZScore { above, over, masked, .. } => {
                    let over = over.map_or(above.map_or(Over::All, Over::Above), |Foreground::Nonzero| Over::Nonzero);
                    measured = Some(Measured::ZScore { over, masked });
                }
                PreprocessStep::Percentiles { low, high, above, .. } => {
                    measured = Some(Measured::Percentiles { ends: [low, high], over: above.map_or(Over::All, Over::Above) });
                }
            }
        }
        kernel.nearest_along = thick;
        let masked = matches!(measured, Some(Measured::ZScore { masked: true, .. }));
        if let Some(shear) =
            straightened_from.filter(|_| kernel.needs_parallel_axes() || (masked && kernel.interpolation != Interpolation::Cubic))
        {
            return Err(PreprocessError::Sheared { angle_deg: shear.atan().to_degrees() });
        }
        if network_grid.voxel_count() > MAX_NETWORK_VOXELS {
            return Err(PreprocessError::TooLarge { voxels: network_grid.voxel_count() });
        }
        kernel.target_dims = network_grid.dims();
        kernel.source_from_target = source.voxel_from_lps() * network_grid.lps_from_voxel();
        let mut scores_interpolation = [Interpolation::Linear; 3];
        if let Some(thick) = thick {
            let across = kernel.source_from_target.rows()[thick];
            let axis = (0..3).max_by(|&a, &b| across[a].abs().total_cmp(&across[b].abs())).expect("three axes");
            scores_interpolation[axis] = Interpolation::Nearest;
        }
        let passes = passes.to_vec();
        let (measured_in, is_elsewhere) = (source_box, false);
        Ok(Self { network_grid, kernel, measured, passes, scores_interpolation, straightened_from, is_padded, measured_in, is_elsewhere })
    }

    /// The plan of `channel`, on a grid of its own in the same frame of reference: onto the network's grid of `reference` by its own affine.
    /// `nearest_beyond` is a rule for the reference's slices, and holds for none of its.
    ///
    /// # Errors
    /// [`PreprocessError::ObliqueChannel`].
    fn onto(reference: &Self, steps: &[PreprocessStep], source: &Grid, channel: &str) -> Result<Self, PreprocessError> {
        let mut plan = Self { is_elsewhere: true, straightened_from: None, ..Self::new(steps, source, None)? };
        plan.network_grid = reference.network_grid;
        plan.kernel.target_dims = plan.network_grid.dims();
        plan.kernel.source_from_target = source.voxel_from_lps() * plan.network_grid.lps_from_voxel();
        plan.kernel.nearest_along = None;
        let dims = plan.network_grid.dims();
        plan.measured_in = reference.source_box().and_then(|_| channels::moved([[0; 3], dims.map(|n| n - 1)], &plan.network_grid, source));
        let masked = matches!(plan.measured, Some(Measured::ZScore { masked: true, .. }));
        let needs_parallel = plan.kernel.needs_parallel_axes() || (masked && plan.kernel.interpolation != Interpolation::Cubic);
        if needs_parallel && !plan.kernel.has_parallel_axes() {
            return Err(PreprocessError::ObliqueChannel { channel: channel.to_owned() });
        }
        Ok(plan)
    }

    /// The grid of the network's input and output.
    pub fn network_grid(&self) -> &Grid {
        &self.network_grid
    }

    /// First and last voxel of the source that the network sees; `None`: all of them.
    pub fn source_box(&self) -> Option<Bounds> {
        self.kernel.source_box
    }

    /// How the network's scores go back: linear, but nearest across slices as thick as those that nothing of the image was interpolated across.
    pub fn scores_interpolation(&self) -> [Interpolation; 3] {
        self.scores_interpolation
    }

    /// The network's input for `image`, which lies on the grid that the plan was made for.
    ///
    /// # Errors
    /// [`PreprocessError::Kernel`] where the device fails, [`PreprocessError::NothingAbove`] and [`PreprocessError::AllZero`] where the package
    /// normalises by voxels that the image does not have.
    pub fn run(&self, backend: &Backend, image: &ImageVolume) -> Result<Volume<f32>, PreprocessError> {
        self.run_within(backend, image, None)
    }

    /// [`Self::run`], where `nonzero`, on the image's grid, is what is not 0 in any of several images.
    fn run_within(&self, backend: &Backend, image: &ImageVolume, nonzero: Option<&LabelMap>) -> Result<Volume<f32>, PreprocessError> {
        let mut kernel = self.kernel.clone();
        if let Some(measured) = self.measured {
            measured.normalise(&mut kernel, backend, image, self.measured_in, nonzero)?;
        }
        if self.straightened_from.is_some() || self.is_elsewhere {
            kernel.outside = Some(match (&kernel.background, kernel.clip) {
                (Some(_), _) => kernel.subtract, // becomes 0, as all that does not count
                (None, Some([low, _])) => low,
                (None, None) => image.range()[0],
            });
        }
        if self.is_padded {
            kernel.outside = Some(kernel.subtract); // 0 when it is normalised
        }
        let mut input = Volume::new(self.network_grid, backend.resample(image, &kernel)?);
        for step in &self.passes {
            input = pass::run(step, input)?;
        }
        Ok(input)
    }

    /// `labels` of the source on the network's grid: of each label what is 1 where it is and 0 elsewhere is interpolated linearly (nearest across
    /// slices as thick as those that nothing of the image was interpolated across), and the highest wins; of several that tie, that of the
    /// nearest voxel where it is one of them, or else the lowest. nnU-Net's `resample_data_or_seg` with `is_seg` and `order = 1`.
    ///
    /// # Errors
    /// Where the device fails.
    fn labels(&self, backend: &Backend, labels: &LabelMap) -> Result<LabelMap, PreprocessError> {
        let kernel = |interpolation| Resample {
            target_dims: self.kernel.target_dims,
            source_box: self.kernel.source_box,
            interpolation,
            nearest_along: self.kernel.nearest_along,
            outside: self.straightened_from.map(|_| 0.0),
            ..Resample::new(self.kernel.target_dims, self.kernel.source_from_target)
        };
        let mut is_there = [false; 256];
        labels.voxels().iter().for_each(|&label| is_there[usize::from(label)] = true);
        let mut best = vec![0.0f32; self.network_grid.voxel_count()];
        let mut won = vec![0u8; best.len()];
        let nearest = backend.resample(&channels::as_image(labels, i16::from), &kernel(Interpolation::Nearest))?;
        for label in (0..=255u8).filter(|&label| is_there[usize::from(label)]) {
            let indicator = channels::as_image(labels, |other| (other == label).into());
            let parts = backend.resample(&indicator, &kernel(Interpolation::Linear))?;
            for ((best, won), (part, nearest)) in best.iter_mut().zip(&mut won).zip(parts.into_iter().zip(&nearest)) {
                let ties = (part - *best).abs() <= SAME_PART;
                if (ties && *nearest == f32::from(label)) || (!ties && part > *best) {
                    (*best, *won) = (part, label);
                }
            }
        }
        Ok(LabelMap::new(self.network_grid, won))
    }

    /// Along i, j, k the network's voxels whose centres lie within the image: all of them, but for an image that was fitted into more.
    pub fn content(&self, source: &Grid) -> [Range<usize>; 3] {
        let network_from_source = self.network_grid.voxel_from_lps() * source.lps_from_voxel();
        let ends = source.dims().map(|n| f64::from(n) - 0.5);
        let corners = [network_from_source.apply([-0.5; 3]), network_from_source.apply(ends)];
        std::array::from_fn(|n| {
            let last = f64::from(self.network_grid.dims()[n] - 1);
            let [low, high] = [f64::min, f64::max].map(|of| of(corners[0][n], corners[1][n]));
            (low.ceil().clamp(0.0, last) as usize)..(high.floor().clamp(0.0, last) as usize + 1)
        })
    }

    /// What the reader of a result should know of the network's grid, where there is anything.
    pub fn note(&self) -> Option<String> {
        if let Some([low, high]) = self.kernel.source_box {
            let [i, j, k] = std::array::from_fn(|n| format!("{} to {}", low[n] + 1, high[n] + 1));
            return Some(format!(
                "the network saw columns {i}, rows {j} and slices {k} of the series, the box around its foreground: nothing is labelled \
                 outside of it"
            ));
        }
        let angle_deg = self.straightened_from?.atan().to_degrees();
        Some(format!(
            "the series is sheared by {angle_deg:.2} degrees (gantry tilt): the network saw it resampled to a straight grid, with \
             {} where the series has no voxels; labels and measurements lie on the series' own grid",
            self.outside_in_words()
        ))
    }

    /// What the network sees where the image has no voxels.
    fn outside_in_words(&self) -> String {
        match (self.measured, self.kernel.clip) {
            (Some(Measured::Percentiles { .. }), _) => "the lower percentile".to_owned(),
            (Some(Measured::ZScore { masked: true, .. }), _) => "the mean".to_owned(),
            (_, Some([low, _])) => format!("{low}"),
            (_, None) => "the lowest value of the image".to_owned(),
        }
    }
}

/// The axis of `source` along which slices are so thick that nothing is interpolated between them: nnU-Net's rule. The source's spacing
/// decides where it is that uneven, and otherwise the spacing asked for, along the axes of `oriented`.
fn thick_axis(source: &Grid, oriented: &Grid, spacing_mm: [f64; 3], ratio: f64) -> Option<usize> {
    let uneven = |spacing_mm: [f64; 3]| {
        let [least, most] = [f64::min, f64::max].map(|of| spacing_mm.into_iter().reduce(of).expect("three axes"));
        (most > least * ratio * (1.0 + SAME_SPACING)).then_some(most)
    };
    let only = |spacing_mm: [f64; 3], most: f64| {
        let mut axes = (0..3).filter(|&n| spacing_mm[n] > most * (1.0 - SAME_SPACING));
        axes.next().filter(|_| axes.next().is_none())
    };
    if let Some(most) = uneven(source.spacing_mm()) {
        return only(source.spacing_mm(), most);
    }
    let t = only(spacing_mm, uneven(spacing_mm)?)?;
    let along = (source.voxel_from_lps() * oriented.lps_from_voxel()).column(t);
    (0..3).max_by(|&a, &b| along[a].abs().total_cmp(&along[b].abs()))
}

impl Over {
    /// The voxels that count, but for holes.
    fn mask(self) -> Mask<'static> {
        match self {
            Self::All => Mask::All,
            Self::Above(value) => Mask::Above(value),
            Self::Nonzero => Mask::Nonzero,
        }
    }

    /// The same in a box of the image, as labels; `None` where a mask alone says it. `nonzero` as for [`Plan::run_within`].
    fn labels(self, backend: &Backend, image: &ImageVolume, source_box: Option<Bounds>, nonzero: Option<&LabelMap>) -> Option<LabelMap> {
        let nonzero = || nonzero.cloned().unwrap_or_else(|| backend.nonzero_filled(image));
        match (self, source_box) {
            (Self::Nonzero, None) => Some(nonzero()),
            (Self::Nonzero, Some(_)) => Some(Mask::Labelled(&nonzero()).label_map(image, source_box)),
            (_, Some(_)) => Some(self.mask().label_map(image, source_box)),
            (_, None) => None,
        }
    }

    /// Why there is none that counts.
    fn nothing(self) -> PreprocessError {
        match self {
            Self::All => PreprocessError::NothingAbove { above: f64::NEG_INFINITY },
            Self::Above(above) => PreprocessError::NothingAbove { above },
            Self::Nonzero => PreprocessError::AllZero,
        }
    }
}

impl Measured {
    /// Sets what `kernel` subtracts, divides by, clips to and takes for background, by the voxels in `within`; `nonzero` as for
    /// [`Plan::run_within`].
    fn normalise(
        self,
        kernel: &mut Resample,
        backend: &Backend,
        image: &ImageVolume,
        within: Option<Bounds>,
        nonzero: Option<&LabelMap>,
    ) -> Result<(), PreprocessError> {
        let (Self::ZScore { over, .. } | Self::Percentiles { over, .. }) = self;
        let labels = over.labels(backend, image, within, nonzero);
        let mask = labels.as_ref().map_or(over.mask(), Mask::Labelled);
        match self {
            Self::ZScore { masked, .. } => {
                let physical = backend.statistics(image, mask)?.ok_or_else(|| over.nothing())?.physical;
                (kernel.subtract, kernel.divide) = (physical.mean, physical.standard_deviation.max(LEAST_SPREAD));
                kernel.background = match over {
                    _ if !masked => None,
                    Over::All => None,
                    Over::Above(value) => Some(Background::NotAbove(value)),
                    Over::Nonzero => labels.map(Background::Unlabelled),
                };
            }
            Self::Percentiles { ends, .. } => {
                let found = backend.percentiles(image, mask, &ends)?.ok_or_else(|| over.nothing())?;
                kernel.clip = Some([found[0], found[1]]);
                (kernel.subtract, kernel.divide) = (found[0], (found[1] - found[0]).max(LEAST_SPREAD));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Axes;
    use crate::volume::{Quantity, Rescale};

    /// A sagittal grid of 40 x 30 x 20 voxels of 2 x 2 x 3 mm.
    fn source() -> Grid {
        let axes = Affine::from_columns([0., 2., 0.], [0., 0., -2.], [3., 0., 0.], [-30., -40., 30.]);
        Grid::new([40, 30, 20], axes).expect("axes span space")
    }

    fn resample(spacing_mm: f64) -> PreprocessStep {
        PreprocessStep::Resample {
            spacing_mm: [spacing_mm; 3],
            interpolation: Interpolation::Linear,
            within: false,
            from_first: false,
            nearest_beyond: None,
        }
    }

    #[test]
    fn orientation_and_spacing_are_one_affine() {
        let steps = [PreprocessStep::Orient { to: Axes::LPS }, resample(1.0)];
        let plan = Plan::new(&steps, &source(), None).expect("a plan");
        assert_eq!(plan.network_grid().dims(), [60, 80, 60]);
        assert_eq!(plan.network_grid().orientation().to_string(), "LPS");
        // The kernel's affine takes the first network voxel to where the source has the same point of the patient.
        let patient = plan.network_grid().lps_from_voxel().column(3);
        let expected = source().voxel_from_lps().apply(patient);
        let found = plan.kernel.source_from_target.column(3);
        assert!((0..3).all(|n| (found[n] - expected[n]).abs() < 1e-9), "{found:?} is not {expected:?}");
    }

    #[test]
    fn an_axis_may_keep_its_spacing() {
        let step = |within, nearest_beyond| PreprocessStep::Resample {
            spacing_mm: [1.0, 1.0, 0.0],
            interpolation: Interpolation::Cubic,
            within,
            from_first: false,
            nearest_beyond,
        };
        for within in [false, true] {
            let plan = Plan::new(&[step(within, None)], &source(), None).expect("a plan");
            assert_eq!(plan.network_grid().dims(), [80, 60, 20]);
            assert!((plan.network_grid().spacing_mm()[2] - 3.0).abs() < 1e-12);
        }
        // 3 mm to 1 mm is more than 2.5 to 1, of the grid that is asked for.
        assert_eq!(Plan::new(&[step(true, Some(2.5))], &source(), None).expect("a plan").kernel.nearest_along, Some(2));
    }

    #[test]
    fn a_grid_too_large_is_refused_before_memory_is_asked_for() {
        let error = Plan::new(&[resample(0.05)], &source(), None).expect_err("2304 million voxels are too many");
        assert_eq!(error.code(), "preprocess.too-large");
    }
    /// 0 to 9 in ten voxels, physical values twice as large and 5 less.
    fn ramp() -> ImageVolume {
        let grid = Grid::new([10, 1, 1], Affine::IDENTITY).expect("a grid");
        let rescale = vec![Rescale { slope: 2.0, intercept: -5.0 }];
        ImageVolume { stored: Volume::new(grid, (0..10).collect()).into(), rescale, quantity: Quantity::Arbitrary }
    }

    fn check(step: PreprocessStep, expected: impl Fn(f64) -> f64) {
        let plan = Plan::new(&[step], ramp().grid(), None).expect("a plan");
        let found = plan.run(&Backend::Cpu, &ramp()).expect("numbers");
        for (n, &found) in found.voxels().iter().enumerate() {
            let expected = expected(2.0 * n as f64 - 5.0);
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn the_image_normalises_itself() {
        // numpy: np.arange(10) * 2 - 5 has mean 4 and standard deviation 5.744562646538029; above 0 (from 1 to 13) 7 and 4.
        check(PreprocessStep::ZScore { above: None, over: None, masked: false, nonzero: false, resampled: false }, |v| {
            (v - 4.0) / 5.744_562_646_538_029
        });
        check(PreprocessStep::ZScore { above: Some(0.0), over: None, masked: false, nonzero: false, resampled: false }, |v| {
            (v - 7.0) / 4.0
        });
        check(PreprocessStep::ZScore { above: Some(0.0), over: None, masked: true, nonzero: false, resampled: false }, |v| {
            if v > 0.0 { (v - 7.0) / 4.0 } else { 0.0 }
        });
        // np.percentile(.., [10, 95]) is [-3.2, 12.1]; above 0 [2.2, 12.4].
        check(PreprocessStep::Percentiles { low: 10.0, high: 95.0, above: None, resampled: false }, |v| (v.clamp(-3.2, 12.1) + 3.2) / 15.3);
        check(PreprocessStep::Percentiles { low: 10.0, high: 95.0, above: Some(0.0), resampled: false }, |v| {
            (v.clamp(2.2, 12.4) - 2.2) / 10.2
        });
        let plan = Plan::new(
            &[PreprocessStep::ZScore { above: Some(13.0), over: None, masked: false, nonzero: false, resampled: false }],
            ramp().grid(),
            None,
        )
        .expect("a plan");
        let error = plan.run(&Backend::Cpu, &ramp()).expect_err("13 is the greatest");
        assert_eq!(error.code(), "preprocess.nothing-above");
    }

    #[test]
    fn an_image_is_fitted_in_with_its_proportions() {
        // Pixels of 1 x 2 mm: 8 x 4 of them are a square, 8 x 2 half of one.
        let affine = Affine::from_columns([1., 0., 0.], [0., 2., 0.], [0., 0., 1.], [0.; 3]);
        let resize = |to| PreprocessStep::Resize { to, interpolation: Interpolation::Area };
        let normalize = PreprocessStep::Normalize { subtract: 10.0, divide: 2.0 };
        let check = |dims: [u32; 3], to: [u32; 3], content: [Range<usize>; 3]| {
            let source = Grid::new(dims, affine).expect("a grid");
            let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; dims[2] as usize];
            let image =
                ImageVolume { stored: Volume::new(source, vec![12; source.voxel_count()]).into(), rescale, quantity: Quantity::Arbitrary };
            let plan = Plan::new(&[resize(to), normalize.clone()], &source, None).expect("a plan");
            assert_eq!(plan.network_grid().dims(), to);
            assert_eq!(plan.content(&source), content);
            let seen = plan.run(&Backend::Cpu, &image).expect("numbers");
            for (n, value) in seen.voxels().iter().enumerate() {
                let [i, j] = [n % to[0] as usize, n / to[0] as usize % to[1] as usize];
                let inside = content[0].contains(&i) && content[1].contains(&j);
                assert_eq!(*value, if inside { 1.0 } else { 0.0 }, "({i}, {j})");
            }
        };
        check([8, 4, 1], [6, 6, 1], [0..6, 0..6, 0..1]);
        check([8, 2, 1], [8, 8, 1], [0..8, 2..6, 0..1]);
        check([4, 4, 1], [8, 8, 1], [2..6, 0..8, 0..1]);
        check([8, 4, 8], [4, 4, 4], [0..4, 0..4, 0..4]);
    }

    #[test]
    fn an_average_over_boxes_needs_boxes() {
        let tilted = Affine::from_columns([1., 0., 0.], [0., 1., 0.], [0., 0.5, 2.], [0.; 3]);
        let tilted = Grid::new([10, 10, 10], tilted).expect("axes span space");
        let step = |interpolation| PreprocessStep::Resample {
            spacing_mm: [2.0; 3],
            interpolation,
            within: false,
            from_first: false,
            nearest_beyond: None,
        };
        let clip = PreprocessStep::Clip { min: 0.0, max: 1.0 };
        for steps in [vec![step(Interpolation::Area)], vec![clip.clone(), step(Interpolation::Linear)]] {
            let error = Plan::new(&steps, &tilted, None).expect_err("it is sheared");
            assert_eq!(error.code(), "preprocess.sheared");
        }
        let cubic = [clip, step(Interpolation::Cubic)];
        for steps in [&[step(Interpolation::Linear)][..], &cubic] {
            assert!(Plan::new(steps, &tilted, None).is_ok());
        }
        let masked =
            PreprocessStep::ZScore { above: None, over: Some(Foreground::Nonzero), masked: true, nonzero: false, resampled: false };
        let cropped = Plan::new(&cubic, &tilted, Some([[1; 3], [8; 3]]));
        for plan in [cropped, Plan::new(&[masked], &tilted, None)] {
            assert_eq!(plan.expect_err("it is sheared").code(), "preprocess.sheared");
        }
    }

    #[test]
    fn nothing_is_interpolated_across_thick_slices() {
        let check = |source_mm: [f64; 3], spacing_mm: [f64; 3], expected: Option<usize>| {
            // Turned, so that the network's i, j, k run along the source's j, k, i.
            let axes = Affine::from_columns([0., 0., source_mm[0]], [source_mm[1], 0., 0.], [0., source_mm[2], 0.], [0.; 3]);
            let source = Grid::new([40, 40, 40], axes).expect("axes span space");
            let orient = PreprocessStep::Orient { to: Axes::LPS };
            let step = PreprocessStep::Resample {
                spacing_mm,
                interpolation: Interpolation::Cubic,
                within: true,
                from_first: false,
                nearest_beyond: Some(3.0),
            };
            let plan = Plan::new(&[orient, step], &source, None).expect("a plan");
            assert_eq!(plan.kernel.nearest_along, expected, "{source_mm:?} {spacing_mm:?}");
            assert!(!plan.kernel.values_first);
        };
        check([1.0, 1.0, 3.5], [1.0; 3], Some(2));
        check([1.0, 1.0, 3.0], [1.0; 3], None);
        check([0.3, 1.25, 1.25], [1.0; 3], None);
        // Two thick axes of the source: the spacing asked for is not looked at.
        check([0.3, 1.25, 1.25], [1.0, 1.0, 5.0], None);
        check([1.0; 3], [1.0, 1.0, 5.0], Some(0));
        check([1.0; 3], [5.0, 1.0, 1.0], Some(1));
    }

    #[test]
    fn values_come_first_where_the_package_says_so() {
        let clip = PreprocessStep::Clip { min: 0.0, max: 1.0 };
        let order = |steps: [PreprocessStep; 2]| Plan::new(&steps, &source(), None).expect("a plan").kernel.values_first;
        assert!(order([clip.clone(), resample(1.0)]) && !order([resample(1.0), clip]));
    }
}
