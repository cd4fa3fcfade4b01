//! A picture for people who have no viewer at hand: three planes of the image, and the same with the segments.

use image::{Rgb, RgbImage};

use super::canvas::{Style, fill, rimmed_text, text};
use super::heat::Heat;
use super::plane::{Plane, Sampled, colours, planes};
use super::raster::colour_jpeg;
use super::typeface::Face;
use super::window::Window;
use super::wording;
use crate::codes::sct;
use crate::findings::{Finding, Findings};
use crate::volume::ImageVolume;

/// Side of the box that a plane is fitted into, pixels.
const PANEL: u32 = 420;
const MARGIN: u32 = 12;
const LINE: u32 = 24;
const SWATCH: u32 = 16;
const SIZE: f32 = 16.0;
const WHITE: [u8; 3] = [235; 3];
const DIM: [u8; 3] = [150; 3];
const AMBER: [u8; 3] = [255, 190, 60];
const BODY: Style = Style::new(Face::Regular, SIZE, WHITE);

/// The picture: image above, segments over it below where there can be any, then names and volumes, and what the result is not for. Of a
/// single image that lies nowhere in the patient the image, and beside it up to two of its maps.
///
/// 1308 pixels wide, as high as the list of findings needs; no patient text.
///
/// # Panics
/// Where image and label map do not lie on one grid: a broken promise of the caller.
pub fn picture(image: &ImageVolume, findings: &Findings, window: Window) -> RgbImage {
    let labels = &findings.labels;
    assert_eq!(image.grid().dims(), labels.grid().dims(), "image and labels lie on one grid");
    let width = 3 * PANEL + 4 * MARGIN;
    let package = &findings.provenance.package;
    let title = format!("{}: {} {}", wording::banner(package), package.name, package.version_string());
    let column = width / 2;
    let entries: Vec<Entry> = findings.findings.iter().map(|f| Entry::of(f, (column - 3 * MARGIN - 2 * SWATCH) as f32)).collect();
    let notes = Face::Regular.wrap(&format!("{} {}", package.intended_use, wording::UNVERIFIED), SIZE, (width - 2 * MARGIN) as f32);
    let legend_rows = entries.len().div_ceil(2) as u32;
    let top = MARGIN + LINE;
    let has_segments = findings.findings.iter().any(|f| f.segment.is_some() || f.place.is_some());
    let below = top + (1 + u32::from(has_segments)) * (PANEL + LINE + MARGIN);
    let height = below + (legend_rows + notes.len() as u32) * LINE + 2 * MARGIN;
    let mut canvas = RgbImage::from_pixel(width, height, Rgb([16, 17, 20]));

    text(&mut canvas, MARGIN, MARGIN - 4, &title, Style { face: Face::Bold, ..BODY });
    let colours = colours(&findings.findings);
    let planes = planes(findings);
    // On a radiograph a millimetre is none of the patient, or unknown.
    let has_lengths = planes.len() > 1;
    for (n, plane) in planes.iter().enumerate() {
        let (size, pixels_per_mm) = plane.fitted(PANEL);
        let sampled = plane.sampled(image, findings, &window.greys(), size);
        for overlay in [false, true].into_iter().take(1 + usize::from(has_segments)) {
            let x = MARGIN + n as u32 * (PANEL + MARGIN);
            let y = top + u32::from(overlay) * (PANEL + LINE + MARGIN);
            fill(&mut canvas, [x, y + LINE, PANEL, PANEL], [0; 3]);
            let corner = [x + (PANEL - sampled.width) / 2, y + LINE + (PANEL - sampled.height) / 2];
            sampled.draw(&mut canvas, corner, overlay.then_some(&colours));
            letter(&mut canvas, [x, y + LINE], plane);
            if has_lengths {
                scale(&mut canvas, corner, &sampled, pixels_per_mm);
            }
            let over = if findings.findings.iter().any(|f| f.place.is_some()) { "findings" } else { "segments" };
            let caption = if overlay { over.into() } else { plane.caption() };
            text(&mut canvas, x, y + 2, &caption, Style { colour: DIM, ..BODY });
        }
    }
    // An image alone leaves room for what its findings rest on.
    for (n, map) in (1..3).zip(findings.maps.iter().filter(|_| planes.len() == 1)) {
        let (size, _) = planes[0].fitted(PANEL);
        let (x, y) = (MARGIN + n * (PANEL + MARGIN), top + LINE);
        fill(&mut canvas, [x, y, PANEL, PANEL], [0; 3]);
        let heat = Heat::of(map, &planes[0], planes[0].sampled(image, findings, &window.greys(), size));
        heat.draw(&mut canvas, [x + (PANEL - size[0]) / 2, y + (PANEL - size[1]) / 2]);
        text(&mut canvas, x, top + 2, &Face::Regular.cut(&map.name, SIZE, PANEL as f32), Style { colour: DIM, ..BODY });
    }
    for (n, entry) in entries.iter().enumerate() {
        let (x, y) = (MARGIN + n as u32 / legend_rows * column, below + n as u32 % legend_rows * LINE);
        entry.draw(&mut canvas, [x, y]);
    }
    for (n, line) in notes.iter().enumerate() {
        text(&mut canvas, MARGIN, below + MARGIN + (legend_rows + n as u32) * LINE, line, Style { colour: AMBER, ..BODY });
    }
    canvas
}

