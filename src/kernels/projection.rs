//! Projections of the physical values of an image along an axis: maximum, minimum, mean.
//!
//! Memory traffic a voxel: 2 (integers) or 4 (floats) bytes read. Shader: `shaders/projection.wgsl`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::simd::wide;
use super::slabs;
use super::voxel::Voxel;
use crate::gpu::{Gpu, GpuError};
use crate::volume::{ImageVolume, Rescale, Stored, Volume};

pub(super) const WGSL_I16: &str =
    concat!(include_str!("../../shaders/shared/stored_i16.wgsl"), include_str!("../../shaders/projection.wgsl"));
pub(super) const WGSL_F32: &str =
    concat!(include_str!("../../shaders/shared/stored_f32.wgsl"), include_str!("../../shaders/projection.wgsl"));

/// What becomes of the values along a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Project {
    /// The greatest (MIP).
    Maximum,
    /// The least.
    Minimum,
    /// Their mean.
    Mean,
}

/// Uniforms of `shaders/projection.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ProjectionParams {
    /// Columns, rows and slices of the volume.
    pub dims: [u32; 3],
    /// First slice of the bound ones.
    pub first_slice: u32,
    /// Number of bound slices.
    pub slices: u32,
    /// The axis that goes.
    pub axis: u32,
    /// WGSL alignment.
    pub pad0: u32,
    /// WGSL alignment.
    pub pad1: u32,
}

/// The axes that are left, in their order.
fn kept_axes(axis: usize) -> [usize; 2] {
    [[1, 2], [0, 2], [0, 1]][axis]
}

/// The physical values of `image` projected along `axis` (0, 1, 2 for i, j, k): one value for each voxel of the other two axes, the first
/// of them fastest. Means are sums in `f64` in the order of the axis, whatever the number of threads.
///
/// # Panics
/// Where there is no such axis: a broken promise of the caller.
pub fn project_cpu(image: &ImageVolume, axis: usize, project: Project) -> Vec<f32> {
    match &image.stored {
        Stored::Int16(stored) => project_stored(image, stored.voxels(), axis, project),
        Stored::Float32(stored) => project_stored(image, stored.voxels(), axis, project),
    }
}

fn project_stored<T: Voxel>(image: &ImageVolume, stored: &[T], axis: usize, project: Project) -> Vec<f32> {
    match project {
        // Along k, slices of different rescale meet.
        Project::Maximum | Project::Minimum if axis < 2 || image.rescale.iter().all(|rescale| *rescale == image.rescale[0]) => {
            extremes(image, stored, axis, project == Project::Maximum)
        }
        Project::Maximum => along(image, stored, axis, f64::NEG_INFINITY, |a, b| if b > a { b } else { a }, 1.0),
        Project::Minimum => along(image, stored, axis, f64::INFINITY, |a, b| if b < a { b } else { a }, 1.0),
        Project::Mean => along(image, stored, axis, 0.0, |a, b| a + b, 1.0 / f64::from(image.grid().dims()[axis])),
    }
}

/// The greatest or least stored values of lines that share a rescale, which are the greatest or least physical ones, or turned round.
fn extremes<T: Voxel>(image: &ImageVolume, stored: &[T], axis: usize, greatest: bool) -> Vec<f32> {
    let dims = image.grid().dims();
    let [nx, ny, nz] = dims.map(|n| n as usize);
    let row = |j: usize, k: usize| &stored[(k * ny + j) * nx..][..nx];
    let [across, down] = kept_axes(axis).map(|s| dims[s] as usize);
    let mut out = vec![0f32; across * down];
    out.par_chunks_exact_mut(across).enumerate().for_each_init(Vec::new, |found, (n, out)| {
        let Rescale { slope, intercept } = image.rescale[if axis == 2 { 0 } else { n }];
        let rising = (slope >= 0.0) == greatest;
        found.clear();
        match axis {
            0 => found.extend((0..ny).map(|j| extreme(row(j, n), rising))),
            1 => {
                found.extend_from_slice(row(0, n));
                (1..ny).for_each(|j| take_extremes(found, row(j, n), rising));
            }
            _ => {
                found.extend_from_slice(row(n, 0));
                (1..nz).for_each(|k| take_extremes(found, row(n, k), rising));
            }
        }
        out.iter_mut().zip(found).for_each(|(out, found)| *out = (slope * f64::from(found.number()) + intercept) as f32);
    });
    out
}

