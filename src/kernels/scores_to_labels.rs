//! From class scores on the network's grid to labels on the source grid in one pass: interpolation, and who wins.
//!
//! `label = label_of_channel[argmax over c of interpolated(scores[c])]`, linear or nearest along each axis, ties to the lower channel,
//! edges continued; or, for regions, `label_of_channel[last c with interpolated(scores[c]) > above]`. No array of classes times target voxels is ever made. Shader: `shaders/scores_to_labels.wgsl`.
//!
//! The CPU implementation uses an exact shortcut: where one channel wins (or ties) at all 8 corners of a cell it wins everywhere
//! inside, since interpolation keeps the order. Only the cells that a boundary crosses are interpolated, and of them only the channels
//! that can win (`label_rows.rs`).

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::label_rows::LabelRows;
use super::lattice::{Cell, Interpolation, Lattice};
use super::rows::{fill_rows, zeroed_voxels};
use super::simd::wide;
use super::slabs;
use crate::geometry::Affine;
use crate::gpu::{Gpu, GpuError};

pub(super) const WGSL: &str =
    concat!(include_str!("../../shaders/shared/lattice.wgsl"), include_str!("../../shaders/scores_to_labels.wgsl"));

/// Which channel wins a voxel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// That of the highest score; of several that tie, the lowest.
    Highest,
    /// The last one whose score is above this; where there is none, the label is 0. For regions that may lie within each other.
    LastAbove(f32),
}

/// What [`scores_to_labels_cpu`] and [`scores_to_labels_gpu`] make of class scores.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoresToLabels<'a> {
    /// Voxels along i, j, k of each channel of the scores.
    pub network_dims: [u32; 3],
    /// Voxels along i, j, k of the label map.
    pub target_dims: [u32; 3],
    /// Network voxel (i, j, k) from target voxel (i, j, k). Outside the network's grid its edge voxels continue.
    pub network_from_target: Affine,
    /// How scores between voxel centres are made along i, j, k of the network's grid: nearest or linear. Nearest along all three is the
    /// arg-max on the network's grid, carried over; nnU-Net has linear in the plane and nearest across it where slices are thick.
    pub interpolation: [Interpolation; 3],
    /// The label of each channel; 1 to 255 channels, 254 with [`Rule::LastAbove`].
    pub label_of_channel: &'a [u8],
    /// Which channel wins.
    pub rule: Rule,
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
    /// Axes along which the nearest scores are taken: a bit each, that of i the lowest.
    pub nearest: u32,
    /// What a score must be above, of regions.
    pub above: f32,
    /// WGSL alignment.
    pub pad0: u32,
}

impl ScoresToLabels<'_> {
    pub(super) fn lattice(&self, scores: &[f32]) -> Lattice {
        let channels = self.label_of_channel.len();
        let most = if self.rule == Rule::Highest { 255 } else { 254 };
        assert!((1..=most).contains(&channels), "1 to {most} channels");
        assert_eq!(scores.len(), channels * self.channel_voxels(), "one score a voxel and channel");
        let known = [Interpolation::Nearest, Interpolation::Linear];
        assert!(self.interpolation.iter().all(|along| known.contains(along)), "scores are nearest or linear along each axis");
        Lattice::by_axis(self.network_dims, self.target_dims, &self.network_from_target, self.interpolation)
    }

    fn channel_voxels(&self) -> usize {
        self.network_dims.iter().map(|&n| n as usize).product()
    }

    pub(super) fn scores<'s>(&self, scores: &'s [f32]) -> Scores<'s> {
        Scores { scores, dims: self.network_dims.map(|n| n as usize), channels: self.label_of_channel.len() }
    }
}

