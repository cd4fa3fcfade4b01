//! The fused pass of `resample.rs` where a target voxel is wider than a source voxel: every source voxel in reach has a weight, so fine
//! structures do not alias.
//!
//! `out = (clip(sum over k, j, i of wk wj wi (slope_k * stored + intercept_k)) - subtract) / divide`. Weights are tables along each source
//! axis, made in `f64`, that sum to 1: [`Interpolation::Area`](super::Interpolation::Area) is the overlap with the target voxel, [`Interpolation::Antialiased`](super::Interpolation::Antialiased) a triangle of
//! twice that width; both are linear interpolation where the target is finer. Rows are added up along k and j as they are stored, so
//! there is no float copy of anything but a row.
//!
//! Memory traffic: 2 (integers) or 4 (floats) bytes read a source voxel, 4 (or 2 in half precision) written a target voxel.
//! Shader: `shaders/area.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::half::Output;
use super::resample::{Resample, SliceScale, clip};
use super::rows::{fill_rows, zeroed_voxels};
use super::simd::wide;
use super::slabs;
use super::voxel::Voxel;
use super::weights::{tables, upload};
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::volume::ImageVolume;

pub(super) const WGSL_I16: &str = concat!(include_str!("../../shaders/shared/stored_i16.wgsl"), include_str!("../../shaders/area.wgsl"));
pub(super) const WGSL_F32: &str = concat!(include_str!("../../shaders/shared/stored_f32.wgsl"), include_str!("../../shaders/area.wgsl"));

/// Uniforms of `shaders/area.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct AreaParams {
    /// Voxels of the whole source.
    pub source_dims: [u32; 3],
    /// First source slice of the bound ones.
    pub first_loaded: u32,
    /// Voxels of the whole target.
    pub target_dims: [u32; 3],
    /// Target slice that the output starts with.
    pub first_slice: u32,
    /// Target axis along which each source axis runs.
    pub along: [u32; 3],
    /// Lowest output.
    pub low: f32,
    /// Where the spans of each source axis start.
    pub first_span: [u32; 3],
    /// Highest output.
    pub high: f32,
    /// Output outside the source, if that is asked for.
    pub outside: f32,
    /// WGSL alignment.
    pub pad0: u32,
    /// WGSL alignment.
    pub pad1: u32,
    /// WGSL alignment.
    pub pad2: u32,
}

/// See [`super::resample_cpu`].
pub(super) fn resample_area<T: Voxel, O: Output>(image: &ImageVolume, stored: &[T], p: &Resample) -> Vec<O> {
    let (limits, outside) = (p.limits(), p.outside_value());
    let (along, [x, y, z]) = tables(p, &p.lattice(image), outside.is_some());
    let scales = p.slice_scales::<T>(image);
    let [nx, ny, _] = image.grid().dims().map(|n| n as usize);
    let mut out = zeroed_voxels(p.target_dims);
    let scratch = || (vec![0f32; nx], Vec::new());
    fill_rows(&mut out, p.target_dims, along, scratch, |(sums, row), j, k, range, out| {
        O::row(out, row, |values| {
            let ((first_j, weights_j), (first_k, weights_k)) = (y.at(j), z.at(k));
            if let Some(outside) = outside.filter(|_| weights_j.is_empty() || weights_k.is_empty()) {
                return values.fill(outside);
            }
            let reach = x.reach(range.clone());
            let (start, end) = (reach.start as usize, reach.end as usize);
            let sums = &mut sums[start..end];
            sums.fill(scales[first_k..].iter().zip(weights_k).map(|(scale, weight)| scale.offset * weight).sum());
            for (k, &weight_k) in (first_k..).zip(weights_k) {
                let SliceScale { slope, pivot, .. } = scales[k];
                for (j, &weight_j) in (first_j..).zip(weights_j) {
                    add_row(sums, &stored[(k * ny + j) * nx..][start..end], weight_k * weight_j * slope, pivot);
                }
            }
            for (n, value) in range.zip(values) {
                let (first, weights) = x.at(n);
                *value = match outside.filter(|_| weights.is_empty()) {
                    Some(outside) => outside,
                    None => clip(weights.iter().zip(&sums[first - start..]).map(|(weight, sum)| weight * sum).sum(), limits),
                };
            }
        });
    });
    out
}

wide! {
    fn add_row<T: Voxel>(sums: &mut [f32], stored: &[T], factor: f32, pivot: f32) {
        sums.iter_mut().zip(stored).for_each(|(sum, value)| *sum += factor * (value.number() - pivot));
    }
}

