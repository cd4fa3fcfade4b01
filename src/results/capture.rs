//! Secondary Captures (PS3.3 A.8.1): key images with the segments and boxes over them, for viewers that know nothing else.
//!
//! Each is a slice as it was stored, at its own resolution or a whole multiple of it, pixels that are not square drawn out to the patient's
//! proportions, between a heading and the findings that it shows. There is no patient text in the pixels: the header has it.

use std::ops::Range;

use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::canvas::{Style, fill, text};
use super::envelope::{ResultObject, Slot, envelope, reference_to_frame, source_header};
use super::key::KeyImage;
use super::placed::placed;
use super::plane::{Plane, Sampled, colours, stored_slice};
use super::typeface::Face;
use super::{Context, Object, SC_FILE, multiframe, window, wording};
use crate::codes::{dcm, sop_class};
use crate::dataset::{Frame, Item, tags};
use crate::findings::{Finding, Findings};

const CAPTURE: Slot =
    Slot { name: "sc", sop_class_uid: sop_class::SECONDARY_CAPTURE, modality: "OT", kind: "key images with overlay", place: 6 };

/// Key images that are captured at most; a package with more has them in its other forms.
const MOST_IMAGES: usize = 20;
/// Pixels that the longer side of a slice has at least, and at most.
pub(super) const SIDE: Range<u32> = 512..4096;
/// Findings that are named below an image at most.
const MOST_LINES: usize = 12;

pub(super) const GROUND: [u8; 3] = [16, 17, 20];
pub(super) const WHITE: [u8; 3] = [235; 3];
pub(super) const DIM: [u8; 3] = [160; 3];
pub(super) const AMBER: [u8; 3] = [255, 190, 60];

/// One capture for each key image, in one series.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    let images = &context.key_images[..context.key_images.len().min(MOST_IMAGES)];
    let captures: Vec<Capture> = images.par_iter().enumerate().map(|(n, image)| Capture::of(context, n, image)).collect();
    (1..).zip(images).zip(captures).map(|((number, image), capture)| object(context, number, image, capture)).collect()
}

fn object(context: &Context<'_>, number: u32, image: &KeyImage, capture: Capture) -> Object<'static> {
    let findings = context.findings;
    let reference = ResultObject::numbered(findings, &CAPTURE, number);
    let frame = &findings.source.frames[image.frame as usize];
    let data = secondary_capture(
        findings,
        &reference,
        frame,
        &capture.plane,
        if context.segments.all().is_empty() { "Image with boxes drawn over it" } else { "Image with segments drawn over it" },
        capture.canvas,
    );
    Object::new(SC_FILE.replace('.', &format!("-{number}.")), reference, data)
}

/// What is drawn of a frame of the source, as an object.
pub(super) fn secondary_capture(
    findings: &Findings,
    reference: &ResultObject,
    frame: &Frame,
    plane: &Plane,
    what: &str,
    canvas: RgbImage,
) -> Item {
    let header = source_header(findings);
    let source = reference_to_frame(frame).code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &dcm::SOURCE_IMAGE_FOR_PROCESSING);
    let directions = [plane.across, plane.down].map(|d| d.letters[1].to_string());
    let package = &findings.provenance.package;
    let data = envelope(findings, reference)
        .texts(tags::IMAGE_TYPE, &["DERIVED", "SECONDARY"])
        .text(tags::CONVERSION_TYPE, "WSD")
        .copied(tags::BODY_PART_EXAMINED, header)
        .copied(tags::LATERALITY, header);
    let data = if directions.iter().all(|letter| letter == " ") {
        data.empty(tags::PATIENT_ORIENTATION) // nobody knows
    } else {
        data.texts(tags::PATIENT_ORIENTATION, &directions.each_ref().map(String::as_str))
    };
    data.text(tags::BURNED_IN_ANNOTATION, "YES")
        .text(tags::DERIVATION_DESCRIPTION, &format!("{what} by {}", package.name))
        .text(tags::IMAGE_COMMENTS, wording::banner(package))
        .sequence(tags::SOURCE_IMAGE_SEQUENCE, [source])
        .with(multiframe::lossy(findings))
        .integer(tags::SAMPLES_PER_PIXEL, 3)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "RGB")
        .integer(tags::PLANAR_CONFIGURATION, 0)
        .integer(tags::ROWS, canvas.height())
        .integer(tags::COLUMNS, canvas.width())
        .integer(tags::BITS_ALLOCATED, 8)
        .integer(tags::BITS_STORED, 8)
        .integer(tags::HIGH_BIT, 7)
        .integer(tags::PIXEL_REPRESENTATION, 0)
        .bytes(tags::PIXEL_DATA, canvas.into_raw())
}

