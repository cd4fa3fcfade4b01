//! IEEE 754 half precision: what networks of element type float16 take.
//!
//! Rounded to nearest, ties to even. Values beyond 65504 become that, since a network can do nothing with infinities.
//! Memory traffic a value: 6 bytes; none more on the CPU where a row is converted as it is made. Shader: `shaders/half.wgsl`.

use bytemuck::{Pod, Zeroable};

use super::lines::groups_of;
use super::simd::wide;
use crate::gpu::{Buffer, Gpu, GpuError};

pub(super) const WGSL: &str = include_str!("../../shaders/half.wgsl");

/// The largest number.
pub const HALF_MAX: f32 = 65504.0;

/// Uniforms of `shaders/half.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub struct HalfParams {
    /// Number of values.
    pub count: u32,
    /// Threads along x of the dispatch.
    pub threads_a_row: u32,
    /// WGSL alignment.
    pub pad0: u32,
    /// WGSL alignment.
    pub pad1: u32,
}

/// The bits of the half-precision number nearest to `value`, which is not NaN.
#[inline(always)]
pub fn half_bits(value: f32) -> u16 {
    let value = if value > -HALF_MAX { value } else { -HALF_MAX };
    let value = if value < HALF_MAX { value } else { HALF_MAX };
    let sign = value.to_bits() & (1 << 31);
    let size = value.to_bits() ^ sign;
    // Another exponent bias, and half of the last place that stays, less one where it is even; below 2^-14 an addition rounds.
    let rebias = (112u32 << 23).wrapping_neg();
    let normal = size.wrapping_add(rebias).wrapping_add(0xfff + (size >> 13 & 1)) >> 13;
    let small = (f32::from_bits(size) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let bits = if size < (113 << 23) { small } else { normal };
    (bits | sign >> 16) as u16
}

/// The value of half-precision bits.
pub fn half_value(bits: u16) -> f32 {
    let [sign, exponent, fraction] = [bits >> 15, bits >> 10 & 31, bits & 1023].map(i32::from);
    let size = match exponent {
        0 => fraction as f32 * (-24f32).exp2(),
        31 => f32::INFINITY,
        _ => (1024 + fraction) as f32 * ((exponent - 25) as f32).exp2(),
    };
    if sign == 1 { -size } else { size }
}

wide! {
    /// Bits of each value.
    fn to_half(out: &mut [u16], values: &[f32]) {
        out.iter_mut().zip(values).for_each(|(out, &value)| *out = half_bits(value));
    }
}

/// What kernels write: values, or half-precision bits of them.
pub(super) trait Output: Pod + Default + Send {
    /// Has `make` fill a row of values.
    fn row(out: &mut [Self], scratch: &mut Vec<f32>, make: impl FnOnce(&mut [f32]));
}

impl Output for f32 {
    #[inline(always)]
    fn row(out: &mut [Self], _: &mut Vec<f32>, make: impl FnOnce(&mut [f32])) {
        make(out);
    }
}

impl Output for u16 {
    #[inline(always)]
    fn row(out: &mut [Self], scratch: &mut Vec<f32>, make: impl FnOnce(&mut [f32])) {
        scratch.resize(out.len(), 0.0);
        make(scratch);
        to_half(out, scratch);
    }
}

/// Half-precision bits, two a word, of `count` values in the memory of a GPU.
///
/// # Errors
/// [`GpuError::TooLarge`] where they exceed a binding; [`GpuError::OutOfMemory`]; [`GpuError::Lost`].
pub fn half_gpu(gpu: &Gpu, values: &Buffer, count: usize) -> Result<Buffer, GpuError> {
    let pipeline = gpu.pipeline("half", WGSL, &[])?;
    let (threads_a_row, groups) = groups_of(gpu, count.div_ceil(2), 64);
    let params = gpu.uniform("half: params", &HalfParams { count: count as u32, threads_a_row, pad0: 0, pad1: 0 })?;
    let halves = gpu.storage("half: bits", count as u64 * 2)?;
    gpu.dispatch("half", &pipeline, &[&params, values, &halves], groups)?;
    Ok(halves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_and_what_is_between_goes_to_the_nearest() {
        for bits in 0..0x7c00u16 {
            let value = half_value(bits);
            assert_eq!((half_bits(value), half_bits(-value)), (bits, bits | 0x8000));
            if bits + 1 < 0x7c00 {
                let next = half_value(bits + 1);
                let middle = value + (next - value) / 2.0; // exact in f32
                assert_eq!(half_bits(middle), bits + (bits & 1), "halfway to the even one of {value} and {next}");
                assert_eq!((half_bits(middle.next_down()), half_bits(middle.next_up())), (bits, bits + 1));
            }
        }
        assert_eq!([65504.0, 65535.0, 1e30, f32::MAX].map(half_bits), [0x7bff; 4]);
        assert_eq!(half_bits(-1e30), 0xfbff);
    }

    #[test]
    fn gpu_rounds_to_a_neighbour() -> Result<(), GpuError> {
        let Some(gpu) = crate::gpu::for_tests() else { return Ok(()) };
        // Below the least normal number drivers may give 0.
        let values: Vec<f32> = (0..20_001).map(|n| (n - 10_000) as f32 * 7.3301).collect();
        let mut found = vec![0u16; values.len()];
        gpu.read_into(&half_gpu(&gpu, &gpu.upload("values", &values)?, values.len())?, &mut found)?;
        for (&value, &found) in values.iter().zip(&found) {
            let expected = value.clamp(-HALF_MAX, HALF_MAX);
            let off = (half_value(found) - expected).abs();
            assert!(off <= expected.abs() * 9.8e-4, "{} is not {expected}", half_value(found)); // one unit in the last place
        }
        Ok(())
    }
}
