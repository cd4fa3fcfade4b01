//! Cubic splines where the axes of the grids are not parallel: coefficients of B-splines first, then 64 of them for each voxel.
//!
//! The coefficients are those of clipped, normalised values, made axis by axis as in `separable.rs`: of the source and a margin around it,
//! in which they become those of the edge values, continued without end. Memory: 4 bytes a source voxel and as much for the margin of
//! [`SPLINE_REACH`] voxels. Shaders: `shaders/separable.wgsl`, `shaders/spline.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::half::Output;
use super::lattice::{Interpolation, Lattice, Step};
use super::resample::{Resample, clip, pad};
use super::rows::{fill_rows, zeroed_voxels};
use super::separable::weighted;
use super::separable_gpu::Sums;
use super::simd::wide;
use super::slabs;
use super::source_values::{Limits, OPEN, Source};
use super::voxel::Voxel;
use super::weights::{AxisWeights, SPLINE_REACH};
use crate::geometry::Affine;
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::volume::ImageVolume;

pub(super) const WGSL: &str = concat!(include_str!("../../shaders/shared/lattice.wgsl"), include_str!("../../shaders/spline.wgsl"));

/// Voxels around the source.
const MARGIN: u32 = SPLINE_REACH as u32;

/// Uniforms of `shaders/spline.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct SplineParams {
    /// Coefficients along i, j, k: the source and a margin around it.
    pub(super) dims: [u32; 3],
    /// Slice that the bound coefficients start with.
    pub(super) first_loaded: u32,
    /// Voxels of the whole target.
    pub(super) target_dims: [u32; 3],
    /// Target slice that the output starts with.
    pub(super) first_slice: u32,
    /// Of the coefficients around the source.
    pub(super) margin: u32,
    /// Lowest output.
    pub(super) low: f32,
    /// Highest output.
    pub(super) high: f32,
    /// Output outside the source, if that is asked for.
    pub(super) outside: f32,
}

/// Coefficients along i, j, k.
fn dims_of(image: &ImageVolume) -> [u32; 3] {
    image.grid().dims().map(|n| n + 2 * MARGIN)
}

fn tables_of(image: &ImageVolume) -> [AxisWeights; 3] {
    image.grid().dims().map(AxisWeights::of_coefficients)
}

/// Where target voxels lie among the coefficients.
fn lattice_of(image: &ImageVolume, p: &Resample) -> Lattice {
    let beyond_margin = Affine::scale_then_shift([1.0; 3], [f64::from(MARGIN); 3]);
    Lattice::new(dims_of(image), p.target_dims, &(beyond_margin * p.source_from_target), Interpolation::Linear)
}

/// See [`super::resample_cpu`]; `lattice` is that of the source.
pub(super) fn resample_spline<T: Voxel, O: Output>(image: &ImageVolume, stored: &[T], p: &Resample, lattice: &Lattice) -> Vec<O> {
    let (coefficients, limits) = weighted(image, stored, p, tables_of(image));
    let field = Field { coefficients, dims: dims_of(image).map(|n| n as usize), lattice: lattice_of(image, p), limits };
    let outside = p.outside_value();
    let mut out = zeroed_voxels(p.target_dims);
    fill_rows(&mut out, p.target_dims, [0, 1, 2], Vec::new, |made, j, k, range, out| {
        O::row(out, made, |values| {
            gather(values, &field, &field.lattice.row(j, k), range.start);
            pad(lattice, &lattice.row(j, k), range, outside, values);
        });
    });
    out
}

/// What voxels are made of.
struct Field {
    coefficients: Vec<f32>,
    dims: [usize; 3],
    lattice: Lattice,
    limits: [f32; 2],
}

wide! {
    /// The values of a row from voxel `first` on.
    fn gather(values: &mut [f32], field: &Field, row: &Step, first: usize) {
        let [nx, ny, _] = field.dims;
        for (n, value) in values.iter_mut().enumerate() {
            let cell = field.lattice.cell(first + n, row);
            // The margin is flat towards its ends: there, four neighbours are as good as four others.
            let [i, j, k] = std::array::from_fn(|s| cell.lower[s].max(1).min(field.dims[s] - 3) - 1);
            let [wi, wj, wk] = cell.weight.map(b_spline);
            let mut sums = [0f32; 4];
            for (m, wk) in wk.into_iter().enumerate() {
                let mut plane = [0f32; 4];
                for (l, wj) in wj.into_iter().enumerate() {
                    let row: &[f32; 4] = field.coefficients[((k + m) * ny + j + l) * nx + i..].first_chunk().expect("four of a row");
                    for lane in 0..4 {
                        plane[lane] += wj * row[lane];
                    }
                }
                for lane in 0..4 {
                    sums[lane] += wk * plane[lane];
                }
            }
            let products: [f32; 4] = std::array::from_fn(|lane| wi[lane] * sums[lane]);
            *value = clip((products[0] + products[2]) + (products[1] + products[3]), field.limits);
        }
    }
}

