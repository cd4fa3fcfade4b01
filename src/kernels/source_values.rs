//! What source voxels are before they are interpolated: converted where they are used, clipped and masked; and the range of them.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::lattice::Interpolation;
use super::mask::{ALL_RANKS, Mask, NO_RANKS};
use super::resample::{Background, Resample, clip};
use super::simd::wide;
use super::voxel::Voxel;
use crate::volume::ImageVolume;

/// Value from stored value in one source slice: `slope * (stored - pivot) + offset`, or 0.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SourceScale {
    /// Output a stored unit.
    pub slope: f32,
    /// Output at the pivot.
    pub offset: f32,
    /// The stored value nearest to output 0.
    pub pivot: f32,
    /// Lowest stored value that does not become 0.
    pub least_kept: f32,
    /// Highest stored value that does not become 0.
    pub greatest_kept: f32,
}

/// What source voxels are before they are interpolated.
pub(super) struct Source<'a, T> {
    stored: &'a [T],
    dims: [usize; 3],
    /// Those that there are, along each axis.
    kept: [Range<usize>; 3],
    pub(super) scales: Vec<SourceScale>,
    /// Lowest and highest value.
    pub(super) ends: [f32; 2],
    /// Whether some become 0 by their value.
    masked: bool,
    /// Those of label 0 become 0.
    pub(super) labels: Option<&'a [u8]>,
}

/// Lowest and highest output: of all, or of each source plane across an axis.
pub(super) struct Limits {
    pub(super) across: Option<usize>,
    pub(super) ends: Vec<[f32; 2]>,
}

pub(super) const OPEN: [f32; 2] = [f32::MIN, f32::MAX];

impl<'a, T: Voxel> Source<'a, T> {
    pub(super) fn new(image: &ImageVolume, stored: &'a [T], p: &'a Resample) -> Self {
        let (mask, labels) = match &p.background {
            Some(Background::NotAbove(value)) => (Mask::Above(*value), None),
            Some(Background::Unlabelled(labels)) => {
                assert_eq!(labels.grid().dims(), image.grid().dims(), "labels and image have the same voxels");
                (Mask::All, Some(labels.voxels()))
            }
            None => (Mask::All, None),
        };
        let kept = mask.ranks::<T>(&image.rescale);
        let scale = |(scale, ranks): (super::SliceScale, [u32; 2])| {
            let [least_kept, greatest_kept] = match ranks {
                ALL_RANKS => OPEN,
                NO_RANKS => [f32::MAX, f32::MIN],
                ranks => ranks.map(|rank| T::of_rank(rank) as f32),
            };
            SourceScale { slope: scale.slope, offset: scale.offset, pivot: scale.pivot, least_kept, greatest_kept }
        };
        let dims = image.grid().dims();
        let [low, high] = p.bounds(dims);
        Self {
            stored,
            dims: dims.map(|n| n as usize),
            kept: std::array::from_fn(|s| low[s] as usize..high[s] as usize + 1),
            scales: p.slice_scales::<T>(image).into_iter().zip(kept).map(scale).collect(),
            ends: if p.values_first { p.limits() } else { OPEN },
            masked: matches!(p.background, Some(Background::NotAbove(_))),
            labels,
        }
    }

    /// Values of row (j, k) from `start` on.
    pub(super) fn row(&self, values: &mut [f32], start: usize, j: usize, k: usize) {
        let [nx, ny, _] = self.dims;
        let first = (k * ny + j) * nx + start;
        let stored = &self.stored[first..][..values.len()];
        convert(values, stored, self.scales[k], self.ends);
        if self.masked {
            mask(values, stored, self.scales[k]);
        }
        if let Some(labels) = self.labels {
            mask_unlabelled(values, &labels[first..]);
        }
    }

