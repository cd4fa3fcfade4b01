//! Values on the source grid made of all class scores at each voxel, interpolated as for labels: everywhere, or in some regions.

use rayon::prelude::*;

use super::lattice::Cell;
use super::regions::{RegionRuns, Run as VoxelRun};
use super::rows::{fill_rows, zeroed_voxels};
use super::scores_to_labels::{Rule, Scores, ScoresToLabels, lerp};

/// How near a label of [`scores_to_labels_cpu`](super::scores_to_labels_cpu) is to another: the gap between the best and the second best
/// interpolated score at each target voxel, infinite for one channel; of regions the least gap between a score and what it must be above.
///
/// # Panics
/// As [`scores_to_labels_cpu`](super::scores_to_labels_cpu).
pub fn scores_margin_cpu(scores: &[f32], p: &ScoresToLabels<'_>) -> Vec<f32> {
    if let Rule::LastAbove(above) = p.rule {
        return map_scores_cpu(scores, p, |scores| scores.iter().map(|score| (score - above).abs()).fold(f32::INFINITY, f32::min));
    }
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
/// As [`scores_to_labels_cpu`](super::scores_to_labels_cpu).
pub fn map_scores_cpu(scores: &[f32], p: &ScoresToLabels<'_>, value: impl Fn(&mut [f32]) -> f32 + Sync + Send) -> Vec<f32> {
    let lattice = p.lattice(scores);
    let field = p.scores(scores);
    let mut out = zeroed_voxels(p.target_dims);
    let value_between = |between: &mut [f32], left: &[f32], right: &[f32], weight: f32| {
        interpolate(between, left, right, weight);
        value(between)
    };
    if let Some((along, [x, y, z])) = lattice.tables() {
        let runs = x.runs();
        let scratch = || (Columns::new(field.channels), vec![0.0; field.channels]);
        fill_rows(&mut out, p.target_dims, along, scratch, |(columns, between), j, k, range, values| {
            let (j0, j1, wj) = y.cell(j);
            let (k0, k1, wk) = z.cell(k);
            columns.restart();
            for run in &runs {
                let target = run.target.start.max(range.start)..run.target.end.min(range.end);
                if target.is_empty() {
                    continue;
                }
                let (left, right) = columns.at(run.lower, run.upper, |i, column| field.column(column, i, [j0, j1], [k0, k1], [wj, wk]));
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

/// What the values at the voxels of a region come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegionValues {
    /// The greatest.
    pub greatest: f32,
    /// Their mean, added up in the order of memory; NaN where one of them is.
    pub mean: f64,
}

/// The values that [`map_scores_cpu`] has at the voxels of each region of the target, to the bit, added up; `None` for a region without
/// voxels. Time and memory go with the voxels of the regions, not with those of the target.
///
/// # Panics
/// As [`scores_to_labels_cpu`](super::scores_to_labels_cpu), and where a region lies outside the target.
pub fn region_values_cpu(
    scores: &[f32],
    p: &ScoresToLabels<'_>,
    regions: &RegionRuns,
    value: impl Fn(&mut [f32]) -> f32 + Sync + Send,
) -> Vec<Option<RegionValues>> {
    let lattice = p.lattice(scores);
    let field = p.scores(scores);
    let of_region = |sampler: &mut Sampler<'_>, runs: &[VoxelRun]| {
        let (mut greatest, mut sum, mut voxels) = (f32::NEG_INFINITY, 0.0, 0u64);
        for run in runs {
            let row = lattice.row(run.j as usize, run.k as usize);
            for i in run.start..run.end {
                let value = value(sampler.at(&lattice.cell(i as usize, &row)));
                greatest = greatest.max(value);
                sum += f64::from(value);
            }
            voxels += u64::from(run.end - run.start);
        }
        (voxels > 0).then(|| RegionValues { greatest, mean: sum / voxels as f64 })
    };
    regions.regions().map_init(|| Sampler::new(&field), of_region).collect()
}

/// Interpolated scores of single voxels.
struct Sampler<'a> {
    field: &'a Scores<'a>,
    columns: Columns,
    /// Where along j and k the columns lie: lower index, bits of the weight.
    place: [(usize, u32); 2],
    between: Vec<f32>,
}

impl<'a> Sampler<'a> {
    fn new(field: &'a Scores<'a>) -> Self {
        Self { field, columns: Columns::new(field.channels), place: [(0, 0); 2], between: vec![0.0; field.channels] }
    }

    /// Those of all channels.
    fn at(&mut self, cell: &Cell) -> &mut [f32] {
        let place = [1, 2].map(|s| (cell.lower[s], cell.weight[s].to_bits()));
        if place != self.place {
            self.columns.restart();
            self.place = place;
        }
        let [j, k] = [1, 2].map(|s| [cell.lower[s], cell.upper[s]]);
        let load = |i, column: &mut [f32]| self.field.column(column, i, j, k, [cell.weight[1], cell.weight[2]]);
        let (left, right) = self.columns.at(cell.lower[0], cell.upper[0], load);
        interpolate(&mut self.between, left, right, cell.weight[0]);
        &mut self.between
    }
}

/// Scores of all channels between two columns.
fn interpolate(between: &mut [f32], left: &[f32], right: &[f32], weight: f32) {
    between.iter_mut().zip(left.iter().zip(right)).for_each(|(out, (&a, &b))| *out = lerp(a, b, weight));
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
