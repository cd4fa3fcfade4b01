//! Labels where the axes of both grids are parallel: how [`scores_to_labels_cpu`](super::scores_to_labels_cpu) makes them.
//!
//! Scores are read from memory once: a band of rows is followed from slice to slice, and what a slice needs of the one before is still in
//! the second-level cache. Where one channel wins (or ties) at all corners of a cell, it has the whole cell. In the other cells a channel
//! whose highest corner lies below the lowest one of another channel can win nowhere, and is left out. Those that are left are interpolated
//! at 8 network columns of each target row: where one channel wins (or ties) at two neighbouring columns, it wins between them. Only between
//! columns of different winners are voxels interpolated.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;
use rayon::prelude::*;

use super::lattice::{AxisTable, Run};
use super::scores_to_labels::{Cells, Rule, Scores, lerp, winners};
use super::simd::wide;
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
    /// `x.weight`, and zeros to fill the last vector.
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
    /// The same as each line has it, one behind the other.
    rows: Vec<u8>,
    /// Least and greatest score at the four corners of a column, of each channel.
    extremes: Vec<[[f32; WIDTH]; 2]>,
    rivals: Vec<Rival>,
    /// Scores of each rival at the columns at hand.
    columns: Vec<[f32; WIDTH]>,
    patches: Vec<Patch>,
    spread: Spread,
}

/// A channel that may win somewhere in the cells at hand.
struct Rival {
    channel: u32,
    /// Its scores at 8 columns of the four rows around.
    corners: [[f32; WIDTH]; 4],
}

