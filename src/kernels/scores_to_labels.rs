//! From class scores on the network's grid to labels on the source grid in one pass: interpolation and arg-max.
//!
//! `label = label_of_channel[argmax over c of interpolated(scores[c])]`, linear along each axis, ties to the lower channel, edges
//! continued. No array of classes times target voxels is ever made. Shader: `shaders/scores_to_labels.wgsl`.
//!
//! The CPU implementation uses an exact shortcut: where one channel wins (or ties) at all 8 corners of a cell it wins everywhere
//! inside, since interpolation keeps the order. Only the cells that a boundary crosses are interpolated.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::lattice::{AxisTable, Cell, Interpolation, Lattice};
use super::rows::fill_rows;
use super::simd::wide;
use super::slabs;
use crate::geometry::Affine;
use crate::gpu::{Gpu, GpuError};

pub(super) const WGSL: &str =
    concat!(include_str!("../../shaders/shared/lattice.wgsl"), include_str!("../../shaders/scores_to_labels.wgsl"));

/// What [`scores_to_labels_cpu`] and [`scores_to_labels_gpu`] make of class scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoresToLabels<'a> {
    /// Voxels along i, j, k of each channel of the scores.
    pub network_dims: [u32; 3],
    /// Voxels along i, j, k of the label map.
    pub target_dims: [u32; 3],
    /// Network voxel (i, j, k) from target voxel (i, j, k). Outside the network's grid its edge voxels continue.
    pub network_from_target: Affine,
    /// The label of each channel; 1 to 255 channels.
    pub label_of_channel: &'a [u8],
}

/// Uniforms of `shaders/scores_to_labels.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ScoresToLabelsParams {
    /// Voxels of a channel.
    pub network_dims: [u32; 3],
    /// First network slice whose cells this pass computes.
    pub first_owned: u32,
    /// Voxels of the whole target.
    pub target_dims: [u32; 3],
    /// End of the network slices whose cells this pass computes.
    pub end_owned: u32,
    /// Target slice that the output starts with.
    pub first_slice: u32,
    /// Target slices in the output.
    pub slices: u32,
    /// Network slices of each channel in the bound scores.
    pub loaded_slices: u32,
    /// Number of channels.
    pub channels: u32,
    /// Threads along x of the dispatch.
    pub words_a_row: u32,
    /// WGSL alignment.
    pub pad0: u32,
    /// WGSL alignment.
    pub pad1: u32,
    /// WGSL alignment.
    pub pad2: u32,
}

impl ScoresToLabels<'_> {
    fn lattice(&self, scores: &[f32]) -> Lattice {
        let channels = self.label_of_channel.len();
        assert!((1..=255).contains(&channels), "1 to 255 channels");
        assert_eq!(scores.len(), channels * self.channel_voxels(), "one score a voxel and channel");
        Lattice::new(self.network_dims, self.target_dims, &self.network_from_target, Interpolation::Linear)
    }

    fn channel_voxels(&self) -> usize {
        self.network_dims.iter().map(|&n| n as usize).product()
    }

    fn target_voxels(&self) -> usize {
        self.target_dims.iter().map(|&n| n as usize).product()
    }
}

/// A cell whose corners have different winners; no channel, since there are at most 255.
const MIXED: u8 = 255;

