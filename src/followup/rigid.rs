//! Rigid registration of two volumes of one patient: six degrees of freedom, patient millimetres to patient millimetres.
//!
//! Both volumes are reduced to 4 mm and halved twice. At 16 mm the start is looked for: centres of mass on each other, and the later one
//! moved along each axis from there. From each of the best starts, Gauss-Newton steps on the weighted squared difference of
//! values with a gain and an offset of their own, so that the optimum is that of a weighted correlation; then at 8 and at 4 mm. The number of
//! steps is fixed, and no number is drawn by chance: the same volumes give the same map.

use thiserror::Error;

use crate::findings::Registration;
use crate::geometry::{Affine, Coded, GeometryError, Grid, norm, sub};
use crate::gpu::GpuError;
use crate::kernels::alignment::{Aligner, Alignment, AlignmentSums, TERMS};
use crate::kernels::{Backend, Interpolation, Resample};
use crate::volume::{ImageVolume, Quantity, Volume};

/// Spacing of the finest volumes, mm.
const FINEST_MM: f64 = 4.0;
/// Voxels of the finest volume at most: a longer body is reduced to a coarser spacing.
const MOST_VOXELS: f64 = 4e6;
/// What the finest volume has at most, with what rounding adds along its axes.
pub(super) const MOST_REDUCED: usize = 2 * MOST_VOXELS as usize;
/// Fewest voxels along an axis at 4 mm.
const FEWEST: u32 = 8;
/// Halvings.
const LEVELS: usize = 3;
/// Steps of Gauss and Newton at most at 16, 8 and 4 mm.
const STEPS: [usize; LEVELS] = [20, 12, 8];
/// Starts that are followed at 16 mm.
const STARTS: usize = 4;
/// Distance between starts, mm, and how many there are to each side along x, y and z.
const START_MM: f64 = 32.0;
const STARTS_ASIDE: [i32; 3] = [1, 1, 8];
/// Share of the smaller volume that must lie in the other.
pub const LEAST_OVERLAP: f64 = 0.3;
/// Least weight of a difference: a share of the spread of the image.
const LEAST_SCALE: f64 = 0.02;
/// Arms of turns are in these units, mm, so that a unit of a turn moves a voxel as far as one of a shift.
const ARM_MM: f64 = 100.0;
/// A step that moves nothing farther than this ends a level, mm.
const STILL_MM: f64 = 0.002;
/// Largest step, voxels of the level.
const LONGEST_STEP: f64 = 2.0;
/// Values of CT that count, HU: contrast medium and metal come and go.
const CT_HU: [f64; 2] = [-1000.0, 300.0];
/// An image that varies by less than this share of its largest value varies by the rounding of the averages that reduced it.
const FLAT: f64 = 1e-5;
/// Values are kept as whole numbers of a thousandth of the image's standard deviation.
const UNIT: f64 = 1e-3;

/// Why two volumes have no registration.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Unregistered {
    /// Too few voxels to tell where they lie.
    #[error("an image of {} x {} x {} mm is too small to be registered: {} mm along each axis are needed", extent_mm[0].round(), extent_mm[1].round(), extent_mm[2].round(), f64::from(FEWEST) * FINEST_MM)]
    TooSmall {
        /// Along i, j, k.
        extent_mm: [f64; 3],
    },
    /// Nothing in it.
    #[error("an image of one value everywhere cannot be registered")]
    Flat,
    /// They hardly show the same part of the body.
    #[error("the images overlap by {:.0} % of the smaller one after registration, {:.0} % are needed", overlap * 100.0, LEAST_OVERLAP * 100.0)]
    Apart {
        /// 0 to 1.
        overlap: f64,
    },
    /// They do not look alike.
    #[error("the images correlate by {correlation:.3} after registration, the package asks for {least:.3}")]
    Unlike {
        /// Reached.
        correlation: f64,
        /// `follow-up.min_correlation`.
        least: f64,
    },
}

