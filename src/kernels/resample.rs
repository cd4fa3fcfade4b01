//! From stored values to the network's input in one pass: rescale, interpolation, clip and normalisation.
//!
//! `out = (clip(interpolated(slope_k * stored + intercept_k)) - subtract) / divide`, where slope and intercept belong to the slice
//! of each interpolated voxel (PS3.3 C.11.1). Both implementations fold `subtract` and `divide` into slope, intercept and clip, in
//! `f64`, and subtract a pivot from the stored values first, so that values near output 0 keep all their digits whatever the
//! intercept. Integers are never expanded to a float copy, and both types
//! of stored values are read where they lie. Shader: `shaders/resample.wgsl`.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::area;
use super::bounding_box::Bounds;
use super::half::Output;
use super::lattice::{Interpolation, Lattice, Step, parallel_axes};
use super::rows::{fill_rows, zeroed_voxels};
use super::simd::wide;
use super::voxel::Voxel;
use super::{separable, spline};
use crate::geometry::Affine;
use crate::volume::{ImageVolume, LabelMap, Stored};

/// Source voxels that become output 0, before interpolation: normalisation within a mask.
#[derive(Debug, Clone, PartialEq)]
pub enum Background {
    /// Those whose physical value is not above this one.
    NotAbove(f64),
    /// Those of label 0, on a grid of the source's dimensions.
    Unlabelled(LabelMap),
}

/// What [`resample_cpu`] and [`resample_gpu`] make of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Resample {
    /// Voxels along i, j, k of the result.
    pub target_dims: [u32; 3],
    /// Source voxel (i, j, k) from target voxel (i, j, k).
    pub source_from_target: Affine,
    /// The source voxels that there are: what lies beyond this box is not looked at, as if the image ended at its faces. `None`: all of
    /// them. Parallel axes only.
    pub source_box: Option<Bounds>,
    /// How values between voxel centres are made.
    pub interpolation: Interpolation,
    /// A source axis along which the nearest voxel is taken, whatever `interpolation` is, as nnU-Net does across thick slices. Parallel
    /// axes only.
    pub nearest_along: Option<usize>,
    /// Physical value of target voxels that no source voxel is nearest to (their centre is half a voxel or more beyond the last
    /// centres along an axis), clipped and normalised as all others: the rule of ITK's resampling filter. `None`: edge voxels continue.
    pub outside: Option<f64>,
    /// Lowest and highest physical value, after interpolation; values beyond become these.
    pub clip: Option<[f64; 2]>,
    /// nnU-Net's order: source values are clipped instead of interpolated ones, and what a spline makes of them is kept within their range
    /// (that of their plane, across [`Self::nearest_along`]), as `clip=True` in scikit-image's `resize`. Splines, or parallel axes.
    pub values_first: bool,
    /// Splines, or parallel axes.
    pub background: Option<Background>,
    /// Physical value that becomes 0.
    pub subtract: f64,
    /// Physical units that become 1; not 0.
    pub divide: f64,
}

/// Uniforms of `shaders/resample.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct ResampleParams {
    /// Voxels of the whole source.
    pub source_dims: [u32; 3],
    /// First source slice whose cells this pass computes.
    pub first_owned: u32,
    /// Voxels of the whole target.
    pub target_dims: [u32; 3],
    /// End of the source slices whose cells this pass computes.
    pub end_owned: u32,
    /// Target slice that the output starts with.
    pub first_slice: u32,
    /// Lowest output.
    pub low: f32,
    /// Highest output.
    pub high: f32,
    /// Output outside the source, if that is asked for.
    pub outside: f32,
}

/// Output from stored value in one source slice: `slope * (stored - pivot) + offset`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct SliceScale {
    /// Output a stored unit.
    pub slope: f32,
    /// Output at the pivot.
    pub offset: f32,
    /// The stored value nearest to output 0.
    pub pivot: f32,
    /// WGSL alignment.
    pub pad: u32,
}

/// How values are interpolated.
pub(super) enum Way {
    /// From the 8 voxels around each: here.
    Cells,
    /// Axis by axis: `separable.rs`.
    Separable,
    /// Axis by axis, over boxes: `area.rs`.
    Area,
    /// From 64 coefficients around each: `spline.rs`.
    Spline,
}

impl Resample {
    /// Linear interpolation of physical values; edge voxels continue.
    pub fn new(target_dims: [u32; 3], source_from_target: Affine) -> Self {
        Self {
            target_dims,
            source_from_target,
            source_box: None,
            interpolation: Interpolation::Linear,
            nearest_along: None,
            outside: None,
            clip: None,
            values_first: false,
            background: None,
            subtract: 0.0,
            divide: 1.0,
        }
    }

