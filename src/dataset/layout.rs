//! Where things lie in a DICOM file: file meta group, data set, pixel data (PS3.5 chapter 7, PS3.10 chapter 7).
//!
//! Every length is checked against the bytes that are there, and the nesting against a bound, before dicom-rs parses a header: a
//! length that lies makes it reserve as much memory, and deep nesting would overflow its stack. The walk also finds the pixel data,
//! so that uncompressed values are taken from the file as they lie, and cuts out what dicom-rs refuses (VR UN of undefined length).

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use dicom::core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom::core::{Tag, VR};
use dicom::dictionary_std::{StandardDataDictionary, tags, uids};
use dicom::encoding::{Codec, Endianness, TransferSyntaxIndex};
use dicom::transfer_syntax::TransferSyntaxRegistry;
use flate2::read::DeflateDecoder;

use super::DatasetError;
use crate::codes::is_uid;

/// The largest header that is read: everything before the pixel data, inflated.
const MAX_HEADER_BYTES: usize = 64 << 20;
/// Sequences within sequences. Real objects stay below 15.
const MAX_DEPTH: usize = 32;
const READ_AHEAD: usize = 16 << 10;
const UNDEFINED: u32 = u32::MAX;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// Bytes that are read as far as they are needed.
pub(super) struct Source<'r> {
    reader: Box<dyn Read + 'r>,
    bytes: Vec<u8>,
}

impl<'r> Source<'r> {
    pub(super) fn new(reader: impl Read + 'r) -> Self {
        Self { reader: Box::new(reader), bytes: Vec::new() }
    }

    /// A file that is in memory already.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { reader: Box::new(io::empty()), bytes }
    }

    /// Everything that was read so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads on until `end` bytes are there; `false` when the source ends before. What a file claims reserves nothing.
    pub(super) fn fill_to(&mut self, end: usize) -> io::Result<bool> {
        if end > self.bytes.len() {
            let wanted = (end - self.bytes.len()).max(READ_AHEAD) as u64;
            self.reader.as_mut().take(wanted).read_to_end(&mut self.bytes)?;
        }
        Ok(end <= self.bytes.len())
    }

    /// The same bytes from `start` on, inflated (PS3.5 A.5).
    fn inflated_from(self, start: usize) -> Source<'r> {
        let rest = io::Cursor::new(self.bytes.get(start..).unwrap_or_default().to_vec()).chain(self.reader);
        Source { reader: Box::new(DeflateDecoder::new(rest)), bytes: Vec::new() }
    }
}

/// How a data set is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

impl Encoding {
    /// The uncompressed transfer syntax of this encoding.
    pub(super) fn native_uid(self) -> &'static str {
        match self {
            Self::ImplicitLittle => uids::IMPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitLittle => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::ExplicitBig => "1.2.840.10008.1.2.2",
        }
    }

    pub(super) fn u16(self, b: [u8; 2]) -> u16 {
        if self == Self::ExplicitBig { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }
    }

    pub(super) fn u32(self, b: [u8; 4]) -> u32 {
        if self == Self::ExplicitBig { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) }
    }

    /// # Panics
    /// Where `b` has not 8 bytes: a broken promise of the caller.
    pub(super) fn u64(self, b: &[u8]) -> u64 {
        let b = b.try_into().expect("8 bytes");
        if self == Self::ExplicitBig { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) }
    }
}

/// The file meta group (PS3.10 7.1), as far as it is there.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) sop_class_uid: String,
    pub(super) sop_instance_uid: String,
    pub(super) transfer_syntax_uid: String,
}

/// The pixel data of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PixelData {
    None,
    /// Values as they are, from `offset` on. `word`: VR OW, so that big endian swaps pairs of bytes.
    Native {
        offset: usize,
        length: u32,
        word: bool,
    },
    /// Items from `offset` on (PS3.5 A.4).
    Encapsulated {
        offset: usize,
    },
    /// Float (4 bytes a value) or Double Float Pixel Data from `offset` on (PS3.3 C.7.6.24, C.7.6.25).
    Float {
        offset: usize,
        length: u32,
        bytes_per_value: usize,
    },
}

