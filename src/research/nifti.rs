//! NIfTI-1 (nifti1.h) and NIfTI-2 (nifti2.h) headers.

use std::path::{Path, PathBuf};

use super::source::Source;
use super::transform::{Placement, place};
use super::{Coding, Data, Element, Format, Opened, ResearchError, Skip, VolumeHeader, check_size, grid_of};
use crate::volume::Rescale;

/// Bytes of a NIfTI-1 header.
const SIZE_1: usize = 348;
/// Bytes of a NIfTI-2 header.
const SIZE_2: usize = 540;
/// The farthest that extensions may push the voxels: DICOM headers stand there in files of some converters.
const MAX_VOX_OFFSET: f64 = (256 << 20) as f64;

/// Numbers of a header, in either byte order and either version.
struct Fields {
    bytes: [u8; SIZE_2],
    big_endian: bool,
}

impl Fields {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut b: [u8; N] = self.bytes[at..at + N].try_into().expect("N bytes");
        if self.big_endian {
            b.reverse();
        }
        b
    }

    fn i16(&self, at: usize) -> i64 {
        i16::from_le_bytes(self.array(at)).into()
    }

    fn i32(&self, at: usize) -> i64 {
        i32::from_le_bytes(self.array(at)).into()
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.array(at))
    }

    fn f32(&self, at: usize) -> f64 {
        f32::from_le_bytes(self.array(at)).into()
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.array(at))
    }
}

/// A header as it stands, whatever the version.
struct Raw {
    format: Format,
    /// Header and voxels in one file.
    single: bool,
    dims: [i64; 8],
    datatype: i64,
    bitpix: i64,
    vox_offset: f64,
    slope: f64,
    intercept: f64,
    placement: Placement,
}

impl Raw {
    fn of(fields: &Fields, size: usize, path: &Path) -> Result<Self, ResearchError> {
        let f = fields;
        if size == SIZE_1 {
            let single = match &f.bytes[344..348] {
                b"n+1\0" => true,
                b"ni1\0" => false,
                _ => return Err(analyze(path)),
            };
            let floats = |at| std::array::from_fn(|n| f.f32(at + 4 * n));
            return Ok(Self {
                format: Format::Nifti1,
                single,
                dims: std::array::from_fn(|n| f.i16(40 + 2 * n)),
                datatype: f.i16(70),
                bitpix: f.i16(72),
                vox_offset: f.f32(108),
                slope: f.f32(112),
                intercept: f.f32(116),
                placement: Placement {
                    pixdim: [f.f32(76), f.f32(80), f.f32(84), f.f32(88)],
                    units: i64::from(f.bytes[123]),
                    qform_code: f.i16(252),
                    sform_code: f.i16(254),
                    quaternion: floats(256),
                    offset: floats(268),
                    srow: [280, 296, 312].map(|at| [f.f32(at), f.f32(at + 4), f.f32(at + 8), f.f32(at + 12)]),
                },
            });
        }
        let single = match &f.bytes[4..8] {
            b"n+2\0" => true,
            b"ni2\0" => false,
            _ => return Err(ResearchError::header("no NIfTI-2 magic at byte 4", path)),
        };
        if f.bytes[8..12] != *b"\r\n\x1A\n" {
            return Err(ResearchError::Damaged { what: "line ends were converted as in a text", path: path.into() });
        }
        let doubles = |at| std::array::from_fn(|n| f.f64(at + 8 * n));
        Ok(Self {
            format: Format::Nifti2,
            single,
            dims: std::array::from_fn(|n| f.i64(16 + 8 * n)),
            datatype: f.i16(12),
            bitpix: f.i16(14),
            vox_offset: f.i64(168) as f64,
            slope: f.f64(176),
            intercept: f.f64(184),
            placement: Placement {
                pixdim: [f.f64(104), f.f64(112), f.f64(120), f.f64(128)],
                units: f.i32(500),
                qform_code: f.i32(344),
                sform_code: f.i32(348),
                quaternion: doubles(352),
                offset: doubles(376),
                srow: [400, 432, 464].map(|at| [f.f64(at), f.f64(at + 8), f.f64(at + 16), f.f64(at + 24)]),
            },
        })
    }
}

