//! Which voxels of an image count.
//!
//! A threshold is held against physical values in `f64`, exactly. Both implementations meet it as a range of ranks for each slice,
//! so they choose the same voxels.

use super::simd::wide;
use super::slabs;
use super::voxel::Voxel;
use crate::gpu::{Buffer, Gpu, GpuError};
use crate::volume::{ImageVolume, LabelMap, Rescale, Volume};

/// Which voxels of an image count.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// Every voxel.
    All,
    /// Those with a label other than 0, on a grid of the same dimensions.
    Labelled(&'a LabelMap),
    /// Those whose physical value is above this one.
    Above(f64),
}

/// Ranks from the first to the second, both included; none where the first is larger.
pub(super) type Ranks = [u32; 2];

pub(super) const ALL_RANKS: Ranks = [0, u32::MAX];
const NO_RANKS: Ranks = [1, 0];

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
        let Self::Above(threshold) = *self else { return vec![ALL_RANKS; rescale.len()] };
        rescale.iter().map(|rescale| ranks_above::<T>(*rescale, threshold)).collect()
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
    (rank >= low) & (rank <= high)
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