/// Labels on the CPU, from `scores` of shape C, D, H, W; `i` fastest, the shape is `target_dims`.
///
/// The same bits on every processor and for any number of threads. Scores must not be NaN.
///
/// # Panics
/// Where the number of scores or channels is not as promised.
pub fn scores_to_labels_cpu(scores: &[f32], p: &ScoresToLabels<'_>) -> Vec<u8> {
    let lattice = p.lattice(scores);
    let field = Scores { scores, dims: p.network_dims.map(|n| n as usize), channels: p.label_of_channel.len() };
    let cells = cells(scores, field.channels, field.dims);
    let [nx, ny, _] = field.dims;
    let mut out = vec![0; p.target_voxels()];
    if let Some((along, [x, y, z])) = lattice.tables() {
        let runs = Runs::of(&x);
        let scratch = || RowScratch { spans: Vec::new(), made_for: None, columns: Columns::new(field.channels) };
        fill_rows(&mut out, p.target_dims, along, scratch, |scratch, j, k, range, labels| {
            let (j0, j1, wj) = y.cell(j);
            let (k0, k1, wk) = z.cell(k);
            let key = (j0, k0, range.clone());
            if scratch.made_for.as_ref() != Some(&key) {
                runs.spans(&cells[(k0 * ny + j0) * nx..][..nx], &range, &mut scratch.spans);
                scratch.made_for = Some(key);
            }
            for span in &scratch.spans {
                let labels = &mut labels[span.target.start - range.start..span.target.end - range.start];
                if span.channel != MIXED {
                    labels.fill(p.label_of_channel[span.channel as usize]);
                    continue;
                }
                scratch.columns.restart();
                for run in &runs.runs[span.runs.clone()] {
                    let run_target = run.target.start.max(span.target.start)..run.target.end.min(span.target.end);
                    let upper = (run.lower + 1).min(nx - 1);
                    let (left, right) =
                        scratch.columns.at(run.lower, upper, |i, column| field.column(column, i, [j0, j1], [k0, k1], [wj, wk]));
                    let labels = &mut labels[run_target.start - span.target.start..run_target.end - span.target.start];
                    for (label, &weight) in labels.iter_mut().zip(&x.weight[run_target]) {
                        *label = p.label_of_channel[winner_between(left, right, weight)];
                    }
                }
            }
        });
    } else {
        let scratch = || (vec![0.0; field.channels], vec![0.0; field.channels]);
        fill_rows(&mut out, p.target_dims, [0, 1, 2], scratch, |(left, right), j, k, range, labels| {
            let row = lattice.row(j, k);
            for (i, label) in range.zip(labels) {
                let cell = lattice.cell(i, &row);
                let [i0, j0, k0] = cell.lower;
                let mut channel = cells[(k0 * ny + j0) * nx + i0] as usize;
                if channel == usize::from(MIXED) {
                    field.both_columns(left, right, &cell);
                    channel = winner_between(left, right, cell.weight[0]);
                }
                *label = p.label_of_channel[channel];
            }
        });
    }
    out
}

/// Gap between the best and the second best interpolated score at each target voxel, infinite for one channel: how near a label
/// of [`scores_to_labels_cpu`] is to another.
///
/// # Panics
/// As [`scores_to_labels_cpu`].
pub fn scores_margin_cpu(scores: &[f32], p: &ScoresToLabels<'_>) -> Vec<f32> {
    map_scores_cpu(scores, p, |scores| {
        let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for &value in scores.iter() {
            second = second.max(value.min(best));
            best = best.max(value);
        }
        best - second
    })
}

/// `value(scores)` at each target voxel, of the interpolated scores of all channels, which it may overwrite. `i` fastest, the shape is
/// `target_dims`. No array of classes times target voxels is ever made.
///
/// # Panics
/// As [`scores_to_labels_cpu`].
pub fn map_scores_cpu(scores: &[f32], p: &ScoresToLabels<'_>, value: impl Fn(&mut [f32]) -> f32 + Sync + Send) -> Vec<f32> {
    let lattice = p.lattice(scores);
    let field = Scores { scores, dims: p.network_dims.map(|n| n as usize), channels: p.label_of_channel.len() };
    let mut out = vec![0.0; p.target_voxels()];
    let value_between = |between: &mut [f32], left: &[f32], right: &[f32], weight: f32| {
        between.iter_mut().zip(left.iter().zip(right)).for_each(|(out, (&a, &b))| *out = lerp(a, b, weight));
        value(between)
    };
    if let Some((along, [x, y, z])) = lattice.tables() {
        let runs = Runs::of(&x);
        let scratch = || (Columns::new(field.channels), vec![0.0; field.channels]);
        fill_rows(&mut out, p.target_dims, along, scratch, |(columns, between), j, k, range, values| {
            let (j0, j1, wj) = y.cell(j);
            let (k0, k1, wk) = z.cell(k);
            columns.restart();
            for run in &runs.runs {
                let target = run.target.start.max(range.start)..run.target.end.min(range.end);
                if target.is_empty() {
                    continue;
                }
                let upper = (run.lower + 1).min(field.dims[0] - 1);
                let (left, right) = columns.at(run.lower, upper, |i, column| field.column(column, i, [j0, j1], [k0, k1], [wj, wk]));
                let values = &mut values[target.start - range.start..target.end - range.start];
                for (value, &weight) in values.iter_mut().zip(&x.weight[target]) {
                    *value = value_between(between, left, right, weight);
                }
            }
        });
    } else {
        let scratch = || [vec![0.0; field.channels], vec![0.0; field.channels], vec![0.0; field.channels]];
        fill_rows(&mut out, p.target_dims, [0, 1, 2], scratch, |[left, right, between], j, k, range, values| {
            let row = lattice.row(j, k);
            for (i, value) in range.zip(values) {
                let cell = lattice.cell(i, &row);
                field.both_columns(left, right, &cell);
                *value = value_between(between, left, right, cell.weight[0]);
            }
        });
    }
    out
}

