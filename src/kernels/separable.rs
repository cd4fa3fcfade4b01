//! The fused pass of `resample.rs` axis by axis: along j and k row by row, then along i. For splines, which weigh some 24 voxels along each
//! axis, and for what is done to source values before they are interpolated.
//!
//! `out = limit(sum over i of wi (sum over k of wk (sum over j of wj value)))`, with `value = clip((slope_k * stored + intercept_k - subtract)
//! / divide)` where [`Resample::values_first`], and without the clip where not; then the limits are the clip. Weights: `weights.rs`.
//!
//! On the CPU a tile of rows of the target goes through all its slices: each source row is converted where it is used and never stored,
//! and what is made along j stays in a ring of the slices that are in reach along k. Memory traffic: 2 (integers) or 4 (floats) bytes
//! read a source voxel and up to that again where tiles meet, 4 (or 2 in half precision) written a target voxel, and 8 more where the
//! source's rows do not run along the target's.
//! On a GPU each axis is a pass: what is made along j (source columns and slices, target rows) and then along k is written and read once, 8
//! bytes a value (`separable_gpu.rs`). Shader: `shaders/separable.wgsl`.

use std::ops::Range;

use rayon::prelude::*;

use super::half::Output;
use super::resample::{Resample, clip};
use super::rows::{fill_rows, zeroed_voxels};
use super::simd::wide;
use super::source_values::{Limits, OPEN, Source};
use super::voxel::Voxel;
use super::weights::{AxisWeights, tables};
use crate::volume::ImageVolume;

/// Values that are summed up together, in registers.
const LANES: usize = 64;

/// Weights of a row are padded to a multiple of this.
const GROUP: usize = 8;

/// Target rows that go through all slices together.
const TILE: usize = 16;

wide! {
    /// `sums[i] = sum over rows of weight * row[i]`, the rows `stride` apart in one segment and then the other; as many as there are weights.
    fn combine(sums: &mut [f32], segments: [&[f32]; 2], stride: usize, weights: &[f32]) {
        for (n, sums) in sums.chunks_exact_mut(LANES).enumerate() {
            let mut total = [0f32; LANES];
            let mut weights = weights.iter();
            for segment in segments.into_iter().filter(|segment| !segment.is_empty()) {
                for (row, &weight) in segment[n * LANES..].chunks(stride).zip(weights.by_ref()) {
                    let row = &row[..LANES];
                    for lane in 0..LANES {
                        total[lane] += weight * row[lane];
                    }
                }
            }
            sums.copy_from_slice(&total);
        }
    }
}

wide! {
    /// For each output the products of `groups` times 8 weights and the values from `first` on, summed up eight apart.
    fn multiply(products: &mut [[f32; GROUP]], row: &[f32], first: &[u32], weights: &[[f32; GROUP]], groups: usize) {
        for ((products, &first), weights) in products.iter_mut().zip(first).zip(weights.chunks_exact(groups)) {
            let values = row[first as usize..][..groups * GROUP].as_chunks::<GROUP>().0;
            let mut total = [0f32; GROUP];
            for (weights, values) in weights.iter().zip(values) {
                for lane in 0..GROUP {
                    total[lane] += weights[lane] * values[lane];
                }
            }
            *products = total;
        }
    }
}

wide! {
    fn limit(values: &mut [f32], row: &[f32], ends: [f32; 2]) {
        values.iter_mut().zip(row).for_each(|(value, &from)| *value = clip(from, ends));
    }
}

wide! {
    /// Sums of what [`multiply`] made. In a loop of its own: in one with the products the compiler gives up full vectors.
    fn fold(values: &mut [f32], products: &[[f32; GROUP]], ends: [f32; 2]) {
        for (value, lanes) in values.iter_mut().zip(products) {
            let half: [f32; 4] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 4]);
            *value = clip((half[0] + half[2]) + (half[1] + half[3]), ends);
        }
    }
}

/// Weights along i, each output's padded with zeros to the same number of groups.
struct RowWeights {
    first: Vec<u32>,
    weights: Vec<[f32; GROUP]>,
    groups: usize,
    /// Each output is the value at its own index.
    same: bool,
}

