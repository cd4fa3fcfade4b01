//! How long regions are: the longest diameter in space, and within a slice the long axis and the short axis across it.
//!
//! All are distances between voxel centres in mm through the grid's affine, so right for oblique and sheared grids; a region of one
//! voxel has the diameter 0. This is the Feret diameter of ITK (`LabelShapeStatisticsImageFilter`) and of a convex hull of the voxel
//! indices; scikit-image measures between half voxels further out, IBSI's "maximum 3D diameter of a mesh" as well.
//!
//! The corners of a region's convex hull are among the corners of the hulls of its slices, which come from the ends of rows alone. What
//! is left is few points of one region: there is no shader.

use rayon::prelude::*;

use super::regions::{RegionRuns, Run};
use crate::geometry::{Affine, dot, norm};

/// Axes whose lengths differ by less than this share are equally long: mirror images, but for rounding.
const EQUAL: f64 = 1e-9;

/// The axes of a region in the slice where the long one is longest (of equals, where the short one is; of those the first slice).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axes {
    /// The slice, from 0.
    pub slice: u32,
    /// Largest distance between two voxel centres of the slice, mm.
    pub long_mm: f64,
    /// Longest line across the long axis, at right angles to it, from edge to edge of the convex hull of the voxel centres, mm.
    pub short_mm: f64,
}

/// Longest diameter of each region, mm; `None` where it has no voxels.
pub fn longest_diameters_mm(regions: &RegionRuns, lps_from_voxel: &Affine) -> Vec<Option<f64>> {
    regions.regions().map(|runs| (!runs.is_empty()).then(|| longest_mm(&slice_hulls(runs), lps_from_voxel))).collect()
}

/// Axes of each region; `None` where it has no voxels.
pub fn axes_mm(regions: &RegionRuns, lps_from_voxel: &Affine) -> Vec<Option<Axes>> {
    regions.regions().map(|runs| axes_of(&slice_hulls(runs), lps_from_voxel)).collect()
}

/// The convex hull of a region in one slice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SliceHull {
    k: u32,
    /// (i, j) of its corners, counterclockwise where j points up; at least one.
    corners: Vec<[u32; 2]>,
}

/// Hulls of the slices, in their order.
fn slice_hulls(runs: &[Run]) -> Vec<SliceHull> {
    runs.chunk_by(|a, b| a.k == b.k).map(|slice| SliceHull { k: slice[0].k, corners: hull(slice) }).collect()
}

/// Corners of the convex hull of one slice (Andrew's monotone chain, whose sorting the rows have done).
fn hull(slice: &[Run]) -> Vec<[u32; 2]> {
    let (mut right, mut left): (Vec<[u32; 2]>, Vec<[u32; 2]>) = (Vec::new(), Vec::new());
    for row in slice.chunk_by(|a, b| a.j == b.j) {
        push(&mut right, [row[row.len() - 1].end - 1, row[0].j], |turn| turn > 0);
        push(&mut left, [row[0].start, row[0].j], |turn| turn < 0);
    }
    // Up the right side and down the left one; the first and the last row may have one voxel.
    left.reverse();
    let doubled_top = usize::from(right.last() == left.first());
    let doubled_bottom = usize::from(left.len() > doubled_top && right.first() == left.last());
    let end = left.len() - doubled_bottom;
    right.extend_from_slice(&left[doubled_top.min(end)..end]);
    right
}

/// Adds a point of the next row to a side of a hull, and takes away the corners before it at which the side does not turn as `convex` asks.
fn push(side: &mut Vec<[u32; 2]>, point: [u32; 2], convex: impl Fn(i64) -> bool) {
    while let [.., a, b] = side[..] {
        let [u, v] = [[a, b], [b, point]].map(|[from, to]| [0, 1].map(|n| i64::from(to[n]) - i64::from(from[n])));
        if convex(u[0] * v[1] - u[1] * v[0]) {
            break;
        }
        side.pop();
    }
    side.push(point);
}

