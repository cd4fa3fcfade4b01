//! Which voxels of an image count.
//!
//! A threshold is held against physical values in `f64`, exactly. Both implementations meet it as a range of ranks for each slice,
//! so they choose the same voxels. A range may go round: from its start to the greatest rank, and from the least to its end.

use rayon::prelude::*;

use super::bounding_box::Bounds;
use super::simd::wide;
use super::slabs;
use super::voxel::Voxel;
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::volume::{ImageVolume, LabelMap, Rescale, Stored, Volume};

/// Which voxels of an image count.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// Every voxel.
    All,
    /// Those with a label other than 0, on a grid of the same dimensions.
    Labelled(&'a LabelMap),
    /// Those whose physical value is above this one.
    Above(f64),
    /// Those whose physical value is not 0.
    Nonzero,
}

/// Ranks from the first to the second, both included; where the first is larger, from there to the greatest and from the least to the second.
pub(super) type Ranks = [u32; 2];

pub(super) const ALL_RANKS: Ranks = [0, u32::MAX];
/// The rank of a NaN, which no voxel is.
pub(super) const NO_RANKS: Ranks = [u32::MAX; 2];

/// Voxels that [`for_kept`] collects before it hands them on.
const BLOCK: usize = 1024;

impl<'a> Mask<'a> {
    /// The label map, where there is one.
    ///
    /// # Panics
    /// Where its dimensions are not those of the image: a broken promise of the caller.
    pub(super) fn labels(&self, image: &ImageVolume) -> Option<&'a LabelMap> {
        let Self::Labelled(labels) = self else { return None };
        assert_eq!(labels.grid().dims(), image.grid().dims(), "labels and image have the same voxels");
        Some(labels)
    }

    /// The ranks of stored values that count in each slice.
    pub(super) fn ranks<T: Voxel>(&self, rescale: &[Rescale]) -> Vec<Ranks> {
        let of_slice = |rescale: &Rescale| match *self {
            Self::All | Self::Labelled(_) => ALL_RANKS,
            Self::Above(threshold) => ranks_above::<T>(*rescale, threshold),
            Self::Nonzero => nonzero_ranks::<T>(*rescale),
        };
        rescale.iter().map(of_slice).collect()
    }

    /// A label map of the image with 1 where the mask keeps a voxel in `within` (in all of it, where that is none), and 0 elsewhere.
    ///
    /// # Panics
    /// Where a label map has other dimensions than the image, or `within` reaches beyond it: broken promises of the caller.
    pub fn label_map(&self, image: &ImageVolume, within: Option<Bounds>) -> LabelMap {
        match &image.stored {
            Stored::Int16(stored) => self.labels_of(image, stored, within),
            Stored::Float32(stored) => self.labels_of(image, stored, within),
        }
    }

    fn labels_of<T: Voxel>(&self, image: &ImageVolume, stored: &Volume<T>, within: Option<Bounds>) -> LabelMap {
        let labels = self.labels(image);
        let dims = image.grid().dims();
        let [[i0, j0, k0], [i1, j1, k1]] = within.unwrap_or([[0; 3], dims.map(|n| n - 1)]).map(|corner| corner.map(|n| n as usize));
        let columns = dims[0] as usize;
        let mut kept = vec![0u8; stored.voxels().len()];
        let slices = kept.par_chunks_mut(image.grid().slice_voxels()).zip(self.ranks::<T>(&image.rescale)).enumerate();
        slices.skip(k0).take(k1 - k0 + 1).for_each(|(k, (kept, ranks))| {
            for row in (j0..=j1).map(|j| j * columns + i0..j * columns + i1 + 1) {
                for (kept, value) in kept[row.clone()].iter_mut().zip(&stored.slice(k)[row.clone()]) {
                    *kept = holds(ranks, value.rank()).into();
                }
                if let Some(labels) = labels {
                    kept[row.clone()].iter_mut().zip(&labels.slice(k)[row]).for_each(|(kept, &label)| *kept &= u8::from(label != 0));
                }
            }
        });
        Volume::new(*image.grid(), kept)
    }
}

