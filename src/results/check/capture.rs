//! Secondary Captures: they say what they are, name the slice that they show, and show the segments of that slice and no others.

use dicom::object::InMemDicomObject;
use image::RgbImage;

use super::{Problems, is_code, item};
use crate::codes::dcm;
use crate::dataset::{Attributes, Instance, codes, items, native_pixels, tags};
use crate::results::Context;
use crate::results::capture::Capture;
use crate::results::placed::{Placed, placed};

pub(super) fn check(context: &Context<'_>, instance: &Instance, header: &InMemDicomObject, problems: &mut Problems) {
    let Some((uid, number)) = source_of(context, header, problems) else { return };
    let frames = &context.findings.source.frames;
    let is_source = |n: u32| frames.get(n as usize).is_some_and(|f| f.instance.sop_instance_uid == uid && f.number == number);
    match context.key_images.iter().position(|image| is_source(image.frame)) {
        Some(n) => {
            let place = header.count(tags::INSTANCE_NUMBER) as usize;
            problems.unless(place == n + 1, || format!("it is capture {place} and shows key image {}", n + 1));
            check_pixels(context, n, instance, problems);
        }
        None => problems.add("its source is no key image".into()),
    }
}

/// Says what every capture says of itself; SOP Instance UID and frame number of the one image that it shows.
pub(super) fn source_of(context: &Context<'_>, header: &InMemDicomObject, problems: &mut Problems) -> Option<(String, u32)> {
    let expected = [
        ("Image Type", tags::IMAGE_TYPE, vec!["DERIVED", "SECONDARY"]),
        ("Conversion Type", tags::CONVERSION_TYPE, vec!["WSD"]),
        ("Burned In Annotation", tags::BURNED_IN_ANNOTATION, vec!["YES"]),
        ("Photometric Interpretation", tags::PHOTOMETRIC_INTERPRETATION, vec!["RGB"]),
        ("Lossy Image Compression", tags::LOSSY_IMAGE_COMPRESSION, vec![lossy(context)]),
    ];
    for (name, tag, values) in expected {
        problems.unless(header.texts(tag) == values, || format!("{name} is not {}", values.join("\\")));
    }
    // It is scaled and has margins, so a length on it is none of the patient.
    for (name, tag) in [("Pixel Spacing", tags::PIXEL_SPACING), ("Nominal Scanned Pixel Spacing", tags::NOMINAL_SCANNED_PIXEL_SPACING)] {
        problems.unless(!header.has(tag), || format!("it has {name}"));
    }
    let Some(source) = item(header, tags::SOURCE_IMAGE_SEQUENCE).filter(|_| items(header, tags::SOURCE_IMAGE_SEQUENCE).len() == 1) else {
        problems.add("it has not one source image".into());
        return None;
    };
    let purpose = codes(source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE);
    problems.unless(is_code(purpose.first(), &dcm::SOURCE_IMAGE_FOR_PROCESSING), || "its source has another purpose".into());
    Some((source.text(tags::REFERENCED_SOP_INSTANCE_UID), source.count(tags::REFERENCED_FRAME_NUMBER).max(1)))
}

