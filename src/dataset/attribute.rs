//! Attributes that rules ask for by tag or keyword, and which of their values may be repeated.
//!
//! Of a multi-frame image a frame's own functional groups are asked first, then the shared ones, then the data set.
//!
//! 1. Whatever can identify a person is refused when the rule is read: names, dates, numbers of the patient or of the request.
//! 2. Free text can hold anything: rules may ask for it, [`Attribute::shown`] never repeats it.
//! 3. Codes and numbers are repeated only where they look like codes and numbers.

use std::fmt;

use dicom::core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom::core::{PrimitiveValue, Tag, VR};
use dicom::dictionary_std::{StandardDataDictionary, tags};
use dicom::object::InMemDicomObject;

use super::layout::ascii;
use super::{Attributes, Frame, Instance};
use crate::codes::is_uid;

/// Sequences within sequences that one attribute may name.
const MAX_STEPS: usize = 4;
/// Longest text that a scanner setting has (VR SH).
const MAX_SETTING: usize = 16;

/// Groups that hold who the patient is, who asked, when and for what trial (PS3.15 table E.1-1).
const PERSONAL_GROUPS: [u16; 8] = [0x0010, 0x0012, 0x0032, 0x0038, 0x0040, 0x0088, 0x4000, 0x4008];
/// What rules may ask for in those groups all the same; values of these are not shown.
const ALLOWED: [Tag; 6] = [
    tags::PATIENT_SEX,
    tags::PATIENT_AGE,
    tags::PATIENT_SPECIES_DESCRIPTION,
    tags::PATIENT_SPECIES_CODE_SEQUENCE,
    tags::REQUESTED_PROCEDURE_DESCRIPTION,
    tags::PERFORMED_PROCEDURE_STEP_DESCRIPTION,
];
/// Attributes of other groups that name a person, an institution, a device or a request (PS3.15 table E.1-1); names, dates and
/// times are refused by their VR.
const PERSONAL: [Tag; 20] = [
    tags::ACCESSION_NUMBER,
    tags::INSTITUTION_NAME,
    tags::INSTITUTION_ADDRESS,
    tags::INSTITUTION_CODE_SEQUENCE,
    tags::REFERRING_PHYSICIAN_ADDRESS,
    tags::REFERRING_PHYSICIAN_TELEPHONE_NUMBERS,
    tags::REFERRING_PHYSICIAN_IDENTIFICATION_SEQUENCE,
    tags::PHYSICIANS_OF_RECORD_IDENTIFICATION_SEQUENCE,
    tags::PERFORMING_PHYSICIAN_IDENTIFICATION_SEQUENCE,
    tags::PHYSICIANS_READING_STUDY_IDENTIFICATION_SEQUENCE,
    tags::OPERATOR_IDENTIFICATION_SEQUENCE,
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::ADMITTING_DIAGNOSES_CODE_SEQUENCE,
    tags::INSTITUTIONAL_DEPARTMENT_NAME,
    tags::STATION_NAME,
    tags::DEVICE_SERIAL_NUMBER,
    tags::STUDY_ID,
    tags::IMAGE_COMMENTS,
    tags::REFERENCED_PATIENT_SEQUENCE,
    tags::REFERENCED_PATIENT_PHOTO_SEQUENCE,
];
/// Texts that the scanner sets, not a person.
const SETTINGS: [Tag; 8] = [
    tags::CONVOLUTION_KERNEL,
    tags::FILTER_TYPE,
    tags::MANUFACTURER,
    tags::MANUFACTURER_MODEL_NAME,
    tags::SOFTWARE_VERSIONS,
    tags::SEQUENCE_NAME,
    tags::RECEIVE_COIL_NAME,
    tags::RESCALE_TYPE,
];

/// An attribute of an image, by tag or keyword (PS3.6), through sequences where its name says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Sequences, then the attribute; of a private attribute the one tag, without its block.
    path: Vec<Tag>,
    /// Who reserved the block, for a private attribute.
    creator: Option<String>,
    name: String,
    vr: VR,
}

