//! Regions of a label map, labels or components, as runs along i: what diameters, axes, surfaces and percentiles of many regions are
//! computed from. Work after the runs are found depends on the number of runs, not voxels.

use rayon::prelude::*;

use super::components::{Component, ComponentRuns, for_each_run, voxel_count};
use crate::volume::Volume;

/// Voxels `start..end` of row (j, k).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The row.
    pub j: u32,
    /// The slice.
    pub k: u32,
    /// First voxel.
    pub start: u32,
    /// One past the last voxel.
    pub end: u32,
}

impl Run {
    /// Number of voxels.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Its voxels of a volume.
    pub(super) fn of<'a, T>(&self, volume: &'a Volume<T>) -> &'a [T] {
        let row = self.j as usize * volume.grid().dims()[0] as usize;
        &volume.slice(self.k as usize)[row + self.start as usize..][..self.len()]
    }
}

/// The runs of some regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionRuns {
    /// That of each region.
    labels: Vec<u8>,
    /// Those of region n are `starts[n]..starts[n + 1]`, in memory order.
    starts: Vec<usize>,
    runs: Vec<Run>,
}

impl RegionRuns {
    /// The labels in `asked`, each a region, in that order; one that does not occur has no runs. `dims` = (columns, rows, slices), `i` fastest.
    ///
    /// # Panics
    /// Where `labels` has another length than `dims` says, or a label is asked for twice: broken promises of the caller.
    pub fn of_labels(labels: &[u8], dims: [u32; 3], asked: &[u8]) -> Self {
        assert_eq!(labels.len(), voxel_count(dims), "one label a voxel");
        let mut region_of = [usize::MAX; 256];
        for (n, &label) in asked.iter().enumerate() {
            assert_eq!(region_of[usize::from(label)], usize::MAX, "label {label} is asked for once");
            region_of[usize::from(label)] = n;
        }
        let [columns, rows] = [dims[0] as usize, dims[1] as usize];
        let slab_rows = (rows * dims[2] as usize).div_ceil(8 * rayon::current_num_threads()).max(1);
        let slabs: Vec<Vec<Vec<Run>>> = labels
            .par_chunks((slab_rows * columns).max(1))
            .enumerate()
            .map(|(slab, part)| {
                let mut regions = vec![Vec::new(); asked.len()];
                for (r, row) in part.chunks_exact(columns).enumerate() {
                    let row_of_all = slab * slab_rows + r;
                    let [j, k] = [row_of_all % rows, row_of_all / rows].map(|n| n as u32);
                    for_each_run(row, |start, end, label| {
                        if let Some(region) = regions.get_mut(region_of[usize::from(label)]) {
                            region.push(Run { j, k, start: start as u32, end: end as u32 });
                        }
                    });
                }
                regions
            })
            .collect();
        let mut all =
            Self { labels: asked.to_vec(), starts: vec![0], runs: Vec::with_capacity(slabs.iter().flatten().map(Vec::len).sum()) };
        for n in 0..asked.len() {
            slabs.iter().for_each(|slab| all.runs.extend_from_slice(&slab[n]));
            all.starts.push(all.runs.len());
        }
        all
    }

    /// The components, each a region: number n is region n - 1.
    pub fn of_components(components: &ComponentRuns) -> Self {
        Self::of_some_components(components, |_| true)
    }

    /// [`Self::of_components`], where those that are not `wanted` have no runs.
    pub fn of_some_components(components: &ComponentRuns, wanted: impl Fn(&Component) -> bool) -> Self {
        let wanted: Vec<bool> = components.components().iter().map(wanted).collect();
        let mut starts = vec![0; components.components().len() + 1];
        components.for_each_numbered(|_, number| starts[number as usize] += usize::from(wanted[number as usize - 1]));
        for n in 1..starts.len() {
            starts[n] += starts[n - 1];
        }
        let mut next = starts.clone();
        let mut runs = vec![Run { j: 0, k: 0, start: 0, end: 0 }; starts[starts.len() - 1]];
        components.for_each_numbered(|run, number| {
            if wanted[number as usize - 1] {
                let at = &mut next[number as usize - 1];
                runs[*at] = run;
                *at += 1;
            }
        });
        Self { labels: components.components().iter().map(|component| component.label).collect(), starts, runs }
    }

    /// The label of each region.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The runs of each region, in memory order.
    pub fn regions(&self) -> impl IndexedParallelIterator<Item = &[Run]> {
        self.starts.par_windows(2).map(|ends| &self.runs[ends[0]..ends[1]])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::components::tests::{any_connectivity, any_labels};
    use super::*;

    /// Which region each voxel is of: 0 none, n + 1 region n.
    fn painted(regions: &RegionRuns, dims: [u32; 3]) -> Vec<usize> {
        let mut painted = vec![0; voxel_count(dims)];
        for (n, ends) in regions.starts.windows(2).enumerate() {
            let own = &regions.runs[ends[0]..ends[1]];
            assert!(own.is_sorted_by_key(|run| (run.k, run.j, run.start)), "runs are in memory order");
            for Run { j, k, start, end } in own {
                let row = (j + k * dims[1]) as usize * dims[0] as usize;
                painted[row + *start as usize..row + *end as usize].iter_mut().for_each(|voxel| *voxel += n + 1);
            }
        }
        painted
    }

    proptest! {
        #[test]
        fn runs_cover_the_regions((dims, labels) in any_labels(), connectivity in any_connectivity()) {
            let asked = [3, 0, 1, 200];
            let expected: Vec<usize> =
                labels.iter().map(|label| asked.iter().position(|asked| asked == label).map_or(0, |n| n + 1)).collect();
            prop_assert_eq!(painted(&RegionRuns::of_labels(&labels, dims, &asked), dims), expected);
            let components = ComponentRuns::of(&labels, dims, connectivity);
            let regions = RegionRuns::of_components(&components);
            let numbers: Vec<usize> = components.numbers().iter().map(|&number| number as usize).collect();
            prop_assert_eq!(&painted(&regions, dims), &numbers);
            prop_assert!(regions.labels().iter().zip(components.components()).all(|(label, component)| *label == component.label));
            let of_three = RegionRuns::of_some_components(&components, |component| component.label == 3);
            let numbers: Vec<usize> = numbers.iter().zip(&labels).map(|(&number, &label)| if label == 3 { number } else { 0 }).collect();
            prop_assert_eq!(painted(&of_three, dims), numbers);
        }
    }
}