impl PixelData {
    /// Where the values or items start.
    pub(super) fn offset(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Native { offset, .. } | Self::Encapsulated { offset } | Self::Float { offset, .. } => Some(offset),
        }
    }
}

/// One attribute of a data set: where its value lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) tag: Tag,
    pub(super) vr: VR,
    pub(super) start: u32,
    /// `start` for sequences and values of undefined length, which only a parse opens.
    pub(super) end: u32,
}

/// Where the functional groups of each frame lie; offsets as those of an [`Entry`].
#[derive(Debug, Clone)]
pub(super) struct FrameItems {
    /// The sequence as a whole.
    pub(super) element: Range<usize>,
    /// The elements of each item.
    pub(super) items: Box<[Range<u32>]>,
}

/// Where things lie in one file.
pub(super) struct Layout<'r> {
    /// The file, or the inflated data set; offsets count from its start.
    pub(super) source: Source<'r>,
    pub(super) meta: Meta,
    pub(super) encoding: Encoding,
    /// Whether there was a preamble or a file meta group; without, all of this is a guess.
    pub(super) declared: bool,
    /// The data set before the pixel data.
    pub(super) header: Range<usize>,
    /// Attributes of the data set itself, in the order of the file; offsets count from the start of `header`.
    pub(super) entries: Vec<Entry>,
    /// Top-level elements within `header` that dicom-rs refuses: VR UN of undefined length, texts for sequences; offsets as above.
    pub(super) cuts: Vec<Range<usize>>,
    /// The Per-Frame Functional Groups Sequence, where it can be parsed item by item.
    pub(super) frames: Option<FrameItems>,
    pub(super) pixels: PixelData,
    /// Whether the data set was inflated.
    pub(super) deflated: bool,
}

impl<'r> Layout<'r> {
    /// Walks through a file up to its pixel data.
    pub(super) fn of(mut source: Source<'r>, path: &Path) -> Result<Self, DatasetError> {
        let (meta, start, declared) = read_meta(&mut source, path)?;
        let ts = meta.transfer_syntax_uid.as_str();
        let mut start = start;
        let encoding = match ts {
            "" => sniff(source.bytes.get(start..).unwrap_or_default())
                .ok_or_else(|| malformed("no transfer syntax is named, and the data set shows none", start, path))?,
            uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
                source = source.inflated_from(start);
                start = 0;
                Encoding::ExplicitLittle
            }
            _ => {
                let known = TransferSyntaxRegistry.get(ts).filter(|t| !matches!(t.codec(), Codec::Dataset(_)));
                match known.map(|t| (t.endianness(), ts)) {
                    Some((_, uids::IMPLICIT_VR_LITTLE_ENDIAN)) => Encoding::ImplicitLittle,
                    Some((Endianness::Big, _)) => Encoding::ExplicitBig,
                    Some((Endianness::Little, _)) => Encoding::ExplicitLittle,
                    // Retired and new image compressions: the data set around them is always this (PS3.5 A.4).
                    None if is_uid(ts) && ts.starts_with("1.2.840.10008.1.2.4.") => Encoding::ExplicitLittle,
                    None => return Err(unknown_transfer_syntax(ts, path)),
                }
            }
        };
        // Some writers name one native syntax and write another: the first element tells them apart for certain.
        let native_little = matches!(ts, uids::IMPLICIT_VR_LITTLE_ENDIAN | uids::EXPLICIT_VR_LITTLE_ENDIAN);
        source.fill_to(start + 8).map_err(|e| io_error(&e, path))?;
        let seen = native_little.then(|| sniff(source.bytes.get(start..).unwrap_or_default())).flatten();
        let encoding = seen.filter(|&e| e != Encoding::ExplicitBig).unwrap_or(encoding);
        let deflated = ts == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN;
        let (entries, cuts, outer_items) = (Vec::new(), Vec::new(), Vec::new());
        let mut walk = Walk { source, encoding, path, start, unparsable: false, entries, cuts, outer_items, frames: None };
        let (end, pixels) = walk.data_set()?;
        let Walk { source, entries, cuts, frames, .. } = walk;
        Ok(Self { source, meta, encoding, declared, header: start..end, entries, cuts, frames, pixels, deflated })
    }

    /// The items of encapsulated pixel data that start at `offset`: the offset table, then the fragments, maybe none (PS3.5 A.4).
    pub(super) fn items(&mut self, offset: usize, path: &Path) -> Result<Vec<Range<usize>>, DatasetError> {
        let mut fragments = Vec::new();
        let mut at = offset;
        loop {
            if !self.source.fill_to(at + 8).map_err(|e| io_error(&e, path))? {
                return Err(truncated("an item of the pixel data", at + 8, &self.source, path));
            }
            let (tag, length) = (tag_at(&self.source.bytes, at, self.encoding), length_at(&self.source.bytes, at + 4, self.encoding));
            at += 8;
            match tag {
                SEQUENCE_END => break,
                ITEM if length != UNDEFINED => {
                    let end = at.saturating_add(length as usize);
                    if !self.source.fill_to(end).map_err(|e| io_error(&e, path))? {
                        return Err(truncated("a fragment of the pixel data", end, &self.source, path));
                    }
                    fragments.push(at..end);
                    at = end;
                }
                _ => return Err(malformed("no item where a fragment of the pixel data should start", at - 8, path)),
            }
        }
        if fragments.is_empty() {
            return Err(malformed("encapsulated pixel data without an offset table", offset, path));
        }
        Ok(fragments)
    }
}

