//! The attributes of one data set before its pixel data: bytes with an index, parsed only where an object is asked for.
//!
//! A series has hundreds of headers of which a dozen values each are needed; parsing them all into objects costs more time and
//! memory than reading their pixels.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;

use dicom::core::{DataElement, PrimitiveValue, Tag, VR};
use dicom::encoding::TransferSyntaxIndex;
use dicom::object::InMemDicomObject;
use dicom::transfer_syntax::TransferSyntaxRegistry;

use super::layout::{Encoding, Entry, FrameItems, Layout, ascii};
use super::{CharacterSet, DatasetError};
use crate::codes::sha256_hex;

/// Typed access to attributes, whatever holds them. What is missing or unreadable (`***` stands in real files) is `None`, 0 or empty.
pub trait Attributes {
    /// The values as text, padding taken off. Bytes (an element written with VR UN) count as text.
    fn texts(&self, tag: Tag) -> Vec<String>;

    /// Whether the attribute is there, with a value or not.
    fn has(&self, tag: Tag) -> bool;

    /// The first value as text; empty when there is none.
    fn text(&self, tag: Tag) -> String {
        self.texts(tag).into_iter().next().unwrap_or_default()
    }

    /// All values as finite numbers; `None` when there is none or one is not a number.
    fn all_numbers(&self, tag: Tag) -> Option<Vec<f64>> {
        let texts = self.texts(tag);
        let values: Option<Vec<f64>> = texts.iter().map(|v| v.parse().ok().filter(|n: &f64| n.is_finite())).collect();
        values.filter(|v| !v.is_empty())
    }

    /// Exactly `N` finite numbers.
    fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]>
    where
        Self: Sized,
    {
        self.all_numbers(tag)?.try_into().ok()
    }

    /// One finite number.
    fn number(&self, tag: Tag) -> Option<f64> {
        self.all_numbers(tag).filter(|v| v.len() == 1).map(|v| v[0])
    }

    /// One whole number.
    fn integer(&self, tag: Tag) -> Option<i64> {
        self.number(tag).filter(|n| n.fract() == 0.0 && n.abs() <= f64::from(u32::MAX)).map(|n| n as i64)
    }

    /// A number from 0 up; 0 when it is missing, unreadable or negative.
    fn count(&self, tag: Tag) -> u32 {
        self.integer(tag).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }
}

impl Attributes for InMemDicomObject {
    fn texts(&self, tag: Tag) -> Vec<String> {
        let Some(value) = self.get(tag).and_then(|e| e.value().primitive()) else { return Vec::new() };
        match value {
            PrimitiveValue::Empty => Vec::new(),
            PrimitiveValue::U8(bytes) => split(bytes),
            other => other.to_multi_str().iter().map(|v| ascii(v.as_bytes())).collect(),
        }
    }

    fn has(&self, tag: Tag) -> bool {
        self.get(tag).is_some()
    }
}

/// The data set before the pixel data.
pub struct Header {
    bytes: Box<[u8]>,
    encoding: Encoding,
    entries: Box<[Entry]>,
    /// Elements that dicom-rs refuses.
    cuts: Box<[Range<usize>]>,
    frames: Option<FrameItems>,
    object: OnceLock<Option<Box<InMemDicomObject>>>,
}

impl Header {
    pub(super) fn of(layout: &Layout<'_>) -> Self {
        Self {
            bytes: layout.source.bytes()[layout.header.clone()].into(),
            encoding: layout.encoding,
            entries: layout.entries.as_slice().into(),
            cuts: layout.cuts.as_slice().into(),
            frames: layout.frames.clone(),
            object: OnceLock::new(),
        }
    }

    /// As [`Header::object`], for one use: a series has hundreds of headers, and their objects need not stay.
    ///
    /// # Errors
    /// Where dicom-rs cannot parse it; `path` is only for the message.
    pub fn to_object(&self, path: &Path) -> Result<InMemDicomObject, DatasetError> {
        self.parse(None).ok_or_else(|| unparsable(path))
    }

    /// All of it as a parsed object; made once. Elements that dicom-rs refuses (VR UN of undefined length) are left out.
    ///
    /// # Errors
    /// Where dicom-rs cannot parse it; `path` is only for the message.
    pub fn object(&self, path: &Path) -> Result<&InMemDicomObject, DatasetError> {
        let parsed = self.object.get_or_init(|| self.parse(None).map(Box::new));
        parsed.as_deref().ok_or_else(|| unparsable(path))
    }

    /// As [`Header::to_object`], without the Per-Frame Functional Groups Sequence: of an object with ten thousand frames that takes 100 MB
    /// when it is parsed, and [`Header::frame_groups`] parses one item at a time.
    ///
    /// # Errors
    /// Where dicom-rs cannot parse it; `path` is only for the message.
    pub fn object_without_frames(&self, path: &Path) -> Result<InMemDicomObject, DatasetError> {
        self.parse(self.frames.as_ref().map(|frames| &frames.element)).ok_or_else(|| unparsable(path))
    }

    /// Items of the Per-Frame Functional Groups Sequence.
    pub fn frame_count(&self) -> usize {
        self.frames.as_ref().map_or(0, |frames| frames.items.len())
    }

