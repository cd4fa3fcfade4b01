//! `separable.rs` on a GPU, in parts of as many target slices as fit: along j, then k, then i.
//! Shader: `shaders/separable.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::resample::Resample;
use super::slabs;
use super::source_values::{Limits, Source};
use super::voxel::Voxel;
use super::weights::{AxisWeights, tables, upload};
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::volume::ImageVolume;

pub(super) const WGSL_I16: &str =
    concat!(include_str!("../../shaders/shared/stored_i16.wgsl"), include_str!("../../shaders/separable.wgsl"));
pub(super) const WGSL_F32: &str =
    concat!(include_str!("../../shaders/shared/stored_f32.wgsl"), include_str!("../../shaders/separable.wgsl"));

/// Uniforms of `shaders/separable.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SeparableParams {
    /// Values of the bound input, in the source's order of axes.
    pub input_dims: [u32; 3],
    /// Axis of the sums.
    pub axis: u32,
    /// Values of the output, in the source's order of axes.
    pub output_dims: [u32; 3],
    /// Source slice that the input starts with.
    pub first_loaded: u32,
    /// Target index that the output starts with, along each source axis.
    pub first_index: [u32; 3],
    /// The axis across which limits change; 3: none.
    pub limits_across: u32,
    /// From value to value of the output, along each source axis.
    pub strides: [u32; 3],
    /// Lowest value before interpolation.
    pub low: f32,
    /// Where the spans of each source axis start.
    pub first_span: [u32; 3],
    /// Highest value before interpolation.
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

/// See [`super::resample_gpu`]: `deliver` gets each part of the target, and where it goes.
pub(super) fn resample_separable_gpu<T: Voxel>(
    gpu: &Gpu,
    image: &ImageVolume,
    stored: &[T],
    wgsl: &'static str,
    p: &Resample,
    deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    let outside = p.outside_value();
    let (along, tables) = tables(p, &p.lattice(image), outside.is_some());
    let source = Source::new(image, stored, p);
    let sums = Sums { target_dims: p.target_dims, along, tables, limits: source.limits(p), outside };
    sums.make(gpu, image, stored, &source, wgsl, deliver)
}

/// What is made of source values: sums along each source axis.
pub(super) struct Sums {
    pub(super) target_dims: [u32; 3],
    /// The target axis along each source axis.
    pub(super) along: [usize; 3],
    pub(super) tables: [AxisWeights; 3],
    pub(super) limits: Limits,
    pub(super) outside: Option<f32>,
}

