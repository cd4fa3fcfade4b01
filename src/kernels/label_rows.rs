//! Rows of labels where the axes of both grids are parallel: how [`scores_to_labels_cpu`](super::scores_to_labels_cpu) makes them.
//!
//! A row of the target lies between four rows of the network's grid. Interpolated to it, each network column has its scores and its winner,
//! and what holds for a cell's 8 corners holds for these 2: where one channel wins (or ties) at both it wins between them. Only between
//! columns of different winners are voxels interpolated. Columns are made 8 at a time, and only where the cell is mixed.

use std::borrow::Cow;
use std::ops::Range;
use std::slice::ChunksExact;

use memchr::memchr;

use super::lattice::AxisTable;
use super::scores_to_labels::{Cells, Rule, Scores, lerp};
use super::simd::wide;
use super::spread::{PADDING, Spread};

/// Network columns, or target voxels, that are interpolated together: one vector of AVX2.
const WIDTH: usize = 8;

/// Lower and upper index, and the weight of the upper one, along an axis.
pub(super) type Between = (usize, usize, f32);

/// What all rows share.
pub(super) struct LabelRows<'a> {
    /// Channels, slices, rows of `row_length`.
    scores: Cow<'a, [f32]>,
    channels: usize,
    /// Columns of a row, of which there are `dims[0]`, and zeros where those are fewer than a vector.
    row_length: usize,
    dims: [usize; 3],
    cells: &'a Cells,
    x: &'a AxisTable,
    /// `x.weight`, and zeros to fill the last vector.
    weights: Vec<f32>,
    /// The target voxels in the cell of each network column.
    targets: Vec<Range<usize>>,
}

/// What one thread keeps from row to row.
#[derive(Default)]
pub(super) struct RowScratch {
    /// The label of each cell of the row.
    row: Vec<u8>,
    spread: Spread,
    /// Scores of each channel at the columns at hand.
    columns: Vec<[f32; WIDTH]>,
    patches: Vec<Patch>,
}

/// Labels of up to 8 target voxels between two columns of different winners.
struct Patch {
    target: Range<usize>,
    labels: [u8; WIDTH],
}

impl<'a> LabelRows<'a> {
    pub(super) fn new(field: &Scores<'a>, cells: &'a Cells, x: &'a AxisTable) -> Self {
        let dims = field.dims;
        let row_length = dims[0].max(WIDTH);
        let padded = |row: &[f32]| row.iter().copied().chain([0.0; WIDTH]).take(row_length).collect::<Vec<_>>();
        let scores =
            if dims[0] < WIDTH { field.scores.chunks_exact(dims[0]).flat_map(padded).collect() } else { Cow::Borrowed(field.scores) };
        let mut targets = vec![0..0; dims[0]];
        for (n, &lower) in x.lower.iter().enumerate() {
            let of_cell = &mut targets[lower as usize];
            *of_cell = if of_cell.end == 0 { n..n + 1 } else { of_cell.start..n + 1 };
        }
        let weights = x.weight.iter().copied().chain([0.0; WIDTH]).collect();
        Self { scores, channels: field.channels, row_length, dims, cells, x, weights, targets }
    }

    /// The labels of target voxels `range` of a row that lies at `y` and `z`.
    pub(super) fn fill(&self, scratch: &mut RowScratch, y: Between, z: Between, range: Range<usize>, labels: &mut [u8]) {
        let [nx, ny, _] = self.dims;
        scratch.row.resize(nx + PADDING, 0);
        scratch.row[..nx].copy_from_slice(&self.cells.labels[(z.0 * ny + y.0) * nx..][..nx]);
        scratch.columns.resize(self.channels, [0.0; WIDTH]);
        scratch.patches.clear();
        let ends = [self.x.lower[range.start], self.x.lower[range.end - 1]].map(|n| n as usize);
        settle_row(self, scratch, y, z, ends[0].min(ends[1])..ends[0].max(ends[1]) + 1);
        scratch.spread.prepare(&self.x.lower, &range);
        scratch.spread.fill(labels, &scratch.row, &self.x.lower);
        for Patch { target, labels: values } in &scratch.patches {
            for n in target.start.max(range.start)..target.end.min(range.end) {
                labels[n - range.start] = values[n - target.start];
            }
        }
    }
}