/// A key image as it is shown.
pub(super) struct Capture {
    pub(super) canvas: RgbImage,
    plane: Plane,
    /// Upper left corner of the slice on the canvas, and its pixels across and down.
    pub(super) corner: [u32; 2],
    pub(super) size: [u32; 2],
}

impl Capture {
    /// The `n`-th key image, from 0.
    pub(super) fn of(context: &Context<'_>, n: usize, image: &KeyImage) -> Self {
        let findings = context.findings;
        let k = image.slice as usize;
        let plane = stored_slice(findings, k);
        let size = plane.whole_multiple(SIDE.start, SIDE.end);
        let frame = &findings.source.frames[image.frame as usize];
        let window = window::of_source(frame, context.image, k).unwrap_or_else(|| context.window.greys());
        let sampled = plane.sampled(context.image, findings, &window, size);
        let shown: Vec<&Finding> = named(context, image, &sampled);

        let layout = Layout::around(size);
        let heading = layout.heading(context, n, &plane);
        let footing = layout.footing(context, &shown, &window::caption(&window, context.image.quantity));
        let (mut canvas, corner) = layout.canvas(size, &heading, &footing);
        sampled.draw(&mut canvas, corner, Some(&colours(&findings.findings)));
        layout.letters(&mut canvas, &plane, corner, size);
        Self { canvas, plane, corner, size }
    }
}

/// The findings that a slice shows: first those whose key image it is.
fn named<'a>(context: &Context<'a>, image: &KeyImage, sampled: &Sampled) -> Vec<&'a Finding> {
    let mut seen = [false; 256];
    sampled.label.iter().for_each(|&label| seen[usize::from(label)] = true);
    let (best, others): (Vec<_>, Vec<_>) =
        context.segments.all().iter().filter(|s| seen[usize::from(s.label)]).partition(|s| image.segments.contains(&s.number));
    let segments = best.into_iter().chain(others).map(|segment| segment.finding);
    // All that it shows: one whose frame is hidden by others' too.
    let shown = |best: bool| {
        placed(context.findings).filter(move |one| image.placed.contains(&one.number) == best && one.is_on(context.findings, image.frame))
    };
    segments.chain(shown(true).chain(shown(false)).map(|one| one.finding)).collect()
}

/// What stands below every capture.
pub(super) fn made(context: &Context<'_>, window: &str) -> String {
    let provenance = &context.findings.provenance;
    let started = wording::started(&provenance.started);
    format!("{} {window}. roentgen {}, analysis of {started}", wording::UNVERIFIED, provenance.roentgen_version)
}

fn px(unit: f32, pixels: f32) -> u32 {
    (unit * pixels).round() as u32
}

/// How the text around a slice is set.
pub(super) struct Layout {
    /// Pixels a unit of length.
    unit: f32,
    /// Of the whole canvas.
    width: u32,
}

/// A line of text, after a square of a colour where there is one.
pub(super) struct Line {
    pub(super) colour: Option<[u8; 3]>,
    pub(super) text: String,
    pub(super) style: Style,
}

impl Layout {
    const MARGIN: f32 = 12.0;
    const LINE: f32 = 22.0;

    /// For an image of so many pixels. Letters grow with the image, so that a reduced view of a large one can still be read.
    pub(super) fn around([width, height]: [u32; 2]) -> Self {
        let unit = (width.max(height) as f32 / 640.0).max(1.0);
        Self { unit, width: width.max(SIDE.start) + 2 * px(unit, 28.0) }
    }

