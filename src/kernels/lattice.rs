//! Where target voxels fall between source voxels: the same tables for the GPU and the CPU implementation.
//!
//! `position(i, j, k) = steps[0][i] + (steps[1][j] + steps[2][k])` along each source axis. The tables are made in `f64` and split
//! into whole and fraction, so that a coordinate is good to 3e-7 voxels on a grid of any size, and both implementations add the
//! same numbers in the same order. Twin: `shaders/shared/lattice.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use crate::geometry::Affine;

/// How values between voxel centres are made. Outside the source the edge voxel continues, where the kernel does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// The nearest voxel; halfway, the one of higher index.
    Nearest,
    /// Linear along each axis.
    Linear,
    /// The mean over the target voxel's box, by how much of each source voxel lies in it; linear where the target is finer. Parallel axes only.
    Area,
    /// Linear with the weights widened to the target's spacing, as `antialias` elsewhere; linear where the target is finer. Parallel axes only.
    Antialiased,
    /// The cubic spline through all voxels: B-splines of order 3 with their inverse filter, as `order=3` in SciPy.
    Cubic,
}

impl Interpolation {
    /// Whether every source voxel that a target voxel covers has a weight: for grids with parallel axes.
    pub fn covers(self) -> bool {
        matches!(self, Self::Area | Self::Antialiased)
    }
}

/// What one target index adds to the position along each source axis (i, j, k): whole voxels, and 0 to 1 of a voxel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct Step {
    /// Whole voxels.
    pub cell: [i32; 3],
    /// WGSL alignment.
    pub _pad0: u32,
    /// The rest.
    pub fraction: [f32; 3],
    /// WGSL alignment.
    pub _pad1: u32,
}

/// The 8 source voxels around a position: lower and upper index along each axis, and the weight of the upper one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub(super) lower: [usize; 3],
    pub(super) upper: [usize; 3],
    pub(super) weight: [f32; 3],
}

/// The cells along one source axis, for every index along the target axis that follows it. Monotone.
#[derive(Debug)]
pub(super) struct AxisTable {
    pub(super) lower: Vec<u32>,
    pub(super) weight: Vec<f32>,
    /// Whether the nearest voxel would lie outside the source.
    pub(super) outside: Vec<bool>,
    last: u32,
}

impl AxisTable {
    /// Lower and upper source index and the upper one's weight at target index `n`.
    pub(super) fn cell(&self, n: usize) -> (usize, usize, f32) {
        let lower = self.lower[n];
        (lower as usize, (lower + 1).min(self.last) as usize, self.weight[n])
    }

    /// The runs of neighbouring target indices in the same cell.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (n, &lower) in self.lower.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.lower == lower as usize => run.target.end = n + 1,
                _ => runs.push(Run { target: n..n + 1, lower: lower as usize, upper: (lower + 1).min(self.last) as usize }),
            }
        }
        runs
    }
}

/// Neighbouring target indices in the same cell.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) target: Range<usize>,
    pub(super) lower: usize,
    pub(super) upper: usize,
}

/// Positions of a whole target grid in a source grid.
#[derive(Debug)]
pub(super) struct Lattice {
    pub(super) source_dims: [u32; 3],
    pub(super) target_dims: [u32; 3],
    /// For each target axis, one entry an index.
    pub(super) steps: [Vec<Step>; 3],
    /// Where the axes of both grids are parallel: the target axis along which each source axis runs.
    pub(super) aligned: Option<[usize; 3]>,
    /// Where rows of the target run along rows of the source, as in a sheared stack: its j and k do not change along the target's i.
    pub(super) rows_run_along: bool,
    /// Along each source axis.
    interpolation: [Interpolation; 3],
}

/// Axes count as parallel where the rest of the map moves no voxel by more than this many voxels: about what a weight in `f32`
/// resolves, and far above the rounding of composed `f64` affines (1e-10).
const PARALLEL_VOXELS: f64 = 1e-7;