wide! {
    fn take_extremes<T: Voxel>(found: &mut [T], row: &[T], rising: bool) {
        if rising {
            found.iter_mut().zip(row).for_each(|(found, &value)| *found = if value > *found { value } else { *found });
        } else {
            found.iter_mut().zip(row).for_each(|(found, &value)| *found = if value < *found { value } else { *found });
        }
    }
}

/// The greatest value where `rising`, else the least.
fn extreme<T: Voxel>(row: &[T], rising: bool) -> T {
    const LANES: usize = 16;
    let (mut lanes, rest) = ([row[0]; LANES], row.as_chunks::<LANES>());
    rest.0.iter().for_each(|chunk| take_extremes(&mut lanes, chunk, rising));
    let others = lanes.iter().chain(rest.1).copied();
    others.fold(row[0], |a, b| if (b > a) == rising && b != a { b } else { a })
}

/// Rows of `out` on all threads: each folds rows of the volume into a row of `f64`, or each of its rows into a value.
fn along<T: Voxel>(
    image: &ImageVolume,
    stored: &[T],
    axis: usize,
    start: f64,
    fold: impl Fn(f64, f64) -> f64 + Sync,
    scale: f64,
) -> Vec<f32> {
    let dims = image.grid().dims();
    let [nx, ny, nz] = dims.map(|n| n as usize);
    let row = |j: usize, k: usize| &stored[(k * ny + j) * nx..][..nx];
    let physical = |k: usize| {
        let Rescale { slope, intercept } = image.rescale[k];
        move |value: &T| slope * f64::from(value.number()) + intercept
    };
    let [across, down] = kept_axes(axis).map(|s| dims[s] as usize);
    let mut out = vec![0f32; across * down];
    out.par_chunks_exact_mut(across).enumerate().for_each_init(
        || vec![start; across],
        |folded, (n, out)| {
            folded.fill(start);
            let mut add = |j: usize, k: usize| {
                let physical = physical(k);
                folded.iter_mut().zip(row(j, k)).for_each(|(folded, value)| *folded = fold(*folded, physical(value)));
            };
            match axis {
                0 => {
                    for (j, folded) in folded.iter_mut().enumerate() {
                        *folded = row(j, n).iter().map(physical(n)).fold(start, &fold);
                    }
                }
                1 => (0..ny).for_each(|j| add(j, n)),
                _ => (0..nz).for_each(|k| add(n, k)),
            }
            out.iter_mut().zip(folded).for_each(|(out, folded)| *out = (*folded * scale) as f32);
        },
    );
    out
}

/// [`project_cpu`] on a GPU, to 1e-6 of the range of values, means to 1e-5.
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice exceeds a binding; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`project_cpu`].
pub fn project_gpu(gpu: &Gpu, image: &ImageVolume, axis: usize, project: Project) -> Result<Vec<f32>, GpuError> {
    match &image.stored {
        Stored::Int16(stored) => project_slabs(gpu, WGSL_I16, image, stored, axis, project),
        Stored::Float32(stored) => project_slabs(gpu, WGSL_F32, image, stored, axis, project),
    }
}

