//! Why a series is no volume.

use std::fmt;

use thiserror::Error;

use super::{SegmentationReason, ValueReason};
use crate::codes::Uid;
use crate::dataset::DatasetError;
use crate::geometry::{Coded, GeometryError};

/// One reason why a series is not taken as a regular stack of slices. Slices are counted from 0 along the normal.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Reason {
    /// One series UID, several patients.
    #[error("instances of {patients} patients carry one series UID; separate them, and ask the sender")]
    MixedPatients {
        /// Number of patients.
        patients: usize,
    },
    /// One series UID, several studies.
    #[error("instances of {studies} studies carry one series UID; separate them, and ask the sender")]
    MixedStudies {
        /// Number of studies.
        studies: usize,
    },
    /// One SOP Instance UID, several contents.
    #[error("{conflicts} instances carry the SOP Instance UID of another one with other content; remove the wrong ones")]
    ConflictingCopies {
        /// Number of instances beyond the first of each UID.
        conflicts: usize,
    },
    /// No SOP Instance UID, so that results cannot refer to the instance.
    #[error("{count} of {total} instances have no SOP Instance UID")]
    NoSopInstanceUid {
        /// Instances without.
        count: usize,
        /// All instances.
        total: usize,
    },
    /// What should be a UID is some other text, which must reach neither results nor names of files.
    #[error("the {what} UID of {count} of {total} instances is no UID")]
    InvalidUid {
        /// Study Instance, Series Instance, SOP Instance or Frame of Reference.
        what: &'static str,
        /// Instances with such a text.
        count: usize,
        /// All instances.
        total: usize,
    },
    /// Of a SOP class that holds no image which is read.
    #[error("{count} of {total} instances are {what}, not images that are read")]
    NotASlice {
        /// Instances of another class.
        count: usize,
        /// All instances.
        total: usize,
        /// What the first of them is.
        what: &'static str,
    },
    /// Several modalities or SOP classes.
    #[error("{kinds} kinds of instances (modality and SOP class) in one series")]
    MixedKinds {
        /// Number of kinds.
        kinds: usize,
    },
    /// Frames that cannot be told apart or counted.
    #[error("the frames of {count} of {total} instances cannot be used: {first}")]
    Frames {
        /// Instances whose frames cannot be used.
        count: usize,
        /// All instances.
        total: usize,
        /// What is wrong with the first.
        first: DatasetError,
    },
    /// An object that was sent in several instances, not all of which are there.
    #[error("{found} of {expected} instances of a concatenation are there: send the series again")]
    Concatenation {
        /// Instances that are there.
        found: usize,
        /// Instances that there should be.
        expected: usize,
    },
    /// Siemens mosaic: the slices of a volume as tiles of one image.
    #[error(
        "{count} of {total} images are mosaics (Image Type), whose tiles are not taken apart; ask for single slices or enhanced objects"
    )]
    Mosaic {
        /// Mosaics.
        count: usize,
        /// All images.
        total: usize,
    },
    /// Colour and grey images in one stack.
    #[error("{count} of {total} images are in colour, the others are not")]
    MixedColours {
        /// Colour images.
        count: usize,
        /// All images.
        total: usize,
    },
    /// A header of which single values can be read, but not the whole.
    #[error("the header that results would be made from cannot be used: {first}")]
    Header {
        /// What is wrong with it.
        first: DatasetError,
    },
    /// Localizer, scout, surview.
    #[error("{count} of {total} instances are localizers (Image Type value 3)")]
    Localizer {
        /// Localizers.
        count: usize,
        /// All instances.
        total: usize,
    },
    /// Pixel data that is missing or cannot be decoded.
    #[error("pixel data of {count} of {total} instances cannot be used: {first}")]
    Pixels {
        /// Instances whose pixels cannot be used.
        count: usize,
        /// All instances.
        total: usize,
        /// What is wrong with the first.
        first: DatasetError,
    },
    /// What the values mean is unknown or contradictory.
    #[error(transparent)]
    Values(#[from] ValueReason),
    /// A segmentation that is not taken.
    #[error(transparent)]
    Segmentation(#[from] SegmentationReason),
    /// A geometry attribute is missing or unreadable.
    #[error("{attribute} is missing or unreadable in {count} of {total} instances")]
    NoGeometry {
        /// Name of the attribute.
        attribute: &'static str,
        /// Instances without.
        count: usize,
        /// All instances.
        total: usize,
    },
    /// Several frames of reference: positions cannot be compared.
    #[error("{frames} frames of reference in one series, so positions cannot be compared")]
    MixedFramesOfReference {
        /// Number of Frame of Reference UIDs.
        frames: usize,
    },
    /// Several matrix sizes.
    #[error("{sizes} matrix sizes in one series; the first is {rows} rows, {columns} columns")]
    MixedSizes {
        /// Number of sizes.
        sizes: usize,
        /// Rows of the first slice.
        rows: u32,
        /// Columns of the first slice.
        columns: u32,
    },
    /// Pixel Spacing is not positive.
    #[error("Pixel Spacing of {} mm between rows and {} mm between columns", spacing_mm[0], spacing_mm[1])]
    BadPixelSpacing {
        /// Between rows, between columns, mm.
        spacing_mm: [f64; 2],
    },
    /// Several pixel spacings.
    #[error("{count} of {total} slices have another Pixel Spacing than the first")]
    MixedPixelSpacing {
        /// Slices that differ.
        count: usize,
        /// All slices.
        total: usize,
    },
    /// Orientation vectors that are not of length 1 or not orthogonal.
    #[error("orientation vectors have lengths {row_length:.6} and {column_length:.6} and a scalar product of {product:.6}, not 1, 1 and 0")]
    BadOrientation {
        /// Length of the row direction.
        row_length: f64,
        /// Length of the column direction.
        column_length: f64,
        /// Their scalar product.
        product: f64,
    },
    /// Several orientations.
    #[error("{orientations} orientations in one series, the normals up to {angle_deg:.2} degrees apart from the first")]
    MixedOrientations {
        /// Number of orientations.
        orientations: usize,
        /// Largest angle between a slice's normal and that of the first, degrees.
        angle_deg: f64,
    },
    /// One slice makes no volume.
    #[error("{count} {}, a volume needs at least 2", if *count == 1 { "slice" } else { "slices" })]
    TooFewSlices {
        /// Number of slices.
        count: usize,
    },
    /// Several slices at one position: phases, echoes, a repeated or monitored slice.
    #[error("{slices} slices lie at {positions} positions (first shared at {at_mm:.2} mm along the normal); select one phase")]
    SharedPositions {
        /// Number of slices.
        slices: usize,
        /// Number of positions.
        positions: usize,
        /// First shared position along the normal, mm.
        at_mm: f64,
    },
    /// Distances that are not multiples of one spacing.
    #[error(
        "slice distances along the normal vary from {min_mm:.3} to {max_mm:.3} mm, median {median_mm:.3} mm, first after slice {index}; \
             slices lie up to {off_mm:.3} mm off a regular stack, {allowed_mm:.3} mm are allowed"
    )]
    UnevenSpacing {
        /// The slice before the first odd distance.
        index: usize,
        /// Smallest distance, mm.
        min_mm: f64,
        /// Median distance, mm.
        median_mm: f64,
        /// Largest distance, mm.
        max_mm: f64,
        /// Largest distance of a slice from its place in the best regular stack, mm.
        off_mm: f64,
        /// What is allowed, mm.
        allowed_mm: f64,
    },
    /// Gaps of whole multiples of the spacing.
    #[error(
        "gap of {gap_mm:.3} mm after slice {index}, expected {expected_mm:.3} mm; {missing} {} to be missing in all: \
             send the series again",
        if *missing == 1 { "slice seems" } else { "slices seem" }
    )]
    MissingSlices {
        /// The slice before the first gap.
        index: usize,
        /// The first gap, mm.
        gap_mm: f64,
        /// The spacing, mm.
        expected_mm: f64,
        /// How many slices would fill all gaps.
        missing: usize,
    },
    /// Sheared stack: gantry tilt.
    #[error("the stack is sheared: slices advance {angle_deg:.2} degrees off their normal (gantry tilt), {allowed_deg:.2} are allowed")]
    Sheared {
        /// Angle between the direction from slice to slice and the normal, degrees.
        angle_deg: f64,
        /// What is allowed, degrees.
        allowed_deg: f64,
    },
    /// One slice is displaced within its plane.
    #[error("slice {index} lies {off_mm:.3} mm off the line of the others within its plane, {allowed_mm:.3} mm are allowed")]
    Displaced {
        /// The worst slice.
        index: usize,
        /// Displacement, mm.
        off_mm: f64,
        /// What is allowed, mm.
        allowed_mm: f64,
    },
    /// The numbers make no lattice.
    #[error(transparent)]
    Grid(#[from] GeometryError),
}

