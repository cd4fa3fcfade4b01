//! The smallest box around the voxels that a [`Mask`] keeps: the foreground.
//!
//! Memory traffic a voxel outside the box, on a GPU a voxel of the volume: 2 (integers) or 4 (floats) bytes read, and 1 with a label
//! map. Shader: `shaders/bounding_box.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::mask::{Mask, any_kept, for_each_slab, holds};
use super::rows::zeroed_voxels;
use super::voxel::Voxel;
use crate::gpu::{Gpu, GpuError};
use crate::volume::{ImageVolume, Stored, Volume};

pub(super) const WGSL_I16: &str =
    concat!(include_str!("../../shaders/shared/stored_i16.wgsl"), include_str!("../../shaders/bounding_box.wgsl"));
pub(super) const WGSL_F32: &str =
    concat!(include_str!("../../shaders/shared/stored_f32.wgsl"), include_str!("../../shaders/bounding_box.wgsl"));

/// Voxels of a slice that one workgroup looks at.
const VOXELS_A_GROUP: usize = 16384;

/// First and last i, j, k, both included.
pub type Bounds = [[u32; 3]; 2];

/// Leaves of `voxels`, of shape `dims`, those in `bounds`, in the same order. In place: what has been touched is not touched afresh.
///
/// # Panics
/// Where there is another number of voxels, or `bounds` reaches beyond them: broken promises of the caller.
pub fn crop<T: Copy>(voxels: &mut Vec<T>, dims: [u32; 3], [low, high]: Bounds) {
    let [nx, ny, nz] = dims.map(|n| n as usize);
    assert_eq!(voxels.len(), nx * ny * nz, "one value a voxel");
    assert!((0..3).all(|s| low[s] <= high[s] && high[s] < dims[s]), "the box lies in the volume");
    let size: [usize; 3] = std::array::from_fn(|s| (high[s] - low[s] + 1) as usize);
    let [i0, j0, k0] = low.map(|n| n as usize);
    if size != [nx, ny, nz] {
        for row in 0..size[1] * size[2] {
            let start = ((k0 + row / size[1]) * ny + j0 + row % size[1]) * nx + i0;
            voxels.copy_within(start..start + size[0], row * size[0]);
        }
    }
    voxels.truncate(size.iter().product());
}

/// The voxels of a volume of `dims`: `part` in `bounds`, 0 elsewhere. The way back from [`crop`].
///
/// # Panics
/// Where `part` has another length than `bounds` has voxels, or `bounds` reaches beyond the volume: broken promises of the caller.
pub fn uncrop<T: Copy + Zeroable>(part: &[T], dims: [u32; 3], [low, high]: Bounds) -> Vec<T> {
    assert!((0..3).all(|s| low[s] <= high[s] && high[s] < dims[s]), "the box lies in the volume");
    let size: [usize; 3] = std::array::from_fn(|s| (high[s] - low[s] + 1) as usize);
    assert_eq!(part.len(), size.iter().product::<usize>(), "one value a voxel of the box");
    let [nx, ny, _] = dims.map(|n| n as usize);
    let [i0, j0, k0] = low.map(|n| n as usize);
    let mut voxels = zeroed_voxels(dims);
    for (row, values) in part.chunks_exact(size[0]).enumerate() {
        let start = ((k0 + row / size[1]) * ny + j0 + row % size[1]) * nx + i0;
        voxels[start..start + size[0]].copy_from_slice(values);
    }
    voxels
}

/// Uniforms of `shaders/bounding_box.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct BoundingBoxParams {
    /// Columns of a slice.
    pub columns: u32,
    /// Voxels of a slice.
    pub plane: u32,
    /// First slice of the bound ones.
    pub first_slice: u32,
    /// WGSL alignment.
    pub pad0: u32,
}

