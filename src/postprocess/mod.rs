//! Class scores on the network's grid to a label map on the source grid; boxes to those that are objects.

mod boxes;
mod maps;
mod objects;

use thiserror::Error;

pub use boxes::{are_one, iou, suppressed};
pub use maps::{Spread, map_on, probability_of, values_on};
pub use objects::{ObjectScores, objects_on};

use crate::geometry::{Coded, Grid};
use crate::gpu::GpuError;
use crate::infer::Scores;
use crate::kernels::bounding_box::uncrop;
use crate::kernels::probabilities::softmax_cpu;
use crate::kernels::{Backend, ComponentFilter, Rule, ScoresToLabels};
use crate::model::PostprocessStep;
use crate::volume::{LabelMap, Volume};

/// Why postprocessing cannot run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PostprocessError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] GpuError),
    /// An object has no score.
    #[error(
        "the probability is no number at voxels of an object of `{finding}`: the network's scores are too far apart for single precision"
    )]
    Score {
        /// Name of the finding in the package.
        finding: String,
    },
}

impl PostprocessError {
    /// What the device did wrong.
    pub fn device(&self) -> Option<&GpuError> {
        match self {
            Self::Device(error) => Some(error),
            Self::Score { .. } => None,
        }
    }
}

impl Coded for PostprocessError {
    fn code(&self) -> &'static str {
        match self {
            Self::Device(error) => error.code(),
            Self::Score { .. } => "postprocess.score",
        }
    }
}

/// Carries out the step that comes before scores are interpolated, in place, where there is one: `softmax`. On the CPU whatever the backend,
/// since scores are in host memory.
pub fn activate(scores: &mut Scores, steps: &[PostprocessStep]) {
    if steps.contains(&PostprocessStep::Softmax) {
        let channels = scores.values.len() / scores.grid.voxel_count();
        softmax_cpu(&mut scores.values, channels);
    }
}

/// Carries out the manifest's other steps: `label_of_channel[c]` is the label of class `c`. What the scores do not answer for is 0.
///
/// # Errors
/// [`PostprocessError`] where the device fails.
pub fn labels_on(
    source: &Grid,
    scores: &Scores,
    label_of_channel: &[u8],
    steps: &[PostprocessStep],
    backend: &Backend,
) -> Result<LabelMap, PostprocessError> {
    let rule = match steps.first() {
        Some(PostprocessStep::Regions { above }) => Rule::LastAbove(*above),
        _ => Rule::Highest,
    };
    let kernel = ScoresToLabels { rule, ..kernel_on(&answered_by(scores, source), scores, label_of_channel) };
    let mut labels = backend.scores_to_labels(&scores.values, &kernel)?;
    if let Some(bounds) = scores.source_box {
        labels = uncrop(&labels, source.dims(), bounds);
    }
    for step in steps {
        match *step {
            // Done before and above: the manifest guarantees that they come first.
            PostprocessStep::Softmax | PostprocessStep::Argmax | PostprocessStep::Regions { .. } => {}
            PostprocessStep::Components { min_ml, keep_largest } => {
                let min_voxels = (min_ml * 1000.0 / source.voxel_volume_mm3()).ceil() as u64;
                backend.filter_components(&mut labels, source.dims(), ComponentFilter { min_voxels, keep_largest });
            }
        }
    }
    Ok(Volume::new(*source, labels))
}

/// The part of the source that the scores answer for.
fn answered_by(scores: &Scores, source: &Grid) -> Grid {
    scores.source_box.map_or(*source, |bounds| source.part(bounds))
}

/// Where the voxels of `target`, the source or a part of it, lie among the scores. The highest of them wins.
fn kernel_on<'a>(target: &Grid, scores: &Scores, label_of_channel: &'a [u8]) -> ScoresToLabels<'a> {
    ScoresToLabels {
        network_dims: scores.grid.dims(),
        target_dims: target.dims(),
        network_from_target: scores.grid.voxel_from_lps() * target.lps_from_voxel(),
        interpolation: scores.interpolation,
        label_of_channel,
        rule: Rule::Highest,
    }
}