/// Labels of up to 8 target voxels between two columns of different winners.
struct Patch {
    line: usize,
    target: Range<usize>,
    labels: [u8; WIDTH],
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
        let weights = x.weight.iter().copied().chain([0.0; WIDTH]).collect();
        Self { field, cells, tables, scores, row_length, weights, targets, columns }
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
        scratch.rows.clear();
        scratch.patches.clear();
        if memchr(self.cells.mixed, &scratch.row[self.columns.clone()]).is_some() {
            scratch.lines.iter().for_each(|_| scratch.rows.extend(&scratch.row));
            settle_lines(self, scratch, y, z);
        }
        let mut own_rows = scratch.rows.chunks_exact(nx + PADDING);
        for line in &scratch.lines {
            scratch.spread.fill(&mut out[line.place..][..length], own_rows.next().unwrap_or(&scratch.row), &self.tables[0].lower);
        }
        for Patch { line, target, labels } in &scratch.patches {
            out[scratch.lines[*line].place..][target.clone()].copy_from_slice(&labels[..target.len()]);
        }
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

wide! {
    /// Gives the mixed cells of each target row that have one winner there its label, and makes patches of the others.
    fn settle_lines(this: &LabelRows<'_>, scratch: &mut Scratch, y: &Run, z: &Run) {
        let Scratch { row, lines, rows, extremes, rivals, columns, patches, .. } = scratch;
        let Cells { mixed, label_of_channel, linear: [linear, ..], .. } = this.cells;
        let [nx, ny, _] = this.field.dims;
        let contest = Contest::new(this.cells.rule, this.field.channels);
        let starts = [(y.lower, z.lower), (y.upper, z.lower), (y.lower, z.upper), (y.upper, z.upper)];
        let mut first = this.columns.start;
        while let Some(found) = memchr(*mixed, &row[first..this.columns.end]) {
            first += found;
            let at = first.min(this.row_length - WIDTH);
            let next = if at + WIDTH >= nx { nx } else { at + WIDTH - 1 }; // the last column is the upper one of a cell
            let is_open = std::array::from_fn(|n| n < next - at && row[at + n] == *mixed);
            find_rivals(this, starts.map(|(j, k)| (k * ny + j) * this.row_length + at), is_open, extremes, rivals);
            columns.resize(rivals.len(), [0.0; WIDTH]);
            let right_of = |n: usize| if *linear { (n + 1).min(nx - 1 - at) } else { n };
            let end = next.min(this.columns.end);
            for (line, (line_row, of_line)) in rows.chunks_exact_mut(nx + PADDING).zip(&*lines).enumerate() {
                let winners = winning_columns(contest, columns, rivals, of_line.weights);
                let rights = std::array::from_fn(|n| if n < next - at { winners[right_of(n) % WIDTH] } else { u32::MAX });
                let labels = winners.map(|channel| label_of_channel[channel as usize % 256]);
                settle((&mut line_row[at..][..WIDTH]).try_into().expect("padded"), *mixed, &labels, &winners, &rights);
                for i in (first..end).filter(|&i| line_row[i] == *mixed) {
                    let target = this.targets[i].clone();
                    for start in target.clone().step_by(WIDTH) {
                        let weights = this.weights[start..][..WIDTH].try_into().expect("as many");
                        let winners = winning_voxels(contest, columns, rivals, [i - at, right_of(i - at)], weights);
                        let labels = winners.map(|channel| label_of_channel[channel as usize % 256]);
                        patches.push(Patch { line, target: start..target.end.min(start + WIDTH), labels });
                    }
                }
            }
            first = end;
        }
    }
}

/// The channels that may win in the cells that are open, out of 8 whose rows start at `starts` in each channel.
#[inline(always)]
fn find_rivals(
    rows: &LabelRows<'_>,
    starts: [usize; 4],
    is_open: [bool; WIDTH],
    extremes: &mut Vec<[[f32; WIDTH]; 2]>,
    rivals: &mut Vec<Rival>,
) {
    let [_, ny, nz] = rows.field.dims;
    let channels = rows.scores.chunks_exact(rows.row_length * ny * nz);
    let corners_of = |channel: &[f32]| starts.map(|start| -> [f32; WIDTH] { channel[start..][..WIDTH].try_into().expect("as many") });
    // What a channel must reach at a corner of each cell.
    let mut bar = match rows.cells.rule {
        Rule::Highest => [f32::NEG_INFINITY; WIDTH],
        Rule::LastAbove(above) => [above; WIDTH],
    };
    let rises = rows.cells.rule == Rule::Highest;
    let mut largest = [0.0f32; WIDTH];
    extremes.resize(rows.field.channels, [[0.0; WIDTH]; 2]);
    for ([least, greatest], channel) in extremes.iter_mut().zip(channels.clone()) {
        let [a, b, c, d] = corners_of(channel);
        for n in 0..WIDTH {
            least[n] = less(less(a[n], b[n]), less(c[n], d[n]));
            greatest[n] = more(more(a[n], b[n]), more(c[n], d[n]));
            largest[n] = more(largest[n], more(least[n].abs(), greatest[n].abs()));
        }
        for n in 0..WIDTH {
            let of_cell = less(least[n], least[(n + 1).min(WIDTH - 1)]);
            bar[n] = if rises { more(bar[n], of_cell) } else { bar[n] };
        }
    }
    let slack = (largest.into_iter().fold(0.0, more) * ROUNDING).min(f32::MAX);
    for n in 0..WIDTH {
        bar[n] = if is_open[n] { bar[n] - slack } else { f32::INFINITY };
    }
    rivals.clear();
    for (n, ([_, greatest], channel)) in (0..).zip(extremes.iter().zip(channels)) {
        let mut may_win = false;
        for n in 0..WIDTH {
            may_win |= more(greatest[n], greatest[(n + 1).min(WIDTH - 1)]) >= bar[n];
        }
        if may_win {
            rivals.push(Rival { channel: n, corners: corners_of(channel) });
        }
    }
}

#[inline(always)]
fn less(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn more(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Scores of every rival at 8 columns, interpolated along j, then k, and who wins there.
#[inline(always)]
fn winning_columns(mut contest: Contest, columns: &mut [[f32; WIDTH]], rivals: &[Rival], [wj, wk]: [f32; 2]) -> [u32; WIDTH] {
    for (values, Rival { channel, corners: [a, b, c, d] }) in columns.iter_mut().zip(rivals) {
        for n in 0..WIDTH {
            values[n] = lerp(lerp(a[n], b[n], wj), lerp(c[n], d[n], wj), wk);
        }
        contest.challenge(values, *channel);
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
fn winning_voxels(
    mut contest: Contest,
    columns: &[[f32; WIDTH]],
    rivals: &[Rival],
    [left, right]: [usize; 2],
    weights: [f32; WIDTH],
) -> [u32; WIDTH] {
    for (column, rival) in columns.iter().zip(rivals) {
        let (a, b) = (column[left % WIDTH], column[right % WIDTH]);
        contest.challenge(&weights.map(|weight| lerp(a, b, weight)), rival.channel);
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
