//! Where a finding without voxels lies: a box, or a point.

use serde::Serialize;

use crate::geometry::{Grid, dot, norm};

/// Where a finding lies that has no voxels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    /// Centre of the box, or the point, patient LPS mm.
    pub centre_lps_mm: [f64; 3],
    /// The box around what was found; none: it is a point.
    #[serde(rename = "box")]
    pub extent: Option<Extent>,
}

/// A box around a centre. Its axes are those of the network's grid: at right angles to each other, and not the patient's where the images are
/// oblique.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Extent {
    /// Directions of its sides, i, j, k of the network's grid, in patient LPS, of length 1.
    pub axes_lps: [[f64; 3]; 3],
    /// Lengths of its sides along these, mm; above 0.
    pub sides_mm: [f64; 3],
}

/// Half the side of the square that a point is drawn as, mm.
const POINT_MM: f64 = 3.0;

/// Corners of each face of a box, one after the other round it; bit n of a corner is set for the far end of axis n.
const FACES: [[usize; 4]; 6] = [[0, 2, 6, 4], [1, 3, 7, 5], [0, 1, 5, 4], [2, 3, 7, 6], [0, 1, 3, 2], [4, 5, 7, 6]];

impl Place {
    /// The faces of the box, each by its four corners in a circle, patient LPS mm: those across i, j and k, the lower one first. Of a point
    /// none.
    pub fn faces_lps_mm(&self) -> Option<[[[f64; 3]; 4]; 6]> {
        let Extent { axes_lps, sides_mm } = self.extent?;
        let corner = |bits: usize| {
            let along = |n: usize| if bits >> n & 1 == 1 { sides_mm[n] / 2.0 } else { -sides_mm[n] / 2.0 };
            std::array::from_fn(|c| self.centre_lps_mm[c] + (0..3).map(|n| along(n) * axes_lps[n][c]).sum::<f64>())
        };
        Some(FACES.map(|face| face.map(corner)))
    }

    /// Where a plane of voxels of `grid` cuts it, as [`Self::projection`]; `None` where it does not. A box that is thinner than the planes are
    /// apart, and a point, is cut by the nearest of them.
    pub fn section(&self, grid: &Grid, axis: usize, position: u32) -> Option<[[f64; 2]; 2]> {
        let centre = self.centre_in(grid);
        let half = self.half_in(grid).map_or(0.0, |half| half[through(&half, axis)][axis].abs());
        let is_cut = (f64::from(position) - centre[axis]).abs() <= half.max(0.5);
        is_cut.then(|| self.projection(grid, axis, position))
    }

    /// Where it lies on a plane of voxels of `grid` as seen along its own side nearest to the plane's normal, in voxels (the centre of voxel n is
    /// n): lower and upper end along the other two axes in order. A point is a square of 6 mm.
    pub fn projection(&self, grid: &Grid, axis: usize, position: u32) -> [[f64; 2]; 2] {
        let centre = self.centre_in(grid);
        let others = [usize::from(axis == 0), if axis == 2 { 1 } else { 2 }];
        let Some(half) = self.half_in(grid) else {
            let (at, reach) = (self.point_on(grid, axis, position), |n: usize| POINT_MM / grid.spacing_mm()[n]);
            return others.map(|n| [at[n] - reach(n), at[n] + reach(n)]);
        };
        let through = through(&half, axis);
        // A sheared grid's planes cut it elsewhere than at its centre.
        let along = (f64::from(position) - centre[axis]) / half[through][axis];
        others.map(|other| {
            let middle = centre[other] + along * half[through][other];
            let reach: f64 = (0..3).filter(|&n| n != through).map(|n| half[n][other].abs()).sum();
            [middle - reach, middle + reach]
        })
    }

    /// Its centre as seen along the normal of a plane of voxels of `grid`, in voxels.
    pub fn point_on(&self, grid: &Grid, axis: usize, position: u32) -> [f64; 3] {
        let voxel_from_lps = grid.voxel_from_lps();
        let [x, y, z, _] = voxel_from_lps.rows()[axis];
        let off = f64::from(position) - self.centre_in(grid)[axis];
        let normal = [x, y, z].map(|v| v * off / dot([x, y, z], [x, y, z]));
        voxel_from_lps.apply(std::array::from_fn(|n| self.centre_lps_mm[n] + normal[n]))
    }

    /// From the centre to the middle of the far face across each axis, in voxels of a grid.
    fn half_in(&self, grid: &Grid) -> Option<[[f64; 3]; 3]> {
        let Extent { axes_lps, sides_mm } = self.extent?;
        let rows = grid.voxel_from_lps().rows().map(|[x, y, z, _]| [x, y, z]);
        Some(std::array::from_fn(|n| rows.map(|row| dot(row, axes_lps[n]) * sides_mm[n] / 2.0)))
    }

    /// Its centre in voxels of a grid.
    pub fn centre_in(&self, grid: &Grid) -> [f64; 3] {
        grid.voxel_from_lps().apply(self.centre_lps_mm)
    }
}