/// Labels on a GPU, those of [`scores_to_labels_cpu`] but for ties within rounding.
///
/// Scores and labels go through in slabs of slices, so volumes larger than a storage binding work.
///
/// # Errors
/// [`GpuError::TooLarge`] where two network slices of all channels or one target slice exceed a binding;
/// [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`scores_to_labels_cpu`].
pub fn scores_to_labels_gpu(gpu: &Gpu, scores: &[f32], p: &ScoresToLabels<'_>) -> Result<Vec<u8>, GpuError> {
    const THREADS: u32 = 64;
    let lattice = p.lattice(scores);
    let [network_dims, target_dims] = [p.network_dims, p.target_dims];
    let channels = p.label_of_channel.len();
    let plane = network_dims[0] as usize * network_dims[1] as usize;
    let pipeline = gpu.pipeline("scores_to_labels", WGSL, &[])?;
    let label_of_channel: Vec<u32> = p.label_of_channel.iter().map(|&label| label.into()).collect();
    let label_of_channel = gpu.upload("scores_to_labels: label of channel", &label_of_channel)?;
    let steps = gpu.upload("scores_to_labels: steps", &lattice.all_steps())?;
    let sources = slabs::overlapping(gpu, "network slices of all channels, bytes", network_dims[2], (plane * channels) as u64 * 4)?;
    let mut bound = Vec::with_capacity(sources.len());
    for slab in &sources {
        let bytes_a_channel = (slab.loaded.len() * plane * 4) as u64;
        let buffer = gpu.storage("scores_to_labels: scores", bytes_a_channel * channels as u64)?;
        for (channel, all) in (0..).zip(scores.chunks_exact(p.channel_voxels())) {
            gpu.write(&buffer, channel * bytes_a_channel, &all[slab.loaded.start as usize * plane..slab.loaded.end as usize * plane])?;
        }
        bound.push(buffer);
    }

    let target_plane = target_dims[0] as usize * target_dims[1] as usize;
    let depth = slabs::target_depth(gpu, "a target slice, bytes", target_dims, 1, slabs::MOST_VOXELS * 4 / channels.max(4))?;
    let labels = gpu.storage("scores_to_labels: labels", (target_plane * depth) as u64)?;
    let mut out = vec![0u8; p.target_voxels()];
    for (n, values) in out.chunks_mut(target_plane * depth).enumerate() {
        let first_slice = n * depth;
        let slices = values.len() / target_plane;
        let touched = lattice.source_slices(first_slice, first_slice + slices);
        let groups = (values.len() as u64).div_ceil(4 * u64::from(THREADS));
        let groups_x = groups.min(gpu.summary().max_workgroups_per_dimension.into());
        for (slab, scores) in sources.iter().zip(&bound).filter(|(slab, _)| slab.owns_any(touched)) {
            let params = ScoresToLabelsParams {
                network_dims,
                first_owned: slab.owned.start,
                target_dims,
                end_owned: slab.owned.end,
                first_slice: first_slice as u32,
                slices: slices as u32,
                loaded_slices: slab.loaded.len() as u32,
                channels: channels as u32,
                words_a_row: groups_x as u32 * THREADS,
                pad0: 0,
                pad1: 0,
                pad2: 0,
            };
            let params = gpu.uniform("scores_to_labels: params", &params)?;
            let groups = [groups_x as u32, groups.div_ceil(groups_x) as u32, 1];
            gpu.dispatch("scores_to_labels", &pipeline, &[&params, scores, &label_of_channel, &steps, &labels], groups)?;
        }
        gpu.read_into(&labels, values)?;
    }
    Ok(out)
}

