//! Building data sets, and writing files as a whole.

use std::io::{self, Write};
use std::path::Path;

use dicom::core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom::core::value::{DataSetSequence, Value};
use dicom::core::{DataElement, PrimitiveValue, Tag, VR};
use dicom::dictionary_std::StandardDataDictionary;
use dicom::object::InMemDicomObject;
use thiserror::Error;

use super::tags;
use crate::codes::{Code, Uid, uid_by_name};
use crate::geometry::Coded;

/// Why an object could not be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The data set could not be encoded: a value that the source's character set cannot express, for one.
    #[error("data set cannot be encoded: {0}")]
    Encode(String),
    /// More pixel data than an element holds.
    #[error("{bytes} bytes of pixel data: an element holds 4 GB at most; write fewer segments or maps into one object")]
    TooLarge {
        /// How many.
        bytes: u64,
    },
    /// The folder or the disk did not take the bytes.
    #[error("cannot write `{file}`: {source}")]
    Io {
        /// File name without folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Coded for WriteError {
    fn code(&self) -> &'static str {
        match self {
            Self::Encode(_) => "dataset.encode",
            Self::TooLarge { .. } => "dataset.too-large-to-write",
            Self::Io { .. } => "dataset.write",
        }
    }
}

/// A data set, or an item of a sequence, under construction. Value representations come from the data dictionary.
///
/// Text given to [`Item::text`] is our own and is written in ASCII, so that it is right under whatever Specific
/// Character Set the copied attributes bring along; anything else becomes `?`.
#[derive(Debug, Clone)]
pub struct Item(InMemDicomObject);

impl Default for Item {
    fn default() -> Self {
        Self::new()
    }
}

impl From<InMemDicomObject> for Item {
    fn from(object: InMemDicomObject) -> Self {
        Self(object)
    }
}

impl Item {
    /// Without attributes.
    pub fn new() -> Self {
        Self(InMemDicomObject::new_empty())
    }