/// Largest distance between corners of the hulls.
fn longest_mm(hulls: &[SliceHull], lps_from_voxel: &Affine) -> f64 {
    let axes = [0, 1, 2].map(|n| lps_from_voxel.column(n));
    let point = |[i, j]: [u32; 2], k: u32| {
        let index = [i, j, k].map(f64::from);
        std::array::from_fn(|n| axes[0][n] * index[0] + axes[1][n] * index[1] + axes[2][n] * index[2])
    };
    let points = hulls.iter().flat_map(|hull| hull.corners.iter().map(move |&corner| point(corner, hull.k))).collect();
    Tree::of(points).largest_distance()
}

/// Points in boxes in boxes, halved along their longest side.
struct Tree {
    points: Vec<[f64; 3]>,
    /// The halves of box n are at 2 n + 1 and 2 n + 2.
    boxes: Vec<Box3>,
}

/// Points `start..end` and the box around them.
#[derive(Debug, Clone, Copy)]
struct Box3 {
    start: usize,
    end: usize,
    low: [f64; 3],
    high: [f64; 3],
}

impl Tree {
    /// Most points of a box that is not halved.
    const LEAF: usize = 16;

    fn of(mut points: Vec<[f64; 3]>) -> Self {
        let nothing = Box3 { start: 0, end: 0, low: [0.0; 3], high: [0.0; 3] };
        let mut boxes = vec![nothing; 2 * points.len().div_ceil(Self::LEAF).next_power_of_two() - 1];
        boxes[0].end = points.len();
        for n in 0..boxes.len() {
            let Box3 { start, end, .. } = boxes[n];
            let own = &mut points[start..end];
            let [low, high] = bounds(own);
            boxes[n] = Box3 { start, end, low, high };
            if 2 * n + 2 < boxes.len() {
                let size: [f64; 3] = std::array::from_fn(|axis| high[axis] - low[axis]);
                let longest = (0..3).fold(0, |best, axis| if size[axis] > size[best] { axis } else { best });
                let half = own.len() / 2;
                own.select_nth_unstable_by(half, |a, b| a[longest].total_cmp(&b[longest]));
                boxes[2 * n + 1] = Box3 { start, end: start + half, ..nothing };
                boxes[2 * n + 2] = Box3 { start: start + half, end, ..nothing };
            }
        }
        Self { points, boxes }
    }

    fn largest_distance(&self) -> f64 {
        let mut largest = 0.0;
        self.search(0, 0, &mut largest);
        largest.sqrt()
    }

    /// Raises `largest`, a squared distance, to that of boxes `a` and `b`.
    fn search(&self, a: usize, b: usize, largest: &mut f64) {
        if self.bound(a, b) <= *largest {
            return;
        }
        if 2 * a + 1 >= self.boxes.len() {
            // All boxes of a level are halved or none, and pairs are of one level.
            let [some, others] = [a, b].map(|n| &self.points[self.boxes[n].start..self.boxes[n].end]);
            for p in some {
                *largest = others.iter().fold(*largest, |largest, q| squared_distance(p, q).max(largest));
            }
            return;
        }
        let [[a0, a1], [b0, b1]] = [a, b].map(|n| [2 * n + 1, 2 * n + 2]);
        let mut pairs = [(a0, b1), (a0, b0), (a1, b1), (a1, b0)].map(|(a, b)| (self.bound(a, b), a, b));
        pairs.sort_unstable_by(|x, y| y.0.total_cmp(&x.0));
        // Of a box with itself, one of the two mixed pairs is enough.
        pairs.into_iter().filter(|&(_, p, q)| a != b || p <= q).for_each(|(_, a, b)| self.search(a, b, largest));
    }

    /// No two points of boxes `a` and `b` are farther apart; as the distances, rounded, which never makes it smaller than one of them.
    fn bound(&self, a: usize, b: usize) -> f64 {
        let [a, b] = [a, b].map(|n| &self.boxes[n]);
        (0..3).map(|axis| (a.high[axis] - b.low[axis]).max(b.high[axis] - a.low[axis])).map(|side| side * side).sum()
    }
}

fn bounds(points: &[[f64; 3]]) -> [[f64; 3]; 2] {
    points.iter().fold([[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]], |[low, high], p| {
        [std::array::from_fn(|n| low[n].min(p[n])), std::array::from_fn(|n| high[n].max(p[n]))]
    })
}

