//! A picture for people who have no viewer at hand: three planes of the image, and the same with the segments.
//!
//! Radiological convention: axial as seen from the feet, patient's left on the right and front up; coronal as seen from the front,
//! patient's left on the right and head up; sagittal as seen from the patient's left, front on the left and head up. Planes are those of the
//! grid nearest to the patient's, not resampled across it; letters name the patient direction nearest to each edge.
//!
//! Each plane is the one that shows the segments best: where the sum over segments of (area in this plane / largest area in any
//! parallel plane) is largest, so that a nodule counts as much as the body; the middle of the grid where nothing was found.

use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::canvas::{CHARACTER, fill, rimmed_text, text, wrap};
use crate::codes::sct;
use crate::findings::{Finding, Findings};
use crate::volume::{ImageVolume, LabelMap, Quantity};

/// Which physical values are black and white (PS3.3 C.11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// The middle grey.
    pub centre: f64,
    /// From black to white; above 0.
    pub width: f64,
}

impl Window {
    /// Soft tissue, HU.
    pub const SOFT_TISSUE: Self = Self { centre: 40.0, width: 400.0 };

    /// [`Window::SOFT_TISSUE`] for HU; else from the 1st to the 99th percentile of about 100 000 voxels.
    pub fn of(image: &ImageVolume) -> Self {
        if image.quantity == Quantity::Hounsfield {
            return Self::SOFT_TISSUE;
        }
        let [nx, ny, _] = image.grid().dims().map(|d| d as usize);
        let voxels = image.grid().voxel_count();
        let step = (voxels / 100_000).max(1) | 1;
        let mut values: Vec<f64> = (0..voxels).step_by(step).map(|n| image.physical([n % nx, n / nx % ny, n / (nx * ny)])).collect();
        values.sort_by(f64::total_cmp);
        let percentile = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
        let (low, high) = (percentile(0.01), percentile(0.99));
        Self { centre: (low + high) / 2.0, width: (high - low).max(f64::MIN_POSITIVE) }
    }

