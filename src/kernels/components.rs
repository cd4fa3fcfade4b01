//! Connected components of a label map: stretches of one label along i ("runs"), joined by union-find.
//!
//! Only voxels of equal label connect; label 0 is background. Components are numbered from 1 by their first voxel in memory order,
//! which is also what `scipy.ndimage.label` does with a mask. Work after the runs are found depends on the number of runs, not voxels:
//! [`ComponentRuns`] answers sizes, boxes, removal and keep-largest without writing a number a voxel.
//! Twin: `components_gpu.rs`.

use rayon::prelude::*;

use super::regions;

/// Which neighbours touch: faces; faces and edges; faces, edges and corners. On one slice: 4, 8 and 8 neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connectivity {
    /// 6 neighbours, across faces.
    Six,
    /// 18 neighbours, across faces and edges.
    Eighteen,
    /// 26 neighbours, across faces, edges and corners.
    TwentySix,
}

impl Connectivity {
    /// Along how many axes the index of a neighbour may differ.
    pub(super) fn most_axes(self) -> u32 {
        match self {
            Self::Six => 1,
            Self::Eighteen => 2,
            Self::TwentySix => 3,
        }
    }

    /// Rows that come before row (j, k) and touch it: (offset in j, offset in k, how far along i a run reaches past its ends).
    fn earlier_rows(self) -> &'static [(isize, isize, u32)] {
        match self {
            Self::Six => &[(-1, 0, 0), (0, -1, 0)],
            Self::Eighteen => &[(-1, 0, 1), (0, -1, 1), (-1, -1, 0), (1, -1, 0)],
            Self::TwentySix => &[(-1, 0, 1), (0, -1, 1), (-1, -1, 1), (1, -1, 1)],
        }
    }
}

/// A component number for every voxel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// One a voxel, in the order of the label map: 0 is background, components count from 1 by their first voxel in memory order.
    pub numbers: Vec<u32>,
    /// Number of components: the largest number.
    pub count: u32,
}

/// What one component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// The label all its voxels have.
    pub label: u8,
    /// Number of voxels.
    pub voxels: u64,
}

/// Where one component lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Smallest i, j, k of its voxels.
    pub first: [u32; 3],
    /// Largest i, j, k of its voxels: the box includes both ends.
    pub last: [u32; 3],
    /// Sums of i, j, k over its voxels; divided by the number of voxels, the centroid.
    pub index_sums: [u64; 3],
}

/// The components of a label map as runs along i: what sizes, removal and keep-largest need.
#[derive(Debug, Clone)]
pub struct ComponentRuns {
    dims: [u32; 3],
    slab_rows: usize,
    slabs: Vec<Slab>,
    components: Vec<Component>,
}

/// Voxels `start..end` of one row have one label.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u32,
    end: u32,
    label: u8,
}

/// The runs of a range of consecutive rows (row `j + k * rows_a_slice`).
#[derive(Debug, Clone)]
struct Slab {
    first_row: usize,
    /// Runs of row `first_row + r` are `row_starts[r]..row_starts[r + 1]`.
    row_starts: Vec<u32>,
    runs: Vec<Run>,
    /// One a run: a number within the slab while it is built, the component number once all slabs are joined.
    numbers: Vec<u32>,
    /// Components within the slab, by first run; emptied by the join.
    components: Vec<Component>,
}

/// Component numbers of `labels`, `dims` = (columns, rows, slices), `i` fastest.
///
/// # Panics
/// Where `labels` has another length than `dims` says, or 2^32 - 1 or more runs: broken promises of the caller.
pub fn components_cpu(labels: &[u8], dims: [u32; 3], connectivity: Connectivity) -> Components {
    let runs = ComponentRuns::of(labels, dims, connectivity);
    Components { numbers: runs.numbers(), count: runs.components.len() as u32 }
}

/// Sets components of fewer than `least_voxels` voxels to background; how many it removed.
///
/// # Panics
/// As [`components_cpu`].
pub fn remove_small_cpu(labels: &mut [u8], dims: [u32; 3], connectivity: Connectivity, least_voxels: u64) -> usize {
    let runs = ComponentRuns::of(labels, dims, connectivity);
    runs.retain(labels, |_, component| component.voxels >= least_voxels)
}

