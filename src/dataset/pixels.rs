//! Stored values: from the file into their place in a volume.

use std::io::Read;
use std::path::Path;

use dicom::dictionary_std::uids;
use sha2::{Digest, Sha256};

use super::codec::{Codec, FrameFormat, decode};
use super::instance::open_regular;
use super::layout::{Layout, PixelData, Source, io_error};
use super::{DatasetError, Instance};
use crate::codes::sha256_hex;

/// The largest file of a single image that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// How the stored values of a series become `i16`; the same for all its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// As they are.
    Same,
    /// Less 32768: unsigned values of 16 bits. The intercept grows by 32768 slopes.
    Minus32768,
}

impl StoredAs {
    /// What fits all `instances`; `None` when unsigned 16-bit and signed values are mixed, which no one shift brings into `i16`.
    pub fn for_series<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Option<Self> {
        let (mut wide, mut signed) = (false, false);
        for instance in instances {
            wide |= !instance.pixels.signed && instance.pixels.bits_stored > 15;
            signed |= instance.pixels.signed;
        }
        match (wide, signed) {
            (false, _) => Some(Self::Same),
            (true, false) => Some(Self::Minus32768),
            (true, true) => None,
        }
    }

    /// What has to be added to a stored value to undo the shift.
    pub fn offset(self) -> f64 {
        match self {
            Self::Same => 0.0,
            Self::Minus32768 => 32768.0,
        }
    }
}

/// Whether [`read_stored`] reads this kind of pixel data, judged by the header.
///
/// # Errors
/// No pixel data, a contradiction in the pixel description, or what is not supported yet, by name.
pub fn check_decodable(instance: &Instance) -> Result<(), DatasetError> {
    let path = || instance.path.clone();
    let unsupported = |what: String| Err(DatasetError::Unsupported { what, path: path() });
    let p = &instance.pixels;
    if !instance.has_pixel_data {
        return Err(DatasetError::NoPixelData { path: path() });
    }
    if p.float {
        return unsupported("floating point pixel data is".into());
    }
    if p.samples != 1 {
        return unsupported(format!("{} samples a pixel (colour) are", p.samples));
    }
    if !matches!(p.photometric.as_str(), "MONOCHROME1" | "MONOCHROME2") {
        return unsupported("a photometric interpretation other than MONOCHROME1 and MONOCHROME2 is".into());
    }
    if instance.frames != 1 {
        return unsupported(format!("{} frames in one instance are", instance.frames));
    }
    if let Err(what) = Codec::of(&instance.transfer_syntax_uid) {
        return unsupported(format!("{what} is"));
    }
    if matches!(p.bits_allocated, 1 | 24 | 32 | 64) {
        return unsupported(format!("{} bits allocated are", p.bits_allocated));
    }
    let size_fits = (1..=0xFFFF).contains(&instance.rows) && (1..=0xFFFF).contains(&instance.columns);
    let bits_fit =
        matches!(p.bits_allocated, 8 | 16) && p.bits_stored >= 1 && p.high_bit < p.bits_allocated && p.bits_stored <= p.high_bit + 1;
    if !size_fits || !bits_fit {
        return Err(DatasetError::PixelDescription {
            rows: instance.rows,
            columns: instance.columns,
            bits_allocated: p.bits_allocated,
            bits_stored: p.bits_stored,
            high_bit: p.high_bit,
            path: path(),
        });
    }
    Ok(())
}