/// The channel of the highest score at each network voxel; ties to the lower one.
fn winners(scores: &[f32], channels: usize) -> Vec<u8> {
    const BLOCK: usize = 4096; // the running best stays in the first-level cache
    let voxels = scores.len() / channels;
    let mut out = vec![0u8; voxels];
    out.par_chunks_mut(BLOCK).enumerate().for_each_init(
        || ([0.0f32; BLOCK], [0u32; BLOCK]),
        |(best, channel), (n, winners)| {
            let (best, channel) = (&mut best[..winners.len()], &mut channel[..winners.len()]);
            let block = |c: usize| &scores[c * voxels + n * BLOCK..][..winners.len()];
            best.copy_from_slice(block(0));
            channel.fill(0);
            for c in 1..channels {
                challenge(best, channel, block(c), c as u32);
            }
            for (winner, &channel) in winners.iter_mut().zip(channel.iter()) {
                *winner = channel as u8;
            }
        },
    );
    out
}

wide! {
    /// Takes over `channel` wherever its `scores` are above `best`.
    fn challenge(best: &mut [f32], holder: &mut [u32], scores: &[f32], channel: u32) {
        for ((best, holder), &score) in best.iter_mut().zip(holder.iter_mut()).zip(scores) {
            let wins = score > *best;
            *holder = if wins { channel } else { *holder };
            *best = if wins { score } else { *best };
        }
    }
}

wide! {
    /// For each cell along a row: the channel that wins at all 8 corners, or [`MIXED`].
    fn uniform_cells(cells: &mut [u8], a: &[u8], b: &[u8], c: &[u8], d: &[u8]) {
        let n = cells.len();
        let (a, b, c, d) = (&a[..n], &b[..n], &c[..n], &d[..n]);
        for i in 0..n {
            let differs = (a[i] ^ b[i]) | (a[i] ^ c[i]) | (a[i] ^ d[i]);
            cells[i] = if differs == 0 { a[i] } else { MIXED };
        }
        for i in 1..n {
            cells[i - 1] = if cells[i - 1] == cells[i] { cells[i] } else { MIXED };
        }
    }
}

/// For each cell of the network's grid, by its lower corner: the channel that wins at all 8 corners, or [`MIXED`].
fn cells(scores: &[f32], channels: usize, [nx, ny, nz]: [usize; 3]) -> Vec<u8> {
    let winners = winners(scores, channels);
    let mut cells = vec![0; winners.len()];
    cells.par_chunks_mut(nx * ny).enumerate().for_each(|(k, slice)| {
        for (j, cells) in slice.chunks_mut(nx).enumerate() {
            let (j1, k1) = ((j + 1).min(ny - 1), (k + 1).min(nz - 1));
            let row = |j: usize, k: usize| &winners[(k * ny + j) * nx..][..nx];
            uniform_cells(cells, row(j, k), row(j1, k), row(j, k1), row(j1, k1));
        }
    });
    cells
}

/// The channel that wins between two columns; ties to the lower one.
fn winner_between(left: &[f32], right: &[f32], weight: f32) -> usize {
    let mut winner = 0;
    let mut best = lerp(left[0], right[0], weight);
    for (channel, (&a, &b)) in left.iter().zip(right).enumerate().skip(1) {
        let value = lerp(a, b, weight);
        if value > best {
            (winner, best) = (channel, value);
        }
    }
    winner
}

#[inline(always)]
fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    a + weight * (b - a)
}

/// Class scores, C, D, H, W.
struct Scores<'a> {
    scores: &'a [f32],
    dims: [usize; 3],
    channels: usize,
}

impl Scores<'_> {
    /// Every channel's score at column `i`, interpolated along j, then k: the order of the shader.
    fn column(&self, column: &mut [f32], i: usize, [j0, j1]: [usize; 2], [k0, k1]: [usize; 2], [wj, wk]: [f32; 2]) {
        let [nx, ny, nz] = self.dims;
        let [a, b, c, d] = [(j0, k0), (j1, k0), (j0, k1), (j1, k1)].map(|(j, k)| (k * ny + j) * nx + i);
        for (value, channel) in column.iter_mut().zip(self.scores.chunks_exact(nx * ny * nz)) {
            *value = lerp(lerp(channel[a], channel[b], wj), lerp(channel[c], channel[d], wj), wk);
        }
    }

    fn both_columns(&self, left: &mut [f32], right: &mut [f32], cell: &Cell) {
        let (j, k, weights) = ([cell.lower[1], cell.upper[1]], [cell.lower[2], cell.upper[2]], [cell.weight[1], cell.weight[2]]);
        self.column(left, cell.lower[0], j, k, weights);
        self.column(right, cell.upper[0], j, k, weights);
    }
}

