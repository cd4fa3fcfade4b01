//! Text of patients and scanners in Unicode, for people: Specific Character Set (PS3.3 C.12.1.1.2, PS3.5 6.1).
//!
//! Results copy such text byte for byte and need none of this. dicom-rs decodes by the first value of the attribute alone; code extensions
//! (ISO 2022), which Japanese, Korean and Chinese names are written with, are decoded here.

use dicom::core::value::Value;
use dicom::core::{PrimitiveValue, Tag};
use dicom::encoding::text::{SpecificCharacterSet, TextCodec};
use dicom::object::InMemDicomObject;
use encoding_rs::{
    EUC_JP, EUC_KR, Encoding, GB18030, GBK, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5, ISO_8859_6, ISO_8859_7, ISO_8859_8,
    ISO_8859_15, UTF_8, WINDOWS_874, WINDOWS_1252, WINDOWS_1254,
};

use super::{Attributes, tags};

/// The first value of a text attribute in Unicode, padding taken off; of a person name all component groups. Empty where there is none.
/// What cannot be decoded is U+FFFD.
pub fn decoded_text(object: &InMemDicomObject, tag: Tag) -> String {
    CharacterSet::of(object).texts(object, tag).into_iter().next().unwrap_or_default()
}

/// The character sets that a data set declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CharacterSet {
    /// The defined terms, in order; nothing is the default repertoire.
    terms: Vec<String>,
}

impl CharacterSet {
    /// As the data set declares them in (0008,0005).
    pub fn of(object: &InMemDicomObject) -> Self {
        Self { terms: object.texts(tags::SPECIFIC_CHARACTER_SET) }
    }

    /// Of an item of a sequence: what it declares itself, else what the data set around it does (PS3.5 7.5.3).
    #[must_use]
    pub fn within(&self, item: &InMemDicomObject) -> Self {
        if item.has(tags::SPECIFIC_CHARACTER_SET) { Self::of(item) } else { self.clone() }
    }

    /// All values of a text attribute of `object`, as [`decoded_text`] gives the first.
    pub fn texts(&self, object: &InMemDicomObject, tag: Tag) -> Vec<String> {
        let Some(Value::Primitive(value)) = object.get(tag).map(|e| e.value()) else { return Vec::new() };
        let decoded = match value {
            PrimitiveValue::U8(bytes) => self.decode(bytes),
            // dicom-rs has decoded by the first term; its bytes come back from what it made of them.
            PrimitiveValue::Str(text) => self.decode(&self.encoded(text)),
            PrimitiveValue::Strs(texts) => return texts.iter().map(|text| trimmed(&self.decode(&self.encoded(text)))).collect(),
            other => return other.to_multi_str().iter().map(|text| trimmed(text)).collect(),
        };
        vec![trimmed(&decoded)]
    }

    fn encoded(&self, text: &str) -> Vec<u8> {
        self.of_dicom_rs().encode(text).unwrap_or_else(|_| text.as_bytes().to_vec())
    }

    /// Whether dicom-rs would give these bytes back after reading them as text.
    pub(super) fn survives(&self, bytes: &[u8]) -> bool {
        let codec = self.of_dicom_rs();
        codec.decode(bytes).ok().and_then(|text| codec.encode(&text).ok()).is_some_and(|again| again == bytes)
    }

    /// What dicom-rs reads and writes by.
    fn of_dicom_rs(&self) -> SpecificCharacterSet {
        self.terms.first().and_then(|term| SpecificCharacterSet::from_code(term)).unwrap_or_default()
    }

    /// Bytes of a text value in Unicode.
    pub fn decode(&self, bytes: &[u8]) -> String {
        match self.terms.first().map_or("", String::as_str) {
            _ if bytes.is_ascii() && !bytes.contains(&ESCAPE) => bytes.iter().map(|&byte| char::from(byte)).collect(),
            "ISO_IR 192" => UTF_8.decode_without_bom_handling(bytes).0.into_owned(),
            "GB18030" => GB18030.decode_without_bom_handling(bytes).0.into_owned(),
            "GBK" => GBK.decode_without_bom_handling(bytes).0.into_owned(),
            first => iso_2022(bytes, single_byte(first)),
        }
    }
}

