//! Stored values: from the file into their place in a volume.
//!
//! Uncompressed values are read straight into the volume and put right there: no second copy of a frame exists. Everything is hashed
//! on its way, so that the bytes that were hashed are the voxels that are analysed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dicom::dictionary_std::uids;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::codec::{Codec, FrameFormat, Samples, decode, native};
use super::colour::{Palette, Photometric, to_rgb};
use super::instance::open_regular;
use super::layout::{Encoding, Layout, PixelData, Source, io_error};
use super::sample_bits::{Bits, floats, swapped};
use super::{DatasetError, Instance};
use crate::codes::hex;

/// The largest file that is read as a stream of uncompressed frames.
const MAX_FILE_BYTES: u64 = 1 << 36;
/// The largest file that is taken into memory as a whole: compressed, deflated.
const MAX_WHOLE_BYTES: u64 = 1 << 31;
/// The most that may follow the pixel data of a file.
const MAX_REST_BYTES: u64 = 64 << 20;
/// Bytes that are only hashed are read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

/// How the stored values of a series are kept; the same for all its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredAs {
    /// `i16`, as they are.
    Same,
    /// `i16`, less 32768: unsigned values of 16 bits. The intercept grows by 32768 slopes.
    Minus32768,
    /// `f32`: floating point pixel data, integers of more than 16 bits, or signed beside unsigned 16-bit ones.
    Float,
    /// Red, green, blue, 8 bits each.
    Rgb,
}

impl StoredAs {
    /// What holds every value of all `instances`; of colour and grey ones together it is colour.
    pub fn for_series<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Self {
        let (mut wide, mut signed, mut float, mut colour) = (false, false, false, false);
        for instance in instances {
            let p = &instance.pixels;
            colour |= p.is_colour();
            float |= p.float || p.bits_stored > 16;
            wide |= !p.signed && p.bits_stored > 15;
            signed |= p.signed;
        }
        match (colour, float || (wide && signed), wide) {
            (true, _, _) => Self::Rgb,
            (_, true, _) => Self::Float,
            (_, _, true) => Self::Minus32768,
            _ => Self::Same,
        }
    }

    /// The same, where values go through a table: only floats hold what comes out of one.
    #[must_use]
    pub fn tabled(self, tabled: bool) -> Self {
        if tabled && self != Self::Rgb { Self::Float } else { self }
    }

    /// What has to be added to a kept value to have the stored one.
    pub fn offset(self) -> f64 {
        if self == Self::Minus32768 { 32768.0 } else { 0.0 }
    }
}

/// The SHA-256 of a file whose frames were read.
///
/// Hashing costs more than reading. Where the values of an uncompressed file lie in the volume just as they lie in the file, their
/// bytes are hashed later, out of the volume: what is hashed then is what is analysed, by construction.
#[derive(Debug, Clone)]
pub enum ContentHash {
    /// In hexadecimal.
    Known(String),
    /// Of the bytes before the frames, to be gone on with all frames in the order of the file and `after`.
    Deferred {
        /// What was hashed so far.
        before: Sha256,
        /// The bytes after the last frame.
        after: Vec<u8>,
    },
}

impl ContentHash {
    /// The hash in hexadecimal; `frames` are the places of all frames, in the order of the file.
    pub fn finish<'v>(&self, frames: impl Iterator<Item = &'v [i16]>) -> String {
        match self {
            Self::Known(hash) => hash.clone(),
            Self::Deferred { before, after } => {
                let mut sha256 = before.clone();
                frames.for_each(|frame| sha256.update(bytemuck::cast_slice::<i16, u8>(frame)));
                sha256.update(after);
                hex(&sha256.finalize())
            }
        }
    }
}

/// Where one frame goes, row by row.
#[derive(Debug)]
pub enum Place<'a> {
    /// For [`StoredAs::Same`] and, with the shift, [`StoredAs::Minus32768`].
    Int16 {
        /// One value a pixel.
        stored: &'a mut [i16],
        /// Whether values are kept less 32768.
        minus_32768: bool,
    },
    /// For [`StoredAs::Float`].
    Float32(&'a mut [f32]),
    /// For [`StoredAs::Rgb`].
    Rgb(&'a mut [[u8; 3]]),
}

impl Place<'_> {
    fn pixels(&self) -> usize {
        match self {
            Self::Int16 { stored, .. } => stored.len(),
            Self::Float32(stored) => stored.len(),
            Self::Rgb(stored) => stored.len(),
        }
    }

    fn int16(&mut self) -> Option<&mut [i16]> {
        match self {
            Self::Int16 { stored, .. } => Some(stored),
            Self::Float32(_) | Self::Rgb(_) => None,
        }
    }

    /// # Panics
    /// Where it is no place for 16-bit integers: all places of one call are of one kind.
    fn int16_bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.int16().expect("all places are of one kind"))
    }
}

