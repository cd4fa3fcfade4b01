//! Patches of a volume for networks that see a part at a time: gathered with mirroring, and scattered back with weights.
//!
//! `sum(v) += weight(p) * score(p)` and `weights(v) += weight(p)` for each voxel p of a patch that lies on v; `blend(v) = sum / weights`.
//! A patch may reach beyond the volume: such voxels get a stated value, and their scores go nowhere. Mirroring turns a patch round for
//! the network, and its scores back; weights are never turned round.
//!
//! Memory traffic a voxel of a patch: 8 bytes to gather, 16 a channel to scatter. Shaders: `shaders/gather_patch.wgsl`,
//! `shaders/scatter_patch.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::voxel_count;
use super::gaussian::half_kernel;
use super::half::{half_bits, half_value};
use super::lines::groups_of;
use super::simd::wide;
use crate::gpu::{Buffer, Gpu, GpuError};

pub(super) const GATHER_WGSL: &str =
    concat!(include_str!("../../shaders/shared/patch.wgsl"), include_str!("../../shaders/gather_patch.wgsl"));
pub(super) const SCATTER_WGSL: &str =
    concat!(include_str!("../../shaders/shared/patch.wgsl"), include_str!("../../shaders/scatter_patch.wgsl"));

/// A box of voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Its first voxel (i, j, k) in the volume; may lie outside.
    pub start: [i32; 3],
    /// Its voxels along i, j, k.
    pub dims: [u32; 3],
    /// Axes along which the network sees it turned round.
    pub mirror: [bool; 3],
}

/// How much a voxel of a patch weighs by its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weighting {
    /// 1 everywhere.
    Constant,
    /// Falls off from the middle, highest 10, as nnU-Net's `compute_gaussian(sigma_scale=1/8, value_scaling_factor=10)`: in half
    /// precision, whose least value is that of the corners.
    NnunetGaussian,
    /// Falls off from the middle, least 0.001, as MONAI's `compute_importance_map(mode="gaussian", sigma_scale=0.125)`.
    MonaiGaussian,
}

impl Weighting {
    /// The weights of a patch of `dims`, none of them 0.
    ///
    /// # Panics
    /// Where an axis is empty: a broken promise of the caller.
    pub fn weights(self, dims: [u32; 3]) -> Vec<f32> {
        assert!(dims.iter().all(|&n| n > 0), "a patch has voxels");
        let line: fn(u32) -> Vec<f64> = match self {
            Self::Constant => return vec![1.0; voxel_count(dims)],
            Self::NnunetGaussian => smoothed_point,
            Self::MonaiGaussian => gaussian,
        };
        let lines = dims.map(line);
        let [x, y, z] = &lines;
        let highest: f64 = lines.iter().map(|line| line.iter().copied().fold(0.0, f64::max)).product();
        let scale = if self == Self::NnunetGaussian { 10.0 / highest } else { 1.0 };
        let rounded: fn(f32) -> f32 = if self == Self::NnunetGaussian { |weight| half_value(half_bits(weight)) } else { |weight| weight };
        let products = z.iter().flat_map(|wz| y.iter().flat_map(move |wy| x.iter().map(move |wx| (wx * wy * wz * scale) as f32)));
        let mut weights: Vec<f32> = products.map(rounded).collect();
        let least = weights.iter().copied().filter(|&weight| weight > 0.0).fold(f32::INFINITY, f32::min);
        let least = if self == Self::MonaiGaussian { least.max(1e-3) } else { least };
        weights.iter_mut().for_each(|weight| *weight = weight.max(least));
        weights
    }
}

/// A point in the middle of `n` voxels, smoothed with zeros around.
fn smoothed_point(n: u32) -> Vec<f64> {
    let sigma = f64::from(n) / 8.0;
    let weights = half_kernel(sigma, (4.0 * sigma + 0.5) as usize);
    (0..n).map(|at| weights.get(at.abs_diff(n / 2) as usize).copied().unwrap_or(0.0)).collect()
}