/// The file meta group, where the data set starts, and whether the file says that it is DICOM.
pub(super) fn read_meta(source: &mut Source<'_>, path: &Path) -> Result<(Meta, usize, bool), DatasetError> {
    source.fill_to(READ_AHEAD).map_err(|e| io_error(&e, path))?;
    let bytes = source.bytes();
    let group_2 =
        |at: usize| bytes.get(at..at + 8).is_some_and(|b| b[..2] == [2, 0] && b[3] <= 1 && VR::from_binary([b[4], b[5]]).is_some());
    // Neither preamble nor meta group: only what starts as data sets start, with a low group of even number. "DICM" may then stand
    // anywhere, so it counts only before a meta group or where no data set starts.
    let data_set = sniff(bytes).is_some_and(|e| matches!(e.u16([bytes[0], bytes[1]]), 0x0004 | 0x0008 | 0x0010));
    let magic = [132, 4].into_iter().find(|&at| bytes.get(at - 4..at) == Some(b"DICM".as_slice()) && (group_2(at) || !data_set));
    let Some(mut at) = magic.or_else(|| [0, 128].into_iter().find(|&at| group_2(at))) else {
        return if data_set { Ok((Meta::default(), 0, false)) } else { Err(DatasetError::NotDicom { path: path.into() }) };
    };
    let mut meta = Meta::default();
    let mut stated_end = None;
    loop {
        if !source.fill_to(at + 8).map_err(|e| io_error(&e, path))? || source.bytes[at..at + 2] != [2, 0] {
            break;
        }
        // The stated length of the group is often wrong, so it is used only where the data set cannot be told from the group.
        if meta.transfer_syntax_uid == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN && stated_end.is_some_and(|end| at >= end) {
            break;
        }
        let explicit = VR::from_binary([source.bytes[at + 4], source.bytes[at + 5]]).is_some();
        let encoding = if explicit { Encoding::ExplicitLittle } else { Encoding::ImplicitLittle };
        let element = Element::at(source, at, encoding, path)?;
        let end = element.value.saturating_add(element.length as usize);
        if end > MAX_HEADER_BYTES {
            return Err(malformed("an element of the file meta group is longer than a header may be", at, path));
        }
        if !source.fill_to(end).map_err(|e| io_error(&e, path))? {
            return Err(truncated("the file meta group", end, source, path));
        }
        let value = &source.bytes[element.value..end];
        match element.tag {
            Tag(2, 0) if value.len() == 4 => stated_end = Some(end.saturating_add(length_at(value, 0, Encoding::ExplicitLittle) as usize)),
            tags::MEDIA_STORAGE_SOP_CLASS_UID => meta.sop_class_uid = ascii(value),
            tags::MEDIA_STORAGE_SOP_INSTANCE_UID => meta.sop_instance_uid = ascii(value),
            tags::TRANSFER_SYNTAX_UID => meta.transfer_syntax_uid = ascii(value),
            _ => {}
        }
        at = end;
    }
    Ok((meta, at, true))
}