/// Ranks whose physical values are above `threshold`: physical values rise or fall with the rank, so there is one place where it is passed.
fn ranks_above<T: Voxel>(Rescale { slope, intercept }: Rescale, threshold: f64) -> Ranks {
    let [least, greatest] = T::end_ranks();
    let above = |rank: u32| slope * T::of_rank(rank) + intercept > threshold;
    let rises = slope >= 0.0;
    let [mut low, mut high] = [u64::from(least), u64::from(greatest) + 1];
    while low < high {
        let middle = low.midpoint(high);
        if above(middle as u32) == rises { high = middle } else { low = middle + 1 }
    }
    match (rises, low == u64::from(least), low > u64::from(greatest)) {
        (true, _, true) | (false, true, _) => NO_RANKS,
        (true, ..) => [low as u32, greatest],
        (false, ..) => [least, low as u32 - 1],
    }
}

/// Ranks whose physical values are above 0 or below it.
fn nonzero_ranks<T: Voxel>(Rescale { slope, intercept }: Rescale) -> Ranks {
    let above = ranks_above::<T>(Rescale { slope, intercept }, 0.0);
    let below = ranks_above::<T>(Rescale { slope: -slope, intercept: -intercept }, 0.0);
    match (above, below) {
        (NO_RANKS, ranks) | (ranks, NO_RANKS) => ranks,
        // From the lower end of the higher ones round to the upper end of the lower ones.
        ([a, b], [c, d]) => [a.max(c), b.min(d)],
    }
}

/// Slices of an image on a GPU, with the labels that choose among their voxels.
pub(super) struct MaskedSlab {
    /// Number of the first slice.
    pub(super) first_slice: u32,
    pub(super) stored: Buffer,
    /// A word without meaning where there is no label map.
    pub(super) labels: Buffer,
    /// Workgroups, where each looks at `voxels_a_group` voxels of a slice.
    pub(super) groups: [u32; 3],
}