impl Attribute {
    /// Reads `(0018,0087)`, `MagneticFieldStrength`, `AnatomicRegionSequence.CodeValue`, or with `creator` the private `(0019,xx0C)`.
    ///
    /// # Errors
    /// A text that names no attribute, or one that rules must not ask for, with what would do.
    pub fn parse(text: &str, creator: Option<&str>) -> Result<Self, String> {
        if let Some(creator) = creator {
            return Self::private(text, creator);
        }
        let steps: Vec<&str> = text.split('.').collect();
        if steps.len() > MAX_STEPS {
            return Err(format!("`{text}` goes through more than {} sequences", MAX_STEPS - 1));
        }
        let mut path = Vec::new();
        let (mut name, mut vr) = (String::new(), VR::UN);
        for (n, step) in steps.iter().enumerate() {
            let unknown =
                || format!("`{step}` is no attribute: give a tag as \"(0018,0087)\" or a keyword of PS3.6 as \"MagneticFieldStrength\"");
            let tag = step.parse::<Tag>().ok();
            if tag.is_some_and(|t| t.group() % 2 == 1) {
                return Err(format!("`{step}` is private: give it as \"(0019,xx0C)\" with `creator`, the text that reserves its block"));
            }
            let entry = match tag {
                Some(tag) => StandardDataDictionary.by_tag(tag),
                None => StandardDataDictionary.by_name(step),
            };
            let entry = entry.ok_or_else(unknown)?;
            let tag = tag.unwrap_or_else(|| entry.tag());
            vr = entry.vr().relaxed();
            if is_personal(tag, vr) {
                return Err(format!("{} {tag} can identify a person: rules must not ask for it", entry.alias()));
            }
            if n + 1 < steps.len() && vr != VR::SQ {
                return Err(format!("{} {tag} is no sequence", entry.alias()));
            }
            name = if n == 0 { format!("{} {tag}", entry.alias()) } else { format!("{name}.{} {tag}", entry.alias()) };
            path.push(tag);
        }
        if matches!(vr, VR::OB | VR::OW | VR::OD | VR::OF | VR::OL | VR::OV | VR::UN) {
            return Err(format!("{name} holds bytes, not values"));
        }
        Ok(Self { path, creator: None, name, vr })
    }

