//! Why a segmentation is not read.

use thiserror::Error;

use crate::geometry::Coded;
use crate::series::SeriesError;

/// One reason why an object is not taken as segments on a grid.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SegmentationReason {
    /// Of another kind.
    #[error("this part of the series is no segmentation; ask for a stack of images")]
    NotASegmentation,
    /// Segmentation Type (0062,0001).
    #[error("Segmentation Type is none of BINARY, FRACTIONAL and LABELMAP")]
    UnknownType,
    /// Maximum Fractional Value (0062,000E) or Segmentation Fractional Type (0062,0010).
    #[error("FRACTIONAL without a {attribute} that can be used: what its values mean is unknown")]
    Fractions {
        /// Name of the attribute.
        attribute: &'static str,
    },
    /// Pixels of another kind than the type asks for (PS3.3 C.8.20.2).
    #[error("{bits_stored} bits stored of {bits_allocated} allocated, {} sample(s), {}: that is not how {kind} is kept",
            .samples, if *.signed { "signed" } else { "unsigned" })]
    PixelFormat {
        /// Segmentation Type.
        kind: &'static str,
        /// Bits Allocated.
        bits_allocated: u16,
        /// Bits Stored.
        bits_stored: u16,
        /// Samples per Pixel.
        samples: u16,
        /// Pixel Representation.
        signed: bool,
    },
    /// Pixel Padding Value (0028,0120) of a label map that is no value it can hold.
    #[error("Pixel Padding Value, which says what background is, is unreadable or no value of its pixels")]
    Background,
    /// No Segment Sequence (0062,0002), or more items than there are numbers.
    #[error("{count} items in the Segment Sequence, 1 to 65536 can be")]
    SegmentCount {
        /// Items.
        count: usize,
    },
    /// Segment Number (0062,0004).
    #[error("{count} of {total} segments have a Segment Number that is missing, out of range or that of another one")]
    SegmentNumbers {
        /// Segments without a usable number.
        count: usize,
        /// All segments.
        total: usize,
    },
    /// Referenced Segment Number (0062,000B).
    #[error("{count} of {total} frames name no segment, or one that is not described")]
    UnknownSegment {
        /// Frames without a segment.
        count: usize,
        /// All frames.
        total: usize,
    },
    /// Segments over time, or a broken object.
    #[error("segment {number} has several frames at one position, {count} in all; a segment over time is not read")]
    SharedFrames {
        /// The first such segment.
        number: u16,
        /// Frames beyond the first of a segment and position.
        count: usize,
    },
    /// Nothing says how far slices are apart.
    #[error("all frames lie at one position, and Spacing Between Slices is not stated: how thick a slice is, is unknown")]
    OnePosition,
    /// Frames that contradict Spacing Between Slices (0018,0088).
    #[error("frames lie {gap_mm:.3} mm apart, which is no multiple of the Spacing Between Slices of {stated_mm:.3} mm")]
    StatedSpacing {
        /// Spacing Between Slices, mm.
        stated_mm: f64,
        /// The smallest distance of frames, mm.
        gap_mm: f64,
    },
    /// Several values of Spacing Between Slices.
    #[error("{count} of {total} frames have another Spacing Between Slices than the first")]
    MixedSliceSpacing {
        /// Frames that differ.
        count: usize,
        /// All frames.
        total: usize,
    },
    /// Parts of a concatenation that are not alike.
    #[error("the instances of a concatenation differ in {what}")]
    MixedParts {
        /// Name of the attribute.
        what: &'static str,
    },
}

impl Coded for SegmentationReason {
    fn code(&self) -> &'static str {
        match self {
            Self::NotASegmentation => "segmentation.not-a-segmentation",
            Self::UnknownType => "segmentation.unknown-type",
            Self::Fractions { .. } => "segmentation.fractions",
            Self::PixelFormat { .. } => "segmentation.pixel-format",
            Self::Background => "segmentation.background",
            Self::SegmentCount { .. } => "segmentation.segment-count",
            Self::SegmentNumbers { .. } => "segmentation.segment-numbers",
            Self::UnknownSegment { .. } => "segmentation.unknown-segment",
            Self::SharedFrames { .. } => "segmentation.shared-frames",
            Self::OnePosition => "segmentation.one-position",
            Self::StatedSpacing { .. } => "segmentation.stated-spacing",
            Self::MixedSliceSpacing { .. } => "segmentation.mixed-slice-spacing",
            Self::MixedParts { .. } => "segmentation.mixed-parts",
        }
    }
}

/// Why the voxels of a segmentation cannot be had.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SegmentationError {
    /// Frames that cannot be read, or do not fit in memory.
    #[error(transparent)]
    Series(#[from] SeriesError),
    /// A value that means nothing.
    #[error("{voxels} voxels have values that mean nothing, {value} among them: {why}")]
    Value {
        /// The least of these values.
        value: u32,
        /// Voxels with such values.
        voxels: usize,
        /// What is wrong with them.
        why: &'static str,
    },
    /// No such segment, or it was not loaded.
    #[error("segment {number} is not among those that were loaded")]
    NoSegment {
        /// The Segment Number that was asked for.
        number: u16,
    },
    /// Masks of fractions, fractions of masks.
    #[error("a {kind} segmentation has no {wanted}")]
    OtherKind {
        /// Segmentation Type.
        kind: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// Segment numbers beyond 255 do not fit a label map of bytes.
    #[error("{value} is among the values, and a label map holds up to 255: ask for the masks of single segments")]
    LabelTooLarge {
        /// The largest value.
        value: u16,
    },
    /// It does not lie on the grid that was asked for.
    #[error(
        "slice {index} of the segmentation lies on no slice of the grid: {off_mm:.3} mm off, {allowed_mm:.3} mm are allowed \
         ({columns} x {rows} against {grid_columns} x {grid_rows} voxels)"
    )]
    OtherGrid {
        /// Slice k of the segmentation's own grid.
        index: u32,
        /// Largest distance of its corners from the nearest slice of the grid; infinite where there is none or sizes differ.
        off_mm: f64,
        /// What is allowed, mm.
        allowed_mm: f64,
        /// Columns of the segmentation.
        columns: u32,
        /// Rows of the segmentation.
        rows: u32,
        /// Columns of the grid.
        grid_columns: u32,
        /// Rows of the grid.
        grid_rows: u32,
    },
}

impl Coded for SegmentationError {
    fn code(&self) -> &'static str {
        match self {
            Self::Series(error) => error.code(),
            Self::Value { .. } => "segmentation.value",
            Self::NoSegment { .. } => "segmentation.no-segment",
            Self::OtherKind { .. } => "segmentation.other-kind",
            Self::LabelTooLarge { .. } => "segmentation.label-too-large",
            Self::OtherGrid { .. } => "segmentation.other-grid",
        }
    }
}
