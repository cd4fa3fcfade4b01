//! Colour samples to 8-bit RGB: the photometric interpretations of PS3.3 C.7.6.3.1.2 and colour palettes (C.7.6.3.1.5, C.7.9.2).

use dicom::core::{PrimitiveValue, Tag};
use dicom::dictionary_std::tags;
use dicom::object::InMemDicomObject;

use super::DatasetError;
use super::codec::{FrameFormat, Samples};

/// What samples mean (PS3.3 C.7.6.3.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    Monochrome1,
    Monochrome2,
    Palette,
    Rgb,
    YbrFull,
    YbrFull422,
    YbrPartial422,
    YbrPartial420,
    /// YCbCr of JPEG 2000's irreversible transform, which decoders undo.
    YbrIct,
    /// YCbCr of JPEG 2000's reversible transform, which decoders undo.
    YbrRct,
    /// YCbCr with 16..235 in full resolution: what YBR_PARTIAL_422 becomes; not a Defined Term.
    YbrPartial,
    /// JPEG XL's own, which decoders undo.
    Xyb,
}

impl Photometric {
    /// The meaning of a Photometric Interpretation (0028,0004), or `None` for one that we do not know (retired ones such as HSV).
    pub(super) fn of(text: &str) -> Option<Self> {
        Some(match text {
            "MONOCHROME1" => Self::Monochrome1,
            "MONOCHROME2" => Self::Monochrome2,
            "PALETTE COLOR" => Self::Palette,
            "RGB" => Self::Rgb,
            "YBR_FULL" => Self::YbrFull,
            "YBR_FULL_422" => Self::YbrFull422,
            "YBR_PARTIAL_422" => Self::YbrPartial422,
            "YBR_PARTIAL_420" => Self::YbrPartial420,
            "YBR_ICT" => Self::YbrIct,
            "YBR_RCT" => Self::YbrRct,
            "XYB" => Self::Xyb,
            _ => return None,
        })
    }

    /// Whether chroma has half the columns where the frame is not compressed.
    pub(super) fn is_subsampled(self) -> bool {
        matches!(self, Self::YbrFull422 | Self::YbrPartial422)
    }

    /// What the samples are once every component is in full resolution.
    pub(super) fn in_full_resolution(self) -> Self {
        match self {
            Self::YbrFull422 => Self::YbrFull,
            Self::YbrPartial422 | Self::YbrPartial420 => Self::YbrPartial,
            other => other,
        }
    }

    /// What the samples are once a decoder has undone its own colour transform, if it had one.
    pub(super) fn once_decoded(self) -> Self {
        match self {
            Self::YbrIct | Self::YbrRct | Self::Xyb => Self::Rgb,
            other => other.in_full_resolution(),
        }
    }
}

/// The length of a frame that is not compressed, without padding.
pub(super) fn native_bytes(format: &FrameFormat<'_>, photometric: Photometric) -> usize {
    let pixels = usize::from(format.rows) * usize::from(format.columns);
    let samples = if format.samples == 3 && photometric.is_subsampled() { 2 } else { usize::from(format.samples) };
    if format.bits_allocated == 1 { (pixels * samples).div_ceil(8) } else { pixels * samples * usize::from(format.bits_allocated / 8) }
}

/// Y Y Cb Cr for each two pixels of a row to Y Cb Cr for each; the columns are even in number (PS3.3 C.7.6.3.1.2). The second pixel
/// takes the chroma of the first, as the chroma was sampled there.
pub(super) fn full_resolution(bytes: &[u8], bytes_per_sample: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 2 * 3);
    for pair in bytes.chunks_exact(4 * bytes_per_sample) {
        let (luma, chroma) = pair.split_at(2 * bytes_per_sample);
        for y in luma.chunks_exact(bytes_per_sample) {
            out.extend_from_slice(y);
            out.extend_from_slice(chroma);
        }
    }
    out
}