    /// Whether the axes of both grids must be parallel.
    pub fn needs_parallel_axes(&self) -> bool {
        let of_values = self.values_first || self.background.is_some();
        self.interpolation.covers()
            || self.nearest_along.is_some()
            || self.source_box.is_some()
            || (of_values && self.interpolation != Interpolation::Cubic)
    }

    /// Whether the axes of both grids are parallel.
    pub fn has_parallel_axes(&self) -> bool {
        parallel_axes(&self.source_from_target.rows(), self.target_dims).is_some()
    }

    /// How it is computed.
    pub(super) fn way(&self, lattice: &Lattice) -> Way {
        let clips_first = self.values_first && self.clip.is_some(); // a normalisation alone commutes with weights
        match self.interpolation {
            _ if self.source_box.is_some() => Way::Separable,
            Interpolation::Cubic if lattice.aligned.is_none() && self.nearest_along.is_none() => Way::Spline,
            _ if self.interpolation == Interpolation::Cubic || self.nearest_along.is_some() || clips_first || self.background.is_some() => {
                Way::Separable
            }
            Interpolation::Area | Interpolation::Antialiased => Way::Area,
            _ => Way::Cells,
        }
    }

    pub(super) fn lattice(&self, image: &ImageVolume) -> Lattice {
        let [low, high] = self.bounds(image.grid().dims());
        let dims = std::array::from_fn(|s| high[s] - low[s] + 1);
        let box_from_source = Affine::scale_then_shift([1.0; 3], low.map(|n| -f64::from(n)));
        Lattice::new(dims, self.target_dims, &(box_from_source * self.source_from_target), self.interpolation)
    }

    /// [`Self::source_box`] in a source of `dims`.
    pub(super) fn bounds(&self, dims: [u32; 3]) -> Bounds {
        let Some([low, high]) = self.source_box else { return [[0; 3], dims.map(|n| n - 1)] };
        assert!((0..3).all(|s| low[s] <= high[s] && high[s] < dims[s]), "the box lies in the source");
        [low, high]
    }

    pub(super) fn slice_scales<T: Voxel>(&self, image: &ImageVolume) -> Vec<SliceScale> {
        assert!(self.divide != 0.0 && self.divide.is_finite() && self.subtract.is_finite(), "normalisation is invertible");
        assert_eq!(image.rescale.len(), image.grid().dims()[2] as usize, "one rescale a slice");
        let fold = |rescale: &crate::volume::Rescale| {
            let zero = (self.subtract - rescale.intercept) / rescale.slope;
            let pivot = T::nearest(zero);
            SliceScale {
                slope: (rescale.slope / self.divide) as f32,
                offset: ((rescale.slope * f64::from(pivot) + rescale.intercept - self.subtract) / self.divide) as f32,
                pivot,
                pad: 0,
            }
        };
        image.rescale.iter().map(fold).collect()
    }

    /// Lowest and highest output.
    pub(super) fn limits(&self) -> [f32; 2] {
        let Some([low, high]) = self.clip else { return [f32::MIN, f32::MAX] };
        assert!(low <= high, "clip is in order");
        let [a, b] = [low, high].map(|v| ((v - self.subtract) / self.divide) as f32);
        [a.min(b), a.max(b)] // a negative divisor turns them round
    }

    /// Output outside the source, where edge voxels do not continue.
    pub(super) fn outside_value(&self) -> Option<f32> {
        assert!(self.outside.is_none_or(f64::is_finite), "what lies outside is a number");
        self.outside.map(|value| clip(((value - self.subtract) / self.divide) as f32, self.limits()))
    }
}

/// Resamples on the CPU: `i` fastest, the shape is `target_dims`.
///
/// Parallel axes (any permutation and flip) go row by row through per-axis tables, and so do sheared grids whose rows run along the
/// source's; other maps go voxel by voxel. The same bits on every processor and for any number of threads.
///
/// Memory traffic: 2 (integers) or 4 (floats) bytes read a source voxel in reach, 4 written a target voxel.
///
/// # Panics
/// Where `divide` is 0, `clip` is not in order, or axes are not parallel and [`Resample::needs_parallel_axes`]: broken promises of the caller.
pub fn resample_cpu(image: &ImageVolume, p: &Resample) -> Vec<f32> {
    match &image.stored {
        Stored::Int16(stored) => resample_stored(image, stored.voxels(), p),
        Stored::Float32(stored) => resample_stored(image, stored.voxels(), p),
    }
}

/// [`resample_cpu`] in half precision: the bits of [`half_bits`](super::half::half_bits), 2 bytes written a target voxel.
///
/// # Panics
/// As [`resample_cpu`].
pub fn resample_half_cpu(image: &ImageVolume, p: &Resample) -> Vec<u16> {
    match &image.stored {
        Stored::Int16(stored) => resample_stored(image, stored.voxels(), p),
        Stored::Float32(stored) => resample_stored(image, stored.voxels(), p),
    }
}

