//! Labels where the axes of both grids are parallel: how [`scores_to_labels_cpu`](super::scores_to_labels_cpu) makes them.
//!
//! Scores are read from memory once: a band of rows is followed from slice to slice, and what a slice needs of the one before is still in
//! the second-level cache. Where one channel wins (or ties) at all corners of a cell, it has the whole cell. In the other cells a channel
//! whose highest corner lies below the lowest one of another channel can win nowhere, and is left out; the others are interpolated, 8 network
//! columns and 8 target voxels at a time.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memrchr};
use rayon::prelude::*;

use super::lattice::{AxisTable, Run};
use super::scores_to_labels::{Cells, Rule, Scores, lerp, winners};
use super::spread::{PADDING, Spread};

/// Network columns, or target voxels, that are interpolated together: one vector of AVX2.
const WIDTH: usize = 8;

/// Rows of cells that are followed from slice to slice: with 15 channels of 256 columns they take half a megabyte in two slices.
const BAND: usize = 16;

/// Slabs of target slices for each thread, so that none waits long for the last one. Each slab begins with a network slice that the one
/// before has read as well.
const SLABS_A_THREAD: usize = 4;

/// Of the largest magnitude among the corners of a cell: more than rounding moves two interpolated scores apart (three [`lerp`]s, each off by
/// at most 5 units of 2^-24).
const ROUNDING: f32 = 4e-6;

/// The labels of a target grid, in the order of the network's axes.
pub(super) struct LabelRows<'a> {
    field: &'a Scores<'a>,
    cells: &'a Cells,
    tables: &'a [AxisTable; 3],
    /// Channels, slices, rows of `row_length`.
    scores: Cow<'a, [f32]>,
    /// Columns of a row, of which there are `field.dims[0]`, and zeros where those are fewer than a vector.
    row_length: usize,
    /// `x.lower` and `x.weight`, and zeros to fill the last vector.
    lowers: Vec<u32>,
    weights: Vec<f32>,
    /// The target voxels in the cell of each network column.
    targets: Vec<Range<usize>>,
    /// Network columns that target voxels have as their lower one.
    columns: Range<usize>,
}

/// What one thread keeps from row to row.
#[derive(Default)]
struct Scratch {
    winners: Winners,
    /// The label of each cell of the row.
    row: Vec<u8>,
    lines: Vec<Line>,
    /// Least and greatest score at the four corners of a column, of each channel.
    extremes: Vec<[[f32; WIDTH]; 2]>,
    rivals: Vec<Rival>,
    /// Scores of each rival at the columns at hand.
    columns: Vec<[f32; WIDTH]>,
    groups: Vec<Group>,
    spread: Spread,
}

/// A channel that may win somewhere in the cells at hand.
struct Rival {
    label: u32,
    /// Its scores at 8 columns of the four rows around.
    corners: [[f32; WIDTH]; 4],
}

/// Up to 8 target voxels of a row.
struct Group {
    target: Range<usize>,
    /// Their left and right columns, as lanes of a vector of columns.
    lanes: [[u32; WIDTH]; 2],
    /// Of the right column.
    weights: [f32; WIDTH],
}

/// A target row between four network rows.
struct Line {
    /// Weights along j and k.
    weights: [f32; 2],
    /// Where it starts in the slices that are being filled.
    place: usize,
}

impl<'a> LabelRows<'a> {
    pub(super) fn new(field: &'a Scores<'a>, cells: &'a Cells, tables: &'a [AxisTable; 3]) -> Self {
        let [nx, ..] = field.dims;
        let x = &tables[0];
        let row_length = nx.max(WIDTH);
        let padded = |row: &[f32]| row.iter().copied().chain([0.0; WIDTH]).take(row_length).collect::<Vec<_>>();
        let scores = if nx < WIDTH { field.scores.chunks_exact(nx).flat_map(padded).collect() } else { Cow::Borrowed(field.scores) };
        let mut targets = vec![0..0; nx];
        let runs = x.runs();
        for run in &runs {
            targets[run.lower] = run.target.clone();
        }
        let ends = [&runs[0], &runs[runs.len() - 1]].map(|run| run.lower);
        let columns = ends[0].min(ends[1])..ends[0].max(ends[1]) + 1;
        let lowers = x.lower.iter().copied().chain([0; WIDTH]).collect();
        let weights = x.weight.iter().copied().chain([0.0; WIDTH]).collect();
        Self { field, cells, tables, scores, row_length, lowers, weights, targets, columns }
    }

