//! What a step of a rigid registration needs to know of two volumes: sums over the voxels of one that lie in the other.
//!
//! Voxel x of the fixed volume lies at `moving_from_fixed * x` in the moving one, whose trilinear value there is M(x) and whose gradient
//! in the patient is g(x). With F(x) the fixed value and `a = arm_from_fixed * x`, each voxel gives `u = (a x g, g, M, 1, F)`, and the sums are
//! those of `w u u^T`: the normal equations of `F = gain M + offset + gain (turn . (a x g) + shift . g)`. The weight `w = 1 / (1 + (F - gain M -
//! offset)^2 / scale^2)` is Cauchy's, so that what moved by itself (a table, a diaphragm, a nodule that grew) counts little. The moments that a
//! correlation is made of are summed without weights. Voxels that do not lie within the centres of the moving volume count nowhere.
//!
//! On the CPU sums are in `f64`, slice by slice in one order: the number of threads changes no digit. On a GPU they are in `f32` over some
//! dozens of voxels, then in `f64`: 1e-4 of the largest of their kind.
//!
//! Memory traffic: 4 bytes a fixed voxel, 4 a moving one near it. Shader: `shaders/alignment.wgsl`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::Backend;
use crate::geometry::{Affine, cross};
use crate::gpu::{Buffer, Gpu, GpuError, Pipeline};
use crate::volume::Volume;

pub(super) const WGSL: &str = include_str!("../../shaders/alignment.wgsl");

/// Numbers of u: three of a turn, three of a shift, M, 1 and F.
pub const TERMS: usize = 9;
/// Products of two of them.
const PRODUCTS: usize = TERMS * (TERMS + 1) / 2;
/// With the moments: number, F, M, F F, M M, F M.
const SUMS: usize = PRODUCTS + 6;
const THREADS: u32 = 64;
/// Workgroups at most: each has a row of sums.
const GROUPS: u32 = 256;

/// Where the fixed voxels lie, and how they are weighted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alignment {
    /// Moving voxel (i, j, k) from fixed voxel (i, j, k).
    pub moving_from_fixed: Affine,
    /// The arm of a turn from fixed voxel (i, j, k): from the centre that is turned about, in the units of the turn's distances.
    pub arm_from_fixed: Affine,
    /// Voxel (i, j, k) of the moving volume from patient LPS mm: makes gradients those of the patient.
    pub voxel_from_lps: Affine,
    /// How fixed values follow from moving ones: `gain * M + offset`.
    pub gain: f64,
    /// See `gain`.
    pub offset: f64,
    /// Difference at which a voxel counts half; none: all count the same.
    pub scale: Option<f64>,
}

/// What [`Aligner::sums`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct AlignmentSums {
    /// Weighted sums of the products of u, symmetric.
    pub products: [[f64; TERMS]; TERMS],
    /// Fixed voxels that lie within the moving volume.
    pub voxels: f64,
    /// Sums of F, M, F F, M M, F M over them.
    moments: [f64; 5],
}

impl AlignmentSums {
    /// From the triangle of products and the moments.
    fn of(sums: &[f64; SUMS]) -> Self {
        let mut products = [[0.0; TERMS]; TERMS];
        let places = (0..TERMS).flat_map(|row| (row..TERMS).map(move |column| (row, column)));
        for ((row, column), &sum) in places.zip(sums) {
            products[row][column] = sum;
            products[column][row] = sum;
        }
        Self { products, voxels: sums[PRODUCTS], moments: std::array::from_fn(|m| sums[PRODUCTS + 1 + m]) }
    }

    /// Root mean square of what the best gain and offset leave of F, without weights.
    pub fn difference(&self) -> f64 {
        let [f, _, ff, ..] = self.moments.map(|sum| sum / self.voxels.max(1.0));
        ((ff - f * f).max(0.0) * (1.0 - self.correlation().powi(2))).sqrt()
    }

