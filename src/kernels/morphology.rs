//! Binary morphology: dilation, erosion, opening and closing, by neighbours (n times) or by a ball in mm.
//!
//! Neighbours work on rows of bits, 32 voxels a word; a ball works on exact distances (`distance.rs`), so it is a ball whatever the
//! spacing. Outside of the grid is background, as `scipy.ndimage` has it. Opening and closing are those of an unbounded grid: what a
//! closing fills on the way beyond the edge counts, so it never takes a voxel away.
//!
//! Memory traffic a voxel: 1 byte read and 1 written, and by neighbours 1/4 byte an iteration; by a ball 30 bytes an operation.
//! Shader: `shaders/morphology.wgsl` (by neighbours), `shaders/distance.wgsl` (by a ball).

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::components::{Connectivity, voxel_count};
use super::distance::{Target, distance_mm_cpu, distance_mm_gpu};
use super::lines::groups_of;
use super::simd::wide;
use crate::gpu::{Gpu, GpuError};

pub(super) const WGSL: &str = include_str!("../../shaders/morphology.wgsl");

/// Most iterations, and most voxels that a ball reaches along an axis.
pub const MOST_ITERATIONS: u32 = 255;
/// Voxels a word.
const BITS: usize = 32;

/// What is done to a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Voxels within reach of the mask join it.
    Dilate,
    /// Only voxels stay that have no background within reach.
    Erode,
    /// Erosion, then dilation: what is thinner than the element goes.
    Open,
    /// Dilation, then erosion: gaps narrower than the element fill.
    Close,
}

/// The structuring element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    /// The voxel and its neighbours, this many times.
    Neighbours(Connectivity, u32),
    /// All voxels whose centres are at most this far away.
    Ball {
        /// Reach, mm.
        radius_mm: f64,
        /// Along i, j, k, mm.
        spacing_mm: [f64; 3],
    },
}

/// Uniforms of `shaders/morphology.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct MorphologyParams {
    /// Columns, rows and slices.
    pub dims: [u32; 3],
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// Words of a row.
    pub words_a_row: u32,
    /// Axes along which neighbours may differ: 1, 2, 3 for 6, 18, 26 neighbours.
    pub most_axes: u32,
    /// What lies outside of the grid: all bits, or none.
    pub outside: u32,
    /// WGSL alignment.
    pub pad0: u32,
}

/// Changes `mask`, whose voxels are those other than 0, in place: 1 and 0 come out.
///
/// # Panics
/// Where `mask` has another length than `dims` says, or the element is not of 0 to [`MOST_ITERATIONS`] voxels: broken promises of the caller.
pub fn morphology_cpu(mask: &mut [u8], dims: [u32; 3], operation: Operation, element: Element) {
    let spread = |bits: Bits, connectivity, times, outside| -> Result<_, std::convert::Infallible> {
        Ok((0..times).fold(bits, |bits, _| bits.spread(connectivity, outside)))
    };
    let distance = |mask: &[u8], dims, spacing_mm, target| Ok(distance_mm_cpu(mask, dims, spacing_mm, target));
    let Ok(()) = morphology(mask, dims, operation, element, spread, distance);
}

/// [`morphology_cpu`] on a GPU: the same voxels, but for those that a ball reaches to a millionth of its radius.
///
/// # Errors
/// [`GpuError::TooLarge`] where the mask, at one bit a voxel by neighbours and 4 bytes by a ball, exceeds a binding;
/// [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
///
/// # Panics
/// As [`morphology_cpu`].
pub fn morphology_gpu(gpu: &Gpu, mask: &mut [u8], dims: [u32; 3], operation: Operation, element: Element) -> Result<(), GpuError> {
    let spread = |bits: Bits, connectivity, times, outside| bits.spread_gpu(gpu, connectivity, times, outside);
    let distance = |mask: &[u8], dims, spacing_mm, target| distance_mm_gpu(gpu, mask, dims, spacing_mm, target);
    morphology(mask, dims, operation, element, spread, distance)
}