/// The box around the voxels that `mask` keeps; `None` where it keeps none.
///
/// # Panics
/// Where a label map has other dimensions than the image: a broken promise of the caller.
pub fn bounding_box_cpu(image: &ImageVolume, mask: Mask<'_>) -> Option<Bounds> {
    match &image.stored {
        Stored::Int16(stored) => bounds_of(image, stored, mask),
        Stored::Float32(stored) => bounds_of(image, stored, mask),
    }
}

/// From the outside in, an axis at a time: of the volume only what lies outside of the box is read, and little of what lies in it.
fn bounds_of<T: Voxel>(image: &ImageVolume, stored: &Volume<T>, mask: Mask<'_>) -> Option<Bounds> {
    let labels = mask.labels(image);
    let [columns, rows, slices] = image.grid().dims().map(|n| n as usize);
    let ranks = mask.ranks::<T>(&image.rescale);
    let part = |k: usize, range: Range<usize>| (&stored.slice(k)[range.clone()], labels.map(|labels| &labels.slice(k)[range]));
    let any = |k: usize, range: Range<usize>| {
        let (values, labels) = part(k, range);
        any_kept(values, labels, ranks[k])
    };
    let any_in_slice = |k: usize| any(k, 0..rows * columns);
    let k0 = (0..slices).into_par_iter().position_first(any_in_slice)?;
    let k1 = k0 + (k0..slices).into_par_iter().position_last(any_in_slice)?;
    let any_in_row = |j: usize| (k0..=k1).any(|k| any(k, j * columns..(j + 1) * columns));
    let j0 = (0..rows).into_par_iter().position_first(any_in_row)?;
    let j1 = j0 + (j0..rows).into_par_iter().position_last(any_in_row)?;
    // Columns before and after which nothing is known to count: rows are looked at only there.
    let narrowed = |[mut before, mut after]: [usize; 2], k: usize| {
        for start in (j0..=j1).map(|j| j * columns) {
            let counts = |i: &usize| {
                let (values, labels) = part(k, start + i..start + i + 1);
                holds(ranks[k], values[0].rank()) & labels.is_none_or(|labels| labels[0] != 0)
            };
            if any(k, start..start + before) {
                before = (0..before).find(counts).unwrap_or(before);
            }
            if any(k, start + after..start + columns) {
                after = (after..columns).rfind(counts).map_or(after, |last| last + 1);
            }
        }
        [before, after]
    };
    let widest = |a: [usize; 2], b: [usize; 2]| [a[0].min(b[0]), a[1].max(b[1])];
    let [i0, end] = (k0..=k1).into_par_iter().fold(|| [columns, 0], narrowed).reduce(|| [columns, 0], widest);
    Some([[i0, j0, k0], [end - 1, j1, k1]].map(|corner| corner.map(|n| n as u32)))
}

/// [`bounding_box_cpu`] on a GPU: the same box.
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice exceeds a binding; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`bounding_box_cpu`].
pub fn bounding_box_gpu(gpu: &Gpu, image: &ImageVolume, mask: Mask<'_>) -> Result<Option<Bounds>, GpuError> {
    match &image.stored {
        Stored::Int16(stored) => bounds_in_slabs(gpu, WGSL_I16, image, stored, mask),
        Stored::Float32(stored) => bounds_in_slabs(gpu, WGSL_F32, image, stored, mask),
    }
}

