//! Compressed single-sample images to samples (PS3.5 annexes A.4 and G).
//!
//! The code stream's own header is compared with the attributes before a decoder sees it: a decoder sizes its memory by the one and
//! the caller by the other, and an image of other rows and columns in the right number of bytes would be sheared without a sign of it.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use dicom::dictionary_std::uids;
use dicom::encoding::TransferSyntaxIndex;
use dicom::encoding::adapters::{PixelDataObject, RawPixelData};
use dicom::transfer_syntax::TransferSyntaxRegistry;

use super::DatasetError;

/// The largest number of JPEG 2000 tiles in one image: the decoder keeps about 6 KB for each before it reads any.
const MAX_TILES: u64 = 1024;

/// How pixel data is compressed, as far as we decode it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// No compression; `true`: in items all the same (PS3.5 A.4.11).
    Native {
        encapsulated: bool,
    },
    Rle,
    JpegBaseline,
    JpegLossless,
    Jpeg2000,
}

impl Codec {
    /// The codec of a transfer syntax, or the name of what is not supported.
    pub(super) fn of(transfer_syntax_uid: &str) -> Result<Self, String> {
        match transfer_syntax_uid {
            uids::IMPLICIT_VR_LITTLE_ENDIAN
            | uids::EXPLICIT_VR_LITTLE_ENDIAN
            | uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            | "1.2.840.10008.1.2.2" => Ok(Self::Native { encapsulated: false }),
            "1.2.840.10008.1.2.1.98" => Ok(Self::Native { encapsulated: true }),
            uids::RLE_LOSSLESS => Ok(Self::Rle),
            "1.2.840.10008.1.2.4.50" => Ok(Self::JpegBaseline),
            "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => Ok(Self::JpegLossless),
            "1.2.840.10008.1.2.4.90"
            | "1.2.840.10008.1.2.4.91"
            | "1.2.840.10008.1.2.4.201"
            | "1.2.840.10008.1.2.4.202"
            | "1.2.840.10008.1.2.4.203" => Ok(Self::Jpeg2000),
            other => Err(match TransferSyntaxRegistry.get(other) {
                Some(ts) => format!("transfer syntax {} ({})", ts.name(), ts.uid()),
                // Opening the file has checked that this is a UID.
                None => format!("transfer syntax {other}"),
            }),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native { .. } => "uncompressed",
            Self::Rle => "RLE",
            Self::JpegBaseline => "JPEG baseline",
            Self::JpegLossless => "JPEG lossless",
            Self::Jpeg2000 => "JPEG 2000",
        }
    }
}

/// What the attributes say of the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) bits_allocated: u16,
    pub(super) transfer_syntax_uid: &'a str,
    pub(super) path: &'a Path,
}

/// Samples of one image, little endian; one byte each when `bytes_per_sample` is 1.
pub(super) struct Samples {
    pub(super) bytes: Vec<u8>,
    pub(super) bytes_per_sample: usize,
}

/// Decodes the fragments of one frame, joined.
pub(super) fn decode(codec: Codec, stream: &[u8], expected: Expected<'_>) -> Result<Samples, DatasetError> {
    let failed = || DatasetError::Decode { codec: codec.name(), path: expected.path.into() };
    if codec == Codec::Rle {
        let bytes_per_sample = usize::from(expected.bits_allocated / 8);
        let samples = usize::from(expected.rows) * usize::from(expected.columns);
        let bytes = rle(stream, samples, bytes_per_sample).ok_or_else(failed)?;
        return Ok(Samples { bytes, bytes_per_sample });
    }
    let info = match codec {
        Codec::Jpeg2000 => jpeg_2000_info(stream),
        Codec::JpegBaseline => jpeg_info(stream, &[0xC0, 0xC1]),
        _ => jpeg_info(stream, &[0xC3]),
    }
    .ok_or_else(failed)?;
    let same_size = info.rows == u32::from(expected.rows) && info.columns == u32::from(expected.columns);
    if !same_size || info.components != 1 || !(1..=u32::from(expected.bits_allocated)).contains(&info.precision) {
        return Err(DatasetError::CodeStream {
            codec: codec.name(),
            found_rows: info.rows,
            found_columns: info.columns,
            components: info.components,
            precision: info.precision,
            rows: expected.rows.into(),
            columns: expected.columns.into(),
            bits_allocated: expected.bits_allocated,
            path: expected.path.into(),
        });
    }
    // The decoders write as many bytes a sample as the stream needs, whatever Bits Allocated says.
    let bits = if info.precision <= 8 { 8 } else { 16 };
    let frame = Frame { expected, bits, stream };
    let reader = TransferSyntaxRegistry.get(expected.transfer_syntax_uid).and_then(|ts| ts.pixel_data_reader()).ok_or_else(failed)?;
    // A decoder that panics on a damaged stream ends this image only.
    let bytes = catch_unwind(AssertUnwindSafe(|| {
        let mut bytes = Vec::new();
        reader.decode_frame(&frame, 0, &mut bytes).map(|()| bytes)
    }))
    .map_err(|_| failed())?
    .map_err(|_| failed())?;
    Ok(Samples { bytes, bytes_per_sample: usize::from(bits / 8) })
}

/// What a code stream says of its image.
struct StreamInfo {
    rows: u32,
    columns: u32,
    components: u32,
    precision: u32,
}