    /// The canvas with what stands above and below the image, and the image's upper left corner.
    pub(super) fn canvas(&self, size: [u32; 2], heading: &[Line], footing: &[Line]) -> (RgbImage, [u32; 2]) {
        let top = self.height_of(heading) + px(self.unit, 28.0);
        let below = top + size[1] + px(self.unit, 28.0);
        let mut canvas = RgbImage::from_pixel(self.width, below + self.height_of(footing), Rgb(GROUND));
        self.write(&mut canvas, 0, heading);
        self.write(&mut canvas, below, footing);
        (canvas, [(self.width - size[0]) / 2, top])
    }

    pub(super) fn body(&self, colour: [u8; 3]) -> Style {
        Style::new(Face::Regular, 15.0 * self.unit, colour)
    }

    /// Text in as many lines as it needs.
    pub(super) fn lines(&self, text: &str, style: Style) -> impl Iterator<Item = Line> + use<> {
        let width = self.width as f32 - 2.0 * Self::MARGIN * self.unit;
        style.face.wrap(text, style.size, width).into_iter().map(move |text| Line { colour: None, text, style })
    }

    fn heading(&self, context: &Context<'_>, n: usize, plane: &Plane) -> Vec<Line> {
        let package = &context.findings.provenance.package;
        let all = context.key_images.len();
        let captured = all.min(MOST_IMAGES);
        let mut place = format!("Key image {} of {captured}, {}", n + 1, plane.caption());
        if captured < all {
            place += &format!(" ({} further key images are not captured)", all - captured);
        }
        let model = format!("{} {}", package.name, package.version_string());
        let (title, body) = (self.lines(wording::banner(package), self.title()), self.body(WHITE));
        title.chain(self.lines(&model, body)).chain(self.lines(&place, self.body(DIM))).collect()
    }

    /// Of the first line.
    pub(super) fn title(&self) -> Style {
        Style::new(Face::Bold, 18.0 * self.unit, AMBER)
    }

    fn footing(&self, context: &Context<'_>, shown: &[&Finding], window: &str) -> Vec<Line> {
        let width = self.width as f32 - (2.0 * Self::MARGIN + Self::LINE) * self.unit;
        let style = self.body(WHITE);
        let line = |finding: &&Finding| Line {
            colour: Some(finding.colour),
            text: style.face.cut(&wording::line(finding), style.size, width),
            style,
        };
        let mut lines: Vec<Line> = shown.iter().take(MOST_LINES).map(line).collect();
        if shown.len() > MOST_LINES {
            lines.extend(self.lines(&format!("and {} more findings on this slice", shown.len() - MOST_LINES), style));
        }
        lines.push(Line { colour: None, text: String::new(), style });
        lines.extend(self.lines(&made(context, window), self.body(DIM)));
        lines
    }

    fn height_of(&self, lines: &[Line]) -> u32 {
        px(self.unit, Self::LINE * lines.len() as f32 + Self::MARGIN)
    }

    fn write(&self, canvas: &mut RgbImage, top: u32, lines: &[Line]) {
        for (n, line) in lines.iter().enumerate() {
            let y = top + px(self.unit, Self::MARGIN / 2.0 + Self::LINE * n as f32);
            let mut x = px(self.unit, Self::MARGIN);
            if let Some(colour) = line.colour {
                let side = px(self.unit, 13.0);
                fill(canvas, [x, y + px(self.unit, 3.0), side, side], colour);
                x += px(self.unit, Self::LINE);
            }
            text(canvas, x, y, &line.text, line.style);
        }
    }

    /// Directions of the patient around the slice, not on it.
    pub(super) fn letters(&self, canvas: &mut RgbImage, plane: &Plane, [x, y]: [u32; 2], [width, height]: [u32; 2]) {
        let style = Style::new(Face::Bold, 16.0 * self.unit, AMBER);
        let mut put = |x: u32, y: u32, letter: char| text(canvas, x, y, &letter.to_string(), style);
        let (half, middle) = (px(self.unit, 6.0), px(self.unit, 11.0));
        put(x - px(self.unit, 20.0), y + height / 2 - middle, plane.across.letters[0]);
        put(x + width + px(self.unit, 8.0), y + height / 2 - middle, plane.across.letters[1]);
        put(x + width / 2 - half, y - px(self.unit, 25.0), plane.down.letters[0]);
        put(x + width / 2 - half, y + height + px(self.unit, 2.0), plane.down.letters[1]);
    }
}
