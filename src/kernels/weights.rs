//! Interpolation along one axis as weighted sums: for each target index the source indices in reach, and their weights.
//!
//! Tables are made in `f64` and sum to 1. Edge voxels continue beyond the source: what would lie there is added to their weights.

use std::ops::Range;

use super::lattice::{Interpolation, Lattice};
use super::resample::Resample;
use crate::gpu::{Buffer, Gpu, GpuError};

/// Weights of a spline below this one are left out, and the others divided by their sum: at most 24 of 1 are left, and a sum is off by less
/// than 2e-7 of the range of values, three units in the last place of an `f32`.
const LEAST_SPLINE_WEIGHT: f64 = 1e-7;

/// Source indices on either side of a position that can have a weight above [`LEAST_SPLINE_WEIGHT`].
pub(super) const SPLINE_REACH: i64 = 13;

/// How far below halfway still counts as halfway, voxels: the rounding of composed `f64` affines, for scales that meet halves exactly.
const HALFWAY: f64 = 1e-7;

/// For each target index the source indices in reach along one axis, and their weights.
#[derive(Debug)]
pub(super) struct AxisWeights {
    /// First source index and first weight; the next one's first weight is the end. One more than there are target indices.
    pub(super) spans: Vec<[u32; 2]>,
    pub(super) weights: Vec<f32>,
}

impl AxisWeights {
    /// `position` is where target index 0 lies, `step` how far apart they are, both in source voxels; `width`: of a target voxel, at least 1;
    /// `outside`: whether an index has no weights.
    fn new(
        [source, target]: [u32; 2],
        [position, step]: [f64; 2],
        width: f64,
        interpolation: Interpolation,
        outside: impl Fn(usize) -> bool,
    ) -> Self {
        Self::of(target, |n| match interpolation {
            _ if outside(n as usize) => (0, Vec::new()),
            Interpolation::Nearest => (nearest(source, position + step * f64::from(n)), vec![1.0]),
            Interpolation::Cubic => spline(source, position + step * f64::from(n), cardinal_spline),
            Interpolation::Linear | Interpolation::Antialiased => {
                let width = if interpolation == Interpolation::Linear { 1.0 } else { width };
                covered(source, position + step * f64::from(n), width, |distance| (width - distance).max(0.0))
            }
            Interpolation::Area => {
                let reach = (width + 1.0) / 2.0;
                covered(source, position + step * f64::from(n), reach, |distance| (reach - distance).clamp(0.0, 1.0))
            }
        })
    }

    /// What makes the coefficients of cubic B-splines of a line of `source` values and of [`SPLINE_REACH`] edge values beyond either end:
    /// index n is that of value n - [`SPLINE_REACH`].
    pub(super) fn of_coefficients(source: u32) -> Self {
        let inverse = |distance: f64| inverse_filter(distance as i64);
        Self::of(source + 2 * SPLINE_REACH as u32, |n| spline(source, f64::from(n) - SPLINE_REACH as f64, inverse))
    }

    /// `target` indices, each with the first source index in reach and the weights from there on.
    fn of(target: u32, reach: impl Fn(u32) -> (u32, Vec<f64>)) -> Self {
        let mut table = Self { spans: Vec::with_capacity(target as usize + 1), weights: Vec::new() };
        for n in 0..target {
            let (first, weights) = reach(n);
            table.spans.push([first, table.weights.len() as u32]);
            table.weights.extend(weights.iter().map(|&weight| weight as f32));
        }
        table.spans.push([0, table.weights.len() as u32]);
        table
    }

    /// The same of a source that begins `by` voxels earlier.
    fn shifted(mut self, by: u32) -> Self {
        let targets = self.len();
        self.spans[..targets].iter_mut().for_each(|[first, _]| *first += by);
        self
    }

    /// Target indices.
    pub(super) fn len(&self) -> usize {
        self.spans.len() - 1
    }