    fn private(text: &str, creator: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` with a `creator` must be a private tag without its block, as \"(0019,xx0C)\"");
        let (group, element) = text.trim_start_matches('(').trim_end_matches(')').split_once(",xx").ok_or_else(wrong)?;
        let group = u16::from_str_radix(group, 16).ok().filter(|g| g % 2 == 1 && *g > 8).ok_or_else(wrong)?;
        let element = u8::from_str_radix(element, 16).ok().filter(|_| element.len() == 2).ok_or_else(wrong)?;
        if creator.is_empty() || creator.len() > 64 {
            return Err("`creator` takes 1 to 64 characters".to_owned());
        }
        let name = format!("({group:04X},xx{element:02X}) of {creator}");
        Ok(Self { path: vec![Tag(group, element.into())], creator: Some(creator.to_owned()), name, vr: VR::UN })
    }

    /// A keyword that this program itself asks for.
    ///
    /// # Panics
    /// Where it is none: a broken promise of the caller.
    pub fn known(keyword: &str) -> Self {
        Self::parse(keyword, None).expect("a keyword of PS3.6 that names no person")
    }

    /// Whether it is a sequence: a value is then a code as `SCT:51185008`, or `item` for what is no code.
    pub fn is_sequence(&self) -> bool {
        self.vr == VR::SQ
    }

    /// Whether its value is patient data that rules may ask for but nothing shows, not even to a person at the machine.
    pub fn is_patient_data(&self) -> bool {
        self.path.iter().any(|t| t.group() == 0x0010)
    }

    /// The values for one frame: of its functional groups, of the shared ones, or of the data set itself. Empty where the attribute is
    /// absent, has no value, or the header cannot be parsed.
    pub fn values(&self, frame: &Frame) -> Vec<String> {
        let Ok(context) = frame.context() else { return Vec::new() };
        let in_group = |group: &InMemDicomObject| -> Vec<String> {
            let macros = group.iter().filter_map(|e| e.items()).flatten();
            macros.map(|m| self.values_in(m)).find(|v| !v.is_empty()).unwrap_or_default()
        };
        let groups = [context.per_frame, context.shared].into_iter().flatten();
        groups.map(in_group).find(|v| !v.is_empty()).unwrap_or_else(|| self.values_in(context.root))
    }

    fn values_in(&self, object: &InMemDicomObject) -> Vec<String> {
        match (&self.creator, self.path.as_slice()) {
            (Some(creator), [tag]) => {
                let element = object.private_element(tag.group(), creator, tag.element() as u8).ok();
                element.and_then(|e| e.value().primitive()).map(texts).unwrap_or_default()
            }
            (_, path) => values_along(object, path),
        }
    }

    /// The value as it may be repeated in messages and reports; `None` for what must not be.
    pub fn shown<'v>(&self, value: &'v str) -> Option<&'v str> {
        let tag = *self.path.last()?;
        let shown = match self.vr {
            _ if self.is_patient_data() => false,
            VR::CS => is_plain(value, " _-./+"),
            VR::SQ => value.len() <= 40 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b)),
            VR::UI => is_uid(value),
            VR::IS | VR::DS | VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV | VR::FL | VR::FD => is_number(value),
            _ if self.creator.is_some() => is_number(value),
            _ => SETTINGS.contains(&tag) && is_plain(value, "_-./+"),
        };
        shown.then_some(value)
    }

    /// The value as a number; an age (VR AS) in years.
    pub fn number(&self, value: &str) -> Option<f64> {
        if self.vr == VR::AS {
            let (count, unit) = value.split_at_checked(3)?;
            let days = match unit {
                "D" => 1.0,
                "W" => 7.0,
                "M" => 365.25 / 12.0,
                "Y" => 365.25,
                _ => return None,
            };
            return Some(f64::from(count.parse::<u16>().ok()?) * days / 365.25);
        }
        value.parse().ok().filter(|n: &f64| n.is_finite())
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// When an instance was acquired, as 14 digits YYYYMMDDhhmmss, to be compared only: Acquisition DateTime, or else date and time of
/// acquisition, or else of the series. Dates are not shown.
pub fn acquired_at(instance: &Instance) -> Option<String> {
    let digits = |tag| -> String {
        let value = instance.attributes.texts(tag).into_iter().next().unwrap_or_default();
        value.chars().take_while(|c| c.is_ascii_digit()).collect()
    };
    let joined = |date, time| digits(date) + &digits(time);
    let candidates = [
        digits(tags::ACQUISITION_DATE_TIME),
        joined(tags::ACQUISITION_DATE, tags::ACQUISITION_TIME),
        joined(tags::SERIES_DATE, tags::SERIES_TIME),
    ];
    candidates.into_iter().find(|c| c.len() >= 8).map(|c| format!("{:0<14}", &c[..c.len().min(14)]))
}

/// PS3.15 table E.1-1, by group, by tag, and by VR: names, dates, times, AE titles.
fn is_personal(tag: Tag, vr: VR) -> bool {
    if ALLOWED.contains(&tag) {
        return false;
    }
    PERSONAL_GROUPS.contains(&tag.group()) || PERSONAL.contains(&tag) || matches!(vr, VR::PN | VR::DA | VR::DT | VR::TM | VR::AE)
}

fn is_number(value: &str) -> bool {
    value.len() <= 32 && value.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Short, letters and digits, and of all else only `marks`.
fn is_plain(value: &str, marks: &str) -> bool {
    value.len() <= MAX_SETTING && value.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

/// Values at the end of `path`, of every item on the way. Empty values do not count.
fn values_along(object: &InMemDicomObject, path: &[Tag]) -> Vec<String> {
    let Some((&tag, rest)) = path.split_first() else { return Vec::new() };
    let Some(element) = object.get(tag) else { return Vec::new() };
    match (element.items(), element.value().primitive()) {
        (Some(items), _) if rest.is_empty() => items.iter().map(code_of).collect(),
        (Some(items), _) => items.iter().flat_map(|item| values_along(item, rest)).collect(),
        (None, Some(value)) if rest.is_empty() => texts(value),
        _ => Vec::new(),
    }
}

/// The code in an item of a code sequence (PS3.3 8.8) as `scheme:value`.
fn code_of(item: &InMemDicomObject) -> String {
    let text = |tag| values_along(item, &[tag]).into_iter().next().unwrap_or_default();
    let value = [text(tags::CODE_VALUE), text(tags::LONG_CODE_VALUE)].into_iter().find(|v| !v.is_empty());
    value.map_or_else(|| "item".to_owned(), |value| format!("{}:{value}", text(tags::CODING_SCHEME_DESIGNATOR)))
}

/// The values as text, padding taken off, empty ones left out. Bytes (an element written with VR UN) count as text.
fn texts(value: &PrimitiveValue) -> Vec<String> {
    let all: Vec<String> = match value {
        PrimitiveValue::Empty => Vec::new(),
        PrimitiveValue::U8(bytes) => bytes.split(|&b| b == b'\\').map(ascii).collect(),
        other => other.to_multi_str().iter().map(|v| ascii(v.as_bytes())).collect(),
    };
    all.into_iter().filter(|v| !v.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use dicom::core::value::DataSetSequence;
    use dicom::core::{DataElement, Length};
    use dicom::object::mem::InMemElement;

    use super::*;
    use crate::dataset::testing;

    fn item(elements: Vec<InMemElement>) -> InMemDicomObject {
        InMemDicomObject::from_element_iter(elements)
    }

    fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> InMemElement {
        DataElement::new(tag, VR::SQ, DataSetSequence::new(items, Length::UNDEFINED))
    }

    fn values(attribute: &Attribute, instance: &Instance) -> Vec<Vec<String>> {
        let frames = Frame::all_of(&std::sync::Arc::new(instance.clone())).expect("frames are described");
        frames.iter().map(|frame| attribute.values(frame)).collect()
    }

    fn with(elements: Vec<InMemElement>) -> Instance {
        testing::Slice { more: elements, ..testing::slice(0) }.instance()
    }

    #[test]
    fn tags_keywords_and_paths_are_names() {
        for text in ["(0018,0087)", "0018,0087", "MagneticFieldStrength"] {
            assert_eq!(Attribute::parse(text, None).map(|a| a.to_string()), Ok("MagneticFieldStrength (0018,0087)".into()), "{text}");
        }
        let path = Attribute::parse("AnatomicRegionSequence.CodeValue", None).expect("a path");
        assert_eq!(path.to_string(), "AnatomicRegionSequence (0008,2218).CodeValue (0008,0100)");
        assert!(Attribute::parse("(0019,xx0C)", Some("SIEMENS MR HEADER")).is_ok());
    }

    #[test]
    fn what_no_rule_may_ask_for() {
        let check = |text, creator, part: &str| {
            let error = Attribute::parse(text, creator).expect_err(text);
            assert!(error.contains(part), "{error}");
        };
        for personal in [
            "PatientName",
            "PatientID",
            "(0010,0030)",
            "OtherPatientIDsSequence.PatientID",
            "StudyDate",
            "AccessionNumber",
            "InstitutionName",
            "OperatorsName",
            "StationName",
            "RetrieveAETitle",
            "RequestAttributesSequence.RequestedProcedureDescription",
        ] {
            check(personal, None, "can identify a person");
        }
        check("FieldStrength", None, "MagneticFieldStrength");
        check("(0018,FFFF)", None, "no attribute");
        check("(0019,100C)", None, "`creator`");
        check("(0019,100C)", Some("SIEMENS MR HEADER"), "without its block");
        check("(0018,xx0C)", Some("SIEMENS MR HEADER"), "without its block");
        check("Modality.CodeValue", None, "no sequence");
        check("PixelData", None, "bytes");
        for allowed in ["PatientSex", "PatientAge", "RequestedProcedureDescription", "SeriesDescription"] {
            assert!(Attribute::parse(allowed, None).is_ok(), "{allowed}");
        }
    }

    #[test]
    fn only_codes_and_numbers_are_shown() {
        let check = |keyword: &str, value: &str, shown: bool| {
            assert_eq!(Attribute::known(keyword).shown(value).is_some(), shown, "{keyword} {value}");
        };
        check("BodyPartExamined", "CHEST", true);
        check("BodyPartExamined", "DOE^JOHN", false);
        check("BodyPartExamined", "DOE, JOHN", false);
        check("KVP", "120", true);
        check("KVP", "Doe", false);
        check("SOPClassUID", "1.2.840", true);
        check("SOPClassUID", "Doe", false);
        check("ConvolutionKernel", "Br40d", true);
        check("ConvolutionKernel", "FOR DOE^JOHN", false);
        check("ConvolutionKernel", "for John Doe", false);
        check("SeriesDescription", "CHEST", false);
        check("ProtocolName", "CHEST", false);
        check("ContrastBolusAgent", "ULTRAVIST", false);
        check("PatientSex", "M", false);
        check("PatientAge", "045Y", false);
        check("AnatomicRegionSequence", "SCT:51185008", true);
        let private = Attribute::parse("(0043,xx39)", Some("GEMS_PARM_01")).expect("a private tag");
        assert_eq!((private.shown("1000"), private.shown("Doe")), (Some("1000"), None));
    }

    #[test]
    fn ages_are_years() {
        let age = Attribute::known("PatientAge");
        assert_eq!(age.number("045Y"), Some(45.0));
        assert_eq!(age.number("006M"), Some(0.5));
        assert_eq!(age.number("45"), None);
        assert_eq!(Attribute::known("KVP").number("120.0"), Some(120.0));
    }

    #[test]
    fn private_attributes_are_found_by_their_creator_whatever_block_they_have() {
        let instance = with(vec![
            DataElement::new(Tag(0x0019, 0x0010), VR::LO, "SOMEBODY ELSE"),
            DataElement::new(Tag(0x0019, 0x0011), VR::LO, "SIEMENS MR HEADER"),
            DataElement::new(Tag(0x0019, 0x100C), VR::IS, "5"),
            DataElement::new(Tag(0x0019, 0x110C), VR::IS, "1000"),
        ]);
        let b_value = Attribute::parse("(0019,xx0C)", Some("SIEMENS MR HEADER")).expect("a private tag");
        assert_eq!(values(&b_value, &instance), [["1000"]]);
        assert_eq!(values(&b_value, &testing::instance()), [Vec::<String>::new()]);
    }

    #[test]
    fn functional_groups_are_asked_where_the_image_is_silent() {
        let kernel = |k: &str| {
            let reconstruction = item(vec![DataElement::new(tags::CONVOLUTION_KERNEL, VR::SH, k)]);
            item(vec![sequence(tags::CT_RECONSTRUCTION_SEQUENCE, vec![reconstruction])])
        };
        let attribute = Attribute::known("ConvolutionKernel");
        let shared = with(vec![sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![kernel("B30")])]);
        assert_eq!(values(&attribute, &shared), [["B30"]]);
        let frames = with(vec![
            DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "2"),
            sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, vec![kernel("B30"), kernel("B70")]),
        ]);
        assert_eq!(values(&attribute, &frames), [["B30"], ["B70"]]);
    }

    #[test]
    fn code_sequences_are_codes() {
        let code = item(vec![
            DataElement::new(tags::CODE_VALUE, VR::SH, "51185008"),
            DataElement::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, "SCT"),
        ]);
        let instance = with(vec![sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![code])]);
        assert_eq!(values(&Attribute::known("AnatomicRegionSequence"), &instance), [["SCT:51185008"]]);
        assert_eq!(values(&Attribute::known("AnatomicRegionSequence.CodeValue"), &instance), [["51185008"]]);
    }

    #[test]
    fn times_of_acquisition_compare_as_text() {
        let at = |elements| acquired_at(&with(elements));
        assert_eq!(at(vec![DataElement::new(tags::ACQUISITION_DATE_TIME, VR::DT, "20260102030405.5+0100")]), Some("20260102030405".into()));
        let date = DataElement::new(tags::SERIES_DATE, VR::DA, "20260102");
        assert_eq!(at(vec![date]), Some("20260102000000".into()));
        assert_eq!(at(vec![DataElement::new(tags::SERIES_DATE, VR::DA, "***")]), None);
    }
}
