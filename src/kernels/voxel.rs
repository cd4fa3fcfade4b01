//! What kernels need to know of a type of stored values. Twins: `shaders/shared/stored_i16.wgsl`, `shaders/shared/stored_f32.wgsl`.

use bytemuck::Pod;

use crate::volume::MAX_MAGNITUDE;

/// A type of stored values.
pub(super) trait Voxel: Pod + PartialOrd + Send + Sync {
    /// The value itself: both types fit.
    fn number(self) -> f32;

    /// The value nearest to `exact`; 0 where that is not finite.
    fn nearest(exact: f64) -> f32;

    /// Bits of a rank.
    const RANK_BITS: u32;

    /// Values in their order, as whole numbers: `rank_of` of the shaders.
    fn rank(self) -> u32;

    /// The value of a rank.
    fn of_rank(rank: u32) -> f64;

    /// Ranks of the least and the greatest value that there can be.
    fn end_ranks() -> [u32; 2];
}

/// Floats in their order: their bits ascend, those of negative ones turned round.
#[inline(always)]
pub(super) fn rank_of_float(value: f32) -> u32 {
    let bits = value.to_bits();
    bits ^ if bits >> 31 == 1 { u32::MAX } else { 1 << 31 }
}

/// The float of a rank.
pub(super) fn float_of_rank(rank: u32) -> f32 {
    f32::from_bits(if rank >> 31 == 1 { rank ^ (1 << 31) } else { !rank })
}

impl Voxel for i16 {
    #[inline(always)]
    fn number(self) -> f32 {
        self.into()
    }

    fn nearest(exact: f64) -> f32 {
        if exact.is_finite() { exact.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as f32 } else { 0.0 }
    }

    const RANK_BITS: u32 = 16;

    #[inline(always)]
    fn rank(self) -> u32 {
        (i32::from(self) + 32768) as u32
    }

    fn of_rank(rank: u32) -> f64 {
        f64::from(rank) - 32768.0
    }

    fn end_ranks() -> [u32; 2] {
        [0, u16::MAX.into()]
    }
}

impl Voxel for f32 {
    #[inline(always)]
    fn number(self) -> f32 {
        self
    }

    fn nearest(exact: f64) -> f32 {
        if exact.is_finite() { exact.clamp(-f64::from(MAX_MAGNITUDE), MAX_MAGNITUDE.into()) as f32 } else { 0.0 }
    }
    const RANK_BITS: u32 = 32;

    #[inline(always)]
    fn rank(self) -> u32 {
        rank_of_float(self)
    }

    fn of_rank(rank: u32) -> f64 {
        float_of_rank(rank).into()
    }

    fn end_ranks() -> [u32; 2] {
        [-MAX_MAGNITUDE, MAX_MAGNITUDE].map(rank_of_float)
    }
}