    fn grey(self, value: f64) -> u8 {
        (((value - self.centre) / self.width + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8
    }
}

/// Side of the box that a plane is fitted into, pixels.
const PANEL: u32 = 420;
const MARGIN: u32 = 12;
const LINE: u32 = CHARACTER + 8;
const WHITE: [u8; 3] = [235; 3];
const DIM: [u8; 3] = [150; 3];
const AMBER: [u8; 3] = [255, 190, 60];

/// The picture: image above, segments over it below, then names and volumes, and what the result is not for.
///
/// 1308 pixels wide, as high as the list of findings needs; no patient text.
///
/// # Panics
/// Where image and label map do not lie on one grid: a broken promise of the caller.
pub fn picture(image: &ImageVolume, findings: &Findings, window: Window) -> RgbImage {
    let labels = &findings.labels;
    assert_eq!(image.grid().dims(), labels.grid().dims(), "image and labels lie on one grid");
    let width = 3 * PANEL + 4 * MARGIN;
    let columns = ((width - 2 * MARGIN) / CHARACTER) as usize;
    let package = &findings.provenance.package;
    let title = format!("AI result, not verified: {} {}", package.name, package.version_string());
    let entries = legend(findings);
    let notes = wrap(&package.intended_use, columns);
    let legend_rows = entries.len().div_ceil(2) as u32;
    let top = MARGIN + LINE;
    let below = top + 2 * (PANEL + LINE + MARGIN);
    let height = below + (legend_rows + notes.len() as u32) * LINE + 2 * MARGIN;
    let mut canvas = RgbImage::from_pixel(width, height, Rgb([16, 17, 20]));

    text(&mut canvas, MARGIN, MARGIN, &title, WHITE);
    let colours = colour_table(&findings.findings);
    for (n, plane) in planes(image, labels).into_iter().enumerate() {
        let sampled = plane.sampled(image, labels, window);
        for overlay in [false, true] {
            let x = MARGIN + n as u32 * (PANEL + MARGIN);
            let y = top + u32::from(overlay) * (PANEL + LINE + MARGIN);
            sampled.draw(&mut canvas, [x, y + LINE], overlay.then_some(&colours));
            plane.letter(&mut canvas, [x, y + LINE], &sampled);
            let caption = if overlay { "segments".into() } else { plane.caption() };
            text(&mut canvas, x, y, &caption, DIM);
        }
    }
    for (n, (colour, line)) in entries.iter().enumerate() {
        let (column, row) = (n as u32 / legend_rows, n as u32 % legend_rows);
        let (x, y) = (MARGIN + column * (width / 2), below + row * LINE);
        match colour {
            Some(colour) => fill(&mut canvas, [x, y, CHARACTER, CHARACTER], *colour),
            None => fill(&mut canvas, [x, y + CHARACTER / 2 - 1, CHARACTER, 2], DIM),
        }
        text(&mut canvas, x + 2 * CHARACTER, y, line, WHITE);
    }
    for (n, line) in notes.iter().enumerate() {
        text(&mut canvas, MARGIN, below + MARGIN + (legend_rows + n as u32) * LINE, line, AMBER);
    }
    canvas
}

/// Name and volume of each finding, with its colour where the picture shows it; cut to half the picture's width.
fn legend(findings: &Findings) -> Vec<(Option<[u8; 3]>, String)> {
    let line = |finding: &Finding| {
        let volume = finding.measurements.iter().find(|m| m.concept == sct::VOLUME && m.derivation.is_none());
        let number = match (finding.present, volume) {
            (false, _) => "not found".into(),
            (true, Some(m)) => m.value.map_or("volume unknown".into(), |value| format!("{value:.1} {}", m.unit.value)),
            (true, None) => "found".into(),
        };
        let room = 37usize.saturating_sub(number.chars().count() + 1);
        let name: String = finding.name.chars().take(room).collect();
        let shown = finding.present && finding.segment.is_some();
        (shown.then_some(finding.colour), format!("{name} {number}"))
    };
    findings.findings.iter().map(line).collect()
}

fn colour_table(findings: &[Finding]) -> [Option<[u8; 3]>; 256] {
    let mut table = [None; 256];
    for finding in findings {
        if let Some(label) = finding.segment {
            table[usize::from(label)] = Some(finding.colour);
        }
    }
    table
}

/// A direction through the grid that the picture follows: a voxel axis, from its start or from its end.
#[derive(Debug, Clone, Copy)]
struct Direction {
    axis: usize,
    count: u32,
    spacing_mm: f64,
    reversed: bool,
    /// Letters of the patient at its start and its end.
    letters: [char; 2],
}

impl Direction {
    fn index(&self, step: u32) -> usize {
        (if self.reversed { self.count - 1 - step } else { step }) as usize
    }

    fn extent_mm(&self) -> f64 {
        f64::from(self.count) * self.spacing_mm
    }
}

/// One plane of the grid: what runs across it, what runs down it, and where it lies on the third axis.
#[derive(Debug, Clone, Copy)]
struct Plane {
    name: &'static str,
    across: Direction,
    down: Direction,
    axis: usize,
    position: usize,
}

fn planes(image: &ImageVolume, labels: &LabelMap) -> [Plane; 3] {
    let grid = image.grid();
    let spacing_mm = grid.spacing_mm();
    let dims = grid.dims();
    // Towards L, P and S as the grid runs; the picture reverses what the convention wants the other way.
    let [left, back, head] = grid.orientation().voxel_axis_of_lps();
    let direction = |(axis, same_way): (usize, bool), letters: [char; 2]| Direction {
        axis,
        count: dims[axis],
        spacing_mm: spacing_mm[axis],
        reversed: !same_way,
        letters,
    };
    let to_left = direction(left, ['R', 'L']);
    let to_back = direction(back, ['A', 'P']);
    let to_feet = direction((head.0, !head.1), ['H', 'F']);
    let best = best_positions(labels);
    let plane = |name, across: Direction, down: Direction| {
        let axis = 3 - across.axis - down.axis;
        Plane { name, across, down, axis, position: best[axis] }
    };
    [plane("axial", to_left, to_back), plane("coronal", to_left, to_feet), plane("sagittal", to_back, to_feet)]
}

/// Along each voxel axis the position whose plane shows the segments best.
fn best_positions(labels: &LabelMap) -> [usize; 3] {
    let dims = labels.grid().dims().map(|d| d as usize);
    let counted: Vec<[u32; 256]> = vec![[0; 256]; dims.iter().sum()];
    let (rows, slices) = (dims[0], dims[0] + dims[1]);
    let areas = (0..dims[2])
        .into_par_iter()
        .fold(
            || counted.clone(),
            |mut areas, k| {
                for (j, row) in labels.slice(k).chunks(dims[0]).enumerate() {
                    for (i, &label) in row.iter().enumerate().filter(|(_, label)| **label != 0) {
                        let label = usize::from(label);
                        areas[i][label] += 1;
                        areas[rows + j][label] += 1;
                        areas[slices + k][label] += 1;
                    }
                }
                areas
            },
        )
        .reduce_with(|mut a, b| {
            a.iter_mut().flatten().zip(b.iter().flatten()).for_each(|(a, b)| *a += b);
            a
        })
        .unwrap_or(counted);
    let starts = [0, rows, slices];
    std::array::from_fn(|axis| {
        let planes = &areas[starts[axis]..][..dims[axis]];
        let mut largest = [0u32; 256];
        planes.iter().for_each(|plane| largest.iter_mut().zip(plane).for_each(|(most, &area)| *most = (*most).max(area)));
        let score = |n: usize| -> f64 {
            planes[n].iter().zip(largest).filter(|(_, most)| *most > 0).map(|(&area, most)| f64::from(area) / f64::from(most)).sum()
        };
        let middle = dims[axis] / 2;
        // Of equals the one nearest to the middle.
        (0..dims[axis])
            .map(|n| (score(n), n))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.abs_diff(middle).cmp(&a.1.abs_diff(middle))))
            .map_or(0, |(_, n)| n)
    })
}

