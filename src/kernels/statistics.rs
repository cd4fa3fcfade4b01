//! Mean, spread and range of the physical values of an image, or of the part of it that a [`Mask`] keeps.
//!
//! Sums are exact for integers, and `f64` in a fixed order for floats (`label_sums.rs`): the number of threads changes no digit.
//! Memory traffic a voxel: 2 (integers) or 4 (floats) bytes read, and 1 with a label map.
//! Shader: `shaders/label_statistics.wgsl`, with the mask as its label map.

use rayon::prelude::*;

use super::label_statistics::{PhysicalStatistics, SliceNumbers, label_statistics_of_gpu, physical_of};
use super::label_sums::{Summed, Sums};
use super::mask::{Mask, Ranks, for_kept};
use crate::gpu::{Gpu, GpuError};
use crate::volume::{ImageVolume, Stored, Volume};

/// What the voxels that count come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// How many.
    pub voxels: u64,
    /// Their physical values.
    pub physical: PhysicalStatistics,
}

/// Statistics of the physical values of the voxels that `mask` keeps; `None` where it keeps none.
///
/// # Panics
/// Where a label map has other dimensions than the image: a broken promise of the caller.
pub fn statistics_cpu(image: &ImageVolume, mask: Mask<'_>) -> Option<Statistics> {
    match &image.stored {
        Stored::Int16(stored) => statistics_of(image, stored, mask),
        Stored::Float32(stored) => statistics_of(image, stored, mask),
    }
}

fn statistics_of<T: Summed>(image: &ImageVolume, stored: &Volume<T>, mask: Mask<'_>) -> Option<Statistics> {
    let labels = mask.labels(image);
    let slices: Vec<SliceNumbers> = mask
        .ranks::<T>(&image.rescale)
        .par_iter()
        .enumerate()
        .filter_map(|(k, &ranks)| slice_numbers(stored.slice(k), labels.map(|labels| labels.slice(k)), ranks, k as u32))
        .collect();
    statistics(&slices, image)
}

fn slice_numbers<T: Summed>(values: &[T], labels: Option<&[u8]>, ranks: Ranks, k: u32) -> Option<SliceNumbers> {
    let mut sums = None;
    for_kept(values, labels, ranks, |some| T::add(sums.get_or_insert_with(|| T::none(some[0])), some));
    sums.map(|sums| sums.numbers(k))
}

fn statistics(slices: &[SliceNumbers], image: &ImageVolume) -> Option<Statistics> {
    let physical = physical_of(slices, &image.rescale)?;
    Some(Statistics { voxels: slices.iter().map(|slice| slice.voxels).sum(), physical })
}

/// [`statistics_cpu`] on a GPU: the same numbers of integers; of floats the mean and the standard deviation differ by at most 2^-30
/// of the largest value. The mask goes up as a byte a voxel.
///
/// # Errors
/// As [`label_statistics_of_gpu`].
///
/// # Panics
/// As [`statistics_cpu`].
pub fn statistics_gpu(gpu: &Gpu, image: &ImageVolume, mask: Mask<'_>) -> Result<Option<Statistics>, GpuError> {
    let found = label_statistics_of_gpu(gpu, &mask.label_map(image, None), image, &[1])?;
    Ok(statistics(&found[0].slices, image))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{as_floats, kept_values, masked_case, noisy_image};
    use super::*;

    /// Two passes in `f64`, voxel by voxel.
    fn by_definition(image: &ImageVolume, mask: Mask<'_>) -> Option<Statistics> {
        let values = kept_values(image, mask);
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let physical = PhysicalStatistics {
            mean,
            standard_deviation: variance.sqrt(),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            greatest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        (!values.is_empty()).then_some(Statistics { voxels: values.len() as u64, physical })
    }

    #[test]
    fn numbers_are_the_definition_on_both() -> Result<(), GpuError> {
        let gpu = crate::gpu::for_tests();
        for (dims, seed) in [([1, 1, 1], 1), ([37, 1, 5], 2), ([1, 90, 3], 3), ([61, 47, 1], 4), ([40, 33, 7], 5)] {
            for image in [noisy_image(dims, seed), as_floats(&noisy_image(dims, seed))] {
                let labels = masked_case(&image);
                for mask in [Mask::All, Mask::Labelled(&labels), Mask::Above(500.0), Mask::Above(1e9), Mask::Nonzero] {
                    let expected = by_definition(&image, mask);
                    let found =
                        [Some(statistics_cpu(&image, mask)), gpu.as_ref().map(|gpu| statistics_gpu(gpu, &image, mask)).transpose()?];
                    // Sums of up to 1e4 values of up to 1e4 in f64; a GPU has 2^-30 of the largest float (33, times a slope of 1536).
                    for (found, tolerance) in found.into_iter().zip([1e-7, 1e-4]).filter_map(|(found, t)| Some((found?, t))) {
                        let (Some(a), Some(b)) = (found, expected) else {
                            assert_eq!(found, expected);
                            continue;
                        };
                        assert_eq!((a.voxels, a.physical.least, a.physical.greatest), (b.voxels, b.physical.least, b.physical.greatest));
                        let off = [a.physical.mean - b.physical.mean, a.physical.standard_deviation - b.physical.standard_deviation];
                        assert!(off.iter().all(|off| off.abs() < tolerance), "{a:?} is not {b:?}");
                    }
                }
            }
        }
        Ok(())
    }
}
