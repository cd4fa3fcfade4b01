//! An oblique plane through a volume, for pictures: what [`Resample`] needs to make it.

use super::resample::Resample;
use crate::geometry::{Affine, GeometryError, Grid, cross};

/// A picture's pixels in patient space (PS3.3 C.7.6.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plane {
    /// Centre of the first pixel, LPS, mm.
    pub first_mm: [f64; 3],
    /// Unit vectors along i (within a row) and along j (from row to row), LPS.
    pub directions: [[f64; 3]; 2],
    /// Between pixel centres along i and j, mm.
    pub spacing_mm: [f64; 2],
    /// Pixels along i and j.
    pub dims: [u32; 2],
}

impl Plane {
    /// The pixels as a grid of one slice.
    ///
    /// # Errors
    /// Where the directions are parallel or a number is no spacing.
    pub fn grid(&self) -> Result<Grid, GeometryError> {
        let [x, y] = std::array::from_fn(|n| self.directions[n].map(|v| v * self.spacing_mm[n]));
        let axes = Affine::from_columns(x, y, cross(self.directions[0], self.directions[1]), self.first_mm);
        Grid::new([self.dims[0], self.dims[1], 1], axes)
    }

    /// Linear interpolation of a volume on `source`; pixels outside of it become `outside`. Values stay physical.
    ///
    /// # Errors
    /// As [`Plane::grid`].
    pub fn reslice(&self, source: &Grid, outside: f64) -> Result<Resample, GeometryError> {
        let grid = self.grid()?;
        Ok(Resample { outside: Some(outside), ..Resample::new(grid.dims(), source.voxel_from_lps() * grid.lps_from_voxel()) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::resample_cpu;
    use super::super::tests::noisy_image;
    use super::*;

    #[test]
    fn a_plane_through_voxel_centres_is_these_voxels() {
        let image = noisy_image([7, 6, 5], 3);
        // Coronal: rows from right to left, from the highest slice down.
        let coronal = Plane { first_mm: [6., 2., 4.], directions: [[-1., 0., 0.], [0., 0., -1.]], spacing_mm: [2.0, 1.0], dims: [4, 6] };
        let out = resample_cpu(&image, &coronal.reslice(image.grid(), -7.0).expect("a plane"));
        for (n, &found) in out.iter().enumerate() {
            let [i, row] = [6 - 2 * (n % 4), n / 4];
            let expected = if row == 5 { -7.0 } else { image.physical([i, 2, 4 - row]) };
            assert!((f64::from(found) - expected).abs() < 1e-3, "{found} is not {expected}");
        }
        let flat = Plane { directions: [[1., 0., 0.]; 2], ..coronal };
        assert!(flat.grid().is_err());
    }
}