/// The frame header of a JPEG stream (ISO 10918-1 B.2.2), when it is one of the processes `allowed`.
fn jpeg_info(stream: &[u8], allowed: &[u8]) -> Option<StreamInfo> {
    let mut at = 2;
    if stream.get(..2)? != [0xFF, 0xD8] {
        return None;
    }
    loop {
        let marker = *stream.get(at + 1)?;
        match (stream[at], marker) {
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF) => {
                let s = stream.get(at + 4..at + 10)?;
                let info = StreamInfo {
                    rows: u16::from_be_bytes([s[1], s[2]]).into(),
                    columns: u16::from_be_bytes([s[3], s[4]]).into(),
                    components: s[5].into(),
                    precision: s[0].into(),
                };
                return allowed.contains(&marker).then_some(info);
            }
            (0xFF, 0xDA) => return None,
            (0xFF, _) => at += 2 + usize::from(u16::from_be_bytes([*stream.get(at + 2)?, *stream.get(at + 3)?])),
            _ => return None,
        }
    }
}

/// The SIZ segment of a JPEG 2000 code stream (ISO 15444-1 A.5.1), bare or in a JP2 box.
fn jpeg_2000_info(stream: &[u8]) -> Option<StreamInfo> {
    let start = stream.windows(4).take(4096).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51])?;
    let s = stream.get(start + 6..start + 45)?;
    let u32_at = |at: usize| u32::from_be_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]]);
    let (columns, rows) = (u32_at(2).checked_sub(u32_at(10))?, u32_at(6).checked_sub(u32_at(14))?);
    let (tile_columns, tile_rows) = (u32_at(18), u32_at(22));
    if tile_columns == 0 || tile_rows == 0 {
        return None;
    }
    let tiles = u64::from(columns.div_ceil(tile_columns)) * u64::from(rows.div_ceil(tile_rows));
    let components = u32::from(u16::from_be_bytes([s[34], s[35]]));
    // Subsampled components would have fewer samples than the image has pixels.
    if tiles > MAX_TILES || (components == 1 && s[37..39] != [1, 1]) {
        return None;
    }
    Some(StreamInfo { rows, columns, components, precision: u32::from(s[36] & 0x7F) + 1 })
}

/// RLE Lossless (PS3.5 annex G): one PackBits segment for each byte of a sample, the most significant first. dicom-rs has a decoder,
/// but it takes the number of segments and their offsets on trust, up to 16 GB and a panic.
fn rle(stream: &[u8], samples: usize, bytes_per_sample: usize) -> Option<Vec<u8>> {
    let header = stream.get(..64)?;
    let word = |n: usize| u32::from_le_bytes([header[4 * n], header[4 * n + 1], header[4 * n + 2], header[4 * n + 3]]) as usize;
    if word(0) != bytes_per_sample {
        return None;
    }
    let mut out = vec![0; samples * bytes_per_sample];
    for segment in 0..bytes_per_sample {
        let end = if segment + 1 < bytes_per_sample { word(segment + 2) } else { stream.len() };
        let mut packed = stream.get(word(segment + 1)..end)?;
        let mut places = out.iter_mut().skip(bytes_per_sample - 1 - segment).step_by(bytes_per_sample);
        let mut missing = samples;
        while missing > 0 {
            let (&control, rest) = packed.split_first()?;
            // Bytes beyond the image pad the segment and are dropped.
            let run = match control {
                0..=127 => {
                    let (run, rest) = rest.split_at_checked(usize::from(control) + 1)?;
                    packed = rest;
                    let run = &run[..run.len().min(missing)];
                    places.by_ref().zip(run).for_each(|(place, &byte)| *place = byte);
                    run.len()
                }
                128 => {
                    packed = rest;
                    0
                }
                129.. => {
                    let (&byte, rest) = rest.split_first()?;
                    packed = rest;
                    let run = (257 - usize::from(control)).min(missing);
                    places.by_ref().take(run).for_each(|place| *place = byte);
                    run
                }
            };
            missing -= run;
        }
    }
    Some(out)
}

/// One frame as dicom-rs's decoders ask for it.
struct Frame<'a> {
    expected: Expected<'a>,
    bits: u16,
    stream: &'a [u8],
}

impl PixelDataObject for Frame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.expected.transfer_syntax_uid
    }

    fn rows(&self) -> Option<u16> {
        Some(self.expected.rows)
    }

    fn cols(&self) -> Option<u16> {
        Some(self.expected.columns)
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.bits)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.stream))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData { fragments: vec![self.stream.to_vec()].into(), offset_table: Vec::new().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(segments: &[&[u8]]) -> Vec<u8> {
        let mut words = vec![segments.len() as u32];
        let mut at = 64;
        for s in segments {
            words.push(at);
            at += s.len() as u32;
        }
        words.resize(16, 0);
        words.iter().flat_map(|w| w.to_le_bytes()).chain(segments.iter().flat_map(|s| s.iter().copied())).collect()
    }

    #[test]
    fn rle_joins_most_significant_bytes_first() {
        // PS3.5 G.3.1: 0xFE 0x01 is three times 1; 0x02 a b c three literals; 0x80 nothing.
        let stream = packed(&[&[0xFE, 1], &[0x80, 2, 7, 8, 9]]);
        assert_eq!(rle(&stream, 3, 2), Some(vec![7, 1, 8, 1, 9, 1]));
    }

    #[test]
    fn rle_that_is_short_or_lies_is_refused() {
        assert_eq!(rle(&packed(&[&[0xFE, 1], &[1, 7, 8]]), 3, 2), None, "one sample is missing");
        assert_eq!(rle(&packed(&[&[0xFE, 1]]), 3, 2), None, "one segment is missing");
        let mut far = packed(&[&[0xFE, 1], &[0xFE, 1]]);
        far[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(rle(&far, 3, 2), None, "an offset beyond the end");
        far[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(rle(&far, 3, 2), None, "4 G segments");
    }
}
