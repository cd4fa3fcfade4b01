//! Grayscale Softcopy Presentation States (PS3.3 A.33.1): outlines of the segments, and boxes, on the key images, for viewers that know no
//! segments.
//!
//! A state has one Modality LUT and one Presentation LUT for all its images (PS3.3 C.11.1, C.11.6), so key images that differ in either
//! have states of their own. The VOI is each image's own. Colour images and those of floating point numbers have none: the pipeline of a
//! grayscale state (PS3.4 N.2) begins with grey integers.

use dicom::object::InMemDicomObject;

use super::colour::cielab_from_srgb;
use super::envelope::{EQUIPMENT, Moment, ResultObject, Slot, envelope, reference_to, reference_to_frame, source_header};
use super::key::KeyImage;
use super::multiframe::content_label;
use super::outline::{MOST_POINTS, Outline, point, short_outlines};
use super::placed::placed;
use super::voi::voi_of;
use super::{Context, GSPS_FILE, Object};
use crate::codes::{Uid, sop_class};
use crate::dataset::{Frame, Item, tags};
use crate::findings::Finding;
use crate::volume::Quantity;

const PRESENTATION_STATE: Slot =
    Slot { name: "gsps", sop_class_uid: sop_class::GRAYSCALE_PRESENTATION_STATE, modality: "PR", kind: "outlines", place: 7 };

/// The states of the key images, one for each Modality LUT among them: `gsps.dcm`, or `gsps-1.dcm` and so on; none where nothing was found or
/// no key image is of grey integers.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    let states = states(context);
    let file = |number| if states.len() == 1 { GSPS_FILE.to_owned() } else { format!("gsps-{number}.dcm") };
    let object = |(number, state): (u32, &State<'_>)| {
        let reference = ResultObject::numbered(context.findings, &PRESENTATION_STATE, number);
        Object::new(file(number), reference.clone(), state.written(context, &reference))
    };
    (1..).zip(&states).map(object).collect()
}

/// Why key images have no state.
pub(super) fn left_out(context: &Context<'_>) -> Option<String> {
    let none = !context.key_images.is_empty() && states(context).is_empty();
    none.then(|| "no presentation state: the images are not of grey integers".into())
}

/// Key images that one state can show.
struct State<'a> {
    modality_lut: InMemDicomObject,
    /// Whether the lowest value is white: MONOCHROME1.
    inverse: bool,
    images: Vec<Shown<'a>>,
}

/// A key image in a state.
struct Shown<'a> {
    frame: &'a Frame,
    voi: InMemDicomObject,
    marks: Vec<Mark<'a>>,
}

/// A segment, a box or a point on a key image.
struct Mark<'a> {
    /// Of the segment, or of the box or point.
    number: u32,
    finding: &'a Finding,
    /// Where its name stands, in pixels.
    anchor: [f32; 2],
    drawn: Drawn,
}

/// What is drawn, in pixels.
enum Drawn {
    /// Closed.
    Polylines(Vec<Vec<[f32; 2]>>),
    Point([f32; 2]),
}

fn states<'a>(context: &'a Context<'_>) -> Vec<State<'a>> {
    let mut states: Vec<State<'a>> = Vec::new();
    for image in &context.key_images {
        let frame = &context.findings.source.frames[image.frame as usize];
        let pixels = &frame.instance.pixels;
        if pixels.is_colour() || pixels.float {
            continue;
        }
        let (modality_lut, inverse) = (modality_lut(context, frame).into_inner(), pixels.photometric == "MONOCHROME1");
        let shown = Shown { frame, voi: voi_of(context, image).into_inner(), marks: marks(context, image) };
        match states.iter_mut().find(|state| state.modality_lut == modality_lut && state.inverse == inverse) {
            Some(state) => state.images.push(shown),
            None => states.push(State { modality_lut, inverse, images: vec![shown] }),
        }
    }
    states
}

/// Modality LUT Module (C.11.1): as the image has it.
fn modality_lut(context: &Context<'_>, frame: &Frame) -> Item {
    let holder = |tag| frame.context().ok().and_then(|groups| groups.holder(tag));
    if let Some(table) = holder(tags::MODALITY_LUT_SEQUENCE) {
        return Item::new().copied(tags::MODALITY_LUT_SEQUENCE, table);
    }
    let [intercept, slope] = [tags::RESCALE_INTERCEPT, tags::RESCALE_SLOPE].map(|tag| frame.texts(tag));
    if intercept.is_empty() || slope.is_empty() {
        return Item::new();
    }
    let unit = match frame.texts(tags::RESCALE_TYPE).into_iter().next().filter(|unit| !unit.is_empty()) {
        Some(unit) => unit,
        // Type 1 here, and not everywhere there.
        None if context.image.quantity == Quantity::Hounsfield => "HU".into(),
        None => "US".into(),
    };
    Item::new().decimals_of(tags::RESCALE_INTERCEPT, &intercept).decimals_of(tags::RESCALE_SLOPE, &slope).text(tags::RESCALE_TYPE, &unit)
}

