//! Segmentations (PS3.3 A.51, C.8.20) as inputs: what their segments are, where they lie, and their voxels.
//!
//! [`Part::segmentation`] reads headers and decides, [`Segmentation::load`] decodes frames.
//!
//! 1. Frames are sparse: a position without a frame of a segment is an empty slice, which takes no memory until a volume is asked for.
//! 2. All frames lie on one regular lattice, by the tolerances of image stacks, or the object is refused.
//! 3. Segments of BINARY and FRACTIONAL objects may overlap: each has a volume of its own, and none is painted over another.

mod describe;
mod load;
mod reason;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

pub use describe::{AlgorithmType, Segment};
pub use load::LoadedSegmentation;
pub use reason::{SegmentationError, SegmentationReason};

use super::gate::{Placed, plane_and_order};
use super::part::{Class, Part};
use super::sparse::{Sparse, sparse_lattice};
use super::{GeometryPolicy, Reason, Refusal};
use crate::codes::Uid;
use crate::dataset::{Attributes, Frame, Instance, check_decodable, tags};
use crate::geometry::Grid;

/// Spacings between slices that are the same, as a part of the first.
const SPACING_TOLERANCE: f64 = 1e-3;

/// What a fraction is (Segmentation Fractional Type, 0062,0010).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FractionType {
    /// How probable it is that the voxel belongs to the segment.
    Probability,
    /// How much of the voxel does.
    Occupancy,
}

/// How voxels tell of segments (Segmentation Type, 0062,0001).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentationType {
    /// A mask of 0 and 1 a segment.
    Binary,
    /// Stored values from 0 to `maximum`, which stands for 1.
    Fractional {
        /// Maximum Fractional Value (0062,000E).
        maximum: u8,
        /// What a fraction is.
        fraction: FractionType,
    },
    /// Segment numbers.
    LabelMap {
        /// The value of voxels that belong to no segment: Pixel Padding Value (0028,0120), or 0 where it is not stated.
        background: u16,
    },
}

impl SegmentationType {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::Fractional { .. } => "FRACTIONAL",
            Self::LabelMap { .. } => "LABELMAP",
        }
    }

    /// Whether pixels are kept as this type asks for (PS3.3 C.8.20.2).
    fn fits(self, instance: &Instance) -> bool {
        let p = &instance.pixels;
        let (bits, photometric) = ((p.bits_allocated, p.bits_stored), p.photometric.as_str());
        let kept = match self {
            Self::Binary => bits == (1, 1) && photometric == "MONOCHROME2",
            Self::Fractional { .. } => bits == (8, 8) && photometric == "MONOCHROME2",
            Self::LabelMap { .. } => matches!(bits, (8, 8) | (16, 16)) && matches!(photometric, "MONOCHROME2" | "PALETTE COLOR"),
        };
        kept && p.samples == 1 && !p.signed && !p.float
    }
}

/// A segmentation whose frames passed the gate.
#[derive(Clone)]
pub struct Segmentation {
    /// From the first to the last slice that has a frame; k increases along row direction cross column direction.
    pub grid: Grid,
    /// How voxels tell of segments.
    pub kind: SegmentationType,
    /// By number.
    pub segments: Vec<Segment>,
    /// Frame of Reference UID (0020,0052): only within one frame of reference a place is the same place.
    pub frame_of_reference_uid: Uid,
    /// What the reader of a result should know.
    pub notes: Vec<String>,
    /// What the reader of a result should know of the series itself; no text of a header.
    pub warnings: Vec<String>,
    /// Study Instance UID, or the derived one.
    pub study_uid: Uid,
    /// Series Instance UID, or the derived one.
    pub series_uid: Uid,
    /// In the order of k, then of the segments.
    frames: Vec<SegmentFrame>,
}

/// One frame: of which segment, on which slice.
#[derive(Clone)]
struct SegmentFrame {
    frame: Frame,
    /// Its place in `Segmentation::segments`; 0 for those of a label map, which belong to all.
    segment: usize,
    k: u32,
}

impl fmt::Debug for Segmentation {
    /// How much there is: labels are free text of a header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segmentation({:?}, {:?}, {} segments, {} frames)", self.kind, self.grid, self.segments.len(), self.frames.len())
    }
}