/// Labels on the CPU, from `scores` of shape C, D, H, W; `i` fastest, the shape is `target_dims`.
///
/// The same bits on every processor and for any number of threads. Scores must not be NaN.
///
/// # Panics
/// Where the number of scores or channels is not as promised, or an interpolation is neither nearest nor linear.
pub fn scores_to_labels_cpu(scores: &[f32], p: &ScoresToLabels<'_>) -> Vec<u8> {
    let lattice = p.lattice(scores);
    let field = p.scores(scores);
    let cells = Cells::new(&field, p);
    let mut out = zeroed_voxels(p.target_dims);
    if let Some((along, tables)) = lattice.tables() {
        let rows = LabelRows::new(&field, &cells, &tables);
        if along == [0, 1, 2] {
            rows.fill(&mut out);
            return out;
        }
        let dims = along.map(|axis| p.target_dims[axis]);
        let mut turned: Vec<u8> = zeroed_voxels(dims);
        rows.fill(&mut turned);
        let [nx, ny, _] = dims.map(|n| n as usize);
        fill_rows(
            &mut out,
            p.target_dims,
            along,
            || (),
            |(), j, k, range, labels| {
                labels.copy_from_slice(&turned[(k * ny + j) * nx..][range]);
            },
        );
        return out;
    }
    let [nx, ny, _] = field.dims;
    let labels_of_cells = cells.labels_of_all(&field);
    let scratch = || (vec![0.0; field.channels], vec![0.0; field.channels]);
    fill_rows(&mut out, p.target_dims, [0, 1, 2], scratch, |(left, right), j, k, range, labels| {
        let row = lattice.row(j, k);
        for (i, label) in range.zip(labels) {
            let cell = lattice.cell(i, &row);
            let [i0, j0, k0] = cell.lower;
            *label = labels_of_cells[(k0 * ny + j0) * nx + i0];
            if *label == cells.mixed {
                field.both_columns(left, right, &cell);
                *label = cells.label_of_channel[winner_between(left, right, cell.weight[0], p.rule)];
            }
        }
    });
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
    let nearest = (0..3).map(|s| u32::from(p.interpolation[s] == Interpolation::Nearest) << s).sum();
    let [network_dims, target_dims] = [p.network_dims, p.target_dims];
    let channels = p.label_of_channel.len();
    let plane = network_dims[0] as usize * network_dims[1] as usize;
    let (regions, above) = match p.rule {
        Rule::Highest => (0.0, 0.0),
        Rule::LastAbove(above) => (1.0, above),
    };
    let pipeline = gpu.pipeline("scores_to_labels", WGSL, &[("regions", regions)])?;
    let label_of_channel: Vec<u32> = p.label_of_channel.iter().map(|&label| label.into()).chain([0]).collect();
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
    let mut out: Vec<u8> = zeroed_voxels(p.target_dims);
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
                nearest,
                above,
                pad0: 0,
            };
            let params = gpu.uniform("scores_to_labels: params", &params)?;
            let groups = [groups_x as u32, groups.div_ceil(groups_x) as u32, 1];
            gpu.dispatch("scores_to_labels", &pipeline, &[&params, scores, &label_of_channel, &steps, &labels], groups)?;
        }
        gpu.read_into(&labels, values)?;
    }
    Ok(out)
}

/// Voxels of which the running best stays in the first-level cache.
const BLOCK: usize = 4096;

/// The channel that wins each network voxel from the one of number `first` on; the number of channels where none does.
pub(super) fn winners(field: &Scores<'_>, rule: Rule, first: usize, out: &mut [u8]) {
    let Scores { scores, channels, .. } = *field;
    let voxels = scores.len() / channels;
    let (mut best, mut channel) = ([0.0f32; BLOCK], [0u32; BLOCK]);
    for (n, winners) in out.chunks_mut(BLOCK).enumerate() {
        let (best, channel) = (&mut best[..winners.len()], &mut channel[..winners.len()]);
        let block = |c: usize| &scores[c * voxels + first + n * BLOCK..][..winners.len()];
        match rule {
            Rule::Highest => {
                best.copy_from_slice(block(0));
                channel.fill(0);
                (1..channels).for_each(|c| challenge(best, channel, block(c), c as u32));
            }
            Rule::LastAbove(above) => {
                channel.fill(channels as u32);
                (0..channels).for_each(|c| overtake(channel, block(c), above, c as u32));
            }
        }
        for (winner, &channel) in winners.iter_mut().zip(channel.iter()) {
            *winner = channel as u8;
        }
    }
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
    /// Gives `channel` what its `scores` are above a value.
    fn overtake(holder: &mut [u32], scores: &[f32], above: f32, channel: u32) {
        for (holder, &score) in holder.iter_mut().zip(scores) {
            *holder = if score > above { channel } else { *holder };
        }
    }
}

