//! Values on the source grid made of all class scores at each voxel, interpolated as for labels.

use std::ops::Range;

use super::lattice::AxisTable;
use super::rows::{fill_rows, zeroed_voxels};
use super::scores_to_labels::{ScoresToLabels, lerp};

/// Gap between the best and the second best interpolated score at each target voxel, infinite for one channel: how near a label
/// of [`scores_to_labels_cpu`](super::scores_to_labels_cpu) is to another.
///
/// # Panics
/// As [`scores_to_labels_cpu`](super::scores_to_labels_cpu).
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
/// As [`scores_to_labels_cpu`](super::scores_to_labels_cpu).
pub fn map_scores_cpu(scores: &[f32], p: &ScoresToLabels<'_>, value: impl Fn(&mut [f32]) -> f32 + Sync + Send) -> Vec<f32> {
    let lattice = p.lattice(scores);
    let field = p.scores(scores);
    let mut out = zeroed_voxels(p.target_dims);
    let value_between = |between: &mut [f32], left: &[f32], right: &[f32], weight: f32| {
        between.iter_mut().zip(left.iter().zip(right)).for_each(|(out, (&a, &b))| *out = lerp(a, b, weight));
        value(between)
    };
    if let Some((along, [x, y, z])) = lattice.tables() {
        let runs = runs(&x);
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

/// Neighbouring target voxels in the same cell.
struct Run {
    target: Range<usize>,
    lower: usize,
}

/// The runs of a row.
fn runs(table: &AxisTable) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (n, &lower) in table.lower.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.lower == lower as usize => run.target.end = n + 1,
            _ => runs.push(Run { target: n..n + 1, lower: lower as usize }),
        }
    }
    runs
}
