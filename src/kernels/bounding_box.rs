//! The smallest box around the voxels that a [`Mask`] keeps: the foreground.
//!
//! Memory traffic a voxel: 2 (integers) or 4 (floats) bytes read, and 1 with a label map. Shader: `shaders/bounding_box.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::mask::{Mask, Ranks, any_kept, for_each_slab, holds};
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

fn bounds_of<T: Voxel>(image: &ImageVolume, stored: &Volume<T>, mask: Mask<'_>) -> Option<Bounds> {
    let labels = mask.labels(image);
    let columns = image.grid().dims()[0] as usize;
    let ranks = mask.ranks::<T>(&image.rescale);
    let slices = ranks.par_iter().enumerate().filter_map(|(k, &ranks)| {
        let [[i0, j0], [i1, j1]] = bounds_in_slice(stored.slice(k), labels.map(|labels| labels.slice(k)), columns, ranks)?;
        Some([[i0, j0, k as u32], [i1, j1, k as u32]])
    });
    slices.reduce_with(around)
}

fn around(a: Bounds, b: Bounds) -> Bounds {
    [std::array::from_fn(|s| a[0][s].min(b[0][s])), std::array::from_fn(|s| a[1][s].max(b[1][s]))]
}

fn bounds_in_slice<T: Voxel>(values: &[T], labels: Option<&[u8]>, columns: usize, ranks: Ranks) -> Option<[[u32; 2]; 2]> {
    let mut found: Option<[[u32; 2]; 2]> = None;
    for (j, row) in (0..).zip(values.chunks_exact(columns)) {
        let labels = labels.map(|labels| &labels[j as usize * columns..][..columns]);
        let counts = |i: &usize| holds(ranks, row[*i].rank()) & labels.is_none_or(|labels| labels[*i] != 0);
        // Only what would widen the box matters, and whether there is anything at all.
        let any = |range: Range<usize>| any_kept(&row[range.clone()], labels.map(|labels| &labels[range]), ranks);
        let [first, last] = found.unwrap_or([[columns as u32, j], [0, j]]);
        let [left, right] = [0..(first[0] as usize).min(columns), (last[0] as usize + 1).min(columns)..columns];
        let (before, after) = (any(left.clone()), any(right.clone()));
        if before || after || (found.is_some() && any(first[0] as usize..last[0] as usize + 1)) {
            let i0 = left.clone().find(|i| before && counts(i)).unwrap_or(first[0] as usize);
            let i1 = right.clone().rfind(|i| after && counts(i)).unwrap_or(last[0] as usize);
            found = Some([[i0 as u32, first[1]], [i1 as u32, j]]);
        }
    }
    found
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
        };
        let kept = voxels(image.grid().dims()).enumerate().filter(|&(n, voxel)| counts(n, voxel));
        kept.map(|(_, voxel)| [voxel; 2]).reduce(around)
    }

    #[test]
    fn what_is_in_the_box_stays() {
        let dims = [5, 4, 3];
        for bounds in [[[0; 3], [4, 3, 2]], [[1, 2, 0], [3, 2, 1]], [[4, 3, 2], [4, 3, 2]], [[0, 1, 1], [4, 3, 2]]] {
            let inside = |voxel: &[u32; 3]| (0..3).all(|s| (bounds[0][s]..=bounds[1][s]).contains(&voxel[s]));
            let mut found: Vec<_> = voxels(dims).collect();
            crop(&mut found, dims, bounds);
            assert_eq!(found, voxels(dims).filter(inside).collect::<Vec<_>>());
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
                for mask in [Mask::All, Mask::Labelled(&labels), Mask::Above(threshold)] {
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