    /// Pearson's correlation of F and M, -1 to 1; 0 where one of them is the same everywhere.
    pub fn correlation(&self) -> f64 {
        let [f, m, ff, mm, fm] = self.moments.map(|sum| sum / self.voxels.max(1.0));
        let spread = (ff - f * f).max(0.0).sqrt() * (mm - m * m).max(0.0).sqrt();
        if spread > 0.0 { ((fm - f * m) / spread).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

/// Two volumes, ready for many steps.
#[derive(Debug)]
pub enum Aligner<'a> {
    /// Fixed and moving volume.
    Cpu(&'a Volume<f32>, &'a Volume<f32>),
    /// The same in the device's memory.
    Gpu(Box<OnGpu<'a>>),
}

/// Two volumes in a device's memory.
#[derive(Debug)]
pub struct OnGpu<'a> {
    gpu: &'a Gpu,
    pipeline: Pipeline,
    dims: [[u32; 3]; 2],
    fixed: Buffer,
    moving: Buffer,
    partials: Buffer,
    groups: u32,
}

impl<'a> Aligner<'a> {
    /// Of a fixed and a moving volume.
    ///
    /// # Errors
    /// [`GpuError`] where the device fails or 4 bytes a voxel exceed a binding.
    pub fn new(backend: &'a Backend, fixed: &'a Volume<f32>, moving: &'a Volume<f32>) -> Result<Self, GpuError> {
        let Backend::Gpu(gpu) = backend else { return Ok(Self::Cpu(fixed, moving)) };
        let groups = (fixed.voxels().len() as u32).div_ceil(THREADS).clamp(1, GROUPS);
        Ok(Self::Gpu(Box::new(OnGpu {
            gpu,
            pipeline: gpu.pipeline("alignment", WGSL, &[])?,
            dims: [fixed.grid().dims(), moving.grid().dims()],
            fixed: gpu.upload("alignment: fixed", fixed.voxels())?,
            moving: gpu.upload("alignment: moving", moving.voxels())?,
            partials: gpu.storage("alignment: partials", u64::from(groups) * SUMS as u64 * 4)?,
            groups,
        })))
    }

    /// The sums of one alignment.
    ///
    /// # Errors
    /// [`GpuError`] where the device fails.
    pub fn sums(&self, alignment: &Alignment) -> Result<AlignmentSums, GpuError> {
        match self {
            Self::Cpu(fixed, moving) => Ok(alignment_cpu(fixed, moving, alignment)),
            Self::Gpu(pair) => pair.sums(alignment),
        }
    }
}

/// Three rows of an affine map, in `f32`.
fn rows(affine: &Affine) -> [[f32; 4]; 3] {
    affine.rows().map(|row| row.map(|v| v as f32))
}

/// The gradient in the patient from that along i, j, k: the transposed linear part, so that columns become rows.
fn gradient(voxel_from_lps: &Affine) -> [[f64; 3]; 3] {
    std::array::from_fn(|c| voxel_from_lps.column(c))
}

/// The sums over all voxels of `fixed`.
pub fn alignment_cpu(fixed: &Volume<f32>, moving: &Volume<f32>, alignment: &Alignment) -> AlignmentSums {
    let [columns, rows, slices] = fixed.grid().dims();
    let slice = |k: u32| {
        let mut sums = [0f64; SUMS];
        for j in 0..rows {
            let row = &fixed.slice(k as usize)[(j * columns) as usize..][..columns as usize];
            add_row(&mut sums, row, [j, k], moving, alignment);
        }
        sums
    };
    let by_slice: Vec<[f64; SUMS]> = (0..slices).into_par_iter().map(slice).collect();
    let mut all = [0f64; SUMS];
    by_slice.iter().for_each(|sums| all.iter_mut().zip(sums).for_each(|(all, sum)| *all += sum));
    AlignmentSums::of(&all)
}

fn add_row(sums: &mut [f64; SUMS], row: &[f32], [j, k]: [u32; 2], moving: &Volume<f32>, alignment: &Alignment) {
    let (position, arm) = (&alignment.moving_from_fixed, &alignment.arm_from_fixed);
    let to_patient = gradient(&alignment.voxel_from_lps);
    let first = [0.0, f64::from(j), f64::from(k)];
    let (at, step) = (position.apply(first), position.column(0));
    let (from, turn) = (arm.apply(first), arm.column(0));
    let per_scale = alignment.scale.map_or(0.0, |scale| 1.0 / (scale * scale));
    for (i, &value) in row.iter().enumerate() {
        let along = |start: [f64; 3], step: [f64; 3]| -> [f64; 3] { std::array::from_fn(|c| start[c] + i as f64 * step[c]) };
        let Some((m, in_voxels)) = sampled(moving, along(at, step)) else { continue };
        let f = f64::from(value);
        let g: [f64; 3] = to_patient.map(|row| row[0] * in_voxels[0] + row[1] * in_voxels[1] + row[2] * in_voxels[2]);
        let [tx, ty, tz] = cross(along(from, turn), g);
        let u = [tx, ty, tz, g[0], g[1], g[2], m, 1.0, f];
        let difference = f - alignment.gain * m - alignment.offset;
        let weight = 1.0 / (1.0 + difference * difference * per_scale);
        let mut n = 0;
        for (r, value) in u.iter().enumerate() {
            let weighted = weight * value;
            for other in &u[r..] {
                sums[n] += weighted * other;
                n += 1;
            }
        }
        for (sum, moment) in sums[PRODUCTS..].iter_mut().zip([1.0, f, m, f * f, m * m, f * m]) {
            *sum += moment;
        }
    }
}

/// The trilinear value at a position and its derivatives along i, j, k; `None` beyond the outermost centres.
fn sampled(volume: &Volume<f32>, position: [f64; 3]) -> Option<(f64, [f64; 3])> {
    let dims = volume.grid().dims();
    let mut lower = [0usize; 3];
    let mut weight = [0f64; 3];
    for axis in 0..3 {
        let last = f64::from(dims[axis] - 1);
        if !(position[axis] >= 0.0 && position[axis] <= last) || dims[axis] < 2 {
            return None;
        }
        lower[axis] = (position[axis] as usize).min(dims[axis] as usize - 2);
        weight[axis] = position[axis] - lower[axis] as f64;
    }
    let [columns, rows] = [dims[0] as usize, dims[1] as usize];
    let start = (lower[2] * rows + lower[1]) * columns + lower[0];
    let voxels = volume.voxels();
    let pair = |n: usize| [f64::from(voxels[n]), f64::from(voxels[n + 1])];
    let [x, y, z] = weight;
    let edges = [pair(start), pair(start + columns), pair(start + columns * rows), pair(start + columns * rows + columns)];
    let steps = edges.map(|[a, b]| b - a);
    let values: [f64; 4] = std::array::from_fn(|n| edges[n][0] + x * steps[n]);
    let blend = |v: [f64; 4]| (v[0] + y * (v[1] - v[0])) * (1.0 - z) + (v[2] + y * (v[3] - v[2])) * z;
    let along_j = (values[1] - values[0]) * (1.0 - z) + (values[3] - values[2]) * z;
    let along_k = (values[2] + y * (values[3] - values[2])) - (values[0] + y * (values[1] - values[0]));
    Some((blend(values), [blend(steps), along_j, along_k]))
}

/// Uniforms of `shaders/alignment.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct AlignmentParams {
    /// Rows of `moving_from_fixed`.
    pub position: [[f32; 4]; 3],
    /// Rows of `arm_from_fixed`.
    pub arm: [[f32; 4]; 3],
    /// Rows of the map of gradients, the fourth number unused.
    pub gradient: [[f32; 4]; 3],
    /// Voxels along i, j, k.
    pub fixed_dims: [u32; 3],
    /// See [`Alignment::gain`].
    pub gain: f32,
    /// Voxels along i, j, k.
    pub moving_dims: [u32; 3],
    /// See [`Alignment::offset`].
    pub offset: f32,
    /// One over the square of [`Alignment::scale`]; 0: all count the same.
    pub per_scale: f32,
    /// Threads of the dispatch.
    pub threads: u32,
    /// WGSL alignment.
    pub pad0: u32,
    /// WGSL alignment.
    pub pad1: u32,
}

impl OnGpu<'_> {
    fn sums(&self, alignment: &Alignment) -> Result<AlignmentSums, GpuError> {
        let [fixed_dims, moving_dims] = self.dims;
        let to_patient = gradient(&alignment.voxel_from_lps);
        let params = AlignmentParams {
            position: rows(&alignment.moving_from_fixed),
            arm: rows(&alignment.arm_from_fixed),
            gradient: to_patient.map(|[x, y, z]| [x as f32, y as f32, z as f32, 0.0]),
            fixed_dims,
            gain: alignment.gain as f32,
            moving_dims,
            offset: alignment.offset as f32,
            per_scale: alignment.scale.map_or(0.0, |scale| 1.0 / (scale * scale)) as f32,
            threads: self.groups * THREADS,
            pad0: 0,
            pad1: 0,
        };
        let params = self.gpu.uniform("alignment: params", &params)?;
        let buffers = [&params, &self.fixed, &self.moving, &self.partials];
        self.gpu.dispatch("alignment", &self.pipeline, &buffers, [self.groups, 1, 1])?;
        let mut partials = vec![0f32; self.groups as usize * SUMS];
        self.gpu.read_into(&self.partials, &mut partials)?;
        let mut all = [0f64; SUMS];
        for partial in partials.chunks_exact(SUMS) {
            all.iter_mut().zip(partial).for_each(|(all, &sum)| *all += f64::from(sum));
        }
        Ok(AlignmentSums::of(&all))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{interpolated, noise, voxels};
    use super::*;
    use crate::geometry::{Grid, dot};

    fn volume(dims: [u32; 3], seed: usize) -> Volume<f32> {
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
        Volume::new(grid, (0..grid.voxel_count()).map(|n| (noise(n + seed) * 4.0 - 2.0) as f32).collect())
    }

    fn alignment(scale: Option<f64>) -> Alignment {
        Alignment {
            moving_from_fixed: Affine::from_columns([0.9, -0.3, 0.2], [0.25, 0.8, -0.1], [-0.15, 0.2, 0.7], [-1.3017, 2.1033, 0.6041]),
            arm_from_fixed: Affine::from_columns([0.04, 0.01, 0.0], [0.0, 0.05, 0.0], [0.0, -0.01, 0.06], [-0.3, -0.4, -0.2]),
            voxel_from_lps: Affine::from_columns([0.25, 0.05, 0.0], [0.0, 0.2, 0.02], [0.0, 0.0, 0.4], [1.0, 2.0, 3.0]),
            gain: 1.1,
            offset: -0.2,
            scale,
        }
    }

    /// From the formula; derivatives as differences within the cell, which a trilinear function has exactly.
    fn by_definition(fixed: &Volume<f32>, moving: &Volume<f32>, alignment: &Alignment) -> AlignmentSums {
        let dims = moving.grid().dims();
        let value = |at: [f64; 3]| {
            interpolated(dims, at, |[i, j, k]| f64::from(moving.voxels()[(k * dims[1] as usize + j) * dims[0] as usize + i]))
        };
        let mut sums = [0f64; SUMS];
        for (n, voxel) in voxels(fixed.grid().dims()).enumerate() {
            let voxel = voxel.map(f64::from);
            let at = alignment.moving_from_fixed.apply(voxel);
            if (0..3).any(|axis| at[axis] < 0.0 || at[axis] > f64::from(dims[axis] - 1)) {
                continue;
            }
            let slope = |axis: usize| {
                let cell = at[axis].floor().min(f64::from(dims[axis] - 2));
                let [mut low, mut high] = [at, at];
                (low[axis], high[axis]) = (cell, cell + 1.0);
                value(high) - value(low)
            };
            let slopes = [0, 1, 2].map(slope);
            let g: [f64; 3] = std::array::from_fn(|c| dot(alignment.voxel_from_lps.column(c), slopes));
            let (m, f) = (value(at), f64::from(fixed.voxels()[n]));
            let turned = cross(alignment.arm_from_fixed.apply(voxel), g);
            let u: Vec<f64> = turned.into_iter().chain(g).chain([m, 1.0, f]).collect();
            let difference = f - (alignment.gain * m + alignment.offset);
            let weight = alignment.scale.map_or(1.0, |scale| 1.0 / (1.0 + (difference / scale).powi(2)));
            let products = (0..TERMS).flat_map(|r| (r..TERMS).map(move |c| (r, c)));
            for (sum, (r, c)) in sums.iter_mut().zip(products) {
                *sum += weight * u[r] * u[c];
            }
            for (sum, moment) in sums[PRODUCTS..].iter_mut().zip([1.0, f, m, f * f, m * m, f * m]) {
                *sum += moment;
            }
        }
        AlignmentSums::of(&sums)
    }

    fn compare(found: &AlignmentSums, expected: &AlignmentSums, tolerance: f64) {
        assert_eq!(found.voxels, expected.voxels);
        let expected_size = expected.voxels;
        let all = |sums: &AlignmentSums| [sums.products.as_flattened(), &sums.moments].concat();
        for (found, expected) in all(found).iter().zip(all(expected)) {
            // Sums of thousands of numbers of either sign.
            assert!((found - expected).abs() <= tolerance * expected.abs().max(expected_size), "{found} for {expected}");
        }
    }

    #[test]
    fn sums_are_those_of_the_formula() {
        for (fixed, moving) in [([17, 13, 9], [15, 16, 8]), ([5, 1, 7], [9, 7, 9])] {
            let (fixed, moving) = (volume(fixed, 1), volume(moving, 5000));
            for scale in [None, Some(0.7)] {
                let alignment = alignment(scale);
                let expected = by_definition(&fixed, &moving, &alignment);
                assert!(expected.voxels >= 4.0, "{} voxels overlap", expected.voxels);
                compare(&alignment_cpu(&fixed, &moving, &alignment), &expected, 1e-10);
            }
        }
    }

    #[test]
    fn the_gpu_finds_the_same_sums() {
        let Some(gpu) = crate::gpu::for_tests() else { return };
        let backend = Backend::Gpu(Box::new(gpu));
        for dims in [[17, 13, 9], [70, 61, 50], [3, 2, 2]] {
            let (fixed, moving) = (volume(dims, 1), volume([60, 63, 41], 5000));
            let aligner = Aligner::new(&backend, &fixed, &moving).expect("it fits");
            for scale in [None, Some(0.7)] {
                let alignment = alignment(scale);
                let found = aligner.sums(&alignment).expect("the device works");
                compare(&found, &alignment_cpu(&fixed, &moving, &alignment), 1e-4);
            }
        }
    }

    #[test]
    fn a_volume_correlates_with_itself() {
        let fixed = volume([11, 9, 8], 3);
        let same = Alignment { moving_from_fixed: Affine::IDENTITY, ..alignment(None) };
        let sums = alignment_cpu(&fixed, &fixed, &same);
        assert_eq!(sums.voxels, 11.0 * 9.0 * 8.0);
        assert!((sums.correlation() - 1.0).abs() < 1e-10);
        let turned = Volume::new(*fixed.grid(), fixed.voxels().iter().map(|v| 3.0 - 2.0 * v).collect());
        assert!((alignment_cpu(&fixed, &turned, &same).correlation() + 1.0).abs() < 1e-6);
        let flat = Volume::new(*fixed.grid(), vec![1.0; fixed.voxels().len()]);
        assert_eq!(alignment_cpu(&fixed, &flat, &same).correlation(), 0.0);
    }
}
