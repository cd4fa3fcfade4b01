//! The manifest's preprocessing steps, composed into one pass from stored values to the network's input.

use thiserror::Error;

use crate::geometry::{Affine, Coded, GeometryError, Grid};
use crate::gpu::GpuError;
use crate::kernels::{Backend, Interpolation, Mask, Resample};
use crate::model::PreprocessStep;
use crate::volume::{ImageVolume, Volume};

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
    #[error("no voxel of the image is above {above}, which the package normalises by: the series shows nothing that it could analyse")]
    NothingAbove {
        /// The package's threshold, physical units.
        above: f64,
    },
    /// A package that averages over voxels, and a source whose voxels are no boxes.
    #[error(
        "the series is sheared by {angle_deg:.2} degrees (gantry tilt), and the package's interpolation (`area` or `antialiased`) needs \
         parallel axes: use a package with `linear`"
    )]
    Sheared {
        /// Of the stack.
        angle_deg: f64,
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
            Self::Sheared { .. } => "preprocess.sheared",
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
    straightened_from: Option<f64>,
}

/// Normalisation by what the source image itself holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measured {
    ZScore { above: Option<f64> },
    Percentiles { ends: [f64; 2], above: Option<f64> },
}

/// Least divisor: an image of one value becomes 0. nnU-Net has the same.
const LEAST_SPREAD: f64 = 1e-8;

impl Plan {
    /// Composes `steps`, which the manifest guarantees to be in the order geometry, then values.
    ///
    /// # Errors
    /// [`PreprocessError::Grid`] where the spacing asked for, or a shear, makes no grid, [`PreprocessError::TooLarge`] where it makes too large
    /// a one, [`PreprocessError::Sheared`] where the package averages over voxels that are no boxes.
    pub fn new(steps: &[PreprocessStep], source: &Grid) -> Result<Self, PreprocessError> {
        let straightened_from = (!source.is_straight()).then(|| source.shear());
        let mut network_grid = if straightened_from.is_some() { source.straightened()? } else { *source };
        let mut measured = None;
        let mut kernel = Resample {
            target_dims: [0; 3],
            source_from_target: Affine::IDENTITY,
            interpolation: Interpolation::Linear,
            outside: None,
            clip: None,
            subtract: 0.0,
            divide: 1.0,
        };
        for step in steps {
            match *step {
                PreprocessStep::Orient { .. } => network_grid = network_grid.reoriented_lps(),
                PreprocessStep::Resample { spacing_mm, interpolation } => {
                    network_grid = network_grid.respaced(spacing_mm)?;
                    kernel.interpolation = interpolation;
                }
                PreprocessStep::Clip { min, max } => kernel.clip = Some([min, max]),
                PreprocessStep::Normalize { subtract, divide } => (kernel.subtract, kernel.divide) = (subtract, divide),
                PreprocessStep::ZScore { above } => measured = Some(Measured::ZScore { above }),
                PreprocessStep::Percentiles { low, high, above } => measured = Some(Measured::Percentiles { ends: [low, high], above }),
            }
        }
        if let Some(shear) = straightened_from.filter(|_| kernel.interpolation.covers()) {
            return Err(PreprocessError::Sheared { angle_deg: shear.atan().to_degrees() });
        }
        if network_grid.voxel_count() > MAX_NETWORK_VOXELS {
            return Err(PreprocessError::TooLarge { voxels: network_grid.voxel_count() });
        }
        kernel.target_dims = network_grid.dims();
        kernel.source_from_target = source.voxel_from_lps() * network_grid.lps_from_voxel();
        Ok(Self { network_grid, kernel, measured, straightened_from })
    }

    /// The grid of the network's input and output.
    pub fn network_grid(&self) -> &Grid {
        &self.network_grid
    }

    /// The network's input for `image`, which lies on the grid that the plan was made for.
    ///
    /// # Errors
    /// [`PreprocessError::Kernel`] where the device fails, [`PreprocessError::NothingAbove`] where the package normalises by voxels that
    /// the image does not have.
    pub fn run(&self, backend: &Backend, image: &ImageVolume) -> Result<Volume<f32>, PreprocessError> {
        let mut kernel = self.kernel.clone();
        if let Some(measured) = self.measured {
            measured.normalise(&mut kernel, backend, image)?;
        }
        if self.straightened_from.is_some() {
            kernel.outside = Some(kernel.clip.map_or_else(|| image.range()[0], |[low, _]| low));
        }
        Ok(Volume::new(self.network_grid, backend.resample(image, &kernel)?))
    }

    /// What the reader of a result should know of the network's grid, where there is anything.
    pub fn note(&self) -> Option<String> {
        let angle_deg = self.straightened_from?.atan().to_degrees();
        let outside = match (self.measured, self.kernel.clip) {
            (Some(Measured::Percentiles { .. }), _) => "the lower percentile".to_owned(),
            (_, Some([low, _])) => format!("{low}"),
            (_, None) => "the lowest value of the image".to_owned(),
        };
        Some(format!(
            "the series is sheared by {angle_deg:.2} degrees (gantry tilt): the network saw it resampled to a straight grid, with \
             {outside} where the series has no voxels; labels and measurements lie on the series' own grid"
        ))
    }
}