/// Colour by plane to colour by pixel.
pub(super) fn interleaved(bytes: &[u8], bytes_per_sample: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    let plane = bytes.len() / 3;
    for (n, plane) in bytes.chunks_exact(plane.max(1)).take(3).enumerate() {
        for (pixel, sample) in out.chunks_exact_mut(3 * bytes_per_sample).zip(plane.chunks_exact(bytes_per_sample)) {
            pixel[n * bytes_per_sample..][..bytes_per_sample].copy_from_slice(sample);
        }
    }
    out
}

/// Samples to 8-bit RGB, one value a pixel, row by row. Samples of more bits keep their upper 8; luminance of MONOCHROME1 is inverted;
/// signs are not expected in colour and not looked at.
///
/// YCbCr is converted by the formulas of C.7.6.3.1.2 (ITU-R BT.601), rounded to the nearest and clamped.
///
/// # Errors
/// `Unsupported` for samples that the photometric interpretation does not go with, and PALETTE COLOR without a palette.
pub(super) fn to_rgb(samples: &Samples, format: &FrameFormat<'_>, palette: Option<&Palette>) -> Result<Vec<[u8; 3]>, DatasetError> {
    let unsupported = |what: &str| DatasetError::Unsupported { what: what.into(), path: format.path.into() };
    let width = samples.bytes_per_sample;
    let bits = u32::from(format.bits_stored).clamp(1, 8 * width as u32);
    let mask = u32::MAX >> (32 - bits);
    let raw = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |value, &byte| value << 8 | u32::from(byte)) & mask;
    let eight = |bytes: &[u8]| {
        let value = raw(bytes);
        if bits >= 8 { (value >> (bits - 8)) as u8 } else { ((value * 255 + mask / 2) / mask) as u8 }
    };
    match (samples.photometric, format.samples) {
        (Photometric::Monochrome1, 1) => Ok(samples.bytes.chunks_exact(width).map(|b| [255 - eight(b); 3]).collect()),
        (Photometric::Monochrome2, 1) => Ok(samples.bytes.chunks_exact(width).map(|b| [eight(b); 3]).collect()),
        (Photometric::Palette, 1) => {
            let palette = palette.ok_or_else(|| unsupported("PALETTE COLOR without a colour palette is"))?;
            let sign = if format.signed { 1 << (bits - 1) } else { 0 };
            let index = |b: &[u8]| i64::from(raw(b) ^ sign) - i64::from(sign);
            Ok(samples.bytes.chunks_exact(width).map(|b| palette.colour(index(b))).collect())
        }
        (photometric, 3) => {
            let convert: fn([u8; 3]) -> [u8; 3] = match photometric {
                Photometric::Rgb => |c| c,
                Photometric::YbrFull => rgb_of_full,
                Photometric::YbrPartial => rgb_of_partial,
                _ => return Err(unsupported("three samples a pixel that are neither RGB nor YBR are")),
            };
            let pixel = |b: &[u8]| convert([eight(&b[..width]), eight(&b[width..2 * width]), eight(&b[2 * width..])]);
            Ok(samples.bytes.chunks_exact(3 * width).map(pixel).collect())
        }
        _ => Err(unsupported("a photometric interpretation that does not go with its samples a pixel is")),
    }
}

fn clamped(fixed: i32) -> u8 {
    ((fixed + 0x8000) >> 16).clamp(0, 255) as u8
}

/// Factors times 65536, rounded.
fn rgb_of_full([y, b, r]: [u8; 3]) -> [u8; 3] {
    let (y, b, r) = (i32::from(y) << 16, i32::from(b) - 128, i32::from(r) - 128);
    [clamped(y + 91881 * r), clamped(y - 22554 * b - 46802 * r), clamped(y + 116130 * b)]
}

fn rgb_of_partial([y, b, r]: [u8; 3]) -> [u8; 3] {
    let (y, b, r) = (76309 * (i32::from(y) - 16), i32::from(b) - 128, i32::from(r) - 128);
    [clamped(y + 104597 * r), clamped(y - 25675 * b - 53279 * r), clamped(y + 132201 * b)]
}

/// The three colour lookup tables of PALETTE COLOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Palette {
    /// The stored value that the first entry is for; lower ones take it too.
    first: i64,
    colours: Vec<[u8; 3]>,
}