/// Which encoding a data set that starts with `bytes` has, if it is one.
fn sniff(bytes: &[u8]) -> Option<Encoding> {
    let b: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let (little, big) = (u16::from_le_bytes([b[0], b[1]]), u16::from_be_bytes([b[0], b[1]]));
    if VR::from_binary([b[4], b[5]]).is_some() {
        return match (little <= 0x7FE0, big <= 0x7FE0) {
            (true, _) if little <= big || big > 0x7FE0 => Some(Encoding::ExplicitLittle),
            (_, true) => Some(Encoding::ExplicitBig),
            _ => None,
        };
    }
    let length = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
    (little <= 0x0028 && (length < 1 << 20 || length == UNDEFINED)).then_some(Encoding::ImplicitLittle)
}

/// The header of one data element (PS3.5 7.1).
struct Element {
    tag: Tag,
    vr: VR,
    length: u32,
    /// Where the value starts.
    value: usize,
}

impl Element {
    fn at(source: &mut Source<'_>, at: usize, encoding: Encoding, path: &Path) -> Result<Self, DatasetError> {
        let need = |source: &mut Source<'_>, end: usize| match source.fill_to(end) {
            Ok(true) => Ok(()),
            Ok(false) => Err(truncated("the header of a data element", end, source, path)),
            Err(e) => Err(io_error(&e, path)),
        };
        need(source, at + 8)?;
        let tag = tag_at(&source.bytes, at, encoding);
        if encoding == Encoding::ImplicitLittle || tag.0 == 0xFFFE {
            let vr = StandardDataDictionary.by_tag(tag).map_or(VirtualVr::Exact(VR::UN), |e| e.vr()).relaxed();
            return Ok(Self { tag, vr, length: length_at(&source.bytes, at + 4, encoding), value: at + 8 });
        }
        // An unknown VR has a 32-bit length, as dicom-rs reads it.
        let vr = VR::from_binary([source.bytes[at + 4], source.bytes[at + 5]]).unwrap_or(VR::UN);
        let short = !matches!(
            vr,
            VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::SQ | VR::SV | VR::UC | VR::UN | VR::UR | VR::UT | VR::UV
        );
        if short {
            let length = encoding.u16([source.bytes[at + 6], source.bytes[at + 7]]);
            return Ok(Self { tag, vr, length: length.into(), value: at + 8 });
        }
        need(source, at + 12)?;
        Ok(Self { tag, vr, length: length_at(&source.bytes, at + 8, encoding), value: at + 12 })
    }
}

/// A walk through a data set.
struct Walk<'r, 'p> {
    source: Source<'r>,
    encoding: Encoding,
    path: &'p Path,
    /// Where the data set starts.
    start: usize,
    /// Whether the top-level element that is walked through holds what dicom-rs refuses.
    unparsable: bool,
    entries: Vec<Entry>,
    cuts: Vec<Range<usize>>,
    /// Items of the top-level sequence that is walked through: their elements.
    outer_items: Vec<Range<u32>>,
    frames: Option<FrameItems>,
}