fn resample_stored<T: Voxel, O: Output>(image: &ImageVolume, stored: &[T], p: &Resample) -> Vec<O> {
    let lattice = p.lattice(image);
    match p.way(&lattice) {
        Way::Spline => return spline::resample_spline(image, stored, p, &lattice),
        Way::Separable => return separable::resample_separable(image, stored, p),
        Way::Area => return area::resample_area(image, stored, p),
        Way::Cells => {}
    }
    let scales = p.slice_scales::<T>(image);
    let [nx, ny, _] = image.grid().dims().map(|n| n as usize);
    let source = Source { stored, nx, ny, scales: &scales, limits: p.limits() };
    let outside = p.outside_value();
    let mut out = zeroed_voxels(p.target_dims);
    if let Some((along, [x, y, z])) = lattice.tables() {
        let scratch = || (Vec::new(), Vec::new());
        fill_rows(&mut out, p.target_dims, along, scratch, |(blended, made), j, k, range, out| {
            O::row(out, made, |values| {
                if let Some(outside) = outside.filter(|_| y.outside[j] || z.outside[k]) {
                    values.fill(outside);
                    return;
                }
                source.row(blended, y.cell(j), z.cell(k), &x.lower[range.clone()], &x.weight[range.clone()], values);
                if let Some(outside) = outside {
                    values.iter_mut().zip(&x.outside[range]).filter(|(_, is)| **is).for_each(|(value, _)| *value = outside);
                }
            });
        });
        return out;
    }
    if lattice.rows_run_along {
        let scratch = || (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        fill_rows(&mut out, p.target_dims, [0, 1, 2], scratch, |(blended, places, weights, made), j, k, range, out| {
            O::row(out, made, |values| {
                let row = lattice.row(j, k);
                lattice.places_in_row(range.clone(), &row, places, weights);
                source.row(blended, lattice.row_cell(1, &row), lattice.row_cell(2, &row), places, weights, values);
                pad(&lattice, &row, range, outside, values);
            });
        });
        return out;
    }
    let linear = p.interpolation == Interpolation::Linear;
    fill_rows(&mut out, p.target_dims, [0, 1, 2], Vec::new, |made, j, k, range, out| {
        O::row(out, made, |values| {
            let row = lattice.row(j, k);
            for (i, value) in range.clone().zip(values.iter_mut()) {
                let cell = lattice.cell(i, &row);
                let ([i0, j0, k0], [i1, j1, k1], [wi, wj, wk]) = (cell.lower, cell.upper, cell.weight);
                let sum = if linear {
                    let along_i = |j, k| lerp(source.scaled(i0, j, k), source.scaled(i1, j, k), wi);
                    let along_j = |k| lerp(along_i(j0, k), along_i(j1, k), wj);
                    lerp(along_j(k0), along_j(k1), wk)
                } else {
                    source.scaled(i0, j0, k0)
                };
                *value = clip(sum, source.limits);
            }
            pad(&lattice, &row, range, outside, values);
        });
    });
    out
}

/// Writes `outside`, where there is one, over the values that have no source voxel nearest to them.
pub(super) fn pad(lattice: &Lattice, row: &Step, range: Range<usize>, outside: Option<f32>, values: &mut [f32]) {
    if let Some(outside) = outside {
        range.zip(values).filter(|(i, _)| lattice.nearest_is_outside(*i, row)).for_each(|(_, value)| *value = outside);
    }
}

/// Stored values and what makes outputs of them.
struct Source<'a, T> {
    stored: &'a [T],
    nx: usize,
    ny: usize,
    scales: &'a [SliceScale],
    limits: [f32; 2],
}

impl<T: Voxel> Source<'_, T> {
    #[inline(always)]
    fn scaled(&self, i: usize, j: usize, k: usize) -> f32 {
        let scale = &self.scales[k];
        scale.slope * (self.stored[(k * self.ny + j) * self.nx + i].number() - scale.pivot) + scale.offset
    }

    /// A row of outputs that runs along the source's i, at rows `j0` and `j1` of slices `k0` and `k1`: value `n` lies at
    /// `places[n] + weights[n]`.
    #[inline(always)]
    fn row(
        &self,
        blended: &mut Vec<f32>,
        (j0, j1, wj): (usize, usize, f32),
        (k0, k1, wk): (usize, usize, f32),
        places: &[u32],
        weights: &[f32],
        values: &mut [f32],
    ) {
        let (Some(&first), Some(&last)) = (places.first(), places.last()) else { return };
        let start = first.min(last) as usize;
        let end = (first.max(last) as usize + 2).min(self.nx);
        let scales = self.scales;
        let corner = |j: usize, k: usize, weight: f32| Row {
            stored: &self.stored[(k * self.ny + j) * self.nx..][start..end],
            factor: weight * scales[k].slope,
            pivot: scales[k].pivot,
        };
        let offset = (1.0 - wk) * scales[k0].offset + wk * scales[k1].offset;
        blended.resize(end - start + 1, 0.0);
        let sums = &mut blended[..end - start];
        match (wj == 0.0, wk == 0.0) {
            (true, true) => blend(sums, [corner(j0, k0, 1.0)], offset),
            (false, true) => blend(sums, [corner(j0, k0, 1.0 - wj), corner(j1, k0, wj)], offset),
            (true, false) => blend(sums, [corner(j0, k0, 1.0 - wk), corner(j0, k1, wk)], offset),
            (false, false) => {
                let (front, back) = (1.0 - wk, wk);
                let near = [corner(j0, k0, (1.0 - wj) * front), corner(j1, k0, wj * front)];
                let far = [corner(j0, k1, (1.0 - wj) * back), corner(j1, k1, wj * back)];
                let [a, b] = near;
                let [c, d] = far;
                blend(sums, [a, b, c, d], offset);
            }
        }
        blended[end - start] = blended[end - start - 1]; // the upper corner of the last voxel, of weight 0
        pick(values, blended, places, weights, start, self.limits);
    }
}

