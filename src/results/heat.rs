//! Maps of values drawn over the image that they lie on: as Secondary Captures of images that lie nowhere in the patient, which the class of
//! Parametric Maps has no place for, and for the page.

use image::{Rgb, RgbImage};

use super::capture::{DIM, Layout, Line, SIDE, WHITE, made, secondary_capture};
use super::envelope::{ResultObject, Slot};
use super::map::file_of;
use super::plane::{Plane, Sampled, stored_slice};
use super::{Context, Object, window, wording};
use crate::codes::sop_class;
use crate::findings::{Findings, ValueMap};

/// Maps of one result are one series.
const HEAT: Slot = Slot { name: "map-sc", sop_class_uid: sop_class::SECONDARY_CAPTURE, modality: "OT", kind: "map", place: 5 };

/// Colours of the greatest value and of its opposite, and how much of the image they cover.
const WARM: [u8; 3] = [255, 90, 0];
const COOL: [u8; 3] = [40, 120, 255];
const MOST_COVER: f32 = 0.65;
/// Values up to this one are never drawn as if they were many: the least end of the scale of colours.
const LEAST_SCALE: f32 = 0.01;

/// A capture of each map, where the source is one image that lies nowhere.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    let findings = context.findings;
    if findings.source.lies_in_patient() || findings.source.frames.len() != 1 {
        return Vec::new();
    }
    let object = |n: usize| {
        let reference = reference_of(findings, n);
        let (frame, what) = (&findings.source.frames[0], "Map of values drawn over the image");
        let data = secondary_capture(findings, &reference, frame, &stored_slice(findings, 0), what, drawn(context, n));
        Object::new(file_of(n, findings.maps.len()), reference, data)
    };
    (0..findings.maps.len()).map(object).collect()
}

/// The object of the map with index `n`.
pub(super) fn reference_of(findings: &Findings, n: usize) -> ResultObject {
    ResultObject::numbered(findings, &HEAT, n as u32 + 1)
}

/// The image with the map over it, what it is above, and what its colours mean below.
pub(super) fn drawn(context: &Context<'_>, n: usize) -> RgbImage {
    let findings = context.findings;
    let map = &findings.maps[n];
    let plane = stored_slice(findings, 0);
    let size = plane.whole_multiple(SIDE.start, SIDE.end);
    let window = window::of_source(&findings.source.frames[0], context.image, 0).unwrap_or_else(|| context.window.greys());
    let heat = Heat::of(map, &plane, plane.sampled(context.image, findings, &window, size));

    let layout = Layout::around(size);
    let package = &findings.provenance.package;
    let model = format!("{} {}", package.name, package.version_string());
    let title = layout.lines(wording::banner(package), layout.title());
    let heading: Vec<Line> =
        title.chain(layout.lines(&model, layout.body(WHITE))).chain(layout.lines(&map.name, layout.body(WHITE))).collect();
    let coloured = |colour, text| Line { colour: Some(colour), text, style: layout.body(WHITE) };
    let [warm, cool] = legend(map);
    let made = made(context, &window::caption(&window, context.image.quantity));
    let footing: Vec<Line> =
        [coloured(WARM, warm), coloured(COOL, cool)].into_iter().chain(layout.lines(&made, layout.body(DIM))).collect();
    let (mut canvas, corner) = layout.canvas(size, &heading, &footing);
    heat.draw(&mut canvas, corner);
    layout.letters(&mut canvas, &plane, corner, size);
    canvas
}

/// What the colours mean: at their strongest, and the other way.
pub(super) fn legend(map: &ValueMap) -> [String; 2] {
    let scale = wording::number(f64::from(scale_of(map)));
    let what = map.quantity.meaning.to_lowercase();
    [format!("up to {scale}: {what}"), format!("down to -{scale}")]
}

/// The value that is drawn at full strength.
fn scale_of(map: &ValueMap) -> f32 {
    map.values.voxels().iter().fold(LEAST_SCALE, |most, value| most.max(value.abs()))
}

/// A map on an image, in pixels.
pub(super) struct Heat {
    pub(super) sampled: Sampled,
    /// Colour and share of it at each pixel.
    overlay: Vec<([u8; 3], f32)>,
}

impl Heat {
    /// The map where `plane` was sampled.
    pub(super) fn of(map: &ValueMap, plane: &Plane, sampled: Sampled) -> Self {
        let scale = scale_of(map);
        let colour = |value: f32| (if value >= 0.0 { WARM } else { COOL }, (value / scale).abs() * MOST_COVER);
        let overlay = plane.values(&map.values, [sampled.width, sampled.height]).into_iter().map(colour).collect();
        Self { sampled, overlay }
    }

    /// Drawn with its upper left corner at (left, top) of the canvas, which has room for it.
    pub(super) fn draw(&self, canvas: &mut RgbImage, [left, top]: [u32; 2]) {
        let columns = self.sampled.width;
        for n in 0..columns * self.sampled.height {
            canvas.put_pixel(left + n % columns, top + n / columns, Rgb(self.pixel(n as usize)));
        }
    }

    fn pixel(&self, n: usize) -> [u8; 3] {
        let (grey, (colour, share)) = (f32::from(self.sampled.grey[n]), self.overlay[n]);
        colour.map(|c| (grey * (1.0 - share) + f32::from(c) * share).round() as u8)
    }

    /// The map alone: red, green, blue and opacity of each pixel.
    pub(super) fn rgba(&self) -> Vec<u8> {
        self.overlay.iter().flat_map(|([r, g, b], share)| [*r, *g, *b, (share * 255.0).round() as u8]).collect()
    }
}