fn lossy(context: &Context<'_>) -> &'static str {
    if context.findings.source.series().iter().flatten().any(|i| i.lossy) { "01" } else { "00" }
}

/// The pixels, which are those of what is drawn again.
pub(super) fn same_pixels(instance: &Instance, drawn: &RgbImage, what: &str, problems: &mut Problems) -> Option<Vec<u8>> {
    let [columns, rows] = [drawn.width(), drawn.height()];
    problems.unless([instance.columns, instance.rows] == [columns, rows], || {
        format!("it has {} x {} pixels, and the {what} {columns} x {rows}", instance.columns, instance.rows)
    });
    let file = native_pixels(instance).ok().zip(std::fs::read(&instance.path).ok());
    let Some(pixels) = file.as_ref().and_then(|(place, file)| file.get(place.start as usize..place.end as usize)) else {
        problems.add("its pixels cannot be read again".into());
        return None;
    };
    let differing = pixels.iter().zip(drawn.as_raw()).filter(|(a, b)| a != b).count();
    problems.unless(differing == 0 && pixels.len() >= drawn.as_raw().len(), || format!("{differing} samples are not those of the {what}"));
    Some(pixels.to_vec())
}

/// The pixels are those of the key image drawn again; and those of the slice are grey outside the segments, and coloured within.
fn check_pixels(context: &Context<'_>, n: usize, instance: &Instance, problems: &mut Problems) {
    let image = &context.key_images[n];
    let drawn = Capture::of(context, n, image);
    let columns = drawn.canvas.width();
    let Some(pixels) = same_pixels(instance, &drawn.canvas, "key image", problems) else { return };
    let [width, height] = drawn.size;
    let labels = context.findings.labels.slice(image.slice as usize);
    let [nx, ny, _] = context.findings.labels.grid().dims();
    let colour_of = |label: u8| context.segments.all().iter().find(|s| s.label == label).map(|s| s.finding.colour);
    // Boxes and points are frames in the colours of their findings; what is inside them is grey.
    let frames: Vec<Framed> = placed(context.findings).map(|one| Framed::of(context, &one, image.frame, drawn.size)).collect();
    let voxel = |pixel: u32, pixels: u32, voxels: u32| (u64::from(2 * pixel + 1) * u64::from(voxels) / u64::from(2 * pixels)) as usize;
    let mut wrong = 0;
    for y in 0..height {
        for x in 0..width {
            let label = labels[voxel(y, height, ny) * nx as usize + voxel(x, width, nx)];
            let at = ((drawn.corner[1] + y) * columns + drawn.corner[0] + x) as usize * 3;
            let Some([r, g, b]) = pixels.get(at..at + 3).and_then(|p| <[u8; 3]>::try_from(p).ok()) else { return };
            // A tint moves each sample towards the colour's by the same share, so differences between samples have the colour's signs.
            let is_grey = r == g && g == b;
            let of_frame = |tint: [u8; 3]| same_order([r, g, b], tint);
            let holds = match colour_of(label) {
                None if is_grey => !frames.iter().any(|frame| frame.covers([x, y]) && !is_greyish(frame.colour)),
                None => frames.iter().any(|frame| frame.may_cover([x, y]) && of_frame(frame.colour)),
                Some(tint) => same_order([r, g, b], tint),
            };
            wrong += u32::from(!holds);
        }
    }
    problems.unless(wrong == 0, || format!("{wrong} pixels have a colour where no segment is, or none or another where one is"));
}

/// The frame of a box or point on a key image.
struct Framed {
    colour: [u8; 3],
    /// Left and right, top and bottom, in pixels of the picture; none where the image does not show it.
    ends: Option<[[f64; 2]; 2]>,
}

/// Pixels within which a frame lies along its edge, on either side.
const FRAME: f64 = 3.0;

impl Framed {
    fn of(context: &Context<'_>, one: &Placed<'_>, frame: u32, size: [u32; 2]) -> Self {
        let dims = context.findings.labels.grid().dims();
        let slice = context.findings.source.slice_of_frame[frame as usize];
        let section = one.place.section(context.findings.labels.grid(), 2, slice);
        let pixels = |n: usize, at: f64| (at + 0.5) / f64::from(dims[n]) * f64::from(size[n]);
        // Of what lies beyond the image the frame is at its edge.
        let within = |n: usize, at: f64| pixels(n, at).clamp(0.0, f64::from(size[n]));
        Self { colour: one.finding.colour, ends: section.map(|ends| std::array::from_fn(|n| ends[n].map(|at| within(n, at)))) }
    }

    /// Whether the upper or left edge of the rectangle runs through a pixel, away from its corners: colour must be there.
    fn covers(&self, at: [u32; 2]) -> bool {
        let Some(ends) = self.ends else { return false };
        let inside = |n: usize| ends[n][0] + FRAME < f64::from(at[n]) && f64::from(at[n]) < ends[n][1] - FRAME;
        let on_edge = |n: usize| f64::from(at[n]) == ends[n][0].floor();
        (on_edge(0) && inside(1)) || (on_edge(1) && inside(0))
    }

    /// Whether a pixel lies so near to an edge of the rectangle that its frame may be there.
    fn may_cover(&self, at: [u32; 2]) -> bool {
        let Some(ends) = self.ends else { return false };
        let near = |n: usize| (ends[n][0] - FRAME..=ends[n][1] + FRAME).contains(&f64::from(at[n]));
        let on_edge = |n: usize| ends[n].iter().any(|end| (f64::from(at[n]) - end).abs() <= FRAME);
        near(0) && near(1) && (on_edge(0) || on_edge(1))
    }
}

/// Whether a colour is so near to grey that nobody could tell.
fn is_greyish(colour: [u8; 3]) -> bool {
    same_order([0; 3], colour)
}

/// Whether samples of a tinted grey differ as the tint's do; what differs by less than 8 may be rounded to the same.
fn same_order(pixel: [u8; 3], tint: [u8; 3]) -> bool {
    [(0, 1), (1, 2), (0, 2)].into_iter().all(|(a, b)| {
        let (seen, expected) = (i16::from(pixel[a]) - i16::from(pixel[b]), i16::from(tint[a]) - i16::from(tint[b]));
        expected.abs() < 8 || seen.signum() == expected.signum()
    })
}

#[cfg(test)]
mod tests {
    use dicom::core::VR;

    use super::*;
    use crate::results::check::tests::{Spoil, each_is_found, pixels, put, within};

    const SOURCE: [(dicom::core::Tag, usize); 1] = [(tags::SOURCE_IMAGE_SEQUENCE, 0)];

    const CAPTURE: [(&str, Spoil); 9] = [
        ("no warning of burnt-in text", |o| put(o, tags::BURNED_IN_ANNOTATION, VR::CS, "NO")),
        ("an original", |o| put(o, tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY")),
        ("a spacing that it has not", |o| put(o, tags::PIXEL_SPACING, VR::DS, "1\\1")),
        ("another lossy flag", |o| put(o, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01")),
        ("no source", |o| {
            o.remove_element(tags::SOURCE_IMAGE_SEQUENCE);
        }),
        ("a source of another study", |o| within(o, &SOURCE, |i| put(i, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3"))),
        ("another number in the series", |o| put(o, tags::INSTANCE_NUMBER, VR::IS, "2")),
        ("one sample changed", |o| pixels(o, |bytes| bytes[1000] ^= 1)),
        ("red and blue exchanged", |o| pixels(o, |bytes| bytes.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.swap(0, 2)))),
    ];

    #[test]
    fn every_spoilt_capture_is_found() {
        each_is_found("sc", "sc-1.dcm", &[&CAPTURE]);
    }
}
