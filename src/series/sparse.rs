//! A regular lattice from frames that lie on some of its slices only, as those of a segmentation do.
//!
//! The same tolerances as for whole stacks (`lattice.rs`). What is known of the distance of neighbours is Spacing Between Slices, where
//! it is stated, or else the smallest distance of two frames; the frames themselves then say it better.

use super::Reason;
use super::lattice::{Line, MAX_SHEAR, MULTIPLE, Plane, RESIDUAL_OF_SPACING, SAME_POSITION_MM, allowed, scale, worst};
use super::segmentation::SegmentationReason;
use crate::geometry::{Affine, dot, norm, sub};

/// Where frames lie in a lattice.
#[derive(Debug, Clone)]
pub(super) struct Sparse {
    pub(super) lps_from_voxel: Affine,
    /// From the first to the last slice that has a frame.
    pub(super) slices: u32,
    /// The slice of each position, in their order.
    pub(super) slice_of: Vec<u32>,
}

/// The lattice of frames at `positions_mm`, sorted along the normal, several of which may share a place; or every reason against one.
/// With `sheared`, a stack whose slices advance off their normal is one too, with a note.
pub(super) fn sparse_lattice(
    plane: &Plane,
    positions_mm: &[[f64; 3]],
    stated_mm: Option<f64>,
    sheared: bool,
    notes: &mut Vec<String>,
) -> Result<Sparse, Vec<Reason>> {
    let normal = plane.normal();
    let along: Vec<f64> = positions_mm.iter().map(|&p| dot(p, normal)).collect();
    // Places, and which one each position is at.
    let mut places: Vec<f64> = Vec::new();
    let place_of: Vec<usize> = along
        .iter()
        .map(|&mm| {
            if places.last().is_none_or(|&last| mm - last >= SAME_POSITION_MM) {
                places.push(mm);
            }
            places.len() - 1
        })
        .collect();
    let gaps: Vec<f64> = places.windows(2).map(|w| w[1] - w[0]).collect();
    let smallest_mm = gaps.iter().copied().reduce(f64::min);
    let Some(guess_mm) = stated_mm.or(smallest_mm) else { return Err(vec![SegmentationReason::OnePosition.into()]) };
    let steps = steps(&gaps, guess_mm, stated_mm.is_some()).map_err(|reason| vec![reason])?;
    let mut slices = vec![0.0];
    for step in steps {
        slices.push(slices[slices.len() - 1] + step);
    }
    let last = slices[slices.len() - 1];
    let slice_of: Vec<f64> = place_of.iter().map(|&n| slices[n]).collect();
    let several = places.len() > 1;
    let pairs = slice_of.iter().copied().zip(along.iter().copied());
    let fit = if several { Line::through(pairs) } else { Line { offset: places[0], slope: guess_mm } };
    let allowed_mm = allowed(fit.slope);
    let mut reasons = Vec::new();
    let (index, off_mm) = worst(slice_of.iter().zip(&along).map(|(&k, &mm)| (mm - fit.at(k)).abs()));
    if off_mm > allowed_mm {
        reasons.push(uneven(&gaps, place_of[index], off_mm, allowed_mm));
    }

    // Across the normal, as in whole stacks.
    let across: Vec<[f64; 3]> = positions_mm.iter().zip(&along).map(|(&p, &mm)| sub(p, scale(normal, mm))).collect();
    let fits: [Line; 3] = std::array::from_fn(|axis| {
        let points = along.iter().copied().zip(across.iter().map(|p| p[axis]));
        if several { Line::through(points) } else { Line { offset: across[0][axis], slope: 0.0 } }
    });
    let slope = fits.map(|f| f.slope);
    if norm(slope) > MAX_SHEAR {
        let angle_deg = norm(slope).atan().to_degrees();
        if sheared {
            notes.push(format!("slices advance {angle_deg:.2} degrees off their normal (gantry tilt): the grid is sheared"));
        } else {
            reasons.push(Reason::Sheared { angle_deg, allowed_deg: MAX_SHEAR.atan().to_degrees() });
        }
    }
    let displaced = |n: usize| norm(std::array::from_fn(|axis| across[n][axis] - fits[axis].at(along[n])));
    let (index, off_across) = worst((0..across.len()).map(displaced));
    if off_across > allowed_mm {
        reasons.push(Reason::Displaced { index: slice_of[index] as usize, off_mm: off_across, allowed_mm });
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    match stated_mm {
        Some(stated_mm) if (stated_mm - fit.slope).abs() > RESIDUAL_OF_SPACING * fit.slope => {
            notes.push(format!("Spacing Between Slices says {stated_mm:.3} mm; the positions, which are {:.3} mm apart, count", fit.slope))
        }
        Some(_) => {}
        None => notes.push(format!(
            "no Spacing Between Slices is stated: the smallest distance between frames, {:.3} mm, is taken for that of slices",
            fit.slope
        )),
    }
    let at = |mm: f64| std::array::from_fn(|axis| fits[axis].at(mm) + mm * normal[axis]);
    // Positions that are regular to a nanometre give their own numbers back, free of the fit's rounding.
    let exact = off_mm.max(off_across) < 1e-6;
    let start = if exact { positions_mm[0] } else { at(fit.offset) };
    let step = if exact && several {
        scale(sub(positions_mm[positions_mm.len() - 1], positions_mm[0]), 1.0 / last)
    } else {
        std::array::from_fn(|axis| fit.slope * (normal[axis] + slope[axis]))
    };
    let [between_rows, between_columns] = plane.spacing_mm;
    let lps_from_voxel =
        Affine::from_columns(scale(plane.row_direction, between_columns), scale(plane.column_direction, between_rows), step, start);
    // Far more slices than a grid may have are refused by the grid.
    let index = |k: f64| k.min(f64::from(u32::MAX - 1)) as u32;
    Ok(Sparse { lps_from_voxel, slices: index(last) + 1, slice_of: slice_of.into_iter().map(index).collect() })
}

/// How many slices each gap spans. The spacing is learnt from small gaps first: over a gap of a hundred slices, a stated spacing that
/// was rounded to 0.01 mm is a slice off.
fn steps(gaps: &[f64], guess_mm: f64, stated: bool) -> Result<Vec<f64>, Reason> {
    let mut order: Vec<usize> = (0..gaps.len()).collect();
    order.sort_by(|&a, &b| gaps[a].total_cmp(&gaps[b]));
    let mut steps = vec![0.0; gaps.len()];
    let (mut mm, mut count) = (0.0, 0.0);
    for n in order {
        let spacing_mm = if count > 0.0 { mm / count } else { guess_mm };
        let step = (gaps[n] / spacing_mm).round();
        let off_mm = (gaps[n] - step * spacing_mm).abs();
        if step < 1.0 || off_mm > MULTIPLE * spacing_mm {
            return Err(match stated && count == 0.0 {
                true => SegmentationReason::StatedSpacing { stated_mm: guess_mm, gap_mm: gaps[n] }.into(),
                false => uneven(gaps, n, off_mm, allowed(spacing_mm)),
            });
        }
        steps[n] = step;
        mm += gaps[n];
        count += step;
    }
    Ok(steps)
}

fn uneven(gaps: &[f64], index: usize, off_mm: f64, allowed_mm: f64) -> Reason {
    let mut sorted = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |n: usize| sorted.get(n).copied().unwrap_or(0.0);
    let last = sorted.len().saturating_sub(1);
    Reason::UnevenSpacing { index, min_mm: at(0), median_mm: at(last / 2), max_mm: at(last), off_mm, allowed_mm }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Coded;

    fn found(z: &[f64], stated_mm: Option<f64>) -> (Result<Sparse, Vec<Reason>>, usize) {
        let plane = Plane { row_direction: [1., 0., 0.], column_direction: [0., 1., 0.], spacing_mm: [0.7, 0.5] };
        let positions: Vec<[f64; 3]> = z.iter().map(|&z| [3., 4., z]).collect();
        let mut notes = Vec::new();
        (sparse_lattice(&plane, &positions, stated_mm, false, &mut notes), notes.len())
    }

    fn check(z: &[f64], stated_mm: Option<f64>, expected: Result<(f64, &[u32]), &str>, notes: usize) {
        match (found(z, stated_mm), expected) {
            ((Ok(sparse), noted), Ok((spacing_mm, slice_of))) => {
                let step = sparse.lps_from_voxel.column(2);
                assert!(norm(sub(step, [0., 0., spacing_mm])) < 1e-6, "{step:?}");
                assert!(norm(sub(sparse.lps_from_voxel.column(3), [3., 4., z[0]])) < 0.01);
                assert_eq!(sparse.slice_of, slice_of, "{z:?}");
                assert_eq!(sparse.slices, slice_of[slice_of.len() - 1] + 1);
                assert_eq!(noted, notes, "{z:?}");
            }
            ((Err(reasons), _), Err(code)) => assert_eq!(reasons.iter().map(|r| r.code()).collect::<Vec<_>>(), [code], "{z:?}"),
            (other, _) => panic!("{other:?} for {z:?}"),
        }
    }

    #[test]
    fn frames_lie_on_some_of_the_slices() {
        check(&[0., 2., 4.], Some(2.), Ok((2., &[0, 1, 2])), 0);
        check(&[0., 0., 6., 8., 8.], Some(2.), Ok((2., &[0, 0, 3, 4, 4])), 0);
        check(&[-177.75, -172.75], Some(2.5), Ok((2.5, &[0, 2])), 0);
        // Nothing is stated: the smallest distance, and a note.
        check(&[-99.48, 103.02, 104.27, 105.52], None, Ok((1.25, &[0, 162, 163, 164])), 1);
        // One place: only what is stated.
        check(&[7., 7.], Some(5.), Ok((5., &[0, 0])), 0);
        check(&[7., 7.], None, Err("segmentation.one-position"), 0);
    }

    #[test]
    fn a_stated_spacing_is_held_against_positions() {
        // Off by 4 %: the positions count, with a note. Rounded: no matter, over a gap of 300 slices neither.
        check(&[0., 2.6, 7.8], Some(2.5), Ok((2.6, &[0, 1, 3])), 1);
        check(&[0., 0.997, 300.097], Some(1.0), Ok((0.997, &[0, 1, 301])), 0);
        check(&[0., 1.25, 2.5], Some(2.5), Err("segmentation.stated-spacing"), 0);
        check(&[0., 2.5, 5.], Some(1.0), Err("segmentation.stated-spacing"), 0);
    }

    #[test]
    fn what_is_irregular_is_refused() {
        check(&[0., 2., 5., 7.], None, Err("series.uneven-spacing"), 0);
        check(&[0., 2., 4.06, 6.], Some(2.), Err("series.uneven-spacing"), 0);
        let plane = Plane { row_direction: [1., 0., 0.], column_direction: [0., 1., 0.], spacing_mm: [0.7, 0.5] };
        let codes = |positions: &[[f64; 3]], sheared| {
            let reasons = sparse_lattice(&plane, positions, Some(1.), sheared, &mut Vec::new()).err().unwrap_or_default();
            reasons.iter().map(|r| r.code()).collect::<Vec<_>>()
        };
        // Two frames at one place, of two segments, that do not lie on each other.
        assert_eq!(codes(&[[0., 0., 0.], [0., 0., 1.], [0.7, 0., 1.], [0., 0., 2.]], false), ["series.displaced"]);
        let tilted: Vec<[f64; 3]> = [0., 1., 5., 6.].map(|z| [0., 0.2 * z, z]).to_vec();
        assert_eq!(codes(&tilted, false), ["series.sheared"]);
        assert!(codes(&tilted, true).is_empty());
    }

    #[test]
    fn a_spacing_of_next_to_nothing_makes_too_many_slices_for_a_grid() {
        let (sparse, _) = found(&[0., 1000.], Some(1e-9));
        assert_eq!(sparse.map(|s| s.slices).ok(), Some(u32::MAX));
    }
}
