//! Data sets as the DICOM JSON Model has them, and queries over them (PS3.18 annex F, 8.3.4 and 10.6; PS3.4 C.2.2.2).

use dicom::core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom::core::header::Header;
use dicom::core::value::{DataSetSequence, Value};
use dicom::core::{DataElement, PrimitiveValue, Tag, VR};
use dicom::dictionary_std::{StandardDataDictionary, tags};
use dicom::object::InMemDicomObject;
use dicom_json::DicomJson;

use super::{CharacterSet, Item, Reference, decoded_text};

/// What an answer to a query tells of each thing found (PS3.18 tables 10.6.3-3 to 10.6.3-5), as far as the data set has it.
const STUDY: [Tag; 12] = [
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::STUDY_DESCRIPTION,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
];
const SERIES: [Tag; 7] = [
    tags::MODALITY,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::PERFORMED_PROCEDURE_STEP_START_DATE,
    tags::PERFORMED_PROCEDURE_STEP_START_TIME,
    tags::STUDY_INSTANCE_UID,
];
const INSTANCE: [Tag; 9] = [
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::INSTANCE_NUMBER,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::NUMBER_OF_FRAMES,
    tags::SERIES_INSTANCE_UID,
    tags::STUDY_INSTANCE_UID,
];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Studies.
    Study,
    /// Series.
    Series,
    /// Instances.
    Instance,
}

/// A thing that a query may find.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The data set of one of its instances.
    pub header: &'a InMemDicomObject,
    /// Modalities of the study.
    pub modalities: &'a [String],
    /// Series of the study.
    pub series: usize,
    /// Instances of the study or of the series.
    pub instances: usize,
    /// Where it can be retrieved.
    pub url: &'a str,
}

/// Keys of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    keys: Vec<(Tag, VR, String)>,
    include: Vec<Tag>,
    /// Every attribute is asked for.
    all: bool,
    /// Answers at most.
    pub limit: usize,
    /// Answers that are left out before.
    pub offset: usize,
}

impl Query {
    /// Reads the parameters of a request. Attributes stand as keywords or as eight hexadecimal digits.
    ///
    /// # Errors
    /// Which parameter is none.
    pub fn read(parameters: &[(String, String)], most: usize) -> Result<Self, String> {
        let mut query = Self { keys: Vec::new(), include: Vec::new(), all: false, limit: most, offset: 0 };
        let number = |name: &str, value: &str| value.parse::<usize>().map_err(|_| format!("`{name}` is no number"));
        for (name, value) in parameters {
            match name.as_str() {
                "limit" => query.limit = number(name, value)?.min(most),
                "offset" => query.offset = number(name, value)?,
                "fuzzymatching" if value == "false" => {}
                "fuzzymatching" => return Err("fuzzy matching is not done here".into()),
                "includefield" if value == "all" => query.all = true,
                "includefield" => {
                    for field in value.split(',') {
                        query.include.push(attribute(field)?.0);
                    }
                }
                _ => {
                    let (tag, vr) = attribute(name)?;
                    query.keys.push((tag, vr, value.trim().to_owned()));
                }
            }
        }
        Ok(query)
    }

    /// The UIDs that an attribute is asked to be one of; none where it may be any.
    pub fn uids(&self, tag: Tag) -> Option<Vec<&str>> {
        let (_, _, value) = self.keys.iter().find(|(key, _, value)| *key == tag && !value.is_empty())?;
        Some(value.split([',', '\\']).collect())
    }

    /// The Study Instance UIDs that are asked for, where that is said.
    pub fn study_uids(&self) -> Option<Vec<&str>> {
        self.uids(tags::STUDY_INSTANCE_UID)
    }

    /// What is told of `candidate`, where it is asked for.
    pub fn answer(&self, level: Level, candidate: &Candidate<'_>) -> Option<InMemDicomObject> {
        let matches = self.keys.iter().all(|(tag, vr, key)| match *tag {
            tags::MODALITIES_IN_STUDY => candidate.modalities.iter().any(|one| matches(*vr, key, one)),
            tag => matches(*vr, key, &decoded_text(candidate.header, tag)),
        });
        matches.then(|| self.told(level, candidate))
    }