/// Every segment, box and point that the image shows, not only those that it shows best: one that is there without an outline would seem to be
/// missed.
fn marks<'a>(context: &'a Context<'_>, image: &KeyImage) -> Vec<Mark<'a>> {
    let findings = context.findings;
    let (slice, columns) = (findings.labels.slice(image.slice as usize), findings.labels.grid().dims()[0] as usize);
    let shown = context.segments.all().iter().filter(|segment| segment.frames.contains(&image.frame));
    let of_segments = shown.map(|segment| {
        let outlines = short_outlines(slice, columns, segment.label, MOST_POINTS);
        let largest = outlines.iter().max_by_key(|outline| outline.area()).expect("a frame of the segment shows some of it");
        let top = largest.corners.iter().min_by_key(|corner| (corner[1], corner[0])).expect("an outline has corners");
        let drawn = Drawn::Polylines(outlines.iter().map(closed).collect());
        Mark { number: segment.number, finding: segment.finding, anchor: point(*top), drawn }
    });
    let of_places = placed(findings).filter(|one| one.is_on(findings, image.frame)).map(|one| {
        let (anchor, drawn) = match one.place.extent {
            Some(_) => {
                let outline = one.outline(findings, image.frame);
                (outline[0], Drawn::Polylines(vec![outline]))
            }
            None => (one.point(findings, image.frame), Drawn::Point(one.point(findings, image.frame))),
        };
        Mark { number: one.number, finding: one.finding, anchor, drawn }
    });
    of_segments.chain(of_places).collect()
}

/// The corners of an outline, the first one again at the end.
fn closed(outline: &Outline) -> Vec<[f32; 2]> {
    outline.corners.iter().chain(outline.corners.first()).copied().map(point).collect()
}

impl State<'_> {
    fn written(&self, context: &Context<'_>, reference: &ResultObject) -> Item {
        let findings = context.findings;
        let package = &findings.provenance.package;
        let created = Moment::of(findings);
        let marked = |number: u32| self.images.iter().flat_map(|i| &i.marks).any(|mark| mark.number == number);
        let segments = context.segments.all().iter().map(|segment| (segment.number, segment.finding));
        let of_places = placed(findings).map(|one| (one.number, one.finding));
        let layers = segments.chain(of_places).filter(|(number, _)| marked(*number));
        let annotations = self.images.iter().flat_map(|image| image.marks.iter().map(|mark| annotation(image.frame, mark)));
        let header = source_header(findings);
        envelope(findings, reference)
            .copied(tags::BODY_PART_EXAMINED, header)
            .copied(tags::LATERALITY, header)
            .text(tags::CONTENT_LABEL, &content_label(&package.name))
            .text(tags::CONTENT_DESCRIPTION, &format!("Outlines by AI {}, not verified", package.name))
            .text(tags::CONTENT_CREATOR_NAME, EQUIPMENT)
            .text(tags::PRESENTATION_CREATION_DATE, &created.date)
            .text(tags::PRESENTATION_CREATION_TIME, &created.time)
            .sequence(tags::REFERENCED_SERIES_SEQUENCE, [self.referenced_series()])
            .sequence(tags::DISPLAYED_AREA_SELECTION_SEQUENCE, [displayed_area(self.images[0].frame)])
            .sequence(tags::GRAPHIC_ANNOTATION_SEQUENCE, annotations)
            .sequence(tags::GRAPHIC_LAYER_SEQUENCE, layers.map(|(number, finding)| layer(number, finding)))
            .with(Item::from(self.modality_lut.clone()))
            .sequence(tags::SOFTCOPY_VOILUT_SEQUENCE, self.vois())
            .text(tags::PRESENTATION_LUT_SHAPE, if self.inverse { "INVERSE" } else { "IDENTITY" })
    }

    /// The source series with the key images; of a multi-frame instance the frames.
    fn referenced_series(&self) -> Item {
        Item::new()
            .text(tags::SERIES_INSTANCE_UID, &self.images[0].frame.instance.series_uid)
            .sequence(tags::REFERENCED_IMAGE_SEQUENCE, references_to(self.images.iter().map(|image| image.frame)))
    }

    /// One item for each VOI; it names its images where there are others.
    fn vois(&self) -> Vec<Item> {
        let mut vois: Vec<(&InMemDicomObject, Vec<&Frame>)> = Vec::new();
        for Shown { frame, voi, .. } in &self.images {
            match vois.iter_mut().find(|(seen, _)| *seen == voi) {
                Some((_, frames)) => frames.push(frame),
                None => vois.push((voi, vec![frame])),
            }
        }
        let several = vois.len() > 1;
        let item = |(voi, frames): (&InMemDicomObject, Vec<&Frame>)| {
            let item = Item::from(voi.clone());
            if several { item.sequence(tags::REFERENCED_IMAGE_SEQUENCE, references_to(frames)) } else { item }
        };
        vois.into_iter().map(item).collect()
    }
}