/// Reads the stored values of `instance` into `stored`, row by row, and gives the SHA-256 of the whole file in hexadecimal.
///
/// Bits outside Bits Stored (overlays, dirt) are masked and signed values are extended from the High Bit (PS3.5 8.1.1).
///
/// # Errors
/// What [`check_decodable`] refuses; pixel data that is missing, cut off, of another size than Rows and Columns, or damaged; a file
/// that changed since its header was read. `stored` then holds nothing of use.
///
/// # Panics
/// Where `stored` has another length than Rows times Columns: a broken promise of the caller.
pub fn read_stored(instance: &Instance, stored_as: StoredAs, stored: &mut [i16]) -> Result<String, DatasetError> {
    check_decodable(instance)?;
    let path = instance.path.as_path();
    assert_eq!(stored.len(), instance.rows as usize * instance.columns as usize, "one value a pixel");
    let bytes = read_file(path)?;
    let sha256 = sha256_hex(&bytes);
    let (again, mut layout) = Instance::parse(Source::of_bytes(bytes), path)?;
    if again.header_sha256 != instance.header_sha256 || again.transfer_syntax_uid != instance.transfer_syntax_uid {
        return Err(DatasetError::Changed { path: path.into() });
    }
    let codec = Codec::of(&instance.transfer_syntax_uid)
        .map_err(|what| DatasetError::Unsupported { what: format!("{what} is"), path: path.into() })?;
    let encapsulated = codec != Codec::Native { encapsulated: false };
    match (layout.pixels, encapsulated) {
        (PixelData::Native { offset, length, word }, false) => {
            let range = native_range(instance, &mut layout, offset, length)?;
            let big = layout.encoding.native_uid() == "1.2.840.10008.1.2.2";
            let order = Order { bytes_per_sample: usize::from(instance.pixels.bits_allocated / 8), big, word };
            place(&layout.source.bytes()[range], order, instance, stored_as, stored);
        }
        (PixelData::Encapsulated { offset }, true) => {
            let fragments = layout.fragments(offset, path)?;
            let bytes = layout.source.bytes();
            // One frame: all fragments belong to it. The common single fragment is not copied.
            let joined;
            let stream = match fragments.as_slice() {
                [one] => &bytes[one.clone()],
                many => {
                    joined = many.iter().flat_map(|f| &bytes[f.clone()]).copied().collect::<Vec<u8>>();
                    &joined
                }
            };
            decode_stream(codec, stream, instance, stored_as, stored)?;
        }
        (PixelData::None, _) => return Err(DatasetError::NoPixelData { path: path.into() }),
        (PixelData::Float, _) => {
            return Err(DatasetError::Unsupported { what: "floating point pixel data is".into(), path: path.into() });
        }
        (PixelData::Native { offset, .. } | PixelData::Encapsulated { offset }, _) => {
            let what = "pixel data and transfer syntax disagree about being encapsulated";
            return Err(DatasetError::Malformed { what, offset: offset as u64, path: path.into() });
        }
    }
    Ok(sha256)
}

/// Whether two files hold the same data set, byte for byte; preamble and file meta group may differ.
///
/// # Errors
/// As for [`Instance::read`].
pub fn same_content(a: &Path, b: &Path) -> Result<bool, DatasetError> {
    let data_set = |path: &Path| {
        let layout = Layout::of(Source::of_bytes(read_file(path)?), path)?;
        // Of a deflated data set only the header has been inflated, so such files must be equal as a whole.
        let deflated = layout.meta.transfer_syntax_uid == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
        let digest = (!deflated).then(|| Sha256::digest(&layout.source.bytes()[layout.header.start..]));
        Ok::<_, DatasetError>((digest, layout.meta.transfer_syntax_uid))
    };
    if read_file(a)? == read_file(b)? {
        return Ok(true);
    }
    let (a, b) = (data_set(a)?, data_set(b)?);
    Ok(a.0.is_some() && a == b)
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, DatasetError> {
    let file = open_regular(path)?;
    let bytes = file.metadata().map_err(|e| io_error(&e, path))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(DatasetError::TooLarge { what: "a file", bytes, limit: MAX_FILE_BYTES, path: path.into() });
    }
    // A file that grows meanwhile is read up to the bound, and then has another header or length.
    let mut content = Vec::with_capacity(bytes as usize);
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).map_err(|e| io_error(&e, path))?;
    Ok(content)
}

/// Where the values of native pixel data lie. Pixel Data may end in one byte of padding and no more: a longer one says that Rows or
/// Columns are wrong.
fn native_range(instance: &Instance, layout: &mut Layout<'_>, offset: usize, length: u32) -> Result<std::ops::Range<usize>, DatasetError> {
    let expected = expected_bytes(instance);
    let length = u64::from(length);
    if length != expected && length != expected + expected % 2 {
        return Err(pixel_length(instance, length));
    }
    let end = offset + expected as usize;
    if !layout.source.fill_to(end).map_err(|e| io_error(&e, &instance.path))? {
        return Err(pixel_length(instance, layout.source.bytes().len().saturating_sub(offset) as u64));
    }
    Ok(offset..end)
}

fn expected_bytes(instance: &Instance) -> u64 {
    u64::from(instance.rows) * u64::from(instance.columns) * u64::from(instance.pixels.bits_allocated / 8)
}

fn pixel_length(instance: &Instance, found: u64) -> DatasetError {
    let (rows, columns) = (instance.rows, instance.columns);
    DatasetError::PixelLength { expected: expected_bytes(instance), found, rows, columns, frames: 1, path: instance.path.clone() }
}

fn decode_stream(codec: Codec, stream: &[u8], instance: &Instance, stored_as: StoredAs, stored: &mut [i16]) -> Result<(), DatasetError> {
    let bits_allocated = instance.pixels.bits_allocated;
    let mut order = Order { bytes_per_sample: usize::from(bits_allocated / 8), big: false, word: false };
    if codec == (Codec::Native { encapsulated: true }) {
        let expected = expected_bytes(instance);
        let found = stream.len() as u64;
        if found != expected && found != expected + expected % 2 {
            return Err(pixel_length(instance, found));
        }
        place(&stream[..expected as usize], order, instance, stored_as, stored);
        return Ok(());
    }
    let samples = decode(codec, stream, &format_of(instance))?;
    order.bytes_per_sample = samples.bytes_per_sample;
    place(&samples.bytes, order, instance, stored_as, stored);
    Ok(())
}