impl RowWeights {
    /// `start` is the source index that rows start with.
    fn new(table: &AxisWeights, start: usize) -> Self {
        let groups = (0..table.len()).map(|n| table.at(n).1.len()).max().unwrap_or(0).div_ceil(GROUP).max(1);
        let mut weights = vec![[0.0; GROUP]; groups * table.len()];
        for (n, padded) in weights.chunks_exact_mut(groups).enumerate() {
            padded.as_flattened_mut().iter_mut().zip(table.at(n).1).for_each(|(padded, weight)| *padded = *weight);
        }
        let same = shift(table) == Some(start);
        // Without weights there is no first one; any place will do.
        Self { first: (0..table.len()).map(|n| table.at(n).0.saturating_sub(start) as u32).collect(), weights, groups, same }
    }
}

/// Where each output is a value as it is, in their order: the index of the first one.
fn shift(table: &AxisWeights) -> Option<usize> {
    let first = table.at(0).0;
    (0..table.len()).all(|n| table.at(n) == (first + n, &[1.0][..])).then_some(first)
}

/// All that rows of the target are made of.
struct Passes<'a, T> {
    source: Source<'a, T>,
    /// Those of the source that are in reach.
    columns: Range<usize>,
    row: RowWeights,
    tables: [AxisWeights; 3],
    limits: Limits,
    outside: Option<f32>,
}

#[derive(Default)]
struct Scratch {
    /// Source rows that a tile needs, [`LANES`] columns of them.
    block: Vec<f32>,
    /// A tile of rows for each slice in reach.
    ring: Vec<f32>,
    /// A tile of rows between slices.
    between: Vec<f32>,
    products: Vec<[f32; GROUP]>,
    made: Vec<f32>,
}

/// See [`super::resample_cpu`].
pub(super) fn resample_separable<T: Voxel, O: Output>(image: &ImageVolume, stored: &[T], p: &Resample) -> Vec<O> {
    let outside = p.outside_value();
    let (along, tables) = tables(p, &p.lattice(image), outside.is_some());
    let source = Source::new(image, stored, p);
    let limits = source.limits(p);
    let passes = Passes::new(source, tables, limits, outside);
    let mut out = zeroed_voxels(p.target_dims);
    if along[0] == 0 {
        passes.fill(&mut out, along);
        return out;
    }
    let mut made = zeroed_voxels(p.target_dims);
    passes.fill(&mut made, [0, 1, 2]);
    let [mx, my, _] = passes.target_dims();
    fill_rows(&mut out, p.target_dims, along, Vec::new, |scratch, j, k, range, out| {
        O::row(out, scratch, |values| values.copy_from_slice(&made[(k * my + j) * mx..][range]));
    });
    out
}

/// Source values, clipped and masked as `p` has it, summed up by `tables` along each axis; with the limits that a spline is kept within.
pub(super) fn weighted<T: Voxel>(image: &ImageVolume, stored: &[T], p: &Resample, tables: [AxisWeights; 3]) -> (Vec<f32>, [f32; 2]) {
    let source = Source::new(image, stored, p);
    let limits = source.limits(p).ends[0];
    let open = Limits { across: None, ends: vec![OPEN] };
    let passes = Passes::new(source, tables, open, None);
    let mut out = zeroed_voxels(passes.target_dims().map(|n| n as u32));
    passes.fill(&mut out, [0, 1, 2]);
    (out, limits)
}

impl<'a, T: Voxel> Passes<'a, T> {
    fn new(source: Source<'a, T>, tables: [AxisWeights; 3], limits: Limits, outside: Option<f32>) -> Self {
        let reach = tables[0].reach(0..tables[0].len());
        let columns = reach.start as usize..reach.end as usize;
        Self { source, row: RowWeights::new(&tables[0], columns.start), columns, tables, limits, outside }
    }

    /// Target indices along each source axis.
    fn target_dims(&self) -> [usize; 3] {
        self.tables.each_ref().map(AxisWeights::len)
    }

