//! Positions of slices to a regular lattice.
//!
//! A slice is judged by where it lies, not by how far it is from its neighbour: its distance from its place in the best regular stack
//! is the error that every measurement on the grid inherits. Allowed are [`RESIDUAL_MM`] or [`RESIDUAL_OF_SPACING`] of the spacing,
//! whichever is more.
//!
//! Why not 0.1 % of the spacing between neighbours: some scanners round positions to 0.1 mm, so that neighbours 7 mm apart read 6.958
//! to 7.071 mm (GE SIGNA; 1.6 %) while no slice is more than 0.05 mm (0.7 %) off its place. A missing or moved slice is off by a large
//! part of the spacing. In the other direction 1 % is the stricter rule: neighbours that each vary by less than 0.01 mm can drift
//! apart over a long stack. Distances that vary more than 0.1 % and 0.01 mm are accepted with a note.

use super::Reason;
use crate::geometry::{Affine, cross, dot, norm, sub};

/// How far off its place a slice may be, mm.
const RESIDUAL_MM: f64 = 0.01;
/// The same, as a part of the spacing.
pub(super) const RESIDUAL_OF_SPACING: f64 = 0.01;
/// Distances between neighbours that vary more than this part of the spacing, and [`RESIDUAL_MM`], are worth a note.
const NOTED_VARIATION: f64 = 0.001;
/// Tangent of the largest angle between the direction from slice to slice and the normal (0.057 degrees). What is below stays in the
/// grid, whose step is the measured direction.
pub(super) const MAX_SHEAR: f64 = 0.001;
/// Slices closer along the normal than this share a position, mm.
pub(super) const SAME_POSITION_MM: f64 = 0.01;
/// Evened-out stacks have at most this many times the slices of their source.
const MAX_EVENED: f64 = 4.0;
/// A gap this close to a whole multiple of the spacing, as a part of the spacing, is taken for missing slices.
pub(super) const MULTIPLE: f64 = 0.05;

/// What slices have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    /// Direction of increasing column, length 1.
    pub(super) row_direction: [f64; 3],
    /// Direction of increasing row, length 1.
    pub(super) column_direction: [f64; 3],
    /// Between rows, between columns, mm.
    pub(super) spacing_mm: [f64; 2],
}

impl Plane {
    /// The direction in which slices are sorted, length 1 for orthogonal directions.
    pub(super) fn normal(&self) -> [f64; 3] {
        let n = cross(self.row_direction, self.column_direction);
        scale(n, 1.0 / norm(n))
    }
}

/// What slices make.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) lps_from_voxel: Affine,
    /// Where slices lie that are no regular stack.
    pub(super) uneven: Option<Uneven>,
}

/// Unevenly spaced slices on an even grid.
#[derive(Debug, Clone)]
pub(super) struct Uneven {
    /// Slices of the grid, which ends within the last source slice.
    pub(super) slices: usize,
    /// For each source slice its place, in slices of the grid.
    pub(super) places: Vec<f64>,
}

