//! `resample.rs` on a GPU, in slabs of slices. Shader: `shaders/resample.wgsl`.

use std::ops::Range;

use super::half::half_gpu;
use super::lattice::Interpolation;
use super::resample::{Resample, ResampleParams, Way};
use super::rows::zeroed_voxels;
use super::slabs::{self, Slab};
use super::voxel::Voxel;
use super::{area, separable_gpu, spline};
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::volume::{ImageVolume, Stored};

pub(super) const WGSL_I16: &str = concat!(
    include_str!("../../shaders/shared/lattice.wgsl"),
    include_str!("../../shaders/shared/stored_i16.wgsl"),
    include_str!("../../shaders/resample.wgsl")
);
pub(super) const WGSL_F32: &str = concat!(
    include_str!("../../shaders/shared/lattice.wgsl"),
    include_str!("../../shaders/shared/stored_f32.wgsl"),
    include_str!("../../shaders/resample.wgsl")
);

/// Resamples on a GPU, with the result of [`super::resample_cpu`] up to rounding (1e-5 of the range of values).
///
/// Source and target go through in slabs of slices, so volumes larger than a storage binding work.
///
/// # Errors
/// [`GpuError::TooLarge`] where two source slices or one target slice exceed a binding, or a target slice has more rows than a
/// dispatch has workgroups; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`super::resample_cpu`].
pub fn resample_gpu(gpu: &Gpu, image: &ImageVolume, p: &Resample) -> Result<Vec<f32>, GpuError> {
    let mut out: Vec<f32> = zeroed_voxels(p.target_dims);
    resample_parts(gpu, image, p, |part, range| gpu.read_into(part, &mut out[range]))?;
    Ok(out)
}

/// [`resample_gpu`] in half precision, to a unit in the last place of [`super::resample_half_cpu`]. Values are converted on the device, 6 bytes
/// of its memory traffic each, and half as many bytes come back.
///
/// # Errors
/// As [`resample_gpu`].
///
/// # Panics
/// As [`super::resample_cpu`].
pub fn resample_half_gpu(gpu: &Gpu, image: &ImageVolume, p: &Resample) -> Result<Vec<u16>, GpuError> {
    let mut out: Vec<u16> = zeroed_voxels(p.target_dims);
    resample_parts(gpu, image, p, |part, range| gpu.read_into(&half_gpu(gpu, part, range.len())?, &mut out[range]))?;
    Ok(out)
}

/// `deliver` gets each part of the target, in order, and which voxels these are.
fn resample_parts(
    gpu: &Gpu,
    image: &ImageVolume,
    p: &Resample,
    deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    match &image.stored {
        Stored::Int16(stored) => resample_parts_of(gpu, image, stored.voxels(), &SHADERS_I16, p, deliver),
        Stored::Float32(stored) => resample_parts_of(gpu, image, stored.voxels(), &SHADERS_F32, p, deliver),
    }
}

/// Shaders for one type of stored values.
struct Shaders {
    resample: &'static str,
    area: &'static str,
    separable: &'static str,
}

const SHADERS_I16: Shaders = Shaders { resample: WGSL_I16, area: area::WGSL_I16, separable: separable_gpu::WGSL_I16 };
const SHADERS_F32: Shaders = Shaders { resample: WGSL_F32, area: area::WGSL_F32, separable: separable_gpu::WGSL_F32 };

fn resample_parts_of<T: Voxel>(
    gpu: &Gpu,
    image: &ImageVolume,
    stored: &[T],
    shaders: &Shaders,
    p: &Resample,
    deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    match p.way(&p.lattice(image)) {
        Way::Spline => spline::resample_spline_gpu(gpu, image, stored, shaders.separable, p, deliver),
        Way::Separable => separable_gpu::resample_separable_gpu(gpu, image, stored, shaders.separable, p, deliver),
        Way::Area => area::resample_area_gpu(gpu, image, stored, shaders.area, p, deliver),
        Way::Cells => resample_slabs(gpu, image, stored, shaders.resample, p, deliver),
    }
}

fn resample_slabs<T: Voxel>(
    gpu: &Gpu,
    image: &ImageVolume,
    stored: &[T],
    wgsl: &'static str,
    p: &Resample,
    mut deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    let lattice = p.lattice(image);
    let [low, high] = p.limits();
    let [source_dims, target_dims] = [lattice.source_dims, lattice.target_dims];
    let plane = image.grid().slice_voxels();
    let outside = p.outside_value();
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let overrides = [("nearest", flag(p.interpolation == Interpolation::Nearest)), ("padded", flag(outside.is_some()))];
    let pipeline = gpu.pipeline("resample", wgsl, &overrides)?;
    let scales = gpu.upload("resample: scales", &p.slice_scales::<T>(image))?;
    let steps = gpu.upload("resample: steps", &lattice.all_steps())?;
    let sources = slabs::overlapping(gpu, "source slices, bytes", source_dims[2], (plane * size_of::<T>()) as u64)?;
    let stored: Vec<_> = sources
        .iter()
        .map(|slab| gpu.upload("resample: stored", &stored[slab.loaded.start as usize * plane..slab.loaded.end as usize * plane]))
        .collect::<Result<_, _>>()?;

    let target_plane = target_dims[0] as usize * target_dims[1] as usize;
    let depth = slabs::target_depth(gpu, "a target slice, bytes", target_dims, 4, slabs::MOST_VOXELS)?;
    let resampled = gpu.storage("resample: output", (target_plane * depth) as u64 * 4)?;
    for first_slice in (0..target_dims[2] as usize).step_by(depth) {
        let slices = depth.min(target_dims[2] as usize - first_slice);
        let touched = lattice.source_slices(first_slice, first_slice + slices);
        for (slab, stored) in sources.iter().zip(&stored).filter(|(slab, _)| slab.owns_any(touched)) {
            let Slab { owned, .. } = slab;
            let params = ResampleParams {
                source_dims,
                first_owned: owned.start,
                target_dims,
                end_owned: owned.end,
                first_slice: first_slice as u32,
                low,
                high,
                outside: outside.unwrap_or(0.0),
            };
            let params = gpu.uniform("resample: params", &params)?;
            let groups = [target_dims[0].div_ceil(64), target_dims[1], slices as u32];
            gpu.dispatch("resample", &pipeline, &[&params, stored, &scales, &steps, &resampled], groups)?;
        }
        deliver(&resampled, first_slice * target_plane..(first_slice + slices) * target_plane)?;
    }
    Ok(())
}
