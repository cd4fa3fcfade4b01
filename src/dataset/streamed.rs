//! Data sets whose frames are made while they are written, so that neither pixel data nor its description is in memory as a whole.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use dicom::core::value::Value;
use dicom::core::{Tag, VR};
use dicom::object::FileMetaTableBuilder;
use dicom::object::InMemDicomObject;
use dicom::transfer_syntax::entries::{EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN};
use rayon::prelude::*;

use super::build::{innermost, unwritten};
use super::{IMPLEMENTATION_VERSION_NAME, Item, WriteError, implementation_class_uid, tags, write_atomically};
use crate::codes::transfer_syntax;

/// Pieces that are made at a time, in parallel, while those before them are written.
const BATCH: usize = 32;
/// The longest value of an element; one more stands for "undefined".
const MAX_VALUE_BYTES: u64 = 0xFFFF_FFFE;

/// A data set to be written; frames, where it has any, are made while it is.
pub struct Writable<'a> {
    attributes: Item,
    frames: Option<FrameGroups<'a>>,
    pixels: Option<Pixels<'a>>,
}

struct FrameGroups<'a> {
    count: usize,
    of: Box<dyn Fn(usize) -> Item + Send + Sync + 'a>,
}

enum Pixels<'a> {
    Native { tag: Tag, vr: VR, bytes: u64, pieces: Pieces<'a> },
    Rle(Pieces<'a>),
}

struct Pieces<'a> {
    count: usize,
    of: Box<dyn Fn(usize) -> Vec<u8> + Send + Sync + 'a>,
}

impl From<Item> for Writable<'_> {
    fn from(attributes: Item) -> Self {
        Self { attributes, frames: None, pixels: None }
    }
}

impl<'a> Writable<'a> {
    /// With a Per-Frame Functional Groups Sequence of `count` items; `of(n)` makes that of the frame with index n, in ASCII.
    #[must_use]
    pub fn frame_groups(mut self, count: usize, of: impl Fn(usize) -> Item + Send + Sync + 'a) -> Self {
        self.frames = Some(FrameGroups { count, of: Box::new(of) });
        self
    }

    /// With Pixel Data (OB) of `bytes` bytes in `count` pieces, one after the other; an odd number is padded.
    #[must_use]
    pub fn pixel_data(self, bytes: u64, count: usize, of: impl Fn(usize) -> Vec<u8> + Send + Sync + 'a) -> Self {
        self.native(tags::PIXEL_DATA, VR::OB, bytes, count, of)
    }

    /// With Float Pixel Data, little endian.
    #[must_use]
    pub fn float_pixel_data(self, bytes: u64, count: usize, of: impl Fn(usize) -> Vec<u8> + Send + Sync + 'a) -> Self {
        self.native(tags::FLOAT_PIXEL_DATA, VR::OF, bytes, count, of)
    }

    fn native(mut self, tag: Tag, vr: VR, bytes: u64, count: usize, of: impl Fn(usize) -> Vec<u8> + Send + Sync + 'a) -> Self {
        self.pixels = Some(Pixels::Native { tag, vr, bytes, pieces: Pieces { count, of: Box::new(of) } });
        self
    }

    /// With `count` frames in RLE Lossless: `of(n)` is the code of the frame with index n, of an even number of bytes.
    #[must_use]
    pub fn rle(mut self, count: usize, of: impl Fn(usize) -> Vec<u8> + Send + Sync + 'a) -> Self {
        self.pixels = Some(Pixels::Rle(Pieces { count, of: Box::new(of) }));
        self
    }
}