/// Whether a file that begins so is NIfTI, or its predecessor Analyze: the size of the header in either byte order.
pub(super) fn is_start(start: [u8; 4]) -> bool {
    [u32::from_le_bytes(start), u32::from_be_bytes(start)].iter().any(|&n| n as usize == SIZE_1 || n as usize == SIZE_2)
}

/// The header's file where `path` is the data of a pair, by its name: such data has no mark of its own.
pub(super) fn header_of_data(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let lower = name.to_ascii_lowercase();
    let stem = [".img", ".img.gz"].iter().find(|end| lower.ends_with(*end)).map(|end| &name[..name.len() - end.len()])?;
    existing(path, stem, &["hdr", "HDR", "hdr.gz"])
}

/// The first of these files that is there.
fn existing(beside: &Path, stem: &str, endings: &[&str]) -> Option<PathBuf> {
    endings.iter().map(|ending| beside.with_file_name(format!("{stem}.{ending}"))).find(|candidate| candidate.is_file())
}

pub(super) fn open(mut source: Source, data: Option<PathBuf>) -> Result<Opened, ResearchError> {
    let mut start = [0; 4];
    source.exactly("a NIfTI header", &mut start)?;
    if !is_start(start) {
        return Err(ResearchError::Foreign { path: source.path });
    }
    open_started(source, start, data)
}

/// Opens a file of which four bytes are read; `data` is the other file of a pair where it is known.
pub(super) fn open_started(mut source: Source, start: [u8; 4], data: Option<PathBuf>) -> Result<Opened, ResearchError> {
    let path = source.path.clone();
    let little = u32::from_le_bytes(start) as usize;
    let big_endian = little != SIZE_1 && little != SIZE_2;
    let size = if big_endian { u32::from_be_bytes(start) as usize } else { little };
    let mut bytes = [0; SIZE_2];
    bytes[..4].copy_from_slice(&start);
    source.exactly("a NIfTI header", &mut bytes[4..size])?;
    let raw = Raw::of(&Fields { bytes, big_endian }, size, &path)?;
    let mut notes = Vec::new();
    let dims = dims_of(&raw, &path)?;
    let element = element_of(&raw, &mut notes, &path)?;
    check_size(dims, element, &path)?;
    let rescale = rescale_of(&raw, &mut notes, &path)?;
    let placed = place(&raw.placement, dims, &mut notes, &path)?;
    let grid = grid_of(dims, placed.lps_from_voxel, &path)?;
    let header = VolumeHeader { format: raw.format, element, grid, unit: placed.unit, rescale, transform: placed.transform, notes };
    let (file, skip) = if raw.single {
        (None, skip_of(&raw, size, &path)?)
    } else {
        (Some(data.map_or_else(|| data_of_header(&path), Ok)?), offset_of(&raw, &path)?)
    };
    // A single file is inflated as a whole, from its start on; the data of a pair goes by its name.
    let gzip = file.as_ref().is_some_and(|f| f.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")));
    let data = Data { coding: Coding::Binary { big_endian }, file, gzip, skip_lines: 0, skip_bytes: Skip::Bytes(skip) };
    Ok(Opened { header, source, data })
}

fn analyze(path: &Path) -> ResearchError {
    ResearchError::unsupported(
        "Analyze 7.5, which does not say how voxels lie in the patient, is",
        "convert it to NIfTI with its orientation",
        path,
    )
}

fn data_of_header(path: &Path) -> Result<PathBuf, ResearchError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let stem = [".hdr", ".hdr.gz"].iter().find(|end| lower.ends_with(*end)).map(|end| &name[..name.len() - end.len()]);
    stem.and_then(|stem| existing(path, stem, &["img", "IMG", "img.gz"]))
        .ok_or_else(|| ResearchError::header("it belongs to an `.img` file that is not beside it", path))
}