fn format_of(instance: &Instance) -> FrameFormat<'_> {
    let p = &instance.pixels;
    FrameFormat {
        rows: instance.rows as u16,
        columns: instance.columns as u16,
        samples: p.samples,
        bits_allocated: p.bits_allocated,
        bits_stored: p.bits_stored,
        signed: p.signed,
        planar: false,
        photometric: &p.photometric,
        transfer_syntax_uid: &instance.transfer_syntax_uid,
        path: &instance.path,
    }
}

/// How samples lie in bytes.
#[derive(Clone, Copy)]
struct Order {
    bytes_per_sample: usize,
    big: bool,
    /// Bytes come in words of two (VR OW), which big endian swaps even for 8-bit samples (PS3.5 annex A.3).
    word: bool,
}

/// Puts samples in their place: masked to Bits Stored, extended from the sign bit, shifted for the series.
fn place(bytes: &[u8], order: Order, instance: &Instance, stored_as: StoredAs, stored: &mut [i16]) {
    let p = &instance.pixels;
    // Bits above the High Bit fall out on the left, bits below Bits Stored on the right.
    let left = 15 - u32::from(p.high_bit);
    let right = 16 - u32::from(p.bits_stored);
    let minus = if stored_as == StoredAs::Minus32768 { 0x8000 } else { 0 };
    let signed = p.signed;
    let value = move |sample: u16| -> i16 {
        let top = sample << left;
        if signed { (top as i16) >> right } else { ((top >> right) ^ minus) as i16 }
    };
    if order.bytes_per_sample == 1 {
        let swap = usize::from(order.big && order.word);
        let last = bytes.len() - 1;
        for (n, out) in stored.iter_mut().enumerate() {
            *out = value(u16::from(bytes[(n ^ swap).min(last)]));
        }
    } else if order.big {
        stored.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(out, b)| *out = value(u16::from_be_bytes([b[0], b[1]])));
    } else {
        stored.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(out, b)| *out = value(u16::from_le_bytes([b[0], b[1]])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::PixelFormat;
    use crate::dataset::testing::instance;

    fn check(format: (u16, u16, u16, bool), stored_as: StoredAs, samples: &[u16], expected: &[i16]) {
        let (bits_allocated, bits_stored, high_bit, signed) = format;
        let mut i = instance();
        i.pixels = PixelFormat { bits_allocated, bits_stored, high_bit, signed, ..i.pixels };
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let mut out = vec![0; samples.len()];
        place(&bytes, Order { bytes_per_sample: 2, big: false, word: true }, &i, stored_as, &mut out);
        assert_eq!(out, expected, "{format:?}");
        let swapped: Vec<u8> = samples.iter().flat_map(|s| s.to_be_bytes()).collect();
        place(&swapped, Order { bytes_per_sample: 2, big: true, word: true }, &i, stored_as, &mut out);
        assert_eq!(out, expected, "{format:?}, big endian");
    }

    #[test]
    fn dirt_is_masked_and_signs_are_extended() {
        check((16, 12, 11, false), StoredAs::Same, &[0xF0F0, 0xFFFF, 0x0001], &[0x00F0, 4095, 1]);
        check((16, 12, 11, true), StoredAs::Same, &[0x0F0F, 0xFFFF, 0x07FF, 0xF800], &[-241, -1, 2047, -2048]);
        check((16, 16, 15, true), StoredAs::Same, &[0x8000, 0x7FFF], &[i16::MIN, i16::MAX]);
        check((16, 12, 15, false), StoredAs::Same, &[0xFFF7, 0x0010], &[4095, 1]);
    }

    #[test]
    fn sixteen_unsigned_bits_keep_every_value() {
        check((16, 16, 15, false), StoredAs::Minus32768, &[0, 32768, 65535], &[i16::MIN, 0, i16::MAX]);
    }

    #[test]
    fn one_shift_for_a_series() {
        let with = |bits_stored, signed| {
            let mut i = instance();
            i.pixels.bits_stored = bits_stored;
            i.pixels.signed = signed;
            i
        };
        let check = |series: &[Instance], expected| assert_eq!(StoredAs::for_series(series), expected);
        check(&[with(12, false), with(16, true)], Some(StoredAs::Same));
        check(&[with(12, false), with(16, false)], Some(StoredAs::Minus32768));
        check(&[with(16, false), with(16, true)], None);
    }

    #[test]
    fn bytes_in_big_endian_words_are_swapped_back() {
        let mut i = instance();
        i.pixels = PixelFormat { bits_allocated: 8, bits_stored: 8, high_bit: 7, ..i.pixels };
        let mut out = [0; 4];
        place(&[2, 1, 4, 3], Order { bytes_per_sample: 1, big: true, word: true }, &i, StoredAs::Same, &mut out);
        assert_eq!(out, [1, 2, 3, 4]);
    }
}
