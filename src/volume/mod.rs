//! Dense voxels on a grid, and what their numbers mean.

pub(crate) mod huge;
mod quantity;
mod stored;
mod terms;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::geometry::Grid;

pub use quantity::{Property, Quantity, SuvKind, Unit, UnknownQuantity};
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

    /// All voxels, taken out of it.
    pub fn into_voxels(self) -> Vec<T> {
        self.voxels
    }

    /// The voxels of slice `k`, row by row.
    pub fn slice(&self, k: usize) -> &[T] {
        let plane = self.grid.slice_voxels();
        &self.voxels[k * plane..][..plane]
    }
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

    /// Least and greatest physical value.
    pub fn range(&self) -> [f64; 2] {
        let slice = |(k, rescale): (usize, &Rescale)| {
            let ends = match &self.stored {
                Stored::Int16(volume) => ends(volume.slice(k)).map(f64::from),
                Stored::Float32(volume) => ends(volume.slice(k)).map(f64::from),
            };
            let [a, b] = ends.map(|stored| rescale.slope * stored + rescale.intercept);
            [a.min(b), a.max(b)]
        };
        let wider = |a: [f64; 2], b: [f64; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        self.rescale.par_iter().enumerate().map(slice).reduce(|| [f64::INFINITY, f64::NEG_INFINITY], wider)
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

/// Least and greatest of the values of a slice, none of them NaN.
fn ends<T: Copy + PartialOrd>(values: &[T]) -> [T; 2] {
    let start = values[0];
    values.iter().fold([start; 2], |[low, high], &v| [if v < low { v } else { low }, if v > high { v } else { high }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;

    #[test]
    fn physical_values_come_from_their_own_slice() {
        let grid = Grid::new([3, 1, 2], Affine::IDENTITY).expect("a grid");
        let rescale = vec![Rescale { slope: 2.0, intercept: 1.0 }, Rescale { slope: -1.0, intercept: 10.0 }];
        let integers = Volume::new(grid, vec![-3i16, 0, 5, 7, 30, -1]).into();
        let floats = Stored::float32(Volume::new(grid, vec![-3.0, 0.0, 5.0, 7.0, 30.0, -1.0])).expect("numbers");
        for stored in [integers, floats] {
            let image = ImageVolume { stored, rescale: rescale.clone(), quantity: Quantity::Arbitrary };
            assert_eq!(image.range(), [-20.0, 11.0]);
            assert_eq!([image.physical([2, 0, 0]), image.physical([1, 0, 1]), image.physical([2, 0, 1])], [11.0, -20.0, 11.0]);
        }
    }
}