    /// The patient and study attributes of `source` (PS3.3 C.7.1.1, C.7.2.1), values unchanged, type 2 ones present even when empty.
    ///
    /// The values stay in the source's Specific Character Set, which comes with them. Where it is absent and a value is not
    /// ASCII, ISO_IR 100 is declared: the bytes stay as they are, and that is how readers show undeclared bytes anyway.
    pub fn of_study(source: &InMemDicomObject) -> Self {
        let mut item = ALWAYS_COPIED.iter().fold(Self::new(), |item, &tag| item.copied_or_empty(tag, source));
        item = COPIED_IF_PRESENT.iter().fold(item, |item, &tag| item.copied(tag, source));
        if source.get(tags::SPECIFIC_CHARACTER_SET).is_some_and(|e| !e.value().to_str().unwrap_or_default().is_empty()) {
            item.copied(tags::SPECIFIC_CHARACTER_SET, source)
        } else if item.0.iter().all(|element| is_ascii(element.value())) {
            item
        } else {
            item.text(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 100")
        }
    }

    /// One text value: made ASCII, cut to what its value representation holds (PS3.5 table 6.2-1).
    #[must_use]
    pub fn text(self, tag: Tag, value: &str) -> Self {
        let vr = vr_of(tag);
        self.put(tag, vr, PrimitiveValue::from(own_text(vr, value)))
    }

    /// Several text values.
    #[must_use]
    pub fn texts(self, tag: Tag, values: &[&str]) -> Self {
        let vr = vr_of(tag);
        self.put(tag, vr, PrimitiveValue::Strs(values.iter().map(|v| own_text(vr, v)).collect()))
    }

    /// Decimal strings as the source wrote them; one of more than the 16 characters that are allowed is written anew, not cut.
    #[must_use]
    pub fn decimals_of(self, tag: Tag, values: &[String]) -> Self {
        let fitting = |v: &String| if v.len() <= 16 { v.clone() } else { v.parse().map_or_else(|_| v.clone(), decimal_string) };
        self.put(tag, vr_of(tag), PrimitiveValue::Strs(values.iter().map(fitting).collect()))
    }

    /// Whole numbers, as US, UL, SL or text (IS), whichever the attribute asks for.
    #[must_use]
    pub fn integers(self, tag: Tag, values: &[u32]) -> Self {
        let vr = vr_of(tag);
        let value = match vr {
            VR::US => PrimitiveValue::U16(values.iter().map(|&v| u16::try_from(v).expect("a US attribute is below 65536")).collect()),
            VR::SL => PrimitiveValue::I32(values.iter().map(|&v| i32::try_from(v).expect("an SL attribute is below 2^31")).collect()),
            VR::UL => PrimitiveValue::U32(values.iter().copied().collect()),
            _ => PrimitiveValue::Strs(values.iter().map(u32::to_string).collect()),
        };
        self.put(tag, vr, value)
    }

    /// One whole number.
    #[must_use]
    pub fn integer(self, tag: Tag, value: u32) -> Self {
        self.integers(tag, &[value])
    }

    /// A decimal string of at most 16 characters, as near to the finite number `value` as they allow.
    #[must_use]
    pub fn decimal(self, tag: Tag, value: f64) -> Self {
        self.text(tag, &decimal_string(value))
    }

    /// Many finite numbers as decimal strings with at most four digits after the point.
    #[must_use]
    pub fn four_digits(self, tag: Tag, values: impl IntoIterator<Item = f64>) -> Self {
        use std::fmt::Write;
        let mut text = String::new();
        for value in values {
            // "-0.0000" is 0.
            let value = (value * 1e4).round() / 1e4 + 0.0;
            write!(text, "{value:.4}").expect("text takes text");
            text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
            text.push('\\');
        }
        text.pop();
        self.put(tag, vr_of(tag), PrimitiveValue::from(text))
    }

    /// A floating point number, exact (FD).
    #[must_use]
    pub fn double(self, tag: Tag, value: f64) -> Self {
        self.put(tag, VR::FD, PrimitiveValue::from(value))
    }

    /// Floating point numbers of single precision (FL).
    #[must_use]
    pub fn floats(self, tag: Tag, values: &[f32]) -> Self {
        self.put(tag, VR::FL, PrimitiveValue::F32(values.iter().copied().collect()))
    }

    /// A pointer to an attribute (AT).
    #[must_use]
    pub fn pointer(self, tag: Tag, attribute: Tag) -> Self {
        self.put(tag, VR::AT, PrimitiveValue::from(attribute))
    }

    /// Bytes (OB), which the writer pads to an even number.
    #[must_use]
    pub fn bytes(self, tag: Tag, bytes: Vec<u8>) -> Self {
        self.put(tag, VR::OB, PrimitiveValue::U8(bytes.into()))
    }

    /// 16-bit words (OW): pixel data of an image.
    #[must_use]
    pub fn words(self, tag: Tag, words: Vec<u16>) -> Self {
        self.put(tag, VR::OW, PrimitiveValue::U16(words.into()))
    }

    /// Present without a value.
    #[must_use]
    pub fn empty(self, tag: Tag) -> Self {
        match vr_of(tag) {
            VR::SQ => self.sequence(tag, []),
            vr => self.put(tag, vr, PrimitiveValue::Empty),
        }
    }

    /// A sequence of `items`, maybe none.
    #[must_use]
    pub fn sequence(mut self, tag: Tag, items: impl IntoIterator<Item = Item>) -> Self {
        let items: Vec<_> = items.into_iter().map(|item| item.0).collect();
        self.0.put(DataElement::new(tag, VR::SQ, Value::Sequence(DataSetSequence::from(items))));
        self
    }

    /// A code sequence with one item.
    #[must_use]
    pub fn code(self, tag: Tag, code: &Code) -> Self {
        self.sequence(tag, [Self::of_code(code)])
    }

    /// The item of a code sequence (PS3.3 table 8.8-1).
    pub fn of_code(code: &Code) -> Self {
        let value_tag = if code.value.len() <= 16 { tags::CODE_VALUE } else { tags::LONG_CODE_VALUE };
        Self::new().text(value_tag, &code.value).text(tags::CODING_SCHEME_DESIGNATOR, &code.scheme).text(tags::CODE_MEANING, &code.meaning)
    }

    /// The attribute as the source has it; absent where the source lacks it.
    #[must_use]
    pub fn copied(mut self, tag: Tag, source: &InMemDicomObject) -> Self {
        if let Some(element) = source.get(tag) {
            self.0.put(element.clone());
        }
        self
    }

    /// The attribute as the source has it; empty where the source lacks it.
    #[must_use]
    pub fn copied_or_empty(self, tag: Tag, source: &InMemDicomObject) -> Self {
        if source.get(tag).is_some() { self.copied(tag, source) } else { self.empty(tag) }
    }

    /// Adds `more`'s attributes; its values win.
    #[must_use]
    pub fn with(mut self, more: Item) -> Self {
        self.0.extend(more.0);
        self
    }

    /// The data set itself.
    pub fn into_inner(self) -> InMemDicomObject {
        self.0
    }

    fn put(mut self, tag: Tag, vr: VR, value: PrimitiveValue) -> Self {
        self.0.put(DataElement::new(tag, vr, value));
        self
    }
}

/// Type 1 and 2 attributes of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1).
const ALWAYS_COPIED: [Tag; 10] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::STUDY_ID,
    tags::ACCESSION_NUMBER,
    tags::REFERRING_PHYSICIAN_NAME,
];