    /// What a spline is kept within: the range of the values, of all or of each plane across an axis.
    fn range(&self, across: Option<usize>) -> Vec<[f32; 2]> {
        let [_, rows, slices] = self.kept.clone();
        let all_wider = |mut a: Vec<[f32; 2]>, b: Vec<[f32; 2]>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = wider(*a, b));
            a
        };
        match across {
            // Planes beyond the box are asked for by no target voxel.
            Some(2) => {
                let extent = |k| if slices.contains(&k) { self.extent(k, rows.clone()) } else { OPEN };
                (0..self.dims[2]).into_par_iter().map(extent).collect()
            }
            Some(1) => {
                let extent = |k, j| if rows.contains(&j) { self.extent(k, j..j + 1) } else { OPEN };
                let of_slice = |k| (0..self.dims[1]).map(|j| extent(k, j)).collect();
                slices.into_par_iter().map(of_slice).reduce_with(all_wider).expect("no axis is empty")
            }
            Some(_) => slices.into_par_iter().map(|k| self.columns(k, rows.clone())).reduce_with(all_wider).expect("no axis is empty"),
            None => {
                // Some slices at a time: most images meet both ends of a clip soon.
                let mut range = [f32::MAX, f32::MIN];
                let mut slice = slices.start;
                while slice < slices.end && range != self.ends {
                    let end = (slice + 2 * rayon::current_num_threads()).min(slices.end);
                    let some = (slice..end).into_par_iter().map(|k| self.extent(k, rows.clone()));
                    range = some.reduce(|| range, wider);
                    slice = end;
                }
                vec![range]
            }
        }
    }

    /// The range of some rows of a slice.
    fn extent(&self, k: usize, rows: Range<usize>) -> [f32; 2] {
        let columns = self.kept[0].clone();
        if self.masked || self.labels.is_some() {
            return self.columns(k, rows)[columns].iter().copied().reduce(wider).expect("no axis is empty");
        }
        // Values rise or fall with the stored ones.
        let [nx, ny, _] = self.dims;
        let pieces: Vec<Range<usize>> = if columns.len() == nx {
            std::iter::once((k * ny + rows.start) * nx..(k * ny + rows.end) * nx).collect()
        } else {
            rows.map(|j| (k * ny + j) * nx).map(|row| row + columns.start..row + columns.end).collect()
        };
        let found: Vec<T> = pieces.into_iter().flat_map(|piece| stored_extent(&self.stored[piece])).collect();
        let mut ends = [0.0; 2];
        convert(&mut ends, &stored_extent(&found), self.scales[k], self.ends);
        [ends[0].min(ends[1]), ends[0].max(ends[1])]
    }

    /// The range of each column of some rows of a slice.
    fn columns(&self, k: usize, rows: Range<usize>) -> Vec<[f32; 2]> {
        let nx = self.dims[0];
        let (mut low, mut high, mut values) = (vec![f32::MAX; nx], vec![f32::MIN; nx], vec![0.0; nx]);
        for j in rows {
            self.row(&mut values, 0, j, k);
            widen(&mut low, &mut high, &values);
        }
        low.into_iter().zip(high).map(|(low, high)| [low, high]).collect()
    }

    pub(super) fn limits(&self, p: &Resample) -> Limits {
        // Weights that are not negative keep values between those that they weigh.
        match p.values_first && p.interpolation == Interpolation::Cubic {
            true => Limits { across: p.nearest_along, ends: self.range(p.nearest_along) },
            false => Limits { across: None, ends: vec![p.limits()] },
        }
    }
}

wide! {
    fn convert<T: Voxel>(values: &mut [f32], stored: &[T], scale: SourceScale, ends: [f32; 2]) {
        for (value, stored) in values.iter_mut().zip(stored) {
            *value = clip(scale.slope * (stored.number() - scale.pivot) + scale.offset, ends);
        }
    }
}

wide! {
    fn mask<T: Voxel>(values: &mut [f32], stored: &[T], scale: SourceScale) {
        for (value, stored) in values.iter_mut().zip(stored) {
            let kept = (stored.number() >= scale.least_kept) & (stored.number() <= scale.greatest_kept);
            *value = if kept { *value } else { 0.0 };
        }
    }
}

wide! {
    fn mask_unlabelled(values: &mut [f32], labels: &[u8]) {
        for (value, &label) in values.iter_mut().zip(labels) {
            *value = if label == 0 { 0.0 } else { *value };
        }
    }
}

/// The range of two ranges.
fn wider(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

wide! {
    /// The least and the greatest of some values.
    fn stored_extent<T: Voxel>(stored: &[T]) -> [T; 2] {
        const SIDE_BY_SIDE: usize = 32; // in registers
        let lower = |a: T, b: T| if b < a { b } else { a };
        let higher = |a: T, b: T| if b > a { b } else { a };
        let (pieces, rest) = stored.as_chunks::<SIDE_BY_SIDE>();
        let (mut low, mut high) = ([stored[0]; SIDE_BY_SIDE], [stored[0]; SIDE_BY_SIDE]);
        for piece in pieces {
            for lane in 0..SIDE_BY_SIDE {
                low[lane] = lower(low[lane], piece[lane]);
                high[lane] = higher(high[lane], piece[lane]);
            }
        }
        [low.into_iter().chain(rest.iter().copied()).fold(stored[0], lower), high.into_iter().chain(rest.iter().copied()).fold(stored[0], higher)]
    }
}

wide! {
    fn widen(low: &mut [f32], high: &mut [f32], values: &[f32]) {
        for ((low, high), &value) in low.iter_mut().zip(high).zip(values) {
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
    }
}
