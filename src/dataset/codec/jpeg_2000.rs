//! JPEG 2000 (ISO 15444-1) by our own decoder; what that leaves alone, and High-Throughput JPEG 2000 (15444-15), by OpenJPEG translated
//! to Rust.

use jpeg2k::{DecodeParameters, Image};

use super::{Fault, FrameFormat, Samples, StreamInfo, j2k, limits, samples};
use crate::dataset::colour::Photometric;

/// The largest number of tiles in one image: the decoder keeps about 6 KB for each before it reads any.
const MAX_TILES: u64 = 1024;

pub(super) fn decode(stream: &[u8], format: &FrameFormat<'_>, photometric: Photometric) -> Result<Samples, Fault> {
    let start = start(stream).ok_or(Fault::Damaged)?;
    let (info, signed) = info(stream, start).ok_or(Fault::Damaged)?;
    info.check(format)?;
    let mut components = match j2k::decode(&stream[start..], format.columns.into(), format.rows.into(), format.samples.into()) {
        Some(components) => components,
        None => by_openjpeg(stream)?,
    };
    if components.len() != usize::from(format.samples) || components.iter().any(|c| c.len() != format.pixels()) {
        return Err(Fault::Damaged);
    }
    if let Some((least, most)) =
        limits(format, signed).filter(|_| is_irreversible(stream, start) || may_be_lossy(format.transfer_syntax_uid))
    {
        components.iter_mut().flatten().for_each(|v| *v = (*v).clamp(least, most));
    }
    let components: Vec<&[i32]> = components.iter().map(Vec::as_slice).collect();
    Ok(samples(interleave(&components, format.bytes_per_sample()), format, photometric.once_decoded()))
}

/// High-Throughput streams, and whatever else ours leaves alone.
fn by_openjpeg(stream: &[u8]) -> Result<Vec<Vec<i32>>, Fault> {
    // Strict: a stream that is cut off is refused, not filled up. Palettes and channel orders of JP2 boxes do not exist in DICOM
    // (PS3.5 A.4.4).
    let parameters = DecodeParameters::new().strict(true).ignore_pclr_cmap_cdef();
    let image = Image::from_bytes_with(stream, parameters).map_err(|_| Fault::Damaged)?;
    Ok(image.components().iter().map(|c| c.data().to_vec()).collect())
}

/// Planes to little-endian samples of `width` bytes, pixel by pixel.
pub(super) fn interleave(planes: &[&[i32]], width: usize) -> Vec<u8> {
    let mut out = vec![0; planes.iter().map(|p| p.len()).sum::<usize>() * width];
    match (planes, width) {
        ([one], 1) => out.iter_mut().zip(*one).for_each(|(o, &v)| *o = v as u8),
        ([one], 2) => out.chunks_exact_mut(2).zip(*one).for_each(|(o, &v)| o.copy_from_slice(&(v as u16).to_le_bytes())),
        _ => {
            for (n, plane) in planes.iter().enumerate() {
                for (pixel, v) in out.chunks_exact_mut(width * planes.len()).zip(*plane) {
                    pixel[n * width..][..width].copy_from_slice(&v.to_le_bytes()[..width]);
                }
            }
        }
    }
    out
}

/// Where the code stream begins, bare or in a JP2 box.
fn start(stream: &[u8]) -> Option<usize> {
    stream.windows(4).take(4096).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51])
}

/// Whether streams of a transfer syntax may be cut short of lossless, whatever their wavelet.
fn may_be_lossy(transfer_syntax_uid: &str) -> bool {
    matches!(transfer_syntax_uid, "1.2.840.10008.1.2.4.91" | "1.2.840.10008.1.2.4.203")
}

/// Whether the first coding style of the main header (ISO 15444-1 A.6.1) has the irreversible wavelet.
fn is_irreversible(stream: &[u8], start: usize) -> bool {
    let mut at = start + 2;
    while let Some(&[0xFF, marker, high, low]) = stream.get(at..at + 4) {
        match marker {
            0x52 => return stream.get(at + 13) == Some(&0),
            0x90 => return false,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    false
}

/// The SIZ segment (A.5.1), and whether samples are signed.
fn info(stream: &[u8], start: usize) -> Option<(StreamInfo, bool)> {
    let s = stream.get(start + 6..start + 42)?;
    let u32_at = |at: usize| u32::from_be_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]]);
    let (columns, rows) = (u32_at(2).checked_sub(u32_at(10))?, u32_at(6).checked_sub(u32_at(14))?);
    let (tile_columns, tile_rows) = (u32_at(18), u32_at(22));
    if tile_columns == 0 || tile_rows == 0 {
        return None;
    }
    let tiles = u64::from(columns.div_ceil(tile_columns)) * u64::from(rows.div_ceil(tile_rows));
    let components = u32::from(u16::from_be_bytes([s[34], s[35]]));
    let each = stream.get(start + 42..start + 42 + 3 * components.min(3) as usize)?;
    // Subsampled components would have fewer samples than the image has pixels; those of several precisions have no place in DICOM.
    let precision = u32::from(each.first()? & 0x7F) + 1;
    if tiles > MAX_TILES || each.chunks_exact(3).any(|c| c[1..] != [1, 1] || c[0] != each[0]) {
        return None;
    }
    Some((StreamInfo { rows, columns, components, precision }, each.first()? & 0x80 != 0))
}