    fn told(&self, level: Level, candidate: &Candidate<'_>) -> InMemDicomObject {
        let Candidate { header, modalities, series, instances, url } = candidate;
        let mut attributes: Vec<Tag> = match level {
            Level::Study => STUDY.to_vec(),
            Level::Series => SERIES.to_vec(),
            Level::Instance => INSTANCE.to_vec(),
        };
        attributes.extend(&self.include);
        attributes.extend(self.keys.iter().map(|(tag, ..)| *tag));
        let mut item = match self.all {
            true => Item::from((*header).clone()),
            false => attributes.into_iter().fold(Item::new(), |item, tag| item.copied(tag, header)),
        };
        item = item.copied(tags::SPECIFIC_CHARACTER_SET, header).text(tags::INSTANCE_AVAILABILITY, "ONLINE").text(tags::RETRIEVE_URL, url);
        let count = |count: &usize| u32::try_from(*count).unwrap_or(u32::MAX);
        item = match level {
            Level::Study => item
                .texts(tags::MODALITIES_IN_STUDY, &modalities.iter().map(String::as_str).collect::<Vec<_>>())
                .integer(tags::NUMBER_OF_STUDY_RELATED_SERIES, count(series))
                .integer(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, count(instances)),
            Level::Series => item.integer(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, count(instances)),
            Level::Instance => item,
        };
        item.into_inner()
    }
}

/// The attribute of that keyword or those digits.
fn attribute(name: &str) -> Result<(Tag, VR), String> {
    // What is asked for within a sequence is not: the sequence as a whole may be included.
    let entry = StandardDataDictionary.by_name(name).map(|entry| (entry.tag(), entry.vr().relaxed()));
    let by_number = || {
        let number = u32::from_str_radix(name, 16).ok().filter(|_| name.len() == 8)?;
        let tag = Tag((number >> 16) as u16, number as u16);
        StandardDataDictionary.by_tag(tag).map(|entry| (tag, entry.vr().relaxed()))
    };
    entry.or_else(by_number).ok_or_else(|| "a parameter that is neither an attribute nor known otherwise".into())
}

/// Whether a value is what a key asks for (PS3.4 C.2.2.2): anything, one of a list of UIDs, within a range of dates or times, or like a
/// text with wildcards. Names are the same in large and small letters.
fn matches(vr: VR, key: &str, value: &str) -> bool {
    match vr {
        _ if key.is_empty() || key == "*" => true,
        VR::UI => key.split([',', '\\']).any(|one| one == value),
        VR::DA | VR::TM | VR::DT if key.contains('-') => {
            let (from, to) = key.split_once('-').unwrap_or((key, ""));
            // A value that is more exact than the end lies before the end of it: 10:30 is within -10.
            !value.is_empty() && value >= from && (to.is_empty() || value <= to || value.starts_with(to))
        }
        VR::PN => like(&key.to_lowercase(), &value.trim_end_matches(['^', '=']).to_lowercase()),
        _ => like(key, value),
    }
}

/// Whether `text` is like `pattern`, in which `*` is any text and `?` any letter. Takes pattern times text steps at most.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// As JSON: all text in UTF-8.
///
/// # Errors
/// Where a value does not fit its VR.
pub fn json(object: &InMemDicomObject) -> Result<String, serde_json::Error> {
    let mut object = in_unicode(object, &CharacterSet::default());
    object.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, PrimitiveValue::from("ISO_IR 192")));
    serde_json::to_string(&DicomJson::from(&object))
}

/// With every text as the character set that is declared for it says, which dicom-rs takes only the first term of.
fn in_unicode(object: &InMemDicomObject, around: &CharacterSet) -> InMemDicomObject {
    let charset = around.within(object);
    let mut made = InMemDicomObject::new_empty();
    for element in object {
        let (tag, vr) = (element.tag(), element.vr());
        made.put(match element.value() {
            Value::Sequence(sequence) => {
                let items: Vec<_> = sequence.items().iter().map(|item| in_unicode(item, &charset)).collect();
                DataElement::new(tag, vr, DataSetSequence::from(items))
            }
            Value::Primitive(_) if matches!(vr, VR::LO | VR::LT | VR::PN | VR::SH | VR::ST | VR::UC | VR::UT) => {
                let texts = charset.texts(object, tag);
                let empty = texts.iter().all(String::is_empty);
                DataElement::new(tag, vr, if empty { PrimitiveValue::Empty } else { PrimitiveValue::Strs(texts.into()) })
            }
            // Numbers where they are some: readers that know no other form of them are older than the one in text.
            Value::Primitive(value) if matches!(vr, VR::DS | VR::IS) => match value.to_multi_float64() {
                Ok(numbers) if !numbers.is_empty() && numbers.iter().all(|n| n.is_finite()) => {
                    let whole = numbers.iter().all(|n| n.fract() == 0.0 && n.abs() <= f64::from(i32::MAX));
                    DataElement::new(
                        tag,
                        vr,
                        match whole {
                            true => PrimitiveValue::I32(numbers.iter().map(|&n| n as i32).collect()),
                            false => PrimitiveValue::F64(numbers.into()),
                        },
                    )
                }
                _ => element.clone(),
            },
            _ => element.clone(),
        });
    }
    made
}

