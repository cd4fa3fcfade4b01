//! The two transforms of a NIfTI file, which of them counts, and RAS to LPS.
//!
//! nibabel takes the sform where its code is above 0, else the qform. ITK takes the sform only where its code is 1 (scanner) and its
//! axes are at right angles, or where there is no qform. Where both are set and differ, some programs will see one volume and some
//! another: that is refused, unless the difference is a rounding.

use std::path::Path;

use super::{LengthUnit, ResearchError, Transform};
use crate::geometry::{Affine, Orientation, dot, norm, sub};

/// What a header says of places, in its own unit and in RAS.
pub(super) struct Placement {
    /// `pixdim[0]` (qfac) and the voxel sizes.
    pub(super) pixdim: [f64; 4],
    /// `xyzt_units`.
    pub(super) units: i64,
    pub(super) qform_code: i64,
    pub(super) sform_code: i64,
    /// `quatern_b`, `_c`, `_d`.
    pub(super) quaternion: [f64; 3],
    /// `qoffset_x`, `_y`, `_z`.
    pub(super) offset: [f64; 3],
    /// `srow_x`, `_y`, `_z`.
    pub(super) srow: [[f64; 4]; 3],
}

pub(super) struct Placed {
    pub(super) lps_from_voxel: Affine,
    pub(super) transform: Transform,
    pub(super) unit: LengthUnit,
}

/// Both transforms within this are one.
const SAME_MM: f64 = 0.01;

pub(super) fn place(p: &Placement, dims: [u32; 3], notes: &mut Vec<String>, path: &Path) -> Result<Placed, ResearchError> {
    let unit = match p.units & 7 {
        0 => LengthUnit::Unknown,
        1 => LengthUnit::Metre,
        2 => LengthUnit::Millimetre,
        3 => LengthUnit::Micrometre,
        other => return Err(ResearchError::header(format!("unit of length {other}"), path)),
    };
    for (name, code) in [("sform", p.sform_code), ("qform", p.qform_code)] {
        if !(0..=5).contains(&code) {
            return Err(ResearchError::header(format!("{name} code {code}, of 0 to 5"), path));
        }
    }
    let (lps_from_voxel, transform) = match (p.sform_code > 0, p.qform_code > 0) {
        (false, false) => {
            let what = "neither sform nor qform is set";
            return Err(ResearchError::NoOrientation { what, path: path.into() });
        }
        (true, false) => (sform(p, unit), Transform::Sform),
        (false, true) => (qform(p, unit, path)?, Transform::Qform),
        (true, true) => {
            let (s, q) = (sform(p, unit), qform(p, unit, path)?);
            agree(p, &s, &q, dims, notes, path)?;
            (s, Transform::Sform)
        }
    };
    if unit == LengthUnit::Unknown {
        notes.push("the file names no unit of length; millimetres were taken".into());
    }
    if transform == Transform::Sform {
        let spacing_mm: [f64; 3] = std::array::from_fn(|n| norm(lps_from_voxel.column(n)));
        let stated_mm: [f64; 3] = std::array::from_fn(|n| p.pixdim[n + 1] * unit.mm());
        if spacing_mm.iter().zip(stated_mm).any(|(s, stated)| stated.is_nan() || (s - stated).abs() > 0.01 * s) {
            let text = |v: [f64; 3]| v.map(|n| format!("{n:.4}")).join(" x ");
            notes.push(format!("pixdim says {} mm, the sform {}; the sform was taken", text(stated_mm), text(spacing_mm)));
        }
    }
    Ok(Placed { lps_from_voxel, transform, unit })
}

/// Method 3 of nifti1.h.
fn sform(p: &Placement, unit: LengthUnit) -> Affine {
    let columns: [[f64; 3]; 4] = std::array::from_fn(|c| std::array::from_fn(|r| p.srow[r][c]));
    lps_from(columns, unit)
}

/// Method 2 of nifti1.h: rotation by a unit quaternion, voxel sizes, the third axis turned round where qfac is -1.
fn qform(p: &Placement, unit: LengthUnit, path: &Path) -> Result<Affine, ResearchError> {
    let [qfac, sizes @ ..] = p.pixdim;
    let qfac = match qfac {
        0.0 | 1.0 => 1.0,
        -1.0 => -1.0,
        other => return Err(ResearchError::header(format!("pixdim[0] (qfac) of {other}, of -1 and 1"), path)),
    };
    if let Some(size) = sizes.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        return Err(ResearchError::header(format!("a voxel size of {size}"), path));
    }
    let rest = 1.0 - dot(p.quaternion, p.quaternion);
    if rest.is_nan() || rest < -1e-5 {
        return Err(ResearchError::header("a quaternion that is longer than 1", path));
    }
    // Half a turn leaves no real part, but rounding does: nifti_clib and nibabel take it out as here.
    let (a, [b, c, d]) = if rest < 1e-7 {
        let length = norm(p.quaternion);
        (0.0, p.quaternion.map(|v| v / length))
    } else {
        (rest.sqrt(), p.quaternion)
    };
    let x = [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)];
    let y = [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)];
    let z = [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a + d * d - c * c - b * b];
    Ok(lps_from([x.map(|v| v * sizes[0]), y.map(|v| v * sizes[1]), z.map(|v| v * sizes[2] * qfac), p.offset], unit))
}

/// Columns in RAS and the file's unit as an affine to LPS mm.
fn lps_from(columns: [[f64; 3]; 4], unit: LengthUnit) -> Affine {
    let mm = unit.mm();
    let [x, y, z, t] = columns.map(|[r, a, s]| [-r * mm, -a * mm, s * mm]);
    Affine::from_columns(x, y, z, t)
}

fn agree(p: &Placement, s: &Affine, q: &Affine, dims: [u32; 3], notes: &mut Vec<String>, path: &Path) -> Result<(), ResearchError> {
    let corner = |n: usize| std::array::from_fn(|axis| if n >> axis & 1 == 1 { f64::from(dims[axis] - 1) } else { 0.0 });
    let distance_mm = (0..8).map(|n| norm(sub(s.apply(corner(n)), q.apply(corner(n))))).fold(0.0, f64::max);
    if distance_mm <= SAME_MM {
        return Ok(());
    }
    let flips = Orientation::of(s) != Orientation::of(q);
    let right_angles = [(0, 1), (1, 2), (2, 0)].iter().all(|&(a, b)| {
        let (a, b) = (s.column(a), s.column(b));
        dot(a, b).abs() <= 1e-4 * norm(a) * norm(b)
    });
    let disputed = p.sform_code != 1 || !right_angles;
    let smallest = (0..3).map(|n| norm(s.column(n))).fold(f64::INFINITY, f64::min);
    // A NaN is larger than anything here.
    if flips || !distance_mm.is_finite() || disputed && distance_mm > 0.01 * smallest {
        let (sform_code, qform_code) = (p.sform_code, p.qform_code);
        return Err(ResearchError::TransformsDisagree { sform_code, qform_code, distance_mm, flips, path: path.into() });
    }
    notes.push(format!("sform and qform place voxels up to {distance_mm:.3} mm apart; the sform was taken"));
    Ok(())
}
