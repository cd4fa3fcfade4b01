//! Gaussian smoothing, one pass an axis: `scipy.ndimage.gaussian_filter` with `truncate=4`.
//!
//! `out(n) = sum over t of weight(|t|) * in(n + t)`, `t` up to `floor(4 sigma + 0.5)` voxels, weights `exp(-t^2 / (2 sigma^2))` over their
//! sum. Works in place; sums are in `f32`, in one order, so the number of threads changes no digit.
//!
//! Memory traffic a voxel: 8 bytes an axis. Shader: `shaders/gaussian.wgsl`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::voxel_count;
use super::lines::{groups_of, row_sets};
use super::simd::wide;
use crate::gpu::{Gpu, GpuError};

pub(super) const WGSL: &str = include_str!("../../shaders/gaussian.wgsl");

/// Largest standard deviation, voxels.
pub const MOST_SIGMA_VOXELS: f64 = 64.0;
/// Standard deviations after which weights end.
const TRUNCATE: f64 = 4.0;
/// Columns that are smoothed together: with a few hundred rows they stay in the second-level cache.
const TILE: usize = 128;

/// What lies beyond the edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Boundary {
    /// The edge voxel continues: `a a a | a b c d | d d d`.
    Nearest,
    /// The volume mirrored about its edge: `c b a | a b c d | d c b`. SciPy's default.
    Reflect,
    /// This value.
    Constant(f32),
}

/// A Gaussian along each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaussian {
    /// Standard deviations along i, j, k, voxels; 0 leaves an axis alone.
    pub sigma_voxels: [f64; 3],
    /// What lies beyond the edges.
    pub boundary: Boundary,
}

impl Gaussian {
    /// The same standard deviation in mm along each axis of voxels of this spacing.
    pub fn of_mm(sigma_mm: f64, spacing_mm: [f64; 3], boundary: Boundary) -> Self {
        Self { sigma_voxels: spacing_mm.map(|spacing| sigma_mm / spacing), boundary }
    }

    /// Weights at distances 0, 1, .. voxels; `None` where the axis is left alone.
    fn weights(&self, axis: usize) -> Option<Vec<f32>> {
        let sigma = self.sigma_voxels[axis];
        assert!((0.0..=MOST_SIGMA_VOXELS).contains(&sigma), "a standard deviation is 0 to {MOST_SIGMA_VOXELS} voxels");
        let radius = (TRUNCATE * sigma + 0.5) as usize;
        (radius > 0).then(|| half_kernel(sigma, radius).into_iter().map(|weight| weight as f32).collect())
    }

    /// Which voxel lies at each place from `-radius` to `length + radius - 1`; -1 for the constant.
    fn places(&self, length: usize, radius: usize) -> Vec<i32> {
        let length = length as i32;
        let place = |at: i32| match self.boundary {
            Boundary::Nearest => at.clamp(0, length - 1),
            Boundary::Reflect => {
                let within = at.rem_euclid(2 * length);
                within.min(2 * length - 1 - within)
            }
            Boundary::Constant(_) => {
                if (0..length).contains(&at) {
                    at
                } else {
                    -1
                }
            }
        };
        (-(radius as i32)..length + radius as i32).map(place).collect()
    }

    fn constant(&self) -> f32 {
        if let Boundary::Constant(value) = self.boundary { value } else { 0.0 }
    }
}