fn squared_distance(p: &[f64; 3], q: &[f64; 3]) -> f64 {
    (0..3).map(|n| (p[n] - q[n]) * (p[n] - q[n])).sum()
}

fn axes_of(hulls: &[SliceHull], lps_from_voxel: &Affine) -> Option<Axes> {
    // Coordinates within a slice, mm: x runs along i, y at right angles to it.
    let [i, j] = [0, 1].map(|n| lps_from_voxel.column(n));
    let i_mm = norm(i);
    let along = dot(i, j) / i_mm;
    let across = (dot(j, j) - along * along).sqrt();
    let in_mm = |hull: &SliceHull| -> Vec<[f64; 2]> {
        // From the first corner: the same shape elsewhere has the same numbers.
        let first = hull.corners[0];
        let offset = |corner: &[u32; 2]| [0, 1].map(|n| f64::from(corner[n]) - f64::from(first[n]));
        hull.corners.iter().map(offset).map(|[di, dj]| [di * i_mm + dj * along, dj * across]).collect()
    };
    let polygons: Vec<(u32, Vec<[f64; 2]>)> = hulls.iter().map(|hull| (hull.k, in_mm(hull))).collect();
    let longest = polygons.iter().flat_map(|(_, corners)| pairs(corners)).map(|(_, _, square)| square).fold(0.0, f64::max);
    let long_mm = longest.sqrt();
    let mut best: Option<Axes> = None;
    for (k, corners) in &polygons {
        for (a, b, _) in pairs(corners).filter(|&(_, _, square)| square >= longest * (1.0 - EQUAL)) {
            let short_mm = longest_across(corners, a, b);
            if best.is_none_or(|best| short_mm > best.short_mm + EQUAL * long_mm) {
                best = Some(Axes { slice: *k, long_mm, short_mm });
            }
        }
    }
    best
}

/// Pairs of corners with their squared distance; one corner is its own pair.
fn pairs(corners: &[[f64; 2]]) -> impl Iterator<Item = ([f64; 2], [f64; 2], f64)> {
    let others = |n: usize| if corners.len() == 1 { &corners[n..] } else { &corners[n + 1..] };
    corners.iter().enumerate().flat_map(move |(n, &a)| others(n).iter().map(move |&b| (a, b, squared(a, b))))
}

fn squared(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1])
}