/// Longer side of a thumbnail, pixels.
const THUMBNAIL: u32 = 168;

/// The axial plane, or the image, with its segments, small, as JPEG: to be recognised on a page with many others. No patient text.
///
/// # Panics
/// Where image and label map do not lie on one grid: a broken promise of the caller.
pub fn thumbnail(image: &ImageVolume, findings: &Findings) -> Vec<u8> {
    assert_eq!(image.grid().dims(), findings.labels.grid().dims(), "image and labels lie on one grid");
    let planes = planes(findings);
    let plane = planes.first().expect("every result has a plane");
    let (size, _) = plane.fitted(THUMBNAIL);
    let sampled = plane.sampled(image, findings, &Window::of(image).greys(), size);
    let mut canvas = RgbImage::new(sampled.width, sampled.height);
    sampled.draw(&mut canvas, [0, 0], Some(&colours(&findings.findings)));
    colour_jpeg(&canvas, 78)
}

/// A line of the legend: name and volume of a finding, with its colour where the picture shows it.
struct Entry {
    colour: Option<[u8; 3]>,
    line: String,
}

impl Entry {
    /// Cut to `width` pixels, the number never.
    fn of(finding: &Finding, width: f32) -> Self {
        let volume = finding.measurements.iter().find(|m| m.concept == sct::VOLUME && m.derivation.is_none());
        let number = match (finding.present, volume) {
            (true, Some(volume)) => wording::value_with_unit(volume),
            _ if finding.certainty_percent.is_some() => format!("{}, {}", wording::presence(finding), wording::certainty(finding)),
            _ => wording::presence(finding).to_owned(),
        };
        let name = Face::Regular.cut(&finding.name, SIZE, width - Face::Regular.width(&number, SIZE) - SIZE);
        Self { colour: finding.is_drawn().then_some(finding.colour), line: format!("{name}  {number}") }
    }

    fn draw(&self, canvas: &mut RgbImage, [x, y]: [u32; 2]) {
        match self.colour {
            Some(colour) => fill(canvas, [x, y + 3, SWATCH, SWATCH], colour),
            None => fill(canvas, [x, y + 3 + SWATCH / 2 - 1, SWATCH, 2], DIM),
        }
        text(canvas, x + 2 * SWATCH, y + 1, &self.line, BODY);
    }
}

/// Letters at the edges of a panel.
fn letter(canvas: &mut RgbImage, [x, y]: [u32; 2], plane: &Plane) {
    let style = Style::new(Face::Bold, SIZE, AMBER);
    let mut put = |x, y, letter: char| rimmed_text(canvas, x, y, &letter.to_string(), style);
    put(x + 4, y + (PANEL - LINE) / 2, plane.across.letters[0]);
    put(x + PANEL - SWATCH, y + (PANEL - LINE) / 2, plane.across.letters[1]);
    put(x + (PANEL - SWATCH) / 2, y + 1, plane.down.letters[0]);
    put(x + (PANEL - SWATCH) / 2, y + PANEL - LINE, plane.down.letters[1]);
}

/// A bar of 50 mm where it fits into the image.
fn scale(canvas: &mut RgbImage, [x, y]: [u32; 2], sampled: &Sampled, pixels_per_mm: f64) {
    let bar = (50.0 * pixels_per_mm).round() as u32;
    if bar + 16 < sampled.width / 2 && sampled.height > 4 * LINE {
        fill(canvas, [x + 8, y + sampled.height - 10, bar, 3], WHITE);
        rimmed_text(canvas, x + 8, y + sampled.height - 32, "50 mm", Style { size: 14.0, ..BODY });
    }
}