/// Image references, each instance once, with the numbers of its frames.
fn references_to<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<Item> {
    let mut instances: Vec<(&Uid, &Frame, Vec<u32>)> = Vec::new();
    for frame in frames {
        let uid = &frame.instance.sop_instance_uid;
        match instances.iter_mut().find(|(seen, ..)| *seen == uid) {
            Some((.., numbers)) => numbers.push(frame.number),
            None => instances.push((uid, frame, vec![frame.number])),
        }
    }
    let item = |(_, frame, numbers): (&Uid, &Frame, Vec<u32>)| {
        let item = reference_to(&frame.instance);
        if frame.is_whole_instance() { item } else { item.integers(tags::REFERENCED_FRAME_NUMBER, &numbers) }
    };
    instances.into_iter().map(item).collect()
}

/// The whole image, with pixels of its proportions.
fn displayed_area(frame: &Frame) -> Item {
    let item = Item::new()
        .integers(tags::DISPLAYED_AREA_TOP_LEFT_HAND_CORNER, &[1, 1])
        .integers(tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER, &[frame.instance.columns, frame.instance.rows])
        .text(tags::PRESENTATION_SIZE_MODE, "SCALE TO FIT");
    match frame.texts(tags::PIXEL_SPACING) {
        spacing if spacing.len() == 2 => item.decimals_of(tags::PRESENTATION_PIXEL_SPACING, &spacing),
        _ => item.integers(tags::PRESENTATION_PIXEL_ASPECT_RATIO, &[1, 1]),
    }
}

/// Each segment, box and point has a layer of its own, since colour belongs to layers, and can be hidden.
fn layer_name(number: u32) -> String {
    format!("AI_{number}")
}

fn layer(number: u32, finding: &Finding) -> Item {
    let colour = cielab_from_srgb(finding.colour);
    Item::new()
        .text(tags::GRAPHIC_LAYER, &layer_name(number))
        .integer(tags::GRAPHIC_LAYER_ORDER, number)
        .integer(tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_GRAYSCALE_VALUE, colour[0]) // as light
        .integers(tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &colour)
        .text(tags::GRAPHIC_LAYER_DESCRIPTION, &finding.name)
}

/// The outlines of a segment or box on an image, and its name at the top of the largest; or a point with its name.
fn annotation(frame: &Frame, mark: &Mark<'_>) -> Item {
    let objects: Vec<Item> = match &mark.drawn {
        Drawn::Polylines(polylines) => polylines.iter().map(|points| graphic("POLYLINE", points)).collect(),
        Drawn::Point(at) => vec![graphic("POINT", &[*at])],
    };
    let text = Item::new()
        .text(tags::ANCHOR_POINT_ANNOTATION_UNITS, "PIXEL")
        .text(tags::UNFORMATTED_TEXT_VALUE, &label(mark.finding))
        .floats(tags::ANCHOR_POINT, &mark.anchor)
        .text(tags::ANCHOR_POINT_VISIBILITY, "Y");
    Item::new()
        .sequence(tags::REFERENCED_IMAGE_SEQUENCE, [reference_to_frame(frame)])
        .text(tags::GRAPHIC_LAYER, &layer_name(mark.number))
        .sequence(tags::TEXT_OBJECT_SEQUENCE, [text])
        .sequence(tags::GRAPHIC_OBJECT_SEQUENCE, objects)
}

/// What stands beside the outline.
fn label(finding: &Finding) -> String {
    match finding.certainty_percent {
        Some(percent) => format!("{} {percent:.0} %", finding.name),
        None => finding.name.clone(),
    }
}

/// A graphic (C.10.5): in PIXEL units 0.0 is the outer corner of the first pixel, and a closed polyline has its first point as the last again.
fn graphic(graphic_type: &str, points: &[[f32; 2]]) -> Item {
    Item::new()
        .text(tags::GRAPHIC_ANNOTATION_UNITS, "PIXEL")
        .integer(tags::GRAPHIC_DIMENSIONS, 2)
        .integer(tags::NUMBER_OF_GRAPHIC_POINTS, points.len() as u32)
        .floats(tags::GRAPHIC_DATA, points.as_flattened())
        .text(tags::GRAPHIC_TYPE, graphic_type)
        .text(tags::GRAPHIC_FILLED, "N")
}
