//! Several images as the channels of one network's input: one grid, and one pass for each.
//!
//! The reference's grid gives the network's. An image on the same grid goes through the same pass. One on another grid of the same
//! frame of reference goes from its own voxels to the network's by its own affine, in one interpolation, and never by way of the reference's
//! grid. What the package calls foreground (`crop`, `z-score` with `over = "nonzero"`) is that of all images together, as in nnU-Net.

use super::{Crop, Over, Plan, PreprocessError};
use crate::geometry::{Grid, SAME_PLACE};
use crate::kernels::bounding_box::Bounds;
use crate::kernels::holes::fill_holes_cpu;
use crate::kernels::{Backend, Interpolation, Mask, Resample};
use crate::model::{Foreground, PreprocessStep, StageLabel};
use crate::volume::{ImageVolume, LabelMap, Quantity, Rescale, Volume};

/// An image that a network sees as one channel of its input.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// For people.
    pub name: &'a str,
    /// Its voxels.
    pub image: &'a ImageVolume,
    /// The package's steps for it.
    pub steps: &'a [PreprocessStep],
}

/// What the stage before has found.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    /// On the reference's grid.
    pub labels: &'a LabelMap,
    /// What they are called.
    pub names: &'a [StageLabel],
}

impl Previous<'_> {
    /// The value of a label.
    ///
    /// # Panics
    /// Where there is none of that name: a broken promise of the manifest.
    fn value(&self, name: &str) -> u8 {
        self.names.iter().find(|label| label.name == *name).expect("the manifest was checked: the stage before has it").value
    }
}

/// The plans of all images that a network sees.
#[derive(Debug)]
pub struct Plans<'a> {
    seen: Vec<Seen<'a>>,
    plans: Vec<Plan>,
    reference: usize,
    /// What is not 0 in any image, with its holes filled, on the reference's grid; where a package normalises by it.
    nonzero: Option<LabelMap>,
}

impl<'a> Plans<'a> {
    /// Composes the steps of each image; those of geometry are the same for all, which the manifest guarantees.
    ///
    /// # Errors
    /// As [`super::source_box`] and [`Plan::new`] have; [`PreprocessError::ObliqueChannel`] and [`PreprocessError::NothingLocated`].
    ///
    /// # Panics
    /// Where there is no image `reference`: a broken promise of the caller.
    pub fn new(seen: Vec<Seen<'a>>, reference: usize, previous: Option<Previous<'_>>, backend: &Backend) -> Result<Self, PreprocessError> {
        let Seen { image, steps, .. } = seen[reference];
        let grid = image.grid();
        let shares_grid = |other: &Seen<'_>| grid.coincides(other.image.grid());
        let source_box = source_box(&seen, reference, previous, backend)?;
        let of_reference = Plan::new(steps, grid, source_box)?;
        let plan = |(n, other): (usize, &Seen<'a>)| match n == reference {
            true => Ok(of_reference.clone()),
            false if shares_grid(other) => Plan::new(other.steps, grid, source_box),
            false => Plan::onto(&of_reference, other.steps, other.image.grid(), other.name),
        };
        let plans = seen.iter().enumerate().map(plan).collect::<Result<Vec<_>, _>>()?;
        let is_masked = |step: &PreprocessStep| matches!(step, PreprocessStep::ZScore { over: Some(Foreground::Nonzero), .. });
        let needs_mask = seen.len() > 1 && seen.iter().any(|one| one.steps.iter().any(is_masked));
        let nonzero = if needs_mask { Some(nonzero_of_all(&seen, grid, backend)?) } else { None };
        Ok(Self { seen, plans, reference, nonzero })
    }

    /// The plan of the image whose grid results lie on.
    pub fn reference(&self) -> &Plan {
        &self.plans[self.reference]
    }

    /// The network's input: a volume on its grid for each image, and for each label of `one_hot` of the stage before one that is 1 where the label
    /// is and 0 elsewhere.
    ///
    /// # Errors
    /// As [`Plan::run`].
    pub fn run(&self, one_hot: &[String], previous: Option<Previous<'_>>, backend: &Backend) -> Result<Vec<Volume<f32>>, PreprocessError> {
        let one = |(seen, plan): (&Seen<'_>, &Plan)| match &self.nonzero {
            Some(nonzero) if plan.is_elsewhere => {
                plan.run_within(backend, seen.image, Some(&nearest(nonzero, seen.image.grid(), backend)?))
            }
            nonzero => plan.run_within(backend, seen.image, nonzero.as_ref()),
        };
        let mut input = self.seen.iter().zip(&self.plans).map(one).collect::<Result<Vec<_>, _>>()?;
        if let Some(previous) = previous.filter(|_| !one_hot.is_empty()) {
            let labels = self.reference().labels(backend, previous.labels)?;
            let channel = |name: &String| {
                let value = previous.value(name);
                let is = |&label: &u8| f32::from(u8::from(label == value));
                Volume::new(*labels.grid(), labels.voxels().iter().map(is).collect())
            };
            input.extend(one_hot.iter().map(channel));
        }
        Ok(input)
    }