/// Whether [`read_frames`] reads this kind of pixel data, judged by the header.
///
/// # Errors
/// No pixel data, a contradiction in the pixel description, or what is not supported, by name.
pub fn check_decodable(instance: &Instance) -> Result<(), DatasetError> {
    let path = || instance.path.clone();
    let unsupported = |what: String| Err(DatasetError::Unsupported { what, path: path() });
    let p = &instance.pixels;
    if instance.frames == 0 {
        return Err(DatasetError::FrameCount { frames: 0, groups: 0, path: path() });
    }
    if !instance.has_pixel_data {
        return Err(DatasetError::NoPixelData { path: path() });
    }
    let known = match p.samples {
        1 => matches!(p.photometric.as_str(), "MONOCHROME1" | "MONOCHROME2" | "PALETTE COLOR") || p.float,
        3 => Photometric::of(&p.photometric).is_some(),
        samples => return unsupported(format!("{samples} samples a pixel are")),
    };
    if !known {
        return unsupported("this photometric interpretation is".into());
    }
    if let Err(what) = Codec::of(&instance.transfer_syntax_uid) {
        return unsupported(format!("{what} is"));
    }
    let size_fits = (1..=0xFFFF).contains(&instance.rows) && (1..=0xFFFF).contains(&instance.columns);
    let bits_fit = p.float
        || (matches!(p.bits_allocated, 1 | 8 | 16 | 32)
            && p.bits_stored >= 1
            && p.high_bit < p.bits_allocated
            && p.bits_stored <= p.high_bit + 1);
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
    if p.is_colour() && !matches!(p.bits_allocated, 8 | 16) {
        return unsupported(format!("colour of {} bits allocated is", p.bits_allocated));
    }
    match instance.place.pixels {
        PixelData::Native { .. } | PixelData::Float { .. } => Native::of(instance).map(|_| ()),
        PixelData::None | PixelData::Encapsulated { .. } => Ok(()),
    }
}

/// Where in its file the pixel data of an uncompressed image lies, as they are stored.
///
/// # Errors
/// Where there is none, or it is compressed.
pub fn native_pixels(instance: &Instance) -> Result<std::ops::Range<u64>, DatasetError> {
    match instance.place.pixels {
        PixelData::Native { offset, length, .. } | PixelData::Float { offset, length, .. } if !instance.place.deflated => {
            Ok(offset as u64..offset as u64 + u64::from(length))
        }
        _ => Err(DatasetError::NoPixelData { path: instance.path.clone() }),
    }
}

