//! Work cut into slabs of slices, since a kernel sees only so many bytes at once.
//!
//! A pass sees one source slab and writes only the target voxels whose lower corner it owns; slabs overlap by one slice for the
//! upper corners. So every target voxel is written by exactly one pass, whatever the map.

use std::ops::Range;

use crate::gpu::{Gpu, GpuError};

/// Most voxels in one dispatch, so that display drivers with a time limit are not met.
pub(super) const MOST_VOXELS: usize = 1 << 25;

/// Slices that a pass computes cells of, and slices that it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slab {
    pub(super) owned: Range<u32>,
    pub(super) loaded: Range<u32>,
}

impl Slab {
    /// Whether cells of slices `first..=last` are computed here.
    pub(super) fn owns_any(&self, (first, last): (u32, u32)) -> bool {
        self.owned.start <= last && first < self.owned.end
    }
}

/// Source slabs of `slices` slices of `slice_bytes` bytes.
///
/// # Errors
/// [`GpuError::TooLarge`] where two slices exceed a binding.
pub(super) fn overlapping(gpu: &Gpu, what: &str, slices: u32, slice_bytes: u64) -> Result<Vec<Slab>, GpuError> {
    let limit = gpu.max_storage_bytes();
    let needed = slice_bytes * u64::from(slices.min(2)) + 4; // padding to a whole word
    if needed > limit {
        return Err(GpuError::TooLarge { what: what.to_owned(), needed, limit });
    }
    Ok(cut(slices, ((limit - 4) / slice_bytes).min(u64::from(slices)) as u32))
}

fn cut(slices: u32, capacity: u32) -> Vec<Slab> {
    if capacity >= slices {
        return vec![Slab { owned: 0..slices, loaded: 0..slices }];
    }
    let step = capacity - 1;
    (0..slices.div_ceil(step))
        .map(|n| {
            let owned = n * step..((n + 1) * step).min(slices);
            Slab { loaded: owned.start..(owned.end + 1).min(slices), owned }
        })
        .collect()
}

/// Target slices of `dims` that one pass writes, at `voxel_bytes` bytes a voxel and up to `most_voxels` voxels where a slice
/// has fewer.
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice exceeds a binding.
pub(super) fn target_depth(gpu: &Gpu, what: &str, dims: [u32; 3], voxel_bytes: u64, most_voxels: usize) -> Result<usize, GpuError> {
    let limit = gpu.max_storage_bytes();
    let plane = u64::from(dims[0]) * u64::from(dims[1]);
    let needed = plane * voxel_bytes + 4;
    if needed > limit {
        return Err(GpuError::TooLarge { what: what.to_owned(), needed, limit });
    }
    let fitting = (limit - 4) / (plane * voxel_bytes);
    let quick = (most_voxels as u64 / plane).max(1);
    let depth = fitting.min(quick).min(gpu.summary().max_workgroups_per_dimension.into()).min(dims[2].into());
    Ok(depth as usize)
}

/// As many of `most` target slices as need no more bytes than a binding has: `most`, or a half of it, or a half of that.
///
/// # Errors
/// [`GpuError::TooLarge`] where one slice needs more; `what` is that which it needs.
pub(super) fn fitting(gpu: &Gpu, what: &str, most: usize, needed: impl Fn(usize) -> u64) -> Result<usize, GpuError> {
    let limit = gpu.max_storage_bytes();
    let mut slices = most;
    while slices > 1 && needed(slices) > limit {
        slices = slices.div_ceil(2);
    }
    match needed(slices) {
        needed if needed > limit => Err(GpuError::TooLarge { what: what.to_owned(), needed, limit }),
        _ => Ok(slices),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slice_is_owned_once_and_seen_with_its_neighbour() {
        for slices in 1..20u32 {
            for capacity in 2..22 {
                let slabs = cut(slices, capacity);
                let owned: Vec<u32> = slabs.iter().flat_map(|slab| slab.owned.clone()).collect();
                assert_eq!(owned, (0..slices).collect::<Vec<_>>());
                for slab in slabs {
                    assert!(slab.loaded.len() <= capacity as usize && slab.loaded.start == slab.owned.start);
                    assert!(slab.loaded.end == slices || slab.loaded.end > slab.owned.end);
                }
            }
        }
    }
}