impl Coded for Reason {
    fn code(&self) -> &'static str {
        match self {
            Self::MixedPatients { .. } => "series.mixed-patients",
            Self::MixedStudies { .. } => "series.mixed-studies",
            Self::ConflictingCopies { .. } => "series.conflicting-copies",
            Self::NoSopInstanceUid { .. } => "series.no-sop-instance-uid",
            Self::InvalidUid { .. } => "series.invalid-uid",
            Self::NotASlice { .. } => "series.not-a-slice",
            Self::MixedKinds { .. } => "series.mixed-kinds",
            Self::Frames { .. } => "series.frames",
            Self::Concatenation { .. } => "series.concatenation",
            Self::Mosaic { .. } => "series.mosaic",
            Self::MixedColours { .. } => "series.mixed-colours",
            Self::Header { .. } => "series.header",
            Self::Localizer { .. } => "series.localizer",
            Self::Pixels { .. } => "series.pixels",
            Self::Values(reason) => reason.code(),
            Self::Segmentation(reason) => reason.code(),
            Self::NoGeometry { .. } => "series.no-geometry",
            Self::MixedFramesOfReference { .. } => "series.mixed-frames-of-reference",
            Self::MixedSizes { .. } => "series.mixed-sizes",
            Self::BadPixelSpacing { .. } => "series.bad-pixel-spacing",
            Self::MixedPixelSpacing { .. } => "series.mixed-pixel-spacing",
            Self::BadOrientation { .. } => "series.bad-orientation",
            Self::MixedOrientations { .. } => "series.mixed-orientations",
            Self::TooFewSlices { .. } => "series.too-few-slices",
            Self::SharedPositions { .. } => "series.shared-positions",
            Self::UnevenSpacing { .. } => "series.uneven-spacing",
            Self::MissingSlices { .. } => "series.missing-slices",
            Self::Sheared { .. } => "series.sheared",
            Self::Displaced { .. } => "series.displaced",
            Self::Grid(e) => e.code(),
        }
    }
}

/// All reasons why a series is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// At least one.
    pub reasons: Vec<Reason>,
    /// The series.
    pub series_uid: Uid,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, reason) in self.reasons.iter().enumerate() {
            write!(f, "{}{reason}", if n == 0 { "" } else { "; " })?;
        }
        write!(f, " (series {})", self.series_uid)
    }
}

impl std::error::Error for Refusal {}

impl Coded for Refusal {
    fn code(&self) -> &'static str {
        self.reasons.first().map_or("series.refused", |reason| reason.code())
    }
}