impl Sums {
    /// `deliver` gets each part of the target, in order, and which voxels these are.
    pub(super) fn make<T: Voxel>(
        &self,
        gpu: &Gpu,
        image: &ImageVolume,
        stored: &[T],
        source: &Source<'_, T>,
        wgsl: &'static str,
        mut deliver: impl FnMut(&Buffer, Range<usize>) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Self { target_dims, along, tables, limits, outside } = self;
        let source_dims = image.grid().dims();
        let plane = image.grid().slice_voxels();
        let target_plane = target_dims[0] as usize * target_dims[1] as usize;
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let pipeline = |wgsl, axis: usize| {
            let labelled = axis == 1 && source.labels.is_some();
            let overrides =
                [("first", flag(axis == 1)), ("last", flag(axis == 0)), ("padded", flag(outside.is_some())), ("labelled", flag(labelled))];
            gpu.pipeline("separable", wgsl, &overrides)
        };
        let pipelines = [(1, pipeline(wgsl, 1)?), (2, pipeline(WGSL_F32, 2)?), (0, pipeline(WGSL_F32, 0)?)];
        let scales = gpu.upload("separable: scales", &source.scales)?;
        let ends = gpu.upload("separable: limits", &limits.ends)?;
        let (first_span, [spans, weights]) = upload(gpu, tables)?;
        let depth = slabs::target_depth(gpu, "a target slice, bytes", *target_dims, 4, slabs::MOST_VOXELS)?;
        let mut first_slice = 0;
        while first_slice < target_dims[2] as usize {
            // As many target slices as have all that they need and all that is made on the way in one binding each.
            let part = |slices: usize| Part::of(tables, *along, source_dims, first_slice..first_slice + slices);
            let needed = |slices: usize| {
                let part = part(slices);
                part.most_values().max((part.loaded.len() * plane * size_of::<T>()) as u64 + 4)
            };
            let most = depth.min(target_dims[2] as usize - first_slice);
            let slices = slabs::fitting(gpu, "source slices or rows between them, bytes", most, needed)?;
            let part = part(slices);
            let loaded = part.loaded.start as usize * plane..part.loaded.end as usize * plane;
            let labels = match source.labels {
                Some(labels) => gpu.upload("separable: labels", &labels[loaded.clone()])?,
                None => gpu.storage("separable: no labels", 4)?,
            };
            let mut values = gpu.upload("separable: stored", &stored[loaded])?;
            let target_strides = along.map(|t| [1, target_dims[0], target_plane as u32][t]);
            for (&(axis, ref pipeline), [input_dims, output_dims]) in pipelines.iter().zip(part.steps()) {
                let params = SeparableParams {
                    input_dims,
                    axis,
                    output_dims,
                    first_loaded: part.loaded.start,
                    first_index: part.first_index,
                    limits_across: limits.across.unwrap_or(3) as u32,
                    strides: if axis == 0 { target_strides } else { [1, output_dims[0], output_dims[0] * output_dims[1]] },
                    low: source.ends[0],
                    first_span,
                    high: source.ends[1],
                    outside: outside.unwrap_or(0.0),
                    pad0: 0,
                    pad1: 0,
                    pad2: 0,
                };
                let params = gpu.uniform("separable: params", &params)?;
                let made = gpu.storage("separable: output", output_dims.iter().map(|&n| u64::from(n)).product::<u64>() * 4)?;
                let groups = [output_dims[0].div_ceil(64), output_dims[1], output_dims[2]];
                gpu.dispatch("separable", pipeline, &[&params, &values, &scales, &spans, &weights, &ends, &made, &labels], groups)?;
                values = made;
            }
            deliver(&values, first_slice * target_plane..(first_slice + slices) * target_plane)?;
            first_slice += slices;
        }
        Ok(())
    }
}

/// Some slices of the target: source slices in reach, and what is made of them, along each source axis.
struct Part {
    source_dims: [u32; 3],
    loaded: Range<u32>,
    first_index: [u32; 3],
    made: [u32; 3],
}

impl Part {
    fn of(tables: &[AxisWeights; 3], along: [usize; 3], source_dims: [u32; 3], slices: Range<usize>) -> Self {
        let ranges: [Range<usize>; 3] = std::array::from_fn(|s| if along[s] == 2 { slices.clone() } else { 0..tables[s].len() });
        Self {
            source_dims,
            loaded: tables[2].reach(ranges[2].clone()),
            first_index: ranges.each_ref().map(|range| range.start as u32),
            made: ranges.each_ref().map(|range| range.len() as u32),
        }
    }

    /// Sizes of input and output along j, then k, then i.
    fn steps(&self) -> [[[u32; 3]; 2]; 3] {
        let [nx, ny, _] = self.source_dims;
        let loaded = self.loaded.len() as u32;
        let [mx, my, mz] = self.made;
        [[[nx, ny, loaded], [nx, my, loaded]], [[nx, my, loaded], [nx, my, mz]], [[nx, my, mz], [mx, my, mz]]]
    }

    /// Bytes of the largest output.
    fn most_values(&self) -> u64 {
        self.steps().iter().map(|[_, output]| output.iter().map(|&n| u64::from(n)).product::<u64>() * 4).max().unwrap_or(0)
    }
}