    /// Fills the target grid.
    pub(super) fn fill(&self, out: &mut [u8]) {
        let [plane, slices] = [self.tables[0].lower.len() * self.tables[1].lower.len(), self.tables[2].lower.len()];
        let depth = slices.div_ceil(SLABS_A_THREAD * rayon::current_num_threads());
        let [mut rows, mut slabs] = [1, 2].map(|axis| self.tables[axis].runs());
        for (axis, runs) in [(1, &mut rows), (2, &mut slabs)] {
            if !self.cells.linear[axis] {
                runs.iter_mut().for_each(|run| run.upper = run.lower);
            }
        }
        out.par_chunks_mut(plane * depth).enumerate().for_each_init(Scratch::default, |scratch, (n, out)| {
            let own = n * depth..n * depth + out.len() / plane;
            for band in rows.chunks(BAND) {
                scratch.winners.begin(band);
                for z in slabs.iter().filter(|run| run.target.start < own.end && own.start < run.target.end) {
                    let target = z.target.start.max(own.start) - own.start..z.target.end.min(own.end) - own.start;
                    let weights = &self.tables[2].weight[own.clone()][target.clone()];
                    scratch.winners.go_to(z, self.field, self.cells.rule);
                    for y in band {
                        self.fill_between(scratch, y, z, weights, &mut out[target.start * plane..target.end * plane]);
                    }
                }
            }
        });
    }

    /// Fills the target rows between four network rows, in slices of `weights`.
    fn fill_between(&self, scratch: &mut Scratch, y: &Run, z: &Run, weights: &[f32], out: &mut [u8]) {
        let [length, rows] = [0, 1].map(|axis| self.tables[axis].lower.len());
        let nx = self.field.dims[0];
        scratch.row.resize(nx + PADDING, 0);
        self.cells.label(&mut scratch.row[..nx], scratch.winners.around(y, z, nx));
        scratch.spread.prepare(&self.tables[0].lower, &(0..length));
        scratch.lines.clear();
        for (k, &of_slice) in weights.iter().enumerate() {
            let of_row = |j: usize| Line { weights: [self.tables[1].weight[j], of_slice], place: (k * rows + j) * length };
            scratch.lines.extend(y.target.clone().map(of_row));
        }
        for line in &scratch.lines {
            scratch.spread.fill(&mut out[line.place..][..length], &scratch.row, &self.tables[0].lower);
        }
        interpolate_mixed(self, scratch, y, z, out);
    }
}

/// Who wins in the rows of a band, in two neighbouring slices.
#[derive(Default)]
struct Winners {
    rows: Range<usize>,
    slices: [(Option<usize>, Vec<u8>); 2],
}

impl Winners {
    /// Takes on the rows around a band.
    fn begin(&mut self, band: &[Run]) {
        let least = band.iter().map(|run| run.lower).min().unwrap_or(0);
        let greatest = band.iter().map(|run| run.upper).max().unwrap_or(0);
        self.rows = least..greatest + 1;
        self.slices.iter_mut().for_each(|(slice, _)| *slice = None);
    }

    /// Has the two slices around a slab of cells.
    fn go_to(&mut self, slab: &Run, field: &Scores<'_>, rule: Rule) {
        if self.slices[1].0 == Some(slab.lower) || self.slices[0].0 == Some(slab.upper) {
            self.slices.swap(0, 1);
        }
        let [nx, ny, _] = field.dims;
        let slices = if slab.lower == slab.upper { 1 } else { 2 };
        for (wanted, (slice, of_slice)) in [slab.lower, slab.upper].into_iter().zip(&mut self.slices).take(slices) {
            if *slice != Some(wanted) {
                of_slice.resize(self.rows.len() * nx, 0);
                winners(field, rule, (wanted * ny + self.rows.start) * nx, of_slice);
                *slice = Some(wanted);
            }
        }
    }