/// The side of a box that runs through planes across `axis` most steeply. Three sides at right angles are not all within a plane.
fn through(half: &[[f64; 3]; 3], axis: usize) -> usize {
    let across = |n: usize| (half[n][axis] / norm(half[n])).abs();
    (0..3).max_by(|&a, &b| across(a).total_cmp(&across(b))).expect("three sides")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Affine, cross, sub};

    /// Rows run down a 3-4-5 tilt, slices 2.5 mm apart along their normal.
    fn oblique() -> Grid {
        let axes = Affine::from_columns([0.5, 0., 0.], [0., 0.64, -0.48], [0., 1.5, 2.0], [10., 20., 30.]);
        Grid::new([40, 30, 20], axes).expect("a grid")
    }

    fn box_of(grid: &Grid, centre: [f64; 3], sides_mm: [f64; 3]) -> Place {
        let affine = grid.lps_from_voxel();
        let axes_lps = std::array::from_fn(|n| affine.column(n).map(|v| v / grid.spacing_mm()[n]));
        Place { centre_lps_mm: affine.apply(centre), extent: Some(Extent { axes_lps, sides_mm }) }
    }

    #[test]
    fn faces_are_those_of_the_box() {
        let grid = oblique();
        let place = box_of(&grid, [10.0, 12.0, 7.5], [4.0, 8.0, 5.0]);
        let faces = place.faces_lps_mm().expect("a box");
        for (n, face) in faces.iter().enumerate() {
            let (axis, sign) = (n / 2, if n % 2 == 1 { 1.0 } else { -1.0 });
            let in_voxels = face.map(|corner| grid.voxel_from_lps().apply(corner));
            let half = [4.0, 5.0, 1.0]; // 4 mm of 0.5 mm, 8 of 0.8, 5 of 2.5, halved
            let centre = [10.0, 12.0, 7.5];
            assert!(in_voxels.iter().all(|at| (at[axis] - centre[axis] - sign * half[axis]).abs() < 1e-9), "face {n}: {in_voxels:?}");
            assert!(in_voxels.iter().all(|at| (0..3).all(|c| ((at[c] - centre[c]).abs() - half[c]).abs() < 1e-9)), "face {n}");
            // In a circle: neighbours share an edge.
            let edges: Vec<f64> = (0..4).map(|c| norm(sub(face[c], face[(c + 1) % 4]))).collect();
            assert!((edges[0] - edges[2]).abs() < 1e-9 && (edges[1] - edges[3]).abs() < 1e-9);
            let area = norm(cross(sub(face[1], face[0]), sub(face[3], face[0])));
            let sides = [4.0, 8.0, 5.0];
            assert!((area - sides[(axis + 1) % 3] * sides[(axis + 2) % 3]).abs() < 1e-9, "face {n}: {area} mm²");
        }
    }

    #[test]
    fn planes_cut_it_where_it_is() {
        let grid = oblique();
        let place = box_of(&grid, [10.0, 12.0, 7.4], [4.0, 8.0, 5.0]);
        let near = |found: Option<[[f64; 2]; 2]>, expected: [[f64; 2]; 2]| {
            let found = found.expect("cut");
            assert!(found.as_flattened().iter().zip(expected.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        };
        near(place.section(&grid, 2, 7), [[6.0, 14.0], [7.0, 17.0]]);
        near(place.section(&grid, 2, 8), [[6.0, 14.0], [7.0, 17.0]]);
        near(place.section(&grid, 0, 6), [[7.0, 17.0], [6.4, 8.4]]);
        near(place.section(&grid, 1, 17), [[6.0, 14.0], [6.4, 8.4]]);
        assert_eq!([(2, 6), (2, 9), (0, 5), (0, 15), (1, 18)].map(|(axis, at)| place.section(&grid, axis, at)), [None; 5]);
        let thin = box_of(&grid, [10.0, 12.0, 7.4], [4.0, 8.0, 0.1]);
        assert_eq!([6, 7, 8].map(|k| thin.section(&grid, 2, k).is_some()), [false, true, false]);
        let point = Place { centre_lps_mm: grid.lps_from_voxel().apply([10.0, 12.0, 7.4]), extent: None };
        near(point.section(&grid, 2, 7), [[4.0, 16.0], [12.0 - 3.0 / 0.8, 12.0 + 3.0 / 0.8]]);
        assert_eq!(point.section(&grid, 2, 8), None);
        assert!(point.faces_lps_mm().is_none());
    }

    #[test]
    fn sheared_planes_cut_a_straight_box() {
        // Slices advance 1 mm down the columns for 2 mm along the normal.
        let axes = Affine::from_columns([1., 0., 0.], [0., 1., 0.], [0., 1., 2.], [0.; 3]);
        let grid = Grid::new([40, 40, 20], axes).expect("a grid");
        let straight = Extent { axes_lps: [[1., 0., 0.], [0., 1., 0.], [0., 0., 1.]], sides_mm: [6.0, 6.0, 10.0] };
        let place = Place { centre_lps_mm: [15.0, 20.0, 10.0], extent: Some(straight) };
        // Slice 5 lies at z = 10, with its first row at y = 5; slice 7 at z = 14 and y = 7: the box is two rows higher up there.
        assert_eq!(place.section(&grid, 2, 5), Some([[12.0, 18.0], [12.0, 18.0]]));
        assert_eq!(place.section(&grid, 2, 7), Some([[12.0, 18.0], [10.0, 16.0]]));
        assert_eq!(place.section(&grid, 2, 8), None);
    }
}