impl Measured {
    /// Sets what `kernel` subtracts, divides by and clips to.
    fn normalise(self, kernel: &mut Resample, backend: &Backend, image: &ImageVolume) -> Result<(), PreprocessError> {
        let (Self::ZScore { above } | Self::Percentiles { above, .. }) = self;
        let mask = above.map_or(Mask::All, Mask::Above);
        let nothing = || PreprocessError::NothingAbove { above: above.unwrap_or(f64::NEG_INFINITY) };
        match self {
            Self::ZScore { .. } => {
                let physical = backend.statistics(image, mask)?.ok_or_else(nothing)?.physical;
                (kernel.subtract, kernel.divide) = (physical.mean, physical.standard_deviation.max(LEAST_SPREAD));
            }
            Self::Percentiles { ends, .. } => {
                let found = backend.percentiles(image, mask, &ends)?.ok_or_else(nothing)?;
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
    use crate::volume::{Quantity, Rescale};

    /// A sagittal grid of 40 x 30 x 20 voxels of 2 x 2 x 3 mm.
    fn source() -> Grid {
        let axes = Affine::from_columns([0., 2., 0.], [0., 0., -2.], [3., 0., 0.], [-30., -40., 30.]);
        Grid::new([40, 30, 20], axes).expect("axes span space")
    }

    fn resample(spacing_mm: f64) -> PreprocessStep {
        PreprocessStep::Resample { spacing_mm: [spacing_mm; 3], interpolation: Interpolation::Linear }
    }

    #[test]
    fn orientation_and_spacing_are_one_affine() {
        let steps = [PreprocessStep::Orient { to: "LPS".into() }, resample(1.0)];
        let plan = Plan::new(&steps, &source()).expect("a plan");
        assert_eq!(plan.network_grid().dims(), [60, 80, 60]);
        assert_eq!(plan.network_grid().orientation().to_string(), "LPS");
        // The kernel's affine takes the first network voxel to where the source has the same point of the patient.
        let patient = plan.network_grid().lps_from_voxel().column(3);
        let expected = source().voxel_from_lps().apply(patient);
        let found = plan.kernel.source_from_target.column(3);
        assert!((0..3).all(|n| (found[n] - expected[n]).abs() < 1e-9), "{found:?} is not {expected:?}");
    }

    #[test]
    fn a_grid_too_large_is_refused_before_memory_is_asked_for() {
        let error = Plan::new(&[resample(0.05)], &source()).expect_err("2304 million voxels are too many");
        assert_eq!(error.code(), "preprocess.too-large");
    }
    /// 0 to 9 in ten voxels, physical values twice as large and 5 less.
    fn ramp() -> ImageVolume {
        let grid = Grid::new([10, 1, 1], Affine::IDENTITY).expect("a grid");
        let rescale = vec![Rescale { slope: 2.0, intercept: -5.0 }];
        ImageVolume { stored: Volume::new(grid, (0..10).collect()).into(), rescale, quantity: Quantity::Arbitrary }
    }

    fn check(step: PreprocessStep, expected: impl Fn(f64) -> f64) {
        let plan = Plan::new(&[step], ramp().grid()).expect("a plan");
        let found = plan.run(&Backend::Cpu, &ramp()).expect("numbers");
        for (n, &found) in found.voxels().iter().enumerate() {
            let expected = expected(2.0 * n as f64 - 5.0);
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn the_image_normalises_itself() {
        // numpy: np.arange(10) * 2 - 5 has mean 4 and standard deviation 5.744562646538029; above 0 (from 1 to 13) 7 and 4.
        check(PreprocessStep::ZScore { above: None }, |v| (v - 4.0) / 5.744_562_646_538_029);
        check(PreprocessStep::ZScore { above: Some(0.0) }, |v| (v - 7.0) / 4.0);
        // np.percentile(.., [10, 95]) is [-3.2, 12.1]; above 0 [2.2, 12.4].
        check(PreprocessStep::Percentiles { low: 10.0, high: 95.0, above: None }, |v| (v.clamp(-3.2, 12.1) + 3.2) / 15.3);
        check(PreprocessStep::Percentiles { low: 10.0, high: 95.0, above: Some(0.0) }, |v| (v.clamp(2.2, 12.4) - 2.2) / 10.2);
        let plan = Plan::new(&[PreprocessStep::ZScore { above: Some(13.0) }], ramp().grid()).expect("a plan");
        let error = plan.run(&Backend::Cpu, &ramp()).expect_err("13 is the greatest");
        assert_eq!(error.code(), "preprocess.nothing-above");
    }

    #[test]
    fn an_average_over_boxes_needs_boxes() {
        let tilted = Affine::from_columns([1., 0., 0.], [0., 1., 0.], [0., 0.5, 2.], [0.; 3]);
        let tilted = Grid::new([10, 10, 10], tilted).expect("axes span space");
        let step = |interpolation| PreprocessStep::Resample { spacing_mm: [2.0; 3], interpolation };
        let error = Plan::new(&[step(Interpolation::Area)], &tilted).expect_err("it is sheared");
        assert_eq!(error.code(), "preprocess.sheared");
        assert!(Plan::new(&[step(Interpolation::Linear)], &tilted).is_ok());
    }
}
