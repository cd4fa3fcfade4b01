//! Compressed pixel data to samples, one frame at a time (PS3.5 8.2 and annexes A.4 and G).
//!
//! The code stream's own header is compared with the attributes before a decoder sees it: a decoder sizes its memory by the one and
//! the caller by the other, and an image of other rows and columns in the right number of bytes would be sheared without a sign of it.

mod bits;
mod j2k;
mod jpeg;
mod jpeg_2000;
mod jpeg_dct;
mod jpeg_lossless;
mod jpeg_ls;
mod jpeg_xl;
mod rle;

pub use rle::rle_frame;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use dicom::dictionary_std::uids;
use dicom::encoding::TransferSyntaxIndex;
use dicom::transfer_syntax::TransferSyntaxRegistry;
use flate2::read::DeflateDecoder;

use super::DatasetError;
use super::colour::{self, Photometric};

/// Frames larger than this are decoded only from streams that are not absurdly short for them.
const PLAUSIBLE_BYTES: u64 = 64 << 20;
/// How many times larger than its stream a frame beyond [`PLAUSIBLE_BYTES`] may be. Blank 16-bit images reach about 500 as JPEG
/// lossless and more in the other codecs, but no scanner makes blank images of this size.
const PLAUSIBLE_RATIO: u64 = 1024;
/// The largest frame that is decoded.
const MAX_FRAME_BYTES: u64 = 1 << 30;

/// How pixel data is compressed, as far as we decode it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// No compression; `true`: in items all the same (PS3.5 A.4.11).
    Native {
        encapsulated: bool,
    },
    /// Frames as they are uncompressed, each deflated (PS3.5 A.4.13).
    DeflatedFrame,
    Rle,
    /// JPEG baseline, extended and progressive: lossy, 8 or 12 bits.
    JpegDct,
    JpegLossless,
    JpegLs,
    Jpeg2000,
    JpegXl,
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
            "1.2.840.10008.1.2.8.1" => Ok(Self::DeflatedFrame),
            uids::RLE_LOSSLESS => Ok(Self::Rle),
            // .53 and .55 (progressive) are retired, and lie in archives.
            "1.2.840.10008.1.2.4.50" | "1.2.840.10008.1.2.4.51" | "1.2.840.10008.1.2.4.53" | "1.2.840.10008.1.2.4.55" => Ok(Self::JpegDct),
            "1.2.840.10008.1.2.4.57" | "1.2.840.10008.1.2.4.70" => Ok(Self::JpegLossless),
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => Ok(Self::JpegLs),
            "1.2.840.10008.1.2.4.90"
            | "1.2.840.10008.1.2.4.91"
            | "1.2.840.10008.1.2.4.201"
            | "1.2.840.10008.1.2.4.202"
            | "1.2.840.10008.1.2.4.203" => Ok(Self::Jpeg2000),
            // .111 is a JPEG file in JPEG XL's clothes; its pixels come out like any other's.
            "1.2.840.10008.1.2.4.110" | "1.2.840.10008.1.2.4.111" | "1.2.840.10008.1.2.4.112" => Ok(Self::JpegXl),
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
            Self::DeflatedFrame => "deflated",
            Self::Rle => "RLE",
            Self::JpegDct => "JPEG",
            Self::JpegLossless => "JPEG lossless",
            Self::JpegLs => "JPEG-LS",
            Self::Jpeg2000 => "JPEG 2000",
            Self::JpegXl => "JPEG XL",
        }
    }
}

/// Whether pixel data in this transfer syntax is decoded.
pub fn is_decodable(transfer_syntax_uid: &str) -> bool {
    Codec::of(transfer_syntax_uid).is_ok()
}

/// What the attributes say of one frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameFormat<'a> {
    pub(super) rows: u16,
    pub(super) columns: u16,
    /// Samples per Pixel: 1 or 3.
    pub(super) samples: u16,
    /// 1, 8, 16 or 32.
    pub(super) bits_allocated: u16,
    pub(super) bits_stored: u16,
    pub(super) signed: bool,
    /// Planar Configuration 1: colour by plane. Matters for native, deflated and no other frames.
    pub(super) planar: bool,
    /// Photometric Interpretation.
    pub(super) photometric: &'a str,
    pub(super) transfer_syntax_uid: &'a str,
    pub(super) path: &'a Path,
}