/// Optional and conditional attributes of Patient, Study and Clinical Trial that must not differ between objects of a study.
const COPIED_IF_PRESENT: [Tag; 36] = [
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::ISSUER_OF_PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE,
    tags::TYPE_OF_PATIENT_ID,
    Tag(0x0010, 0x1000), // Other Patient IDs, retired, still sent
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::PATIENT_BIRTH_TIME,
    Tag(0x0010, 0x2160), // Ethnic Group, retired, still sent
    tags::QUALITY_CONTROL_SUBJECT,
    tags::PATIENT_SPECIES_DESCRIPTION,
    tags::PATIENT_SPECIES_CODE_SEQUENCE,
    tags::PATIENT_BREED_DESCRIPTION,
    tags::PATIENT_BREED_CODE_SEQUENCE,
    tags::BREED_REGISTRATION_SEQUENCE,
    tags::RESPONSIBLE_PERSON,
    tags::RESPONSIBLE_PERSON_ROLE,
    tags::RESPONSIBLE_ORGANIZATION,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    tags::STUDY_DESCRIPTION,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::PATIENT_SEX_NEUTERED,
    tags::ADMISSION_ID,
    tags::ISSUER_OF_ADMISSION_ID_SEQUENCE,
    tags::CLINICAL_TRIAL_SPONSOR_NAME,
    tags::CLINICAL_TRIAL_PROTOCOL_ID,
    tags::CLINICAL_TRIAL_PROTOCOL_NAME,
    tags::CLINICAL_TRIAL_SITE_ID,
    tags::CLINICAL_TRIAL_SITE_NAME,
    tags::CLINICAL_TRIAL_SUBJECT_ID,
    tags::CLINICAL_TRIAL_SUBJECT_READING_ID,
    tags::CLINICAL_TRIAL_TIME_POINT_ID,
];

/// The attributes of patient and study that every result has as its source has them.
pub fn study_attributes() -> impl Iterator<Item = Tag> {
    ALWAYS_COPIED.into_iter().chain(COPIED_IF_PRESENT)
}