/// See [`super::resample_gpu`]: `deliver` gets each part of the target, `slices` at a time, and where it goes.
pub(super) fn resample_area_gpu<T: Voxel>(
    gpu: &Gpu,
    image: &ImageVolume,
    stored: &[T],
    wgsl: &'static str,
    p: &Resample,
    mut deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    let (limits, outside) = (p.limits(), p.outside_value());
    let (along, tables) = tables(p, &p.lattice(image), outside.is_some());
    let source_dims = image.grid().dims();
    let target_dims = p.target_dims;
    let plane = image.grid().slice_voxels();
    let target_plane = target_dims[0] as usize * target_dims[1] as usize;
    let pipeline = gpu.pipeline("area", wgsl, &[("padded", if outside.is_some() { 1.0 } else { 0.0 })])?;
    let scales = gpu.upload("area: scales", &p.slice_scales::<T>(image))?;
    let (first_span, [spans, weights]) = upload(gpu, &tables)?;
    let depth = slabs::target_depth(gpu, "a target slice, bytes", target_dims, 4, slabs::MOST_VOXELS)?;
    let mut first_slice = 0;
    while first_slice < target_dims[2] as usize {
        // As many target slices as fit, and as have their source slices in one binding.
        let needed = |slices: usize| match along[2] {
            2 => tables[2].reach(first_slice..first_slice + slices),
            _ => 0..source_dims[2],
        };
        let bytes = |slices: usize| (needed(slices).len() * plane * size_of::<T>()) as u64 + 4; // padding to a whole word
        let slices = slabs::fitting(gpu, "source slices, bytes", depth.min(target_dims[2] as usize - first_slice), bytes)?;
        let loaded = needed(slices);
        let params = AreaParams {
            source_dims,
            first_loaded: loaded.start,
            target_dims,
            first_slice: first_slice as u32,
            along: along.map(|t| t as u32),
            low: limits[0],
            first_span,
            high: limits[1],
            outside: outside.unwrap_or(0.0),
            pad0: 0,
            pad1: 0,
            pad2: 0,
        };
        let params = gpu.uniform("area: params", &params)?;
        let bound = gpu.upload("area: stored", &stored[loaded.start as usize * plane..loaded.end as usize * plane])?;
        let resampled = gpu.storage("area: output", (target_plane * slices) as u64 * 4)?;
        let groups = [target_dims[0].div_ceil(64), target_dims[1], slices as u32];
        gpu.dispatch("area", &pipeline, &[&params, &bound, &scales, &spans, &weights, &resampled], groups)?;
        deliver(&resampled, first_slice * target_plane..(first_slice + slices) * target_plane)?;
        first_slice += slices;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{as_floats, covering, noisy_image, voxels};
    use super::super::{Interpolation, resample_cpu, resample_gpu};
    use super::*;

    /// Of the range of values: sums of some hundred terms in `f32`.
    const TOLERANCE: f64 = 2e-5;

    /// Each axis on its own: the overlap of intervals by their ends, or a triangle; weights that are missing at the ends left out.
    fn oracle(image: &ImageVolume, p: &Resample, voxel: [u32; 3]) -> f64 {
        let dims = image.grid().dims();
        let centre = p.source_from_target.apply(voxel.map(f64::from));
        if let Some(outside) = p.outside.filter(|_| (0..3).any(|s| !(0.0..f64::from(dims[s])).contains(&(centre[s] + 0.5).floor()))) {
            return outside;
        }
        let lines: [Vec<f64>; 3] = std::array::from_fn(|s| {
            let step = p.source_from_target.rows()[s][..3].iter().map(|v| v.abs()).fold(0.0, f64::max).max(1.0);
            let weight = |n: u32| {
                let at = f64::from(n) - centre[s];
                match p.interpolation {
                    Interpolation::Area => ((at + 0.5).min(step / 2.0) - (at - 0.5).max(-step / 2.0)).max(0.0),
                    _ => (1.0 - (at / step).abs()).max(0.0),
                }
            };
            let weights: Vec<f64> = (0..dims[s]).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let edge = if centre[s] < 0.0 { 0 } else { dims[s] as usize - 1 };
            weights.iter().enumerate().map(|(n, w)| if sum > 0.0 { w / sum } else { f64::from(u8::from(n == edge)) }).collect()
        });
        let term = |[i, j, k]: [u32; 3]| {
            lines[0][i as usize] * lines[1][j as usize] * lines[2][k as usize] * image.physical([i, j, k].map(|index| index as usize))
        };
        voxels(dims).map(term).sum()
    }

    #[test]
    fn both_are_the_formula() {
        let mut gpu = crate::gpu::for_tests();
        let axis = || prop_oneof![1.0..4.0f64, -4.0..-1.0f64, 0.3..1.0f64, Just(2.0), Just(1.0)];
        let cases = (
            prop::array::uniform3(prop_oneof![Just(1u32), 1u32..15]),
            prop::array::uniform3(1u32..9),
            [axis(), axis(), axis()],
            Just([0, 1, 2]).prop_shuffle(),
            any::<[bool; 3]>(),
            0..1000usize,
        );
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) });
        for storage in [u64::MAX, 15 * 15 * 4 * 15 + 4] {
            if let Some(gpu) = &mut gpu {
                gpu.limit_storage(storage.min(1 << 27));
            }
            let answer = runner.run(&cases, |(source_dims, target_dims, steps, order, [floats, triangle, padded], seed)| {
                let columns = std::array::from_fn(|t| std::array::from_fn(|s| if order[t] == s { steps[t] } else { 0.0 }));
                let interpolation = if triangle { Interpolation::Antialiased } else { Interpolation::Area };
                let source_from_target = covering(source_dims, target_dims, columns);
                let outside = padded.then_some(-50.0);
                let p =
                    Resample { interpolation, outside, subtract: 100.0, divide: 6000.0, ..Resample::new(target_dims, source_from_target) };
                let image = noisy_image(source_dims, seed);
                let image = if floats { as_floats(&image) } else { image };
                let on_gpu =
                    gpu.as_ref().map(|gpu| resample_gpu(gpu, &image, &p)).transpose().map_err(|e| TestCaseError::fail(e.to_string()))?;
                for found in [Some(resample_cpu(&image, &p)), on_gpu].into_iter().flatten() {
                    for (&found, voxel) in found.iter().zip(voxels(target_dims)) {
                        let expected = (oracle(&image, &p, voxel) - 100.0) / 6000.0;
                        prop_assert!((f64::from(found) - expected).abs() < TOLERANCE, "{found} is not {expected} at {voxel:?} of {p:?}");
                    }
                }
                Ok(())
            });
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
}
