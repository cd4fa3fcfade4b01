//! A regular voxel lattice in the patient.

use serde::{Deserialize, Serialize};

use super::{Affine, GeometryError, Orientation, norm, sub};

/// The largest lattice that is accepted: 4 Gi voxels.
pub const MAX_VOXELS: u64 = 1 << 32;

/// A regular voxel lattice. `lps_from_voxel` maps the centre of voxel (i, j, k), 0-based, to patient LPS mm (PS3.3 C.7.6.2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    dims: [u32; 3],
    lps_from_voxel: Affine,
}

impl Grid {
    /// A lattice of `dims` = (columns, rows, slices) voxels.
    ///
    /// # Errors
    /// An empty axis, more than [`MAX_VOXELS`] voxels, or axes that do not span space.
    pub fn new(dims: [u32; 3], lps_from_voxel: Affine) -> Result<Self, GeometryError> {
        let voxels = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::from(d)));
        if !voxels.is_some_and(|n| (1..=MAX_VOXELS).contains(&n)) {
            return Err(GeometryError::Dims { dims });
        }
        lps_from_voxel.inverse()?;
        Ok(Self { dims, lps_from_voxel })
    }

    /// Numbers of voxels along i, j, k: columns, rows, slices.
    pub fn dims(&self) -> [u32; 3] {
        self.dims
    }

    /// Voxel (i, j, k) to patient LPS mm.
    pub fn lps_from_voxel(&self) -> Affine {
        self.lps_from_voxel
    }

    /// Patient LPS mm to voxel (i, j, k).
    pub fn voxel_from_lps(&self) -> Affine {
        self.lps_from_voxel.inverse().expect("checked when the grid was made")
    }

    /// Number of voxels.
    pub fn voxel_count(&self) -> usize {
        self.dims.iter().map(|&d| d as usize).product()
    }

    /// Voxels of one slice.
    pub fn slice_voxels(&self) -> usize {
        self.dims[0] as usize * self.dims[1] as usize
    }

    /// Distance between neighbours along i, j, k, mm.
    pub fn spacing_mm(&self) -> [f64; 3] {
        std::array::from_fn(|n| norm(self.lps_from_voxel.column(n)))
    }

    /// Volume of one voxel, mm³.
    pub fn voxel_volume_mm3(&self) -> f64 {
        self.lps_from_voxel.determinant().abs()
    }

    /// Which way the axes run through the patient.
    pub fn orientation(&self) -> Orientation {
        Orientation::of(&self.lps_from_voxel)
    }

    /// The same box of the patient seen along the L, P and S axes: axes permuted and flipped, no voxel moved.
    pub fn reoriented_lps(&self) -> Self {
        let mut start = [0.0; 3];
        let mut columns = [[0.0; 3]; 3];
        let mut dims = [0; 3];
        for (target, (axis, same_way)) in self.orientation().voxel_axis_of_lps().into_iter().enumerate() {
            let column = self.lps_from_voxel.column(axis);
            dims[target] = self.dims[axis];
            columns[target] = if same_way { column } else { column.map(|v| -v) };
            start[axis] = if same_way { 0.0 } else { f64::from(self.dims[axis] - 1) };
        }
        let [x, y, z] = columns;
        Self { dims, lps_from_voxel: Affine::from_columns(x, y, z, self.lps_from_voxel.apply(start)) }
    }

    /// The lattice of another spacing with the same axes and the same centre; as many voxels as fit, rounded, at least one.
    ///
    /// # Errors
    /// As for [`Grid::new`].
    pub fn respaced(&self, spacing_mm: [f64; 3]) -> Result<Self, GeometryError> {
        let old_mm = self.spacing_mm();
        let scale: [f64; 3] = std::array::from_fn(|n| spacing_mm[n] / old_mm[n]);
        let dims = std::array::from_fn(|n| (f64::from(self.dims[n]) / scale[n]).round().clamp(1.0, f64::from(u32::MAX)) as u32);
        let shift = std::array::from_fn(|n| (f64::from(self.dims[n]) - 1.0) / 2.0 - scale[n] * (f64::from(dims[n]) - 1.0) / 2.0);
        Self::new(dims, self.lps_from_voxel * Affine::scale_then_shift(scale, shift))
    }

    /// Whether both lattices have the same voxels, to within `tolerance_mm` at every corner.
    pub fn matches(&self, other: &Self, tolerance_mm: f64) -> bool {
        self.dims == other.dims
            && (0..8).all(|corner| {
                let voxel = std::array::from_fn(|n| if corner >> n & 1 == 1 { f64::from(self.dims[n] - 1) } else { 0.0 });
                norm(sub(self.lps_from_voxel.apply(voxel), other.lps_from_voxel.apply(voxel))) <= tolerance_mm
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sagittal() -> Grid {
        let axes = Affine::from_columns([0., 0.5, 0.], [0., 0., -0.5], [-2., 0., 0.], [40., -60., 90.]);
        Grid::new([256, 200, 30], axes).expect("axes span space")
    }

    #[test]
    fn reoriented_grid_is_lps_and_covers_the_same_voxels() {
        let source = sagittal();
        let target = source.reoriented_lps();
        assert_eq!(target.orientation().to_string(), "LPS");
        assert_eq!(target.dims(), [30, 256, 200]);
        let first = source.voxel_from_lps().apply(target.lps_from_voxel().column(3));
        assert!(norm(sub(first, [0., 199., 29.])) < 1e-9, "{first:?}");
    }

    #[test]
    fn respaced_grid_keeps_the_centre() {
        let source = sagittal();
        let target = source.respaced([1.5; 3]).expect("spacing is positive");
        assert_eq!(target.dims(), [85, 67, 40]);
        let centre = |g: &Grid| g.lps_from_voxel().apply(g.dims().map(|d| (f64::from(d) - 1.0) / 2.0));
        assert!(norm(sub(centre(&source), centre(&target))) < 1e-9);
        assert!((target.spacing_mm()[2] - 1.5).abs() < 1e-12);
    }

    #[test]
    fn volume_of_a_voxel_is_the_product_of_spacings() {
        assert!((sagittal().voxel_volume_mm3() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn empty_and_enormous_grids_are_refused() {
        for dims in [[0, 5, 5], [u32::MAX, u32::MAX, 2]] {
            assert_eq!(Grid::new(dims, Affine::IDENTITY), Err(GeometryError::Dims { dims }));
        }
    }
}