const ESCAPE: u8 = 0x1B;

/// What bytes mean between escape sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// ISO 646, ISO 8859 and TIS 620: ASCII and one set of letters above.
    Single(&'static Encoding),
    /// JIS X 0201: half-width katakana above.
    Katakana,
    /// Pairs of seven-bit bytes, which EUC-JP writes with the high bit, JIS X 0212 after 0x8F.
    Jis { supplementary: bool },
    /// Pairs of eight-bit bytes beside ASCII: Korean, Chinese.
    Pairs(&'static Encoding),
}

/// The set of a first value. Latin-1 is also what readers show undeclared bytes as.
fn single_byte(term: &str) -> Set {
    let number = term.rsplit([' ', '_']).next().unwrap_or_default();
    match number {
        "101" => Set::Single(ISO_8859_2),
        "109" => Set::Single(ISO_8859_3),
        "110" => Set::Single(ISO_8859_4),
        "144" => Set::Single(ISO_8859_5),
        "127" => Set::Single(ISO_8859_6),
        "126" => Set::Single(ISO_8859_7),
        "138" => Set::Single(ISO_8859_8),
        "148" => Set::Single(WINDOWS_1254),
        "203" => Set::Single(ISO_8859_15),
        "166" => Set::Single(WINDOWS_874),
        "13" => Set::Katakana,
        "149" => Set::Pairs(EUC_KR),
        "58" => Set::Pairs(GBK),
        _ => Set::Single(WINDOWS_1252),
    }
}

/// Escape sequences without the escape itself, and what follows them (PS3.3 tables C.12-3 and C.12-4).
const SEQUENCES: [(&[u8], Set); 18] = [
    (b"(B", Set::Single(WINDOWS_1252)),
    (b"(J", Set::Katakana),
    (b")I", Set::Katakana),
    (b"$B", Set::Jis { supplementary: false }),
    (b"$(D", Set::Jis { supplementary: true }),
    (b"$)C", Set::Pairs(EUC_KR)),
    (b"$)A", Set::Pairs(GBK)),
    (b"-A", Set::Single(WINDOWS_1252)),
    (b"-B", Set::Single(ISO_8859_2)),
    (b"-C", Set::Single(ISO_8859_3)),
    (b"-D", Set::Single(ISO_8859_4)),
    (b"-L", Set::Single(ISO_8859_5)),
    (b"-G", Set::Single(ISO_8859_6)),
    (b"-F", Set::Single(ISO_8859_7)),
    (b"-H", Set::Single(ISO_8859_8)),
    (b"-M", Set::Single(WINDOWS_1254)),
    (b"-b", Set::Single(ISO_8859_15)),
    (b"-T", Set::Single(WINDOWS_874)),
];

/// Decodes text with code extensions. Delimiters of names, values and lines lead back to `initial` (PS3.5 6.1.2.5.3).
fn iso_2022(bytes: &[u8], initial: Set) -> String {
    let mut text = String::new();
    let (mut set, mut from, mut n) = (initial, 0, 0);
    while n < bytes.len() {
        if bytes[n] == ESCAPE {
            text.push_str(&of_set(&bytes[from..n], set));
            let rest = &bytes[n + 1..];
            let known = SEQUENCES.iter().find(|(sequence, _)| rest.starts_with(sequence));
            n += 1;
            if let Some((sequence, next)) = known {
                // Back to ASCII in the lower half, with the letters above that were there at the beginning.
                set = if *sequence == b"(B" { initial } else { *next };
                n += sequence.len();
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            from = n;
        } else if matches!(bytes[n], b'\\' | b'^' | b'=' | b'\t' | b'\n' | b'\r' | 0x0C) && !matches!(set, Set::Jis { .. }) {
            text.push_str(&of_set(&bytes[from..n], set));
            text.push(char::from(bytes[n]));
            (set, n) = (initial, n + 1);
            from = n;
        } else {
            n += 1;
        }
    }
    text.push_str(&of_set(&bytes[from..], set));
    text
}

/// Decodes a run of bytes of one set.
fn of_set(bytes: &[u8], set: Set) -> String {
    let decoded = |encoding: &'static Encoding, bytes: &[u8]| encoding.decode_without_bom_handling(bytes).0.into_owned();
    match set {
        Set::Single(encoding) | Set::Pairs(encoding) => decoded(encoding, bytes),
        Set::Katakana => {
            let letter = |&byte: &u8| match byte {
                0..0x80 => char::from(byte),
                0xA1..=0xDF => char::from_u32(0xFF61 + u32::from(byte - 0xA1)).unwrap_or(char::REPLACEMENT_CHARACTER),
                _ => char::REPLACEMENT_CHARACTER,
            };
            bytes.iter().map(letter).collect()
        }
        Set::Jis { supplementary } => {
            let prefix: &[u8] = if supplementary { &[0x8F] } else { &[] };
            let euc: Vec<u8> = bytes.chunks(2).flat_map(|pair| prefix.iter().copied().chain(pair.iter().map(|byte| byte | 0x80))).collect();
            decoded(EUC_JP, &euc)
        }
    }
}

fn trimmed(text: &str) -> String {
    text.trim_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    fn decoded(terms: &[&str], bytes: &[u8]) -> String {
        CharacterSet { terms: terms.iter().map(|&term| term.to_owned()).collect() }.decode(bytes)
    }

    /// The examples of PS3.5 annexes H, I, J and K.
    #[test]
    fn names_of_the_standard() {
        let japanese = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
        assert_eq!(decoded(&["", "ISO 2022 IR 87"], japanese), "Yamada^Tarou=山田^太郎=やまだ^たろう");
        let half_width = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J";
        assert_eq!(decoded(&["ISO 2022 IR 13", "ISO 2022 IR 87"], half_width), "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎");
        let korean = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf";
        assert_eq!(decoded(&["", "ISO 2022 IR 149"], korean), "Hong^Gildong=洪^吉洞=홍^길동");
        assert_eq!(decoded(&["ISO_IR 192"], "Wang^XiaoDong=王^小東".as_bytes()), "Wang^XiaoDong=王^小東");
        assert_eq!(decoded(&["GB18030"], b"Wang=\xcd\xf5^\xd0\xa1\xb6\xab"), "Wang=王^小东");
        let chinese = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab";
        assert_eq!(decoded(&["", "ISO 2022 IR 58"], chinese), "Zhang^XiaoDong=张^小东");
        assert_eq!(decoded(&["ISO_IR 100"], b"Buc^J\xe9r\xf4me"), "Buc^Jérôme");
        assert_eq!(decoded(&["ISO_IR 144"], b"\xbb\xee\xda"), "Люк");
        assert_eq!(decoded(&["ISO 2022 IR 100", "ISO 2022 IR 144"], b"J\xe9=\x1b-L\xbb\xee\xda^\xe9"), "Jé=Люк^é");
    }

    #[test]
    fn what_is_no_text_of_its_set_is_marked() {
        assert_eq!(decoded(&["ISO_IR 192"], b"M\xfcller"), "M\u{FFFD}ller");
        assert_eq!(decoded(&["", "ISO 2022 IR 87"], b"a\x1b$Qb"), "a\u{FFFD}$Qb");
        assert_eq!(decoded(&[], b"M\xfcller"), "Müller", "undeclared bytes are shown as Latin-1");
    }

    #[test]
    fn values_that_dicom_rs_has_read() {
        let object = Item::new().text(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 100").into_inner();
        let mut named = object.clone();
        named.put(dicom::core::DataElement::new(tags::PATIENT_NAME, dicom::core::VR::PN, PrimitiveValue::from("Müller^Ärne ")));
        assert_eq!(decoded_text(&named, tags::PATIENT_NAME), "Müller^Ärne");
        assert_eq!(decoded_text(&object, tags::PATIENT_NAME), "");
        assert!(!CharacterSet::of(&Item::new().text(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 192").into_inner()).survives(b"M\xfcller"));
        assert!(CharacterSet::of(&object).survives(b"M\xfcller"));
    }
}
