//! Planes of the grid as people look at them: three through the patient, and the slices as they were stored.
//!
//! Radiological convention: axial as seen from the feet, patient's left on the right and front up; coronal as seen from the front,
//! patient's left on the right and head up; sagittal as seen from the patient's left, front on the left and head up. Planes are those of the
//! grid nearest to the patient's, not resampled across it; letters name the patient direction nearest to each edge.

use image::{Rgb, RgbImage};
use rayon::prelude::*;

use super::placed::placed;
use super::window::grey;
use crate::dataset::tags;
use crate::findings::{self, Finding, Findings};
use crate::geometry::Grid;
use crate::series::VoiWindow;
use crate::volume::{ImageVolume, LabelMap, Volume};

/// A direction through the grid that a plane follows: a voxel axis, from its start or from its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Direction {
    axis: usize,
    count: u32,
    spacing_mm: f64,
    reversed: bool,
    /// Letters of the patient at its start and its end.
    pub(super) letters: [char; 2],
}

impl Direction {
    fn index(&self, step: u32) -> usize {
        (if self.reversed { self.count - 1 - step } else { step }) as usize
    }

    /// The pixels, of `pixels` along it, in which the ends of a range of voxels lie.
    fn pixels(&self, [low, high]: [f64; 2], pixels: u32) -> [u32; 2] {
        let last = f64::from(self.count) - 1.0;
        let [low, high] = if self.reversed { [last - high, last - low] } else { [low, high] };
        let pixel = |at: f64| (at + 0.5) / f64::from(self.count) * f64::from(pixels);
        [pixel(low).floor(), pixel(high).ceil() - 1.0].map(|at| at.clamp(0.0, f64::from(pixels - 1)) as u32)
    }

    fn extent_mm(&self) -> f64 {
        f64::from(self.count) * self.spacing_mm
    }
}

/// One plane of the grid: what runs across it, what runs down it, and where it lies on the third axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    /// Empty for a slice as it is stored.
    pub(super) name: &'static str,
    pub(super) across: Direction,
    pub(super) down: Direction,
    /// The voxel axis that it is one of the planes of.
    pub(super) axis: usize,
    pub(super) position: usize,
    /// Planes along that axis.
    pub(super) count: u32,
}

/// The planes of a result: axial, coronal and sagittal; of an image that lies nowhere in the patient the image itself.
pub(super) fn planes(findings: &Findings) -> Vec<Plane> {
    let is_single = findings.labels.grid().dims()[2] == 1;
    if lies_nowhere(findings) && is_single { vec![stored_slice(findings, 0)] } else { patient_planes(findings).into() }
}

/// Whether it is of radiographs and the like.
fn lies_nowhere(findings: &Findings) -> bool {
    findings.source.file.is_none() && !findings.source.lies_in_patient()
}

/// Axial, coronal and sagittal. Each plane is the one that shows the segments best: where the sum over segments of (area in this plane /
/// largest area in any parallel plane) is largest, so that a nodule counts as much as the body; of boxes and points the one that lies nearest to
/// the centres of most that it cuts; the middle of the grid where nothing was found.
fn patient_planes(findings: &Findings) -> [Plane; 3] {
    let grid = findings.labels.grid();
    let [left, back, head] = grid.orientation().voxel_axis_of_lps();
    // Towards L, P and S as the grid runs; the picture reverses what the convention wants the other way.
    let direction = |(axis, same_way): (usize, bool), letters| direction(grid, axis, !same_way, letters);
    let to_left = direction(left, ['R', 'L']);
    let to_back = direction(back, ['A', 'P']);
    let to_feet = direction((head.0, !head.1), ['H', 'F']);
    let places: Vec<&findings::Place> = placed(findings).map(|one| one.place).collect();
    let best = if places.is_empty() { best_positions(&findings.labels) } else { best_for_places(grid, &places) };
    let plane = |name, across: Direction, down: Direction| {
        let axis = 3 - across.axis - down.axis;
        Plane { name, across, down, axis, position: best[axis], count: grid.dims()[axis] }
    };
    [plane("axial", to_left, to_back), plane("coronal", to_left, to_feet), plane("sagittal", to_back, to_feet)]
}

/// Slice `k` as it is stored: columns across, rows down. Of an image that lies nowhere in the patient the letters are those of Patient
/// Orientation (0020,0020), and spaces where it says nothing.
pub(super) fn stored_slice(findings: &Findings, k: usize) -> Plane {
    let grid = findings.labels.grid();
    let letters = if lies_nowhere(findings) {
        let stated = findings.source.frames[0].texts(tags::PATIENT_ORIENTATION);
        let letter = |n: usize| stated.get(n).and_then(|text| text.trim().chars().next());
        [letter(0), letter(1), None].map(|to| to.map_or([' '; 2], letters_towards))
    } else {
        grid.orientation().0.map(letters_towards)
    };
    plane_of(grid, k, letters)
}