impl Lattice {
    /// # Panics
    /// On an empty axis or a number that is not finite: broken promises of the caller.
    pub(super) fn new(source_dims: [u32; 3], target_dims: [u32; 3], source_from_target: &Affine, interpolation: Interpolation) -> Self {
        Self::by_axis(source_dims, target_dims, source_from_target, [interpolation; 3])
    }

    /// [`Self::new`] with an interpolation for each source axis (i, j, k).
    pub(super) fn by_axis(
        source_dims: [u32; 3],
        target_dims: [u32; 3],
        source_from_target: &Affine,
        interpolation: [Interpolation; 3],
    ) -> Self {
        let rows = source_from_target.rows();
        let sizes = source_dims.iter().chain(&target_dims);
        assert!(sizes.clone().all(|&n| n > 0 && f64::from(n) < FAR), "every axis has 1 to 2^29 voxels: {sizes:?}");
        assert!(rows.iter().flatten().all(|v| v.is_finite()), "affines are finite");
        let aligned = parallel_axes(&rows, target_dims);
        let rows_run_along = (1..3).all(|s| rows[s][0].abs() * f64::from(target_dims[0] - 1) <= PARALLEL_VOXELS);
        let half = interpolation.map(|along| if along == Interpolation::Nearest { 0.5 } else { 0.0 });
        let steps = std::array::from_fn(|t| {
            (0..target_dims[t])
                .map(|n| {
                    let mut step = Step::default();
                    for (s, row) in rows.iter().enumerate() {
                        let runs_along = aligned.map_or(s, |axes| axes[s]);
                        let stray = (aligned.is_some() && runs_along != t) || (rows_run_along && t == 0 && s != 0);
                        let slope = if stray { 0.0 } else { row[t] };
                        let shift = if runs_along == t { row[3] + half[s] } else { 0.0 };
                        let at = slope * f64::from(n) + shift;
                        let whole = at.floor().clamp(-FAR, FAR);
                        step.cell[s] = whole as i32;
                        step.fraction[s] = (at - whole).clamp(0.0, 1.0) as f32;
                    }
                    step
                })
                .collect()
        });
        Self { source_dims, target_dims, steps, aligned, rows_run_along, interpolation }
    }

    /// What row (j, k) of the target adds to the position of each of its voxels.
    pub(super) fn row(&self, j: usize, k: usize) -> Step {
        let [y, z] = [&self.steps[1][j], &self.steps[2][k]];
        Step {
            cell: std::array::from_fn(|s| y.cell[s] + z.cell[s]),
            fraction: std::array::from_fn(|s| y.fraction[s] + z.fraction[s]),
            ..Step::default()
        }
    }

    /// The cell of voxel `i` in a [`Self::row`].
    #[inline(always)]
    pub(super) fn cell(&self, i: usize, row: &Step) -> Cell {
        let x = &self.steps[0][i];
        let mut cell = Cell { lower: [0; 3], upper: [0; 3], weight: [0.0; 3] };
        for s in 0..3 {
            let (lower, weight) = self.place(s, x.cell[s] + row.cell[s], x.fraction[s] + row.fraction[s]);
            cell.lower[s] = lower as usize;
            cell.upper[s] = (lower + 1).min(self.source_dims[s] - 1) as usize;
            cell.weight[s] = weight;
        }
        cell
    }

    /// Lower and upper index along source axis `s` and the upper one's weight, where a [`Self::row`] lies as a whole: j and k of
    /// [`Self::rows_run_along`].
    pub(super) fn row_cell(&self, s: usize, row: &Step) -> (usize, usize, f32) {
        let (lower, weight) = self.place(s, row.cell[s], row.fraction[s]);
        (lower as usize, (lower + 1).min(self.source_dims[s] - 1) as usize, weight)
    }