/// A plane in pixels of the picture.
struct Sampled {
    width: u32,
    height: u32,
    pixels_per_mm: f64,
    grey: Vec<u8>,
    label: Vec<u8>,
}

impl Plane {
    fn caption(&self) -> String {
        format!("{} {}={}", self.name, ['i', 'j', 'k'][self.axis], self.position)
    }

    fn voxel(&self, across: u32, down: u32) -> [usize; 3] {
        let mut voxel = [0; 3];
        voxel[self.across.axis] = self.across.index(across);
        voxel[self.down.axis] = self.down.index(down);
        voxel[self.axis] = self.position;
        voxel
    }

    /// Fitted into the panel with the patient's proportions: grey values bilinear, labels nearest.
    fn sampled(&self, image: &ImageVolume, labels: &LabelMap, window: Window) -> Sampled {
        let extent_mm = [self.across.extent_mm(), self.down.extent_mm()];
        let pixels_per_mm = f64::from(PANEL) / extent_mm[0].max(extent_mm[1]);
        let [width, height] = extent_mm.map(|mm| ((mm * pixels_per_mm).round() as u32).clamp(1, PANEL));
        let dims = image.grid().dims().map(|d| d as usize);
        let at = |[i, j, k]: [usize; 3]| (k * dims[1] + j) * dims[0] + i;
        let value = |across: u32, down: u32| image.physical(self.voxel(across, down));
        let mut grey = Vec::with_capacity((width * height) as usize);
        let mut label = Vec::with_capacity((width * height) as usize);
        for y in 0..height {
            let down = Place::of(y, height, self.down.count);
            for x in 0..width {
                let across = Place::of(x, width, self.across.count);
                let row = |j: u32| value(across.low, j) * (1.0 - across.share) + value(across.high, j) * across.share;
                grey.push(window.grey(row(down.low) * (1.0 - down.share) + row(down.high) * down.share));
                label.push(labels.voxels()[at(self.voxel(across.nearest(), down.nearest()))]);
            }
        }
        Sampled { width, height, pixels_per_mm, grey, label }
    }