impl Walk<'_, '_> {
    /// Where the header ends, and what pixel data follows.
    fn data_set(&mut self) -> Result<(usize, PixelData), DatasetError> {
        let mut at = self.start;
        loop {
            if !self.fill_to(at + 8)? {
                let rest = self.source.bytes.get(at..).unwrap_or_default();
                if rest.iter().any(|&b| b != 0) {
                    return Err(truncated("the header of a data element", at + 8, &self.source, self.path));
                }
                return Ok((at, PixelData::None));
            }
            let tag = tag_at(&self.source.bytes, at, self.encoding);
            // Zeros after the last element are padding; groups above the pixels are trailing padding and signatures.
            if tag == Tag(0, 0) || tag > tags::PIXEL_DATA {
                return Ok((at, PixelData::None));
            }
            let element = Element::at(&mut self.source, at, self.encoding, self.path)?;
            match tag {
                tags::PIXEL_DATA => {
                    let pixels = if element.length == UNDEFINED {
                        PixelData::Encapsulated { offset: element.value }
                    } else {
                        PixelData::Native { offset: element.value, length: element.length, word: element.vr == VR::OW }
                    };
                    return Ok((at, pixels));
                }
                tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA if element.length != UNDEFINED => {
                    let bytes_per_value = if tag == tags::FLOAT_PIXEL_DATA { 4 } else { 8 };
                    let pixels = PixelData::Float { offset: element.value, length: element.length, bytes_per_value };
                    return Ok((at, pixels));
                }
                _ => {}
            }
            self.unparsable = false;
            self.outer_items.clear();
            let end = self.value(&element, self.encoding, None, 0)?;
            let opaque = element.length == UNDEFINED || (element.vr == VR::SQ && !self.unparsable);
            let within = |at: usize| (at - self.start) as u32; // MAX_HEADER_BYTES bounds it
            let (value, after) = (within(element.value), within(end));
            self.entries.push(Entry { tag, vr: element.vr, start: value, end: if opaque { value } else { after } });
            let whole = at - self.start..after as usize;
            if self.unparsable {
                self.cuts.push(whole);
            } else if tag == tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE {
                self.frames = Some(FrameItems { element: whole, items: self.outer_items.as_slice().into() });
            }
            at = end;
        }
    }

    /// The end of an element's value.
    fn value(&mut self, e: &Element, encoding: Encoding, limit: Option<usize>, depth: usize) -> Result<usize, DatasetError> {
        if e.length == UNDEFINED {
            // VR UN of undefined length is a sequence in Implicit VR Little Endian (PS3.5 6.2.2, CP-246).
            let unknown = e.vr == VR::UN && encoding != Encoding::ImplicitLittle;
            self.unparsable |= unknown;
            let inner = if unknown { Encoding::ImplicitLittle } else { encoding };
            let opaque = matches!(e.vr, VR::OB | VR::OW) || e.tag == tags::PIXEL_DATA;
            return self.items(e.value, inner, limit, None, opaque, depth + 1);
        }
        let end = e.value.saturating_add(e.length as usize);
        if limit.is_some_and(|limit| end > limit) {
            return Err(malformed("an element is longer than the item that holds it", e.value, self.path));
        }
        if e.vr == VR::SQ {
            // A text under a tag of which the dictionary says that it is a sequence: where no VR is written, only the value tells.
            if encoding == Encoding::ImplicitLittle && e.length > 0 {
                self.need("a data element", end)?;
                if e.length < 8 || tag_at(&self.source.bytes, e.value, encoding) != ITEM {
                    self.unparsable = true;
                    return Ok(end);
                }
            }
            return self.items(e.value, encoding, limit, Some(end), false, depth + 1);
        }
        self.need("a data element", end)?;
        // dicom-rs reads as many whole numbers as fit and takes what is left of them for the next element.
        self.unparsable |= !(e.length as usize).is_multiple_of(bytes_of_number(e.vr));
        Ok(end)
    }

