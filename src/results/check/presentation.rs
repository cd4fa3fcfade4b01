//! Presentation states: every outline encloses the pixels of its segment on the image that it names, in the segment's colour; every box and
//! point is where it was found.

use std::collections::HashSet;

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::fill::encloses;
use super::{Problems, item, source_frames};
use crate::dataset::{Attributes, items, tags};
use crate::results::Context;
use crate::results::colour::cielab_from_srgb;
use crate::results::placed::{Placed, by_number, placed};
use crate::results::segments::Segment;

pub(super) fn check(context: &Context<'_>, header: &InMemDicomObject, problems: &mut Problems) {
    let shown =
        images(context, items(header, tags::REFERENCED_SERIES_SEQUENCE).iter().flat_map(|s| items(s, tags::REFERENCED_IMAGE_SEQUENCE)));
    problems.unless(!shown.is_empty(), || "it shows no image".into());
    let keys = context.key_images.iter().map(|image| image.frame as usize);
    let lacking = keys.filter(|&n| belongs(context, header, &shown, n) && !shown.contains(&n)).count();
    problems.unless(lacking == 0, || format!("{lacking} key images are missing"));
    check_pipeline(context, header, &shown, problems);
    let layers = items(header, tags::GRAPHIC_LAYER_SEQUENCE);
    let mut marked = HashSet::new();
    for (n, annotation) in items(header, tags::GRAPHIC_ANNOTATION_SEQUENCE).iter().enumerate() {
        let n = n + 1;
        let of = images(context, items(annotation, tags::REFERENCED_IMAGE_SEQUENCE));
        let [frame] = of.as_slice() else {
            problems.add(format!("annotation {n} is not of one image that was analysed"));
            continue;
        };
        problems.unless(shown.contains(frame), || format!("annotation {n} is of an image that the state does not show"));
        let layer = layers.iter().find(|layer| layer.text(tags::GRAPHIC_LAYER) == annotation.text(tags::GRAPHIC_LAYER));
        if let Some((layer, one)) = layer.and_then(|layer| Some((layer, placed_of(context, layer)?))) {
            problems.unless(marked.insert((*frame, one.number)), || format!("annotation {n} marks what another does"));
            let colour = cielab_from_srgb(one.finding.colour).map(f64::from);
            let has_colour = layer.numbers(tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE) == Some(colour);
            problems.unless(has_colour, || format!("the layer of `{}` has another colour", one.finding.name));
            problems.unless(is_marked(context, annotation, *frame, &one), || format!("annotation {n} is not where its box or point is"));
            continue;
        }
        let Some((layer, segment)) = layer.and_then(|layer| Some((layer, segment_of(context, layer)?))) else {
            problems.add(format!("annotation {n} is in the layer of no segment"));
            continue;
        };
        problems.unless(marked.insert((*frame, segment.number)), || format!("annotation {n} marks what another does"));
        let colour = cielab_from_srgb(segment.finding.colour).map(f64::from);
        problems.unless(layer.numbers(tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE) == Some(colour), || {
            format!("the layer of segment {} has another colour", segment.number)
        });
        check_annotation(context, annotation, *frame, segment, &mut |what| problems.add(format!("annotation {n} {what}")));
    }
    let shows = |frame: usize, segment: &Segment<'_>| segment.frames.contains(&(frame as u32));
    let expected =
        shown.iter().flat_map(|&frame| context.segments.all().iter().filter(move |s| shows(frame, s)).map(move |s| (frame, s.number)));
    let on = |frame: usize| placed(context.findings).filter(move |one| one.is_on(context.findings, frame as u32));
    let of_places = shown.iter().flat_map(|&frame| on(frame).map(move |one| (frame, one.number)));
    let lacking = expected.chain(of_places).filter(|mark| !marked.contains(mark)).count();
    problems.unless(lacking == 0, || format!("{lacking} findings have no outline on an image that shows them"));
}

/// Whether an image is shown through the same LUTs as those of a state, and so belongs to it.
fn belongs(context: &Context<'_>, header: &InMemDicomObject, shown: &[usize], n: usize) -> bool {
    let pipeline = |n: usize| {
        let frame = &context.findings.source.frames[n];
        let lut = [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT, tags::RESCALE_TYPE].map(|tag| frame.texts(tag));
        (lut, frame.instance.pixels.photometric.as_str())
    };
    !header.has(tags::MODALITY_LUT_SEQUENCE) && shown.first().is_some_and(|&m| pipeline(m) == pipeline(n))
}

