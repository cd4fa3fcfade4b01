//! What every room's error can say about itself, and this room's own error.

use thiserror::Error;

/// What programs match on, and what a person should do.
pub trait Coded: std::error::Error {
    /// A stable name, `room.what`, that never changes its meaning.
    fn code(&self) -> &'static str;

    /// What to do about it, where that is known.
    fn help(&self) -> Option<String> {
        None
    }
}

/// Why a set of numbers is no voxel lattice.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// The three voxel axes lie in one plane, or a number is not finite.
    #[error("voxel axes do not span space (determinant {determinant})")]
    Singular {
        /// Determinant of the linear part, mm³.
        determinant: f64,
    },
    /// An axis without voxels, or more voxels than [`crate::geometry::MAX_VOXELS`].
    #[error("grid of {} x {} x {} voxels is outside 1 to {} voxels", dims[0], dims[1], dims[2], crate::geometry::MAX_VOXELS)]
    Dims {
        /// The refused numbers of voxels along i, j, k.
        dims: [u32; 3],
    },
    /// Not three directions, one of each pair.
    #[error("`{text}` is no orientation: one each of L or R, P or A, S or I, as LPS or RAS")]
    Orientation {
        /// The first 16 characters of what was read.
        text: String,
    },
}

impl Coded for GeometryError {
    fn code(&self) -> &'static str {
        match self {
            Self::Singular { .. } => "geometry.singular",
            Self::Dims { .. } => "geometry.dims",
            Self::Orientation { .. } => "geometry.orientation",
        }
    }
}