fn morphology<E>(
    mask: &mut [u8],
    dims: [u32; 3],
    operation: Operation,
    element: Element,
    spread: impl Fn(Bits, Connectivity, u32, bool) -> Result<Bits, E>,
    distance: impl Fn(&[u8], [u32; 3], [f64; 3], Target) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    assert_eq!(mask.len(), voxel_count(dims), "one label a voxel");
    let reach = match element {
        Element::Neighbours(_, times) => [times; 3],
        Element::Ball { radius_mm, spacing_mm } => {
            assert!(radius_mm >= 0.0 && spacing_mm.iter().all(|spacing| *spacing > 0.0), "a ball has a radius and voxels a spacing");
            spacing_mm.map(|spacing| (radius_mm / spacing).floor().min(1e6) as u32)
        }
    };
    assert!(reach.iter().all(|&voxels| voxels <= MOST_ITERATIONS), "an element reaches up to {MOST_ITERATIONS} voxels");
    if mask.is_empty() {
        return Ok(());
    }
    let steps: &[Target] = match operation {
        Operation::Dilate => &[Target::Labelled],
        Operation::Erode => &[Target::Background],
        Operation::Open => &[Target::Background, Target::Labelled],
        Operation::Close => &[Target::Labelled, Target::Background],
    };
    // Only a closing needs what lies beyond the edge; a ball's background does, too, since distances know nothing outside.
    let ball = matches!(element, Element::Ball { .. });
    let beyond = match operation {
        Operation::Close => reach,
        Operation::Erode | Operation::Open if ball => [1; 3],
        _ => [0; 3],
    };
    match element {
        Element::Neighbours(connectivity, times) => {
            let mut bits = Bits::of(mask, dims, beyond);
            for step in steps {
                // What erosion keeps is what the background does not spread to.
                let eroding = *step == Target::Background;
                bits.invert_if(eroding);
                bits = spread(bits, connectivity, times, eroding)?;
                bits.invert_if(eroding);
            }
            bits.write(mask, dims, beyond);
        }
        Element::Ball { radius_mm, spacing_mm } => {
            let (mut wide, wide_dims) = padded(mask, dims, beyond);
            let radius = radius_mm as f32 * (1.0 + 1e-6); // distances are rounded
            for &step in steps {
                let distances = distance(&wide, wide_dims, spacing_mm, step)?;
                let eroding = step == Target::Background;
                wide.par_iter_mut().zip(&distances).for_each(|(voxel, distance)| *voxel = u8::from((*distance <= radius) != eroding));
            }
            cropped(mask, dims, &wide, wide_dims, beyond);
        }
    }
    Ok(())
}

/// A mask with background around it, `beyond` voxels on both sides of each axis.
fn padded(mask: &[u8], dims: [u32; 3], beyond: [u32; 3]) -> (Vec<u8>, [u32; 3]) {
    let wide_dims: [u32; 3] = std::array::from_fn(|s| dims[s] + 2 * beyond[s]);
    let mut wide = vec![0u8; voxel_count(wide_dims)];
    let [nx, ny, _] = dims.map(|n| n as usize);
    for (r, row) in mask.chunks_exact(nx).enumerate() {
        let start = start_in(wide_dims, beyond, r % ny, r / ny);
        wide[start..start + nx].iter_mut().zip(row).for_each(|(wide, &label)| *wide = u8::from(label != 0));
    }
    (wide, wide_dims)
}

fn cropped(mask: &mut [u8], dims: [u32; 3], wide: &[u8], wide_dims: [u32; 3], beyond: [u32; 3]) {
    let [nx, ny, _] = dims.map(|n| n as usize);
    for (r, row) in mask.chunks_exact_mut(nx).enumerate() {
        let start = start_in(wide_dims, beyond, r % ny, r / ny);
        row.copy_from_slice(&wide[start..start + nx]);
    }
}

fn start_in(wide_dims: [u32; 3], beyond: [u32; 3], j: usize, k: usize) -> usize {
    let [nx, ny, _] = wide_dims.map(|n| n as usize);
    let [i, beyond_j, beyond_k] = beyond.map(|n| n as usize);
    ((k + beyond_k) * ny + j + beyond_j) * nx + i
}

/// A mask as rows of bits, the first voxel lowest; bits after the last voxel of a row say what lies outside.
#[derive(Debug)]
struct Bits {
    dims: [u32; 3],
    words_a_row: usize,
    words: Vec<u32>,
}

impl Bits {
    fn of(mask: &[u8], dims: [u32; 3], beyond: [u32; 3]) -> Self {
        let wide: [u32; 3] = std::array::from_fn(|s| dims[s] + 2 * beyond[s]);
        let words_a_row = (wide[0] as usize).div_ceil(BITS);
        let mut words = vec![0u32; words_a_row * wide[1] as usize * wide[2] as usize];
        let [nx, ny, nz] = dims.map(|n| n as usize);
        let first = beyond[0] as usize;
        words.par_chunks_mut(words_a_row).enumerate().for_each(|(r, words)| {
            let row = (r % wide[1] as usize).checked_sub(beyond[1] as usize).filter(|&j| j < ny);
            let slice = (r / wide[1] as usize).checked_sub(beyond[2] as usize).filter(|&k| k < nz);
            let (Some(j), Some(k)) = (row, slice) else { return };
            for (i, &label) in mask[(k * ny + j) * nx..][..nx].iter().enumerate() {
                let at = first + i;
                words[at / BITS] |= u32::from(label != 0) << (at % BITS);
            }
        });
        Self { dims: wide, words_a_row, words }
    }