    /// First source index in reach of target index `n`, and the weights from there on; none outside.
    pub(super) fn at(&self, n: usize) -> (usize, &[f32]) {
        let [[first, start], [_, end]] = [self.spans[n], self.spans[n + 1]];
        (first as usize, &self.weights[start as usize..end as usize])
    }

    /// Source indices in reach of some target indices.
    pub(super) fn reach(&self, range: Range<usize>) -> Range<u32> {
        let spans = range.map(|n| (self.spans[n][0], self.spans[n + 1][1] - self.spans[n][1])).filter(|(_, count)| *count > 0);
        let wider = |a: Range<u32>, b: Range<u32>| a.start.min(b.start)..a.end.max(b.end);
        spans.map(|(first, count)| first..first + count).reduce(wider).unwrap_or(0..1)
    }
}

/// The tables of three axes as the shaders read them: where the spans of each axis start, and buffers of all spans and all weights.
pub(super) fn upload(gpu: &Gpu, tables: &[AxisWeights; 3]) -> Result<([u32; 3], [Buffer; 2]), GpuError> {
    let mut spans = Vec::new();
    let mut weights: Vec<f32> = Vec::new();
    let first_span = tables.each_ref().map(|table| {
        let first = spans.len() as u32;
        spans.extend(table.spans.iter().map(|[source, weight]| [*source, weight + weights.len() as u32]));
        weights.extend(&table.weights);
        first
    });
    Ok((first_span, [gpu.upload("weights: spans", &spans)?, gpu.upload("weights: weights", &weights)?]))
}

/// Target axes along source axes, and weights along these; `lattice` is that of the source's box, the weights are of the whole source.
///
/// # Panics
/// Where the axes of both grids are not parallel: a broken promise of the caller.
pub(super) fn tables(p: &Resample, lattice: &Lattice, padded: bool) -> ([usize; 3], [AxisWeights; 3]) {
    let (along, places) = lattice.tables().expect("the axes of both grids are parallel");
    let rows = p.source_from_target.rows();
    let start = p.source_box.map_or([0; 3], |[low, _]| low);
    let of = |s: usize| {
        let outside = |n: usize| padded && places[s].outside[n];
        let t = along[s];
        // Not the step: a target axis of one voxel may be taken for another one, whose step it is not.
        let width = rows[s][..3].iter().fold(1.0, |width: f64, step| width.max(step.abs()));
        let interpolation = if p.nearest_along == Some(s) { Interpolation::Nearest } else { p.interpolation };
        let position = rows[s][3] - f64::from(start[s]);
        AxisWeights::new([lattice.source_dims[s], lattice.target_dims[t]], [position, rows[s][t]], width, interpolation, outside)
            .shifted(start[s])
    };
    (along, [of(0), of(1), of(2)])
}

/// The source index nearest to `at`; halfway, the higher one.
fn nearest(source: u32, at: f64) -> u32 {
    (at + 0.5 + HALFWAY).floor().clamp(0.0, f64::from(source - 1)) as u32
}

/// Source indices within `reach` of `at`, weighted by their distance.
fn covered(source: u32, at: f64, reach: f64, weight: impl Fn(f64) -> f64) -> (u32, Vec<f64>) {
    let last = f64::from(source - 1);
    let weight = |index: u32| weight((f64::from(index) - at).abs());
    let mut first = (at - reach).ceil().clamp(0.0, last) as u32;
    let mut end = (at + reach).floor().clamp(0.0, last) as u32;
    while first < end && weight(first) == 0.0 {
        first += 1;
    }
    while first < end && weight(end) == 0.0 {
        end -= 1;
    }
    let raw: Vec<f64> = (first..=end).map(weight).collect();
    let sum: f64 = raw.iter().sum();
    // Beyond the edge voxels there is only the nearer one of these.
    (first, raw.iter().map(|weight| if sum > 0.0 { weight / sum } else { 1.0 / raw.len() as f64 }).collect())
}