/// The two columns of the cell at hand; neighbouring cells share one.
struct Columns {
    columns: [Vec<f32>; 2],
    at: [Option<usize>; 2],
}

impl Columns {
    fn new(channels: usize) -> Self {
        Self { columns: [vec![0.0; channels], vec![0.0; channels]], at: [None; 2] }
    }

    /// Forgets what was loaded: another row begins.
    fn restart(&mut self) {
        self.at = [None; 2];
    }

    fn at(&mut self, lower: usize, upper: usize, load: impl Fn(usize, &mut [f32])) -> (&[f32], &[f32]) {
        if self.at[1] == Some(lower) || self.at[0] == Some(upper) {
            self.columns.swap(0, 1);
            self.at.swap(0, 1);
        }
        for (n, i) in [lower, upper].into_iter().enumerate() {
            if self.at[n] != Some(i) {
                load(i, &mut self.columns[n]);
                self.at[n] = Some(i);
            }
        }
        (&self.columns[0], &self.columns[1])
    }
}

/// What one thread keeps from row to row.
struct RowScratch {
    spans: Vec<Span>,
    /// Lower row, lower slice and range that `spans` belong to.
    made_for: Option<(usize, usize, Range<usize>)>,
    columns: Columns,
}

/// Neighbouring target voxels in the same cell.
struct Run {
    target: Range<usize>,
    lower: usize,
}

/// Neighbouring target voxels in cells with the same single winner, or in mixed cells.
struct Span {
    target: Range<usize>,
    runs: Range<usize>,
    channel: u8,
}

struct Runs {
    runs: Vec<Run>,
    /// The run of each target index.
    run_of: Vec<u32>,
}