    /// Fills the target; `along[0]` is 0.
    fn fill<O: Output>(&self, out: &mut [O], along: [usize; 3]) {
        if let (true, [_, Some(first_j), Some(first_k)]) = (along == [0, 1, 2] && self.row.same, self.tables.each_ref().map(shift)) {
            return self.copy(out, first_j, first_k);
        }
        let [mx, my, mz] = self.target_dims();
        let tiles = my.div_ceil(TILE);
        // Splits along k compute the slices twice that both sides reach, so there are only as many as keep all threads busy.
        let splits = (4 * rayon::current_num_threads()).div_ceil(tiles).clamp(1, mz.div_ceil(2 * TILE));
        let depth = mz.div_ceil(splits);
        let [step_j, step_k] = if along[1] == 1 { [1, my] } else { [mz, 1] };
        let mut rows: Vec<Option<&mut [O]>> = out.chunks_exact_mut(mx).map(Some).collect();
        let mut work = Vec::new();
        for (js, ks) in
            (0..mz).step_by(depth).flat_map(|k| (0..my).step_by(TILE).map(move |j| (j..(j + TILE).min(my), k..(k + depth).min(mz))))
        {
            let of_work = ks.clone().flat_map(|k| js.clone().map(move |j| j * step_j + k * step_k));
            let rows: Vec<&mut [O]> = of_work.map(|n| rows[n].take().expect("each row is filled once")).collect();
            work.push((js, ks, rows));
        }
        work.into_par_iter().for_each_init(Scratch::default, |scratch, (js, ks, rows)| self.tile(scratch, js, ks, rows));
    }

    /// Fills the target where there is nothing to sum up; its first row is (`first_j`, `first_k`) of the source.
    fn copy<O: Output>(&self, out: &mut [O], first_j: usize, first_k: usize) {
        let [mx, my, _] = self.target_dims();
        let rows = out.par_chunks_exact_mut(mx).enumerate().with_min_len(TILE);
        rows.for_each_init(Scratch::default, |Scratch { block, products, made, .. }, (n, out)| {
            let (j, k) = (n % my, n / my);
            block.resize(mx, 0.0);
            self.source.row(block, self.columns.start, first_j + j, first_k + k);
            O::row(out, made, |values| self.finish(values, block, products, j, k));
        });
    }

    /// Fills rows `js` of slices `ks`, which are in order.
    fn tile<O: Output>(&self, scratch: &mut Scratch, js: Range<usize>, ks: Range<usize>, mut rows: Vec<&mut [O]>) {
        let [_, y, z] = &self.tables;
        let stride = self.columns.len().next_multiple_of(LANES);
        let size = js.len() * stride;
        let reach = y.reach(js.clone());
        let reach = reach.start as usize..reach.end as usize;
        let [low, high] = [ks.start, ks.end - 1].map(|k| z.at(k).0);
        let order: Vec<usize> = if low <= high { ks.clone().collect() } else { ks.clone().rev().collect() };
        let ring = Ring::of(&order, z);
        let Scratch { block, ring: slots, between, products, made } = scratch;
        block.resize(reach.len() * LANES, 0.0);
        slots.resize(ring.capacity * size, 0.0);
        between.resize(size + self.row.groups * GROUP, 0.0);
        let mut next = 0;
        for (k, oldest) in order.into_iter().zip(ring.oldest) {
            let (first, weights) = z.at(k);
            next = next.max(oldest);
            while next < first + weights.len() {
                self.slice(&mut slots[next % ring.capacity * size..][..size], block, next, &js, &reach);
                next += 1;
            }
            let at = first % ring.capacity;
            let before_end = weights.len().min(ring.capacity - at);
            let segments = [&slots[at * size..(at + before_end) * size], &slots[..(weights.len() - before_end) * size]];
            combine(&mut between[..size], segments, size, weights);
            for (n, j) in js.clone().enumerate() {
                let of_row = &between[n * stride..];
                O::row(rows[(k - ks.start) * js.len() + n], made, |values| self.finish(values, of_row, products, j, k));
            }
        }
    }