/// Source values weighted by their distance from `at`, edge values continued without end: with [`cardinal_spline`] the cubic spline through
/// all of them, SciPy's with mode `nearest`, but for the 12 voxels that it continues them by (1e-7 of a step at the edge).
fn spline(source: u32, at: f64, weight: impl Fn(f64) -> f64) -> (u32, Vec<f64>) {
    let last = i64::from(source) - 1;
    // Beyond this the edge voxel alone is in reach.
    let at = at.clamp(-(SPLINE_REACH as f64), (last + SPLINE_REACH) as f64);
    let below = at.floor() as i64;
    let inside = |index: i64| index.clamp(0, last);
    let first = inside(below - SPLINE_REACH);
    let mut raw = vec![0.0; (inside(below + SPLINE_REACH + 1) - first + 1) as usize];
    for index in below - SPLINE_REACH..=below + SPLINE_REACH + 1 {
        raw[(inside(index) - first) as usize] += weight(at - index as f64);
    }
    let counts = |weight: &f64| weight.abs() >= LEAST_SPLINE_WEIGHT;
    let start = raw.iter().position(counts).unwrap_or(0);
    let end = raw.iter().rposition(counts).unwrap_or(0);
    let kept = &raw[start..=end];
    let sum: f64 = kept.iter().sum();
    (first as u32 + start as u32, kept.iter().map(|weight| weight / sum).collect())
}

/// The cubic spline that is 1 at 0 and 0 at every other whole number: the cubic B-spline and its inverse filter in one
/// (Unser, Splines: a perfect fit for signal and image processing, 1999, eq. 18).
fn cardinal_spline(distance: f64) -> f64 {
    let b_spline = |t: f64| match t.abs() {
        t if t < 1.0 => 2.0 / 3.0 - t * t * (2.0 - t) / 2.0,
        t if t < 2.0 => (2.0 - t).powi(3) / 6.0,
        _ => 0.0,
    };
    let below = distance.floor() as i64;
    (below - 1..=below + 2).map(|k| inverse_filter(k) * b_spline(distance - k as f64)).sum()
}

/// The filter that makes coefficients of B-splines of values, at `distance` from a value.
fn inverse_filter(distance: i64) -> f64 {
    let pole = 3f64.sqrt() - 2.0;
    -6.0 * pole / (1.0 - pole * pole) * pole.powi(distance.unsigned_abs() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spline_goes_through_every_voxel_and_along_every_line() {
        let table = |source, target, at, step| AxisWeights::new([source, target], [at, step], 1.0, Interpolation::Cubic, |_| false);
        // At the voxels: themselves alone.
        let same = table(9, 9, 0.0, 1.0);
        assert!((0..9).all(|n| same.at(n) == (n, &[1.0][..])), "{same:?}");
        // Far from the edges a straight line stays one; at every place weights sum to 1.
        let fine = table(60, 590, 0.0, 0.1);
        for n in 0..590 {
            let (first, weights) = fine.at(n);
            assert!((1..=24).contains(&weights.len()));
            let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            assert!((sum - 1.0).abs() < 3e-7, "{sum}");
            let found: f64 = (first..).zip(weights).map(|(s, w)| s as f64 * f64::from(*w)).sum();
            let expected = n as f64 / 10.0;
            assert!(!(20.0..40.0).contains(&expected) || (found - expected).abs() < 2e-5, "{found} is not {expected}");
        }
        // Beyond the source: the edge.
        assert_eq!(table(4, 1, -90.0, 1.0).at(0), (0, &[1.0][..]));
        assert_eq!(table(4, 1, 1e9, 1.0).at(0), (3, &[1.0][..]));
        assert_eq!(table(1, 3, 0.3, 0.2).at(2), (0, &[1.0][..]));
    }

    #[test]
    fn halfway_is_up_though_affines_are_rounded() {
        let table = AxisWeights::new([8, 4], [0.5 - 3e-13, 2.0], 2.0, Interpolation::Nearest, |_| false);
        assert_eq!([0, 1, 2, 3].map(|n| table.at(n).0), [1, 3, 5, 7]);
    }
}