/// Weights at distances 0 to `radius` of a Gaussian whose weights on both sides sum to 1.
pub(super) fn half_kernel(sigma: f64, radius: usize) -> Vec<f64> {
    let weights: Vec<f64> = (0..=radius).map(|t| (-0.5 * (t as f64 / sigma).powi(2)).exp()).collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Smooths `values` in place; `dims` = (columns, rows, slices), `i` fastest.
///
/// # Panics
/// Where `values` has another length than `dims` says, or a standard deviation is not 0 to [`MOST_SIGMA_VOXELS`]: broken promises of
/// the caller.
pub fn gaussian_cpu(values: &mut [f32], dims: [u32; 3], gaussian: &Gaussian) {
    assert_eq!(values.len(), voxel_count(dims), "one value a voxel");
    if values.is_empty() {
        return;
    }
    for axis in 0..3 {
        let Some(weights) = gaussian.weights(axis) else { continue };
        let radius = weights.len() - 1;
        let places = gaussian.places(dims[axis] as usize, radius);
        let constant = gaussian.constant();
        let columns = dims[0] as usize;
        if axis == 0 {
            let scratch = || vec![0f32; places.len()];
            values.par_chunks_exact_mut(columns).for_each_init(scratch, |padded, row| {
                for (value, &place) in padded.iter_mut().zip(&places) {
                    *value = if place < 0 { constant } else { row[place as usize] };
                }
                weigh(row, padded, 1, &weights);
            });
            continue;
        }
        let scratch = || vec![0f32; places.len() * TILE.min(columns)];
        row_sets(values, dims, axis).into_par_iter().for_each_init(scratch, |padded, mut rows| {
            for start in (0..columns).step_by(TILE) {
                let width = TILE.min(columns - start);
                for (padded, &place) in padded.chunks_exact_mut(width).zip(&places) {
                    match usize::try_from(place) {
                        Ok(place) => padded.copy_from_slice(&rows[place][start..start + width]),
                        Err(_) => padded.fill(constant),
                    }
                }
                for (n, row) in rows.iter_mut().enumerate() {
                    weigh(&mut row[start..start + width], &padded[n * width..], width, &weights);
                }
            }
        });
    }
}

wide! {
    /// Weighted sums over lines that are `stride` values apart; `padded` starts at the first one that `out[0]` needs.
    fn weigh(out: &mut [f32], padded: &[f32], stride: usize, weights: &[f32]) {
        const BLOCK: usize = 64; // sums stay in registers, or close to them
        let radius = weights.len() - 1;
        let mut sums = [0f32; BLOCK];
        for (n, out) in out.chunks_mut(BLOCK).enumerate() {
            let line = |at: usize| &padded[at * stride + n * BLOCK..][..out.len()];
            let sums = &mut sums[..out.len()];
            sums.iter_mut().zip(line(radius)).for_each(|(sum, value)| *sum = weights[0] * value);
            for (t, &weight) in weights.iter().enumerate().skip(1) {
                let both = line(radius - t).iter().zip(line(radius + t));
                sums.iter_mut().zip(both).for_each(|(sum, (before, after))| *sum += weight * (before + after));
            }
            out.copy_from_slice(sums);
        }
    }
}

/// Uniforms of `shaders/gaussian.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct GaussianParams {
    /// Voxels along i, j, k.
    pub dims: [u32; 3],
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// The axis of this pass.
    pub axis: u32,
    /// Voxels on each side that have a weight.
    pub radius: u32,
    /// What lies beyond the edges, where that is a constant.
    pub constant: f32,
    /// WGSL alignment.
    pub pad0: u32,
}

