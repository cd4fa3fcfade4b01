//! A regular voxel lattice in the patient.

use serde::{Deserialize, Serialize};

use super::{Affine, GeometryError, Orientation, cross, dot, norm, sub};

/// The largest lattice that is accepted: 4 Gi voxels.
pub const MAX_VOXELS: u64 = 1 << 32;

/// How far the axes of a grid may be from right angles, as a tangent, and count as straight: 0.06 degrees, what the geometry gate allows.
pub const MAX_SHEAR: f64 = 0.001;

/// Voxels that lie within this part of a voxel of each other are in one place: headers have six digits or more.
pub const SAME_PLACE: f64 = 1e-3;

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

    /// The same box of the patient with axes along `to`: permuted and flipped, no voxel moved.
    pub fn reoriented(&self, to: Orientation) -> Self {
        self.turned(self.orientation().voxel_axes_of(to))
    }

    /// The same voxels with i, j, k along these axes of this grid, in this order; none is flipped, so that the grid may be left-handed.
    ///
    /// # Panics
    /// Where an axis is not named once: a broken promise of the caller.
    pub fn transposed(&self, axes: [usize; 3]) -> Self {
        assert!((0..3).all(|n| axes.contains(&n)), "each axis is named once");
        self.turned(axes.map(|axis| (axis, true)))
    }

    /// For each new axis the old one, and whether it runs the same way.
    fn turned(&self, axes: [(usize, bool); 3]) -> Self {
        let mut start = [0.0; 3];
        let mut columns = [[0.0; 3]; 3];
        let mut dims = [0; 3];
        for (target, (axis, same_way)) in axes.into_iter().enumerate() {
            let column = self.lps_from_voxel.column(axis);
            dims[target] = self.dims[axis];
            columns[target] = if same_way { column } else { column.map(|v| -v) };
            start[axis] = if same_way { 0.0 } else { f64::from(self.dims[axis] - 1) };
        }
        let [x, y, z] = columns;
        Self { dims, lps_from_voxel: Affine::from_columns(x, y, z, self.lps_from_voxel.apply(start)) }
    }

    /// The voxels from `low` to `high`, both included, as a grid of their own.
    ///
    /// # Panics
    /// Where there are none, or they are not all voxels of this grid: a broken promise of the caller.
    pub fn part(&self, [low, high]: [[u32; 3]; 2]) -> Self {
        assert!((0..3).all(|n| low[n] <= high[n] && high[n] < self.dims[n]), "the part lies in the grid");
        let shift = Affine::scale_then_shift([1.0; 3], low.map(f64::from));
        Self { dims: std::array::from_fn(|n| high[n] - low[n] + 1), lps_from_voxel: self.lps_from_voxel * shift }
    }

    /// The lattice of another spacing with the same axes and the same centre; as many voxels as fit, rounded, at least one.
    ///
    /// # Errors
    /// As for [`Grid::new`].
    pub fn respaced(&self, spacing_mm: [f64; 3]) -> Result<Self, GeometryError> {
        let old_mm = self.spacing_mm();
        let scale: [f64; 3] = std::array::from_fn(|n| spacing_mm[n] / old_mm[n]);
        let dims = std::array::from_fn(|n| whole((f64::from(self.dims[n]) / scale[n]).round()));
        self.divided(dims, scale)
    }

    /// As [`Self::respaced`] with the same outer faces: the spacing is the one that so many voxels have within them. As nnU-Net
    /// has it, to the rounding of halves (to even).
    ///
    /// # Errors
    /// As for [`Grid::new`].
    pub fn respaced_within(&self, spacing_mm: [f64; 3]) -> Result<Self, GeometryError> {
        let old_mm = self.spacing_mm();
        // To a millionth of a voxel, since a spacing that is computed from an affine is rounded and may miss a half.
        let fitting = |n: usize| (old_mm[n] / spacing_mm[n] * f64::from(self.dims[n]) * 1e6).round() / 1e6;
        let dims = std::array::from_fn(|n| whole(fitting(n).round_ties_even()));
        self.divided(dims, std::array::from_fn(|n| f64::from(self.dims[n]) / f64::from(dims[n])))
    }

    /// As [`Self::respaced`] with the centre of the first voxel where it was; as many voxels as it takes to come nearest to that of the
    /// last one. MONAI's `Spacing` (`compute_shape_offset`), to the rounding of halves (to even).
    ///
    /// # Errors
    /// As for [`Grid::new`].
    pub fn respaced_from_first(&self, spacing_mm: [f64; 3]) -> Result<Self, GeometryError> {
        let old_mm = self.spacing_mm();
        let fitting = |n: usize| (f64::from(self.dims[n] - 1) * old_mm[n] / spacing_mm[n] * 1e6).round() / 1e6;
        let dims = std::array::from_fn(|n| whole((fitting(n) + 1.0).round_ties_even()));
        let scale = std::array::from_fn(|n| spacing_mm[n] / old_mm[n]);
        Self::new(dims, self.lps_from_voxel * Affine::scale_then_shift(scale, [0.0; 3]))
    }

    /// A lattice of `dims` voxels with the same axes and the same centre, in which this one just fits: voxels are as long along every axis,
    /// and along k as this one altogether where `dims` has 1 there.
    ///
    /// # Errors
    /// As for [`Grid::new`].
    pub fn fitted_into(&self, dims: [u32; 3]) -> Result<Self, GeometryError> {
        let old_mm = self.spacing_mm();
        let extent_mm: [f64; 3] = std::array::from_fn(|n| old_mm[n] * f64::from(self.dims[n]));
        let is_free = |n: usize| n < 2 || dims[2] > 1;
        let side_mm = (0..3).filter(|&n| is_free(n)).map(|n| extent_mm[n] / f64::from(dims[n])).fold(0.0, f64::max);
        self.divided(dims, std::array::from_fn(|n| if is_free(n) { side_mm / old_mm[n] } else { f64::from(self.dims[n]) }))
    }

    /// `dims` voxels of `scale` times the size around the same centre.
    fn divided(&self, dims: [u32; 3], scale: [f64; 3]) -> Result<Self, GeometryError> {
        let shift = std::array::from_fn(|n| (f64::from(self.dims[n]) - 1.0) / 2.0 - scale[n] * (f64::from(dims[n]) - 1.0) / 2.0);
        Self::new(dims, self.lps_from_voxel * Affine::scale_then_shift(scale, shift))
    }

    /// How far the axes are from right angles: the largest of j's slope on i, and k's slope on i and on j, as tangents. 0 where the
    /// voxels are boxes, 0.36 for a gantry tilt of 20 degrees.
    pub fn shear(&self) -> f64 {
        let columns: [[f64; 3]; 3] = std::array::from_fn(|n| self.lps_from_voxel.column(n));
        let straight = right_angled(columns);
        // Over what is left of each axis: rectangular, so scalar products with its axes are coordinates.
        let on = |v: usize, axis: usize| dot(columns[v], straight[axis]) / norm(straight[axis]) / norm(straight[v]);
        on(1, 0).abs().max(on(2, 0).hypot(on(2, 1)))
    }

    /// Whether the axes are at right angles, to [`MAX_SHEAR`].
    pub fn is_straight(&self) -> bool {
        self.shear() <= MAX_SHEAR
    }

    /// The smallest grid of box-shaped voxels around the voxel centres of a sheared one.
    ///
    /// The i axis stays; j is turned at right angles to it in the plane of the slices, where it usually is already, and k along their
    /// normal, to the side it was on. Distances are those between columns, rows and slices, measured along the new axes, so a voxel keeps
    /// its volume and slices stay in their planes. Voxel (0, 0, 0) of `self` lies on the new lattice; each axis has as many voxels
    /// as it takes that no centre of `self` lies beyond the outermost ones (to a thousandth of a voxel).
    ///
    /// # Errors
    /// [`GeometryError::Dims`] where that is more than [`MAX_VOXELS`] voxels.
    pub fn straightened(&self) -> Result<Self, GeometryError> {
        let [x, y, z] = right_angled(std::array::from_fn(|n| self.lps_from_voxel.column(n)));
        let from_first = Affine::from_columns(x, y, z, self.lps_from_voxel.column(3));
        let straight_from_voxel = from_first.inverse()? * self.lps_from_voxel;
        let mut low = [0.0f64; 3];
        let mut high = [0.0f64; 3];
        for corner in 0..8 {
            let at = straight_from_voxel.apply(self.corner(corner));
            for axis in 0..3 {
                low[axis] = low[axis].min((at[axis] + 1e-3).floor());
                high[axis] = high[axis].max((at[axis] - 1e-3).ceil());
            }
        }
        let dims = std::array::from_fn(|n| (high[n] - low[n] + 1.0).min(f64::from(u32::MAX)) as u32);
        Self::new(dims, from_first * Affine::scale_then_shift([1.0; 3], low))
    }

    /// Index of one of the 8 outermost voxels: bit n of `corner` is set for the far end of axis n.
    fn corner(&self, corner: usize) -> [f64; 3] {
        std::array::from_fn(|n| if corner >> n & 1 == 1 { f64::from(self.dims[n] - 1) } else { 0.0 })
    }

    /// Whether both lattices are one as far as headers tell: to within [`SAME_PLACE`] of a voxel.
    pub fn coincides(&self, other: &Self) -> bool {
        self.matches(other, SAME_PLACE * self.spacing_mm().into_iter().fold(f64::INFINITY, f64::min))
    }

    /// Whether a point, in voxels (i, j, k), lies in the voxels: to their outer faces, and `slack` voxels beyond.
    pub fn has(&self, at: [f64; 3], slack: f64) -> bool {
        (0..3).all(|n| (-0.5 - slack..=f64::from(self.dims[n]) - 0.5 + slack).contains(&at[n]))
    }

    /// Whether both lattices have the same voxels, to within `tolerance_mm` at every corner.
    pub fn matches(&self, other: &Self, tolerance_mm: f64) -> bool {
        self.dims == other.dims
            && (0..8).all(|corner| {
                let voxel = self.corner(corner);
                norm(sub(self.lps_from_voxel.apply(voxel), other.lps_from_voxel.apply(voxel))) <= tolerance_mm
            })
    }
}