impl Part<'_> {
    /// Whether it is a segmentation, for which [`Part::segmentation`] has an answer and [`Part::gate`] a refusal.
    pub fn is_segmentation(&self) -> bool {
        self.class == Class::Segmentation
    }

    /// The part as segments on a grid, whose voxels can be loaded.
    ///
    /// Where frames lie is told by Image Position, Image Orientation and Pixel Spacing; how far apart slices are, of which not all have
    /// frames, by Spacing Between Slices or the smallest distance of two frames. A sheared grid needs [`GeometryPolicy::Resample`].
    ///
    /// # Errors
    /// Every reason against it that can be told, as for [`Part::gate`]; what is no segmentation, by name.
    pub fn segmentation(&self) -> Result<Segmentation, Refusal> {
        let mut reasons = self.defects.clone();
        let segmentation = if self.is_segmentation() {
            self.segments_on_grid(&mut reasons)
        } else {
            reasons.push(SegmentationReason::NotASegmentation.into());
            None
        };
        match segmentation {
            Some(segmentation) if reasons.is_empty() => Ok(segmentation),
            _ => Err(Refusal { reasons, series_uid: self.series.series_uid.clone() }),
        }
    }

    fn segments_on_grid(&self, reasons: &mut Vec<Reason>) -> Option<Segmentation> {
        let first = self.first();
        let header = first.header().map_err(|first| reasons.push(Reason::Header { first })).ok()?;
        let total = self.frames.len();
        let instances = self.instances();
        let count = instances.iter().filter(|i| i.sop_instance_uid.is_empty()).count();
        if count > 0 {
            reasons.push(Reason::NoSopInstanceUid { count, total: instances.len() });
        }
        let errors: Vec<_> = instances.iter().filter_map(|i| check_decodable(i).err()).collect();
        if let Some(first) = errors.first() {
            reasons.push(Reason::Pixels { count: errors.len(), total: instances.len(), first: first.clone() });
        }
        let mut notes = Vec::new();
        let kind = type_of(first, &mut notes).map_err(|reason| reasons.push(reason.into())).ok();
        if let Some(kind) = kind {
            reasons.extend(check_alike(&instances, kind).map(Reason::from));
        }
        let mut segments = describe::segments_of(header).map_err(|reason| reasons.push(reason.into())).ok();
        let placed = place(&self.frames, self.policy == GeometryPolicy::Resample, reasons, &mut notes);
        let (kind, segments, placed) = (kind?, segments.as_mut()?, placed?);
        let segment_of = segment_of_frames(kind, segments, &placed.frames).map_err(|reason| reasons.push(reason.into())).ok()?;
        let frames: Vec<SegmentFrame> = placed
            .frames
            .into_iter()
            .zip(segment_of)
            .zip(placed.slice_of_frame)
            .map(|((frame, segment), k)| SegmentFrame { frame, segment, k })
            .collect();
        let mut seen = HashSet::new();
        let again: Vec<usize> = frames.iter().filter(|f| !seen.insert((f.segment, f.k))).map(|f| f.segment).collect();
        if let Some(&one) = again.first() {
            reasons.push(SegmentationReason::SharedFrames { number: segments[one].number, count: again.len() }.into());
        }
        if !matches!(kind, SegmentationType::LabelMap { .. }) {
            frames.iter().for_each(|f| segments[f.segment].frames += 1);
        }
        let slices = placed.grid.dims()[2];
        let used = frames.iter().map(|f| f.k).collect::<HashSet<_>>().len();
        notes.insert(0, format!("{total} frames on {used} of {slices} slices, {:.3} mm apart", placed.grid.spacing_mm()[2]));
        if instances.iter().any(|i| i.lossy) {
            notes.push("values went through lossy compression".into());
        }
        if first.frame_of_reference_uid.is_empty() {
            notes.push("no Frame of Reference UID: positions are compared within this object only".into());
        }
        Some(Segmentation {
            grid: placed.grid,
            kind,
            segments: std::mem::take(segments),
            frame_of_reference_uid: first.frame_of_reference_uid.clone(),
            notes,
            warnings: self.series.warnings.clone(),
            study_uid: self.series.study_uid.clone(),
            series_uid: self.series.series_uid.clone(),
            frames,
        })
    }
}

fn type_of(instance: &Instance, notes: &mut Vec<String>) -> Result<SegmentationType, SegmentationReason> {
    let h = &*instance.attributes;
    match h.text(tags::SEGMENTATION_TYPE).as_str() {
        "BINARY" => Ok(SegmentationType::Binary),
        "FRACTIONAL" => {
            let unusable = |attribute| SegmentationReason::Fractions { attribute };
            let maximum = u8::try_from(h.count(tags::MAXIMUM_FRACTIONAL_VALUE)).ok().filter(|&m| m > 0);
            let maximum = maximum.ok_or_else(|| unusable("Maximum Fractional Value"))?;
            match h.text(tags::SEGMENTATION_FRACTIONAL_TYPE).as_str() {
                "PROBABILITY" => Ok(SegmentationType::Fractional { maximum, fraction: FractionType::Probability }),
                "OCCUPANCY" => Ok(SegmentationType::Fractional { maximum, fraction: FractionType::Occupancy }),
                _ => Err(unusable("Segmentation Fractional Type")),
            }
        }
        "LABELMAP" => {
            if h.text(tags::PIXEL_PADDING_VALUE).is_empty() {
                notes.push("no Pixel Padding Value is stated: 0 is taken for background".into());
                return Ok(SegmentationType::LabelMap { background: 0 });
            }
            let largest = if instance.pixels.bits_allocated == 8 { 0xFF } else { 0xFFFF };
            let value = h.integer(tags::PIXEL_PADDING_VALUE).filter(|v| (0..=largest).contains(v));
            let background = value.and_then(|v| u16::try_from(v).ok()).ok_or(SegmentationReason::Background)?;
            Ok(SegmentationType::LabelMap { background })
        }
        _ => Err(SegmentationReason::UnknownType),
    }
}

