//! Findings become objects: the report (`sr.rs`), the segmentation (`seg.rs`), JSON and a picture; of a researcher's volume the label map as
//! NIfTI, JSON and a picture. Touches no GPU and no model.
//!
//! Invariants: the same findings give the same bytes; the source's patient and study values are never changed; segment numbers
//! come from `segments.rs` alone; a result folder holds all of a result or is not there.

mod bits;
mod canvas;
mod colour;
mod content;
mod envelope;
mod error;
mod folder;
mod json;
mod picture;
mod seg;
mod segments;
mod sr;
#[cfg(test)]
mod read_back;
#[cfg(test)]
mod tests;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

pub use error::ResultsError;
pub use json::SCHEMA_VERSION;
pub use picture::{Window, picture};
pub use seg::segmentation;
pub use sr::report;

use crate::dataset::{WriteError, write_atomically, write_object};
use crate::findings::{Findings, Provenance};
use crate::research::write_label_nifti;
use crate::volume::ImageVolume;

/// The report.
pub const SR_FILE: &str = "sr.dcm";
/// The segmentation.
pub const SEG_FILE: &str = "seg.dcm";
/// The label map of a researcher's volume.
pub const LABELS_FILE: &str = "labels.nii.gz";
/// The findings for programs.
pub const JSON_FILE: &str = "findings.json";
/// The picture.
pub const PNG_FILE: &str = "overview.png";

/// Where the results were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The report, Comprehensive 3D SR; of DICOM series.
    pub sr: Option<PathBuf>,
    /// The segmentation; of DICOM series, none where nothing was there to segment.
    pub seg: Option<PathBuf>,
    /// The label map as NIfTI; of researchers' volumes.
    pub labels: Option<PathBuf>,
    /// The findings as JSON.
    pub json: PathBuf,
    /// The picture.
    pub png: PathBuf,
}

/// Writes all results of one job into the folder `dir`: all of them, or none. No DICOM object comes of a file that is none.
///
/// They are written to a folder beside `dir`, which is then renamed. An empty folder or one that holds only earlier results is replaced;
/// the moment between the two renames is the only one at which `dir` is not there. Folders above `dir` are made.
///
/// # Errors
/// [`ResultsError`]; `dir` is then as it was before.
///
/// # Panics
/// Where image and label map do not lie on one grid: a broken promise of the caller.
pub fn write_all(findings: &Findings, image: &ImageVolume, dir: &Path) -> Result<Written, ResultsError> {
    let segments = segments::Segments::of(findings)?;
    let is_file = findings.source.file.is_some();
    let staging = folder::Staging::beside(dir)?;
    let (objects, png) = rayon::join(
        || -> Result<bool, ResultsError> {
            if is_file {
                write_label_nifti(&staging.path().join(LABELS_FILE), &findings.labels)?;
                return Ok(false);
            }
            write_object(&staging.path().join(SR_FILE), sr::report_of(findings, &segments))?;
            let segmentation = seg::segmentation_of(findings, &segments);
            segmentation.map_or(Ok(false), |object| Ok(write_object(&staging.path().join(SEG_FILE), object).map(|()| true)?))
        },
        || -> Result<(), ResultsError> {
            write_bytes(&staging.path().join(JSON_FILE), json::json_of(findings, &segments).as_bytes())?;
            Ok(write_bytes(&staging.path().join(PNG_FILE), &png_of(&picture(image, findings, Window::of(image))))?)
        },
    );
    let has_segmentation = objects?;
    png?;
    staging.replace(dir)?;
    let path = |name| dir.join(name);
    Ok(Written {
        sr: (!is_file).then(|| path(SR_FILE)),
        seg: has_segmentation.then(|| path(SEG_FILE)),
        labels: is_file.then(|| path(LABELS_FILE)),
        json: path(JSON_FILE),
        png: path(PNG_FILE),
    })
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    write_atomically(path, |writer| writer.write_all(bytes).map_err(|source| WriteError::Io { file, source }))
}

fn png_of(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("an RGB image in memory becomes a PNG");
    bytes.into_inner()
}

/// `name=value` of everything that decided the result beside inputs and package.
fn parameters(provenance: &Provenance) -> impl Iterator<Item = String> {
    provenance.parameters.iter().map(|p| format!("{}={}", p.name, p.value))
}