    /// The end of a sequence of items: `end`, or after its delimiter.
    fn items(
        &mut self,
        start: usize,
        encoding: Encoding,
        limit: Option<usize>,
        end: Option<usize>,
        opaque: bool,
        depth: usize,
    ) -> Result<usize, DatasetError> {
        if depth > MAX_DEPTH {
            return Err(malformed("more than 32 sequences within each other", start, self.path));
        }
        let limit = end.or(limit);
        let mut at = start;
        loop {
            if end == Some(at) {
                return Ok(at);
            }
            self.within(at + 8, limit)?;
            self.need("an item of a sequence", at + 8)?;
            let (tag, length) = (tag_at(&self.source.bytes, at, encoding), length_at(&self.source.bytes, at + 4, encoding));
            at += 8;
            match tag {
                SEQUENCE_END if end.is_none() => return Ok(at),
                ITEM if length == UNDEFINED => {
                    let from = at;
                    at = self.elements(at, encoding, limit, None, depth)?;
                    self.note_item(from..at - 8, depth); // without its delimiter
                }
                ITEM => {
                    let from = at;
                    let item_end = at.saturating_add(length as usize);
                    self.within(item_end, limit)?;
                    at = if opaque {
                        self.need("an item", item_end)?;
                        item_end
                    } else {
                        self.elements(at, encoding, limit, Some(item_end), depth)?
                    };
                    self.note_item(from..at, depth);
                }
                _ => return Err(malformed("no item where one should start in a sequence", at - 8, self.path)),
            }
        }
    }

    fn note_item(&mut self, elements: Range<usize>, depth: usize) {
        if depth == 1 {
            let within = |at: usize| (at - self.start) as u32; // MAX_HEADER_BYTES bounds it
            self.outer_items.push(within(elements.start)..within(elements.end));
        }
    }

    /// The end of the elements of one item: `end`, or after its delimiter.
    fn elements(
        &mut self,
        start: usize,
        encoding: Encoding,
        limit: Option<usize>,
        end: Option<usize>,
        depth: usize,
    ) -> Result<usize, DatasetError> {
        let limit = end.or(limit);
        let mut at = start;
        loop {
            if end == Some(at) {
                return Ok(at);
            }
            self.within(at + 8, limit)?;
            let element = Element::at(&mut self.source, at, encoding, self.path)?;
            if element.tag == ITEM_END && end.is_none() {
                return Ok(at + 8);
            }
            if element.tag.0 == 0xFFFE {
                return Err(malformed("a delimiter where an element should start", at, self.path));
            }
            at = self.value(&element, encoding, limit, depth)?;
        }
    }

    fn within(&self, end: usize, limit: Option<usize>) -> Result<(), DatasetError> {
        match limit {
            Some(limit) if end > limit => Err(malformed("an item is longer than the sequence that holds it", end, self.path)),
            _ => Ok(()),
        }
    }

    fn need(&mut self, what: &'static str, end: usize) -> Result<(), DatasetError> {
        if self.fill_to(end)? { Ok(()) } else { Err(truncated(what, end, &self.source, self.path)) }
    }

    fn fill_to(&mut self, end: usize) -> Result<bool, DatasetError> {
        // Elements beyond the bound are refused only when their bytes are really there.
        if !self.source.fill_to(end.min(MAX_HEADER_BYTES)).map_err(|e| io_error(&e, self.path))? {
            return Ok(false);
        }
        if end > MAX_HEADER_BYTES && end > self.source.bytes.len() {
            let (bytes, limit) = (end as u64, MAX_HEADER_BYTES as u64);
            return Err(DatasetError::TooLarge { what: "a header", bytes, limit, path: self.path.into() });
        }
        Ok(true)
    }
}

/// Bytes of one value of a binary VR; 1 for texts and bytes.
fn bytes_of_number(vr: VR) -> usize {
    match vr {
        VR::US | VR::SS | VR::OW => 2,
        VR::UL | VR::SL | VR::FL | VR::AT | VR::OF | VR::OL => 4,
        VR::FD | VR::SV | VR::UV | VR::OD | VR::OV => 8,
        _ => 1,
    }
}

fn tag_at(bytes: &[u8], at: usize, encoding: Encoding) -> Tag {
    Tag(encoding.u16([bytes[at], bytes[at + 1]]), encoding.u16([bytes[at + 2], bytes[at + 3]]))
}