/// A Gaussian around the middle of `n` voxels.
fn gaussian(n: u32) -> Vec<f64> {
    let (middle, sigma) = (f64::from(n - 1) / 2.0, f64::from(n) / 8.0);
    (0..n).map(|at| (-((f64::from(at) - middle) / sigma).powi(2) / 2.0).exp()).collect()
}

impl Patch {
    fn check(&self, volume: usize, volume_dims: [u32; 3], patch: usize) {
        assert_eq!(volume, voxel_count(volume_dims), "one value a voxel of the volume");
        assert_eq!(patch, voxel_count(self.dims), "one value a voxel of the patch");
        let fits = |n: u32| n < 1 << 29;
        assert!(
            self.dims.into_iter().chain(volume_dims).all(fits) && self.start.iter().all(|s| fits(s.unsigned_abs())),
            "axes are below 2^29"
        );
    }

    /// The columns of the patch that lie in the volume, and the volume's column of the first of these. Columns count before mirroring.
    fn columns(&self, volume_columns: u32) -> (Range<usize>, usize) {
        let first = self.start[0].min(0).unsigned_abs() as usize;
        let end = (i64::from(volume_columns) - i64::from(self.start[0])).clamp(0, self.dims[0].into()) as usize;
        (first..end.max(first), (self.start[0] + first as i32) as usize)
    }

    /// The place along an axis of what the network sees at `n`, or the other way round.
    fn turned(&self, axis: usize, n: usize) -> usize {
        if self.mirror[axis] { self.dims[axis] as usize - 1 - n } else { n }
    }

    /// The index in the volume of place `n` along an axis; `None` beyond it.
    fn in_volume(&self, axis: usize, n: usize, length: u32) -> Option<usize> {
        usize::try_from(i64::from(self.start[axis]) + n as i64).ok().filter(|&at| at < length as usize)
    }
}

/// Copies a patch of `volume` (columns, rows, slices = `volume_dims`) to `out`; voxels beyond the volume become `outside`.
///
/// # Panics
/// Where lengths and dimensions disagree, or an axis is 2^29 voxels or more: broken promises of the caller.
pub fn gather_patch_cpu(volume: &[f32], volume_dims: [u32; 3], patch: &Patch, outside: f32, out: &mut [f32]) {
    patch.check(volume.len(), volume_dims, out.len());
    let [nx, ny, _] = patch.dims.map(|n| n as usize);
    let (inside, first) = patch.columns(volume_dims[0]);
    if inside.is_empty() {
        return out.fill(outside);
    }
    out.par_chunks_exact_mut(nx * ny).enumerate().for_each(|(k, slice)| {
        for (j, values) in slice.chunks_exact_mut(nx).enumerate() {
            let along = |axis: usize, n: usize| patch.in_volume(axis, patch.turned(axis, n), volume_dims[axis]);
            let (Some(row), Some(slice)) = (along(1, j), along(2, k)) else {
                values.fill(outside);
                continue;
            };
            let start = (slice * volume_dims[1] as usize + row) * volume_dims[0] as usize;
            values[..inside.start].fill(outside);
            values[inside.end..].fill(outside);
            values[inside.clone()].copy_from_slice(&volume[start + first..][..inside.len()]);
            if patch.mirror[0] {
                values.reverse();
            }
        }
    });
}

