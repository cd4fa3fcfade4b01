//! What segments are: items of the Segment Sequence (PS3.3 C.8.20.4).

use std::collections::HashSet;

use dicom::object::InMemDicomObject;

use super::SegmentationReason;
use crate::codes::{Code, Uid, is_uid};
use crate::dataset::{Attributes, codes, items, tags};

/// More segments than Segment Number (US) can number.
const MAX_SEGMENTS: usize = 1 << 16;

/// How a segment was made (Segment Algorithm Type, 0062,0008).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlgorithmType {
    /// By a program alone.
    Automatic,
    /// By a program that a person helped.
    Semiautomatic,
    /// By a person.
    Manual,
    /// It does not say.
    Unstated,
}

impl AlgorithmType {
    /// As it is written; `UNSTATED` where nothing usable is.
    pub fn name(self) -> &'static str {
        match self {
            Self::Automatic => "AUTOMATIC",
            Self::Semiautomatic => "SEMIAUTOMATIC",
            Self::Manual => "MANUAL",
            Self::Unstated => "UNSTATED",
        }
    }
}

/// One segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Segment Number (0062,0004): its value in a label map, where it may be 0 for a background that is described.
    pub number: u16,
    /// Segment Label (0062,0005): free text, never for a message or a log.
    pub label: String,
    /// Segmented Property Category (0062,0003). The meaning is text of the header, as that of all codes here.
    pub category: Option<Code>,
    /// Segmented Property Type (0062,000F).
    pub property_type: Option<Code>,
    /// Segmented Property Type Modifiers (0062,0011): sides, for one.
    pub modifiers: Vec<Code>,
    /// How it was made.
    pub algorithm_type: AlgorithmType,
    /// Tracking UID (0062,0021).
    pub tracking_uid: Option<Uid>,
    /// Frames of it; 0 for segments of a label map, whose frames belong to all, and for segments without a voxel.
    pub frames: usize,
}

/// The segments that `header` describes, by number.
pub(super) fn segments_of(header: &InMemDicomObject) -> Result<Vec<Segment>, SegmentationReason> {
    let items = items(header, tags::SEGMENT_SEQUENCE);
    let total = items.len();
    if !(1..=MAX_SEGMENTS).contains(&total) {
        return Err(SegmentationReason::SegmentCount { count: total });
    }
    let mut segments: Vec<Segment> = Vec::with_capacity(total);
    let mut seen = HashSet::new();
    for item in items {
        let number = item.integer(tags::SEGMENT_NUMBER).and_then(|n| u16::try_from(n).ok());
        let Some(number) = number.filter(|&n| seen.insert(n)) else { continue };
        segments.push(Segment {
            number,
            label: item.text(tags::SEGMENT_LABEL),
            category: codes(item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE).into_iter().next(),
            property_type: codes(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE).into_iter().next(),
            modifiers: self::items(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)
                .first()
                .map(|kind| codes(kind, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE))
                .unwrap_or_default(),
            algorithm_type: match item.text(tags::SEGMENT_ALGORITHM_TYPE).as_str() {
                "AUTOMATIC" => AlgorithmType::Automatic,
                "SEMIAUTOMATIC" => AlgorithmType::Semiautomatic,
                "MANUAL" => AlgorithmType::Manual,
                _ => AlgorithmType::Unstated,
            },
            tracking_uid: Some(item.text(tags::TRACKING_UID)).filter(|uid| is_uid(uid)),
            frames: 0,
        });
    }
    if segments.len() < total {
        return Err(SegmentationReason::SegmentNumbers { count: total - segments.len(), total });
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}