/// What became of the instances of a store transaction (PS3.18 table 10.5.3-1), as JSON.
#[derive(Debug, Default)]
pub struct Stored {
    /// Where the study can be retrieved.
    pub url: Option<String>,
    /// Instances that are kept, each with its own URL and a reason for a warning, where there are such.
    pub kept: Vec<(Reference, Option<String>, Option<u16>)>,
    /// Those that are not, and why.
    pub failed: Vec<(Reference, u16)>,
    /// Parts that are no instance, and why.
    pub other: Vec<u16>,
}

impl Stored {
    /// As JSON.
    pub fn json(&self) -> String {
        let reference = |r: &Reference| {
            Item::new().text(tags::REFERENCED_SOP_CLASS_UID, &r.sop_class_uid).text(tags::REFERENCED_SOP_INSTANCE_UID, &r.sop_instance_uid)
        };
        let mut item = Item::new();
        if let Some(url) = &self.url {
            item = item.text(tags::RETRIEVE_URL, url);
        }
        if !self.failed.is_empty() {
            let failed = self.failed.iter().map(|(r, reason)| reference(r).integer(tags::FAILURE_REASON, (*reason).into()));
            item = item.sequence(tags::FAILED_SOP_SEQUENCE, failed);
        }
        if !self.kept.is_empty() {
            let kept = self.kept.iter().map(|(r, url, warning)| {
                let item = url.iter().fold(reference(r), |item, url| item.text(tags::RETRIEVE_URL, url));
                warning.map_or(item.clone(), |reason| item.integer(tags::WARNING_REASON, reason.into()))
            });
            item = item.sequence(tags::REFERENCED_SOP_SEQUENCE, kept);
        }
        if !self.other.is_empty() {
            let other = self.other.iter().map(|reason| Item::new().integer(tags::FAILURE_REASON, (*reason).into()));
            item = item.sequence(tags::OTHER_FAILURES_SEQUENCE, other);
        }
        serde_json::to_string(&DicomJson::from(item.into_inner())).expect("UIDs, URLs and numbers fit their VRs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_what_it_should() {
        for (vr, key, value, expected) in [
            (VR::LO, "", "anything", true),
            (VR::LO, "A?C*", "ABCDE", true),
            (VR::LO, "*C*E", "ABCDCE", true),
            (VR::LO, "A*B", "AxC", false),
            (VR::LO, "abc", "ABC", false),
            (VR::PN, "m\u{fc}ll*", "M\u{dc}LLER^ANNA^", true),
            (VR::PN, "*^anna", "M\u{dc}LLER^ANNA^", true),
            (VR::UI, "1.2,1.3", "1.3", true),
            (VR::UI, "1.2*", "1.3", false),
            (VR::DA, "20260101-20261231", "20260704", true),
            (VR::DA, "-20260101", "20260704", false),
            (VR::DA, "20260705-", "20260704", false),
            (VR::DA, "20260101-", "", false),
            (VR::TM, "0930-10", "103000", true),
        ] {
            assert_eq!(matches(vr, key, value), expected, "{key} on {value}");
        }
        assert!(!like(&"*a".repeat(2000), &"a".repeat(1000)), "and soon");
    }

    #[test]
    fn parameters_are_read() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> = pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            Query::read(&pairs, 100)
        };
        let query =
            read(&[("PatientID", "7"), ("0020000D", "1.2,1.3"), ("includefield", "StudyDescription"), ("limit", "5"), ("offset", "2")]);
        let query = query.expect("attributes");
        assert_eq!((query.limit, query.offset, query.study_uids()), (5, 2, Some(vec!["1.2", "1.3"])));
        assert_eq!(read(&[("limit", "1000")]).expect("a number").limit, 100);
        for wrong in [("PatientsShoeSize", "44"), ("limit", "many"), ("fuzzymatching", "true")] {
            read(&[wrong]).expect_err("refused");
        }
    }
}