/// Whether the pixels are what `kind` asks for, and the instances of a concatenation one object.
fn check_alike(instances: &[&Arc<Instance>], kind: SegmentationType) -> Option<SegmentationReason> {
    if let Some(odd) = instances.iter().find(|i| !kind.fits(i)) {
        let p = &odd.pixels;
        let (bits_allocated, bits_stored, samples, signed) = (p.bits_allocated, p.bits_stored, p.samples, p.signed);
        return Some(SegmentationReason::PixelFormat { kind: kind.name(), bits_allocated, bits_stored, samples, signed });
    }
    let (first, others) = instances.split_first()?;
    for other in others {
        if type_of(other, &mut Vec::new()).as_ref() != Ok(&kind) {
            return Some(SegmentationReason::MixedParts { what: "Segmentation Type" });
        }
        if other.pixels != first.pixels {
            return Some(SegmentationReason::MixedParts { what: "the description of pixels" });
        }
        let segments = |i: &Instance| i.header().ok().and_then(|header| describe::segments_of(header).ok());
        if segments(other) != segments(first) {
            return Some(SegmentationReason::MixedParts { what: "the Segment Sequence" });
        }
    }
    None
}

/// Frames on their lattice, in the order of k.
fn place(frames: &[Frame], sheared: bool, reasons: &mut Vec<Reason>, notes: &mut Vec<String>) -> Option<Placed> {
    let before = reasons.len();
    let found = plane_and_order(frames, reasons);
    let stated_mm = stated_spacing(frames).map_err(|reason| reasons.push(reason.into())).ok()?;
    let (plane, sorted) = found?;
    if reasons.len() > before {
        return None;
    }
    let positions: Vec<[f64; 3]> = sorted.iter().filter_map(|f| f.position_mm).collect();
    let Sparse { lps_from_voxel, slices, slice_of } =
        sparse_lattice(&plane, &positions, stated_mm, sheared, notes).map_err(|found| reasons.extend(found)).ok()?;
    let first = &sorted[0].instance;
    let grid = Grid::new([first.columns, first.rows, slices], lps_from_voxel).map_err(|e| reasons.push(e.into())).ok()?;
    let frames = sorted.into_iter().cloned().collect();
    Some(Placed { grid, frames, kind: super::Kind::Volume, space: super::Space::Patient, slice_of_frame: slice_of, uneven: None })
}

/// Spacing Between Slices (0018,0088) of all frames, where it is stated.
fn stated_spacing(frames: &[Frame]) -> Result<Option<f64>, SegmentationReason> {
    let spacing = |frame: &Frame| {
        let holder = frame.context().ok()?.holder(tags::SPACING_BETWEEN_SLICES)?;
        holder.number(tags::SPACING_BETWEEN_SLICES).filter(|&mm| mm > 0.0)
    };
    let first = spacing(&frames[0]);
    let same = |other: Option<f64>| match (first, other) {
        (Some(a), Some(b)) => (a - b).abs() <= SPACING_TOLERANCE * a,
        (None, None) => true,
        _ => false,
    };
    let count = frames.iter().filter(|f| !same(spacing(f))).count();
    if count > 0 {
        return Err(SegmentationReason::MixedSliceSpacing { count, total: frames.len() });
    }
    Ok(first)
}

/// For each frame the place of its segment among `segments`.
fn segment_of_frames(kind: SegmentationType, segments: &[Segment], frames: &[Frame]) -> Result<Vec<usize>, SegmentationReason> {
    if matches!(kind, SegmentationType::LabelMap { .. }) {
        return Ok(vec![0; frames.len()]);
    }
    let segment = |frame: &Frame| {
        let holder = frame.context().ok()?.holder(tags::REFERENCED_SEGMENT_NUMBER)?;
        let number = u16::try_from(holder.integer(tags::REFERENCED_SEGMENT_NUMBER)?).ok()?;
        segments.binary_search_by_key(&number, |s| s.number).ok()
    };
    let found: Vec<Option<usize>> = frames.iter().map(segment).collect();
    let count = found.iter().filter(|s| s.is_none()).count();
    if count > 0 {
        return Err(SegmentationReason::UnknownSegment { count, total: frames.len() });
    }
    Ok(found.into_iter().flatten().collect())
}