impl Palette {
    /// The palette of a data set; `None` where it has none, and what is wrong where it is broken.
    pub(super) fn of(header: &InMemDicomObject) -> Option<Result<Self, &'static str>> {
        header.get(tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR)?;
        Some(Self::read(header))
    }

    fn read(header: &InMemDicomObject) -> Result<Self, &'static str> {
        let channels = [
            (
                tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            ),
            (
                tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            ),
            (
                tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            ),
        ];
        let signed = header.get(tags::PIXEL_REPRESENTATION).and_then(|e| e.to_int::<u16>().ok()) == Some(1);
        let mut first = None;
        let mut luts = Vec::with_capacity(3);
        for (descriptor, data, segmented) in channels {
            let words = words(header, descriptor).ok_or("a palette without descriptor")?;
            let &[entries, start, bits] = words.as_slice() else { return Err("a palette descriptor without three values") };
            let entries = if entries == 0 { 65536 } else { usize::from(entries) };
            let start = if signed { i64::from(start as i16) } else { i64::from(start) };
            if !matches!(bits, 8 | 16) {
                return Err("a palette of neither 8 nor 16 bits");
            }
            if *first.get_or_insert(start) != start {
                return Err("palettes that begin at different values");
            }
            let table = match (self::words(header, data), self::words(header, segmented)) {
                (Some(data), _) => plain(&data, entries, bits)?,
                (None, Some(data)) => expanded(&data, entries, bits)?,
                (None, None) => return Err("a palette without data"),
            };
            luts.push(table);
        }
        if luts[1].len() != luts[0].len() || luts[2].len() != luts[0].len() {
            return Err("palettes of different lengths");
        }
        let colours = (0..luts[0].len()).map(|n| [luts[0][n], luts[1][n], luts[2][n]]).collect();
        Ok(Self { first: first.unwrap_or(0), colours })
    }

    /// The colour of a stored value; beyond the ends, that of the first or last entry.
    fn colour(&self, stored: i64) -> [u8; 3] {
        self.colours[(stored - self.first).clamp(0, self.colours.len() as i64 - 1) as usize]
    }
}

/// The values of an element as 16-bit words, whatever VR it was written with.
fn words(header: &InMemDicomObject, tag: Tag) -> Option<Vec<u16>> {
    match header.get(tag)?.value().primitive()? {
        PrimitiveValue::U16(words) => Some(words.to_vec()),
        PrimitiveValue::I16(words) => Some(words.iter().map(|&w| w as u16).collect()),
        // OB and UN: little endian, as the file is in every case where these come.
        PrimitiveValue::U8(bytes) => Some(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()),
        _ => None,
    }
}

/// Entries of 8 bits come two in a word, the first in the low byte, or, from writers who read C.7.6.3.1.5 otherwise, one in a word.
fn plain(data: &[u16], entries: usize, bits: u16) -> Result<Vec<u8>, &'static str> {
    match bits {
        16 if data.len() >= entries => Ok(data[..entries].iter().map(|&w| (w >> 8) as u8).collect()),
        8 if data.len() >= entries => Ok(data[..entries].iter().map(|&w| w as u8).collect()),
        8 if data.len() >= entries.div_ceil(2) => Ok(data.iter().flat_map(|w| w.to_le_bytes()).take(entries).collect()),
        _ => Err("a palette that is shorter than its descriptor says"),
    }
}

/// Segmented data (C.7.9.2): 0 discrete values, 1 a line to a value, 2 a copy of earlier segments.
fn expanded(data: &[u16], entries: usize, bits: u16) -> Result<Vec<u8>, &'static str> {
    // With 8-bit entries everything, opcodes and lengths too, is in bytes.
    let data: Vec<u16> = match bits {
        8 => data.iter().flat_map(|w| w.to_le_bytes()).map(u16::from).collect(),
        _ => data.to_vec(),
    };
    let mut out: Vec<u16> = Vec::new();
    expand(&data, 0, usize::MAX, entries, bits, &mut out, true)?;
    if out.len() != entries {
        return Err("a segmented palette that is not as long as its descriptor says");
    }
    Ok(out.iter().map(|&w| if bits == 16 { (w >> 8) as u8 } else { w as u8 }).collect())
}