fn project_slabs<T: Voxel>(
    gpu: &Gpu,
    wgsl: &'static str,
    image: &ImageVolume,
    stored: &Volume<T>,
    axis: usize,
    project: Project,
) -> Result<Vec<f32>, GpuError> {
    const THREADS: u32 = 64;
    let dims = image.grid().dims();
    let plane = image.grid().slice_voxels();
    let [across, down] = kept_axes(axis).map(|s| dims[s]);
    let mode = match project {
        Project::Maximum => 0.0,
        Project::Minimum => 1.0,
        Project::Mean => 2.0,
    };
    let pipeline = gpu.pipeline("projection", wgsl, &[("mode", mode)])?;
    let rescale: Vec<[f32; 2]> = image.rescale.iter().map(|rescale| [rescale.slope as f32, rescale.intercept as f32]).collect();
    let rescale = gpu.upload("projection: rescale", &rescale)?;
    let depth = slabs::target_depth(gpu, "a slice of stored values, bytes", dims, size_of::<T>() as u64, slabs::MOST_VOXELS)?;
    let projected = gpu.storage("projection: output", u64::from(across) * u64::from(down) * 4)?;
    for (slab, part) in stored.voxels().chunks(plane * depth).enumerate() {
        let slices = (part.len() / plane) as u32;
        let params = ProjectionParams { dims, first_slice: (slab * depth) as u32, slices, axis: axis as u32, pad0: 0, pad1: 0 };
        let params = gpu.uniform("projection: params", &params)?;
        let bound = gpu.upload("projection: stored", part)?;
        let rows = if axis == 2 { down } else { slices };
        gpu.dispatch("projection", &pipeline, &[&params, &bound, &rescale, &projected], [across.div_ceil(THREADS), rows, 1])?;
    }
    let mut out = vec![0f32; across as usize * down as usize];
    gpu.read_into(&projected, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{as_floats, noisy_image, voxels};
    use super::*;

    #[test]
    fn both_fold_every_line() -> Result<(), GpuError> {
        let mut gpu = crate::gpu::for_tests();
        for (dims, storage) in [([1, 1, 1], u64::MAX), ([70, 3, 9], u64::MAX), ([1, 7, 65], u64::MAX), ([40, 33, 7], 40 * 33 * 4 + 4)] {
            if let Some(gpu) = &mut gpu {
                gpu.limit_storage(storage.min(1 << 27));
            }
            let own = noisy_image(dims, 3);
            let shared = |slope| ImageVolume { rescale: vec![Rescale { slope, intercept: 7.0 }; dims[2] as usize], ..own.clone() };
            for image in [own.clone(), as_floats(&own), shared(1.5), shared(-0.5), as_floats(&shared(-0.75))] {
                for (axis, project) in
                    [0, 1, 2].into_iter().flat_map(|axis| [Project::Maximum, Project::Minimum, Project::Mean].map(|p| (axis, p)))
                {
                    let [across, down] = kept_axes(axis).map(|s| dims[s]);
                    let mut lines: Vec<Vec<f64>> = vec![Vec::new(); (across * down) as usize];
                    for voxel in voxels(dims) {
                        let [a, b] = kept_axes(axis).map(|s| voxel[s]);
                        lines[(b * across + a) as usize].push(image.physical(voxel.map(|index| index as usize)));
                    }
                    let expected = lines.iter().map(|line| match project {
                        Project::Maximum => line.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                        Project::Minimum => line.iter().copied().fold(f64::INFINITY, f64::min),
                        Project::Mean => line.iter().sum::<f64>() / line.len() as f64,
                    });
                    let expected: Vec<f64> = expected.collect();
                    let on_gpu = gpu.as_ref().map(|gpu| project_gpu(gpu, &image, axis, project)).transpose()?;
                    for (found, tolerance) in [(Some(project_cpu(&image, axis, project)), 1e-7), (on_gpu, 1e-6)] {
                        for (found, expected) in found.iter().flatten().zip(&expected) {
                            assert!(
                                (f64::from(*found) - expected).abs() < tolerance * 6000.0,
                                "{found} is not {expected}: {project:?} along {axis}"
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