/// The map from voxel to LPS of slices at `positions_mm`, which are sorted along the normal; or every reason against one.
/// Adds what a reader should know to `notes`. With `resample`, shear and uneven distances are no reasons but notes.
pub(super) fn lattice(plane: &Plane, positions_mm: &[[f64; 3]], resample: bool, notes: &mut Vec<String>) -> Result<Found, Vec<Reason>> {
    let normal = plane.normal();
    let mut reasons = Vec::new();
    let mut places: Vec<[f64; 3]> = Vec::with_capacity(positions_mm.len());
    let mut shared = None;
    for &position in positions_mm {
        match places.last() {
            Some(&last) if dot(sub(position, last), normal) < SAME_POSITION_MM => {
                shared.get_or_insert(dot(last, normal));
            }
            _ => places.push(position),
        }
    }
    if let Some(at_mm) = shared {
        reasons.push(Reason::SharedPositions { slices: positions_mm.len(), positions: places.len(), at_mm });
    }
    if places.len() < 2 {
        if shared.is_none() {
            reasons.push(Reason::TooFewSlices { count: places.len() });
        }
        return Err(reasons);
    }
    let along: Vec<f64> = places.iter().map(|&p| dot(p, normal)).collect();
    let (first_mm, spacing_mm, off) = spacing(&along, &mut reasons, notes);

    // Across the normal: a line over the distance along it, which uneven distances do not bend.
    let across: Vec<[f64; 3]> = places.iter().zip(&along).map(|(&p, &t)| sub(p, scale(normal, t))).collect();
    let fits: [Line; 3] = std::array::from_fn(|axis| Line::through(along.iter().copied().zip(across.iter().map(|p| p[axis]))));
    let slope = fits.map(|f| f.slope);
    if norm(slope) > MAX_SHEAR {
        let angle_deg = norm(slope).atan().to_degrees();
        if resample {
            notes.push(format!("slices advance {angle_deg:.2} degrees off their normal (gantry tilt): the grid is sheared"));
        } else {
            reasons.push(Reason::Sheared { angle_deg, allowed_deg: MAX_SHEAR.atan().to_degrees() });
        }
    }
    let displaced = |k: usize| norm(std::array::from_fn(|axis| across[k][axis] - fits[axis].at(along[k])));
    let (index, off_across) = worst((0..places.len()).map(displaced));
    let allowed_mm = allowed(spacing_mm);
    if off_across > allowed_mm {
        reasons.push(Reason::Displaced { index, off_mm: off_across, allowed_mm });
    }
    let [between_rows, between_columns] = plane.spacing_mm;
    let affine = |step, start| {
        Affine::from_columns(scale(plane.row_direction, between_columns), scale(plane.column_direction, between_rows), step, start)
    };
    let at = |along_mm: f64| std::array::from_fn(|axis| fits[axis].at(along_mm) + along_mm * normal[axis]);
    if let (true, [Reason::UnevenSpacing { min_mm, max_mm, .. }]) = (resample, reasons.as_slice()) {
        let span_mm = along[along.len() - 1] - along[0];
        let step_mm = min_mm.max(span_mm / (MAX_EVENED * along.len() as f64));
        notes.push(format!("slice distances vary from {min_mm:.3} to {max_mm:.3} mm; values between slices are interpolated linearly"));
        let step = std::array::from_fn(|axis| step_mm * (normal[axis] + slope[axis]));
        let places = along.iter().map(|t| (t - along[0]) / step_mm).collect();
        let slices = (span_mm / step_mm + 1e-6).floor() as usize + 1;
        return Ok(Found { lps_from_voxel: affine(step, at(along[0])), uneven: Some(Uneven { slices, places }) });
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    // Positions that are regular to a nanometre give their own numbers back, free of the fit's rounding.
    let last = places.len() - 1;
    let (start, step) = if off.max(off_across) < 1e-6 {
        (places[0], scale(sub(places[last], places[0]), 1.0 / last as f64))
    } else {
        (at(first_mm), std::array::from_fn(|axis| spacing_mm * (normal[axis] + slope[axis])))
    };
    Ok(Found { lps_from_voxel: affine(step, start), uneven: None })
}

/// First place, spacing and the largest distance from a regular stack, of positions along the normal.
fn spacing(along: &[f64], reasons: &mut Vec<Reason>, notes: &mut Vec<String>) -> (f64, f64, f64) {
    let fit = Line::through(along.iter().enumerate().map(|(k, &t)| (k as f64, t)));
    let gaps: Vec<f64> = along.windows(2).map(|w| w[1] - w[0]).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    // The lower of two middle ones: of two gaps, the larger one is where a slice is missing.
    let median_mm = sorted[(sorted.len() - 1) / 2];
    let (min_mm, max_mm) = (sorted[0], sorted[sorted.len() - 1]);
    let (worst_slice, off_mm) = worst(along.iter().enumerate().map(|(k, &t)| (t - fit.at(k as f64)).abs()));
    let allowed_mm = allowed(fit.slope);
    let noted_mm = RESIDUAL_MM.max(NOTED_VARIATION * median_mm);
    let odd = |gap: &f64| (gap - median_mm).abs() > noted_mm;
    if off_mm > allowed_mm {
        let odd_gaps: Vec<f64> = gaps.iter().copied().filter(|g| (g - median_mm).abs() > MULTIPLE * median_mm).collect();
        let multiple = |gap: f64| (gap / median_mm).round();
        let whole = |gap: &f64| multiple(*gap) >= 2.0 && (gap - multiple(*gap) * median_mm).abs() <= MULTIPLE * median_mm;
        if !odd_gaps.is_empty() && odd_gaps.iter().all(whole) {
            let index = gaps.iter().position(|g| *g == odd_gaps[0]).unwrap_or(0);
            let missing = odd_gaps.iter().map(|&g| multiple(g) as usize - 1).sum();
            reasons.push(Reason::MissingSlices { index, gap_mm: odd_gaps[0], expected_mm: median_mm, missing });
        } else {
            let index = gaps.iter().position(odd).unwrap_or(worst_slice);
            reasons.push(Reason::UnevenSpacing { index, min_mm, median_mm, max_mm, off_mm, allowed_mm });
        }
    } else if gaps.iter().any(odd) {
        notes.push(format!(
            "slice distances read {min_mm:.3} to {max_mm:.3} mm, as rounded positions do; taken as {:.4} mm, no slice more than {off_mm:.3} mm \
             off its place along the normal",
            fit.slope
        ));
    }
    (fit.offset, fit.slope, off_mm)
}

/// How far off its place a slice may be, mm.
pub(crate) fn allowed(spacing_mm: f64) -> f64 {
    RESIDUAL_MM.max(RESIDUAL_OF_SPACING * spacing_mm)
}

/// The largest value and where it is.
pub(super) fn worst(values: impl Iterator<Item = f64>) -> (usize, f64) {
    values.enumerate().fold((0, 0.0), |best, (k, v)| if v > best.1 { (k, v) } else { best })
}

pub(super) fn scale(a: [f64; 3], by: f64) -> [f64; 3] {
    a.map(|v| v * by)
}

/// Least squares.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) offset: f64,
    pub(super) slope: f64,
}