/// Adds `weights * scores` of a patch to `sums`, channel by channel, and `weights` once to `weight_sums`.
///
/// `sums` holds channels of the volume, `scores` as many of the patch as the network sees it, `weights` belong to the patch as the volume
/// has it.
///
/// # Panics
/// As [`gather_patch_cpu`], and where there are not as many channels on both sides.
pub fn scatter_patch_cpu(sums: &mut [f32], weight_sums: &mut [f32], volume_dims: [u32; 3], patch: &Patch, scores: &[f32], weights: &[f32]) {
    patch.check(weight_sums.len(), volume_dims, weights.len());
    if weights.is_empty() || weight_sums.is_empty() {
        return;
    }
    let channels = scores.len() / weights.len();
    assert!(
        scores.len() == channels * weights.len() && sums.len() == channels * weight_sums.len(),
        "as many channels of sums as of scores"
    );
    let plane = volume_dims[0] as usize * volume_dims[1] as usize;
    let voxels = weight_sums.len();
    let patch_plane = patch.dims[0] as usize * patch.dims[1] as usize;
    let (inside, first) = patch.columns(volume_dims[0]);
    if inside.is_empty() {
        return;
    }
    let every_slice =
        sums.par_chunks_exact_mut(plane).enumerate().map(|(n, slice)| (Some(n * plane / voxels), n % (voxels / plane), slice));
    let of_weights = weight_sums.par_chunks_exact_mut(plane).enumerate().map(|(k, slice)| (None, k, slice));
    every_slice.chain(of_weights).for_each(|(channel, k, slice)| {
        let place = usize::try_from(k as i64 - i64::from(patch.start[2])).ok().filter(|&n| n < patch.dims[2] as usize);
        let Some(place) = place else { return };
        let scores = channel.map(|channel| &scores[channel * weights.len() + patch.turned(2, place) * patch_plane..][..patch_plane]);
        let nx = patch.dims[0] as usize;
        for (j, weights) in weights[place * patch_plane..][..patch_plane].chunks_exact(nx).enumerate() {
            let Some(row) = patch.in_volume(1, j, volume_dims[1]) else { continue };
            let sums = &mut slice[row * volume_dims[0] as usize + first..][..inside.len()];
            let weights = &weights[inside.clone()];
            match (scores.map(|scores| &scores[patch.turned(1, j) * nx..][..nx]), patch.mirror[0]) {
                (Some(scores), false) => add_products(sums, &scores[inside.clone()], weights),
                (Some(scores), true) => {
                    let scores = scores[nx - inside.end..nx - inside.start].iter().rev();
                    sums.iter_mut().zip(scores.zip(weights)).for_each(|(sum, (score, weight))| *sum += weight * score);
                }
                (None, _) => sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight),
            }
        }
    });
}

wide! {
    fn add_products(sums: &mut [f32], scores: &[f32], weights: &[f32]) {
        sums.iter_mut().zip(scores).zip(weights).for_each(|((sum, score), weight)| *sum += weight * score);
    }
}

/// Divides the sums of each channel by the sums of weights; where no patch was, they stay 0.
///
/// # Panics
/// Where `sums` does not hold whole channels: a broken promise of the caller.
pub fn blend_cpu(sums: &mut [f32], weight_sums: &[f32]) {
    const BLOCK: usize = 1 << 14;
    if weight_sums.is_empty() {
        return;
    }
    assert_eq!(sums.len() % weight_sums.len(), 0, "whole channels");
    sums.chunks_exact_mut(weight_sums.len()).for_each(|channel| {
        channel.par_chunks_mut(BLOCK).zip(weight_sums.par_chunks(BLOCK)).for_each(|(sums, weights)| {
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum /= if *weight > 0.0 { *weight } else { 1.0 });
        });
    });
}

/// Uniforms of `shaders/gather_patch.wgsl` and `shaders/scatter_patch.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct PatchParams {
    /// Voxels of the volume along i, j, k.
    pub volume_dims: [u32; 3],
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// Voxels of the patch along i, j, k.
    pub dims: [u32; 3],
    /// Channels of scores.
    pub channels: u32,
    /// First voxel of the patch in the volume.
    pub start: [i32; 3],
    /// What voxels beyond the volume become.
    pub outside: f32,
    /// 1 along axes that are turned round.
    pub mirror: [u32; 3],
    /// WGSL alignment.
    pub pad0: u32,
}

/// Threads of a workgroup.
const THREADS: u32 = 64;