/// Modality and Presentation LUT are the images' own; the whole image is shown.
fn check_pipeline(context: &Context<'_>, header: &InMemDicomObject, shown: &[usize], problems: &mut Problems) {
    for frame in shown.iter().map(|&n| &context.findings.source.frames[n]) {
        let own = |tag: Tag| frame.texts(tag).first().and_then(|v| v.parse::<f64>().ok());
        let both = own(tags::RESCALE_SLOPE).zip(own(tags::RESCALE_INTERCEPT));
        let found = header.number(tags::RESCALE_SLOPE).zip(header.number(tags::RESCALE_INTERCEPT));
        // Longer decimal strings than 16 characters are shortened.
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs();
        let same = found.zip(both).map_or(found == both, |(a, b)| close(a.0, b.0) && close(a.1, b.1));
        problems.unless(same || header.has(tags::MODALITY_LUT_SEQUENCE), || "its Modality LUT is not that of an image".into());
        let shape = if frame.instance.pixels.photometric == "MONOCHROME1" { "INVERSE" } else { "IDENTITY" };
        problems.unless(header.text(tags::PRESENTATION_LUT_SHAPE) == shape, || format!("its Presentation LUT is not {shape}"));
        let area = item(header, tags::DISPLAYED_AREA_SELECTION_SEQUENCE);
        let corner = |tag| area.and_then(|area| area.numbers::<2>(tag));
        let whole = Some([f64::from(frame.instance.columns), f64::from(frame.instance.rows)]);
        let is_whole = corner(tags::DISPLAYED_AREA_TOP_LEFT_HAND_CORNER) == Some([1.0; 2])
            && corner(tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER) == whole;
        problems.unless(is_whole, || "it shows a part of the image".into());
    }
    let vois = items(header, tags::SOFTCOPY_VOILUT_SEQUENCE);
    let of_voi: Vec<usize> = vois.iter().flat_map(|voi| images(context, items(voi, tags::REFERENCED_IMAGE_SEQUENCE))).collect();
    let each_has_one =
        if vois.len() == 1 { of_voi.is_empty() } else { shown.iter().all(|n| of_voi.iter().filter(|m| *m == n).count() == 1) };
    problems.unless(each_has_one, || "an image has no VOI, or two".into());
}

fn check_annotation(
    context: &Context<'_>,
    annotation: &InMemDicomObject,
    frame: usize,
    segment: &Segment<'_>,
    differs: &mut dyn FnMut(&str),
) {
    let text = item(annotation, tags::TEXT_OBJECT_SEQUENCE).map(|text| text.text(tags::UNFORMATTED_TEXT_VALUE)).unwrap_or_default();
    // Names of other scripts are not ASCII, but as long.
    if !text.starts_with(&segment.finding.name) && segment.finding.name.is_ascii() {
        differs("has another text");
    }
    let mut outlines = Vec::new();
    for object in items(annotation, tags::GRAPHIC_OBJECT_SEQUENCE) {
        let numbers = object.all_numbers(tags::GRAPHIC_DATA).unwrap_or_default();
        let points: Vec<[f64; 2]> = numbers.as_chunks::<2>().0.to_vec();
        let in_pixels = object.text(tags::GRAPHIC_TYPE) == "POLYLINE" && object.text(tags::GRAPHIC_ANNOTATION_UNITS) == "PIXEL";
        if !in_pixels || points.first() != points.last() || points.len() != object.count(tags::NUMBER_OF_GRAPHIC_POINTS) as usize {
            differs("is no closed polyline of pixels");
        }
        outlines.push(points);
    }
    let labels = &context.findings.labels;
    let slice = labels.slice(context.findings.source.slice_of_frame[frame] as usize);
    if !encloses(&outlines, slice, labels.grid().dims()[0] as usize, segment.label) {
        differs("encloses other pixels than its segment has");
    }
}

/// The box or point of a layer, by its description, which is the name of the finding.
fn placed_of<'a>(context: &Context<'a>, layer: &InMemDicomObject) -> Option<Placed<'a>> {
    let one = by_number(context.findings, layer.count(tags::GRAPHIC_LAYER_ORDER))?;
    let name = layer.text(tags::GRAPHIC_LAYER_DESCRIPTION);
    (name == one.finding.name || !one.finding.name.is_ascii()).then_some(one)
}

/// Whether an annotation marks a box or a point where it lies on a frame, with its name.
fn is_marked(context: &Context<'_>, annotation: &InMemDicomObject, frame: usize, one: &Placed<'_>) -> bool {
    let text = item(annotation, tags::TEXT_OBJECT_SEQUENCE).map(|text| text.text(tags::UNFORMATTED_TEXT_VALUE)).unwrap_or_default();
    let [object] = items(annotation, tags::GRAPHIC_OBJECT_SEQUENCE) else { return false };
    let numbers = object.all_numbers(tags::GRAPHIC_DATA).unwrap_or_default();
    let points: Vec<[f64; 2]> = numbers.as_chunks::<2>().0.to_vec();
    let wanted = if one.place.extent.is_some() { "POLYLINE" } else { "POINT" };
    object.text(tags::GRAPHIC_TYPE) == wanted
        && object.text(tags::GRAPHIC_ANNOTATION_UNITS) == "PIXEL"
        && points.len() == object.count(tags::NUMBER_OF_GRAPHIC_POINTS) as usize
        && (text.starts_with(&one.finding.name) || !one.finding.name.is_ascii())
        && super::placed::is_marked(context, one.place, frame, &points)
}

/// The segment of a layer, by its description, which is the name of the finding.
fn segment_of<'a>(context: &'a Context<'_>, layer: &InMemDicomObject) -> Option<&'a Segment<'a>> {
    let segment = context.segments.by_number(layer.count(tags::GRAPHIC_LAYER_ORDER))?;
    let name = layer.text(tags::GRAPHIC_LAYER_DESCRIPTION);
    (name == segment.finding.name || !segment.finding.name.is_ascii()).then_some(segment)
}

/// The places in `Source::frames` of all images that items refer to; of a multi-frame instance each frame that is named.
fn images<'i>(context: &Context<'_>, references: impl IntoIterator<Item = &'i InMemDicomObject>) -> Vec<usize> {
    references.into_iter().flat_map(|reference| source_frames(context, reference)).collect()
}
