//! Key images: the source frame that shows each finding best.

use super::placed::placed;
use super::segments::Segments;
use crate::findings::Findings;

/// A frame of the source that shows some findings best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyImage {
    /// Its place in `Source::frames`.
    pub(super) frame: u32,
    /// The slice k of the label map at it.
    pub(super) slice: u32,
    /// Segment numbers of the findings that it shows best, ascending.
    pub(super) segments: Vec<u32>,
    /// Numbers of the boxes and points whose centre lies nearest to it, ascending.
    pub(super) placed: Vec<u32>,
}

/// The key images in the order of the frames. For each segment that frame with most of its voxels; of equals the one nearest to the middle of
/// those that show it. For each box and point the frame nearest to its centre.
pub(super) fn key_images(findings: &Findings, segments: &Segments<'_>) -> Vec<KeyImage> {
    let mut images: Vec<KeyImage> = Vec::new();
    for segment in segments.all() {
        let middle = segment.frames[segment.frames.len() / 2];
        let shown = segment.frames.iter().zip(&segment.areas);
        let best = shown.max_by_key(|&(n, area)| (area, std::cmp::Reverse(n.abs_diff(middle))));
        let (&frame, _) = best.expect("a segment has a frame");
        image_of(findings, &mut images, frame).segments.push(segment.number);
    }
    for one in placed(findings) {
        if let Some(frame) = one.frame(findings) {
            image_of(findings, &mut images, frame).placed.push(one.number);
        }
    }
    images.sort_by_key(|image| image.frame);
    images
}

/// The key image of a frame, which is one from now on.
fn image_of<'a>(findings: &Findings, images: &'a mut Vec<KeyImage>, frame: u32) -> &'a mut KeyImage {
    let n = images.iter().position(|image| image.frame == frame).unwrap_or(images.len());
    if n == images.len() {
        let slice = findings.source.slice_of_frame[frame as usize];
        images.push(KeyImage { frame, slice, segments: Vec::new(), placed: Vec::new() });
    }
    &mut images[n]
}