    /// Index along the source's i and the upper one's weight for `range` of a [`Self::row`].
    pub(super) fn places_in_row(&self, range: Range<usize>, row: &Step, places: &mut Vec<u32>, weights: &mut Vec<f32>) {
        places.clear();
        weights.clear();
        for x in &self.steps[0][range] {
            let (lower, weight) = self.place(0, x.cell[0] + row.cell[0], x.fraction[0] + row.fraction[0]);
            places.push(lower);
            weights.push(weight);
        }
    }

    /// Whether the voxel nearest to voxel `i` of a [`Self::row`] (halfway, the one of higher index) lies outside the source.
    #[inline(always)]
    pub(super) fn nearest_is_outside(&self, i: usize, row: &Step) -> bool {
        let x = &self.steps[0][i];
        (0..3).any(|s| self.is_outside(s, x.cell[s] + row.cell[s], x.fraction[s] + row.fraction[s]))
    }

    /// Per-axis tables in source axis order, where the axes are parallel.
    pub(super) fn tables(&self) -> Option<([usize; 3], [AxisTable; 3])> {
        let axes = self.aligned?;
        let tables = std::array::from_fn(|s| {
            let places = self.steps[axes[s]].iter().map(|step| self.place(s, step.cell[s], step.fraction[s]));
            let (lower, weight) = places.unzip();
            let outside = self.steps[axes[s]].iter().map(|step| self.is_outside(s, step.cell[s], step.fraction[s])).collect();
            AxisTable { lower, weight, outside, last: self.source_dims[s] - 1 }
        });
        Some((axes, tables))
    }

    /// Target entries in the order of the shader: i, then j, then k.
    pub(super) fn all_steps(&self) -> Vec<Step> {
        self.steps.concat()
    }

    /// Bounds of the source slices in which cells of target slices `first..end` have their lower corner.
    pub(super) fn source_slices(&self, first: usize, end: usize) -> (u32, u32) {
        let span = |steps: &[Step]| {
            let cells = steps.iter().map(|step| i64::from(step.cell[2]));
            (cells.clone().min().unwrap_or(0), cells.max().unwrap_or(0))
        };
        let spans = [span(&self.steps[0]), span(&self.steps[1]), span(&self.steps[2][first..end])];
        let last = i64::from(self.source_dims[2]) - 1;
        let low: i64 = spans.iter().map(|s| s.0).sum();
        let high: i64 = spans.iter().map(|s| s.1).sum::<i64>() + 3; // three fractions of up to 1
        (low.clamp(0, last) as u32, high.clamp(0, last) as u32)
    }

    #[inline(always)]
    fn is_outside(&self, axis: usize, cell: i32, fraction: f32) -> bool {
        let half = if self.interpolation[axis] == Interpolation::Nearest { 0.0 } else { 0.5 }; // the steps have it already
        let at = cell + (fraction + half) as i32;
        at < 0 || at >= self.source_dims[axis] as i32
    }

    #[inline(always)]
    fn place(&self, axis: usize, cell: i32, fraction: f32) -> (u32, f32) {
        let whole = fraction as i32; // its floor, since it is not negative
        let at = cell + whole;
        let last = (self.source_dims[axis] - 1) as i32;
        let inside = at >= 0 && at < last && self.interpolation[axis] == Interpolation::Linear;
        (at.clamp(0, last) as u32, if inside { fraction - whole as f32 } else { 0.0 })
    }
}

/// Beyond every grid, and three of them still fit an `i32`.
const FAR: f64 = (1 << 29) as f64;

