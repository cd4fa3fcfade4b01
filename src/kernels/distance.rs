//! Exact Euclidean distances with the spacing of each axis: one pass an axis over squared distances.
//!
//! `distance(v) = min over voxels u of the target of |spacing * (v - u)|`. The CPU takes the lower envelope of parabolas along each line
//! (Felzenszwalb and Huttenlocher 2012), linear in the number of voxels whatever the distances; the GPU searches outwards until nothing
//! nearer can come. Squares are kept in `f32`, so distances are good to 2e-7 of themselves.
//!
//! Memory traffic a voxel: 1 byte read and 4 written along i, 8 along j and along k, 8 for the roots: 29 in all.
//! Shader: `shaders/distance.wgsl`.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::voxel_count;
use super::lines::{groups_of, row_sets};
use crate::gpu::{Gpu, GpuError};

pub(super) const WGSL: &str = include_str!("../../shaders/distance.wgsl");

/// The distance where there is no target at all: farther than anything.
pub const FAR: f32 = f32::MAX;
/// Columns that are taken together: a cache line.
const TILE: usize = 16;

/// What distances are measured to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Voxels of label 0: `scipy.ndimage.distance_transform_edt`.
    Background,
    /// Voxels of every other label.
    Labelled,
}

/// Uniforms of `shaders/distance.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct DistanceParams {
    /// Voxels along i, j, k.
    pub dims: [u32; 3],
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// The axis of this pass.
    pub axis: u32,
    /// Its spacing, mm.
    pub spacing_mm: f32,
    /// 1 where distances are to labelled voxels.
    pub to_labelled: u32,
    /// WGSL alignment.
    pub pad0: u32,
}

/// Distance in mm from the centre of each voxel to the centre of the nearest one of the target: 0 on the target, [`FAR`] where there is
/// none. What lies outside of the grid is no target.
///
/// # Panics
/// Where `labels` has another length than `dims` says, or a spacing is not above 0: broken promises of the caller.
pub fn distance_mm_cpu(labels: &[u8], dims: [u32; 3], spacing_mm: [f64; 3], target: Target) -> Vec<f32> {
    check(labels, dims, spacing_mm);
    let mut squares = vec![0f32; labels.len()];
    let columns = (dims[0] as usize).max(1);
    let rows = squares.par_chunks_mut(columns).zip(labels.par_chunks(columns));
    rows.for_each(|(squares, labels)| along_row(squares, labels, spacing_mm[0], target));
    for axis in [1, 2].into_iter().filter(|&axis| dims[axis] > 1 && !labels.is_empty()) {
        let scratch = || (vec![0f32; TILE * dims[axis] as usize], Envelope::default());
        row_sets(&mut squares, dims, axis).into_par_iter().for_each_init(scratch, |(tile, envelope), mut rows| {
            let length = rows.len();
            for start in (0..columns).step_by(TILE) {
                let width = TILE.min(columns - start);
                for (n, row) in rows.iter().enumerate() {
                    row[start..start + width].iter().enumerate().for_each(|(t, &square)| tile[t * length + n] = square);
                }
                tile.chunks_exact_mut(length).take(width).for_each(|line| envelope.along_line(line, spacing_mm[axis]));
                for (n, row) in rows.iter_mut().enumerate() {
                    row[start..start + width].iter_mut().enumerate().for_each(|(t, square)| *square = tile[t * length + n]);
                }
            }
        });
    }
    let root = |square: &mut f32| *square = if *square == FAR { FAR } else { square.sqrt() };
    squares.par_chunks_mut(1 << 16).for_each(|some| some.iter_mut().for_each(root));
    squares
}

fn check(labels: &[u8], dims: [u32; 3], spacing_mm: [f64; 3]) {
    assert_eq!(labels.len(), voxel_count(dims), "one label a voxel");
    assert!(spacing_mm.iter().all(|spacing| spacing.is_finite() && *spacing > 0.0), "spacings are above 0");
}

/// Squared distances within one row.
fn along_row(squares: &mut [f32], labels: &[u8], spacing_mm: f64, target: Target) {
    const NEVER: u32 = u32::MAX;
    let is_target = |label: u8| (label != 0) == (target == Target::Labelled);
    let square = |steps: u32| if steps == NEVER { FAR } else { (f64::from(steps) * spacing_mm).powi(2) as f32 };
    let mut steps = NEVER;
    for (value, &label) in squares.iter_mut().zip(labels) {
        steps = if is_target(label) { 0 } else { steps.saturating_add(1) };
        *value = square(steps);
    }
    let mut steps = NEVER;
    for (value, &label) in squares.iter_mut().zip(labels).rev() {
        steps = if is_target(label) { 0 } else { steps.saturating_add(1) };
        *value = value.min(square(steps));
    }
}

/// The lowest of the parabolas `square[site] + (spacing * (n - site))^2` along a line, from left to right.
#[derive(Debug, Default)]
struct Envelope {
    /// Where each parabola of the envelope has its lowest point, and from where on it is the lowest.
    parabolas: Vec<(usize, f64)>,
    squares: Vec<f32>,
}