/// The cubic B-spline at its four places around a position, `t` beyond the second one.
#[inline(always)]
fn b_spline(t: f32) -> [f32; 4] {
    let near = |t: f32| (3.0 * t - 6.0) * t * t + 4.0;
    let u = 1.0 - t;
    [u * u * u / 6.0, near(t) / 6.0, near(u) / 6.0, t * t * t / 6.0]
}

/// See [`super::resample_gpu`]: coefficients are made on the device and kept in main memory, from where each part of the target gets those
/// that it needs. `separable` is the shader for the type of stored values.
pub(super) fn resample_spline_gpu<T: Voxel>(
    gpu: &Gpu,
    image: &ImageVolume,
    stored: &[T],
    separable: &'static str,
    p: &Resample,
    mut deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    let (dims, target_dims) = (dims_of(image), p.target_dims);
    let source = Source::new(image, stored, p);
    let [low, high] = source.limits(p).ends[0];
    let open = Limits { across: None, ends: vec![OPEN] };
    let sums = Sums { target_dims: dims, along: [0, 1, 2], tables: tables_of(image), limits: open, outside: None };
    let mut coefficients: Vec<f32> = zeroed_voxels(dims);
    sums.make(gpu, image, stored, &source, separable, |part, range| gpu.read_into(part, &mut coefficients[range]))?;

    let lattice = lattice_of(image, p);
    let outside = p.outside_value();
    let pipeline = gpu.pipeline("spline", WGSL, &[("padded", if outside.is_some() { 1.0 } else { 0.0 })])?;
    let steps = gpu.upload("spline: steps", &lattice.all_steps())?;
    let (plane, target_plane) = (dims[0] as usize * dims[1] as usize, target_dims[0] as usize * target_dims[1] as usize);
    let depth = slabs::target_depth(gpu, "a target slice, bytes", target_dims, 4, slabs::MOST_VOXELS)?;
    let mut first_slice = 0;
    while first_slice < target_dims[2] as usize {
        // As many target slices as have all coefficients that they need in one binding.
        let loaded = |slices: usize| {
            let (low, high) = lattice.source_slices(first_slice, first_slice + slices);
            low.max(1).min(dims[2] - 3) - 1..(high + 3).min(dims[2]).max(4)
        };
        let needed = |slices: usize| (loaded(slices).len() * plane * 4) as u64;
        let most = depth.min(target_dims[2] as usize - first_slice);
        let slices = slabs::fitting(gpu, "coefficients for a target slice, bytes", most, needed)?;
        let loaded = loaded(slices);
        let bound = gpu.upload("spline: coefficients", &coefficients[loaded.start as usize * plane..loaded.end as usize * plane])?;
        let params = SplineParams {
            dims,
            first_loaded: loaded.start,
            target_dims,
            first_slice: first_slice as u32,
            margin: MARGIN,
            low,
            high,
            outside: outside.unwrap_or(0.0),
        };
        let params = gpu.uniform("spline: params", &params)?;
        let resampled = gpu.storage("spline: output", (target_plane * slices * 4) as u64)?;
        let groups = [target_dims[0].div_ceil(64), target_dims[1], slices as u32];
        gpu.dispatch("spline", &pipeline, &[&params, &bound, &steps, &resampled], groups)?;
        deliver(&resampled, first_slice * target_plane..(first_slice + slices) * target_plane)?;
        first_slice += slices;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{LINEARS, any_linear, as_floats, covering, masked_case, noisy_image, voxels};
    use super::super::{Background, resample_cpu, resample_gpu};
    use super::*;

    fn cubic(target_dims: [u32; 3], source_from_target: Affine) -> Resample {
        Resample { interpolation: Interpolation::Cubic, divide: 6000.0, ..Resample::new(target_dims, source_from_target) }
    }

    /// A turn so small that it moves no voxel by what `f32` resolves, and too large for axes to count as parallel.
    fn nudged(p: &Resample) -> Resample {
        let nudge = Affine::from_columns([1., 1e-6, 0.], [0., 1., 1e-6], [1e-6, 0., 1.], [0.; 3]);
        Resample { source_from_target: p.source_from_target * nudge, ..p.clone() }
    }

    #[test]
    fn it_meets_the_spline_along_axes() {
        for image in [noisy_image([30, 20, 12], 5), as_floats(&noisy_image([30, 20, 12], 5))] {
            let clip = Some([-700.0, 1900.0]);
            for (linear, values_first, outside) in [(LINEARS[0], false, None), (LINEARS[1], true, None), (LINEARS[2], false, Some(5.0))] {
                let straight =
                    Resample { clip, values_first, outside, ..cubic([40, 25, 18], covering([30, 20, 12], [40, 25, 18], linear)) };
                let turned = nudged(&straight);
                assert!(straight.lattice(&image).aligned.is_some() && turned.lattice(&image).aligned.is_none());
                let expected = resample_cpu(&image, &straight);
                for (a, b) in expected.iter().zip(resample_cpu(&image, &turned)) {
                    assert!((a - b).abs() < 1e-4, "{a} is not {b}");
                }
            }
        }
    }

    fn agree(gpu: &Gpu, image: &ImageVolume, p: &Resample) -> Result<(), TestCaseError> {
        let found = resample_gpu(gpu, image, p).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for ((a, b), voxel) in resample_cpu(image, p).iter().zip(found).zip(voxels(p.target_dims)) {
            let at = p.source_from_target.apply(voxel.map(f64::from));
            let halfway = at.iter().any(|x| (x.fract().abs() - 0.5).abs() < 1e-5);
            prop_assert!((a - b).abs() < 1e-5 || p.outside.is_some() && halfway, "{a} is not {b} at {voxel:?} of {p:?}");
        }
        Ok(())
    }

    #[test]
    fn the_gpu_agrees() {
        let Some(mut gpu) = crate::gpu::for_tests() else { return };
        let cases = (
            prop::array::uniform3(prop_oneof![Just(1u32), 1..15u32]),
            prop::array::uniform3(1..20u32),
            any_linear(),
            prop::option::of(-900.0..900.0f64),
            prop::option::of(-900.0..2000.0f64),
            any::<bool>(),
            0..1000usize,
        );
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
        let answer = runner.run(&cases, |(source_dims, target_dims, linear, outside, background, values_first, seed)| {
            let map = covering(source_dims, target_dims, linear);
            let image = noisy_image(source_dims, seed);
            let labelled = seed % 2 == 0;
            let background =
                background.map(|value| if labelled { Background::Unlabelled(masked_case(&image)) } else { Background::NotAbove(value) });
            let p = Resample { clip: Some([-700.0, 1900.0]), outside, background, values_first, ..cubic(target_dims, map) };
            agree(&gpu, &image, &p)
        });
        assert!(answer.is_ok(), "{answer:?}");

        // Parts of the target, each with the coefficients that it needs; and a slice that needs too many.
        let image = noisy_image([12, 10, 60], 3);
        let p = cubic([20, 15, 70], covering([12, 10, 60], [20, 15, 70], [[0.6, 0.0, 0.05], [0.02, 0.7, 0.1], [0.0, 0.03, 0.8]]));
        gpu.limit_storage(200_000);
        agree(&gpu, &image, &p).expect("the same values");
        gpu.limit_storage(30_000);
        let refused = resample_gpu(&gpu, &image, &p).expect_err("it does not fit");
        assert!(matches!(refused, GpuError::TooLarge { .. }), "{refused}");
    }

    // import numpy as np
    // from scipy.ndimage import map_coordinates
    // i, j, k = np.meshgrid(np.arange(5), np.arange(4), np.arange(3), indexing="ij")
    // hu = (i * 37 + j * j * 11 - k * 50 + (i * j * k) % 7 * 20).astype(float)
    // a, b, c = np.meshgrid(np.arange(4), np.arange(3), np.arange(2), indexing="ij")
    // M = np.array([[0.9, -0.3, 0.2], [0.25, 0.8, -0.1], [-0.15, 0.2, 0.7]])
    // at = [M[r, 0] * a + M[r, 1] * b + M[r, 2] * c + t for r, t in enumerate([0.4, -0.2, 0.3])]
    // print(np.round(map_coordinates(hu, at, order=3, mode="nearest").ravel(order="F"), 4).tolist())
    #[test]
    fn scipy_agrees() {
        let dims = [5, 4, 3];
        let stored = voxels(dims).map(|v| {
            let [i, j, k] = v.map(|n| n as i16);
            i * 37 + j * j * 11 - k * 50 + (i * j * k) % 7 * 20
        });
        let grid = crate::geometry::Grid::new(dims, Affine::IDENTITY).expect("a grid");
        let image = ImageVolume {
            stored: crate::volume::Volume::new(grid, stored.collect()).into(),
            rescale: vec![crate::volume::Rescale { slope: 1.0, intercept: 0.0 }; 3],
            quantity: crate::volume::Quantity::Arbitrary,
        };
        let map = Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 0.8, 0.2], [0.2, -0.1, 0.7], [0.4, -0.2, 0.3]);
        let p = Resample { interpolation: Interpolation::Cubic, ..Resample::new([4, 3, 2], map) };
        for (found, expected) in resample_cpu(&image, &p).into_iter().zip(SCIPY) {
            assert!((f64::from(found) - expected).abs() < 2e-3, "{found} is not {expected}");
        }
    }

    const SCIPY: [f64; 24] = [
        0.7777, 44.9813, 82.6663, 120.9195, -12.7613, 37.0646, 82.9767, 123.0493, -14.9309, 38.7406, 107.4123, 163.3703, -31.8035, 15.176,
        59.7512, 117.0424, -48.8033, 17.7515, 81.1809, 153.6153, -57.0435, 29.2269, 106.7396, 216.8913,
    ];
}