/// Sets all but the largest component of each label to background; of equally large ones the first in memory order stays.
/// How many components it removed.
///
/// # Panics
/// As [`components_cpu`].
pub fn keep_largest_cpu(labels: &mut [u8], dims: [u32; 3], connectivity: Connectivity) -> usize {
    let runs = ComponentRuns::of(labels, dims, connectivity);
    let largest = runs.largest();
    runs.retain(labels, |number, component| largest[usize::from(component.label)] == number)
}

impl ComponentRuns {
    /// Finds the components of `labels`, `dims` = (columns, rows, slices), `i` fastest. Uses all cores.
    ///
    /// # Panics
    /// As [`components_cpu`].
    pub fn of(labels: &[u8], dims: [u32; 3], connectivity: Connectivity) -> Self {
        let rows = dims[1] as usize * dims[2] as usize;
        let slabs_wanted = 4 * rayon::current_num_threads();
        // Whole slices where there are enough of them: joining slabs looks at one slice of rows for each.
        let slab_rows = match dims[2] as usize / slabs_wanted {
            0 => rows.div_ceil(slabs_wanted).max(64),
            slices => slices * dims[1] as usize,
        };
        Self::in_slabs(labels, dims, connectivity, slab_rows)
    }

    fn in_slabs(labels: &[u8], dims: [u32; 3], connectivity: Connectivity, slab_rows: usize) -> Self {
        let rows = dims[1] as usize * dims[2] as usize;
        assert_eq!(labels.len(), dims[0] as usize * rows, "one label a voxel");
        if labels.is_empty() {
            return Self { dims, slab_rows, slabs: Vec::new(), components: Vec::new() };
        }
        let mut slabs: Vec<Slab> = labels
            .par_chunks(slab_rows * dims[0] as usize)
            .enumerate()
            .map(|(n, part)| Slab::of(part, dims, n * slab_rows, connectivity))
            .collect();
        let components = join(&mut slabs, slab_rows, dims[1] as usize, connectivity);
        Self { dims, slab_rows, slabs, components }
    }

    /// All components: number n is at n - 1.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// For each label the number of its largest component (the first of equals), 0 where the label does not occur.
    pub fn largest(&self) -> [u32; 256] {
        let mut largest = [0u32; 256];
        for (number, component) in (1..).zip(&self.components) {
            let best = &mut largest[usize::from(component.label)];
            if *best == 0 || component.voxels > self.components[*best as usize - 1].voxels {
                *best = number;
            }
        }
        largest
    }

    /// Where each component lies: number n is at n - 1.
    pub fn extents(&self) -> Vec<Extent> {
        let nothing = Extent { first: [u32::MAX; 3], last: [0; 3], index_sums: [0; 3] };
        let mut extents = vec![nothing; self.components.len()];
        self.for_each_numbered(|regions::Run { j, k, start, end }, number| {
            let extent = &mut extents[number as usize - 1];
            let voxels = u64::from(end - start);
            let sums = [voxels * (u64::from(start) + u64::from(end) - 1) / 2, voxels * u64::from(j), voxels * u64::from(k)];
            for (axis, (least, most)) in [(start, end - 1), (j, j), (k, k)].into_iter().enumerate() {
                extent.first[axis] = extent.first[axis].min(least);
                extent.last[axis] = extent.last[axis].max(most);
                extent.index_sums[axis] += sums[axis];
            }
        });
        extents
    }

    /// Calls `visit` with each run and its component number, in memory order.
    pub(super) fn for_each_numbered(&self, mut visit: impl FnMut(regions::Run, u32)) {
        for slab in &self.slabs {
            for row in 0..slab.rows() {
                let (row_of_all, rows_a_slice) = (slab.first_row + row, self.dims[1] as usize);
                let [j, k] = [row_of_all % rows_a_slice, row_of_all / rows_a_slice].map(|n| n as u32);
                for n in slab.runs_of(row) {
                    let Run { start, end, .. } = slab.runs[n];
                    visit(regions::Run { j, k, start, end }, slab.numbers[n]);
                }
            }
        }
    }