/// Reads frames of `instance` into their places and gives the SHA-256 of the whole file.
///
/// Frames are numbered from 1; `places` is sorted by them, none twice. Bits outside Bits Stored (overlays, dirt) are masked and signed
/// values are extended from the High Bit (PS3.5 8.1.1).
///
/// # Errors
/// What [`check_decodable`] refuses; pixel data that is missing, cut off, of another size than Rows, Columns and Number of Frames say,
/// or damaged; a file that changed since its header was read. The places then hold nothing of use.
///
/// # Panics
/// Where a place has another size than Rows times Columns or `places` is not in order: broken promises of the caller.
pub fn read_frames(instance: &Instance, places: &mut [(u32, Place<'_>)]) -> Result<ContentHash, DatasetError> {
    check_decodable(instance)?;
    assert!(places.is_sorted_by(|a, b| a.0 < b.0), "places are in the order of frames");
    let pixels = instance.rows as usize * instance.columns as usize;
    assert!(
        places.iter().all(|(number, place)| *number >= 1 && *number <= instance.frames && place.pixels() == pixels),
        "one value a pixel"
    );
    let path = instance.path.as_path();
    let codec = Codec::of(&instance.transfer_syntax_uid)
        .map_err(|what| DatasetError::Unsupported { what: format!("{what} is"), path: path.into() })?;
    let encapsulated = codec != Codec::Native { encapsulated: false };
    let place = instance.place;
    // Where frames begin within a byte or, in big endian words of two samples, with the second.
    let straddling =
        instance.pixels.bits_allocated == 1 || (place.encoding == Encoding::ExplicitBig && instance.pixels.bits_allocated == 8);
    let whole = place.deflated || straddling;
    match (place.pixels, encapsulated) {
        (PixelData::None, _) => Err(DatasetError::NoPixelData { path: path.into() }),
        (PixelData::Native { .. }, false) | (PixelData::Float { .. }, _) if !whole => stream_frames(instance, places),
        (PixelData::Native { .. }, false) | (PixelData::Float { .. }, _) => {
            let (bytes, sha256) = read_whole(instance)?;
            let layout = same_layout(instance, bytes)?;
            native_frames(instance, layout, places)?;
            Ok(ContentHash::Known(sha256))
        }
        (PixelData::Encapsulated { .. }, true) => {
            let (bytes, sha256) = read_whole(instance)?;
            let layout = same_layout(instance, bytes)?;
            encapsulated_frames(codec, instance, layout, places)?;
            Ok(ContentHash::Known(sha256))
        }
        (PixelData::Native { offset, .. } | PixelData::Encapsulated { offset }, _) => {
            let what = "pixel data and transfer syntax disagree about being encapsulated";
            Err(DatasetError::Malformed { what, offset: offset as u64, path: path.into() })
        }
    }
}

/// Reads uncompressed frames in the order of the file, each straight into its place.
fn stream_frames(instance: &Instance, places: &mut [(u32, Place<'_>)]) -> Result<ContentHash, DatasetError> {
    let path = instance.path.as_path();
    let mut file = Hashing { file: open_regular(path)?, sha256: Sha256::new(), read: 0 };
    let bytes = file.file.metadata().map_err(|e| io_error(&e, path))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(DatasetError::TooLarge { what: "a file", bytes, limit: MAX_FILE_BYTES, path: path.into() });
    }
    let native = Native::of(instance)?;
    let mut scratch = vec![0; native.offset];
    let changed = |_| DatasetError::Changed { path: path.into() };
    file.fill(&mut scratch).map_err(changed)?;
    if file.sha256.clone().finalize().as_slice() != instance.place.prefix_sha256 {
        return Err(DatasetError::Changed { path: path.into() });
    }
    // What is missing at the end of the file is found by its first read.
    let cut_off = |file: &Hashing, e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => native.wrong_length(instance, file.read.saturating_sub(native.offset as u64)),
        _ => io_error(&e, path),
    };
    let in_place = native.bytes_per_sample == 2 && places.len() == instance.frames as usize;
    if let (true, Some((_, Place::Int16 { minus_32768, .. }))) = (in_place, places.first()) {
        let bits = Bits::of(instance, *minus_32768);
        for (_, place) in places.iter_mut() {
            let result = file.read_only(place.int16_bytes());
            result.map_err(|e| cut_off(&file, e))?;
        }
        let mut frames = places.iter_mut().filter_map(|(_, place)| place.int16());
        if cfg!(target_endian = "little") && !native.big && frames.all(|frame| bits.is_right(frame)) {
            let after = file.rest().map_err(|e| io_error(&e, path))?;
            native.check_surplus(&after, instance)?;
            return Ok(ContentHash::Deferred { before: file.sha256, after });
        }
        for (_, place) in places.iter_mut() {
            file.sha256.update(place.int16_bytes());
            place.int16().into_iter().for_each(|frame| bits.put_right(frame, native.big));
        }
        return file.finish(native, instance);
    }
    let frame_bytes = native.frame_bits / 8;
    let mut places = places.iter_mut().peekable();
    let palette = palette_of(instance)?;
    for number in 1..=instance.frames {
        match places.next_if(|(n, _)| *n == number) {
            Some((_, place)) => {
                scratch.resize(frame_bytes, 0);
                let result = file.fill(&mut scratch);
                result.map_err(|e| cut_off(&file, e))?;
                native.convert(&scratch, instance, palette.as_ref(), place)?;
            }
            None => {
                let result = file.skip(frame_bytes as u64);
                result.map_err(|e| cut_off(&file, e))?;
            }
        }
    }
    file.finish(native, instance)
}

/// A file that is hashed as it is read.
struct Hashing {
    file: File,
    sha256: Sha256,
    read: u64,
}

impl Hashing {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.read_only(bytes)?;
        self.sha256.update(bytes);
        Ok(())
    }

    /// Reads without hashing.
    fn read_only(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read(&mut bytes[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.read += n as u64;
                    filled += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The rest without hashing, which must be little: padding, signatures.
    fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.file.by_ref().take(MAX_REST_BYTES + 1).read_to_end(&mut rest)?;
        if rest.len() as u64 > MAX_REST_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(rest) }
    }

    /// Hashes what follows the frames.
    fn finish(mut self, native: Native, instance: &Instance) -> Result<ContentHash, DatasetError> {
        let after = self.rest().map_err(|e| io_error(&e, &instance.path))?;
        native.check_surplus(&after, instance)?;
        self.sha256.update(&after);
        Ok(ContentHash::Known(hex(&self.sha256.finalize())))
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES.min(bytes as usize)];
        while bytes > 0 {
            let n = bytes.min(piece.len() as u64) as usize;
            self.fill(&mut piece[..n])?;
            bytes -= n as u64;
        }
        Ok(())
    }
}

/// The whole file, and its SHA-256.
pub(super) fn read_whole(instance: &Instance) -> Result<(Vec<u8>, String), DatasetError> {
    let bytes = read_file(&instance.path)?;
    let sha256 = crate::codes::sha256_hex(&bytes);
    Ok((bytes, sha256))
}

/// The layout of a file that was read again, when it is still the file whose header was read.
pub(super) fn same_layout(instance: &Instance, bytes: Vec<u8>) -> Result<Layout<'static>, DatasetError> {
    let path = instance.path.as_path();
    let layout = Layout::of(Source::of_bytes(bytes), path)?;
    let prefix = layout.pixels.offset().unwrap_or(layout.header.end);
    if Sha256::digest(&layout.source.bytes()[..prefix]).as_slice() != instance.place.prefix_sha256 || layout.pixels != instance.place.pixels
    {
        return Err(DatasetError::Changed { path: path.into() });
    }
    Ok(layout)
}