/// What the cells of the network's grid, each named by its lower corner, are labelled with.
pub(super) struct Cells {
    /// With 0 for the one after the last: no channel.
    pub(super) label_of_channel: [u8; 256],
    /// Stands for no label, where not all corners have one winner: there are at most 255.
    pub(super) mixed: u8,
    /// Whether each channel's label is its number.
    are_channels: bool,
    pub(super) rule: Rule,
    /// Axes along which a cell has two corners.
    pub(super) linear: [bool; 3],
}

impl Cells {
    fn new(field: &Scores<'_>, p: &ScoresToLabels<'_>) -> Self {
        let of_none = (p.rule != Rule::Highest).then_some(0);
        let is_used = |label: &u8| p.label_of_channel.contains(label) || of_none == Some(*label);
        let mixed = (0..=255).rev().find(|label| !is_used(label)).expect("fewer channels than numbers");
        let mut label_of_channel = [mixed; 256];
        label_of_channel[..field.channels].copy_from_slice(p.label_of_channel);
        label_of_channel[field.channels] = of_none.unwrap_or(mixed);
        let linear = p.interpolation.map(|along| along == Interpolation::Linear);
        let are_channels =
            mixed == MIXED && (0..).zip(&label_of_channel[..=field.channels]).all(|(n, &label)| u16::from(label) == n || label == MIXED);
        Self { label_of_channel, mixed, are_channels, rule: p.rule, linear }
    }

    /// The labels of a row of cells, from the winners in the four rows around it.
    pub(super) fn label(&self, labels: &mut [u8], [a, b, c, d]: [&[u8]; 4]) {
        uniform_cells(labels, a, b, c, d, self.linear[0]);
        if !self.are_channels {
            labels.iter_mut().for_each(|cell| *cell = self.label_of_channel[usize::from(*cell)]);
        }
    }

    /// Those of all cells.
    fn labels_of_all(&self, field: &Scores<'_>) -> Vec<u8> {
        let [nx, ny, nz] = field.dims;
        let dims = field.dims.map(|n| n as u32);
        let mut winning: Vec<u8> = zeroed_voxels(dims);
        winning.par_chunks_mut(BLOCK).enumerate().for_each(|(n, out)| winners(field, self.rule, n * BLOCK, out));
        let mut labels: Vec<u8> = zeroed_voxels(dims);
        labels.par_chunks_mut(nx * ny).enumerate().for_each(|(k, slice)| {
            for (j, cells) in slice.chunks_mut(nx).enumerate() {
                let upper = |n: usize, size: usize, linear: bool| if linear { (n + 1).min(size - 1) } else { n };
                let (j1, k1) = (upper(j, ny, self.linear[1]), upper(k, nz, self.linear[2]));
                let row = |j: usize, k: usize| &winning[(k * ny + j) * nx..][..nx];
                self.label(cells, [row(j, k), row(j1, k), row(j, k1), row(j1, k1)]);
            }
        });
        labels
    }
}

/// A cell whose corners have different winners; no channel, since there are at most 255.
const MIXED: u8 = 255;

wide! {
    /// For each cell along a row: the channel that wins at all its corners, or [`MIXED`].
    fn uniform_cells(cells: &mut [u8], a: &[u8], b: &[u8], c: &[u8], d: &[u8], linear: bool) {
        let n = cells.len();
        let (a, b, c, d) = (&a[..n], &b[..n], &c[..n], &d[..n]);
        for i in 0..n {
            let differs = (a[i] ^ b[i]) | (a[i] ^ c[i]) | (a[i] ^ d[i]);
            cells[i] = if differs == 0 { a[i] } else { MIXED };
        }
        if linear {
            for i in 1..n {
                cells[i - 1] = if cells[i - 1] == cells[i] { cells[i] } else { MIXED };
            }
        }
    }
}

/// The channel that wins between two columns; the number of channels where none does.
fn winner_between(left: &[f32], right: &[f32], weight: f32, rule: Rule) -> usize {
    if let Rule::LastAbove(above) = rule {
        return left.iter().zip(right).rposition(|(&a, &b)| lerp(a, b, weight) > above).unwrap_or(left.len());
    }
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
pub(super) fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    a + weight * (b - a)
}