    /// The component number of every voxel, 0 for background. Most of its time is the operating system's, for new memory.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers = vec![0; voxel_count(self.dims)];
        self.for_each_run(&mut numbers, |voxels, number| voxels.fill(number));
        numbers
    }

    /// [`ComponentRuns::numbers`] into memory that is used again.
    ///
    /// # Panics
    /// Where `numbers` has another length than the label map.
    pub fn numbers_into(&self, numbers: &mut [u32]) {
        assert_eq!(numbers.len(), voxel_count(self.dims), "one number a voxel");
        numbers.par_chunks_mut(1 << 16).for_each(|part| part.fill(0));
        self.for_each_run(numbers, |voxels, number| voxels.fill(number));
    }

    /// Sets the voxels of components that `keeps(number, component)` refuses to background in `labels`, the label map the runs are of;
    /// how many components those were.
    ///
    /// # Panics
    /// Where `labels` has another length than the label map the runs are of.
    pub fn retain(&self, labels: &mut [u8], keeps: impl Fn(u32, &Component) -> bool) -> usize {
        self.relabel(labels, |number, component| if keeps(number, component) { component.label } else { 0 })
    }

    /// Gives the voxels of each component the label `label_of(number, component)` in `labels`, the label map the runs are of; how many
    /// components those are that have another label then.
    ///
    /// # Panics
    /// As [`Self::retain`].
    pub fn relabel(&self, labels: &mut [u8], label_of: impl Fn(u32, &Component) -> u8) -> usize {
        assert_eq!(labels.len(), voxel_count(self.dims), "the label map the runs are of");
        let changed = |(number, component): (u32, &Component)| Some(label_of(number, component)).filter(|&label| label != component.label);
        let changed: Vec<Option<u8>> = (1..).zip(&self.components).map(changed).collect();
        let count = changed.iter().flatten().count();
        if count > 0 {
            self.for_each_run(labels, |voxels, number| {
                if let Some(label) = changed[number as usize - 1] {
                    voxels.fill(label);
                }
            });
        }
        count
    }

    fn for_each_run<T: Send>(&self, voxels: &mut [T], visit: impl Fn(&mut [T], u32) + Sync) {
        let columns = self.dims[0] as usize;
        if voxels.is_empty() {
            return;
        }
        voxels.par_chunks_mut(self.slab_rows * columns).zip(&self.slabs).for_each(|(part, slab)| {
            for (r, row) in part.chunks_exact_mut(columns).enumerate() {
                for n in slab.runs_of(r) {
                    let Run { start, end, .. } = slab.runs[n];
                    visit(&mut row[start as usize..end as usize], slab.numbers[n]);
                }
            }
        });
    }
}

impl Slab {
    /// The rows of `part`, the first of which is row `first_row` of the label map, joined among themselves.
    fn of(part: &[u8], dims: [u32; 3], first_row: usize, connectivity: Connectivity) -> Self {
        let columns = dims[0] as usize;
        let rows_a_slice = dims[1] as usize;
        let mut slab = Self {
            first_row,
            row_starts: Vec::with_capacity(part.len() / columns + 1),
            runs: Vec::new(),
            numbers: Vec::new(),
            components: Vec::new(),
        };
        slab.row_starts.push(0);
        let mut parents: Vec<u32> = Vec::new();
        for (r, row) in part.chunks_exact(columns).enumerate() {
            for_each_run(row, |start, end, label| {
                if label != 0 {
                    slab.runs.push(Run { start: start as u32, end: end as u32, label });
                }
            });
            let (begin, end) = (parents.len(), slab.runs.len());
            slab.row_starts.push(u32::try_from(end).expect("fewer than 2^32 runs"));
            if begin == end {
                continue;
            }
            parents.extend(begin as u32..end as u32);
            for (earlier, reach) in earlier_rows(first_row + r, rows_a_slice, connectivity) {
                if let Some(earlier) = earlier.checked_sub(first_row) {
                    let others = slab.runs_of(earlier);
                    let offset = others.start;
                    touching(&slab.runs[begin..end], &slab.runs[others], reach, |a, b| {
                        unite(&mut parents, (begin + a) as u32, (offset + b) as u32);
                    });
                }
            }
        }
        // Parents come before their children, so one pass in order finds every root's number first.
        for (n, run) in slab.runs.iter().enumerate() {
            let parent = parents[n] as usize;
            if parent == n {
                parents[n] = slab.components.len() as u32;
                slab.components.push(Component { label: run.label, voxels: 0 });
            } else {
                parents[n] = parents[parent];
            }
            slab.components[parents[n] as usize].voxels += u64::from(run.end - run.start);
        }
        slab.numbers = parents;
        slab
    }

    fn rows(&self) -> usize {
        self.row_starts.len() - 1
    }

    fn runs_of(&self, row: usize) -> std::ops::Range<usize> {
        self.row_starts[row] as usize..self.row_starts[row + 1] as usize
    }
}