/// The axes less what each shares with the ones before it (Gram and Schmidt), so the box they span has the same volume.
fn right_angled([x, y, z]: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let along = |v: [f64; 3], axis: [f64; 3]| dot(v, axis) / dot(axis, axis);
    let y = sub(y, x.map(|c| c * along(y, x)));
    let normal = cross(x, y);
    [x, y, normal.map(|c| c * along(z, normal))]
}

/// At least one voxel.
fn whole(count: f64) -> u32 {
    count.clamp(1.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sagittal() -> Grid {
        let axes = Affine::from_columns([0., 0.5, 0.], [0., 0., -0.5], [-2., 0., 0.], [40., -60., 90.]);
        Grid::new([256, 200, 30], axes).expect("axes span space")
    }

    #[test]
    fn reoriented_grid_is_lps_and_covers_the_same_voxels() {
        let source = sagittal();
        let target = source.reoriented(Orientation::LPS);
        assert_eq!(target.orientation().to_string(), "LPS");
        assert_eq!(target.dims(), [30, 256, 200]);
        let first = source.voxel_from_lps().apply(target.lps_from_voxel().column(3));
        assert!(norm(sub(first, [0., 199., 29.])) < 1e-9, "{first:?}");
    }

    #[test]
    fn axes_are_turned_and_no_voxel_moves() {
        let source = sagittal();
        for to in ["SAR", "RAS", "PIR", "LPS"] {
            let target = source.reoriented(to.parse().expect("an orientation"));
            assert_eq!(target.orientation().to_string(), to);
            assert!(target.reoriented(source.orientation()).matches(&source, 1e-9), "{to}");
        }
        let target = source.transposed([2, 1, 0]);
        assert_eq!((target.dims(), target.orientation().to_string()), ([30, 200, 256], "RIP".to_owned()));
        assert_eq!(target.lps_from_voxel().apply([1., 2., 3.]), source.lps_from_voxel().apply([3., 2., 1.]));
        let target = source.transposed([2, 0, 1]);
        assert_eq!(target.dims(), [30, 256, 200]);
        assert_eq!(target.lps_from_voxel().apply([3., 10., 20.]), source.lps_from_voxel().apply([10., 20., 3.]));
    }

    #[test]
    fn respaced_grid_keeps_the_first_voxel() {
        // compute_shape_offset of MONAI 1.6.1 for 256, 200 and 30 voxels: 85.0 + 1 is 86, 66.33 + 1 is 67, 38.67 + 1 is 40.
        let target = sagittal().respaced_from_first([1.5; 3]).expect("spacing is positive");
        assert_eq!(target.dims(), [86, 67, 40]);
        assert_eq!(target.lps_from_voxel().column(3), sagittal().lps_from_voxel().column(3));
        // numpy: round(1.5 + 1) is 2, round(2.5 + 1) is 4.
        let even = Grid::new([4, 6, 1], Affine::IDENTITY).and_then(|g| g.respaced_from_first([2.0; 3])).expect("spacing is positive");
        assert_eq!(even.dims(), [2, 4, 1]);
    }

    #[test]
    fn a_part_keeps_its_voxels() {
        let part = sagittal().part([[10, 0, 5], [19, 7, 29]]);
        assert_eq!(part.dims(), [10, 8, 25]);
        let place = |grid: Grid, voxel| grid.lps_from_voxel().apply(voxel);
        assert!(norm(sub(place(part, [9., 7., 24.]), place(sagittal(), [19., 7., 29.]))) < 1e-12);
    }

    #[test]
    fn respaced_grid_keeps_the_centre() {
        let source = sagittal();
        let target = source.respaced([1.5; 3]).expect("spacing is positive");
        assert_eq!(target.dims(), [85, 67, 40]);
        let centre = |g: &Grid| g.lps_from_voxel().apply(g.dims().map(|d| (f64::from(d) - 1.0) / 2.0));
        assert!(norm(sub(centre(&source), centre(&target))) < 1e-9);
        assert!((target.spacing_mm()[2] - 1.5).abs() < 1e-12);
        let within = source.respaced_within([1.5; 3]).expect("spacing is positive");
        assert_eq!(within.dims(), target.dims());
        assert!(norm(sub(centre(&source), centre(&within))) < 1e-9);
        let lengths = |g: &Grid| std::array::from_fn(|n| g.spacing_mm()[n] * f64::from(g.dims()[n]));
        assert!(norm(sub(lengths(&source), lengths(&within))) < 1e-9);
        // Python: round(2.5) is 2, round(3.5) is 4.
        let thick = Grid::new([5, 7, 1], Affine::IDENTITY).and_then(|g| g.respaced_within([2.0; 3])).expect("spacing is positive");
        assert_eq!(thick.dims(), [2, 4, 1]);
    }

    #[test]
    fn a_tilted_stack_is_straightened() {
        // 20 x 10 x 11 voxels of 0.5 x 0.5 x 3 mm; slices advance 1.2 mm down the columns: 21.8 degrees of tilt.
        let axes = Affine::from_columns([0.5, 0., 0.], [0., 0.5, 0.], [0., 1.2, 3.0], [7., 8., 9.]);
        let tilted = Grid::new([20, 10, 11], axes).expect("axes span space");
        assert!((tilted.shear() - 0.4).abs() < 1e-12 && !tilted.is_straight());
        let straight = tilted.straightened().expect("a few voxels");
        // Rows reach 9 + 10 * 2.4 = 33 beyond the first.
        assert_eq!(straight.dims(), [20, 34, 11]);
        let expected = Affine::from_columns([0.5, 0., 0.], [0., 0.5, 0.], [0., 0., 3.0], [7., 8., 9.]);
        assert!(straight.matches(&Grid::new([20, 34, 11], expected).expect("a grid"), 1e-9), "{straight:?}");
        // The other way: rows before the first.
        let axes = Affine::from_columns([0.5, 0., 0.], [0., 0.5, 0.], [0., -1.2, -3.0], [7., 8., 9.]);
        let straight = Grid::new([20, 10, 11], axes).and_then(|g| g.straightened()).expect("a few voxels");
        let expected = Affine::from_columns([0.5, 0., 0.], [0., 0.5, 0.], [0., 0., -3.0], [7., -4., 9.]);
        assert!(straight.matches(&Grid::new([20, 34, 11], expected).expect("a grid"), 1e-9), "{straight:?}");
    }

    #[test]
    fn a_straight_grid_stays_as_it_is() {
        let straight = sagittal().straightened().expect("as many voxels");
        assert!(sagittal().is_straight() && sagittal().shear() == 0.0 && straight.matches(&sagittal(), 1e-9), "{straight:?}");
        let one_slice = Grid::new([5, 4, 1], Affine::from_columns([1., 0., 0.], [0., 1., 0.], [0., 3., 4.], [0.; 3])).expect("a grid");
        assert_eq!(one_slice.straightened().expect("a grid").dims(), [5, 4, 1]);
    }

    #[test]
    fn a_grid_too_flat_to_straighten_is_refused() {
        let flat = Affine::from_columns([1e-3, 0., 0.], [0., 1e-3, 0.], [5e3, 0., 1e-3], [0.; 3]);
        let grid = Grid::new([100, 100, 100], flat).expect("axes span space");
        assert!(matches!(grid.straightened(), Err(GeometryError::Dims { .. })));
    }

    proptest! {
        #[test]
        fn straightened_grids_are_boxes_around_all_centres(
            v in prop::array::uniform9(-3.0..3.0f64),
            t in prop::array::uniform3(-300.0..300.0f64),
            dims in prop::array::uniform3(1..40u32),
        ) {
            let axes = Affine::from_columns([v[0], v[1], v[2]], [v[3], v[4], v[5]], [v[6], v[7], v[8]], t);
            let lengths: f64 = (0..3).map(|n| norm(axes.column(n))).product();
            prop_assume!(axes.determinant().abs() > 0.05 * lengths && lengths > 0.1);
            let sheared = Grid::new(dims, axes).expect("axes span space");
            let straight = sheared.straightened().expect("not too many voxels");
            prop_assert!(straight.shear() < 1e-9, "{}", straight.shear());
            let relative = straight.lps_from_voxel().determinant() / axes.determinant();
            prop_assert!((relative - 1.0).abs() < 1e-9, "same volume, same handedness: {relative}");
            prop_assert!(norm(sub(straight.lps_from_voxel().column(0), axes.column(0))) == 0.0, "i stays");
            let straight_from_voxel = straight.voxel_from_lps() * axes;
            let mut ends = [[f64::MAX; 3], [f64::MIN; 3]];
            for corner in 0..8 {
                for (axis, at) in straight_from_voxel.apply(sheared.corner(corner)).into_iter().enumerate() {
                    ends = [std::array::from_fn(|n| if n == axis { ends[0][n].min(at) } else { ends[0][n] }),
                            std::array::from_fn(|n| if n == axis { ends[1][n].max(at) } else { ends[1][n] })];
                }
            }
            for axis in 0..3 {
                let last = f64::from(straight.dims()[axis] - 1);
                prop_assert!(ends[0][axis] > -1.1e-3 && ends[1][axis] < last + 1.1e-3, "a centre is outside: {ends:?} of {last}");
                prop_assert!(ends[0][axis] < 1.0 && ends[1][axis] > last - 1.0, "a smaller grid would do: {ends:?} of {last}");
            }
            // Slices stay in their planes.
            let k = straight_from_voxel.apply([0.3, 5.0, f64::from(dims[2] - 1)])[2];
            prop_assert!((k - f64::from(dims[2] - 1)).abs() < 1e-6, "{k}");
        }
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