impl Runs {
    fn of(table: &AxisTable) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut run_of = Vec::with_capacity(table.lower.len());
        for (n, &lower) in table.lower.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.lower == lower as usize => run.target.end = n + 1,
                _ => runs.push(Run { target: n..n + 1, lower: lower as usize }),
            }
            run_of.push(runs.len() as u32 - 1);
        }
        Self { runs, run_of }
    }

    /// Cuts `range` into spans, given the winner of each cell.
    fn spans(&self, cells: &[u8], range: &Range<usize>, spans: &mut Vec<Span>) {
        spans.clear();
        let first = self.run_of[range.start] as usize;
        let end = self.run_of[range.end - 1] as usize + 1;
        for n in first..end {
            let run = &self.runs[n];
            let channel = cells[run.lower];
            let target_end = run.target.end.min(range.end);
            match spans.last_mut() {
                Some(span) if span.channel == channel => {
                    span.target.end = target_end;
                    span.runs.end = n + 1;
                }
                _ => spans.push(Span { target: run.target.start.max(range.start)..target_end, runs: n..n + 1, channel }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{LINEARS, any_linear, covering, interpolated, noise, voxels};
    use super::*;
    use crate::gpu;

    /// Blobs rather than noise, so that there are cells inside and on boundaries.
    fn blobs(dims: [u32; 3], channels: usize, seed: usize) -> Vec<f32> {
        let blob = |c: usize, v: [u32; 3]| -> f64 {
            let bend = |n: u32, a: usize| (f64::from(n) * (0.3 + noise(seed + c + 7 * a)) + 6.0 * noise(seed + c + 40 + a)).sin();
            bend(v[0], 0) + bend(v[1], 1) + bend(v[2], 2) + 0.2 * noise(v[0] as usize * 31 + v[1] as usize * 7 + v[2] as usize)
        };
        (0..channels).flat_map(|c| voxels(dims).map(move |v| blob(c, v) as f32)).collect()
    }

    fn labels_of(channels: usize) -> Vec<u8> {
        (0..channels).map(|c| (c * 7 % 256) as u8).collect()
    }

    /// All channels' scores at a target voxel, from the formula.
    fn oracle(scores: &[f32], p: &ScoresToLabels<'_>, voxel: [u32; 3]) -> Vec<f64> {
        let position = p.network_from_target.apply(voxel.map(f64::from));
        let [nx, ny, _] = p.network_dims.map(|n| n as usize);
        let at = |channel: &[f32]| interpolated(p.network_dims, position, |[i, j, k]| channel[(k * ny + j) * nx + i].into());
        scores.chunks_exact(p.channel_voxels()).map(at).collect()
    }

    fn check(scores: &[f32], p: &ScoresToLabels<'_>) -> Result<(), TestCaseError> {
        let labels = scores_to_labels_cpu(scores, p);
        let margins = scores_margin_cpu(scores, p);
        for ((label, margin), voxel) in labels.into_iter().zip(margins).zip(voxels(p.target_dims)) {
            let values = oracle(scores, p, voxel);
            let winner = (0..values.len()).fold(0, |w, c| if values[c] > values[w] { c } else { w });
            let others = values.iter().enumerate().filter(|&(c, _)| c != winner).map(|(_, &v)| v);
            let exact_margin = values[winner] - others.fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(exact_margin == f64::from(margin) || (exact_margin - f64::from(margin)).abs() < 1e-5);
            if exact_margin > 1e-5 {
                prop_assert_eq!(label, p.label_of_channel[winner], "at {:?} of {:?}", voxel, p);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn cpu_follows_the_formula(
            network_dims in prop::array::uniform3(1..12u32),
            target_dims in prop::array::uniform3(1..24u32),
            linear in any_linear(),
            finer in 0.2..1.0f64,
            channels in 1..5usize,
            seed in 0..1000usize,
        ) {
            let network_from_target = covering(network_dims, target_dims, linear.map(|column| column.map(|v| v * finer)));
            let label_of_channel = &labels_of(channels);
            let p = ScoresToLabels { network_dims, target_dims, network_from_target, label_of_channel };
            check(&blobs(network_dims, channels, seed), &p)?;
        }
    }

    #[test]
    fn ties_go_to_the_lower_channel() {
        let scores = [1.0, 0.0, 1.0, 0.0, 0.5, 0.5]; // channels 0 and 1 tie everywhere; 2 wins at the right
        let p = ScoresToLabels {
            network_dims: [2, 1, 1],
            target_dims: [5, 1, 1],
            network_from_target: Affine::scale_then_shift([0.25, 1., 1.], [0.; 3]),
            label_of_channel: &[4, 5, 6],
        };
        // At 0.5 all three tie.
        assert_eq!(scores_to_labels_cpu(&scores, &p), [4, 4, 4, 6, 6]);
        assert_eq!(scores_margin_cpu(&scores, &p), [0.0, 0.0, 0.0, 0.25, 0.5]);
    }

    #[test]
    fn as_many_channels_as_are_promised() {
        let label_of_channel: Vec<u8> = (0..255).collect();
        let mut scores = vec![0.0; 255 * 8];
        scores[254 * 8..].fill(1.0);
        let identity = Affine::IDENTITY;
        let p = ScoresToLabels {
            network_dims: [2; 3],
            target_dims: [2; 3],
            network_from_target: identity,
            label_of_channel: &label_of_channel,
        };
        assert_eq!(scores_to_labels_cpu(&scores, &p), [254; 8]);
    }

    // import numpy as np
    // from scipy.ndimage import map_coordinates
    // x, y, z = np.meshgrid(np.arange(4), np.arange(3), np.arange(3), indexing="ij")
    // scores = np.stack([np.sin(1.7 * x + c * 2.1) + np.cos(1.3 * y - c) * np.sin(0.9 * z + c) for c in range(3)]).astype(np.float32)
    // a, b, c = np.meshgrid(np.arange(7), np.arange(4), np.arange(3), indexing="ij")
    // at = [0.55 * a - 0.2, 0.7 * b + 0.1, 0.8 * c + 0.15]
    // interp = np.stack([map_coordinates(s.astype(np.float64), at, order=1, mode="nearest") for s in scores])
    // srt = np.sort(interp, axis=0); print("margin", (srt[-1] - srt[-2]).min())
    // print("labels", np.array([0, 3, 9])[interp.argmax(0)].ravel(order="F").tolist())
    // M = np.array([[0.9, -0.3, 0.2], [0.25, 0.8, -0.1], [-0.15, 0.2, 0.7]])
    // at = [M[r, 0] * a + M[r, 1] * b + M[r, 2] * c + t for r, t in enumerate([0.4, -0.2, 0.3])]
    // interp = np.stack([map_coordinates(s.astype(np.float64), at, order=1, mode="nearest") for s in scores])
    // srt = np.sort(interp, axis=0); print("margin", (srt[-1] - srt[-2]).min())
    // print("labels", np.array([0, 3, 9])[interp.argmax(0)].ravel(order="F").tolist())
    #[test]
    fn scipy_agrees() {
        let network_dims = [4, 3, 3];
        let scores: Vec<f32> = (0..3)
            .flat_map(|c| {
                voxels(network_dims).map(move |v| {
                    let ([x, y, z], c) = (v.map(f64::from), f64::from(c));
                    ((1.7 * x + c * 2.1).sin() + (1.3 * y - c).cos() * (0.9 * z + c).sin()) as f32
                })
            })
            .collect();
        let cases = [
            (Affine::scale_then_shift([0.55, 0.7, 0.8], [-0.2, 0.1, 0.15]), ALIGNED),
            (Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 0.8, 0.2], [0.2, -0.1, 0.7], [0.4, -0.2, 0.3]), OBLIQUE),
        ];
        for (network_from_target, expected) in cases {
            let p = ScoresToLabels { network_dims, target_dims: [7, 4, 3], network_from_target, label_of_channel: &[0, 3, 9] };
            assert_eq!(scores_to_labels_cpu(&scores, &p), expected);
        }
    }
    const ALIGNED: [u8; 84] = [
        3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 9, 3, 3, 3, 0, 9, 9, 9, 3, 3, 3, 0, 9, 9, 9, 9, 3, 0, 0, 0, 9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3,
        0, 9, 9, 9, 3, 3, 3, 0, 9, 9, 9, 3, 3, 0, 0, 0, 9, 9, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 9, 3,
    ];
    const OBLIQUE: [u8; 84] = [
        3, 0, 9, 3, 3, 3, 3, 3, 0, 9, 3, 3, 3, 9, 3, 0, 9, 9, 9, 9, 9, 3, 3, 9, 9, 3, 9, 9, 0, 0, 9, 3, 3, 3, 3, 3, 0, 9, 3, 3, 3, 3, 3, 0,
        9, 9, 3, 3, 3, 3, 3, 9, 9, 3, 3, 3, 0, 0, 3, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 3, 0, 9, 3, 3, 3, 3, 3, 0, 9, 3, 3, 3, 3,
    ];

    #[test]
    fn gpu_agrees_with_cpu() -> Result<(), GpuError> {
        let Some(mut gpu) = gpu::for_tests() else { return Ok(()) };
        let whole = gpu.max_storage_bytes();
        let (mut voxels, mut near_ties) = (0, 0);
        for (network_dims, target_dims) in [([11, 9, 8], [23, 19, 7]), ([5, 1, 1], [1, 7, 3]), ([33, 21, 3], [70, 9, 11])] {
            let scores = blobs(network_dims, 4, 5);
            for linear in LINEARS {
                let p = ScoresToLabels {
                    network_dims,
                    target_dims,
                    network_from_target: covering(network_dims, target_dims, linear),
                    label_of_channel: &labels_of(4),
                };
                let cpu = scores_to_labels_cpu(&scores, &p);
                let margins = scores_margin_cpu(&scores, &p);
                for limit in [whole, 3500.max(u64::from(network_dims[0] * network_dims[1]) * 4 * 4 * 2 + 4)] {
                    gpu.limit_storage(limit);
                    let labels = scores_to_labels_gpu(&gpu, &scores, &p)?;
                    voxels += labels.len();
                    for ((a, b), margin) in labels.iter().zip(&cpu).zip(&margins) {
                        if a != b {
                            near_ties += 1;
                            assert!(*margin < 1e-5, "{a} is not {b} with a margin of {margin}");
                        }
                    }
                }
            }
        }
        println!("{near_ties} of {voxels} labels differ, all of them near ties");
        Ok(())
    }
}