/// The three lengths; every other axis may have one sample.
fn dims_of(raw: &Raw, path: &Path) -> Result<[u32; 3], ResearchError> {
    let [rank, lengths @ ..] = raw.dims;
    if !(1..=7).contains(&rank) {
        return Err(ResearchError::header(format!("{rank} dimensions, of 1 to 7"), path));
    }
    let lengths = &lengths[..rank as usize];
    if let Some(n) = lengths.iter().find(|&&n| n < 1) {
        return Err(ResearchError::header(format!("an axis of {n} samples"), path));
    }
    if rank < 2 {
        return Err(ResearchError::unsupported("a line of samples is", "give a volume", path));
    }
    let at = |n: usize| lengths.get(n).copied().unwrap_or(1);
    let components = at(4);
    if components > 1 {
        let what = format!("{components} values at each voxel (a vector, a tensor or a warp) are");
        return Err(ResearchError::unsupported(what, "give a volume of single values", path));
    }
    let volumes = [3, 5, 6].iter().try_fold(1u64, |n, &axis| n.checked_mul(at(axis) as u64)).unwrap_or(u64::MAX);
    if volumes > 1 {
        return Err(ResearchError::Volumes { count: volumes, path: path.into() });
    }
    let mut dims = [0; 3];
    for (n, dim) in dims.iter_mut().enumerate() {
        *dim = u32::try_from(at(n)).map_err(|_| ResearchError::header(format!("an axis of {} samples", at(n)), path))?;
    }
    Ok(dims)
}

fn element_of(raw: &Raw, notes: &mut Vec<String>, path: &Path) -> Result<Element, ResearchError> {
    let element = match raw.datatype {
        2 => Element::U8,
        4 => Element::I16,
        8 => Element::I32,
        16 => Element::F32,
        64 => Element::F64,
        256 => Element::I8,
        512 => Element::U16,
        768 => Element::U32,
        1024 => Element::I64,
        1280 => Element::U64,
        other => {
            let name = match other {
                1 => "voxels of one bit are",
                32 | 1792 | 2048 => "complex voxels are",
                128 | 2304 => "colour voxels are",
                1536 => "128-bit floats are",
                _ => return Err(ResearchError::header(format!("data type {other}, which NIfTI does not have"), path)),
            };
            return Err(ResearchError::unsupported(name, "give a volume of real numbers of at most 64 bits", path));
        }
    };
    if raw.bitpix != element.bytes() as i64 * 8 {
        notes.push(format!(
            "the header says {} bits a voxel, its data type has {}; the data type was taken",
            raw.bitpix,
            element.bytes() * 8
        ));
    }
    Ok(element)
}

/// `scl_slope` and `scl_inter`. A slope of 0 means no scaling; NaN, which nibabel puts there for the same, too.
fn rescale_of(raw: &Raw, notes: &mut Vec<String>, path: &Path) -> Result<Rescale, ResearchError> {
    let (slope, intercept) = (raw.slope, raw.intercept);
    if slope == 0.0 || slope.is_nan() {
        if slope == 0.0 && intercept != 0.0 && intercept.is_finite() {
            notes.push(format!("scl_slope is 0, which means no scaling, so scl_inter of {intercept} was not added; some programs add it"));
        }
        return Ok(Rescale { slope: 1.0, intercept: 0.0 });
    }
    if !slope.is_finite() || !intercept.is_finite() {
        return Err(ResearchError::header(format!("scaling by {slope} plus {intercept}"), path));
    }
    Ok(Rescale { slope, intercept })
}

fn offset_of(raw: &Raw, path: &Path) -> Result<u64, ResearchError> {
    let offset = raw.vox_offset;
    if !(0.0..=MAX_VOX_OFFSET).contains(&offset) || offset.fract() != 0.0 {
        return Err(ResearchError::header(format!("voxels from byte {offset} on"), path));
    }
    Ok(offset as u64)
}

/// Bytes between header and voxels of a single file. 0 stands for the first place that is allowed, as nifti_clib and nibabel take it.
fn skip_of(raw: &Raw, size: usize, path: &Path) -> Result<u64, ResearchError> {
    let first = size as u64 + 4;
    let offset = match offset_of(raw, path)? {
        0 => first,
        offset => offset,
    };
    if offset < first {
        return Err(ResearchError::header(format!("voxels from byte {offset} on, within the header of {first}"), path));
    }
    Ok(offset - size as u64)
}
