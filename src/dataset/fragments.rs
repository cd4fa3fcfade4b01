//! Which fragments of encapsulated pixel data belong to which frame (PS3.5 A.4).

use std::ops::Range;

use dicom::core::Tag;

use super::{DatasetError, Instance};

/// Extended Offset Table (7FE0,0001): 64-bit offsets of frames, where the basic table's 32 bits do not do.
const EXTENDED_OFFSET_TABLE: Tag = Tag(0x7FE0, 0x0001);

/// For each frame the range of `items` (the first of which is the offset table) that holds it.
///
/// One frame takes all fragments; as many fragments as frames are one each; otherwise the offset table decides, and where it is empty
/// the starts of code streams do.
///
/// # Errors
/// Where fragments and frames cannot be assigned to each other.
pub(super) fn frames(bytes: &[u8], items: &[Range<usize>], instance: &Instance) -> Result<Vec<Range<usize>>, DatasetError> {
    let frames = instance.frames as usize;
    let fragments = items.len().saturating_sub(1);
    let wrong = || DatasetError::Fragments { fragments, frames: instance.frames, path: instance.path.clone() };
    if frames == 0 || fragments < frames {
        return Err(wrong());
    }
    if frames == 1 {
        return Ok(vec![Range { start: 1, end: items.len() }]);
    }
    if fragments == frames {
        return Ok((1..items.len()).map(|n| n..n + 1).collect());
    }
    let starts = from_table(bytes, items, instance).or_else(|| from_markers(bytes, items)).filter(|starts| starts.len() == frames);
    let mut starts = starts.ok_or_else(wrong)?;
    starts.push(items.len());
    Ok(starts.windows(2).map(|w| w[0]..w[1]).collect())
}

/// The first item of each frame, by the offset table: offsets count from the first byte of the item after the table.
fn from_table(bytes: &[u8], items: &[Range<usize>], instance: &Instance) -> Option<Vec<usize>> {
    let extended = instance.attributes.bytes(EXTENDED_OFFSET_TABLE).filter(|table| !table.is_empty());
    let offsets: Vec<u64> = match extended {
        Some(table) => table.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes"))).collect(),
        None => bytes[items[0].clone()].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect(),
    };
    let base = items.get(1)?.start;
    let place = |offset: u64| items.binary_search_by_key(&(base as u64).checked_add(offset)?, |item| item.start as u64).ok();
    let starts: Vec<usize> = offsets.into_iter().map(place).collect::<Option<_>>()?;
    (starts.first() == Some(&1) && starts.is_sorted_by(|a, b| a < b)).then_some(starts)
}

/// The first item of each frame, by the markers that code streams start with: JPEG and JPEG-LS SOI, JPEG 2000 SOC.
fn from_markers(bytes: &[u8], items: &[Range<usize>]) -> Option<Vec<usize>> {
    let starts_stream = |item: &Range<usize>| matches!(bytes[item.clone()].get(..3), Some([0xFF, 0xD8, 0xFF] | [0xFF, 0x4F, 0xFF]));
    let starts: Vec<usize> = (1..items.len()).filter(|&n| starts_stream(&items[n])).collect();
    (starts.first() == Some(&1)).then_some(starts)
}
