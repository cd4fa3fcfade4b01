//! Voxel lattices, affines and orientations: pure `f64`, no I/O.

mod affine;
mod error;
mod grid;
mod orientation;

pub use affine::{Affine, cross, dot, norm, sub};
pub use error::{Coded, GeometryError};
pub use grid::{Grid, MAX_SHEAR, MAX_VOXELS, SAME_PLACE};
pub use orientation::Orientation;
