//! The pictures of the page: three planes, and axial slices to go through.

use rayon::prelude::*;

use super::markup::base64;
use crate::findings::ValueMap;
use crate::results::Context;
use crate::results::heat::{Heat, legend};
use crate::results::plane::{self, Colours, Plane, colours, planes};
use crate::results::raster::{grey_jpeg, overlay_png, rgba_png};
use crate::series::VoiWindow;

/// Longer side of each picture, pixels.
const SIDE: u32 = 448;
const JPEG_QUALITY: u8 = 82;
/// Axial slices in a page at most.
const MOST_SLICES: usize = 64;
/// What all slices of a page take at most, bytes in base 64.
const MOST_BYTES: usize = 5 << 20;

/// A plane with its overlay.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) plane: Plane,
    pub(super) size: [u32; 2],
    /// JPEG, base 64.
    pub(super) image: String,
    /// PNG, base 64.
    pub(super) overlay: String,
    /// What is to be seen, for those who do not see it.
    pub(super) description: String,
}

/// The pictures of a page.
#[derive(Debug)]
pub(in crate::results) struct Pictures {
    /// Axial, coronal and sagittal, as far as the image has more than one voxel across.
    pub(super) planes: Vec<Picture>,
    /// Axial ones in the order of the grid; none where there is one slice.
    pub(super) slices: Vec<Picture>,
    /// The one of `slices` to begin with.
    pub(super) first: usize,
    /// What a result without segments rests on: each map over the first plane.
    pub(super) maps: Vec<Picture>,
}

impl Pictures {
    pub(in crate::results) fn of(context: &Context<'_>) -> Self {
        let colours = colours(&context.findings.findings);
        let window = context.window.greys();
        let draw = |plane: &Plane| drawn(context, plane, &window, &colours);
        let all = planes(context.findings);
        let shown: Vec<Plane> = all.iter().copied().filter(|plane| !plane.is_flat()).collect();
        let planes: Vec<Picture> = shown.par_iter().map(draw).collect();

        let maps = if context.findings.findings.iter().all(|f| f.segment.is_none()) { maps(context, &all[0], &window) } else { Vec::new() };
        let axial = all[0];
        if axial.count == 1 || axial.is_flat() {
            return Self { planes, slices: Vec::new(), first: 0, maps };
        }
        let positions = spread(axial.count as usize, MOST_SLICES);
        let mut slices: Vec<Picture> = positions.par_iter().map(|&position| draw(&Plane { position, ..axial })).collect();
        while slices.iter().map(|s| s.image.len() + s.overlay.len()).sum::<usize>() > MOST_BYTES && slices.len() > 1 {
            let mut keep = false;
            slices.retain(|_| {
                keep = !keep;
                keep
            });
        }
        let nearest = slices.iter().enumerate().min_by_key(|(_, s)| s.plane.position.abs_diff(axial.position));
        Self { planes, first: nearest.map_or(0, |(n, _)| n), slices, maps }
    }
}

/// Of `count` places at most `most`, evenly spread, the first and the last among them.
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most { (0..count).collect() } else { (0..most).map(|n| (n * (count - 1) + (most - 1) / 2) / (most - 1)).collect() }
}

fn drawn(context: &Context<'_>, plane: &Plane, window: &VoiWindow, colours: &Colours) -> Picture {
    let findings = context.findings;
    let (size, _) = plane.fitted(SIDE);
    let sampled = plane.sampled(context.image, findings, window, size);
    let seen = plane::drawn(&findings.findings).filter(|(label, _)| sampled.label.contains(label));
    let seen: Vec<&str> = seen.map(|(_, finding)| finding.name.as_str()).collect();
    let overlay = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
    Picture {
        plane: *plane,
        size,
        image: base64(&grey_jpeg(&sampled, JPEG_QUALITY)),
        overlay: base64(&overlay_png(&sampled, colours)),
        description: format!("{}; overlay of {overlay}", plane.caption()),
    }
}

/// Where a map has its strongest value, of all planes parallel to one; that one itself where the map is 0.
fn strongest(map: &ValueMap, plane: &Plane) -> usize {
    let [nx, ny, _] = map.values.grid().dims().map(|n| n as usize);
    let (at, most) = map.values.voxels().iter().enumerate().fold(
        (0, 0f32),
        |(at, most), (n, value)| {
            if value.abs() > most { (n, value.abs()) } else { (at, most) }
        },
    );
    if most > 0.0 { [at % nx, at / nx % ny, at / (nx * ny)][plane.axis] } else { plane.position }
}

/// Each map over the plane, of those parallel to this one, that has its strongest value.
fn maps(context: &Context<'_>, plane: &Plane, window: &VoiWindow) -> Vec<Picture> {
    let (size, _) = plane.fitted(SIDE);
    let draw = |map: &ValueMap| {
        let plane = &Plane { position: strongest(map, plane), ..*plane };
        let heat = Heat::of(map, plane, plane.sampled(context.image, context.findings, window, size));
        Picture {
            plane: *plane,
            size,
            image: base64(&grey_jpeg(&heat.sampled, JPEG_QUALITY)),
            overlay: base64(&rgba_png(&heat.rgba(), size)),
            description: format!("{}; {}", map.name, legend(map).join(", ")),
        }
    };
    context.findings.maps.par_iter().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn slices_are_spread() {
        assert_eq!(spread(3, 64), [0, 1, 2]);
        assert_eq!(spread(11, 3), [0, 5, 10]);
        let many = spread(1000, 64);
        assert_eq!((many.len(), many[0], many[63]), (64, 0, 999));
        assert!(many.windows(2).all(|w| (15..=17).contains(&(w[1] - w[0]))));
    }
}