impl Envelope {
    fn along_line(&mut self, line: &mut [f32], spacing_mm: f64) {
        if line.iter().all(|&square| square == 0.0) || line.iter().all(|&square| square == FAR) {
            return;
        }
        let area = spacing_mm * spacing_mm;
        self.squares.clear();
        self.squares.extend_from_slice(line);
        let height = |site: usize| f64::from(line[site]) / area + (site * site) as f64;
        self.parabolas.clear();
        for site in (0..line.len()).filter(|&site| line[site] != FAR) {
            let mut from = f64::NEG_INFINITY;
            while let Some(&(other, others_from)) = self.parabolas.last() {
                from = (height(site) - height(other)) / (2 * (site - other)) as f64;
                if from > others_from {
                    break;
                }
                self.parabolas.pop();
                from = f64::NEG_INFINITY;
            }
            self.parabolas.push((site, from));
        }
        let mut parabolas = self.parabolas.iter().peekable();
        let mut site = 0;
        for (n, value) in line.iter_mut().enumerate() {
            while let Some(&(next, _)) = parabolas.next_if(|(_, from)| *from <= n as f64) {
                site = next;
            }
            *value = (f64::from(self.squares[site]) + area * (n.abs_diff(site) as f64).powi(2)) as f32;
        }
    }
}

/// [`distance_mm_cpu`] on a GPU, to 1e-6 of each distance.
///
/// # Errors
/// [`GpuError::TooLarge`] where 4 bytes a voxel exceed a binding, since lines along k are taken whole; [`GpuError::OutOfMemory`];
/// [`GpuError::Lost`].
///
/// # Panics
/// As [`distance_mm_cpu`].
pub fn distance_mm_gpu(gpu: &Gpu, labels: &[u8], dims: [u32; 3], spacing_mm: [f64; 3], target: Target) -> Result<Vec<f32>, GpuError> {
    const THREADS: u32 = 64;
    check(labels, dims, spacing_mm);
    let mut distances = vec![0f32; labels.len()];
    if labels.is_empty() {
        return Ok(distances);
    }
    let bytes = labels.len() as u64 * 4;
    let (threads_a_row, groups) = groups_of(gpu, labels.len(), THREADS);
    let mut source = gpu.upload("distance: labels", labels)?;
    for (axis, spacing_mm) in (0..).zip(spacing_mm) {
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let pipeline = gpu.pipeline("distance", WGSL, &[("first", flag(axis == 0)), ("last", flag(axis == 2))])?;
        let params = DistanceParams {
            dims,
            threads_a_row,
            axis,
            spacing_mm: spacing_mm as f32,
            to_labelled: u32::from(target == Target::Labelled),
            pad0: 0,
        };
        let params = gpu.uniform("distance: params", &params)?;
        let squares = gpu.storage("distance: squares", bytes)?;
        gpu.dispatch("distance", &pipeline, &[&params, &source, &squares], groups)?;
        source = squares;
    }
    gpu.read_into(&source, &mut distances)?;
    Ok(distances)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::voxels;
    use super::*;

    /// Every pair of voxels, in `f64`.
    fn by_definition(labels: &[u8], dims: [u32; 3], spacing_mm: [f64; 3], target: Target) -> Vec<f64> {
        let all: Vec<[u32; 3]> = voxels(dims).collect();
        let targets: Vec<[u32; 3]> =
            all.iter().zip(labels).filter(|(_, label)| (**label != 0) == (target == Target::Labelled)).map(|(voxel, _)| *voxel).collect();
        let squared = |a: &[u32; 3], b: &[u32; 3]| (0..3).map(|s| (spacing_mm[s] * f64::from(a[s].abs_diff(b[s]))).powi(2)).sum::<f64>();
        let nearest = |voxel| targets.iter().map(|other| squared(voxel, other)).fold(f64::INFINITY, f64::min);
        all.iter().map(|voxel| nearest(voxel).sqrt().min(FAR.into())).collect()
    }

    #[test]
    fn distances_are_the_definition_on_both() {
        let gpu = crate::gpu::for_tests();
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) });
        let cases = (
            prop::array::uniform3(prop_oneof![Just(1u32), 1u32..13]),
            prop::array::uniform3(prop_oneof![Just(1.0), 0.1..6.0f64]),
            0.0..1.0f64,
            any::<bool>(),
            0..1000usize,
        );
        let answer = runner.run(&cases, |(dims, spacing_mm, share, labelled, seed)| {
            let target = if labelled { Target::Labelled } else { Target::Background };
            // Sparse and dense ones, and now and then none at all.
            let share = (share * 1.2 - 0.1).clamp(0.0, 1.0).powi(2);
            let labels: Vec<u8> =
                (0..voxel_count(dims)).map(|n| if super::super::tests::noise(n + seed) < share { 7 } else { 0 }).collect();
            let expected = by_definition(&labels, dims, spacing_mm, target);
            let on_gpu = gpu.as_ref().map(|gpu| distance_mm_gpu(gpu, &labels, dims, spacing_mm, target)).transpose();
            let on_gpu = on_gpu.map_err(|err| TestCaseError::fail(err.to_string()))?;
            for found in [Some(distance_mm_cpu(&labels, dims, spacing_mm, target)), on_gpu].into_iter().flatten() {
                for (found, expected) in found.iter().zip(&expected) {
                    prop_assert!((f64::from(*found) - expected).abs() <= 1e-6 * expected, "{found} is not {expected}");
                }
            }
            Ok(())
        });
        assert!(answer.is_ok(), "{answer:?}");
    }

    #[test]
    fn a_volume_larger_than_a_binding_is_refused() {
        let Some(mut gpu) = crate::gpu::for_tests() else { return };
        gpu.limit_storage(1 << 10);
        let refused = distance_mm_gpu(&gpu, &[0; 512], [8; 3], [1.0; 3], Target::Background).expect_err("it does not fit");
        assert!(matches!(refused, GpuError::TooLarge { .. }), "{refused}");
    }
}