wide! {
    /// Gives the mixed cells of a row that have one winner in this row its label, and makes patches of the others.
    fn settle_row(rows: &LabelRows<'_>, scratch: &mut RowScratch, y: Between, z: Between, cells: Range<usize>) {
        let RowScratch { row, columns, patches, .. } = scratch;
        let Cells { mixed, label_of_channel, linear: [linear, ..], rule, .. } = rows.cells;
        let contest = Contest::new(*rule, rows.channels);
        let [nx, ny, nz] = rows.dims;
        let channels = rows.scores.chunks_exact(rows.row_length * ny * nz);
        let mut first = cells.start;
        while let Some(found) = memchr(*mixed, &row[first..cells.end]) {
            first += found;
            let at = first.min(rows.row_length - WIDTH);
            let next = if at + WIDTH >= nx { nx } else { at + WIDTH - 1 }; // the last column is the upper one of a cell
            let starts = [(y.0, z.0), (y.1, z.0), (y.0, z.1), (y.1, z.1)].map(|(j, k)| (k * ny + j) * rows.row_length + at);
            let winners = winning_columns(contest, columns, channels.clone(), starts, [y.2, z.2]);
            let right_of = |n: usize| if *linear { (n + 1).min(nx - 1 - at) } else { n };
            let rights = std::array::from_fn(|n| if n < next - at { winners[right_of(n) % WIDTH] } else { u32::MAX });
            let labels = winners.map(|channel| label_of_channel[channel as usize % 256]);
            settle((&mut row[at..][..WIDTH]).try_into().expect("padded"), *mixed, &labels, &winners, &rights);
            let end = next.min(cells.end);
            for i in (first..end).filter(|&i| row[i] == *mixed) {
                let target = rows.targets[i].clone();
                for start in target.clone().step_by(WIDTH) {
                    let weights = rows.weights[start..][..WIDTH].try_into().expect("as many");
                    let winners = winning_voxels(contest, columns, [i - at, right_of(i - at)], weights);
                    let labels = winners.map(|channel| label_of_channel[channel as usize % 256]);
                    patches.push(Patch { target: start..target.end.min(start + WIDTH), labels });
                }
            }
            first = end;
        }
    }
}

/// Scores of every channel at 8 columns, interpolated along j, then k, and who wins there. `starts` are those of the rows around, in a
/// channel.
#[inline(always)]
fn winning_columns(
    mut contest: Contest,
    columns: &mut [[f32; WIDTH]],
    channels: ChunksExact<'_, f32>,
    starts: [usize; 4],
    [wj, wk]: [f32; 2],
) -> [u32; WIDTH] {
    for (c, (values, channel)) in (0..).zip(columns.iter_mut().zip(channels)) {
        let row = |n: usize| -> [f32; WIDTH] { channel[starts[n]..][..WIDTH].try_into().expect("as many") };
        let (a, b, c1, d) = (row(0), row(1), row(2), row(3));
        for n in 0..WIDTH {
            values[n] = lerp(lerp(a[n], b[n], wj), lerp(c1[n], d[n], wj), wk);
        }
        contest.challenge(values, c);
    }
    contest.winners
}

/// Gives mixed cells the label of their left column, where the right one has the same winner.
#[inline(always)]
fn settle(cells: &mut [u8; WIDTH], mixed: u8, labels: &[u8; WIDTH], winners: &[u32; WIDTH], rights: &[u32; WIDTH]) {
    for n in 0..WIDTH {
        let settled = (winners[n] == rights[n]) & (cells[n] == mixed);
        cells[n] = if settled { labels[n] } else { cells[n] };
    }
}

/// Who wins at each weight of the right one of two columns.
#[inline(always)]
fn winning_voxels(mut contest: Contest, columns: &[[f32; WIDTH]], [left, right]: [usize; 2], weights: [f32; WIDTH]) -> [u32; WIDTH] {
    for (c, column) in (0..).zip(columns) {
        let (a, b) = (column[left % WIDTH], column[right % WIDTH]);
        contest.challenge(&weights.map(|weight| lerp(a, b, weight)), c);
    }
    contest.winners
}

/// Who wins 8 places, as far as channels have been looked at.
#[derive(Clone, Copy)]
struct Contest {
    /// What a score must be above.
    best: [f32; WIDTH],
    winners: [u32; WIDTH],
    /// Whether a winner raises that to its own.
    rises: bool,
}

impl Contest {
    fn new(rule: Rule, channels: usize) -> Self {
        match rule {
            Rule::Highest => Self { best: [f32::NEG_INFINITY; WIDTH], winners: [0; WIDTH], rises: true },
            Rule::LastAbove(above) => Self { best: [above; WIDTH], winners: [channels as u32; WIDTH], rises: false },
        }
    }

    /// Gives `channel` the places where its `scores` are above the best: ties stay with the lower one.
    #[inline(always)]
    fn challenge(&mut self, scores: &[f32; WIDTH], channel: u32) {
        for ((best, winner), &score) in self.best.iter_mut().zip(&mut self.winners).zip(scores) {
            let wins = score > *best;
            *winner = if wins { channel } else { *winner };
            *best = if wins & self.rises { score } else { *best };
        }
    }
}