impl FrameFormat<'_> {
    fn pixels(&self) -> usize {
        usize::from(self.rows) * usize::from(self.columns)
    }

    /// Samples in a whole frame.
    fn count(&self) -> usize {
        self.pixels() * usize::from(self.samples)
    }

    /// Bytes of a sample in [`Samples`].
    pub(super) fn bytes_per_sample(&self) -> usize {
        usize::from(self.bits_allocated.div_ceil(8))
    }
}

/// Samples of one frame, little endian, pixel by pixel, row by row (colour interleaved: R G B R G B), every component in full resolution.
pub(super) struct Samples {
    /// Rows * Columns * Samples per Pixel of `bytes_per_sample`.
    pub(super) bytes: Vec<u8>,
    /// As Bits Allocated says: 1, 2 or 4, and 1 where 1 bit is allocated (each then 0 or 1). Bits above Bits Stored hold the sign of
    /// what a signed stream says, zeros or dirt: mask and extend.
    pub(super) bytes_per_sample: usize,
    /// What the samples are now: a decoder may have turned YBR into RGB.
    pub(super) photometric: Photometric,
}

/// Decodes one frame (its fragments joined).
///
/// # Errors
/// `Unsupported` by name; `CodeStream` where the stream describes another image than the attributes; `PixelLength`, `Decode` where it is
/// damaged; `TooLarge` where a short stream claims a large image.
pub(super) fn decode(codec: Codec, stream: &[u8], format: &FrameFormat<'_>) -> Result<Samples, DatasetError> {
    let unsupported = |what: String| DatasetError::Unsupported { what, path: format.path.into() };
    let photometric = Photometric::of(format.photometric)
        .ok_or_else(|| unsupported("a photometric interpretation that is not in PS3.3 C.7.6.3.1.2 is".into()))?;
    if !matches!(format.samples, 1 | 3) {
        return Err(unsupported(format!("{} samples a pixel are", format.samples)));
    }
    if !matches!(format.bits_allocated, 1 | 8 | 16 | 32) {
        return Err(unsupported(format!("{} bits allocated are", format.bits_allocated)));
    }
    let bytes = (format.count() * format.bytes_per_sample()) as u64;
    let most = match codec {
        Codec::Native { .. } => MAX_FRAME_BYTES,
        _ => MAX_FRAME_BYTES.min(PLAUSIBLE_BYTES.max((stream.len() as u64).saturating_mul(PLAUSIBLE_RATIO))),
    };
    if bytes > most {
        return Err(DatasetError::TooLarge { what: "a frame", bytes, limit: most, path: format.path.into() });
    }
    // A decoder that panics on a damaged stream ends this image only.
    let outcome = catch_unwind(AssertUnwindSafe(|| match codec {
        Codec::Native { .. } => native(stream, format).map(Ok),
        Codec::DeflatedFrame => {
            // Rows and Columns bound what is inflated; one byte more shows that they are wrong.
            let mut inflated = Vec::new();
            let read = DeflateDecoder::new(stream).take(colour::native_bytes(format, photometric) as u64 + 2).read_to_end(&mut inflated);
            if read.is_err() { Ok(Err(Fault::Damaged)) } else { native(&inflated, format).map(Ok) }
        }
        Codec::Rle => Ok(rle::decode(stream, format).map(|bytes| samples(bytes, format, photometric))),
        Codec::JpegDct => Ok(jpeg_dct::decode(stream, format, photometric)),
        Codec::JpegLossless => Ok(jpeg_lossless::decode(stream, format).map(|s| pack(&s, format, photometric))),
        Codec::JpegLs => Ok(jpeg_ls::decode(stream, format).map(|s| pack(&s, format, photometric))),
        Codec::Jpeg2000 => Ok(jpeg_2000::decode(stream, format, photometric)),
        Codec::JpegXl => Ok(jpeg_xl::decode(stream, format, photometric)),
    }));
    match outcome.unwrap_or(Ok(Err(Fault::Damaged)))? {
        Ok(samples) if samples.bytes.len() as u64 == bytes => Ok(samples),
        Ok(_) | Err(Fault::Damaged) => Err(DatasetError::Decode { codec: codec.name(), path: format.path.into() }),
        Err(Fault::OtherImage(info)) => Err(DatasetError::CodeStream {
            codec: codec.name(),
            found_rows: info.rows,
            found_columns: info.columns,
            components: info.components,
            precision: info.precision,
            rows: format.rows.into(),
            columns: format.columns.into(),
            samples: format.samples,
            bits_allocated: format.bits_allocated,
            path: format.path.into(),
        }),
        Err(Fault::Unsupported(what)) => Err(unsupported(what)),
    }
}