/// Expands at most `segments` segments from `at` on; stops when `entries` are there, so that padding is not read as a segment.
fn expand(
    data: &[u16],
    mut at: usize,
    segments: usize,
    entries: usize,
    bits: u16,
    out: &mut Vec<u16>,
    may_copy: bool,
) -> Result<(), &'static str> {
    const BROKEN: &str = "a segmented palette with a broken segment";
    let mut done = 0;
    while done < segments && out.len() < entries && at < data.len() {
        let (opcode, length) = (data[at], usize::from(*data.get(at + 1).ok_or(BROKEN)?));
        match opcode {
            0 => {
                out.extend_from_slice(data.get(at + 2..at + 2 + length).ok_or(BROKEN)?);
                at += 2 + length;
            }
            1 => {
                let (from, to) = (i64::from(*out.last().ok_or(BROKEN)?), i64::from(*data.get(at + 2).ok_or(BROKEN)?));
                let steps = length as i64;
                // Rounded to the nearest.
                out.extend((1..=steps).map(|n| (from + (2 * (to - from) * n + steps).div_euclid(2 * steps)) as u16));
                at += 3;
            }
            2 if may_copy => {
                // The offset counts bytes: two (16-bit data) or four (8-bit data) values, least significant first.
                let (target, size) = if bits == 16 {
                    let offset = u32::from(*data.get(at + 2).ok_or(BROKEN)?) | u32::from(*data.get(at + 3).ok_or(BROKEN)?) << 16;
                    (offset as usize / 2, 4)
                } else {
                    let b = data.get(at + 2..at + 6).ok_or(BROKEN)?;
                    (b.iter().rev().fold(0usize, |offset, &byte| offset << 8 | usize::from(byte)), 6)
                };
                expand(data, target, length, entries, bits, out, false)?;
                at += size;
            }
            _ => return Err(BROKEN),
        }
        if out.len() > entries {
            return Err("a segmented palette that is longer than its descriptor says");
        }
        done += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ybr_of_the_primary_colours() {
        // PS3.3 C.7.6.3.1.2: Y = .2990R + .5870G + .1140B and so on, rounded, for full-range white, black, red, green, blue.
        let check = |ybr: [u8; 3], rgb: [u8; 3]| {
            let found = rgb_of_full(ybr);
            assert!(found.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 1), "{ybr:?}: {found:?}, not {rgb:?}");
        };
        check([255, 128, 128], [255, 255, 255]);
        check([0, 128, 128], [0, 0, 0]);
        check([76, 85, 255], [254, 0, 0]);
        check([150, 44, 21], [0, 255, 1]);
        check([29, 255, 107], [0, 0, 254]);
        assert_eq!(rgb_of_partial([235, 128, 128]), [255, 255, 255]);
        assert_eq!(rgb_of_partial([16, 128, 128]), [0, 0, 0]);
    }

    #[test]
    fn planes_and_pairs_become_pixels() {
        assert_eq!(interleaved(&[1, 2, 3, 4, 5, 6], 1), [1, 3, 5, 2, 4, 6]);
        assert_eq!(interleaved(&[1, 0, 2, 0, 3, 0], 2), [1, 0, 2, 0, 3, 0]);
        assert_eq!(full_resolution(&[10, 20, 1, 2], 1), [10, 1, 2, 20, 1, 2]);
    }

    #[test]
    fn segmented_palettes_are_expanded() {
        // C.7.9.2.4-like: 2 discrete values, a line of 4 to 0xFF00, the first segment again.
        let data = [0, 2, 0, 0x8000, 1, 4, 0xC000, 2, 1, 0, 0];
        assert_eq!(expanded(&data, 8, 16), Ok(vec![0, 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0, 0x80]));
        assert!(expanded(&data, 9, 16).is_err());
        assert!(expanded(&[2, 1, 0, 0], 4, 16).is_err(), "a copy of itself");
        assert!(expanded(&[1, 4, 7], 4, 16).is_err(), "a line from nowhere");
    }
}
