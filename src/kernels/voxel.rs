//! What kernels need to know of a type of stored values. Twins: `shaders/shared/stored_i16.wgsl`, `shaders/shared/stored_f32.wgsl`.

use bytemuck::Pod;

use crate::volume::MAX_MAGNITUDE;

/// A type of stored values.
pub(super) trait Voxel: Pod + Send + Sync {
    /// The value itself: both types fit.
    fn number(self) -> f32;

    /// The value nearest to `exact`; 0 where that is not finite.
    fn nearest(exact: f64) -> f32;
}

impl Voxel for i16 {
    #[inline(always)]
    fn number(self) -> f32 {
        self.into()
    }

    fn nearest(exact: f64) -> f32 {
        if exact.is_finite() { exact.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as f32 } else { 0.0 }
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
}