    /// Rows `js` in source slice `k`, from source rows `reach`.
    fn slice(&self, slot: &mut [f32], block: &mut [f32], k: usize, js: &Range<usize>, reach: &Range<usize>) {
        let stride = slot.len() / js.len();
        for start in (0..self.columns.len()).step_by(LANES) {
            let width = LANES.min(self.columns.len() - start);
            for (j, row) in reach.clone().zip(block.chunks_exact_mut(LANES)) {
                self.source.row(&mut row[..width], self.columns.start + start, j, k);
            }
            for (n, j) in js.clone().enumerate() {
                let (first, weights) = self.tables[1].at(j);
                if !weights.is_empty() {
                    let rows = &block[(first - reach.start) * LANES..][..weights.len() * LANES];
                    combine(&mut slot[n * stride + start..][..LANES], [rows, &[]], LANES, weights);
                }
            }
        }
    }

    /// Row (j, k) of the target along i.
    fn finish(&self, values: &mut [f32], row: &[f32], products: &mut Vec<[f32; GROUP]>, j: usize, k: usize) {
        let [x, y, z] = &self.tables;
        let ((at_j, weights_j), (at_k, weights_k)) = (y.at(j), z.at(k));
        if let Some(outside) = self.outside.filter(|_| weights_j.is_empty() || weights_k.is_empty()) {
            return values.fill(outside);
        }
        let ends = match self.limits.across {
            None => self.limits.ends[0],
            Some(1) => self.limits.ends[at_j],
            Some(2) => self.limits.ends[at_k],
            Some(_) => OPEN,
        };
        if self.row.same {
            limit(values, row, ends);
        } else {
            products.resize(values.len(), [0.0; GROUP]);
            multiply(products, row, &self.row.first, &self.row.weights, self.row.groups);
            fold(values, products, ends);
        }
        if self.limits.across == Some(0) {
            let ends = self.row.first.iter().map(|&at| self.limits.ends[self.columns.start + at as usize]);
            values.iter_mut().zip(ends).for_each(|(value, ends)| *value = clip(*value, ends));
        }
        if let Some(outside) = self.outside {
            (0..x.len()).zip(values).filter(|(n, _)| x.at(*n).1.is_empty()).for_each(|(_, value)| *value = outside);
        }
    }
}

/// Which source slices are there at each step through target slices, in the order of the source.
struct Ring {
    /// Slices at once.
    capacity: usize,
    /// The first slice that this step or a later one needs.
    oldest: Vec<usize>,
}