    fn write(&self, mask: &mut [u8], dims: [u32; 3], beyond: [u32; 3]) {
        let [nx, ny, _] = dims.map(|n| n as usize);
        mask.par_chunks_mut(nx).enumerate().for_each(|(r, row)| {
            let wide_row = (r / ny + beyond[2] as usize) * self.dims[1] as usize + r % ny + beyond[1] as usize;
            let words = &self.words[wide_row * self.words_a_row..][..self.words_a_row];
            for (i, voxel) in row.iter_mut().enumerate() {
                let at = beyond[0] as usize + i;
                *voxel = (words[at / BITS] >> (at % BITS) & 1) as u8;
            }
        });
    }

    fn invert_if(&mut self, holds: bool) {
        if holds {
            self.words.par_chunks_mut(1 << 14).for_each(|words| words.iter_mut().for_each(|word| *word = !*word));
        }
    }

    /// Each set voxel and its neighbours.
    fn spread(&self, connectivity: Connectivity, outside: bool) -> Self {
        let [columns, rows, slices] = self.dims.map(|n| n as usize);
        let outside = if outside { u32::MAX } else { 0 };
        let beyond_last = match columns % BITS {
            0 => 0,
            used => u32::MAX << used,
        };
        let mut words = vec![0u32; self.words.len()];
        words.par_chunks_mut(self.words_a_row).enumerate().for_each(|(r, row)| {
            let (j, k) = (r % rows, r / rows);
            for (dj, dk) in [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, -1), (-1, 1), (1, 1)] {
                let axes = u32::from(dj != 0) + u32::from(dk != 0);
                if axes > connectivity.most_axes() {
                    break;
                }
                let other = (j.checked_add_signed(dj).filter(|&j| j < rows), k.checked_add_signed(dk).filter(|&k| k < slices));
                let (Some(j), Some(k)) = other else {
                    row.iter_mut().for_each(|word| *word |= outside);
                    continue;
                };
                let other = &self.words[(k * rows + j) * self.words_a_row..][..self.words_a_row];
                if axes < connectivity.most_axes() { add_spread(row, other, outside) } else { add(row, other) }
            }
            if let Some(last) = row.last_mut() {
                *last = (*last & !beyond_last) | (outside & beyond_last);
            }
        });
        Self { words, ..*self }
    }

    fn spread_gpu(mut self, gpu: &Gpu, connectivity: Connectivity, times: u32, outside: bool) -> Result<Self, GpuError> {
        const THREADS: u32 = 64;
        let pipeline = gpu.pipeline("morphology", WGSL, &[])?;
        let (threads_a_row, groups) = groups_of(gpu, self.words.len(), THREADS);
        let params = MorphologyParams {
            dims: self.dims,
            threads_a_row,
            words_a_row: self.words_a_row as u32,
            most_axes: connectivity.most_axes(),
            outside: if outside { u32::MAX } else { 0 },
            pad0: 0,
        };
        let params = gpu.uniform("morphology: params", &params)?;
        let mut bits = gpu.upload("morphology: bits", &self.words)?;
        let mut spread = gpu.storage("morphology: spread bits", self.words.len() as u64 * 4)?;
        for _ in 0..times {
            gpu.dispatch("morphology", &pipeline, &[&params, &bits, &spread], groups)?;
            std::mem::swap(&mut bits, &mut spread);
        }
        gpu.read_into(&bits, &mut self.words)?;
        Ok(self)
    }
}

wide! {
    fn add(row: &mut [u32], other: &[u32]) {
        row.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
    }
}

