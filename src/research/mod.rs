//! Volumes as researchers keep them: NIfTI-1, NIfTI-2 and NRRD in, label maps as NIfTI out.
//!
//! Both formats store one volume with an affine; here it becomes a [`Grid`] in patient LPS mm or a refusal. RAS, which NIfTI uses,
//! exists in `transform.rs` and `write.rs` alone. Sources: nifti1.h and nifti2.h of the NIfTI Data Format Working Group,
//! "Definition of NRRD File Format" of Teem.

mod element;
mod error;
mod nifti;
mod nrrd;
mod source;
mod transform;
mod write;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest;

pub use element::Element;
pub use error::ResearchError;
pub use write::write_label_nifti;

use crate::geometry::{Affine, GeometryError, Grid};
use crate::volume::{Rescale, Stored, Volume};
use element::{Voxels, decode_binary, decode_text};
use source::Source;

/// The most bytes that the voxels of one file may take, inflated: 1024 x 1024 x 1024 floats.
pub const MAX_VOXEL_BYTES: u64 = 4 << 30;

/// Which format a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// NIfTI-1, one file or a pair.
    Nifti1,
    /// NIfTI-2, one file or a pair.
    Nifti2,
    /// NRRD, one file or header and data.
    Nrrd,
}

impl Format {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nifti1 => "NIfTI-1",
            Self::Nifti2 => "NIfTI-2",
            Self::Nrrd => "NRRD",
        }
    }
}

/// What placed the voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// NIfTI `srow_x`, `srow_y`, `srow_z` (method 3).
    Sform,
    /// NIfTI quaternion, offset and voxel sizes (method 2).
    Qform,
    /// NRRD `space`, `space directions` and `space origin`.
    SpaceDirections,
}

/// The unit of length that the file names; everything here is in millimetres already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthUnit {
    /// Metres.
    Metre,
    /// Millimetres.
    Millimetre,
    /// Micrometres.
    Micrometre,
    /// None named: taken as millimetres, with a note.
    Unknown,
}

impl LengthUnit {
    /// Millimetres a unit.
    pub fn mm(self) -> f64 {
        match self {
            Self::Metre => 1e3,
            Self::Millimetre | Self::Unknown => 1.0,
            Self::Micrometre => 1e-3,
        }
    }
}

/// What a file says of its volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeHeader {
    /// The format.
    pub format: Format,
    /// How voxels are stored in the file.
    pub element: Element,
    /// Where the voxels lie, in patient LPS mm; axes may be sheared.
    pub grid: Grid,
    /// The unit that the file names.
    pub unit: LengthUnit,
    /// From the file's values to physical ones; slope 1 and intercept 0 where the file has no scaling.
    pub rescale: Rescale,
    /// Which of the file's transforms was taken.
    pub transform: Transform,
    /// What the reader of a result should know. No text of the header.
    pub notes: Vec<String>,
}

/// One volume.
#[derive(Debug, Clone, PartialEq)]
pub struct ResearchVolume {
    /// Stored values on their grid in patient LPS mm: integers that fit 16 bits as such, unsigned 16-bit ones maybe minus 32768, all
    /// others as floats.
    pub stored: Stored,
    /// From `stored` to physical values: the file's scaling, and back the 32768 by which unsigned values above 32767 are stored lower.
    pub rescale: Rescale,
    /// SHA-256 of the file in hexadecimal; of a pair of files, of the header's bytes and then the data's.
    pub sha256: String,
    /// What the reader of a result should know. No text of the header.
    pub notes: Vec<String>,
}

impl ResearchVolume {
    /// Where the voxels lie.
    pub fn grid(&self) -> &Grid {
        self.stored.grid()
    }
}

/// Reads what a `.nii`, `.nii.gz`, `.hdr`, `.img`, `.nrrd` or `.nhdr` file says of its volume. The format is told by the content.
///
/// # Errors
/// [`ResearchError`]: no such file, or not one volume of real numbers with a known place.
pub fn read_header(path: &Path) -> Result<VolumeHeader, ResearchError> {
    open(path).map(|opened| opened.header)
}

/// Reads one volume.
///
/// Memory: the voxels (2 or 4 bytes each), for a moment also those as integers where 32 or 64-bit integers turn out not to fit 16
/// bits. Nothing is allocated for voxels that the file cannot hold.
///
/// # Errors
/// As for [`read_header`]; voxels that are missing, damaged, or no finite numbers.
pub fn read_volume(path: &Path) -> Result<ResearchVolume, ResearchError> {
    let Opened { header, source, data } = open(path)?;
    let VolumeHeader { element, grid, rescale, mut notes, .. } = header;
    let count = grid.voxel_count();
    let mut source = data.start(source, count as u64 * element.bytes())?;
    let decoded = match data.coding {
        Coding::Text => decode_text(&mut source, count, element)?,
        Coding::Binary { big_endian } => decode_binary(&mut source, count, element, big_endian)?,
    };
    let (surplus, hash) = source.finish()?;
    // A text may end in line ends.
    if surplus > 0 && data.coding != Coding::Text {
        notes.push(format!("{surplus} bytes after the voxels were ignored"));
    }
    notes.extend(decoded.note);
    let rescale = Rescale { slope: rescale.slope, intercept: rescale.slope * decoded.offset + rescale.intercept };
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let stored = match decoded.voxels {
        Voxels::Int16(values) => Stored::from(Volume::new(grid, values)),
        Voxels::Float32(values) => Stored::float32(Volume::new(grid, values)).expect("each value was checked when it was read"),
    };
    Ok(ResearchVolume { stored, rescale, sha256, notes })
}