/// [`gaussian_cpu`] on a GPU, to 1e-6 of the range of values.
///
/// # Errors
/// [`GpuError::TooLarge`] where 4 bytes a voxel exceed a binding, since lines along k are taken whole; [`GpuError::OutOfMemory`];
/// [`GpuError::Lost`].
///
/// # Panics
/// As [`gaussian_cpu`].
pub fn gaussian_gpu(gpu: &Gpu, values: &mut [f32], dims: [u32; 3], gaussian: &Gaussian) -> Result<(), GpuError> {
    const THREADS: u32 = 64;
    assert_eq!(values.len(), voxel_count(dims), "one value a voxel");
    if values.is_empty() {
        return Ok(());
    }
    let pipeline = gpu.pipeline("gaussian", WGSL, &[])?;
    let (threads_a_row, groups) = groups_of(gpu, values.len(), THREADS);
    let mut source = gpu.upload("gaussian: values", values)?;
    let mut smoothed = gpu.storage("gaussian: smoothed", values.len() as u64 * 4)?;
    for axis in 0..3 {
        let Some(weights) = gaussian.weights(axis) else { continue };
        let radius = weights.len() - 1;
        let params =
            GaussianParams { dims, threads_a_row, axis: axis as u32, radius: radius as u32, constant: gaussian.constant(), pad0: 0 };
        let params = gpu.uniform("gaussian: params", &params)?;
        let weights = gpu.upload("gaussian: weights", &weights)?;
        let places = gpu.upload("gaussian: places", &gaussian.places(dims[axis] as usize, radius))?;
        gpu.dispatch("gaussian", &pipeline, &[&params, &weights, &places, &source, &smoothed], groups)?;
        std::mem::swap(&mut source, &mut smoothed);
    }
    gpu.read_into(&source, values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{noise, voxels};
    use super::*;

    /// The triple sum over an unbounded volume, in `f64`; weights that matter reach up to 4 sigma + 1 voxels.
    fn by_definition(values: &[f32], dims: [u32; 3], gaussian: &Gaussian) -> Vec<f64> {
        let reach = |axis: usize| (4.0 * gaussian.sigma_voxels[axis] + 0.5).floor() as i64;
        let outside = |at: i64, length: i64| match gaussian.boundary {
            Boundary::Nearest => Some(at.clamp(0, length - 1)),
            Boundary::Reflect => {
                let mut at = at;
                while !(0..length).contains(&at) {
                    at = if at < 0 { -1 - at } else { 2 * length - 1 - at };
                }
                Some(at)
            }
            Boundary::Constant(_) => (0..length).contains(&at).then_some(at),
        };
        let weight = |axis: usize, t: i64| {
            let sigma = gaussian.sigma_voxels[axis];
            if reach(axis) == 0 {
                return 1.0;
            }
            let bell = |t: i64| (-(t * t) as f64 / (2.0 * sigma * sigma)).exp();
            bell(t) / (-reach(axis)..=reach(axis)).map(bell).sum::<f64>()
        };
        let mut now: Vec<f64> = values.iter().copied().map(f64::from).collect();
        for axis in 0..3 {
            let stride = [1, dims[0], dims[0] * dims[1]][axis] as i64;
            let sum = |(n, voxel): (usize, [u32; 3])| {
                let value = |t: i64| match outside(i64::from(voxel[axis]) + t, dims[axis].into()) {
                    Some(at) => now[(n as i64 + (at - i64::from(voxel[axis])) * stride) as usize],
                    None => f64::from(gaussian.constant()),
                };
                (-reach(axis)..=reach(axis)).map(|t| weight(axis, t) * value(t)).sum::<f64>()
            };
            now = voxels(dims).enumerate().map(sum).collect();
        }
        now
    }

    #[test]
    fn both_are_the_definition() {
        let gpu = crate::gpu::for_tests();
        let boundary = prop_oneof![Just(Boundary::Nearest), Just(Boundary::Reflect), (-2.0..2.0f32).prop_map(Boundary::Constant)];
        let sigma = prop_oneof![Just(0.0), 0.05..0.3f64, 0.3..3.0f64];
        let dims = (prop_oneof![Just(1u32), 1u32..9, 125u32..131], prop_oneof![Just(1u32), 1u32..12], prop_oneof![Just(1u32), 1u32..12]);
        let cases = (dims, prop::array::uniform3(sigma), boundary, 0..1000usize);
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
        let answer = runner.run(&cases, |((nx, ny, nz), sigma_voxels, boundary, seed)| {
            let (dims, gaussian) = ([nx, ny, nz], Gaussian { sigma_voxels, boundary });
            let values: Vec<f32> = (0..voxel_count(dims)).map(|n| noise(n + seed) as f32).collect();
            let expected = by_definition(&values, dims, &gaussian);
            let mut on_cpu = values.clone();
            gaussian_cpu(&mut on_cpu, dims, &gaussian);
            let mut on_gpu = values;
            match &gpu {
                Some(gpu) => gaussian_gpu(gpu, &mut on_gpu, dims, &gaussian).map_err(|err| TestCaseError::fail(err.to_string()))?,
                None => on_gpu.clone_from(&on_cpu),
            }
            for found in [on_cpu, on_gpu] {
                for (found, expected) in found.iter().zip(&expected) {
                    // Weights of 24 bits, three sums.
                    prop_assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}: {gaussian:?} of {dims:?}");
                }
            }
            Ok(())
        });
        assert!(answer.is_ok(), "{answer:?}");
    }
}