/// Frames of uncompressed pixel data in memory.
fn native_frames(instance: &Instance, mut layout: Layout<'_>, places: &mut [(u32, Place<'_>)]) -> Result<(), DatasetError> {
    let native = Native::of(instance)?;
    let padded = native.total_bytes + usize::from(native.big && native.word) * (native.total_bytes % 2);
    let end = native.offset + padded;
    if !layout.source.fill_to(end).map_err(|e| io_error(&e, &instance.path))? {
        return Err(native.wrong_length(instance, layout.source.bytes().len().saturating_sub(native.offset) as u64));
    }
    layout.source.fill_to(end + native.surplus_bytes).map_err(|e| io_error(&e, &instance.path))?;
    native.check_surplus(layout.source.bytes().get(end..).unwrap_or_default(), instance)?;
    let turned;
    let bytes = match &layout.source.bytes()[native.offset..end] {
        bytes if native.big && (native.bytes_per_sample > 1 || native.word) => {
            turned = swapped(bytes, native.bytes_per_sample.max(2));
            &turned
        }
        bytes => bytes,
    };
    let native = Native { big: false, ..native };
    let palette = palette_of(instance)?;
    places.par_iter_mut().try_for_each(|(number, place)| {
        let first_bit = (*number as usize - 1) * native.frame_bits;
        if instance.pixels.bits_allocated != 1 {
            return native.convert(&bytes[first_bit / 8..][..native.frame_bits / 8], instance, palette.as_ref(), place);
        }
        // Single bits, packed over the borders of frames, the first pixel lowest (PS3.5 8.1.1).
        let samples: Vec<u8> = (first_bit..first_bit + native.frame_bits).map(|bit| bytes[bit / 8] >> (bit % 8) & 1).collect();
        native.convert(&samples, instance, None, place)
    })
}