impl Coded for Unregistered {
    fn code(&self) -> &'static str {
        match self {
            Self::TooSmall { .. } => "follow-up.too-small",
            Self::Flat => "follow-up.flat",
            Self::Apart { .. } => "follow-up.apart",
            Self::Unlike { .. } => "follow-up.unlike",
        }
    }
}

/// An image as registration sees it: 4 mm a voxel, values in thousandths of a standard deviation from the mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// Same axes and centre as the image's (straightened, where that is sheared).
    pub grid: Grid,
    /// `i` fastest.
    pub values: Vec<i16>,
}

impl Reduced {
    /// Of an image; averages over its voxels, where they are smaller.
    ///
    /// # Errors
    /// The device's, and inside of it why the image cannot be registered.
    pub fn of(backend: &Backend, image: &ImageVolume) -> Result<Result<Self, Unregistered>, GpuError> {
        let grid = match reduced_grid(image.grid()) {
            Ok(grid) => grid,
            Err(extent_mm) => return Ok(Err(Unregistered::TooSmall { extent_mm })),
        };
        let clip = (image.quantity == Quantity::Hounsfield).then_some(CT_HU);
        let straight = image.grid().is_straight();
        let kernel = Resample {
            interpolation: if straight { Interpolation::Area } else { Interpolation::Linear },
            outside: (!straight).then(|| clip.map_or_else(|| image.range()[0], |[low, _]| low)),
            clip,
            ..Resample::new(grid.dims(), image.grid().voxel_from_lps() * grid.lps_from_voxel())
        };
        let values = backend.resample(image, &kernel)?;
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let spread = (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count).sqrt();
        let largest = values.iter().fold(0.0, |largest: f64, &v| largest.max(f64::from(v).abs()));
        if spread.is_nan() || spread <= FLAT * largest {
            return Ok(Err(Unregistered::Flat));
        }
        let values = values.iter().map(|&v| ((f64::from(v) - mean) / spread / UNIT).round() as i16).collect(); // saturates
        Ok(Ok(Self { grid, values }))
    }

    /// The volume itself, halved once, halved twice: coarsest first.
    fn levels(&self) -> [Volume<f32>; LEVELS] {
        let finest = Volume::new(self.grid, self.values.iter().map(|&v| (f64::from(v) * UNIT) as f32).collect());
        let middle = halved(&finest);
        [halved(&middle), middle, finest]
    }
}

/// Same axes and centre, 4 mm or more; the extent where that is too small.
fn reduced_grid(image: &Grid) -> Result<Grid, [f64; 3]> {
    let extent_mm: [f64; 3] = std::array::from_fn(|n| image.spacing_mm()[n] * f64::from(image.dims()[n]));
    if extent_mm.iter().any(|&mm| mm < f64::from(FEWEST) * FINEST_MM) || image.dims().contains(&1) {
        return Err(extent_mm);
    }
    let volume_mm3: f64 = extent_mm.iter().product();
    let spacing_mm = FINEST_MM.max((volume_mm3 / MOST_VOXELS).cbrt());
    let straight = if image.is_straight() { Ok(*image) } else { image.straightened() };
    straight.and_then(|grid| grid.respaced([spacing_mm; 3])).map_err(|_: GeometryError| extent_mm)
}

/// Means of 2 x 2 x 2 voxels; a last odd one is left out.
fn halved(volume: &Volume<f32>) -> Volume<f32> {
    let dims = volume.grid().dims();
    let [columns, rows, _] = dims.map(|n| n as usize);
    let step = dims.map(|n| if n > 1 { 2 } else { 1 });
    let half: [u32; 3] = std::array::from_fn(|n| dims[n] / step[n]);
    let mut values = Vec::with_capacity(half.iter().map(|&n| n as usize).product());
    for k in 0..half[2] as usize {
        for j in 0..half[1] as usize {
            for i in 0..half[0] as usize {
                let mut sum = 0f64;
                for corner in 0..8usize {
                    let at: [usize; 3] =
                        std::array::from_fn(|n| [i, j, k][n] * step[n] as usize + (corner >> n & 1).min(step[n] as usize - 1));
                    sum += f64::from(volume.voxels()[(at[2] * rows + at[1]) * columns + at[0]]);
                }
                values.push((sum / 8.0) as f32);
            }
        }
    }
    let shift = step.map(|n| (f64::from(n) - 1.0) / 2.0);
    let affine = volume.grid().lps_from_voxel() * Affine::scale_then_shift(step.map(f64::from), shift);
    let grid = Grid::new(half, affine).expect("voxels of a grid, taken together, are one");
    Volume::new(grid, values)
}