/// What kept a data set from being written to `file`: the disk, where the encoder was stopped by it.
pub(super) fn unwritten(err: &(dyn std::error::Error + 'static), file: &str) -> WriteError {
    let mut causes = std::iter::successors(Some(err), |err| err.source());
    match causes.find_map(|err| err.downcast_ref::<io::Error>()) {
        Some(source) => WriteError::Io { file: file.to_owned(), source: io::Error::new(source.kind(), source.to_string()) },
        None => WriteError::Encode(innermost(err)),
    }
}

/// Writes a file through `fill` so that it is there in full or not at all: temporary file in the same folder, sync, rename.
///
/// # Errors
/// What `fill` returns, or [`WriteError::Io`].
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut io::BufWriter<&mut std::fs::File>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let failed = |source| WriteError::Io { file: name.clone(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".roentgen-");
    #[cfg(unix)]
    {
        // As any new file: the process's umask decides who may read.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(failed)?;
    let mut writer = io::BufWriter::with_capacity(1 << 16, temporary.as_file_mut());
    fill(&mut writer)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|err| failed(err.error))?;
    Ok(())
}

/// Implementation Class UID (0002,0012) of this program.
pub fn implementation_class_uid() -> Uid {
    uid_by_name(&["implementation-class"])
}

/// Implementation Version Name (0002,0013), at most 16 characters.
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("ROENTGEN_", env!("CARGO_PKG_VERSION"));
const _: () = assert!(IMPLEMENTATION_VERSION_NAME.len() <= 16);

/// A finite number in at most 16 characters (DS), as near as they allow; whole numbers without a point.
pub fn decimal_string(value: f64) -> String {
    assert!(value.is_finite(), "a decimal string has no word for {value}");
    let value = if value == 0.0 { 0.0 } else { value }; // no "-0"
    let mut best = (f64::INFINITY, String::new());
    let trimmed = |text: String| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    let fixed = (0..=15).rev().map(|digits| format!("{value:.digits$}")).filter(|text| text.len() <= 16).map(trimmed);
    let exponential = std::iter::once(format!("{value:e}")).chain((0..=14).rev().map(|digits| format!("{value:.digits$e}")));
    for text in std::iter::once(value.to_string()).chain(fixed).chain(exponential).filter(|text| text.len() <= 16) {
        let error = text.parse::<f64>().map_or(f64::INFINITY, |parsed| (parsed - value).abs());
        if error < best.0 {
            best = (error, text);
        }
    }
    best.1
}

/// The value representation the dictionary gives; of several the first.
fn vr_of(tag: Tag) -> VR {
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// Text of ours as it may stand in a data set.
fn own_text(vr: VR, value: &str) -> String {
    let (limit, one_line) = match vr {
        VR::SH | VR::CS | VR::AE | VR::DS => (16, true),
        VR::LO | VR::PN | VR::UI => (64, true),
        VR::ST => (1024, false),
        VR::LT => (10240, false),
        VR::UT => (usize::MAX, false),
        _ => (usize::MAX, true),
    };
    let allowed = |c: char| match c {
        '\\' if one_line => '/',
        '\r' | '\n' if !one_line => c,
        ' '..='~' => c,
        c if c.is_ascii() => ' ',
        _ => '?',
    };
    value.chars().map(allowed).take(limit).collect()
}

/// Whether each text in the value is ASCII without escape sequences.
fn is_ascii(value: &Value<InMemDicomObject>) -> bool {
    match value {
        Value::Primitive(PrimitiveValue::Str(text)) => text.is_ascii(),
        Value::Primitive(PrimitiveValue::Strs(texts)) => texts.iter().all(|text| text.is_ascii()),
        Value::Sequence(sequence) => sequence.items().iter().flat_map(|item| item.iter()).all(|element| is_ascii(element.value())),
        _ => true,
    }
}

/// The message at the end of the chain, which says what really happened.
pub(super) fn innermost(err: &dyn std::error::Error) -> String {
    let mut err = err;
    while let Some(source) = err.source() {
        err = source;
    }
    err.to_string()
}

#[cfg(test)]
mod tests {
    use dicom::dicom_value;

    use super::*;
    use crate::dataset::write_object;

    fn check_decimal(value: f64, expected: &str) {
        let text = decimal_string(value);
        assert_eq!(text, expected);
        assert!(text.len() <= 16, "{text}");
    }

    #[test]
    fn decimal_strings_fit() {
        check_decimal(0.0, "0");
        check_decimal(-0.0, "0");
        check_decimal(2.5, "2.5");
        check_decimal(-80.0, "-80");
        check_decimal(0.1 + 0.2, "0.3");
        check_decimal(0.087_155_742_747_658_17, "0.08715574274766");
        check_decimal(-1.234_567_890_123_456_7e-10, "-1.234567890e-10");
        check_decimal(1e300, "1e300");
        check_decimal(1_234_567_890_123.456_7, "1234567890123.46");
    }

    #[test]
    fn four_digits_are_short() {
        let text = |values: &[f64]| {
            let item = Item::new().four_digits(tags::CONTOUR_DATA, values.iter().copied()).into_inner();
            item.get(tags::CONTOUR_DATA).expect("just put").value().to_str().expect("text").into_owned()
        };
        assert_eq!(text(&[-0.00002, 12.5, -182.0, 100.0, 0.123_456, 10.0]), "0\\12.5\\-182\\100\\0.1235\\10");
    }

    #[test]
    fn own_text_is_ascii_of_legal_length() {
        let item = Item::new().text(tags::MANUFACTURER, &format!("Pr\u{fc}f\\{}", "x".repeat(70))).into_inner();
        let text = item.get(tags::MANUFACTURER).expect("just put").value().to_str().expect("text").into_owned();
        assert_eq!(text, format!("Pr?f/{}", "x".repeat(59)));
    }

    /// Names in three character sets, as Rust text after reading, survive to the byte.
    #[test]
    fn copied_names_keep_their_bytes() {
        check_name(&["ISO_IR 100"], "Pr\u{fc}fling^J\u{f6}rg", b"Pr\xfcfling^J\xf6rg");
        check_name(&["ISO_IR 192"], "\u{5c71}\u{7530}^\u{592a}\u{90ce}", "\u{5c71}\u{7530}^\u{592a}\u{90ce}".as_bytes());
        // Escape sequences are not decoded by dicom-rs 0.10, so they are text of their own (PS3.5 H.3).
        let japanese = "Yamada^Tarou=\u{1b}$B;3ED\u{1b}(B^\u{1b}$BB@O:\u{1b}(B";
        check_name(&["", "ISO 2022 IR 87"], japanese, japanese.as_bytes());
        check_name(&[], "Pr\u{fc}fling", b"Pr\xfcfling");
    }

    fn check_name(charset: &[&str], name: &str, expected: &[u8]) {
        let mut source = InMemDicomObject::new_empty();
        if !charset.is_empty() {
            source.put(DataElement::new(
                tags::SPECIFIC_CHARACTER_SET,
                VR::CS,
                PrimitiveValue::Strs(charset.iter().map(|c| c.to_string()).collect()),
            ));
        }
        source.put(DataElement::new(tags::PATIENT_NAME, VR::PN, dicom_value!(Strs, [name])));
        let object = Item::of_study(&source).text(tags::SOP_CLASS_UID, "1.2").text(tags::SOP_INSTANCE_UID, "1.2.3");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.dcm");
        write_object(&path, object).expect("writes");
        let bytes = std::fs::read(&path).expect("was written");
        let start = bytes.windows(6).position(|w| w == b"\x10\0\x10\0PN").expect("the name is there") + 8;
        assert_eq!(&bytes[start..][..expected.len()], expected);
        let read = dicom::object::open_file(&path).expect("reads");
        assert!(read.get(tags::ACCESSION_NUMBER).is_some(), "type 2 attributes are present");
        assert_eq!(read.meta().implementation_class_uid.trim_end_matches('\0'), implementation_class_uid());
        let again = Item::of_study(&read);
        let again = again.into_inner();
        assert_eq!(again.get(tags::PATIENT_NAME).expect("copied").value().to_str().expect("text"), name);
    }

    #[test]
    fn a_full_disk_is_no_fault_of_the_data_set() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut item = dicom::object::InMemDicomObject::new_empty();
        item.put_str(tags::PATIENT_ID, dicom::core::VR::LO, "x");
        let syntax = dicom::transfer_syntax::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
        let error = unwritten(&item.write_dataset_with_ts(Full, &syntax).unwrap_err(), "sr.dcm");
        assert!(matches!(&error, WriteError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error:?}");
    }
}
