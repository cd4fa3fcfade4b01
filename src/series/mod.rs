//! Instances to sorted, checked series, and those to a volume on one grid.
//!
//! [`discover`] finds the series below files and folders ([`Inventory`] the studies of a disk, without holding their headers), [`Series::parts`] says what each is made of, [`Part::gate`] whether a part is
//! a regular stack of slices, and why not, and [`Stack::load`] puts its stored values on the grid.
//! A segmentation is no stack: [`Part::segmentation`] and [`Segmentation::load`] are its gate and its voxels.

mod archive;
mod dicomdir;
mod discover;
mod even;
mod gate;
mod inventory;
mod lattice;
mod part;
mod picture;
mod reason;
mod segmentation;
mod sparse;
mod stack;
#[cfg(test)]
mod tests;
mod values;

pub use archive::ArchiveError;
pub(crate) use discover::real_path;
pub use discover::{Discovery, InputError, Skipped, VolumeFile, discover};
pub use gate::GeometryPolicy;
pub use inventory::{Inventory, StudyFiles};
pub(crate) use lattice::allowed as allowed_off_place_mm;
pub use part::Part;
pub use reason::{Reason, Refusal};
pub use segmentation::{
    AlgorithmType, FractionType, LoadedSegmentation, Segment, Segmentation, SegmentationError, SegmentationReason, SegmentationType,
};
pub use stack::{Kind, Loaded, SeriesError, Space, Stack};
pub use values::{Mapping, ModalityLut, SuvError, ValueFault, ValueReason, VoiWindow, WindowFunction};
pub(crate) use values::{has_voi_lut, windows};

use std::sync::Arc;

use crate::codes::Uid;
use crate::dataset::Instance;

/// The instances that belong together, before anything is said about their geometry.
#[derive(Debug, Clone)]
pub struct Series {
    /// Study Instance UID (0020,000D), or one derived from the instances, with a warning.
    pub study_uid: Uid,
    /// Series Instance UID (0020,000E), or one derived from the instances, with a warning.
    pub series_uid: Uid,
    /// Modality (0008,0060) of the first instance.
    pub modality: String,
    /// Series Number (0020,0011) of the first instance.
    pub series_number: Option<i64>,
    /// At least one, by Instance Number and then SOP Instance UID.
    pub instances: Vec<Arc<Instance>>,
    /// What the reader of a result should know. No text of a header.
    pub warnings: Vec<String>,
    /// Why these instances must not be used together, found while they were grouped.
    defects: Vec<Reason>,
}

impl Series {
    /// The series of these `instances`, in any order, for programs that hold them already. All must have the same series UID, or none.
    ///
    /// # Panics
    /// Without instances: a broken promise of the caller.
    pub fn new(instances: Vec<Instance>) -> Self {
        discover::series_of(instances)
    }

    /// Series Description (0008,103E) of the first instance: free text, for selection by rules only, never for a message or a log.
    pub fn description(&self) -> &str {
        &self.instances[0].series_description
    }
}
