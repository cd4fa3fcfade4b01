//! Dense voxels on a grid, and what their numbers mean.

mod stored;

use serde::{Deserialize, Serialize};

use crate::geometry::Grid;

pub use stored::{MAX_MAGNITUDE, Stored, VolumeError};

/// Dense voxels on a [`Grid`]: `i` (column) fastest, then `j` (row), then `k` (slice), which are the bytes of a row-major D, H, W tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume<T> {
    grid: Grid,
    voxels: Vec<T>,
}

/// Segment numbers on a grid; 0 is background.
pub type LabelMap = Volume<u8>;

impl<T> Volume<T> {
    /// Voxels in the order of the grid.
    ///
    /// # Panics
    /// Where `voxels` has another length than the grid has voxels: a broken promise of the caller.
    pub fn new(grid: Grid, voxels: Vec<T>) -> Self {
        assert_eq!(voxels.len(), grid.voxel_count(), "one value a voxel");
        Self { grid, voxels }
    }

    /// Where the voxels lie.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// All voxels, `i` fastest.
    pub fn voxels(&self) -> &[T] {
        &self.voxels
    }

    /// The voxels of slice `k`, row by row.
    pub fn slice(&self, k: usize) -> &[T] {
        let plane = self.grid.slice_voxels();
        &self.voxels[k * plane..][..plane]
    }
}

/// What the physical values of an image are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Quantity {
    /// CT number, Hounsfield units.
    Hounsfield,
    /// Numbers without a unit that holds across scanners (MR signal, for one).
    Arbitrary,
}

/// The modality's map from stored to physical values: `slope * stored + intercept` (PS3.3 C.11.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    /// Physical units a stored unit.
    pub slope: f64,
    /// Physical value of stored 0.
    pub intercept: f64,
}

/// The voxels of an image series as they were stored, and how they become physical values.
///
/// Integers of up to 16 bits are kept as `i16`, never expanded to floats. Unsigned 16-bit images are stored minus 32768,
/// which their [`Rescale`] takes back, so no value is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageVolume {
    /// Stored values.
    pub stored: Stored,
    /// One for each slice, since instances may differ.
    pub rescale: Vec<Rescale>,
    /// What the physical values are.
    pub quantity: Quantity,
}

impl ImageVolume {
    /// Where the voxels lie.
    pub fn grid(&self) -> &Grid {
        self.stored.grid()
    }

    /// Physical value of voxel (i, j, k), from its slice's [`Rescale`]. For single values.
    ///
    /// # Panics
    /// Outside the grid.
    pub fn physical(&self, [i, j, k]: [usize; 3]) -> f64 {
        let [nx, ny, _] = self.grid().dims().map(|d| d as usize);
        assert!(i < nx && j < ny, "inside the slice");
        let Rescale { slope, intercept } = self.rescale[k];
        slope * self.stored.value((k * ny + j) * nx + i) + intercept
    }
}