impl Line {
    pub(super) fn through(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let n = points.clone().count() as f64;
        let (x_mean, y_mean) = points.clone().fold((0.0, 0.0), |m, (x, y)| (m.0 + x / n, m.1 + y / n));
        let (xy, xx) = points.fold((0.0, 0.0), |s, (x, y)| (s.0 + (x - x_mean) * (y - y_mean), s.1 + (x - x_mean) * (x - x_mean)));
        let slope = xy / xx;
        Self { offset: y_mean - slope * x_mean, slope }
    }

    pub(super) fn at(self, x: f64) -> f64 {
        self.offset + self.slope * x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Coded;

    fn axial() -> Plane {
        Plane { row_direction: [1., 0., 0.], column_direction: [0., 1., 0.], spacing_mm: [0.7, 0.5] }
    }

    fn codes(positions: &[[f64; 3]]) -> (Vec<&'static str>, usize) {
        let mut notes = Vec::new();
        let codes = lattice(&axial(), positions, false, &mut notes).err().unwrap_or_default().iter().map(|r| r.code()).collect();
        (codes, notes.len())
    }

    fn check(z: &[f64], expected: &[&str], notes: usize) {
        let positions: Vec<[f64; 3]> = z.iter().map(|&z| [0., 0., z]).collect();
        assert_eq!(codes(&positions), (expected.to_vec(), notes), "{z:?}");
    }

    #[test]
    fn distances_along_the_normal() {
        check(&[0., 2., 4., 6.], &[], 0);
        check(&[0., 5., 10., 20.], &["series.missing-slices"], 0);
        check(&[0., 5., 15.], &["series.missing-slices"], 0);
        check(&[0., 1., 2., 3., 4., 6.5], &["series.uneven-spacing"], 0);
        check(&[0., 1., 2., 3., 3.5, 4.5], &["series.uneven-spacing"], 0);
        check(&[3., 3., 3., 3.], &["series.shared-positions"], 0);
        check(&[0., 0., 2., 2., 4., 4.], &["series.shared-positions"], 0);
        check(&[7.], &["series.too-few-slices"], 0);
        // 1 mm rounded to 0.01 mm is within 0.01 mm of its place.
        check(&[0., 1.005, 2., 3.005, 4.], &[], 0);
        // 7 mm rounded to 0.1 mm: accepted, and said.
        check(&[0., 7.05, 14., 21.05, 28., 35.05], &[], 1);
        // Two slices that changed places would be sorted; one that moved by a tenth of the spacing is seen.
        check(&[0., 1., 2.1, 3., 4.], &["series.uneven-spacing"], 0);
    }

    #[test]
    fn slow_drift_is_seen_although_neighbours_agree() {
        let z: Vec<f64> = (0..300).map(|k| f64::from(k) + if k > 150 { 0.009 * f64::from(k - 150) } else { 0.0 }).collect();
        check(&z, &["series.uneven-spacing"], 0);
    }

    #[test]
    fn shear_and_displacement_are_told_apart() {
        let sheared: Vec<[f64; 3]> = (0..9).map(|k| [0., 0.2 * f64::from(k), f64::from(k)]).collect();
        assert_eq!(codes(&sheared).0, ["series.sheared"]);
        let mut displaced: Vec<[f64; 3]> = (0..9).map(|k| [5., 5., f64::from(k)]).collect();
        displaced[4][0] += 0.5;
        assert_eq!(codes(&displaced).0, ["series.displaced"]);
        let uneven_and_sheared: Vec<[f64; 3]> = [0., 1., 2.7, 3.1, 9.].map(|z| [0., z / 3.0, z]).to_vec();
        assert_eq!(codes(&uneven_and_sheared).0, ["series.uneven-spacing", "series.sheared"]);
    }
}