    /// Letters at the edges, and a bar of 50 mm where it fits.
    fn letter(&self, canvas: &mut RgbImage, [x, y]: [u32; 2], sampled: &Sampled) {
        let [x, y] = sampled.corner([x, y]);
        let (width, height) = (sampled.width.max(CHARACTER), sampled.height.max(CHARACTER));
        let mut put = |x, y, letter: char| rimmed_text(canvas, x, y, &letter.to_string(), AMBER);
        put(x + 3, y + (height - CHARACTER) / 2, self.across.letters[0]);
        put(x + width - CHARACTER - 1, y + (height - CHARACTER) / 2, self.across.letters[1]);
        put(x + (width - CHARACTER) / 2, y + 3, self.down.letters[0]);
        put(x + (width - CHARACTER) / 2, y + height - CHARACTER - 1, self.down.letters[1]);
        let bar = (50.0 * sampled.pixels_per_mm).round() as u32;
        if bar + 16 < width / 2 && height > 4 * CHARACTER {
            fill(canvas, [x + 8, y + height - 10, bar, 3], WHITE);
            rimmed_text(canvas, x + 8, y + height - 14 - CHARACTER, "50 mm", WHITE);
        }
    }
}

impl Sampled {
    /// Upper left corner, centred in the panel at (x, y).
    fn corner(&self, [x, y]: [u32; 2]) -> [u32; 2] {
        [x + (PANEL - self.width) / 2, y + (PANEL - self.height) / 2]
    }

    /// Grey values; with colours also the segments: tinted, and solid along their borders.
    fn draw(&self, canvas: &mut RgbImage, panel: [u32; 2], colours: Option<&[Option<[u8; 3]>; 256]>) {
        const TINT: f64 = 0.35;
        fill(canvas, [panel[0], panel[1], PANEL, PANEL], [0; 3]);
        let [left, top] = self.corner(panel);
        for y in 0..self.height {
            for x in 0..self.width {
                let n = (y * self.width + x) as usize;
                let grey = self.grey[n];
                let label = self.label[n];
                let colour = colours.and_then(|table| table[usize::from(label)]);
                let border = || {
                    (x + 1 < self.width && self.label[n + 1] != label)
                        || (y + 1 < self.height && self.label[n + self.width as usize] != label)
                        || (x > 0 && self.label[n - 1] != label)
                        || (y > 0 && self.label[n - self.width as usize] != label)
                };
                let pixel = match colour {
                    None => [grey; 3],
                    Some(colour) if border() => colour,
                    Some(colour) => colour.map(|c| (f64::from(grey) * (1.0 - TINT) + f64::from(c) * TINT).round() as u8),
                };
                canvas.put_pixel(left + x, top + y, Rgb(pixel));
            }
        }
    }
}

/// Where a pixel centre falls among `count` voxels: between `low` and `high`, `share` of the way.
struct Place {
    low: u32,
    high: u32,
    share: f64,
}

impl Place {
    fn of(pixel: u32, pixels: u32, count: u32) -> Self {
        let at = ((f64::from(pixel) + 0.5) / f64::from(pixels) * f64::from(count) - 0.5).clamp(0.0, f64::from(count - 1));
        let low = at.floor() as u32;
        Self { low, high: (low + 1).min(count - 1), share: at - f64::from(low) }
    }

    fn nearest(&self) -> u32 {
        if self.share < 0.5 { self.low } else { self.high }
    }
}