/// Writes `object` as a file, to a temporary file beside `path`, synced, then renamed.
///
/// It is in Explicit VR Little Endian, or RLE Lossless. Only where a value is longer than the 65 534 bytes that its length can say there
/// (contours, which are decimal strings, can be) it is in Implicit VR Little Endian, which every program must read (PS3.5 10.1).
///
/// SOP Class and Instance UID of the file meta group are those of the data set. What stood at `path` is replaced.
///
/// # Errors
/// [`WriteError`]; nothing is left behind then, and what stood at `path` still stands.
///
/// # Panics
/// Where the pieces of its pixel data are not as many bytes as it says: a broken promise of the caller.
pub fn write_object<'a>(path: &Path, object: impl Into<Writable<'a>>) -> Result<(), WriteError> {
    let Writable { attributes, frames, pixels } = object.into();
    let attributes = attributes.into_inner();
    // What is streamed is in Explicit VR.
    let implicit = frames.is_none() && pixels.is_none() && has_long_value(&attributes);
    let syntax = match &pixels {
        Some(Pixels::Rle(_)) => transfer_syntax::RLE_LOSSLESS,
        _ if implicit => transfer_syntax::IMPLICIT_LITTLE,
        _ => transfer_syntax::EXPLICIT_LITTLE,
    };
    let encoding = if implicit { IMPLICIT_VR_LITTLE_ENDIAN.erased() } else { EXPLICIT_VR_LITTLE_ENDIAN.erased() };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .implementation_class_uid(implementation_class_uid())
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME);
    let object = attributes.with_meta(meta).map_err(|err| WriteError::Encode(err.to_string()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    write_atomically(path, |file| {
        let mut writer = Writer { file, name };
        writer.bytes(&[0; 128])?;
        writer.bytes(b"DICM")?;
        object.write_meta(&mut *writer.file).map_err(|err| unwritten(&err, &writer.name))?;
        object.write_dataset_with_ts(&mut *writer.file, &encoding).map_err(|err| unwritten(&err, &writer.name))?;
        if let Some(frames) = frames {
            let last = object.iter().last().map(|element| element.header().tag);
            assert!(last < Some(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE), "what is streamed comes last in the data set");
            writer.frame_groups(&frames)?;
        }
        match pixels {
            None => Ok(()),
            Some(Pixels::Native { tag, vr, bytes, pieces }) => writer.native(tag, vr, bytes, &pieces),
            Some(Pixels::Rle(pieces)) => writer.rle(&pieces),
        }
    })
}

/// Whether a value is longer than Explicit VR has room for in its 16 bits of length (PS3.5 7.1.2), which few VRs have more than.
fn has_long_value(object: &InMemDicomObject) -> bool {
    const MOST: usize = 65_534;
    let is_long =
        |vr| matches!(vr, VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::SV | VR::UC | VR::UN | VR::UR | VR::UT | VR::UV);
    object.iter().any(|element| match element.value() {
        Value::Primitive(value) => !is_long(element.vr()) && value.calculate_byte_len() > MOST,
        Value::Sequence(sequence) => sequence.items().iter().any(has_long_value),
        Value::PixelSequence(_) => false,
    })
}

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = u32::MAX;

struct Writer<'f, 'g> {
    file: &'f mut BufWriter<&'g mut std::fs::File>,
    name: String,
}

impl Writer<'_, '_> {
    fn failed(&self, source: io::Error) -> WriteError {
        WriteError::Io { file: self.name.clone(), source }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    /// Header of an element with a long length (PS3.5 7.1.2).
    fn element(&mut self, tag: Tag, vr: VR, length: u32) -> Result<(), WriteError> {
        self.bytes(&[tag.0.to_le_bytes(), tag.1.to_le_bytes(), vr.to_bytes(), [0, 0]].concat())?;
        self.bytes(&length.to_le_bytes())
    }

    /// Header of an item, or a delimiter.
    fn item(&mut self, tag: Tag, length: u32) -> Result<(), WriteError> {
        self.bytes(&[tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat())?;
        self.bytes(&length.to_le_bytes())
    }

    fn frame_groups(&mut self, frames: &FrameGroups<'_>) -> Result<(), WriteError> {
        self.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, VR::SQ, UNDEFINED)?;
        let encoded = |n: usize| -> Result<Vec<u8>, WriteError> {
            let mut bytes = Vec::with_capacity(1024);
            let item = (frames.of)(n).into_inner();
            item.write_dataset_with_ts(&mut bytes, &EXPLICIT_VR_LITTLE_ENDIAN.erased())
                .map_err(|err| WriteError::Encode(innermost(&err)))?;
            Ok(bytes)
        };
        in_batches(frames.count, encoded, |item| {
            let item = item?;
            self.item(ITEM, item.len() as u32)?;
            self.bytes(&item)
        })?;
        self.item(SEQUENCE_END, 0)
    }

    fn native(&mut self, tag: Tag, vr: VR, bytes: u64, pieces: &Pieces<'_>) -> Result<(), WriteError> {
        let padded = bytes.next_multiple_of(2);
        self.element(tag, vr, length_of(padded)?)?;
        let mut written = 0;
        in_batches(pieces.count, &pieces.of, |piece: Vec<u8>| {
            written += piece.len() as u64;
            self.bytes(&piece)
        })?;
        assert_eq!(written, bytes, "pixel data is as long as it says");
        self.bytes(&[0][..(padded - bytes) as usize])
    }

    /// A fragment a frame after a basic offset table (PS3.5 A.4), which is filled in at the end.
    fn rle(&mut self, frames: &Pieces<'_>) -> Result<(), WriteError> {
        self.element(tags::PIXEL_DATA, VR::OB, UNDEFINED)?;
        let table_bytes = length_of(frames.count as u64 * 4)?;
        self.item(ITEM, table_bytes)?;
        let table_at = self.file.stream_position().map_err(|source| self.failed(source))?;
        self.bytes(&vec![0; table_bytes as usize])?;
        let (mut table, mut offset) = (Vec::with_capacity(table_bytes as usize), 0);
        in_batches(frames.count, &frames.of, |frame: Vec<u8>| {
            assert!(frame.len().is_multiple_of(2), "a fragment has an even number of bytes");
            table.extend(length_of(offset)?.to_le_bytes());
            offset += 8 + frame.len() as u64;
            self.item(ITEM, length_of(frame.len() as u64)?)?;
            self.bytes(&frame)
        })?;
        self.item(SEQUENCE_END, 0)?;
        self.file.seek(SeekFrom::Start(table_at)).map_err(|source| self.failed(source))?;
        self.bytes(&table)?;
        self.file.seek(SeekFrom::End(0)).map_err(|source| self.failed(source))?;
        Ok(())
    }
}

/// A length or offset as elements have it.
fn length_of(bytes: u64) -> Result<u32, WriteError> {
    if bytes > MAX_VALUE_BYTES { Err(WriteError::TooLarge { bytes }) } else { Ok(bytes as u32) }
}

/// Makes `count` pieces and takes them in their order; a batch is made while the one before is taken.
fn in_batches<T: Send>(
    count: usize,
    make: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(T) -> Result<(), WriteError> + Send,
) -> Result<(), WriteError> {
    let batch = |from: usize| -> Vec<T> { (from..count.min(from + BATCH)).into_par_iter().map(&make).collect() };
    let (mut ready, mut from) = (batch(0), BATCH);
    while !ready.is_empty() {
        let (taken, next) = rayon::join(|| ready.into_iter().try_for_each(&mut take), || batch(from));
        taken?;
        (ready, from) = (next, from + BATCH);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dataset::{Attributes, Frame, Instance, Place, read_frames};

    fn image(frames: u32, columns: u32) -> Item {
        Item::new()
            .text(tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.66.7")
            .text(tags::SOP_INSTANCE_UID, "1.2.3")
            .text(tags::MODALITY, "SEG")
            .integer(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
            .integer(tags::NUMBER_OF_FRAMES, frames)
            .integer(tags::ROWS, 1)
            .integer(tags::COLUMNS, columns)
            .integer(tags::BITS_ALLOCATED, 8)
            .integer(tags::BITS_STORED, 8)
            .integer(tags::HIGH_BIT, 7)
            .integer(tags::PIXEL_REPRESENTATION, 0)
    }

    fn groups(n: usize) -> Item {
        let at = [n as f64 + 0.5, 0.0, -1.0].map(|v| v.to_string());
        Item::new().sequence(tags::PLANE_POSITION_SEQUENCE, [Item::new().decimals_of(tags::IMAGE_POSITION_PATIENT, &at)])
    }

    fn read(path: &Path, columns: usize) -> Vec<i16> {
        let instance = Arc::new(Instance::read(path).expect("readable"));
        let frames = Frame::all_of(&instance).expect("described");
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(frame.position_mm, Some([n as f64 + 0.5, 0.0, -1.0]));
            let alone = instance.attributes.frame_groups(n).expect("an item");
            assert!(alone.has(tags::PLANE_POSITION_SEQUENCE));
        }
        assert_eq!(instance.attributes.frame_count(), frames.len());
        let bare = instance.attributes.object_without_frames(path).expect("parsable");
        assert!(bare.has(tags::ROWS) && !bare.has(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE));
        let mut stored = vec![0; columns * frames.len()];
        let places = stored.chunks_exact_mut(columns).zip(1..);
        let mut places: Vec<_> = places.map(|(stored, n)| (n, Place::Int16 { stored, minus_32768: false })).collect();
        read_frames(&instance, &mut places).expect("decodable");
        stored
    }

    /// More pieces than a batch has, of an odd number of bytes in all.
    #[test]
    fn frames_come_back_in_their_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.dcm");
        let count = 3 * BATCH + 5;
        let pixels = |n: usize| [n as u8, 7, 255 - n as u8];
        let expected: Vec<i16> = (0..count).flat_map(pixels).map(i16::from).collect();
        let object = || Writable::from(image(count as u32, 3)).frame_groups(count, groups);
        write_object(&path, object().pixel_data(count as u64 * 3, count, |n| pixels(n).to_vec())).expect("writable");
        assert_eq!(read(&path, 3), expected);
        assert!(std::fs::metadata(&path).expect("there").len().is_multiple_of(2));
        write_object(&path, object().rle(count, |n| crate::dataset::rle_frame(&pixels(n), 3))).expect("writable");
        assert_eq!(read(&path, 3), expected);
        let floats = object().float_pixel_data(count as u64 * 12, count, |n| vec![n as u8; 12]);
        write_object(&path, floats).expect("writable");
        assert!(Instance::read(&path).expect("readable").pixels.float);
    }

    /// A value that Explicit VR has no room for is read again.
    #[test]
    fn long_values_are_written_as_implicit_vr() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (points, syntax) in [(100, transfer_syntax::EXPLICIT_LITTLE), (10_000, transfer_syntax::IMPLICIT_LITTLE)] {
            let contour = Item::new().four_digits(tags::CONTOUR_DATA, (0..3 * points).map(f64::from));
            let item = Item::new().sequence(tags::CONTOUR_SEQUENCE, [contour]);
            let object = item.text(tags::SOP_CLASS_UID, "1.2").text(tags::SOP_INSTANCE_UID, "1.2.3");
            let path = folder.path().join("x.dcm");
            write_object(&path, object).expect("writes");
            let read = dicom::object::open_file(&path).expect("reads");
            assert_eq!(read.meta().transfer_syntax(), syntax);
            let contour = &crate::dataset::items(&read, tags::CONTOUR_SEQUENCE)[0];
            let numbers = contour.element(tags::CONTOUR_DATA).expect("there").to_multi_float64().expect("numbers");
            assert_eq!((numbers.len(), numbers[3 * points as usize - 1]), (3 * points as usize, f64::from(3 * points - 1)));
        }
    }

    #[test]
    fn what_no_element_holds_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.dcm");
        let object = Writable::from(image(1, 1)).pixel_data(1 << 32, 0, |_| Vec::new());
        assert!(matches!(write_object(&path, object), Err(WriteError::TooLarge { bytes: 0x1_0000_0000 })));
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing is left behind");
    }
}