fn length_at(bytes: &[u8], at: usize, encoding: Encoding) -> u32 {
    encoding.u32([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Text of a UID: padding taken off.
pub(super) fn ascii(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
}

fn unknown_transfer_syntax(uid: &str, path: &Path) -> DatasetError {
    DatasetError::UnknownTransferSyntax { uid: if is_uid(uid) { uid.into() } else { "(not a UID)".into() }, path: path.into() }
}

fn truncated(what: &'static str, expected: usize, source: &Source<'_>, path: &Path) -> DatasetError {
    DatasetError::Truncated { what, expected: expected as u64, found: source.bytes.len() as u64, path: path.into() }
}

fn malformed(what: &'static str, offset: usize, path: &Path) -> DatasetError {
    DatasetError::Malformed { what, offset: offset as u64, path: path.into() }
}

/// What the file system said. A deflated stream that is cut off or broken ends here as well.
pub(super) fn io_error(e: &io::Error, path: &Path) -> DatasetError {
    DatasetError::Io { what: "file", kind: e.kind(), path: path.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Instance;

    /// An ordinary file with `extra` bytes of Explicit VR Little Endian between the header and the pixel data.
    fn with(extra: &[u8]) -> Result<Instance, DatasetError> {
        let bytes = crate::dataset::testing::slice(0).bytes();
        let at = bytes.windows(4).rposition(|w| w == [0xE0, 0x7F, 0x10, 0x00]).expect("there is pixel data");
        let bytes = [&bytes[..at], extra, &bytes[at..]].concat();
        Instance::parse(Source::new(&bytes[..]), bytes.len() as u64, Path::new("made/in/code"))
    }

    /// An element of group 0029 with a 32-bit length.
    fn element(vr: &[u8; 2], length: u32, value: &[u8]) -> Vec<u8> {
        [&[0x29, 0, 1, 0x10], vr.as_slice(), &[0, 0], &length.to_le_bytes(), value].concat()
    }

    const ITEM_START: [u8; 8] = [0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF];
    const ENDS: [u8; 16] = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0];

    #[test]
    fn un_of_undefined_length_is_left_out_and_the_rest_is_read() {
        // (0029,1002) of 2 bytes in Implicit VR Little Endian, in one item (CP-246).
        let item = [&ITEM_START[..], &[0x29, 0, 2, 0x10, 2, 0, 0, 0, b'A', b'B'], &ENDS].concat();
        let instance = with(&element(b"UN", UNDEFINED, &item)).expect("it is legal");
        assert_eq!((instance.rows, instance.has_pixel_data), (4, true));
        assert!(instance.header().expect("it can be parsed").get(Tag(0x0029, 0x1001)).is_none());
        assert!(matches!(
            with(&element(b"UN", UNDEFINED, &ITEM_START)),
            Err(DatasetError::Malformed { .. } | DatasetError::Truncated { .. })
        ));
    }

    #[test]
    fn lengths_that_lie_are_found_before_they_reserve_memory() {
        for vr in [b"OB", b"UN", b"SQ"] {
            let error = with(&element(vr, 0xFFFF_FFF0, &[])).expect_err("4 GB are not there");
            assert!(matches!(error, DatasetError::Truncated { .. } | DatasetError::Malformed { .. }), "{error}");
        }
    }

    /// Found by fuzzing: a number of 2 bytes in FD made dicom-rs take the middle of the next element for its header, and reserve 1.3 GB.
    #[test]
    fn numbers_of_odd_lengths_are_left_out_of_the_object() {
        let instance = with(&[0x29, 0, 1, 0x10, b'F', b'D', 2, 0, 1, 0]).expect("the rest can be read");
        let header = instance.header().expect("it can be parsed");
        assert!(header.get(Tag(0x0029, 0x1001)).is_none() && header.get(tags::ROWS).is_some());
        assert_eq!(instance.rows, 4);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested =
            |depth: usize| (0..depth).fold(Vec::new(), |inner, _| element(b"SQ", UNDEFINED, &[&ITEM_START[..], &inner, &ENDS].concat()));
        assert!(with(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(with(&nested(MAX_DEPTH + 1)), Err(DatasetError::Malformed { .. })));
        assert!(matches!(with(&nested(20_000)), Err(DatasetError::Malformed { .. })));
    }
}