/// A frame that is not compressed, little endian as in the file, to samples: colour by plane is interleaved, subsampled chroma repeated,
/// single bits unpacked (PS3.5 8.1.1, 8.2 and PS3.3 C.7.6.3.1.2).
///
/// # Errors
/// `PixelLength` where `bytes` is neither as long as the frame nor one byte of padding longer.
pub(super) fn native(bytes: &[u8], format: &FrameFormat<'_>) -> Result<Samples, DatasetError> {
    let unsupported = |what: &str| DatasetError::Unsupported { what: what.into(), path: format.path.into() };
    let photometric = Photometric::of(format.photometric)
        .ok_or_else(|| unsupported("a photometric interpretation that is not in PS3.3 C.7.6.3.1.2 is"))?;
    // 4:2:0 and pairs that straddle rows have no layout that anybody agreed on.
    let halved = format.samples == 3 && photometric.is_subsampled();
    if photometric == Photometric::YbrPartial420 || halved && (format.planar || !format.columns.is_multiple_of(2)) {
        return Err(unsupported("uncompressed 4:2:0, planar 4:2:2 or 4:2:2 of odd columns is"));
    }
    let expected = colour::native_bytes(format, photometric);
    if bytes.len() != expected && bytes.len() != expected + expected % 2 {
        return Err(DatasetError::PixelLength {
            expected: expected as u64,
            found: bytes.len() as u64,
            rows: format.rows.into(),
            columns: format.columns.into(),
            frames: 1,
            path: format.path.into(),
        });
    }
    let bytes = &bytes[..expected];
    let unpacked = if format.bits_allocated == 1 {
        (0..format.count()).map(|n| bytes[n / 8] >> (n % 8) & 1).collect()
    } else if format.samples == 1 {
        bytes.to_vec()
    } else if halved {
        colour::full_resolution(bytes, format.bytes_per_sample())
    } else if format.planar {
        colour::interleaved(bytes, format.bytes_per_sample())
    } else {
        bytes.to_vec()
    };
    Ok(samples(unpacked, format, photometric.in_full_resolution()))
}

/// Why a stream did not become samples.
enum Fault {
    /// It ends early or breaks its standard.
    Damaged,
    /// It is an image of another kind than the attributes say.
    OtherImage(StreamInfo),
    /// Right by its standard, but not decoded here.
    Unsupported(String),
}

/// What a code stream says of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StreamInfo {
    rows: u32,
    columns: u32,
    components: u32,
    precision: u32,
}

impl StreamInfo {
    /// Holds the stream against the attributes.
    fn check(self, format: &FrameFormat<'_>) -> Result<(), Fault> {
        let same_size = self.rows == u32::from(format.rows) && self.columns == u32::from(format.columns);
        let fits = (1..=u32::from(format.bits_allocated)).contains(&self.precision);
        if same_size && fits && self.components == u32::from(format.samples) { Ok(()) } else { Err(Fault::OtherImage(self)) }
    }
}

fn samples(bytes: Vec<u8>, format: &FrameFormat<'_>, photometric: Photometric) -> Samples {
    Samples { bytes, bytes_per_sample: format.bytes_per_sample(), photometric }
}

/// The largest and smallest value that a lossy decoder may give: an overshoot beyond Bits Stored would come round the other end when it
/// is masked. A stream that is coded without the sign that the attributes speak of holds bit patterns, which have no overshoot.
fn limits(format: &FrameFormat<'_>, stream_signed: bool) -> Option<(i32, i32)> {
    let bits = u32::from(format.bits_stored);
    if format.signed != stream_signed || !(1..=30).contains(&bits) {
        return None;
    }
    Some(if format.signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) })
}

/// Samples in as many bytes as Bits Allocated says.
fn pack(values: &[u16], format: &FrameFormat<'_>, photometric: Photometric) -> Samples {
    let bytes = match format.bytes_per_sample() {
        1 => values.iter().map(|&v| v as u8).collect(),
        2 => {
            let mut bytes = vec![0; values.len() * 2];
            bytes.chunks_exact_mut(2).zip(values).for_each(|(b, v)| b.copy_from_slice(&v.to_le_bytes()));
            bytes
        }
        _ => values.iter().flat_map(|&v| u32::from(v).to_le_bytes()).collect(),
    };
    samples(bytes, format, photometric)
}
