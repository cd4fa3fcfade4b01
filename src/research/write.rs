//! Label maps as NIfTI-1, for researchers.

use std::io::Write;
use std::path::Path;

use flate2::{Compression, GzBuilder};

use crate::dataset::{WriteError, write_atomically};
use crate::geometry::{Affine, Grid, cross, dot, norm};
use crate::volume::LabelMap;

/// Writes `labels` as one gzipped NIfTI-1 file (`.nii.gz`), unsigned 8-bit, intent "label", millimetres.
///
/// sform and qform both say where the voxels lie (code 1, scanner); on a sheared grid only the sform can. The bytes depend on the
/// labels and the grid alone: no time, no name. What stood at `path` is replaced.
///
/// # Errors
/// An axis of more than 32767 voxels, which NIfTI-1 cannot say, and [`WriteError::Io`]; nothing is left behind then.
pub fn write_label_nifti(path: &Path, labels: &LabelMap) -> Result<(), WriteError> {
    let header = header_of(labels.grid()).ok_or_else(|| WriteError::Encode("NIfTI-1 has at most 32767 voxels along an axis".into()))?;
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    write_atomically(path, |file| {
        let mut gzip = GzBuilder::new().mtime(0).write(file, Compression::new(6));
        let written = gzip.write_all(&header).and_then(|()| gzip.write_all(labels.voxels())).and_then(|()| gzip.finish().map(drop));
        written.map_err(|source| WriteError::Io { file: file_name, source })
    })
}

/// Header and the four bytes that say "no extensions" (nifti1.h).
fn header_of(grid: &Grid) -> Option<[u8; 352]> {
    let mut bytes = [0; 352];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let mut dims = [1i16; 8];
    dims[0] = 3;
    for (dim, n) in dims[1..].iter_mut().zip(grid.dims()) {
        *dim = i16::try_from(n).ok()?;
    }
    let ras_from_voxel = Affine::from_columns([-1., 0., 0.], [0., -1., 0.], [0., 0., 1.], [0.; 3]) * grid.lps_from_voxel();
    let spacing_mm = grid.spacing_mm();
    let rotation = quaternion(&ras_from_voxel);
    let f32s = |values: &[f64]| values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect::<Vec<_>>();
    put(0, &348i32.to_le_bytes());
    put(38, b"r"); // `regular`, as Analyze wanted it
    put(40, &dims.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<_>>());
    put(68, &1002i16.to_le_bytes()); // NIFTI_INTENT_LABEL
    put(70, &2i16.to_le_bytes()); // unsigned char
    put(72, &8i16.to_le_bytes());
    let qfac = rotation.map_or(1.0, |r| r.qfac);
    put(76, &f32s(&[qfac, spacing_mm[0], spacing_mm[1], spacing_mm[2]]));
    put(108, &352f32.to_le_bytes());
    put(112, &1f32.to_le_bytes());
    put(123, &[2]); // mm
    put(254, &1i16.to_le_bytes()); // sform_code: scanner
    if let Some(rotation) = rotation {
        put(252, &1i16.to_le_bytes());
        put(256, &f32s(&rotation.bcd));
        put(268, &f32s(&ras_from_voxel.column(3)));
    }
    ras_from_voxel.rows().iter().enumerate().for_each(|(n, row)| put(280 + 16 * n, &f32s(row)));
    put(344, b"n+1\0");
    Some(bytes)
}

/// A rotation as NIfTI says it: `quatern_b`, `_c`, `_d`, and -1 where the third axis is turned round before.
#[derive(Clone, Copy)]
struct Rotation {
    bcd: [f64; 3],
    qfac: f64,
}

/// The rotation in an affine (Shepperd's method: divide by the largest component), or `None` where its axes are not at right angles.
fn quaternion(ras_from_voxel: &Affine) -> Option<Rotation> {
    let [x, y, z] = [0, 1, 2].map(|n| {
        let column = ras_from_voxel.column(n);
        column.map(|v| v / norm(column))
    });
    if [dot(x, y), dot(y, z), dot(z, x)].iter().any(|cosine| cosine.abs() > 1e-5) {
        return None;
    }
    let qfac = if dot(cross(x, y), z) < 0.0 { -1.0 } else { 1.0 };
    let z = z.map(|v| v * qfac);
    // Four times the product of each pair of components; the diagonal holds four times their squares.
    let pairs = [
        [1.0 + x[0] + y[1] + z[2], y[2] - z[1], z[0] - x[2], x[1] - y[0]],
        [y[2] - z[1], 1.0 + x[0] - y[1] - z[2], x[1] + y[0], z[0] + x[2]],
        [z[0] - x[2], x[1] + y[0], 1.0 - x[0] + y[1] - z[2], y[2] + z[1]],
        [x[1] - y[0], z[0] + x[2], y[2] + z[1], 1.0 - x[0] - y[1] + z[2]],
    ];
    let largest = (0..4).max_by(|&a, &b| pairs[a][a].total_cmp(&pairs[b][b]))?;
    let length = pairs[largest].iter().map(|v| v * v).sum::<f64>().sqrt();
    let [a, b, c, d] = pairs[largest].map(|v| v / length);
    // The reader takes the real part as not negative.
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    Some(Rotation { bcd: [b, c, d].map(|v| v * sign), qfac })
}