/// Frames of encapsulated pixel data in memory.
fn encapsulated_frames(
    codec: Codec,
    instance: &Instance,
    mut layout: Layout<'_>,
    places: &mut [(u32, Place<'_>)],
) -> Result<(), DatasetError> {
    let path = instance.path.as_path();
    let offset = instance.place.pixels.offset().expect("pixel data is encapsulated");
    let items = layout.items(offset, path)?;
    let bytes = layout.source.bytes();
    let frames = super::fragments::frames(bytes, &items, instance)?;
    let format = format_of(instance);
    let palette = palette_of(instance)?;
    places.par_iter_mut().try_for_each(|(number, place)| {
        // The common single fragment is not copied.
        let joined;
        let stream = match &items[frames[*number as usize - 1].clone()] {
            [one] => &bytes[one.clone()],
            many => {
                joined = many.iter().flat_map(|f| &bytes[f.clone()]).copied().collect::<Vec<u8>>();
                &joined
            }
        };
        put(&decode(codec, stream, &format)?, instance, palette.as_ref(), place)
    })
}

/// Samples of one frame, in full resolution and little endian, to their place.
fn put(samples: &Samples, instance: &Instance, palette: Option<&Palette>, place: &mut Place<'_>) -> Result<(), DatasetError> {
    match place {
        Place::Int16 { stored, minus_32768 } => Bits::of(instance, *minus_32768).place(&samples.bytes, samples.bytes_per_sample, stored),
        Place::Float32(stored) => Bits::of(instance, false).place_float(&samples.bytes, samples.bytes_per_sample, stored),
        Place::Rgb(stored) => stored.copy_from_slice(&to_rgb(samples, &format_of(instance), palette)?),
    }
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
        planar: p.planar,
        photometric: &p.photometric,
        transfer_syntax_uid: &instance.transfer_syntax_uid,
        path: &instance.path,
    }
}

fn palette_of(instance: &Instance) -> Result<Option<Palette>, DatasetError> {
    if instance.pixels.photometric != "PALETTE COLOR" {
        return Ok(None);
    }
    let palette = Palette::of(instance.header()?).unwrap_or(Err("PALETTE COLOR without a palette"));
    palette.map(Some).map_err(|what| DatasetError::Malformed { what, offset: 0, path: instance.path.clone() })
}

/// How uncompressed samples lie in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Native {
    pub(super) offset: usize,
    /// Bits of one frame.
    pub(super) frame_bits: usize,
    /// Bytes of all frames, without padding.
    total_bytes: usize,
    /// Bytes of pixel data beyond the frames.
    surplus_bytes: usize,
    bytes_per_sample: usize,
    float: bool,
    big: bool,
    /// Bytes come in words of two (VR OW), which big endian swaps even for 8-bit samples (PS3.5 annex A.3).
    word: bool,
}

impl Native {
    /// Of the pixel data of a whole file, whose stated length has to be that of its frames, or more by what
    /// [`Native::check_surplus`] accepts.
    pub(super) fn of(instance: &Instance) -> Result<Self, DatasetError> {
        let mut native = Self::of_frame(instance);
        let (offset, length) = match instance.place.pixels {
            PixelData::Native { offset, length, word } => {
                native.word = word;
                (offset, length)
            }
            PixelData::Float { offset, length, bytes_per_value } => {
                (native.bytes_per_sample, native.float) = (bytes_per_value, true);
                native.frame_bits = instance.rows as usize * instance.columns as usize * bytes_per_value * 8;
                (offset, length)
            }
            PixelData::None | PixelData::Encapsulated { .. } => unreachable!("the caller has looked"),
        };
        native.offset = offset;
        native.big = instance.place.encoding == Encoding::ExplicitBig;
        let total = native.frame_bits as u128 * u128::from(instance.frames);
        let expected = total.div_ceil(8);
        native.total_bytes = usize::try_from(expected).unwrap_or(usize::MAX);
        if u128::from(length) < expected {
            return Err(native.wrong_length(instance, length.into()));
        }
        native.surplus_bytes = length as usize - native.total_bytes;
        Ok(native)
    }

    /// Pixel Data may end in one byte of padding. More is accepted where it is all zeros, as writers pad to whole blocks; anything else
    /// says that Rows, Columns or Number of Frames are wrong. `after` are the bytes of the file after the last frame.
    fn check_surplus(self, after: &[u8], instance: &Instance) -> Result<(), DatasetError> {
        let surplus = after.get(..self.surplus_bytes).unwrap_or(after);
        if surplus.len() > 1 && surplus.iter().any(|&b| b != 0) {
            return Err(self.wrong_length(instance, (self.total_bytes + self.surplus_bytes) as u64));
        }
        Ok(())
    }