/// Lays the later images on the earlier ones.
///
/// # Errors
/// The device's, and inside of it why there is no registration: too little overlap, or less correlation than `least`.
pub fn register(backend: &Backend, earlier: &Reduced, later: &Reduced, least: f64) -> Result<Result<Registration, Unregistered>, GpuError> {
    let (fixed, moving) = (earlier.levels(), later.levels());
    let mut best: Option<Fit> = None;
    {
        let level = Level::new(backend, &fixed[0], &moving[0])?;
        let mut starts = level.starts()?;
        starts.truncate(STARTS);
        for start in starts {
            let fit = level.refined(start, STEPS[0])?;
            if best.as_ref().is_none_or(|best| fit.score() > best.score()) {
                best = Some(fit);
            }
        }
    }
    let Some(mut fit) = best else { return Ok(Err(Unregistered::Apart { overlap: 0.0 })) };
    for n in 1..LEVELS {
        fit = Level::new(backend, &fixed[n], &moving[n])?.refined(fit.later_from_earlier, STEPS[n])?;
    }
    let Fit { later_from_earlier, correlation, overlap } = fit;
    if overlap < LEAST_OVERLAP {
        return Ok(Err(Unregistered::Apart { overlap }));
    }
    if correlation.is_nan() || correlation < least {
        return Ok(Err(Unregistered::Unlike { correlation, least }));
    }
    let earlier_from_later = later_from_earlier.inverse().expect("a turn and a shift have an inverse");
    Ok(Ok(Registration { earlier_from_later, correlation, overlap }))
}

/// A map, and how well it fits.
#[derive(Debug, Clone, Copy)]
struct Fit {
    later_from_earlier: Affine,
    correlation: f64,
    overlap: f64,
}

impl Fit {
    /// What starts are compared by: images that hardly overlap may correlate by chance.
    fn score(&self) -> f64 {
        if self.overlap < LEAST_OVERLAP { -2.0 + self.overlap } else { self.correlation }
    }
}

/// Both volumes at one spacing.
struct Level<'a> {
    fixed: &'a Volume<f32>,
    moving: &'a Volume<f32>,
    aligner: Aligner<'a>,
}

impl<'a> Level<'a> {
    fn new(backend: &'a Backend, fixed: &'a Volume<f32>, moving: &'a Volume<f32>) -> Result<Self, GpuError> {
        Ok(Self { fixed, moving, aligner: Aligner::new(backend, fixed, moving)? })
    }