/// Longest line through a convex polygon at right angles to that from `a` to `b`: one of those through its corners.
fn longest_across(corners: &[[f64; 2]], a: [f64; 2], b: [f64; 2]) -> f64 {
    let length = squared(a, b).sqrt();
    if length == 0.0 {
        return 0.0;
    }
    let direction = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
    // Along the axis, and across it.
    let turned: Vec<[f64; 2]> =
        corners.iter().map(|p| [p[0] * direction[0] + p[1] * direction[1], p[1] * direction[0] - p[0] * direction[1]]).collect();
    let edges = || turned.iter().zip(turned.iter().cycle().skip(1));
    let chord = |at: f64| {
        let crossed = edges().filter(|(p, q)| p[0].min(q[0]) <= at && at <= p[0].max(q[0]));
        let ends =
            crossed.flat_map(|(p, q)| if p[0] == q[0] { [p[1], q[1]] } else { [p[1] + (q[1] - p[1]) * ((at - p[0]) / (q[0] - p[0])); 2] });
        let [low, high] = ends.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], end| [low.min(end), high.max(end)]);
        high - low
    };
    turned.iter().map(|corner| chord(corner[0])).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::components::tests::{any_labels, noise};
    use super::super::tests::{any_linear, voxels};
    use super::*;
    use crate::geometry::sub;

    fn affine([x, y, z]: [[f64; 3]; 3]) -> Affine {
        Affine::from_columns(x, y, z, [-31.0, 7.5, 1e3])
    }

    fn own_voxels(labels: &[u8], dims: [u32; 3], label: u8) -> Vec<[u32; 3]> {
        voxels(dims).zip(labels).filter(|(_, own)| **own == label).map(|(voxel, _)| voxel).collect()
    }

    /// All pairs of voxels.
    fn longest_by_definition(own: &[[u32; 3]], affine: &Affine) -> f64 {
        let at = |voxel: &[u32; 3]| affine.apply(voxel.map(f64::from));
        own.iter().flat_map(|a| own.iter().map(move |b| norm(sub(at(a), at(b))))).fold(0.0, f64::max)
    }

    /// Longest line across from `a` to `b` in the hull of `points`: the ends of the hull where it is crossed are ends of lines between
    /// any two points.
    fn across_by_definition(points: &[[f64; 3]], a: [f64; 3], b: [f64; 3], normal: [f64; 3]) -> f64 {
        let long = sub(b, a);
        if norm(long) == 0.0 {
            return 0.0;
        }
        let side = crate::geometry::cross(normal, long);
        let turned: Vec<[f64; 2]> =
            points.iter().map(|&p| [dot(sub(p, a), long) / norm(long), dot(sub(p, a), side) / norm(side)]).collect();
        let crossed_at = |t: f64| {
            let lines = turned.iter().flat_map(|p| turned.iter().map(move |q| (p, q)));
            let ends = lines
                .filter(|(p, q)| p[0] <= t && t <= q[0])
                .map(|(p, q)| if q[0] - p[0] < 1e-9 { p[1] } else { p[1] + (q[1] - p[1]) * (t - p[0]) / (q[0] - p[0]) });
            let [low, high] = ends.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], s| [low.min(s), high.max(s)]);
            high - low
        };
        turned.iter().map(|p| crossed_at(p[0])).fold(0.0, f64::max)
    }

    fn axes_by_definition(own: &[[u32; 3]], affine: &Affine) -> Axes {
        let normal = crate::geometry::cross(affine.column(0), affine.column(1));
        let slices: Vec<(u32, Vec<[f64; 3]>)> = own
            .chunk_by(|a, b| a[2] == b[2])
            .map(|slice| (slice[0][2], slice.iter().map(|voxel| affine.apply(voxel.map(f64::from))).collect()))
            .collect();
        let pairs =
            |points: &[[f64; 3]]| -> Vec<[[f64; 3]; 2]> { points.iter().flat_map(|&a| points.iter().map(move |&b| [a, b])).collect() };
        let long_mm = slices.iter().flat_map(|(_, points)| pairs(points)).map(|[a, b]| norm(sub(a, b))).fold(0.0, f64::max);
        let mut best = Axes { slice: 0, long_mm, short_mm: -1.0 };
        for (slice, points) in &slices {
            for [a, b] in pairs(points) {
                let short_mm = if norm(sub(a, b)) >= long_mm * (1.0 - 1e-8) { across_by_definition(points, a, b, normal) } else { -1.0 };
                if short_mm > best.short_mm + 1e-6 {
                    best = Axes { slice: *slice, short_mm, ..best };
                }
            }
        }
        best
    }

    proptest! {
        #[test]
        fn every_pair_of_voxels_says_the_same((dims, labels) in any_labels(), linear in any_linear()) {
            let affine = affine(linear);
            let asked = [1, 2, 3, 4, 5];
            let regions = RegionRuns::of_labels(&labels, dims, &asked);
            let found = longest_diameters_mm(&regions, &affine).into_iter().zip(axes_mm(&regions, &affine));
            for (&label, (longest, axes)) in asked.iter().zip(found) {
                let own = own_voxels(&labels, dims, label);
                prop_assert_eq!((longest.is_some(), axes.is_some()), (!own.is_empty(), !own.is_empty()));
                let (Some(longest), Some(axes)) = (longest, axes) else { continue };
                if own.len() > 60 { continue } // the definition takes the third power of that
                // Millimetres from an origin 1000 away: 1e-12 of that.
                prop_assert!((longest - longest_by_definition(&own, &affine)).abs() < 1e-9);
                let expected = axes_by_definition(&own, &affine);
                prop_assert_eq!(axes.slice, expected.slice);
                prop_assert!((axes.long_mm - expected.long_mm).abs() < 1e-9, "{axes:?} is not {expected:?}");
                prop_assert!((axes.short_mm - expected.short_mm).abs() < 1e-6 , "{axes:?} is not {expected:?}");
            }
        }

        #[test]
        fn hulls_turn_left_and_hold_all((dims, labels) in any_labels()) {
            let mut regions = RegionRuns::of_labels(&labels, dims, &[1, 2]).regions().map(slice_hulls).collect::<Vec<_>>();
            for (hull, label) in regions.iter_mut().zip([1, 2]).flat_map(|(hulls, label)| hulls.drain(..).map(move |hull| (hull, label))) {
                let corners: Vec<[i64; 2]> = hull.corners.iter().map(|corner| corner.map(i64::from)).collect();
                let turn = |a: [i64; 2], b: [i64; 2], c: [i64; 2]| (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]);
                let next = |n: usize| corners[n % corners.len()];
                if corners.len() > 2 {
                    prop_assert!((0..corners.len()).all(|n| turn(next(n), next(n + 1), next(n + 2)) > 0), "{corners:?}");
                }
                for voxel in own_voxels(&labels, dims, label).iter().filter(|voxel| voxel[2] == hull.k) {
                    let point = [i64::from(voxel[0]), i64::from(voxel[1])];
                    prop_assert!((0..corners.len()).all(|n| turn(next(n), next(n + 1), point) >= 0), "{point:?} is outside of {corners:?}");
                }
            }
        }
    }

    /// Points enough for a tree of several levels.
    #[test]
    fn trees_find_the_farthest_pair() {
        for (count, seed) in [(1, 1), (16, 2), (17, 3), (500, 4), (1500, 5)] {
            let numbers: Vec<f64> = noise(3 * count, seed).iter().map(|&v| f64::from(v) / 7.0).collect();
            let points: Vec<[f64; 3]> = numbers.as_chunks::<3>().0.to_vec();
            let expected = points.iter().flat_map(|p| points.iter().map(|q| squared_distance(p, q))).fold(0.0, f64::max).sqrt();
            assert_eq!(Tree::of(points).largest_distance(), expected);
        }
    }

    #[test]
    fn simple_shapes_have_the_axes_they_look_like() {
        let check = |dims: [u32; 3], spacing: [f64; 3], set: &dyn Fn([u32; 3]) -> bool, longest: f64, slice: u32, axes: [f64; 2]| {
            let labels: Vec<u8> = voxels(dims).map(|voxel| u8::from(set(voxel))).collect();
            let regions = RegionRuns::of_labels(&labels, dims, &[1]);
            let affine = Affine::scale_then_shift(spacing, [0.0; 3]);
            assert!((longest_diameters_mm(&regions, &affine)[0].expect("voxels") - longest).abs() < 1e-12);
            let found = axes_mm(&regions, &affine)[0].expect("voxels");
            assert_eq!(found.slice, slice);
            assert!((found.long_mm - axes[0]).abs() < 1e-12 && (found.short_mm - axes[1]).abs() < 1e-12, "{found:?}");
        };
        check([5, 5, 5], [0.7, 0.7, 1.0], &|v| v == [2, 3, 4], 0.0, 4, [0.0, 0.0]);
        // A line along k has no length within a slice.
        check([3, 3, 6], [0.7, 0.7, 1.5], &|[i, j, _]| i == 1 && j == 2, 7.5, 0, [0.0, 0.0]);
        // A diagonal has no width.
        check([6, 6, 2], [1.0, 1.0, 4.0], &|[i, j, k]| i == j && k == 1, 50f64.sqrt(), 1, [50f64.sqrt(), 0.0]);
        // A cross of 8 x 4: its longest line is the bar.
        check([9, 5, 1], [1.0, 1.0, 1.0], &|[i, j, _]| i == 4 || j == 2, 8.0, 0, [8.0, 4.0]);
        // A square of side 4: across one diagonal lies the other.
        check([5, 5, 1], [1.0, 1.0, 1.0], &|_| true, 32f64.sqrt(), 0, [32f64.sqrt(), 32f64.sqrt()]);
        // Slice 1 is as long as slice 2, and wider.
        check(
            [9, 5, 4],
            [1.0, 1.0, 1.0],
            &|[i, j, k]| match k {
                1 => i == 4 || j == 2,
                2 => j == 2,
                _ => false,
            },
            65f64.sqrt(),
            1,
            [8.0, 4.0],
        );
    }
}