    /// Of one frame in little endian.
    fn of_frame(instance: &Instance) -> Self {
        let p = &instance.pixels;
        // 4:2:2 keeps one of two chrominance samples (PS3.3 C.7.6.3.1.2).
        let halved = p.samples == 3 && Photometric::of(&p.photometric).is_some_and(Photometric::is_subsampled);
        let samples = if halved { 2 } else { usize::from(p.samples) };
        let frame_bits = instance.rows as usize * instance.columns as usize * samples * usize::from(p.bits_allocated);
        Self {
            offset: 0,
            frame_bits,
            total_bytes: frame_bits.div_ceil(8),
            surplus_bytes: 0,
            bytes_per_sample: usize::from(p.bits_allocated / 8).max(1),
            float: false,
            big: false,
            word: false,
        }
    }

    fn wrong_length(&self, instance: &Instance, found: u64) -> DatasetError {
        let (rows, columns, frames) = (instance.rows, instance.columns, instance.frames);
        DatasetError::PixelLength { expected: self.total_bytes as u64, found, rows, columns, frames, path: instance.path.clone() }
    }

    /// One frame's bytes to its place.
    fn convert(&self, bytes: &[u8], instance: &Instance, palette: Option<&Palette>, place: &mut Place<'_>) -> Result<(), DatasetError> {
        // Big endian is turned round once, whatever follows.
        let turned;
        let bytes = if self.big && (self.bytes_per_sample > 1 || self.word) {
            turned = swapped(bytes, self.bytes_per_sample.max(2));
            &turned
        } else {
            bytes
        };
        match place {
            Place::Int16 { stored, minus_32768 } => Bits::of(instance, *minus_32768).place(bytes, self.bytes_per_sample, stored),
            Place::Float32(stored) if self.float => floats(bytes, self.bytes_per_sample, stored),
            Place::Float32(stored) => Bits::of(instance, false).place_float(bytes, self.bytes_per_sample, stored),
            Place::Rgb(stored) => stored.copy_from_slice(&to_rgb(&native(bytes, &format_of(instance))?, &format_of(instance), palette)?),
        }
        Ok(())
    }
}

/// Whether two files hold the same data set, byte for byte; preamble and file meta group may differ.
///
/// # Errors
/// As for [`Instance::read`].
pub fn same_content(a: &Path, b: &Path) -> Result<bool, DatasetError> {
    let data_set = |bytes: Vec<u8>, path: &Path| {
        let layout = Layout::of(Source::of_bytes(bytes), path)?;
        // Of a deflated data set only the header has been inflated, so such files must be equal as a whole.
        let deflated = layout.meta.transfer_syntax_uid == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
        let digest = (!deflated).then(|| Sha256::digest(&layout.source.bytes()[layout.header.start..]));
        Ok::<_, DatasetError>((digest, layout.meta.transfer_syntax_uid))
    };
    let (bytes_a, bytes_b) = (read_file(a)?, read_file(b)?);
    if bytes_a == bytes_b {
        return Ok(true);
    }
    let (a, b) = (data_set(bytes_a, a)?, data_set(bytes_b, b)?);
    Ok(a.0.is_some() && a == b)
}

fn read_file(path: &Path) -> Result<Vec<u8>, DatasetError> {
    let file = open_regular(path)?;
    let bytes = file.metadata().map_err(|e| io_error(&e, path))?.len();
    if bytes > MAX_WHOLE_BYTES {
        return Err(DatasetError::TooLarge { what: "a file of compressed images", bytes, limit: MAX_WHOLE_BYTES, path: path.into() });
    }
    // A file that grows meanwhile is read up to the bound, and then has another header or length.
    let mut content = Vec::with_capacity(bytes as usize);
    file.take(MAX_WHOLE_BYTES).read_to_end(&mut content).map_err(|e| io_error(&e, path))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::testing::instance;

    #[test]
    fn one_kind_for_a_series() {
        let with = |bits_stored, signed| {
            let mut i = instance();
            (i.pixels.bits_stored, i.pixels.signed) = (bits_stored, signed);
            i
        };
        let check = |series: &[Instance], expected| assert_eq!(StoredAs::for_series(series), expected);
        check(&[with(12, false), with(16, true)], StoredAs::Same);
        check(&[with(12, false), with(16, false)], StoredAs::Minus32768);
        check(&[with(16, false), with(16, true)], StoredAs::Float);
        check(&[with(12, false), with(24, false)], StoredAs::Float);
    }
}