    /// The functional groups of the frame with index `n` alone; none where there are none that can be parsed.
    pub fn frame_groups(&self, n: usize) -> Option<InMemDicomObject> {
        let item = self.frames.as_ref()?.items.get(n)?;
        self.parse_bytes(&self.bytes[item.start as usize..item.end as usize])
    }

    fn parse(&self, more: Option<&Range<usize>>) -> Option<InMemDicomObject> {
        let mut kept = Vec::new();
        let mut cuts: Vec<&Range<usize>> = self.cuts.iter().chain(more).collect();
        cuts.sort_by_key(|cut| cut.start);
        let bytes = if cuts.is_empty() {
            &*self.bytes
        } else {
            let mut from = 0;
            for cut in cuts {
                kept.extend_from_slice(&self.bytes[from..cut.start]);
                from = cut.end;
            }
            kept.extend_from_slice(&self.bytes[from..]);
            &kept
        };
        let mut object = self.parse_bytes(bytes)?;
        self.keep_bytes(&mut object);
        Some(object)
    }

    fn parse_bytes(&self, bytes: &[u8]) -> Option<InMemDicomObject> {
        let ts = TransferSyntaxRegistry.get(self.encoding.native_uid())?;
        // dicom-rs should not panic; a file that makes it do so must not end more than itself. What it says is not passed on, since it
        // may quote the header.
        catch_unwind(AssertUnwindSafe(|| InMemDicomObject::read_dataset_with_ts(bytes, ts))).ok()?.ok()
    }

    /// Puts bytes in the place of text that dicom-rs would write otherwise than it was read: Latin-1 declared as UTF-8 is common, and a
    /// result must repeat a name as it is.
    fn keep_bytes(&self, object: &mut InMemDicomObject) {
        let charset = CharacterSet::of(object);
        for entry in &self.entries {
            let bytes = &self.bytes[entry.start as usize..entry.end as usize];
            let in_charset = matches!(entry.vr, VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT);
            if in_charset && (!bytes.is_ascii() || bytes.contains(&0x1B)) && !charset.survives(bytes) {
                object.put(DataElement::new(entry.tag, entry.vr, PrimitiveValue::from(bytes.to_vec())));
            }
        }
    }

    /// The value of an attribute as it is in the file.
    pub fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.value(tag).map(|(_, bytes)| bytes)
    }

    /// Whether there is any attribute of a group.
    pub fn has_group(&self, group: u16) -> bool {
        self.entries.iter().any(|e| e.tag.0 == group)
    }

    fn value(&self, tag: Tag) -> Option<(VR, &[u8])> {
        let entry = self.entries.iter().find(|e| e.tag == tag)?;
        Some((entry.vr, &self.bytes[entry.start as usize..entry.end as usize]))
    }

    /// Patient ID and Patient's Name as one hash. Empty trailing parts of a name do not count (PS3.5 6.2.1).
    pub(super) fn patient_key(&self) -> String {
        use super::tags;
        patient_key_of([&self.text(tags::PATIENT_ID), &self.text(tags::PATIENT_NAME)])
    }
}

/// Of Patient ID and Patient's Name.
pub(super) fn patient_key_of(texts: [&str; 2]) -> String {
    let mut identity = Vec::new();
    for part in texts.map(|text| text.trim_end_matches(['^', '=', ' '])) {
        identity.extend((part.len() as u64).to_le_bytes());
        identity.extend(part.bytes());
    }
    sha256_hex(&identity)
}

impl Attributes for Header {
    fn texts(&self, tag: Tag) -> Vec<String> {
        let Some((vr, bytes)) = self.value(tag) else { return Vec::new() };
        if bytes.is_empty() {
            return Vec::new();
        }
        let e = self.encoding;
        let numbers = |size: usize, text: &dyn Fn(&[u8]) -> String| bytes.chunks_exact(size).map(text).collect();
        match vr {
            VR::US => numbers(2, &|b| e.u16([b[0], b[1]]).to_string()),
            VR::SS => numbers(2, &|b| (e.u16([b[0], b[1]]) as i16).to_string()),
            VR::UL => numbers(4, &|b| e.u32([b[0], b[1], b[2], b[3]]).to_string()),
            VR::SL => numbers(4, &|b| (e.u32([b[0], b[1], b[2], b[3]]) as i32).to_string()),
            VR::FL => numbers(4, &|b| f64::from(f32::from_bits(e.u32([b[0], b[1], b[2], b[3]]))).to_string()),
            VR::FD => numbers(8, &|b| f64::from_bits(e.u64(b)).to_string()),
            VR::SQ => Vec::new(),
            _ => split(bytes),
        }
    }

    fn has(&self, tag: Tag) -> bool {
        self.entries.iter().any(|e| e.tag == tag)
    }
}

impl fmt::Debug for Header {
    /// How much there is, not what: a header holds a patient's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({} attributes)", self.entries.len())
    }
}

fn unparsable(path: &Path) -> DatasetError {
    DatasetError::Malformed { what: "the header cannot be parsed", offset: 0, path: path.into() }
}

fn split(bytes: &[u8]) -> Vec<String> {
    ascii(bytes).split('\\').map(|v| v.trim().to_owned()).collect()
}