    /// The four rows around a row of cells.
    fn around(&self, y: &Run, z: &Run, nx: usize) -> [&[u8]; 4] {
        let upper = usize::from(z.upper != z.lower);
        [(y.lower, 0), (y.upper, 0), (y.lower, upper), (y.upper, upper)]
            .map(|(j, slice)| &self.slices[slice].1[(j - self.rows.start) * nx..][..nx])
    }
}

/// Overwrites what the mixed cells of a row of cells have in `out`, in each target row between the four network rows.
fn interpolate_mixed(this: &LabelRows<'_>, scratch: &mut Scratch, y: &Run, z: &Run, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn avx2(this: &LabelRows<'_>, scratch: &mut Scratch, y: &Run, z: &Run, out: &mut [u8]) {
            this.interpolate(scratch, y, z, out, |contest, columns, rivals, group| labels_of_avx2(contest, columns, rivals, group));
        }
        // SAFETY: the processor has AVX2, the only requirement of this function.
        #[allow(unsafe_code, reason = "calling a function compiled for more instructions")]
        return unsafe { avx2(this, scratch, y, z, out) };
    }
    this.interpolate(scratch, y, z, out, labels_of);
}

/// The labels of a group's voxels.
fn labels_of(contest: &Contest, columns: &[[f32; WIDTH]], rivals: &[Rival], group: &Group) -> [u8; WIDTH] {
    let Contest { mut best, mut labels, rises } = *contest;
    let Group { lanes: [left, right], weights, .. } = group;
    for (column, rival) in columns.iter().zip(rivals) {
        for n in 0..WIDTH {
            let score = lerp(column[left[n] as usize % WIDTH], column[right[n] as usize % WIDTH], weights[n]);
            let wins = score > best[n];
            labels[n] = if wins { rival.label } else { labels[n] };
            best[n] = if wins && rises { score } else { best[n] };
        }
    }
    labels.map(|label| label as u8)
}

/// The same, to the bit.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn labels_of_avx2(contest: &Contest, columns: &[[f32; WIDTH]], rivals: &[Rival], group: &Group) -> [u8; WIDTH] {
    use std::arch::x86_64::*;

    use bytemuck::cast;
    const LOW_BYTES: [u32; WIDTH] = [0x0c08_0400, 0, 0, 0, 0x0c08_0400, 0, 0, 0];
    let [left, right]: [__m256i; 2] = group.lanes.map(cast);
    let (weights, mut best, mut labels): (__m256, __m256, __m256) = (cast(group.weights), cast(contest.best), cast(contest.labels));
    let rises = cast([if contest.rises { u32::MAX } else { 0 }; WIDTH]);
    for (column, rival) in columns.iter().zip(rivals) {
        let column = cast(*column);
        let (a, b) = (_mm256_permutevar8x32_ps(column, left), _mm256_permutevar8x32_ps(column, right));
        let score = _mm256_add_ps(a, _mm256_mul_ps(weights, _mm256_sub_ps(b, a)));
        let wins = _mm256_cmp_ps::<_CMP_GT_OQ>(score, best);
        labels = _mm256_blendv_ps(labels, cast([rival.label; WIDTH]), wins);
        best = _mm256_blendv_ps(best, score, _mm256_and_ps(wins, rises));
    }
    let bytes: [u32; WIDTH] = cast(_mm256_shuffle_epi8(cast(labels), cast(LOW_BYTES)));
    cast([bytes[0], bytes[4]])
}

