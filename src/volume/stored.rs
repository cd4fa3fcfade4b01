//! Stored values of an image, in the smallest type that holds them.

use rayon::prelude::*;
use thiserror::Error;

use super::Volume;
use crate::geometry::{Coded, Grid};

/// The largest magnitude of a float that is accepted: beyond it lie only markers such as `f32::MAX`, and sums that overflow.
pub const MAX_MAGNITUDE: f32 = 1e30;

/// Stored values of an image in the smallest type that holds them all.
///
/// Outside this crate floats come in through [`Stored::float32`] alone, so there is never a NaN or an infinity in a kernel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// Integers of up to 16 bits; unsigned ones of 16 bits minus 32768, which the [`Rescale`](super::Rescale) takes back.
    Int16(Volume<i16>),
    /// Floats, and integers that need more than 16 bits; all finite, see [`Stored::float32`].
    #[non_exhaustive]
    Float32(Volume<f32>),
}

/// Why numbers are no stored values.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// Values that nothing can be computed from.
    #[error(
        "{count} of {voxels} voxels are NaN, infinite or beyond {MAX_MAGNITUDE:e}, first at (i, j, k) = ({}, {}, {}): \
         replace them with a value that says what lies there", first[0], first[1], first[2]
    )]
    NotFinite {
        /// How many.
        count: usize,
        /// Of how many.
        voxels: usize,
        /// Index (i, j, k) of the first.
        first: [usize; 3],
    },
}

impl Coded for VolumeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFinite { .. } => "volume.not-finite",
        }
    }
}

impl Stored {
    /// Floats, checked: each finite, and of magnitude up to [`MAX_MAGNITUDE`].
    ///
    /// # Errors
    /// [`VolumeError::NotFinite`] with the number of other values and where the first lies.
    pub fn float32(volume: Volume<f32>) -> Result<Self, VolumeError> {
        let bad = |v: &f32| v.is_nan() || v.abs() > MAX_MAGNITUDE;
        let count: usize = volume.voxels().par_chunks(1 << 16).map(|part| part.iter().filter(|v| bad(v)).count()).sum();
        if count == 0 {
            return Ok(Self::Float32(volume));
        }
        let n = volume.voxels().iter().position(bad).unwrap_or(0);
        let [nx, ny, _] = volume.grid().dims().map(|d| d as usize);
        Err(VolumeError::NotFinite { count, voxels: volume.voxels().len(), first: [n % nx, n / nx % ny, n / nx / ny] })
    }

    /// Where the voxels lie.
    pub fn grid(&self) -> &Grid {
        match self {
            Self::Int16(volume) => volume.grid(),
            Self::Float32(volume) => volume.grid(),
        }
    }

    /// Stored value of voxel `n`, counted with `i` fastest. For single values; loops match on the type first.
    ///
    /// # Panics
    /// Beyond the last voxel.
    pub fn value(&self, n: usize) -> f64 {
        match self {
            Self::Int16(volume) => volume.voxels()[n].into(),
            Self::Float32(volume) => volume.voxels()[n].into(),
        }
    }

    /// The integers, where it holds integers.
    pub fn as_int16(&self) -> Option<&Volume<i16>> {
        match self {
            Self::Int16(volume) => Some(volume),
            Self::Float32(_) => None,
        }
    }

    /// The floats themselves, where it holds floats.
    pub fn into_float32(self) -> Option<Volume<f32>> {
        match self {
            Self::Int16(_) => None,
            Self::Float32(volume) => Some(volume),
        }
    }

    /// The floats, where it holds floats.
    pub fn as_float32(&self) -> Option<&Volume<f32>> {
        match self {
            Self::Int16(_) => None,
            Self::Float32(volume) => Some(volume),
        }
    }
}

impl From<Volume<i16>> for Stored {
    fn from(volume: Volume<i16>) -> Self {
        Self::Int16(volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;

    fn check(voxels: [f32; 6], expected: Option<(usize, [usize; 3])>) {
        let grid = Grid::new([3, 1, 2], Affine::IDENTITY).expect("a grid");
        match (Stored::float32(Volume::new(grid, voxels.to_vec())), expected) {
            (Ok(stored), None) => assert_eq!(stored.value(4), f64::from(voxels[4])),
            (Err(error), Some((count, first))) => {
                assert_eq!(error, VolumeError::NotFinite { count, voxels: 6, first });
                assert_eq!(error.code(), "volume.not-finite");
            }
            (answer, _) => panic!("{answer:?} for {voxels:?}"),
        }
    }

    #[test]
    fn what_is_no_number_is_counted_and_refused() {
        check([0.0, -0.0, 1e30, -1e30, f32::MIN_POSITIVE, 1e-42], None);
        check([0.0, f32::NAN, 1.0, -f32::NAN, f32::INFINITY, 2.0], Some((3, [1, 0, 0])));
        check([0.0, 0.0, 1.0, 0.0, f32::NEG_INFINITY, 2.0], Some((1, [1, 0, 1])));
        check([0.0, 0.0, 1.0, 0.0, 0.0, f32::MAX], Some((1, [2, 0, 1])));
    }
}