    /// What the reader of a result should know of the network's grid and of what was brought onto it.
    pub fn notes(&self) -> Vec<String> {
        let elsewhere = self.seen.iter().zip(&self.plans).filter(|(_, plan)| plan.is_elsewhere);
        let of_channel = elsewhere.map(|(seen, plan)| {
            let dims = seen.image.grid().dims().map(|n| n.to_string()).join(" x ");
            format!(
                "channel {}: interpolated from a grid of its own, {dims} voxels, by the frame of reference that it shares with the reference; \
                 where it has no voxels the network saw {}",
                seen.name,
                plan.outside_in_words()
            )
        });
        self.reference().note().into_iter().chain(of_channel).collect()
    }
}

/// As [`super::source_box`] of the foreground of all images together, each with its own.
fn source_box(
    seen: &[Seen<'_>],
    reference: usize,
    previous: Option<Previous<'_>>,
    backend: &Backend,
) -> Result<Option<Bounds>, PreprocessError> {
    let Seen { image, steps, .. } = seen[reference];
    let Some(crop) = Crop::among(steps) else { return Ok(None) };
    let grid = image.grid();
    if !crop.labelled.is_empty() {
        let previous = previous.expect("the manifest was checked: there is a stage before");
        let values: Vec<u8> = crop.labelled.iter().map(|name| previous.value(name)).collect();
        let kept = previous.labels.voxels().iter().map(|label| values.contains(label).into()).collect();
        let kept = LabelMap::new(*grid, kept);
        let around = backend.bounding_box(image, Mask::Labelled(&kept))?;
        let around = around.ok_or_else(|| PreprocessError::NothingLocated { labels: crop.labelled.to_vec() })?;
        return Ok(crop.with_margin(around, grid));
    }
    let mut around: Option<Bounds> = None;
    for Seen { image, .. } in seen {
        let found = backend.bounding_box(image, crop.over.mask())?;
        let found = if grid.coincides(image.grid()) { found } else { found.and_then(|bounds| moved(bounds, image.grid(), grid)) };
        around = match (around, found) {
            (Some([a, b]), Some([c, d])) => Some([std::array::from_fn(|n| a[n].min(c[n])), std::array::from_fn(|n| b[n].max(d[n]))]),
            (one, other) => one.or(other),
        };
    }
    Ok(crop.with_margin(around.ok_or_else(|| crop.over.nothing())?, grid))
}

/// The voxels of `to` that share some of the space of `bounds` in `from`; `None` where there are none.
pub(super) fn moved([low, high]: Bounds, from: &Grid, to: &Grid) -> Option<Bounds> {
    let to_from = to.voxel_from_lps() * from.lps_from_voxel();
    let (mut least, mut most) = ([f64::INFINITY; 3], [f64::NEG_INFINITY; 3]);
    for corner in 0..8 {
        let face = |n: usize| if corner >> n & 1 == 1 { f64::from(high[n]) + 0.5 } else { f64::from(low[n]) - 0.5 };
        let at = to_from.apply(std::array::from_fn(face));
        least = std::array::from_fn(|n| least[n].min(at[n]));
        most = std::array::from_fn(|n| most[n].max(at[n]));
    }
    let ends = to.dims().map(|n| f64::from(n - 1));
    let first: [f64; 3] = std::array::from_fn(|n| (least[n] + 0.5 + SAME_PLACE).floor().max(0.0));
    let last: [f64; 3] = std::array::from_fn(|n| (most[n] - 0.5 - SAME_PLACE).ceil().min(ends[n]));
    (0..3).all(|n| first[n] <= last[n]).then(|| [first.map(|v| v as u32), last.map(|v| v as u32)])
}

/// What is not 0 in any image, with its holes filled, on `grid`.
fn nonzero_of_all(seen: &[Seen<'_>], grid: &Grid, backend: &Backend) -> Result<LabelMap, PreprocessError> {
    let mut all = vec![0u8; grid.voxel_count()];
    for Seen { image, .. } in seen {
        let own = Mask::Nonzero.label_map(image, None);
        let own = if grid.coincides(image.grid()) { own } else { nearest(&own, grid, backend)? };
        all.iter_mut().zip(own.voxels()).for_each(|(all, &own)| *all |= own);
    }
    fill_holes_cpu(&mut all, grid.dims(), 1, false);
    if !all.contains(&1) {
        return Err(Over::Nonzero.nothing());
    }
    Ok(LabelMap::new(*grid, all))
}

/// `labels` on another grid: those of the nearest voxels, 0 where there is none.
fn nearest(labels: &LabelMap, onto: &Grid, backend: &Backend) -> Result<LabelMap, PreprocessError> {
    let kernel = Resample {
        interpolation: Interpolation::Nearest,
        outside: Some(0.0),
        ..Resample::new(onto.dims(), labels.grid().voxel_from_lps() * onto.lps_from_voxel())
    };
    let values = backend.resample(&as_image(labels, |label| label.into()), &kernel)?;
    Ok(LabelMap::new(*onto, values.into_iter().map(|value| value as u8).collect()))
}

/// What `value_of` makes of labels, as an image.
pub(super) fn as_image(labels: &LabelMap, value_of: impl Fn(u8) -> i16) -> ImageVolume {
    let grid = *labels.grid();
    let values = labels.voxels().iter().map(|&label| value_of(label)).collect();
    let rescale = vec![Rescale { slope: 1.0, intercept: 0.0 }; grid.dims()[2] as usize];
    ImageVolume { stored: Volume::new(grid, values).into(), rescale, quantity: Quantity::Arbitrary }
}