    /// Shifts to begin with, the most promising first.
    fn starts(&self) -> Result<Vec<Affine>, GpuError> {
        let apart = sub(centre_of_mass(self.moving), centre_of_mass(self.fixed));
        let mut shifts = vec![[0.0; 3]]; // as the scanner's coordinates say
        let [x, y, z] = STARTS_ASIDE;
        for dz in -z..=z {
            for dy in -y..=y {
                for dx in -x..=x {
                    let aside = [dx, dy, dz].map(|n| f64::from(n) * START_MM);
                    shifts.push(std::array::from_fn(|n| apart[n] + aside[n]));
                }
            }
        }
        let mut found = Vec::with_capacity(shifts.len());
        for shift in shifts {
            let map = Affine::scale_then_shift([1.0; 3], shift);
            let sums = self.aligner.sums(&self.alignment(&map, None))?;
            found.push((Fit { later_from_earlier: map, correlation: sums.correlation(), overlap: self.overlap(&sums) }.score(), map));
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0)); // stable: equals stay in order
        Ok(found.into_iter().map(|(_, map)| map).collect())
    }

    /// After so many steps at most. Where the last of them correlates clearly less than another, that one counts.
    fn refined(&self, start: Affine, steps: usize) -> Result<Fit, GpuError> {
        let mut map = start;
        let mut values = None;
        let mut best: Option<Fit> = None;
        for step in 0..=steps {
            let sums = self.aligner.sums(&self.alignment(&map, values))?;
            let fit = Fit { later_from_earlier: map, correlation: sums.correlation(), overlap: self.overlap(&sums) };
            let is_better = best.is_none_or(|best| fit.score() > best.score() - 0.005);
            if is_better {
                best = Some(fit);
            }
            let Some(solved) = Solved::of(&sums).filter(|_| step < steps) else { break };
            values = Some(solved.values);
            let longest_mm = LONGEST_STEP * self.fixed.grid().spacing_mm().into_iter().fold(f64::INFINITY, f64::min);
            let (moved, far_mm) = solved.step(&map, self.centre(&map), longest_mm);
            map = moved;
            if far_mm < STILL_MM {
                break;
            }
        }
        Ok(best.expect("the first step is always measured"))
    }

    /// The centre of the fixed volume, where `map` puts it.
    fn centre(&self, map: &Affine) -> [f64; 3] {
        let middle = self.fixed.grid().dims().map(|n| (f64::from(n) - 1.0) / 2.0);
        map.apply(self.fixed.grid().lps_from_voxel().apply(middle))
    }

    fn alignment(&self, map: &Affine, values: Option<Values>) -> Alignment {
        let later_from_fixed = *map * self.fixed.grid().lps_from_voxel();
        let arm_from_later = Affine::scale_then_shift([1.0 / ARM_MM; 3], self.centre(map).map(|mm| -mm / ARM_MM));
        let voxel_from_lps = self.moving.grid().voxel_from_lps();
        Alignment {
            moving_from_fixed: voxel_from_lps * later_from_fixed,
            arm_from_fixed: arm_from_later * later_from_fixed,
            voxel_from_lps,
            gain: values.map_or(1.0, |v| v.gain),
            offset: values.map_or(0.0, |v| v.offset),
            scale: values.map(|v| v.scale),
        }
    }

    fn overlap(&self, sums: &AlignmentSums) -> f64 {
        let volume = |of: &Volume<f32>| of.grid().voxel_volume_mm3() * of.voxels().len() as f64;
        sums.voxels * self.fixed.grid().voxel_volume_mm3() / volume(self.fixed).min(volume(self.moving))
    }
}

/// Of what lies above the mean, patient mm.
fn centre_of_mass(volume: &Volume<f32>) -> [f64; 3] {
    let [columns, rows, _] = volume.grid().dims().map(|n| n as usize);
    let mut sums = [0f64; 4];
    for (n, &value) in volume.voxels().iter().enumerate() {
        let weight = f64::from(value).max(0.0);
        let voxel = [n % columns, n / columns % rows, n / (columns * rows)];
        for axis in 0..3 {
            sums[axis] += weight * voxel[axis] as f64;
        }
        sums[3] += weight;
    }
    let middle: [f64; 3] = std::array::from_fn(|axis| if sums[3] > 0.0 { sums[axis] / sums[3] } else { 0.0 });
    volume.grid().lps_from_voxel().apply(middle)
}

/// How the values of both volumes belong together.
#[derive(Debug, Clone, Copy)]
struct Values {
    gain: f64,
    offset: f64,
    scale: f64,
}

/// What the normal equations say.
struct Solved {
    /// Turn in units of 1 / [`ARM_MM`], shift in mm.
    step: [f64; 6],
    values: Values,
}

impl Solved {
    /// None where they say nothing: a volume without structure, or values that run against each other.
    fn of(sums: &AlignmentSums) -> Option<Self> {
        const N: usize = TERMS - 1;
        let products = &sums.products;
        let matrix: [[f64; N]; N] = std::array::from_fn(|r| std::array::from_fn(|c| products[r][c]));
        let right: [f64; N] = std::array::from_fn(|r| products[r][N]);
        let solution = solved(matrix, right)?;
        let [gain, offset] = [solution[6], solution[7]];
        if gain.is_nan() || gain <= 0.0 {
            return None;
        }
        // Of all voxels, not of those that the weights favour: a scale that shrinks with its own weights ends in flat tissue alone.
        let values = Values { gain, offset, scale: sums.difference().max(LEAST_SCALE) };
        Some(Self { step: std::array::from_fn(|n| solution[n] / gain), values })
    }