/// Joins components across slabs, gives every run its final number and returns the components in order.
fn join(slabs: &mut [Slab], slab_rows: usize, rows_a_slice: usize, connectivity: Connectivity) -> Vec<Component> {
    let mut bases = Vec::with_capacity(slabs.len());
    let mut total = 0usize;
    for slab in slabs.iter() {
        bases.push(total as u32);
        total += slab.components.len();
        assert!(total < u32::MAX as usize, "fewer than 2^32 - 1 components");
    }
    let mut parents: Vec<u32> = (0..total as u32).collect();
    for (n, slab) in slabs.iter().enumerate().skip(1) {
        // Only the first slice of rows, and one row more for diagonal neighbours, can touch an earlier slab.
        for row in 0..slab.rows().min(rows_a_slice + 1) {
            let own = slab.runs_of(row);
            for (earlier, reach) in earlier_rows(slab.first_row + row, rows_a_slice, connectivity) {
                if earlier >= slab.first_row || own.is_empty() {
                    continue;
                }
                let m = earlier / slab_rows;
                let other = &slabs[m];
                let others = other.runs_of(earlier - other.first_row);
                touching(&slab.runs[own.clone()], &other.runs[others.clone()], reach, |a, b| {
                    unite(&mut parents, bases[n] + slab.numbers[own.start + a], bases[m] + other.numbers[others.start + b]);
                });
            }
        }
    }
    let mut components: Vec<Component> = Vec::new();
    let found = slabs.iter_mut().flat_map(|slab| std::mem::take(&mut slab.components));
    for (n, component) in found.enumerate() {
        let parent = parents[n] as usize;
        if parent == n {
            components.push(component);
            parents[n] = components.len() as u32;
        } else {
            parents[n] = parents[parent];
            components[parents[n] as usize - 1].voxels += component.voxels;
        }
    }
    slabs.par_iter_mut().zip(bases).for_each(|(slab, base)| {
        for number in &mut slab.numbers {
            *number = parents[(base + *number) as usize];
        }
    });
    components
}

pub(super) fn voxel_count(dims: [u32; 3]) -> usize {
    dims.iter().map(|&d| d as usize).product()
}

/// Rows before `row` that touch it, and how far runs reach there.
fn earlier_rows(row: usize, rows_a_slice: usize, connectivity: Connectivity) -> impl Iterator<Item = (usize, u32)> {
    let (j, k) = ((row % rows_a_slice) as isize, (row / rows_a_slice) as isize);
    connectivity.earlier_rows().iter().filter_map(move |&(dj, dk, reach)| {
        let inside = (0..rows_a_slice as isize).contains(&(j + dj)) && k + dk >= 0;
        inside.then(|| ((k + dk) as usize * rows_a_slice + (j + dj) as usize, reach))
    })
}

/// Calls `touch(a, b)` for runs of two neighbouring rows that have one label and overlap, or come within `reach` of it.
fn touching(row: &[Run], earlier: &[Run], reach: u32, mut touch: impl FnMut(usize, usize)) {
    let mut begin = 0;
    for (a, run) in row.iter().enumerate() {
        while begin < earlier.len() && earlier[begin].end + reach <= run.start {
            begin += 1;
        }
        for (b, other) in earlier[begin..].iter().enumerate() {
            if other.start >= run.end + reach {
                break;
            }
            if other.label == run.label {
                touch(a, begin + b);
            }
        }
    }
}

/// The root of `n`, halving the path to it.
fn root(parents: &mut [u32], mut n: u32) -> u32 {
    loop {
        let parent = parents[n as usize];
        if parent == n {
            return n;
        }
        let above = parents[parent as usize];
        parents[n as usize] = above;
        n = above;
    }
}

/// Joins two sets; the smaller root stays, so that a root is always the first of its set.
pub(super) fn unite(parents: &mut [u32], a: u32, b: u32) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b) as usize] = a.min(b);
}