/// Class scores, C, D, H, W.
pub(super) struct Scores<'a> {
    pub(super) scores: &'a [f32],
    pub(super) dims: [usize; 3],
    pub(super) channels: usize,
}

impl Scores<'_> {
    /// Every channel's score at column `i`, interpolated along j, then k: the order of the shader.
    pub(super) fn column(&self, column: &mut [f32], i: usize, [j0, j1]: [usize; 2], [k0, k1]: [usize; 2], [wj, wk]: [f32; 2]) {
        let [nx, ny, nz] = self.dims;
        let [a, b, c, d] = [(j0, k0), (j1, k0), (j0, k1), (j1, k1)].map(|(j, k)| (k * ny + j) * nx + i);
        for (value, channel) in column.iter_mut().zip(self.scores.chunks_exact(nx * ny * nz)) {
            *value = lerp(lerp(channel[a], channel[b], wj), lerp(channel[c], channel[d], wj), wk);
        }
    }

    pub(super) fn both_columns(&self, left: &mut [f32], right: &mut [f32], cell: &Cell) {
        let (j, k, weights) = ([cell.lower[1], cell.upper[1]], [cell.lower[2], cell.upper[2]], [cell.weight[1], cell.weight[2]]);
        self.column(left, cell.lower[0], j, k, weights);
        self.column(right, cell.upper[0], j, k, weights);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{LINEARS, any_linear, covering, interpolated, noise, voxels};
    use super::super::{map_scores_cpu, scores_margin_cpu};
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

    const LINEAR: [Interpolation; 3] = [Interpolation::Linear; 3];

    /// All channels' scores at a target voxel, from the formula; `None` for a nearest voxel that rounding may choose otherwise.
    fn oracle(scores: &[f32], p: &ScoresToLabels<'_>, voxel: [u32; 3]) -> Option<Vec<f64>> {
        let mut position = p.network_from_target.apply(voxel.map(f64::from));
        for (x, _) in position.iter_mut().zip(p.interpolation).filter(|(_, along)| *along == Interpolation::Nearest) {
            if (x.fract().abs() - 0.5).abs() < 1e-5 {
                return None;
            }
            *x = (*x + 0.5).floor();
        }
        let [nx, ny, _] = p.network_dims.map(|n| n as usize);
        let at = |channel: &[f32]| interpolated(p.network_dims, position, |[i, j, k]| channel[(k * ny + j) * nx + i].into());
        Some(scores.chunks_exact(p.channel_voxels()).map(at).collect())
    }

    fn check(scores: &[f32], p: &ScoresToLabels<'_>) -> Result<(), TestCaseError> {
        let labels = scores_to_labels_cpu(scores, p);
        let margins = scores_margin_cpu(scores, p);
        // Every channel at every voxel, without a shortcut.
        let first_of = |scores: &[f32]| (0..scores.len()).fold(0, |w, c| if scores[c] > scores[w] { c } else { w });
        let winner_of = |scores: &mut [f32]| match p.rule {
            Rule::Highest => first_of(scores) as f32,
            Rule::LastAbove(above) => scores.iter().rposition(|&score| score > above).map_or(-1.0, |c| c as f32),
        };
        for ((&label, winner), &margin) in labels.iter().zip(map_scores_cpu(scores, p, winner_of)).zip(&margins) {
            let expected = if winner < 0.0 { 0 } else { p.label_of_channel[winner as usize] };
            prop_assert!(label == expected || margin < 1e-6, "{} is not {}, margin {}", label, expected, margin);
        }
        for ((label, margin), voxel) in labels.into_iter().zip(margins).zip(voxels(p.target_dims)) {
            let Some(values) = oracle(scores, p, voxel) else { continue };
            if let Rule::LastAbove(above) = p.rule {
                let is_clear = values.iter().all(|value| (value - f64::from(above)).abs() > 1e-5);
                let least = values.iter().map(|value| (value - f64::from(above)).abs()).fold(f64::INFINITY, f64::min);
                prop_assert!((least - f64::from(margin)).abs() < 1e-5);
                let expected = values.iter().rposition(|&value| value > above.into()).map_or(0, |c| p.label_of_channel[c]);
                prop_assert!(!is_clear || label == expected, "{} is not {} at {:?} of {:?}", label, expected, voxel, p);
                continue;
            }
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
            network_dims in prop::array::uniform3(1..20u32),
            target_dims in prop::array::uniform3(1..40u32),
            linear in any_linear(),
            finer in 0.05..1.0f64,
            interpolation in prop::array::uniform3(prop_oneof![Just(Interpolation::Nearest), Just(Interpolation::Linear)]),
            channels in 1..5usize,
            rule in prop_oneof![Just(Rule::Highest), (-1.0..1.5f32).prop_map(Rule::LastAbove)],
            seed in 0..1000usize,
        ) {
            let network_from_target = covering(network_dims, target_dims, linear.map(|column| column.map(|v| v * finer)));
            let label_of_channel = &labels_of(channels);
            let p = ScoresToLabels { network_dims, target_dims, network_from_target, interpolation, label_of_channel, rule };
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
            interpolation: LINEAR,
            label_of_channel: &[4, 5, 6],
            rule: Rule::Highest,
        };
        // At 0.5 all three tie.
        assert_eq!(scores_to_labels_cpu(&scores, &p), [4, 4, 4, 6, 6]);
        assert_eq!(scores_margin_cpu(&scores, &p), [0.0, 0.0, 0.0, 0.25, 0.5]);
    }

    #[test]
    fn regions_lie_within_each_other() {
        let scores = [1.0, 1.0, 1.0, -1.0, 1.0, 0.0]; // each a ramp from the left; the last one falls to the threshold itself
        let p = ScoresToLabels {
            network_dims: [2, 1, 1],
            target_dims: [5, 1, 1],
            network_from_target: Affine::scale_then_shift([0.25, 1., 1.], [0.; 3]),
            interpolation: LINEAR,
            label_of_channel: &[4, 5, 6],
            rule: Rule::LastAbove(0.0),
        };
        assert_eq!(scores_to_labels_cpu(&scores, &p), [6, 6, 6, 6, 4]);
        assert_eq!(scores_to_labels_cpu(&scores, &ScoresToLabels { rule: Rule::LastAbove(0.5), ..p.clone() }), [6, 6, 4, 4, 4]);
        assert_eq!(scores_to_labels_cpu(&scores, &ScoresToLabels { rule: Rule::LastAbove(1.0), ..p }), [0; 5]);
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
            interpolation: LINEAR,
            label_of_channel: &label_of_channel,
            rule: Rule::Highest,
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
        let (network_dims, scores) = waves();
        let cases = [
            (Affine::scale_then_shift([0.55, 0.7, 0.8], [-0.2, 0.1, 0.15]), ALIGNED),
            (Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 0.8, 0.2], [0.2, -0.1, 0.7], [0.4, -0.2, 0.3]), OBLIQUE),
        ];
        for (network_from_target, expected) in cases {
            let (target_dims, interpolation) = ([7, 4, 3], LINEAR);
            let p = ScoresToLabels {
                network_dims,
                target_dims,
                network_from_target,
                interpolation,
                label_of_channel: &[0, 3, 9],
                rule: Rule::Highest,
            };
            assert_eq!(scores_to_labels_cpu(&scores, &p), expected);
        }
    }

    // import numpy as np
    // from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg       # 2.8.1
    // c, z, y, x = np.meshgrid(np.arange(3), np.arange(3), np.arange(3), np.arange(4), indexing="ij")
    // scores = (np.sin(1.7 * x + c * 2.1) + np.cos(1.3 * y - c) * np.sin(0.9 * z + c)).astype(np.float32)
    // out = resample_data_or_seg(scores, (7, 4, 7), axis=0, order=1, do_separate_z=True, order_z=0, dtype_out=np.float64)
    // srt = np.sort(out, axis=0); print("margin", (srt[-1] - srt[-2]).min())
    // print(np.array([0, 3, 9])[out.argmax(0)].ravel().tolist())
    #[test]
    fn nnunet_agrees_across_thick_slices() {
        let (network_dims, scores) = waves();
        let target_dims = [7, 4, 7];
        // Both grids cover the same box.
        let scale: [f64; 3] = std::array::from_fn(|s| f64::from(network_dims[s]) / f64::from(target_dims[s]));
        let p = ScoresToLabels {
            network_dims,
            target_dims,
            network_from_target: Affine::scale_then_shift(scale, scale.map(|s| s / 2.0 - 0.5)),
            interpolation: [Interpolation::Linear, Interpolation::Linear, Interpolation::Nearest],
            label_of_channel: &[0, 3, 9],
            rule: Rule::Highest,
        };
        assert_eq!(scores_to_labels_cpu(&scores, &p), THICK_SLICES);
    }

    /// Scores of the classes that the scripts above have, and the dimensions of their grid.
    fn waves() -> ([u32; 3], Vec<f32>) {
        let network_dims = [4, 3, 3];
        let wave = |c: u32, v: [u32; 3]| {
            let ([x, y, z], c) = (v.map(f64::from), f64::from(c));
            ((1.7 * x + c * 2.1).sin() + (1.3 * y - c).cos() * (0.9 * z + c).sin()) as f32
        };
        (network_dims, (0..3).flat_map(|c| voxels(network_dims).map(move |v| wave(c, v))).collect())
    }

    /// The peak of memory beyond the scores, on the largest grid that is promised.
    #[test]
    #[cfg(target_os = "linux")]
    #[ignore = "needs 5 GB of memory, and seconds where debug builds need minutes"]
    fn memory_does_not_grow_with_classes() {
        const CLASSES: usize = 105;
        let (network_dims, target_dims) = ([239, 239, 200], [512, 512, 300]);
        let plane = |c: usize, [i, j, k]: [u32; 3]| ((i + j) as usize * (c % 7) + k as usize * (c % 11) + 37 * c) % 509;
        let mut scores: Vec<f32> = Vec::with_capacity(CLASSES * 239 * 239 * 200);
        (0..CLASSES).for_each(|c| scores.extend(voxels(network_dims).map(|v| plane(c, v) as f32)));
        let p = ScoresToLabels {
            network_dims,
            target_dims,
            network_from_target: covering(network_dims, target_dims, [[0.466, 0., 0.], [0., 0.466, 0.], [0., 0., 0.666]]),
            interpolation: LINEAR,
            label_of_channel: &(0..CLASSES as u8).collect::<Vec<_>>(),
            rule: Rule::Highest,
        };
        let start = std::time::Instant::now();
        let labels = scores_to_labels_cpu(&scores, &p);
        let seconds = start.elapsed().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        let beyond = peak.expect("Linux says it") * 1024 - size_of_val(&scores[..]);
        println!("{} labels of {CLASSES} classes in {seconds:.2} s, {} MB beyond the scores", labels.len(), beyond / 1_000_000);
        assert!(beyond < 1_500_000_000);
    }

    const THICK_SLICES: [u8; 196] = [
        3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3, 3, 3, 3, 0, 9, 9, 9, 3, 3, 0, 0, 9, 9, 9, 9, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3, 3, 3, 3,
        0, 9, 9, 9, 3, 3, 0, 0, 9, 9, 9, 9, 3, 0, 0, 0, 9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3, 3, 3, 3, 0, 9, 9, 9, 3, 3, 0, 0, 0,
        9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3, 3, 3, 3, 0, 9, 9, 9, 3, 3, 0, 0, 0, 9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3,
        3, 3, 3, 0, 9, 9, 9, 3, 3, 0, 0, 0, 9, 9, 3, 3, 0, 0, 0, 9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3, 3, 3, 0, 0, 0, 9, 9, 3, 3,
        0, 0, 0, 9, 3, 3, 3, 3, 0, 0, 9, 3, 3, 3, 3, 0, 9, 9, 3, 3,
    ];
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
            let across = [Interpolation::Linear, Interpolation::Linear, Interpolation::Nearest];
            let cases = LINEARS.into_iter().flat_map(|linear| [(linear, LINEAR), (linear, across)]);
            let rules = [Rule::Highest, Rule::LastAbove(0.4)];
            for ((linear, interpolation), rule) in cases.flat_map(|case| rules.map(|rule| (case, rule))) {
                let p = ScoresToLabels {
                    network_dims,
                    target_dims,
                    network_from_target: covering(network_dims, target_dims, linear),
                    interpolation,
                    label_of_channel: &labels_of(4),
                    rule,
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
