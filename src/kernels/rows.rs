//! Fills a target grid by rows that run along the source's `i` axis, whichever target axis that is, on all threads.

use std::ops::Range;

use bytemuck::Zeroable;
use rayon::prelude::*;

use crate::volume::huge;

/// Rows written together where they run across the target's `i`: one cache line of `f32`.
const TILE: usize = 16;

/// The voxels of a grid, still 0: on huge pages, since their first touch costs more than what is written.
///
/// # Panics
/// Where there is not enough memory.
pub(super) fn zeroed_voxels<T: Zeroable + Copy>(dims: [u32; 3]) -> Vec<T> {
    let voxels = dims.iter().map(|&n| n as usize).product();
    huge::zeroed(voxels).unwrap_or_else(|| panic!("no memory for {voxels} voxels of {} bytes", size_of::<T>()))
}

/// Calls `row(scratch, j, k, range, values)` until every voxel of `out` is filled.
///
/// `along[s]` is the target axis along which source axis `s` runs. `j` and `k` are target indices along `along[1]` and
/// `along[2]`; `range` holds the target indices along `along[0]` of `values`.
pub(super) fn fill_rows<T, S>(
    out: &mut [T],
    dims: [u32; 3],
    along: [usize; 3],
    scratch: impl Fn() -> S + Sync + Send,
    row: impl Fn(&mut S, usize, usize, Range<usize>, &mut [T]) + Sync + Send,
) where
    T: Copy + Default + Send,
{
    let [nx, ny, nz] = dims.map(|n| n as usize);
    let plane = nx * ny;
    assert_eq!(out.len(), plane * nz, "one value a voxel");
    // Rows along k need depth to be worth their while.
    let depth = if along[0] == 2 { nz.div_ceil(2 * rayon::current_num_threads()).max(TILE) } else { 1 };
    out.par_chunks_mut(plane * depth).enumerate().for_each_init(
        || (scratch(), Vec::new()),
        |(scratch, tile), (n, slab)| {
            let first = n * depth;
            let ranges = [0..nx, 0..ny, first..first + slab.len() / plane];
            if along[0] == 0 {
                for (r, values) in slab.chunks_mut(nx).enumerate() {
                    let voxel = [0, r % ny, first + r / ny];
                    row(scratch, voxel[along[1]], voxel[along[2]], 0..nx, values);
                }
                return;
            }
            let strides = [1, nx, plane];
            let across = if along[1] == 0 { 1 } else { 2 }; // the source axis along the target's i
            let other = 3 - across;
            let range = ranges[along[0]].clone();
            tile.resize(TILE * range.len(), T::default());
            for (o, outer) in ranges[along[other]].clone().enumerate() {
                for start in (0..nx).step_by(TILE) {
                    let width = TILE.min(nx - start);
                    for (t, values) in tile.chunks_mut(range.len()).take(width).enumerate() {
                        let mut index = [0; 3];
                        index[across] = start + t;
                        index[other] = outer;
                        row(scratch, index[1], index[2], range.clone(), values);
                    }
                    for n in 0..range.len() {
                        let at = n * strides[along[0]] + o * strides[along[other]] + start;
                        for (t, value) in slab[at..at + width].iter_mut().enumerate() {
                            *value = tile[t * range.len() + n];
                        }
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voxel_is_filled_whatever_the_order() {
        let dims = [19, 5, 37];
        for along in [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut out = vec![[usize::MAX; 3]; 19 * 5 * 37];
            fill_rows(
                &mut out,
                dims,
                along,
                || (),
                |(), j, k, range, values| {
                    for (i, value) in range.zip(values) {
                        value[along[0]] = i;
                        value[along[1]] = j;
                        value[along[2]] = k;
                    }
                },
            );
            for (n, voxel) in out.iter().enumerate() {
                assert_eq!(*voxel, [n % 19, n / 19 % 5, n / (19 * 5)], "{along:?}");
            }
        }
    }
}