    /// The map after the step, and how far that moves a point an arm away, mm.
    fn step(&self, map: &Affine, centre: [f64; 3], longest_mm: f64) -> (Affine, f64) {
        let [turn, shift]: [[f64; 3]; 2] = [[0, 1, 2], [3, 4, 5]].map(|places| places.map(|n| self.step[n]));
        let far_mm = norm(turn) + norm(shift);
        let share = (longest_mm / far_mm).min(1.0);
        let turned = turn_about(turn.map(|v| v * share / ARM_MM), centre);
        (Affine::scale_then_shift([1.0; 3], shift.map(|v| v * share)) * turned * *map, far_mm * share)
    }
}

/// A turn about an axis through `centre` by the length of `turn`, radians (Rodrigues' formula).
pub(super) fn turn_about(turn: [f64; 3], centre: [f64; 3]) -> Affine {
    let angle = norm(turn);
    let [x, y, z] = if angle > 0.0 { turn.map(|v| v / angle) } else { [0.0; 3] };
    let (sin, cos) = angle.sin_cos();
    let c = 1.0 - cos;
    let columns = [
        [cos + x * x * c, y * x * c + z * sin, z * x * c - y * sin],
        [x * y * c - z * sin, cos + y * y * c, z * y * c + x * sin],
        [x * z * c + y * sin, y * z * c - x * sin, cos + z * z * c],
    ];
    let linear = Affine::from_columns(columns[0], columns[1], columns[2], [0.0; 3]);
    Affine::from_columns(columns[0], columns[1], columns[2], sub(centre, linear.apply(centre)))
}