fn params(gpu: &Gpu, volume_dims: [u32; 3], patch: &Patch, channels: u32, outside: f32) -> Result<(Buffer, [u32; 3]), GpuError> {
    let (threads_a_row, groups) = groups_of(gpu, voxel_count(patch.dims), THREADS);
    let params = PatchParams {
        volume_dims,
        threads_a_row,
        dims: patch.dims,
        channels,
        start: patch.start,
        outside,
        mirror: patch.mirror.map(u32::from),
        pad0: 0,
    };
    Ok((gpu.uniform("patch: params", &params)?, groups))
}

/// [`gather_patch_cpu`] between buffers of a GPU: the same values. It is queued, not awaited.
///
/// # Errors
/// [`GpuError::OutOfMemory`], [`GpuError::Lost`].
pub fn gather_patch_gpu(
    gpu: &Gpu,
    volume: &Buffer,
    volume_dims: [u32; 3],
    patch: &Patch,
    outside: f32,
    out: &Buffer,
) -> Result<(), GpuError> {
    let pipeline = gpu.pipeline("gather_patch", GATHER_WGSL, &[])?;
    let (params, groups) = params(gpu, volume_dims, patch, 1, outside)?;
    gpu.dispatch("gather_patch", &pipeline, &[&params, volume, out], groups)
}