/// A header, and what is needed to get to the voxels.
struct Opened {
    header: VolumeHeader,
    /// The header's file, read to the header's end.
    source: Source,
    data: Data,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Binary { big_endian: bool },
    Text,
}

/// Where the voxels are.
struct Data {
    coding: Coding,
    /// Another file than the header's.
    file: Option<PathBuf>,
    /// Whether the bytes are gzipped from the skipped lines on.
    gzip: bool,
    /// Lines before the data.
    skip_lines: u64,
    skip_bytes: Skip,
}

/// Bytes before the voxels, inflated.
enum Skip {
    Bytes(u64),
    /// The voxels are the last bytes of the file.
    ToTheEnd,
}

impl Data {
    /// A source whose next byte is the first of the voxels.
    fn start(&self, mut source: Source, voxel_bytes: u64) -> Result<Source, ResearchError> {
        const BEFORE: &str = "what comes before the voxels";
        if let Some(file) = &self.file {
            source = Source::open_after(file, source.into_hash()?)?;
        }
        for _ in 0..self.skip_lines {
            if source.line(MAX_LINE_BYTES)?.is_none() {
                return Err(ResearchError::header("fewer lines than are to be skipped", &source.path));
            }
        }
        if self.gzip {
            source = source.into_gzip();
        }
        let bytes = match self.skip_bytes {
            Skip::Bytes(bytes) => bytes,
            Skip::ToTheEnd => {
                source.expect("the voxels", voxel_bytes)?;
                source.at_most() - voxel_bytes
            }
        };
        source.skip(BEFORE, bytes)?;
        Ok(source)
    }
}

/// The longest line of a header; a Slicer segmentation has a few hundred bytes a line.
const MAX_LINE_BYTES: usize = 1 << 20;

fn open(path: &Path) -> Result<Opened, ResearchError> {
    if let Some(header) = nifti::header_of_data(path) {
        return nifti::open(Source::open(&header)?, Some(path.into()));
    }
    let mut source = Source::open(path)?;
    let mut start = [0; 4];
    let n = source.fill(&mut start)?;
    match &start[..n] {
        b"NRRD" => nrrd::open(source),
        _ if nifti::is_start(start) => nifti::open_started(source, start, None),
        _ => Err(ResearchError::Foreign { path: path.into() }),
    }
}

/// The lattice, if its axes are of a size and an angle that an image can have.
fn grid_of(dims: [u32; 3], lps_from_voxel: Affine, path: &Path) -> Result<Grid, ResearchError> {
    const SPACING_MM: std::ops::RangeInclusive<f64> = 1e-4..=1e4;
    let grid = Grid::new(dims, lps_from_voxel).map_err(|source| ResearchError::Geometry { source, path: path.into() })?;
    let spacing_mm = grid.spacing_mm();
    if let Some(mm) = spacing_mm.iter().find(|s| !SPACING_MM.contains(s)) {
        return Err(ResearchError::header(format!("voxels {mm:e} mm apart"), path));
    }
    let position = lps_from_voxel.column(3);
    if let Some(mm) = position.iter().find(|p| p.abs() > 1e6) {
        return Err(ResearchError::header(format!("the first voxel lies {mm:e} mm from the centre"), path));
    }
    // The volume of a voxel over that of a box with its edges: 1 where they are at right angles, 0 where they are flat.
    let flatness = grid.voxel_volume_mm3() / spacing_mm.iter().product::<f64>();
    if flatness < 1e-3 {
        let source = GeometryError::Singular { determinant: lps_from_voxel.determinant() };
        return Err(ResearchError::Geometry { source, path: path.into() });
    }
    Ok(grid)
}

/// The number of bytes of the voxels, if it is one that is taken in.
fn check_size(dims: [u32; 3], element: Element, path: &Path) -> Result<(), ResearchError> {
    let bytes = dims.iter().try_fold(element.bytes(), |n, &d| n.checked_mul(u64::from(d))).unwrap_or(u64::MAX);
    if bytes > MAX_VOXEL_BYTES {
        return Err(ResearchError::TooLarge { what: "a volume", bytes, limit: MAX_VOXEL_BYTES, path: path.into() });
    }
    Ok(())
}