pub(super) fn parallel_axes(rows: &[[f64; 4]; 3], target_dims: [u32; 3]) -> Option<[usize; 3]> {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]];
    ORDERS.into_iter().find(|axes| {
        (0..3).all(|s| {
            let stray = (0..3).filter(|&t| t != axes[s]).map(|t| rows[s][t].abs() * f64::from(target_dims[t] - 1));
            stray.sum::<f64>() <= PARALLEL_VOXELS
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(source_from_target: &Affine, target_dims: [u32; 3], expected: Option<[usize; 3]>) {
        assert_eq!(Lattice::new([9; 3], target_dims, source_from_target, Interpolation::Linear).aligned, expected);
    }

    #[test]
    fn parallel_axes_are_found() {
        check(&Affine::IDENTITY, [5; 3], Some([0, 1, 2]));
        // source i runs along target k, j along i, k along j, one of them flipped
        let turned = Affine::from_columns([0., -1., 0.], [0., 0., 2.], [0.5, 0., 0.], [1., 2., 3.]);
        check(&turned, [5; 3], Some([2, 0, 1]));
        let rounding = Affine::from_columns([1., 1e-13, 0.], [0., 1., -1e-13], [1e-13, 0., 1.], [0.; 3]);
        check(&rounding, [1000; 3], Some([0, 1, 2]));
        let tilted = Affine::from_columns([1., 1e-4, 0.], [-1e-4, 1., 0.], [0., 0., 1.], [0.; 3]);
        check(&tilted, [512; 3], None);
        check(&tilted, [1; 3], Some([0, 1, 2]));
    }

    #[test]
    fn edges_clamp_and_halves_go_up() {
        let at = |x: f64, interpolation| {
            let shift = Affine::scale_then_shift([1.; 3], [x, 0., 0.]);
            let lattice = Lattice::new([4, 1, 1], [1; 3], &shift, interpolation);
            let cell = lattice.cell(0, &lattice.row(0, 0));
            (cell.lower[0], cell.upper[0], cell.weight[0])
        };
        assert_eq!(at(-7.5, Interpolation::Linear), (0, 1, 0.0));
        assert_eq!(at(1.25, Interpolation::Linear), (1, 2, 0.25));
        assert_eq!(at(3.0, Interpolation::Linear), (3, 3, 0.0));
        assert_eq!(at(1e300, Interpolation::Linear), (3, 3, 0.0));
        assert_eq!(at(1.5, Interpolation::Nearest).0, 2);
        assert_eq!(at(1.499, Interpolation::Nearest).0, 1);
        assert_eq!(at(-0.5, Interpolation::Nearest).0, 0);
    }

    proptest! {
        #[test]
        fn positions_are_those_of_the_affine(
            v in prop::array::uniform9(-2.0..2.0f64),
            t in prop::array::uniform3(-900.0..900.0f64),
            voxel in prop::array::uniform3(0..1000usize),
        ) {
            let map = Affine::from_columns([v[0], v[1], v[2]], [v[3], v[4], v[5]], [v[6], v[7], v[8]], t);
            let lattice = Lattice::new([1000; 3], [1000; 3], &map, Interpolation::Linear);
            let cell = lattice.cell(voxel[0], &lattice.row(voxel[1], voxel[2]));
            let exact = map.apply(voxel.map(|n| n as f64)).map(|x| x.clamp(0.0, 999.0));
            for (s, x) in exact.into_iter().enumerate() {
                prop_assert!((cell.lower[s] as f64 + f64::from(cell.weight[s]) - x).abs() < 6e-7);
            }
            let (first, last) = lattice.source_slices(voxel[2], voxel[2] + 1);
            prop_assert!(first as usize <= cell.lower[2] && cell.lower[2] <= last as usize);
        }

        #[test]
        fn tables_are_the_cells(scale in prop::array::uniform3(-3.0..3.0f64), shift in prop::array::uniform3(-9.0..9.0f64)) {
            let map = Affine::scale_then_shift(scale, shift);
            let lattice = Lattice::new([7, 1, 5], [11, 6, 4], &map, Interpolation::Linear);
            let (axes, tables) = lattice.tables().expect("scaling keeps axes parallel");
            for voxel in [[0, 0, 0], [10, 5, 3], [4, 2, 1]] {
                let cell = lattice.cell(voxel[0], &lattice.row(voxel[1], voxel[2]));
                for s in 0..3 {
                    prop_assert_eq!(tables[s].cell(voxel[axes[s]]), (cell.lower[s], cell.upper[s], cell.weight[s]));
                }
            }
        }
    }
}