/// Calls `found(start, end, label)` for every longest stretch of one value in `row`, in order, background included.
pub(crate) fn for_each_run(row: &[u8], mut found: impl FnMut(usize, usize, u8)) {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    if row.is_empty() {
        return;
    }
    let mut start = 0;
    let mut change = |n: usize| {
        found(start, n, row[start]);
        start = n;
    };
    let word = |n: usize| u64::from_le_bytes(*row[n..].first_chunk().expect("eight voxels are left"));
    let mut n = 1;
    while n + 8 <= row.len() {
        // Most of a label map is uniform: look at 64 voxels at once.
        let blocks = row[n..].first_chunk::<64>().zip(row[n - 1..].first_chunk::<64>());
        if blocks.is_some_and(|(here, before)| here.iter().zip(before).fold(0, |any, (a, b)| any | (a ^ b)) == 0) {
            n += 64;
            continue;
        }
        let words = if n + 64 <= row.len() { 8 } else { 1 };
        for at in (n..).step_by(8).take(words) {
            let differs = word(at) ^ word(at - 1);
            let mut bits = (((differs & LOW) + LOW) | differs) & !LOW; // the top bit of each byte that is not zero
            while bits != 0 {
                change(at + bits.trailing_zeros() as usize / 8);
                bits &= bits - 1;
            }
        }
        n += 8 * words;
    }
    for at in n..row.len() {
        if row[at] != row[at - 1] {
            change(at);
        }
    }
    change(row.len());
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gpu::GpuError;
    use crate::kernels::components_gpu::components_gpu;

    /// Bytes of a linear congruential generator, the same in the Python scripts quoted below.
    pub(crate) fn noise(count: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(next).collect()
    }

    /// Flood fill from the first voxel of each component; neighbours by the definition: how many of the three indices differ, by one.
    fn by_definition(labels: &[u8], dims: [u32; 3], connectivity: Connectivity) -> Components {
        let most_axes = match connectivity {
            Connectivity::Six => 1,
            Connectivity::Eighteen => 2,
            Connectivity::TwentySix => 3,
        };
        let [columns, rows, slices] = dims.map(|d| d as isize);
        let mut numbers = vec![0; labels.len()];
        let mut count = 0;
        for seed in 0..labels.len() {
            if labels[seed] == 0 || numbers[seed] != 0 {
                continue;
            }
            count += 1;
            numbers[seed] = count;
            let mut front = vec![seed];
            while let Some(n) = front.pop() {
                let n = n as isize;
                let [i, j, k] = [n % columns, n / columns % rows, n / columns / rows];
                for step in 0..27isize {
                    let [di, dj, dk] = [step % 3 - 1, step / 3 % 3 - 1, step / 9 - 1];
                    let inside = (0..columns).contains(&(i + di)) && (0..rows).contains(&(j + dj)) && (0..slices).contains(&(k + dk));
                    if !inside || di.abs() + dj.abs() + dk.abs() > most_axes {
                        continue;
                    }
                    let m = (i + di + columns * (j + dj + rows * (k + dk))) as usize;
                    if labels[m] == labels[seed] && numbers[m] == 0 {
                        numbers[m] = count;
                        front.push(m);
                    }
                }
            }
        }
        Components { numbers, count }
    }

    pub(crate) fn any_connectivity() -> impl Strategy<Value = Connectivity> {
        prop_oneof![Just(Connectivity::Six), Just(Connectivity::Eighteen), Just(Connectivity::TwentySix)]
    }

    /// Label maps between uniform and noise, one-voxel axes and rows long enough for the word-wise search among them.
    pub(crate) fn any_labels() -> impl Strategy<Value = ([u32; 3], Vec<u8>)> {
        let side = || prop_oneof![Just(1u32), 1u32..10];
        let columns = prop_oneof![3 => side(), 1 => 60u32..150];
        (columns, side(), side(), 1u8..5, 1usize..12).prop_flat_map(|(columns, rows, slices, most, run)| {
            let dims = [columns, rows, slices];
            let voxels = dims.iter().product::<u32>() as usize;
            let stretches = prop::collection::vec((0..=most, 1..=run), voxels);
            stretches.prop_map(move |s| (dims, s.iter().flat_map(|&(label, n)| std::iter::repeat_n(label, n)).take(voxels).collect()))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn components_are_the_flood_fill((dims, labels) in any_labels(), connectivity in any_connectivity(), slab_rows in 1usize..40) {
            let expected = by_definition(&labels, dims, connectivity);
            prop_assert_eq!(&components_cpu(&labels, dims, connectivity), &expected);
            let runs = ComponentRuns::in_slabs(&labels, dims, connectivity, slab_rows);
            prop_assert_eq!(&runs.numbers(), &expected.numbers);
            let mut used = vec![77; labels.len()];
            runs.numbers_into(&mut used);
            prop_assert_eq!(&used, &expected.numbers);
            prop_assert_eq!(runs.components().len(), expected.count as usize);
            for ((number, component), extent) in (1..).zip(runs.components()).zip(runs.extents()) {
                let own: Vec<usize> = (0..labels.len()).filter(|&n| expected.numbers[n] == number).collect();
                prop_assert_eq!(component, &Component { label: labels[own[0]], voxels: own.len() as u64 });
                let [columns, rows] = [dims[0], dims[1]].map(|d| d as usize);
                let axes = [1, columns, columns * rows].map(|stride| own.iter().map(move |&n| n / stride));
                for (axis, (indices, size)) in axes.into_iter().zip(dims).enumerate() {
                    let indices: Vec<usize> = indices.map(|n| n % size as usize).collect();
                    prop_assert_eq!(extent.first[axis] as usize, *indices.iter().min().expect("has voxels"));
                    prop_assert_eq!(extent.last[axis] as usize, *indices.iter().max().expect("has voxels"));
                    prop_assert_eq!(extent.index_sums[axis] as usize, indices.iter().sum::<usize>());
                }
            }
        }

        #[test]
        fn removal_leaves_what_it_says((dims, labels) in any_labels(), connectivity in any_connectivity(), least in 0u64..20) {
            let Components { numbers, count } = by_definition(&labels, dims, connectivity);
            let size = |number: u32| numbers.iter().filter(|&&n| n == number).count() as u64;
            let sizes: Vec<u64> = (0..=count).map(size).collect();
            let label_of = |number: u32| labels[numbers.iter().position(|&n| n == number).expect("every number is used")];

            let mut own = labels.clone();
            let removed = remove_small_cpu(&mut own, dims, connectivity, least);
            prop_assert_eq!(removed, sizes[1..].iter().filter(|&&s| s < least).count());
            let keep = |n: u32| n != 0 && sizes[n as usize] >= least;
            let expected: Vec<u8> = numbers.iter().zip(&labels).map(|(&n, &label)| if keep(n) { label } else { 0 }).collect();
            prop_assert_eq!(own, expected);

            let mut own = labels.clone();
            let runs = ComponentRuns::of(&labels, dims, connectivity);
            let other = |number: u32| if number.is_multiple_of(3) { label_of(number) } else { 100 + (number % 50) as u8 };
            let relabelled = runs.relabel(&mut own, |number, _| other(number));
            prop_assert_eq!(relabelled, (1..=count).filter(|n| !n.is_multiple_of(3)).count());
            let expected: Vec<u8> = numbers.iter().map(|&n| if n == 0 { 0 } else { other(n) }).collect();
            prop_assert_eq!(own, expected);

            let mut own = labels.clone();
            let removed = keep_largest_cpu(&mut own, dims, connectivity);
            let best: Vec<u32> = (1..=4u8)
                .filter_map(|label| (1..=count).filter(|&n| label_of(n) == label).max_by_key(|&n| (sizes[n as usize], std::cmp::Reverse(n))))
                .collect();
            prop_assert_eq!(removed, count as usize - best.len());
            let expected: Vec<u8> = numbers.iter().zip(&labels).map(|(n, &label)| if best.contains(n) { label } else { 0 }).collect();
            prop_assert_eq!(own, expected);
        }

        #[test]
        fn runs_are_the_stretches(row in prop::collection::vec(prop_oneof![9 => Just(0u8), 1 => any::<u8>()], 0..300)) {
            let mut back = Vec::new();
            let mut last = None;
            for_each_run(&row, |start, end, label| {
                assert!(start == back.len() && end > start && last != Some(label), "runs are whole and in order");
                last = Some(label);
                back.resize(end, label);
            });
            prop_assert_eq!(back, row);
        }
    }

    #[test]
    fn gpu_numbers_are_those_of_the_cpu() -> Result<(), GpuError> {
        let Some(mut gpu) = crate::gpu::for_tests() else { return Ok(()) };
        for storage in [gpu.max_storage_bytes(), 6000] {
            gpu.limit_storage(storage); // the largest slice has 1350 voxels: several slabs
            let mut runner =
                proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
            let answer = runner.run(&(any_labels(), any_connectivity()), |((dims, labels), connectivity)| {
                let own = components_gpu(&gpu, &labels, dims, connectivity).map_err(|err| TestCaseError::fail(err.to_string()))?;
                prop_assert_eq!(own, components_cpu(&labels, dims, connectivity));
                Ok(())
            });
            assert!(answer.is_ok(), "{answer:?}");
        }
        // Long runs, a comb and a spiral of one label among noise: many threads that join the same components.
        let dims = [200, 97, 40];
        let mut labels: Vec<u8> = noise(voxel_count(dims), 3).iter().map(|&v| if v < 40 { v % 3 } else { 0 }).collect();
        for (n, label) in labels.iter_mut().enumerate() {
            let (i, j) = (n % 200, n / 200 % 97);
            if i % 4 == 0 || j == 96 || (j % 8 == 3 && i > 100) {
                *label = 3;
            }
        }
        for connectivity in [Connectivity::Six, Connectivity::Eighteen, Connectivity::TwentySix] {
            gpu.limit_storage(1 << 20);
            assert_eq!(components_gpu(&gpu, &labels, dims, connectivity)?, components_cpu(&labels, dims, connectivity));
        }
        gpu.limit_storage(200 * 97 * 4);
        let refused = components_gpu(&gpu, &labels, dims, Connectivity::Six);
        assert!(matches!(refused, Err(GpuError::TooLarge { .. })));
        Ok(())
    }

    #[test]
    fn diagonal_neighbours_of_swapped_labels_both_connect() {
        // Runs that end together: each touches the other row's next run by its corner.
        let labels = [1, 2, 2, 1];
        assert_eq!(components_cpu(&labels, [2, 2, 1], Connectivity::TwentySix), Components { numbers: vec![1, 2, 2, 1], count: 2 });
        assert_eq!(components_cpu(&labels, [2, 2, 1], Connectivity::Six).count, 4);
    }

    #[test]
    fn as_scipy_labels() {
        // With SciPy 1.17.1 and numpy 2.4.6:
        //     def noise(count, seed):
        //         state, out = seed, []
        //         for _ in range(count):
        //             state = (state * 1664525 + 1013904223) % 2**32
        //             out.append(state >> 24)
        //         return np.array(out)
        //     labels = (noise(9 * 7 * 5, 1) // 52 % 4).reshape(5, 7, 9)          # k, j, i
        //     for rank in (1, 2, 3):                                             # 6, 18, 26 neighbours
        //         table = []
        //         for label in (1, 2, 3):
        //             numbers, count = ndimage.label(labels == label, ndimage.generate_binary_structure(3, rank))
        //             sizes = ndimage.sum_labels(labels == label, numbers, range(1, count + 1)).astype(int)
        //             first = [np.flatnonzero(numbers == n)[0] for n in range(1, count + 1)]
        //             table += zip(first, [label] * count, sizes)
        //         print(len(table), [t[1:] for t in sorted(table)], sum((n + 1) * t[0] * t[2] for n, t in enumerate(sorted(table))))
        let labels: Vec<u8> = noise(9 * 7 * 5, 1).iter().map(|v| v / 52 % 4).collect();
        let check = |connectivity, count: usize, weighted: u64, table: &[(u8, u64)]| {
            let runs = ComponentRuns::of(&labels, [9, 7, 5], connectivity);
            let numbers = runs.numbers();
            let own: Vec<(u8, u64)> = runs.components().iter().map(|c| (c.label, c.voxels)).collect();
            assert_eq!((own.len(), &own[..table.len()]), (count, table));
            let first = |number: u32| numbers.iter().position(|&n| n == number).expect("every number is used") as u64;
            let sum: u64 = (1..).zip(&own).map(|(number, &(_, voxels))| u64::from(number) * first(number) * voxels).sum();
            assert_eq!(sum, weighted);
        };
        check(
            Connectivity::Six,
            90,
            1_406_528,
            &[(1, 3), (2, 14), (3, 1), (1, 4), (3, 2), (2, 2), (3, 6), (1, 1), (2, 6), (1, 1), (3, 18)],
        );
        check(Connectivity::Eighteen, 26, 100_477, &[(1, 6), (2, 45), (3, 1), (1, 42), (3, 57), (2, 2), (3, 10), (1, 6), (2, 3), (1, 6)]);
        let corners = [(1, 63), (2, 59), (3, 73), (2, 3), (1, 1), (3, 1), (2, 2), (1, 1), (1, 1), (3, 1), (2, 1), (1, 1)];
        check(Connectivity::TwentySix, 12, 11_686, &corners);
    }
}