/// The solution of a positive definite system (Cholesky, scaled to a diagonal of ones); none where it is not.
fn solved<const N: usize>(matrix: [[f64; N]; N], right: [f64; N]) -> Option<[f64; N]> {
    let scale: [f64; N] = std::array::from_fn(|n| 1.0 / matrix[n][n].sqrt());
    if !scale.iter().all(|s| s.is_finite()) {
        return None;
    }
    let mut lower = [[0.0; N]; N];
    for r in 0..N {
        for c in 0..=r {
            let sum: f64 = (0..c).map(|n| lower[r][n] * lower[c][n]).sum();
            let left = matrix[r][c] * scale[r] * scale[c] - sum;
            if r == c {
                if left.is_nan() || left < 1e-12 {
                    return None;
                }
                lower[r][r] = left.sqrt();
            } else {
                lower[r][c] = left / lower[c][c];
            }
        }
    }
    let mut solution = [0.0; N];
    for r in 0..N {
        let sum: f64 = (0..r).map(|n| lower[r][n] * solution[n]).sum();
        solution[r] = (right[r] * scale[r] - sum) / lower[r][r];
    }
    for r in (0..N).rev() {
        let sum: f64 = (r + 1..N).map(|n| lower[n][r] * solution[n]).sum();
        solution[r] = (solution[r] - sum) / lower[r][r];
    }
    Some(std::array::from_fn(|n| solution[n] * scale[n]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Rescale;

    /// A trunk of ellipsoids, HU: fat around muscle, two lungs of unlike size, a heart to the left, a spine, and balls in the lungs.
    fn body(p: [f64; 3]) -> f64 {
        let within = |centre: [f64; 3], radii: [f64; 3]| (0..3).map(|n| ((p[n] - centre[n]) / radii[n]).powi(2)).sum::<f64>() < 1.0;
        let balls = [([-70.0, -20.0, 30.0], 8.0), ([80.0, 15.0, -20.0], 10.0), ([-60.0, 30.0, -60.0], 6.0)];
        if balls.iter().any(|(centre, radius)| within(*centre, [*radius; 3])) || within([26.0, -28.0, -40.0], [45.0, 40.0, 50.0]) {
            45.0
        } else if within([0.0, 68.0, p[2]], [22.0, 20.0, 1.0]) {
            400.0
        } else if within([72.0, 0.0, 4.0], [48.0, 70.0, 110.0]) || within([-74.0, 0.0, 0.0], [52.0, 74.0, 118.0]) {
            -850.0
        } else if within([0.0, 0.0, p[2]], [147.0, 99.0, 1.0]) {
            45.0 + 0.1 * p[2]
        } else if within([0.0, 0.0, p[2]], [165.0, 116.0, 1.0]) {
            -100.0
        } else {
            -1000.0
        }
    }

    /// The body, moved by `lps_from_body`, on a grid; noise of 20 HU.
    fn image(dims: [u32; 3], spacing_mm: [f64; 3], middle: [f64; 3], lps_from_body: &Affine, quantity: Quantity) -> ImageVolume {
        let first = std::array::from_fn(|n| middle[n] - spacing_mm[n] * (f64::from(dims[n]) - 1.0) / 2.0);
        let grid = Grid::new(dims, Affine::scale_then_shift(spacing_mm, first)).expect("a grid");
        let body_from_voxel = lps_from_body.inverse().expect("rigid") * grid.lps_from_voxel();
        let [columns, rows, _] = dims.map(|n| n as usize);
        let stored = (0..grid.voxel_count()).map(|n| {
            let voxel = [n % columns, n / columns % rows, n / (columns * rows)].map(|v| v as f64);
            let noise = ((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / f64::from(1 << 24) - 0.5;
            (body(body_from_voxel.apply(voxel)) + 70.0 * noise + 1024.0).round() as i16
        });
        let stored = Volume::new(grid, stored.collect());
        ImageVolume { stored: stored.into(), rescale: vec![Rescale { slope: 1.0, intercept: -1024.0 }; dims[2] as usize], quantity }
    }

    fn moved(degrees: [f64; 3], shift: [f64; 3]) -> Affine {
        Affine::scale_then_shift([1.0; 3], shift) * turn_about(degrees.map(f64::to_radians), [0.0; 3])
    }

    fn reduced(image: &ImageVolume) -> Reduced {
        Reduced::of(&Backend::Cpu, image).expect("on the CPU").expect("large enough")
    }

    const WHOLE: ([u32; 3], [f64; 3]) = ([120, 90, 80], [3.0, 3.0, 3.6]);

    /// Registers a moved body to one that was not, and says how far points in the lungs are off, mm, and the turn, degrees.
    fn errors(later: &ImageVolume, truth: &Affine) -> (f64, f64, Registration) {
        let (dims, spacing) = WHOLE;
        let earlier = image(dims, spacing, [0.0; 3], &Affine::IDENTITY, later.quantity);
        let found = register(&Backend::Cpu, &reduced(&earlier), &reduced(later), 0.8).expect("on the CPU").expect("registered");
        let places = [[-70.0, -20.0, 30.0], [80.0, 15.0, -20.0], [-60.0, 30.0, -60.0], [70.0, 0.0, 70.0], [-80.0, 0.0, 80.0]];
        let off = places.map(|p| norm(sub(found.earlier_from_later.apply(truth.apply(p)), p)));
        let left = found.earlier_from_later * *truth;
        let trace: f64 = (0..3).map(|n| left.column(n)[n]).sum();
        let turned = ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos().to_degrees();
        (off.into_iter().fold(0.0, f64::max), turned, found)
    }

    #[test]
    fn known_motions_are_found() {
        let cases = [
            moved([0.0; 3], [0.0; 3]),
            moved([3.0, -2.0, 4.0], [12.0, -8.0, 17.0]),
            moved([-6.0, 5.0, -8.0], [-25.0, 30.0, -40.0]),
            moved([0.0, 0.0, 10.0], [0.0, 15.0, 120.0]),
        ];
        for truth in cases {
            let (dims, spacing) = WHOLE;
            let middle = truth.apply([0.0; 3]).map(|mm| mm * 0.8);
            let later = image(dims, spacing, middle, &truth, Quantity::Hounsfield);
            let (off_mm, turned, found) = errors(&later, &truth);
            println!("{truth:?}: {off_mm:.3} mm, {turned:.3} degrees, {:.4}, {:.2}", found.correlation, found.overlap);
            assert!(off_mm < 1.0 && turned < 0.5, "{off_mm} mm and {turned} degrees off for {truth:?}");
        }
    }

    #[test]
    fn parts_other_spacings_and_other_values_are_found() {
        let truth = moved([2.0, 3.0, -4.0], [10.0, -6.0, 20.0]);
        // The lower two thirds alone, thinner voxels.
        let part = image([150, 112, 62], [2.4, 2.4, 3.0], [10.0, -6.0, -25.0], &truth, Quantity::Hounsfield);
        let (off_mm, turned, _) = errors(&part, &truth);
        assert!(off_mm < 1.0 && turned < 0.5, "a part: {off_mm} mm and {turned} degrees off");
        // Values of no scale, half as large.
        let (dims, spacing) = WHOLE;
        let mut other = image(dims, spacing, [10.0, -6.0, 20.0], &truth, Quantity::Arbitrary);
        other.rescale.iter_mut().for_each(|r| *r = Rescale { slope: 0.5, intercept: 40.0 });
        let (off_mm, turned, _) = errors(&other, &truth);
        assert!(off_mm < 1.0 && turned < 0.5, "other values: {off_mm} mm and {turned} degrees off");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let (dims, spacing) = WHOLE;
        let earlier = image(dims, spacing, [0.0; 3], &Affine::IDENTITY, Quantity::Hounsfield);
        let code = |later: &ImageVolume| {
            let later = match Reduced::of(&Backend::Cpu, later).expect("on the CPU") {
                Ok(later) => later,
                Err(refused) => return refused.code(),
            };
            register(&Backend::Cpu, &reduced(&earlier), &later, 0.8).expect("on the CPU").expect_err("refused").code()
        };
        let with = |value: &dyn Fn(usize) -> i16| {
            let values = (0..earlier.grid().voxel_count()).map(value).collect();
            ImageVolume { stored: Volume::new(*earlier.grid(), values).into(), ..earlier.clone() }
        };
        assert_eq!(code(&with(&|_| 1000)), "follow-up.flat");
        // A checkerboard of large blocks.
        let blocks = |n: usize| if (n % 120 / 24 + n / 120 % 90 / 18 + n / 10800 / 16).is_multiple_of(2) { 1100 } else { 100 };
        assert_eq!(code(&with(&blocks)), "follow-up.unlike");
        let thin = image([120, 90, 6], [3.0; 3], [0.0; 3], &Affine::IDENTITY, Quantity::Hounsfield);
        assert_eq!(code(&thin), "follow-up.too-small");
    }

    #[test]
    fn the_gpu_finds_the_same_map() {
        let Some(gpu) = crate::gpu::for_tests() else { return };
        let backend = Backend::Gpu(Box::new(gpu));
        let truth = moved([3.0, -2.0, 4.0], [12.0, -8.0, 17.0]);
        let (dims, spacing) = ([60, 45, 40], [6.0, 6.0, 7.2]);
        let earlier = image(dims, spacing, [0.0; 3], &Affine::IDENTITY, Quantity::Hounsfield);
        let later = image(dims, spacing, [12.0, -8.0, 17.0], &truth, Quantity::Hounsfield);
        let on = |backend: &Backend| {
            let [earlier, later] = [&earlier, &later].map(|i| Reduced::of(backend, i).expect("it works").expect("large enough"));
            register(backend, &earlier, &later, 0.8).expect("it works").expect("registered")
        };
        let (cpu, gpu) = (on(&Backend::Cpu), on(&backend));
        for p in [[-70.0, -20.0, 30.0], [80.0, 15.0, -20.0]] {
            let apart = norm(sub(cpu.earlier_from_later.apply(p), gpu.earlier_from_later.apply(p)));
            assert!(apart < 0.05, "{apart} mm apart");
        }
    }
}