fn bounds_in_slabs<T: Voxel>(
    gpu: &Gpu,
    wgsl: &'static str,
    image: &ImageVolume,
    stored: &Volume<T>,
    mask: Mask<'_>,
) -> Result<Option<Bounds>, GpuError> {
    const NOTHING: Bounds = [[u32::MAX; 3], [0; 3]];
    let (columns, plane) = (image.grid().dims()[0], image.grid().slice_voxels() as u32);
    let labels = mask.labels(image);
    let pipeline = gpu.pipeline("bounding_box", wgsl, &[("labelled", if labels.is_some() { 1.0 } else { 0.0 })])?;
    let ranks = gpu.upload("bounding_box: ranks", &mask.ranks::<T>(&image.rescale))?;
    let bounds = gpu.upload("bounding_box: bounds", &NOTHING)?;
    for_each_slab(gpu, stored, labels, VOXELS_A_GROUP, |slab| {
        let params = BoundingBoxParams { columns, plane, first_slice: slab.first_slice, pad0: 0 };
        let params = gpu.uniform("bounding_box: params", &params)?;
        gpu.dispatch("bounding_box", &pipeline, &[&params, &slab.stored, &slab.labels, &ranks, &bounds], slab.groups)
    })?;
    let mut found = NOTHING;
    gpu.read_into(&bounds, &mut found)?;
    Ok((found[0][0] != u32::MAX).then_some(found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{as_floats, masked_case, noisy_image, voxels};
    use super::*;

    fn by_definition(image: &ImageVolume, mask: Mask<'_>) -> Option<Bounds> {
        let counts = |n: usize, voxel: [u32; 3]| match mask {
            Mask::All => true,
            Mask::Labelled(labels) => labels.voxels()[n] != 0,
            Mask::Above(threshold) => image.physical(voxel.map(|index| index as usize)) > threshold,
            Mask::Nonzero => image.physical(voxel.map(|index| index as usize)) != 0.0,
        };
        let kept = voxels(image.grid().dims()).enumerate().filter(|&(n, voxel)| counts(n, voxel));
        kept.map(|(_, voxel)| [voxel; 2])
            .reduce(|a, b| [std::array::from_fn(|s| a[0][s].min(b[0][s])), std::array::from_fn(|s| a[1][s].max(b[1][s]))])
    }

    #[test]
    fn what_is_in_the_box_stays() {
        let dims = [5, 4, 3];
        for bounds in [[[0; 3], [4, 3, 2]], [[1, 2, 0], [3, 2, 1]], [[4, 3, 2], [4, 3, 2]], [[0, 1, 1], [4, 3, 2]]] {
            let inside = |voxel: &[u32; 3]| (0..3).all(|s| (bounds[0][s]..=bounds[1][s]).contains(&voxel[s]));
            let mut found: Vec<_> = voxels(dims).collect();
            crop(&mut found, dims, bounds);
            assert_eq!(found, voxels(dims).filter(inside).collect::<Vec<_>>());
            let expected: Vec<_> = voxels(dims).map(|voxel| if inside(&voxel) { voxel } else { [0; 3] }).collect();
            assert_eq!(uncrop(&found, dims, bounds), expected);
        }
    }

    #[test]
    fn boxes_are_the_definition_on_both() {
        let mut gpu = crate::gpu::for_tests();
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
        for storage in [u64::MAX, 4 * 19 * 19 + 4] {
            if let Some(gpu) = &mut gpu {
                gpu.limit_storage(storage.min(gpu.max_storage_bytes()));
            }
            let cases = (prop::array::uniform3(prop_oneof![Just(1u32), 1u32..20]), 0..1000usize, any::<bool>(), -500.0..6000.0f64);
            let answer = runner.run(&cases, |(dims, seed, floats, threshold)| {
                let image = noisy_image(dims, seed);
                let image = if floats { as_floats(&image) } else { image };
                let labels = masked_case(&image);
                for mask in [Mask::All, Mask::Labelled(&labels), Mask::Above(threshold), Mask::Nonzero] {
                    let expected = by_definition(&image, mask);
                    prop_assert_eq!(bounding_box_cpu(&image, mask), expected);
                    if let Some(gpu) = &gpu {
                        let found = bounding_box_gpu(gpu, &image, mask).map_err(|err| TestCaseError::fail(err.to_string()))?;
                        prop_assert_eq!(found, expected);
                    }
                }
                Ok(())
            });
            assert!(answer.is_ok(), "{answer:?}");
        }
    }
}