impl LabelRows<'_> {
    /// With [`labels_of`] or what does the same.
    #[inline(always)]
    fn interpolate(
        &self,
        scratch: &mut Scratch,
        y: &Run,
        z: &Run,
        out: &mut [u8],
        labels_of: impl Fn(&Contest, &[[f32; WIDTH]], &[Rival], &Group) -> [u8; WIDTH],
    ) {
        let Scratch { row, lines, extremes, rivals, columns, groups, .. } = scratch;
        let [nx, ny, _] = self.field.dims;
        let starts = [(y.lower, z.lower), (y.upper, z.lower), (y.lower, z.upper), (y.upper, z.upper)];
        let mut first = self.columns.start;
        while let Some(found) = memchr(self.cells.mixed, &row[first..self.columns.end]) {
            first += found;
            let at = first.min(self.row_length - WIDTH);
            let next = if at + WIDTH >= nx { nx } else { at + WIDTH - 1 }; // the last column is the upper one of a cell
            let last = memrchr(self.cells.mixed, &row[first..next.min(self.columns.end)]).map_or(first, |last| first + last);
            self.find_rivals(starts.map(|(j, k)| (k * ny + j) * self.row_length + at), first - at..last + 1 - at, extremes, rivals);
            columns.resize(rivals.len(), [0.0; WIDTH]);
            self.find_groups(first..last + 1, at, groups);
            let contest = Contest::new(self.cells, self.field.channels);
            for Line { weights: [wj, wk], place } in lines.iter() {
                for (values, rival) in columns.iter_mut().zip(&*rivals) {
                    let [a, b, c, d] = rival.corners;
                    *values = std::array::from_fn(|n| lerp(lerp(a[n], b[n], *wj), lerp(c[n], d[n], *wj), *wk));
                }
                for group in groups.iter() {
                    let (target, labels) = (&group.target, labels_of(&contest, columns, rivals, group));
                    let out = &mut out[place + target.start..place + target.end];
                    match out.first_chunk_mut() {
                        Some(out) => *out = labels,
                        None => out.copy_from_slice(&labels[..out.len()]),
                    }
                }
            }
            first = last + 1;
        }
    }

    /// The target voxels in these cells, by vectors, where column `at` is lane 0. The last vector may hold some of the one before again.
    #[inline(always)]
    fn find_groups(&self, cells: Range<usize>, at: usize, groups: &mut Vec<Group>) {
        groups.clear();
        let filled = self.targets[cells].iter().filter(|target| !target.is_empty());
        let Some(target) = filled.cloned().reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else { return };
        let right = u32::from(self.cells.linear[0]);
        for start in target.clone().step_by(WIDTH) {
            let start = if target.len() < WIDTH { start } else { start.min(target.end - WIDTH) };
            let left: [u32; WIDTH] = std::array::from_fn(|n| self.lowers[start + n].wrapping_sub(at as u32).min(WIDTH as u32 - 1));
            let lanes = [left, left.map(|lane| (lane + right).min(WIDTH as u32 - 1))];
            let weights = self.weights[start..][..WIDTH].try_into().expect("padded");
            groups.push(Group { target: start..target.end.min(start + WIDTH), lanes, weights });
        }
    }
}