/// A source row and how it enters a sum.
#[derive(Clone, Copy)]
struct Row<'a, T> {
    stored: &'a [T],
    factor: f32,
    pivot: f32,
}

wide! {
    /// `sums[i] = offset + sum over rows of factor * (stored[i] - pivot)`.
    fn blend<T: Voxel, const N: usize>(sums: &mut [f32], rows: [Row<'_, T>; N], offset: f32) {
        let rows = rows.map(|row| Row { stored: &row.stored[..sums.len()], ..row });
        for (i, sum) in sums.iter_mut().enumerate() {
            let mut total = offset;
            for row in &rows {
                total += row.factor * (row.stored[i].number() - row.pivot);
            }
            *sum = total;
        }
    }
}

wide! {
    /// Interpolates along the row: `values[n]` lies at `places[n] + weights[n]`, and `sums` starts at `start`.
    fn pick(values: &mut [f32], sums: &[f32], places: &[u32], weights: &[f32], start: usize, limits: [f32; 2]) {
        for ((value, &place), &weight) in values.iter_mut().zip(places).zip(weights) {
            let pair = &sums[place as usize - start..][..2];
            *value = lerp(pair[0], pair[1], weight);
        }
        for value in values {
            *value = clip(*value, limits);
        }
    }
}

#[inline(always)]
fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    a + weight * (b - a)
}