wide! {
    /// Adds a row and what is next to it along i.
    fn add_spread(row: &mut [u32], other: &[u32], outside: u32) {
        let spread = |before: u32, word: u32, after: u32| word | word << 1 | before >> 31 | word >> 1 | after << 31;
        let last = other.len() - 1;
        let at = |n: usize| other.get(n).copied().unwrap_or(outside);
        row[0] |= spread(outside, other[0], at(1));
        row[last] |= spread(if last == 0 { outside } else { other[last - 1] }, other[last], outside);
        for (word, near) in row[1.min(last)..].iter_mut().zip(other.windows(3)) {
            *word |= spread(near[0], near[1], near[2]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{noise, voxels};
    use super::*;

    /// Offsets within the element that one step is; `Ball` is one step.
    fn offsets(element: Element) -> Vec<[i64; 3]> {
        let all = (-4..=4).flat_map(|k| (-4..=4).flat_map(move |j| (-4..=4).map(move |i| [i, j, k])));
        let inside = |offset: &[i64; 3]| match element {
            Element::Neighbours(connectivity, _) => {
                offset.iter().all(|o| o.abs() <= 1) && offset.iter().filter(|o| **o != 0).count() <= connectivity.most_axes() as usize
            }
            Element::Ball { radius_mm, spacing_mm } => {
                (0..3).map(|s| (offset[s] as f64 * spacing_mm[s]).powi(2)).sum::<f64>() <= radius_mm * radius_mm
            }
        };
        all.filter(inside).collect()
    }

    /// On a grid with so much around it that nothing reaches its edge, where outside is background.
    fn by_definition(mask: &[u8], dims: [u32; 3], operation: Operation, element: Element) -> Vec<u8> {
        let margin = 8;
        let (mut wide, wide_dims) = padded(mask, dims, [margin; 3]);
        let offsets = offsets(element);
        let times = if let Element::Neighbours(_, times) = element { times } else { 1 };
        let step = |mask: &[u8], erode: bool| -> Vec<u8> {
            let at = |voxel: [u32; 3], offset: &[i64; 3]| {
                let index: [i64; 3] = std::array::from_fn(|s| i64::from(voxel[s]) + offset[s]);
                let inside = (0..3).all(|s| (0..i64::from(wide_dims[s])).contains(&index[s]));
                inside && mask[((index[2] * i64::from(wide_dims[1]) + index[1]) * i64::from(wide_dims[0]) + index[0]) as usize] != 0
            };
            let value = |voxel| if erode { offsets.iter().all(|o| at(voxel, o)) } else { offsets.iter().any(|o| at(voxel, o)) };
            voxels(wide_dims).map(|voxel| value(voxel).into()).collect()
        };
        let steps: &[bool] = match operation {
            Operation::Dilate => &[false],
            Operation::Erode => &[true],
            Operation::Open => &[true, false],
            Operation::Close => &[false, true],
        };
        for &erode in steps {
            for _ in 0..times {
                wide = step(&wide, erode);
            }
        }
        let mut out = vec![0; mask.len()];
        cropped(&mut out, dims, &wide, wide_dims, [margin; 3]);
        out
    }

    #[test]
    fn both_do_what_the_definition_says() {
        let gpu = crate::gpu::for_tests();
        let connectivity = prop_oneof![Just(Connectivity::Six), Just(Connectivity::Eighteen), Just(Connectivity::TwentySix)];
        let neighbours = (connectivity, 0..4u32).prop_map(|(connectivity, times)| Element::Neighbours(connectivity, times));
        let ball = (0.0..3.0f64, prop::array::uniform3(0.9..3.0f64));
        let ball = ball.prop_map(|(radius_mm, spacing_mm)| Element::Ball { radius_mm, spacing_mm });
        let operation = prop_oneof![Just(Operation::Dilate), Just(Operation::Erode), Just(Operation::Open), Just(Operation::Close)];
        let dims =
            (prop_oneof![Just(1u32), 1u32..9, 30u32..35, 63u32..67], prop_oneof![Just(1u32), 1u32..6], prop_oneof![Just(1u32), 1u32..6]);
        let cases = (dims, operation, prop_oneof![2 => neighbours, 1 => ball], 0.0..1.0f64, 0..1000usize);
        let mut runner =
            proptest::test_runner::TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) });
        let answer = runner.run(&cases, |((nx, ny, nz), operation, element, share, seed)| {
            let dims = [nx, ny, nz];
            let mask: Vec<u8> = (0..voxel_count(dims)).map(|n| if noise(n + seed) < share { 3 } else { 0 }).collect();
            let expected = by_definition(&mask, dims, operation, element);
            let mut found = mask.clone();
            morphology_cpu(&mut found, dims, operation, element);
            prop_assert!(found == expected, "{operation:?} by {element:?} of {dims:?}");
            if let Some(gpu) = &gpu {
                let mut found = mask;
                morphology_gpu(gpu, &mut found, dims, operation, element).map_err(|err| TestCaseError::fail(err.to_string()))?;
                prop_assert!(found == expected, "on the GPU: {operation:?} by {element:?} of {dims:?}");
            }
            Ok(())
        });
        assert!(answer.is_ok(), "{answer:?}");
    }
}