/// Brings an image to a GPU, as many slices at a time as fit a binding; `pass` computes on each.
pub(super) fn for_each_slab<T: Voxel>(
    gpu: &Gpu,
    stored: &Volume<T>,
    labels: Option<&LabelMap>,
    voxels_a_group: usize,
    mut pass: impl FnMut(&MaskedSlab) -> Result<(), GpuError>,
) -> Result<(), GpuError> {
    let plane = stored.grid().slice_voxels();
    let what = "a slice of stored values, bytes";
    let depth = slabs::target_depth(gpu, what, stored.grid().dims(), size_of::<T>() as u64, slabs::MOST_VOXELS)?;
    for (slab, part) in stored.voxels().chunks(plane * depth).enumerate() {
        let first = slab * depth;
        pass(&MaskedSlab {
            first_slice: first as u32,
            stored: gpu.upload("masked: stored", part)?,
            labels: match labels {
                Some(labels) => gpu.upload("masked: labels", &labels.voxels()[first * plane..][..part.len()])?,
                None => gpu.storage("masked: no labels", 4)?,
            },
            groups: [plane.div_ceil(voxels_a_group) as u32, (part.len() / plane) as u32, 1],
        })?;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn holds([low, high]: Ranks, rank: u32) -> bool {
    rank.wrapping_sub(low) <= high.wrapping_sub(low)
}

wide! {
    /// Whether any value counts; `labels` has as many as `values`, or none where labels do not matter.
    fn any_of<T: Voxel>(values: &[T], labels: &[u8], ranks: Ranks) -> bool {
        if labels.is_empty() {
            return values.iter().fold(false, |any, value| any | holds(ranks, value.rank()));
        }
        values.iter().zip(labels).fold(false, |any, (value, &label)| any | (holds(ranks, value.rank()) & (label != 0)))
    }
}

/// Whether any value counts.
pub(super) fn any_kept<T: Voxel>(values: &[T], labels: Option<&[u8]>, ranks: Ranks) -> bool {
    const PIECE: usize = 256; // long enough for vectors, short enough to end early
    let labels_of = |n: usize, piece: &[T]| labels.map_or(&[][..], |labels| &labels[n * PIECE..][..piece.len()]);
    values.chunks(PIECE).enumerate().any(|(n, piece)| any_of(piece, labels_of(n, piece), ranks))
}

/// Calls `f` with the values that count, some at a time, in their order.
pub(super) fn for_kept<T: Voxel>(values: &[T], labels: Option<&[u8]>, ranks: Ranks, mut f: impl FnMut(&[T])) {
    if labels.is_none() && ranks == ALL_RANKS {
        return f(values);
    }
    let mut kept = [T::zeroed(); BLOCK];
    for (n, some) in values.chunks(BLOCK).enumerate() {
        let labels = labels.map(|labels| &labels[n * BLOCK..][..some.len()]);
        let mut count = 0;
        for (i, &value) in some.iter().enumerate() {
            kept[count] = value; // overwritten by the next one unless it counts: no branch to mispredict
            count += usize::from(holds(ranks, value.rank()) & labels.is_none_or(|labels| labels[i] != 0));
        }
        if count > 0 {
            f(&kept[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: Voxel + std::fmt::Debug>(values: &[T], slope: f64, intercept: f64, threshold: f64) -> Result<(), TestCaseError> {
        let ranks = ranks_above::<T>(Rescale { slope, intercept }, threshold);
        for &value in values {
            let above = slope * f64::from(value.number()) + intercept > threshold;
            prop_assert_eq!(holds(ranks, value.rank()), above, "{:?}: {} * v + {} > {}", value, slope, intercept, threshold);
            prop_assert_eq!(T::of_rank(value.rank()), f64::from(value.number()));
        }
        Ok(())
    }

    fn check_nonzero<T: Voxel + std::fmt::Debug>(values: &[T], rescale: Rescale) -> Result<(), TestCaseError> {
        let ranks = nonzero_ranks::<T>(rescale);
        for &value in values {
            let nonzero = rescale.slope * f64::from(value.number()) + rescale.intercept != 0.0;
            prop_assert_eq!(holds(ranks, value.rank()), nonzero, "{:?} with {:?}", value, rescale);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn ranks_are_the_values_above_a_threshold(
            integers in prop::collection::vec(any::<i16>(), 1..50),
            floats in prop::collection::vec(prop_oneof![-1e3..1e3f32, -1e30..1e30f32, Just(0.0f32), Just(-0.0)], 1..50),
            slope in prop_oneof![Just(0.0), Just(1.0), Just(-1.0), -3.0..3.0f64],
            intercept in prop_oneof![Just(0.0), -2000.0..2000.0f64],
            threshold in prop_oneof![Just(0.0), -3e4..3e4f64, Just(1e31), Just(-1e31)],
        ) {
            check(&integers, slope, intercept, threshold)?;
            check(&floats, slope, intercept, threshold)?;
            // What is not 0: a range that goes round, where there are values on both sides.
            for rescale in [Rescale { slope, intercept }, Rescale { slope, intercept: -slope * f64::from(integers[0]) }] {
                check_nonzero(&integers, rescale)?;
                check_nonzero(&floats, rescale)?;
            }
            // At the threshold itself.
            check(&integers, slope, intercept, slope * f64::from(integers[0]) + intercept)?;
            check(&floats, slope, intercept, slope * f64::from(floats[0]) + intercept)?;
        }

        #[test]
        fn what_counts_comes_in_order(values in prop::collection::vec(-9i16..9, 0..3000), labelled in any::<bool>()) {
            let labels: Vec<u8> = values.iter().map(|v| u8::from(v % 3 == 0)).collect();
            let ranks = ranks_above::<i16>(Rescale { slope: 1.0, intercept: 0.0 }, 1.0);
            let mut found = Vec::new();
            for_kept(&values, labelled.then_some(&labels), ranks, |some| found.extend_from_slice(some));
            let expected: Vec<i16> = values.into_iter().filter(|&v| v > 1 && (!labelled || v % 3 == 0)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