/// One instruction each way, unlike `f32::clamp`: there is no NaN here.
#[inline(always)]
pub(super) fn clip(value: f32, [low, high]: [f32; 2]) -> f32 {
    let raised = if value > low { value } else { low };
    if raised < high { raised } else { high }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::resample_gpu::{resample_gpu, resample_half_gpu};
    use super::super::tests::{LINEARS, any_linear, as_floats, covering, interpolated, noisy_image, voxels};
    use super::*;
    use crate::geometry::Grid;
    use crate::gpu::{self, GpuError};
    use crate::volume::{Quantity, Rescale, Volume};

    /// Of the range of values: weights and sums in `f32` (24 bits) with up to 8 terms.
    const TOLERANCE: f64 = 1e-5;

    fn plain(target_dims: [u32; 3], source_from_target: Affine) -> Resample {
        Resample::new(target_dims, source_from_target)
    }

    /// The formula, voxel by voxel; `None` for a nearest voxel that rounding may choose otherwise.
    fn oracle(image: &ImageVolume, p: &Resample, voxel: [u32; 3]) -> Option<f64> {
        let dims = image.grid().dims();
        let mut position = p.source_from_target.apply(voxel.map(f64::from));
        let nearest: [f64; 3] = position.map(|x| (x + 0.5).floor());
        let halfway = |x: &f64| (x.fract().abs() - 0.5).abs() < 1e-5;
        if let Some(outside) = p.outside {
            let ends = (0..3).any(|s| halfway(&position[s]) && !(0.0..f64::from(dims[s] - 1)).contains(&position[s]));
            if ends {
                return None;
            }
            if (0..3).any(|s| !(0.0..f64::from(dims[s])).contains(&nearest[s])) {
                let clipped = p.clip.map_or(outside, |[low, high]| outside.clamp(low, high));
                return Some((clipped - p.subtract) / p.divide);
            }
        }
        if p.interpolation == Interpolation::Nearest {
            if position.iter().any(halfway) {
                return None;
            }
            position = nearest;
        }
        let value = interpolated(dims, position, |corner| image.physical(corner));
        let clipped = p.clip.map_or(value, |[low, high]| value.clamp(low, high));
        Some((clipped - p.subtract) / p.divide)
    }

    fn check(image: &ImageVolume, p: &Resample) -> Result<(), TestCaseError> {
        let out = resample_cpu(image, p);
        let range = 6000.0 / p.divide.abs(); // of `noisy_image`, with as much for its floats
        for (&value, voxel) in out.iter().zip(voxels(p.target_dims)) {
            if let Some(expected) = oracle(image, p, voxel) {
                let off = (f64::from(value) - expected).abs();
                prop_assert!(off <= TOLERANCE * range, "{value} is not {expected} at {voxel:?} of {p:?}");
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn cpu_follows_the_formula(
            source_dims in prop::array::uniform3(1..14u32),
            target_dims in prop::array::uniform3(1..20u32),
            linear in any_linear(),
            nearest in any::<bool>(),
            floats in any::<bool>(),
            outside in prop::option::of(-900.0..900.0f64),
            clip in prop::option::of(Just([-500.0, 900.0])),
            subtract in -300.0..300.0f64,
            divide in prop_oneof![0.5..900.0f64, -900.0..-0.5f64],
            seed in 0..1000usize,
        ) {
            let interpolation = if nearest { Interpolation::Nearest } else { Interpolation::Linear };
            let source_from_target = covering(source_dims, target_dims, linear);
            let p = Resample { interpolation, outside, clip, subtract, divide, ..Resample::new(target_dims, source_from_target) };
            let image = noisy_image(source_dims, seed);
            check(&if floats { as_floats(&image) } else { image }, &p)?;
        }
    }

    #[test]
    fn identity_is_exact_and_flips_are_reversals() {
        let image = noisy_image([7, 6, 5], 3);
        let same = resample_cpu(&image, &plain([7, 6, 5], Affine::IDENTITY));
        for (&value, [i, j, k]) in same.iter().zip(voxels([7, 6, 5])) {
            let exact = image.physical([i as usize, j as usize, k as usize]);
            assert!((f64::from(value) - exact).abs() <= exact.abs() * 2e-7, "{value} is not {exact}");
        }
        let turned = Affine::scale_then_shift([-1.0; 3], [6., 5., 4.]);
        let mut back = resample_cpu(&image, &plain([7, 6, 5], turned));
        back.reverse();
        assert_eq!(same, back);
    }

    #[test]
    fn unsigned_values_keep_their_digits() {
        // 0 to 1000, stored minus 32768: the intercept must not eat the fraction.
        let grid = Grid::new([2, 1, 1], Affine::IDENTITY).expect("a grid");
        let rescale = vec![Rescale { slope: 0.01, intercept: 327.68 }];
        let image = ImageVolume { stored: Volume::new(grid, vec![-32768, -32767]).into(), rescale, quantity: Quantity::Arbitrary };
        let out = resample_cpu(&image, &plain([3, 1, 1], Affine::scale_then_shift([0.5, 1., 1.], [0.; 3])));
        for (value, expected) in out.iter().zip([0.0, 0.005, 0.01]) {
            assert!((f64::from(*value) - expected).abs() < 1e-8, "{value} is not {expected}");
        }
    }

    #[test]
    fn floats_keep_their_digits() {
        // Far from zero and close together, as the intercept takes back; and far apart.
        let grid = Grid::new([2, 1, 1], Affine::IDENTITY).expect("a grid");
        let check = |stored: [f32; 2], slope: f64, intercept: f64, expected: [f64; 3]| {
            let stored = Stored::float32(Volume::new(grid, stored.to_vec())).expect("numbers");
            let image = ImageVolume { stored, rescale: vec![Rescale { slope, intercept }], quantity: Quantity::Arbitrary };
            let out = resample_cpu(&image, &plain([3, 1, 1], Affine::scale_then_shift([0.5, 1., 1.], [0.; 3])));
            for (value, expected) in out.iter().zip(expected) {
                assert!((f64::from(*value) - expected).abs() <= 1e-7 * expected.abs(), "{value} is not {expected}");
            }
        };
        check([16_777_216.0, 16_777_215.0], 0.25, -4_194_303.75, [0.25, 0.125, 0.0]);
        check([1e-6, 1e6], 1e3, 0.0, [1e-3, 5e8, 1e9]);
        check([-1e30, 1e30], 1.0, 0.0, [-1e30, 0.0, 1e30]);
    }

    #[test]
    fn oblique_sheared_and_parallel_paths_meet() {
        for image in [noisy_image([30, 20, 12], 5), as_floats(&noisy_image([30, 20, 12], 5))] {
            let p = plain([40, 25, 18], covering([30, 20, 12], [40, 25, 18], LINEARS[0]));
            let p = Resample { outside: Some(5.0), ..p };
            let nudged = |nudge: Affine| Resample { source_from_target: p.source_from_target * nudge, ..p.clone() };
            let oblique = nudged(Affine::from_columns([1., 1e-7, 0.], [0., 1., 0.], [0., 0., 1.], [0.; 3]));
            let sheared = nudged(Affine::from_columns([1., 0., 0.], [0., 1., 0.], [1e-7, 1e-7, 1.], [0.; 3]));
            let lattices = [&p, &sheared, &oblique].map(|p| p.lattice(&image));
            assert_eq!(lattices.each_ref().map(|l| (l.aligned.is_some(), l.rows_run_along)), [(true, true), (false, true), (false, false)]);
            let straight = resample_cpu(&image, &p);
            for other in [&oblique, &sheared] {
                for (a, b) in straight.iter().zip(resample_cpu(&image, other)) {
                    assert!((a - b).abs() < 0.06, "{a} is not {b}");
                }
            }
        }
    }

    // import numpy as np
    // from scipy.ndimage import map_coordinates
    // i, j, k = np.meshgrid(np.arange(5), np.arange(4), np.arange(3), indexing="ij")
    // stored = (i * 37 + j * j * 11 - k * 50 + (i * j * k) % 7 * 20).astype(np.int16)
    // hu = stored * np.array([1.0, 2.0, 0.5]) + np.array([-10.0, 5.0, 0.0])           # slope and intercept of each slice
    // a, b, c = np.meshgrid(np.arange(4), np.arange(3), np.arange(2), indexing="ij")
    // at = [1.3 * a - 0.4, 1.1 * b + 0.25, 0.9 * c + 0.6]                             # source voxel from target voxel
    // out = map_coordinates(hu, at, order=1, mode="nearest")
    // out = (np.clip(out, -20, 150) - 30) / 80
    // print("aligned", np.round(out.ravel(order="F"), 6).tolist())
    // M = np.array([[0.9, -0.3, 0.2], [0.25, 0.8, -0.1], [-0.15, 0.2, 0.7]])
    // at = [M[r, 0] * a + M[r, 1] * b + M[r, 2] * c + t for r, t in enumerate([0.4, -0.2, 0.3])]
    // out = map_coordinates(hu, at, order=1, mode="nearest")
    // out = (np.clip(out, -20, 150) - 30) / 80
    // print("oblique", np.round(out.ravel(order="F"), 6).tolist())
    #[test]
    fn scipy_agrees() {
        let dims = [5, 4, 3];
        let stored = voxels(dims).map(|v| {
            let [i, j, k] = v.map(|n| n as i16);
            i * 37 + j * j * 11 - k * 50 + (i * j * k) % 7 * 20
        });
        let rescale = [(1.0, -10.0), (2.0, 5.0), (0.5, 0.0)].map(|(slope, intercept)| Rescale { slope, intercept }).to_vec();
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
        let image = ImageVolume { stored: Volume::new(grid, stored.collect()).into(), rescale, quantity: Quantity::Hounsfield };
        let cases = [
            (Affine::scale_then_shift([1.3, 1.1, 0.9], [-0.4, 0.25, 0.6]), ALIGNED),
            (Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 0.8, 0.2], [0.2, -0.1, 0.7], [0.4, -0.2, 0.3]), OBLIQUE),
        ];
        for (map, expected) in cases {
            let p = Resample { clip: Some([-20.0, 150.0]), subtract: 30.0, divide: 80.0, ..plain([4, 3, 2], map) };
            for (value, expected) in resample_cpu(&image, &p).into_iter().zip(expected) {
                assert!((value - expected).abs() < 2e-6, "{value} is not {expected}");
            }
        }
    }
    const ALIGNED: [f32; 24] = [
        -0.625, -0.349, 0.7105, 1.5, -0.625, 0.344, 1.5, 1.5, 0.2375, 1.5, 1.5, 1.5, -0.625, -0.625, 0.239844, 1.058594, -0.625, 0.047031,
        1.303594, 1.5, -0.207031, 1.140156, 1.5, 1.5,
    ];
    const OBLIQUE: [f32; 24] = [
        -0.57825, 0.044844, 0.55875, 1.009375, -0.625, 0.059031, 0.7655, 1.197094, -0.625, 0.363781, 1.43125, 1.5, -0.625, -0.119687,
        0.858, 1.5, -0.625, 0.171266, 1.5, 1.5, -0.625, 0.456953, 1.5, 1.5,
    ];

    // import numpy as np, SimpleITK as sitk                                          # 2.5.7
    // i, j, k = np.meshgrid(np.arange(5), np.arange(4), np.arange(3), indexing="ij")
    // stored = (i * 3.7 + j * j * 1.1 - k * 5.03 + (i * j * k) % 7 * 2.21).astype(np.float32)
    // suv = stored.astype(np.float64) * np.array([0.5, 2.0, 1.25]) + np.array([0.0, 5.0, -1.0])
    // image = sitk.GetImageFromArray(np.ascontiguousarray(suv.transpose(2, 1, 0)))
    // def run(name, M, t, size, interpolator):
    //     tr = sitk.AffineTransform(3); tr.SetMatrix(np.array(M).ravel().tolist()); tr.SetTranslation(t)
    //     out = sitk.Resample(image, size, tr, interpolator, [0, 0, 0], [1, 1, 1], [1, 0, 0, 0, 1, 0, 0, 0, 1], -7.5, sitk.sitkFloat64)
    //     out = (np.clip(sitk.GetArrayFromImage(out), -9, 30) - 3) / 4
    //     print(name, np.round(out.ravel(), 6).tolist())
    // run("PADDED", np.diag([1.3, 1.1, 0.9]), [-0.9, 0.25, 0.9], [5, 4, 2], sitk.sitkLinear)
    // shear = [[1.2, 0.2, -0.6], [0, 0.9, 0.8], [0, 0, 1.1]]
    // run("SHEARED", shear, [-0.33, -0.71, -0.2], [4, 4, 3], sitk.sitkLinear)
    // run("TURNED", [[0.9, -0.3, 0.2], [0.25, 0.8, -0.1], [-0.15, 0.2, 0.7]], [0.43, -0.87, 0.3], [4, 3, 3], sitk.sitkLinear)
    // run("NEAREST", shear, [-0.33, -0.65, -0.2], [4, 4, 3], sitk.sitkNearestNeighbor)
    #[test]
    fn simpleitk_agrees_on_floats_and_on_what_lies_outside() {
        let dims = [5, 4, 3];
        let stored = voxels(dims).map(|v| {
            let [i, j, k] = v.map(f64::from);
            (i * 3.7 + j * j * 1.1 - k * 5.03 + (i * j * k) % 7.0 * 2.21) as f32
        });
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
        let stored = Stored::float32(Volume::new(grid, stored.collect())).expect("numbers");
        let rescale = [(0.5, 0.0), (2.0, 5.0), (1.25, -1.0)].map(|(slope, intercept)| Rescale { slope, intercept }).to_vec();
        let image = ImageVolume { stored, rescale, quantity: Quantity::Arbitrary };
        let shear = |shift| Affine::from_columns([1.2, 0., 0.], [0.2, 0.9, 0.], [-0.6, 0.8, 1.1], shift);
        let turned = Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 0.8, 0.2], [0.2, -0.1, 0.7], [0.43, -0.87, 0.3]);
        let check = |map: Affine, target_dims, interpolation, expected: &[f32]| {
            let p = Resample { interpolation, outside: Some(-7.5), clip: Some([-9.0, 30.0]), ..plain(target_dims, map) };
            let p = Resample { subtract: 3.0, divide: 4.0, ..p };
            for (value, expected) in resample_cpu(&image, &p).into_iter().zip(expected) {
                assert!((value - expected).abs() < 3e-6, "{value} is not {expected} of {target_dims:?}");
            }
        };
        check(Affine::scale_then_shift([1.3, 1.1, 0.9], [-0.9, 0.25, 0.9]), [5, 4, 2], Interpolation::Linear, &PADDED);
        check(shear([-0.33, -0.71, -0.2]), [4, 4, 3], Interpolation::Linear, &SHEARED);
        check(turned, [4, 3, 3], Interpolation::Linear, &TURNED);
        check(shear([-0.33, -0.65, -0.2]), [4, 4, 3], Interpolation::Nearest, &NEAREST);
    }
    const PADDED: [f32; 40] = [
        -2.625, -0.977363, 1.570475, 4.118313, 6.078188, -2.625, 0.375967, 4.34594, 6.75, 6.75, -2.625, 2.950297, 6.75, 6.75, 6.75, -2.625,
        -2.625, -2.625, -2.625, -2.625, -2.625, -2.97115, -0.8567, 1.25775, 1.917375, -2.625, -1.69471, 1.368383, 4.972925, 3.649075,
        -2.625, 0.50573, 3.70529, 6.015325, 5.840675, -2.625, -2.625, -2.625, -2.625, -2.625,
    ];
    const SHEARED: [f32; 48] = [
        -2.625, -2.625, -2.625, -2.625, -0.723875, -0.229, 0.326, 0.881, -0.543, 0.012, 0.567, 1.122, -0.07925, 0.47575, 1.03075, 1.58575,
        -2.625, -1.356509, 0.804397, 2.965303, -2.625, -0.117809, 3.117157, 6.352123, -2.625, 2.384485, 6.693511, 6.75, 2.156062, 6.0588,
        6.75, 6.75, -2.625, -3.0, -1.762373, 1.100302, -2.625, -2.985312, 0.630042, 1.432652, -2.625, -1.241786, 3.299108, 4.048402,
        -2.625, -2.625, -2.625, -2.625,
    ];
    const TURNED: [f32; 36] = [
        -2.625, -2.625, 0.281375, 0.697625, -1.232188, -0.09374, 0.703208, 0.905804, -1.324338, 0.240828, 1.799916, 2.602984, -2.625,
        -2.625, 1.848513, 2.635581, -1.876038, 0.264663, 2.623384, 4.571352, -2.501827, 0.411493, 4.056492, 6.75, -2.625, -2.625, -2.625,
        3.371078, -3.0, -1.710109, 0.82742, 3.879401, -3.0, -1.210125, 1.987008, 5.403658,
    ];
    const NEAREST: [f32; 48] = [
        -2.625, -2.625, -2.625, -2.625, -0.75, -0.2875, 0.175, 0.6375, -0.6125, -0.15, 0.3125, 1.2375, -0.2, 0.2625, 1.1875, 1.65, -2.625,
        -2.015, -0.165, 3.535, -2.625, -1.465, 4.445, 6.75, -2.625, 4.245, 6.75, 6.75, 2.935, 6.75, 6.75, 6.75, -2.625, -3.0, -1.2625,
        1.275, -2.625, -2.76875, 1.15, 0.234375, -2.625, -1.05, 4.25, 4.715625, -2.625, -2.625, -2.625, -2.625,
    ];

    #[test]
    fn gpu_agrees_with_cpu() -> Result<(), GpuError> {
        let Some(mut gpu) = gpu::for_tests() else { return Ok(()) };
        let whole = gpu.max_storage_bytes();
        let mut worst: f32 = 0.0;
        for (source_dims, target_dims) in [([13, 11, 9], [12, 13, 8]), ([5, 1, 1], [1, 7, 3]), ([33, 65, 3], [70, 9, 11])] {
            let [integers, floats] = [noisy_image(source_dims, 11), as_floats(&noisy_image(source_dims, 11))];
            for (linear, image) in LINEARS.into_iter().flat_map(|linear| [(linear, &integers), (linear, &floats)]) {
                for (interpolation, outside) in
                    [(Interpolation::Linear, None), (Interpolation::Linear, Some(33.0)), (Interpolation::Nearest, Some(-70.0))]
                {
                    let map = covering(source_dims, target_dims, linear);
                    let p = Resample { interpolation, outside, clip: Some([-900.0, 4000.0]), divide: 6000.0, ..plain(target_dims, map) };
                    let cpu = resample_cpu(image, &p);
                    // Two source slices, one target slice and the steps: the smallest device that will do.
                    let needs =
                        [source_dims[0] * source_dims[1] * 8, target_dims[0] * target_dims[1] * 4, target_dims.iter().sum::<u32>() * 32];
                    let least = u64::from(needs.into_iter().max().unwrap_or(0)) + 4;
                    for limit in [whole, least] {
                        gpu.limit_storage(limit);
                        for (a, b) in resample_gpu(&gpu, image, &p)?.into_iter().zip(&cpu) {
                            worst = worst.max((a - b).abs());
                        }
                    }
                }
            }
        }
        println!("largest difference {worst:e} of the range");
        assert!(f64::from(worst) < TOLERANCE);
        Ok(())
    }

    #[test]
    fn half_precision_is_the_nearest_of_each_value() -> Result<(), GpuError> {
        use super::super::half::{half_bits, half_value};
        let gpu = gpu::for_tests();
        for (linear, interpolation) in LINEARS.into_iter().map(|l| (l, Interpolation::Linear)).chain([(LINEARS[1], Interpolation::Area)]) {
            let image = noisy_image([13, 11, 9], 11);
            let p = Resample { interpolation, divide: 400.0, ..plain([9, 13, 7], covering([13, 11, 9], [9, 13, 7], linear)) };
            let expected = resample_cpu(&image, &p);
            let found = resample_half_cpu(&image, &p);
            assert!(found.iter().zip(&expected).all(|(found, &expected)| *found == half_bits(expected)));
            let Some(gpu) = &gpu else { continue };
            for (found, expected) in resample_half_gpu(gpu, &image, &p)?.into_iter().zip(&expected) {
                // A unit in the last place, which is 2^-10 of the value or 2^-24, and what `gpu_agrees_with_cpu` allows.
                assert!((half_value(found) - expected).abs() <= expected.abs() / 1024.0 + 2e-4, "{} is not {expected}", half_value(found));
            }
        }
        Ok(())
    }

    #[test]
    fn a_slice_larger_than_a_binding_is_refused() {
        let Some(mut gpu) = gpu::for_tests() else { return };
        gpu.limit_storage(1 << 12);
        let wide = noisy_image([64, 64, 3], 0);
        let small = noisy_image([4, 4, 3], 0);
        for (image, target_dims) in [(&wide, [4, 4, 3]), (&small, [64, 64, 3])] {
            let refused = resample_gpu(&gpu, image, &plain(target_dims, Affine::IDENTITY)).expect_err("it does not fit");
            assert!(matches!(refused, GpuError::TooLarge { .. }), "{refused}");
        }
    }
}