impl LabelRows<'_> {
    /// The channels that may win somewhere in cells `open`, out of 8 whose rows start at `starts` in each channel.
    #[inline(always)]
    fn find_rivals(&self, starts: [usize; 4], open: Range<usize>, extremes: &mut Vec<[[f32; WIDTH]; 2]>, rivals: &mut Vec<Rival>) {
        let [_, ny, nz] = self.field.dims;
        let channels = self.scores.chunks_exact(self.row_length * ny * nz);
        let [a, b, c, d] = starts;
        let vector = |values: &[f32]| -> [f32; WIDTH] { values[..WIDTH].try_into().expect("as many") };
        let corners_of = |channel: &[f32]| [vector(&channel[a..]), vector(&channel[b..]), vector(&channel[c..]), vector(&channel[d..])];
        // What a channel must reach at a corner of each cell.
        let (mut bar, rises) = match self.cells.rule {
            Rule::Highest => ([f32::NEG_INFINITY; WIDTH], true),
            Rule::LastAbove(above) => ([above; WIDTH], false),
        };
        let mut largest = [0.0f32; WIDTH];
        extremes.resize(self.field.channels, [[0.0; WIDTH]; 2]);
        for ([least, greatest], channel) in extremes.iter_mut().zip(channels.clone()) {
            let [a, b, c, d] = corners_of(channel);
            let (low, high) = (
                std::array::from_fn(|n| less(less(a[n], b[n]), less(c[n], d[n]))),
                std::array::from_fn(|n| more(more(a[n], b[n]), more(c[n], d[n]))),
            );
            largest = std::array::from_fn(|n: usize| more(largest[n], more(f32::abs(low[n]), f32::abs(high[n]))));
            (*least, *greatest) = (low, high);
            if rises {
                let next = next(least);
                bar = std::array::from_fn(|n| more(bar[n], less(least[n], next[n])));
            }
        }
        let beside = next(&largest);
        let bar: [f32; WIDTH] = std::array::from_fn(|n| {
            let slack = less(more(largest[n], beside[n]) * ROUNDING, f32::MAX);
            if open.contains(&n) { bar[n] - slack } else { f32::INFINITY }
        });
        rivals.clear();
        for ((&label, [_, greatest]), channel) in self.cells.label_of_channel.iter().zip(&*extremes).zip(channels) {
            let next = next(greatest);
            let mut may_win = false;
            for n in 0..WIDTH {
                may_win |= more(greatest[n], next[n]) >= bar[n];
            }
            if may_win {
                rivals.push(Rival { label: label.into(), corners: corners_of(channel) });
            }
        }
    }
}

/// What each column's right neighbour has; the last one itself.
#[inline(always)]
fn next(columns: &[f32; WIDTH]) -> [f32; WIDTH] {
    let [_, b, c, d, e, f, g, h] = *columns;
    [b, c, d, e, f, g, h, h]
}

#[inline(always)]
fn less(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn more(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Who wins 8 places, as far as channels have been looked at.
#[derive(Clone, Copy)]
struct Contest {
    /// What a score must be above.
    best: [f32; WIDTH],
    labels: [u32; WIDTH],
    /// Whether a winner raises that to its own.
    rises: bool,
}

impl Contest {
    fn new(cells: &Cells, channels: usize) -> Self {
        match cells.rule {
            Rule::Highest => Self { best: [f32::NEG_INFINITY; WIDTH], labels: [0; WIDTH], rises: true },
            Rule::LastAbove(above) => Self { best: [above; WIDTH], labels: [cells.label_of_channel[channels].into(); WIDTH], rises: false },
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_ways_give_the_same_labels() {
        use super::super::tests::noise;
        use super::*;

        if !std::arch::is_x86_feature_detected!("avx2") {
            return;
        }
        for case in 0..200 {
            let number = |n: usize| noise(1000 * case + n) as f32;
            let columns: Vec<[f32; WIDTH]> = (0..5).map(|c| std::array::from_fn(|n| (number(8 * c + n) * 4.0).round())).collect();
            let rivals: Vec<_> = [0, 7, 200, 254, 3].map(|label| Rival { label, corners: [[0.0; WIDTH]; 4] }).into();
            let left: [u32; WIDTH] = std::array::from_fn(|n| (number(100 + n) * 7.9) as u32);
            let lanes = [left, left.map(|lane| (lane + 1).min(7))];
            let group = Group { target: 0..WIDTH, lanes, weights: std::array::from_fn(|n| number(200 + n)) };
            for (best, rises) in [(f32::NEG_INFINITY, true), (1.5, false)] {
                let contest = Contest { best: [best; WIDTH], labels: [9; WIDTH], rises };
                // SAFETY: the processor has AVX2.
                #[allow(unsafe_code, reason = "calling a function compiled for more instructions")]
                let wide = unsafe { labels_of_avx2(&contest, &columns, &rivals, &group) };
                assert_eq!(wide, labels_of(&contest, &columns, &rivals, &group), "case {case}");
            }
        }
    }
}
