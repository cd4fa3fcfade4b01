//! A volume as sets of rows, for kernels that work along one axis in place, on all threads.

/// Rows (along i) that follow one another along `axis`: 1 is j, with a set for each slice; 2 is k, with a set for each row of a slice.
///
/// # Panics
/// Where `values` has another length than `dims` says, or `axis` is another one.
pub(super) fn row_sets<T>(values: &mut [T], dims: [u32; 3], axis: usize) -> Vec<Vec<&mut [T]>> {
    let [nx, ny, nz] = dims.map(|n| n as usize);
    assert_eq!(values.len(), nx * ny * nz, "one value a voxel");
    let mut rows = values.chunks_exact_mut(nx);
    match axis {
        1 => (0..nz).map(|_| rows.by_ref().take(ny).collect()).collect(),
        2 => {
            let mut sets: Vec<Vec<&mut [T]>> = (0..ny).map(|_| Vec::with_capacity(nz)).collect();
            rows.enumerate().for_each(|(n, row)| sets[n % ny].push(row));
            sets
        }
        _ => unreachable!("rows run along i"),
    }
}

/// Threads along x, and workgroups, of a dispatch of one thread a voxel that may need a second dimension.
pub(super) fn groups_of(gpu: &crate::gpu::Gpu, threads: usize, threads_a_group: u32) -> (u32, [u32; 3]) {
    let groups = (threads as u64).div_ceil(threads_a_group.into());
    let across = groups.min(gpu.summary().max_workgroups_per_dimension.into());
    (across as u32 * threads_a_group, [across as u32, groups.div_ceil(across) as u32, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_set_follow_each_other() {
        let mut values: Vec<usize> = (0..3 * 4 * 5).collect();
        for (axis, sets, rows, step) in [(1, 5, 4, 3), (2, 4, 5, 12)] {
            let found = row_sets(&mut values, [3, 4, 5], axis);
            assert_eq!(found.len(), sets);
            for set in found {
                assert_eq!(set.len(), rows);
                assert!(set.windows(2).all(|pair| pair[1][0] == pair[0][0] + step && pair[0].len() == 3));
            }
        }
    }
}