impl Ring {
    fn of(order: &[usize], z: &AxisWeights) -> Self {
        let mut oldest: Vec<usize> = Vec::with_capacity(order.len());
        let mut still = usize::MAX;
        for (first, weights) in order.iter().rev().map(|&k| z.at(k)) {
            still = if weights.is_empty() { still } else { still.min(first) };
            oldest.push(still);
        }
        oldest.reverse();
        let mut end = 0;
        let mut capacity = 1;
        for (&k, &oldest) in order.iter().zip(&oldest) {
            let (first, weights) = z.at(k);
            end = end.max(first + weights.len());
            capacity = capacity.max(end.saturating_sub(oldest));
        }
        Self { capacity, oldest }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bounding_box::crop;
    use super::super::half::half_bits;
    use super::super::lattice::Interpolation;
    use super::super::resample::Background;
    use super::super::tests::{as_floats, covering, masked_case, noisy_image, voxels};
    use super::super::{resample_cpu, resample_gpu, resample_half_cpu};
    use super::*;
    use crate::geometry::{Affine, Grid};
    use crate::gpu::GpuError;
    use crate::volume::{Stored, Volume};

    /// Of the range of values: sums of up to 24^3 terms in `f32`, some of them negative, and the weights that are left out.
    const TOLERANCE: f64 = 5e-6;

    /// SciPy's way in `f64`: values continued by `PAD` edge values, the inverse filter as a recursion there and back, and four B-splines.
    fn spline_weights(count: usize, at: f64) -> Vec<f64> {
        const PAD: usize = 40;
        let pole = 3f64.sqrt() - 2.0;
        let weights_of = |n: usize| {
            let mut line: Vec<f64> =
                (0..count + 2 * PAD).map(|m| if m.saturating_sub(PAD).min(count - 1) == n { 6.0 } else { 0.0 }).collect();
            for m in 1..line.len() {
                line[m] += pole * if m == 1 { line[0] / (1.0 - pole) } else { line[m - 1] };
            }
            let last = line.len() - 1;
            line[last] *= -pole / (1.0 - pole);
            for m in (0..last).rev() {
                line[m] = pole * (line[m + 1] - line[m]);
            }
            let at = at.clamp(-20.0, count as f64 + 19.0) + PAD as f64;
            let t = at.fract();
            let near = [(1.0 - t).powi(3), 3.0 * t.powi(3) - 6.0 * t * t + 4.0, -3.0 * t.powi(3) + 3.0 * t * t + 3.0 * t + 1.0, t.powi(3)];
            (0..4).map(|m| near[m] / 6.0 * line[at.floor() as usize + m - 1]).sum::<f64>()
        };
        (0..count).map(weights_of).collect()
    }

    /// Each axis on its own, as `resample.rs` and `area.rs` have it.
    fn axis_weights(p: &Resample, s: usize, count: usize, at: f64) -> Vec<f64> {
        let last = count as f64 - 1.0;
        if p.nearest_along == Some(s) || p.interpolation == Interpolation::Nearest {
            return (0..count).map(|n| f64::from(u8::from(n as f64 == (at + 0.5).floor().clamp(0.0, last)))).collect();
        }
        match p.interpolation {
            Interpolation::Cubic => spline_weights(count, at),
            _ => (0..count).map(|n| (1.0 - (n as f64 - at.clamp(0.0, last)).abs()).max(0.0)).collect(),
        }
    }

    /// The box alone, by itself.
    fn cut_out(image: &ImageVolume, p: &Resample) -> (ImageVolume, Resample) {
        let [low, high] = p.bounds(image.grid().dims());
        let dims = std::array::from_fn(|s| high[s] - low[s] + 1);
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
        let stored = match &image.stored {
            Stored::Int16(stored) => Volume::new(grid, cut(stored, p)).into(),
            Stored::Float32(stored) => Stored::float32(Volume::new(grid, cut(stored, p))).expect("numbers"),
        };
        let rescale = image.rescale[low[2] as usize..=high[2] as usize].to_vec();
        let background = match &p.background {
            Some(Background::Unlabelled(labels)) => Some(Background::Unlabelled(Volume::new(grid, cut(labels, p)))),
            other => other.clone(),
        };
        let map = Affine::scale_then_shift([1.0; 3], low.map(|n| -f64::from(n))) * p.source_from_target;
        let alone = Resample { source_from_target: map, source_box: None, background, ..p.clone() };
        (ImageVolume { stored, rescale, quantity: image.quantity }, alone)
    }

    fn cut<T: Copy>(volume: &Volume<T>, p: &Resample) -> Vec<T> {
        let dims = volume.grid().dims();
        let mut voxels = volume.voxels().to_vec();
        crop(&mut voxels, dims, p.bounds(dims));
        voxels
    }

    /// `None` where rounding may choose otherwise.
    fn oracle(image: &ImageVolume, p: &Resample) -> Vec<Option<f64>> {
        let (image, p) = &cut_out(image, p);
        let dims = image.grid().dims();
        let [nx, ny, nz] = dims.map(|n| n as usize);
        let normal = |physical: f64| (physical - p.subtract) / p.divide;
        let clipped = |v: f64| p.clip.map_or(v, |[low, high]| v.clamp(low, high));
        let value = |voxel: [u32; 3]| {
            let physical = image.physical(voxel.map(|n| n as usize));
            let value = normal(if p.values_first { clipped(physical) } else { physical });
            let is_background = match &p.background {
                Some(Background::NotAbove(least)) => physical <= *least,
                Some(Background::Unlabelled(labels)) => {
                    labels.voxels()[(voxel[2] as usize * ny + voxel[1] as usize) * nx + voxel[0] as usize] == 0
                }
                None => false,
            };
            if is_background { 0.0 } else { value }
        };
        let values: Vec<f64> = voxels(dims).map(value).collect();
        let halfway = |x: f64| ((x - 0.5) - (x - 0.5).round()).abs() < 1e-5;
        let of_voxel = |voxel: [u32; 3]| {
            let at = p.source_from_target.apply(voxel.map(f64::from));
            if (p.nearest_along.is_some() || p.outside.is_some()) && at.iter().any(|&x| halfway(x)) {
                return None;
            }
            if let Some(outside) = p.outside.filter(|_| (0..3).any(|s| !(0.0..f64::from(dims[s])).contains(&(at[s] + 0.5).floor()))) {
                return Some(normal(clipped(outside)));
            }
            let [x, y, z] = [0, 1, 2].map(|s| axis_weights(p, s, dims[s] as usize, at[s]));
            let sum: f64 = voxels(dims).zip(&values).map(|(v, value)| value * x[v[0] as usize] * y[v[1] as usize] * z[v[2] as usize]).sum();
            let mut ends = [f64::NEG_INFINITY, f64::INFINITY];
            if p.values_first && p.interpolation == Interpolation::Cubic {
                let nearest = |s: usize| (at[s] + 0.5).floor().clamp(0.0, [nx, ny, nz][s] as f64 - 1.0) as u32;
                let same_plane = |v: &[u32; 3]| p.nearest_along.is_none_or(|s| v[s] == nearest(s));
                ends = [f64::INFINITY, f64::NEG_INFINITY];
                for (_, value) in voxels(dims).zip(&values).filter(|(v, _)| same_plane(v)) {
                    ends = [ends[0].min(*value), ends[1].max(*value)];
                }
            } else if let Some(clip) = p.clip.filter(|_| !p.values_first) {
                let [a, b] = clip.map(normal);
                ends = [a.min(b), a.max(b)];
            }
            Some(sum.clamp(ends[0], ends[1]))
        };
        voxels(p.target_dims).map(of_voxel).collect()
    }

    #[test]
    fn both_are_the_formula() {
        let mut gpu = crate::gpu::for_tests();
        let axis = || prop_oneof![1.0..4.0f64, -4.0..-1.0f64, 0.2..1.0f64, Just(2.0), Just(1.0), Just(-1.0)];
        let interpolation =
            prop_oneof![3 => Just(Interpolation::Cubic), 1 => Just(Interpolation::Linear), 1 => Just(Interpolation::Nearest)];
        let cases = (
            prop::array::uniform3(prop_oneof![Just(1u32), 1u32..15]),
            prop::array::uniform3(1u32..9),
            ([axis(), axis(), axis()], Just([0, 1, 2]).prop_shuffle()),
            (interpolation, prop::option::of(0..3usize), prop::option::of(-900.0..2000.0f64)),
            (any::<[bool; 5]>(), any::<[prop::sample::Index; 6]>()),
            prop_oneof![Just(6000.0), Just(-6000.0)],
            0..1000usize,
        );
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) });
        for storage in [1 << 27, 15 * 15 * 4 * 15 + 4] {
            if let Some(gpu) = &mut gpu {
                gpu.limit_storage(storage);
            }
            let answer = runner.run(
                &cases,
                |(source_dims, target_dims, (steps, order), (interpolation, along, above), (flags, ends), divide, seed)| {
                    let [floats, padded, clips, values_first, labelled] = flags;
                    let image = noisy_image(source_dims, seed);
                    let background = match above {
                        _ if labelled => Some(Background::Unlabelled(masked_case(&image))),
                        above => above.map(Background::NotAbove),
                    };
                    let corner =
                        |first: usize| -> [u32; 3] { std::array::from_fn(|s| ends[first + s].index(source_dims[s] as usize) as u32) };
                    let (a, b) = (corner(0), corner(3));
                    let bounds = [std::array::from_fn(|s| a[s].min(b[s])), std::array::from_fn(|s| a[s].max(b[s]))];
                    let source_box = (seed % 2 == 0).then_some(bounds);
                    let columns = std::array::from_fn(|t| std::array::from_fn(|s| if order[t] == s { steps[t] } else { 0.0 }));
                    let p = Resample {
                        interpolation,
                        nearest_along: along,
                        outside: padded.then_some(-50.0),
                        clip: clips.then_some([-700.0, 1900.0]),
                        values_first: values_first || (interpolation != Interpolation::Cubic && along.is_none() && background.is_none()),
                        source_box,
                        background,
                        subtract: 100.0,
                        divide,
                        ..Resample::new(target_dims, covering(source_dims, target_dims, columns))
                    };
                    let image = if floats { as_floats(&image) } else { image };
                    let expected = oracle(&image, &p);
                    let on_gpu = gpu
                        .as_ref()
                        .map(|gpu| resample_gpu(gpu, &image, &p))
                        .transpose()
                        .map_err(|e| TestCaseError::fail(e.to_string()))?;
                    for found in [Some(resample_cpu(&image, &p)), on_gpu].into_iter().flatten() {
                        for ((&found, expected), voxel) in found.iter().zip(&expected).zip(voxels(target_dims)) {
                            let Some(expected) = expected else { continue };
                            prop_assert!(
                                (f64::from(found) - expected).abs() < TOLERANCE,
                                "{found} is not {expected} at {voxel:?} of {p:?}"
                            );
                        }
                    }
                    Ok(())
                },
            );
            assert!(answer.is_ok(), "{answer:?}");
        }
    }

    #[test]
    fn tiles_splits_and_turns_change_no_bit() {
        let image = noisy_image([70, 45, 90], 4);
        let straight = Resample {
            interpolation: Interpolation::Cubic,
            divide: 400.0,
            ..Resample::new([40, 37, 80], covering([70, 45, 90], [40, 37, 80], [[1.7, 0., 0.], [0., -1.2, 0.], [0., 0., 1.1]]))
        };
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let expected = one_thread.install(|| resample_cpu(&image, &straight));
        let many = rayon::ThreadPoolBuilder::new().num_threads(7).build().expect("threads");
        assert!(many.install(|| resample_cpu(&image, &straight)) == expected);
        assert!(resample_half_cpu(&image, &straight).iter().zip(&expected).all(|(found, &expected)| *found == half_bits(expected)));
        // Target i, j, k along the source's k, i, j.
        let turn = crate::geometry::Affine::from_columns([0., 0., 1.], [1., 0., 0.], [0., 1., 0.], [0.; 3]);
        let turned = Resample { target_dims: [80, 40, 37], source_from_target: straight.source_from_target * turn, ..straight };
        for (found, [k, i, j]) in resample_cpu(&image, &turned).into_iter().zip(voxels([80, 40, 37])) {
            assert!(found == expected[((k * 37 + j) * 40 + i) as usize]);
        }
    }

    #[test]
    fn a_spline_is_kept_within_the_source() {
        // A step: a spline swings beyond both sides of it.
        let grid = crate::geometry::Grid::new([12, 1, 1], crate::geometry::Affine::IDENTITY).expect("a grid");
        let stored = crate::volume::Volume::new(grid, (0..12).map(|n| if n < 6 { 10 } else { 30 }).collect::<Vec<i16>>());
        let rescale = vec![crate::volume::Rescale { slope: 1.0, intercept: 0.0 }];
        let image = ImageVolume { stored: stored.into(), rescale, quantity: crate::volume::Quantity::Arbitrary };
        let half_steps = crate::geometry::Affine::scale_then_shift([0.5, 1., 1.], [0.; 3]);
        let free = Resample { interpolation: Interpolation::Cubic, ..Resample::new([23, 1, 1], half_steps) };
        let range = |p: &Resample| resample_cpu(&image, p).into_iter().fold([f32::MAX, f32::MIN], |[a, b], v| [a.min(v), b.max(v)]);
        let [low, high] = range(&free);
        assert!(low < 8.6 && high > 31.4, "{low} {high}");
        assert_eq!(range(&Resample { values_first: true, ..free.clone() }), [10.0, 30.0]);
        assert_eq!(range(&Resample { values_first: true, clip: Some([12.0, 90.0]), ..free }), [12.0, 30.0]);
    }

    #[test]
    fn a_slice_larger_than_a_binding_is_refused() {
        let Some(mut gpu) = crate::gpu::for_tests() else { return };
        gpu.limit_storage(1 << 12);
        let p = Resample { interpolation: Interpolation::Cubic, ..Resample::new([4; 3], crate::geometry::Affine::IDENTITY) };
        let refused = resample_gpu(&gpu, &noisy_image([64, 64, 3], 0), &p).expect_err("it does not fit");
        assert!(matches!(refused, GpuError::TooLarge { .. }), "{refused}");
    }
}