fn plane_of(grid: &Grid, k: usize, letters: [[char; 2]; 3]) -> Plane {
    let along = |axis: usize| direction(grid, axis, false, letters[axis]);
    Plane { name: "", across: along(0), down: along(1), axis: 2, position: k, count: grid.dims()[2] }
}

/// Letters at the start and the end of a direction towards a side of the patient.
fn letters_towards(to: char) -> [char; 2] {
    match to {
        'L' => ['R', 'L'],
        'R' => ['L', 'R'],
        'P' => ['A', 'P'],
        'A' => ['P', 'A'],
        'S' | 'H' => ['F', 'H'],
        'I' | 'F' => ['H', 'F'],
        _ => [' '; 2],
    }
}

fn direction(grid: &Grid, axis: usize, reversed: bool, letters: [char; 2]) -> Direction {
    Direction { axis, count: grid.dims()[axis], spacing_mm: grid.spacing_mm()[axis], reversed, letters }
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

/// The same for boxes and points.
fn best_for_places(grid: &Grid, places: &[&findings::Place]) -> [usize; 3] {
    std::array::from_fn(|axis| {
        let centres: Vec<f64> = places.iter().map(|place| place.centre_in(grid)[axis]).collect();
        let score = |n: u32| -> f64 {
            let cut = places.iter().zip(&centres).filter(|(place, _)| place.section(grid, axis, n).is_some());
            cut.map(|(_, centre)| 1.0 / (1.0 + (f64::from(n) - centre).abs())).sum()
        };
        // Planes near to a centre: no other cuts as much.
        let near = centres.iter().map(|centre| centre.round().clamp(0.0, f64::from(grid.dims()[axis] - 1)) as u32);
        let best = near.map(|n| (score(n), n)).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        best.map_or(0, |(_, n)| n as usize)
    })
}

impl Plane {
    /// Which one it is, for people: "axial, slice 34 of 120", "slice 34 of 120"; of a single image "image".
    pub(super) fn caption(&self) -> String {
        if self.name.is_empty() && self.count == 1 {
            return "image".to_owned();
        }
        let name = if self.name.is_empty() { String::new() } else { format!("{}, ", self.name) };
        format!("{name}{} {} of {}", ["column", "row", "slice"][self.axis], self.position + 1, self.count)
    }

    /// Whether it is a line of voxels, not a picture.
    pub(super) fn is_flat(&self) -> bool {
        self.across.count == 1 || self.down.count == 1
    }

    /// Pixels across and down with the patient's proportions, the longer side `side`; and pixels a millimetre.
    pub(super) fn fitted(&self, side: u32) -> ([u32; 2], f64) {
        let extent_mm = [self.across.extent_mm(), self.down.extent_mm()];
        let pixels_per_mm = f64::from(side) / extent_mm[0].max(extent_mm[1]);
        (extent_mm.map(|mm| ((mm * pixels_per_mm).round() as u32).clamp(1, side)), pixels_per_mm)
    }

    /// Pixels across and down: one a voxel, or whole multiples of that where the longer side is below `least`; of voxels that are not square
    /// the longer side is drawn out. Never more than `most` along a side.
    pub(super) fn whole_multiple(&self, least: u32, most: u32) -> [u32; 2] {
        let multiple = least.div_ceil(self.across.count.max(self.down.count)).max(1);
        let finest_mm = self.across.spacing_mm.min(self.down.spacing_mm);
        let pixels = [self.across, self.down].map(|d| f64::from(d.count) * f64::from(multiple) * d.spacing_mm / finest_mm);
        let shrunk = (f64::from(most) / pixels[0].max(pixels[1])).min(1.0);
        pixels.map(|p| ((p * shrunk).round() as u32).max(1))
    }

    fn voxel(&self, across: u32, down: u32) -> [usize; 3] {
        let mut voxel = [0; 3];
        voxel[self.across.axis] = self.across.index(across);
        voxel[self.down.axis] = self.down.index(down);
        voxel[self.axis] = self.position;
        voxel
    }

    /// Drawn to `width` x `height` pixels: grey values bilinear, labels nearest; boxes as frames, and points as small ones. Images of
    /// MONOCHROME1 are shown as they are meant, low values bright.
    pub(super) fn sampled(&self, image: &ImageVolume, findings: &Findings, window: &VoiWindow, size: [u32; 2]) -> Sampled {
        let mut sampled = self.sampled_as_stored(image, &findings.labels, window, size);
        self.frame_placed(findings, &mut sampled);
        if lies_nowhere(findings) && findings.source.frames[0].instance.pixels.is_monochrome1() {
            sampled.grey.iter_mut().for_each(|grey| *grey = 255 - *grey);
        }
        sampled
    }

    /// Labels the frames of the boxes and points that the plane cuts; of several over each other the first one is seen.
    fn frame_placed(&self, findings: &Findings, sampled: &mut Sampled) {
        let drawn: Vec<(u8, &Finding)> = drawn(&findings.findings).collect();
        for (label, finding) in drawn.into_iter().rev() {
            let Some(ends) = finding.place.and_then(|place| place.section(findings.labels.grid(), self.axis, self.position as u32)) else {
                continue;
            };
            // Ends come along the axes in order, pictures have them across and down.
            let [first, second] = if self.across.axis < self.down.axis { ends } else { [ends[1], ends[0]] };
            sampled.frame(label, [self.across.pixels(first, sampled.width), self.down.pixels(second, sampled.height)]);
        }
    }

    /// The value of the voxel at each of `width` x `height` pixels.
    pub(super) fn values(&self, map: &Volume<f32>, [width, height]: [u32; 2]) -> Vec<f32> {
        let dims = map.grid().dims().map(|d| d as usize);
        let at = |[i, j, k]: [usize; 3]| map.voxels()[(k * dims[1] + j) * dims[0] + i];
        let columns: Vec<u32> = (0..width).map(|x| Place::of(x, width, self.across.count).voxel).collect();
        let rows = (0..height).map(|y| Place::of(y, height, self.down.count).voxel);
        rows.flat_map(|j| columns.iter().map(move |&i| (i, j))).map(|(i, j)| at(self.voxel(i, j))).collect()
    }

    fn sampled_as_stored(&self, image: &ImageVolume, labels: &LabelMap, window: &VoiWindow, [width, height]: [u32; 2]) -> Sampled {
        let dims = image.grid().dims().map(|d| d as usize);
        let at = |[i, j, k]: [usize; 3]| (k * dims[1] + j) * dims[0] + i;
        let value = |across: u32, down: u32| image.physical(self.voxel(across, down));
        let columns: Vec<Place> = (0..width).map(|x| Place::of(x, width, self.across.count)).collect();
        let rows = (0..height).into_par_iter().map(|y| {
            let down = Place::of(y, height, self.down.count);
            let row = |across: &Place, j: u32| match across.share {
                0.0 => value(across.low, j),
                share => value(across.low, j) * (1.0 - share) + value(across.high, j) * share,
            };
            let pixel = |across: &Place| {
                let mean = match down.share {
                    0.0 => row(across, down.low),
                    share => row(across, down.low) * (1.0 - share) + row(across, down.high) * share,
                };
                (grey(window, mean), labels.voxels()[at(self.voxel(across.voxel, down.voxel))])
            };
            columns.iter().map(pixel).collect::<Vec<_>>()
        });
        let pixels: Vec<(u8, u8)> = rows.flatten_iter().collect();
        let (grey, label) = pixels.into_iter().unzip();
        Sampled { width, height, grey, label }
    }
}

/// A plane in pixels.
#[derive(Debug)]
pub(super) struct Sampled {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Row by row.
    pub(super) grey: Vec<u8>,
    /// The label at each pixel.
    pub(super) label: Vec<u8>,
}

/// How strongly a segment covers the image: wholly along its border, and in part within it.
pub(super) const TINT: f64 = 0.25;

impl Sampled {
    /// Gives the edge of a rectangle, left and right, top and bottom, a label: two pixels wide on larger pictures.
    fn frame(&mut self, label: u8, [[left, right], [top, bottom]]: [[u32; 2]; 2]) {
        let wide = 1 + u32::from(self.width.max(self.height) >= 256);
        let is_edge = |at: u32, [first, last]: [u32; 2]| at < first + wide || at + wide > last;
        for y in top..=bottom {
            for x in (left..=right).filter(|&x| is_edge(y, [top, bottom]) || is_edge(x, [left, right])) {
                self.label[(y * self.width + x) as usize] = label;
            }
        }
    }

    /// Whether pixel `n` lies at the border of its label; the edge of the image is none.
    pub(super) fn is_border(&self, n: usize) -> bool {
        let (width, label) = (self.width as usize, self.label[n]);
        let (x, y) = (n % width, n / width);
        (x + 1 < width && self.label[n + 1] != label)
            || (y + 1 < self.height as usize && self.label[n + width] != label)
            || (x > 0 && self.label[n - 1] != label)
            || (y > 0 && self.label[n - width] != label)
    }

    /// Grey values; with colours also the segments: tinted, and solid along their borders.
    pub(super) fn pixel(&self, n: usize, colours: Option<&Colours>) -> [u8; 3] {
        let grey = self.grey[n];
        match colours.and_then(|table| table[usize::from(self.label[n])]) {
            None => [grey; 3],
            Some(colour) if self.is_border(n) => colour,
            Some(colour) => colour.map(|c| (f64::from(grey) * (1.0 - TINT) + f64::from(c) * TINT).round() as u8),
        }
    }

    /// Drawn with its upper left corner at (left, top) of the canvas, which has room for it.
    pub(super) fn draw(&self, canvas: &mut RgbImage, [left, top]: [u32; 2], colours: Option<&Colours>) {
        for y in 0..self.height {
            for x in 0..self.width {
                canvas.put_pixel(left + x, top + y, Rgb(self.pixel((y * self.width + x) as usize, colours)));
            }
        }
    }
}

/// The colour of each label; none where nothing is drawn.
pub(super) type Colours = [Option<[u8; 3]>; 256];

/// The colours of the findings that are present.
pub(super) fn colours(findings: &[Finding]) -> Colours {
    let mut table = [None; 256];
    drawn(findings).for_each(|(label, finding)| table[usize::from(label)] = Some(finding.colour));
    table
}

/// The findings that pictures show, each with its label there: that of its segment, or, for boxes and points, which have none, its number
/// among them. A picture has 255 labels: of more boxes than that the first ones are drawn.
pub(super) fn drawn(findings: &[Finding]) -> impl Iterator<Item = (u8, &Finding)> {
    let mut number = 0u8;
    findings.iter().filter(|f| f.is_drawn()).filter_map(move |finding| {
        let label = match finding.segment {
            Some(label) => label,
            None => {
                number = number.checked_add(1)?;
                number
            }
        };
        Some((label, finding))
    })
}

/// Where a pixel centre falls among `count` voxels: between `low` and `high`, `share` of the way; and in which voxel.
struct Place {
    low: u32,
    high: u32,
    share: f64,
    voxel: u32,
}

impl Place {
    fn of(pixel: u32, pixels: u32, count: u32) -> Self {
        let at = ((f64::from(pixel) + 0.5) / f64::from(pixels) * f64::from(count) - 0.5).clamp(0.0, f64::from(count - 1));
        let low = at.floor() as u32;
        // In integers, so that a centre between two voxels is always in the later one.
        let voxel = (u64::from(pixel) * 2 + 1) * u64::from(count) / (u64::from(pixels) * 2);
        Self { low, high: (low + 1).min(count - 1), share: at - f64::from(low), voxel: voxel as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;

    fn grid(dims: [u32; 3], spacing_mm: [f64; 3]) -> Grid {
        let [x, y, z] = spacing_mm;
        Grid::new(dims, Affine::from_columns([x, 0., 0.], [0., y, 0.], [0., 0., z], [0.; 3])).expect("a grid")
    }

    #[test]
    fn slices_keep_their_proportions() {
        let size = |dims, spacing| plane_of(&grid(dims, spacing), 0, [[' '; 2]; 3]).whole_multiple(512, 4096);
        assert_eq!(size([512, 512, 3], [0.7, 0.7, 5.0]), [512, 512]);
        assert_eq!(size([256, 192, 3], [1.0, 1.0, 5.0]), [512, 384]);
        assert_eq!(size([90, 68, 3], [4.0, 4.0, 5.0]), [540, 408], "the next whole multiple");
        assert_eq!(size([512, 100, 3], [0.5, 2.5, 5.0]), [512, 500], "pixels that are not square");
        assert_eq!(size([600, 3, 3], [4.0, 0.001, 5.0]), [4096, 1], "bounded");
    }

    #[test]
    fn one_pixel_a_voxel_is_the_voxel() {
        for (pixels, count) in [(7, 7), (21, 7), (512, 256)] {
            for pixel in 0..pixels {
                let place = Place::of(pixel, pixels, count);
                assert_eq!(place.voxel, pixel / (pixels / count));
                assert!(pixels > count || place.share == 0.0);
            }
        }
    }

    #[test]
    fn letters_follow_the_stored_axes() {
        let coronal = Affine::from_columns([1., 0., 0.], [0., 0., -1.], [0., 1., 0.], [0.; 3]);
        let grid = Grid::new([3, 3, 3], coronal).expect("a grid");
        let plane = plane_of(&grid, 1, grid.orientation().0.map(letters_towards));
        assert_eq!([plane.across.letters, plane.down.letters], [['R', 'L'], ['H', 'F']]);
    }
}