/// [`scatter_patch_cpu`] between buffers of a GPU, to the rounding of a sum. It is queued, not awaited.
///
/// # Errors
/// [`GpuError::OutOfMemory`], [`GpuError::Lost`].
pub fn scatter_patch_gpu(
    gpu: &Gpu,
    [sums, weight_sums]: [&Buffer; 2],
    volume_dims: [u32; 3],
    patch: &Patch,
    channels: u32,
    [scores, weights]: [&Buffer; 2],
) -> Result<(), GpuError> {
    let pipeline = gpu.pipeline("scatter_patch", SCATTER_WGSL, &[])?;
    let (params, groups) = params(gpu, volume_dims, patch, channels, 0.0)?;
    gpu.dispatch("scatter_patch", &pipeline, &[&params, scores, weights, sums, weight_sums], groups)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{noise, voxels};
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|n| noise(n + seed) as f32 - 0.5).collect()
    }

    /// For each voxel of the patch as the network sees it, the place in the volume and the weight's in the patch.
    fn places(volume_dims: [u32; 3], patch: &Patch) -> Vec<Option<(usize, usize)>> {
        let place = |voxel: [u32; 3]| {
            let unturned: [i64; 3] =
                std::array::from_fn(|s| i64::from(if patch.mirror[s] { patch.dims[s] - 1 - voxel[s] } else { voxel[s] }));
            let at: [i64; 3] = std::array::from_fn(|s| i64::from(patch.start[s]) + unturned[s]);
            let inside = (0..3).all(|s| (0..i64::from(volume_dims[s])).contains(&at[s]));
            let index = |at: [i64; 3], dims: [u32; 3]| ((at[2] * i64::from(dims[1]) + at[1]) * i64::from(dims[0]) + at[0]) as usize;
            inside.then(|| (index(at, volume_dims), index(unturned, patch.dims)))
        };
        voxels(patch.dims).map(place).collect()
    }

    fn any_patch() -> impl Strategy<Value = ([u32; 3], Patch)> {
        let axis = || (prop_oneof![Just(1u32), 1u32..20], prop_oneof![Just(1u32), 1u32..20], -9..22i32, any::<bool>());
        [axis(), axis(), axis()].prop_map(|axes| {
            let patch = Patch { start: axes.map(|a| a.2), dims: axes.map(|a| a.1), mirror: axes.map(|a| a.3) };
            (axes.map(|a| a.0), patch)
        })
    }

    #[test]
    fn patches_go_out_and_come_back() {
        const CHANNELS: usize = 3;
        let gpu = crate::gpu::for_tests();
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) });
        let answer = runner.run(&(any_patch(), 0..1000usize), |((volume_dims, patch), seed)| {
            let failed = |err: GpuError| TestCaseError::fail(err.to_string());
            let (voxels, patch_voxels) = (voxel_count(volume_dims), voxel_count(patch.dims));
            let places = places(volume_dims, &patch);
            let volume = values(voxels, seed);
            let expected: Vec<f32> = places.iter().map(|place| place.map_or(-7.0, |(n, _)| volume[n])).collect();
            let mut found = vec![0.0; patch_voxels];
            gather_patch_cpu(&volume, volume_dims, &patch, -7.0, &mut found);
            prop_assert_eq!(&found, &expected);

            let (scores, weights) = (values(CHANNELS * patch_voxels, seed + 1), Weighting::NnunetGaussian.weights(patch.dims));
            let before = [values(CHANNELS * voxels, seed + 2), values(voxels, seed + 3)];
            let [mut expected_sums, mut expected_weights] = before.clone();
            for (p, (place, unturned)) in places.iter().enumerate().filter_map(|(p, place)| Some((p, (*place)?))) {
                let weight = weights[unturned];
                (0..CHANNELS).for_each(|c| expected_sums[c * voxels + place] += weight * scores[c * patch_voxels + p]);
                expected_weights[place] += weight;
            }
            let [mut sums, mut weight_sums] = before.clone();
            scatter_patch_cpu(&mut sums, &mut weight_sums, volume_dims, &patch, &scores, &weights);
            prop_assert_eq!((&sums, &weight_sums), (&expected_sums, &expected_weights));

            let Some(gpu) = &gpu else { return Ok(()) };
            let out = gpu.storage("patch", patch_voxels as u64 * 4).map_err(failed)?;
            let bound = gpu.upload("volume", &volume).map_err(failed)?;
            gather_patch_gpu(gpu, &bound, volume_dims, &patch, -7.0, &out).map_err(failed)?;
            gpu.read_into(&out, &mut found).map_err(failed)?;
            prop_assert_eq!(&found, &expected);
            let on_gpu = [&before[0], &before[1], &scores, &weights].map(|data| gpu.upload("data", data));
            let [all, total, scores, weights] = on_gpu.map(|buffer| buffer.expect("memory for a few voxels"));
            scatter_patch_gpu(gpu, [&all, &total], volume_dims, &patch, CHANNELS as u32, [&scores, &weights]).map_err(failed)?;
            gpu.read_into(&all, &mut sums).map_err(failed)?;
            gpu.read_into(&total, &mut weight_sums).map_err(failed)?;
            prop_assert!(sums.iter().zip(&expected_sums).all(|(a, b)| (a - b).abs() < 2e-6), "sums on the GPU");
            prop_assert_eq!(&weight_sums, &expected_weights);
            Ok(())
        });
        assert!(answer.is_ok(), "{answer:?}");
    }

    #[test]
    fn blending_patches_of_one_volume_gives_it_back() {
        let dims = [23, 17, 11];
        let volume = values(voxel_count(dims), 1);
        let (mut sums, mut weight_sums) = (vec![0.0; volume.len()], vec![0.0; volume.len()]);
        let patch_dims = [8, 7, 6];
        let weights = Weighting::NnunetGaussian.weights(patch_dims);
        let mut patch_values = vec![0.0; voxel_count(patch_dims)];
        for (n, start) in voxels([4, 4, 3]).enumerate() {
            let start = std::array::from_fn(|s| start[s] as i32 * 5);
            let patch = Patch { start, dims: patch_dims, mirror: std::array::from_fn(|s| n >> s & 1 == 1) };
            gather_patch_cpu(&volume, dims, &patch, 0.0, &mut patch_values);
            scatter_patch_cpu(&mut sums, &mut weight_sums, dims, &patch, &patch_values, &weights);
        }
        blend_cpu(&mut sums, &weight_sums);
        for (found, (expected, weight)) in sums.iter().zip(volume.iter().zip(&weight_sums)) {
            let expected = if *weight > 0.0 { *expected } else { 0.0 };
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
        assert!(weight_sums.iter().filter(|weight| **weight > 0.0).count() > 23 * 17 * 10);
    }
}
