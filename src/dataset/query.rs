//! The identifiers of queries (PS3.4 C.6.2): what an archive is asked, and what it answers.

use std::path::Path;

use dicom::core::Tag;
use dicom::dictionary_std::{tags, uids};
use dicom::encoding::TransferSyntaxIndex;
use dicom::object::InMemDicomObject;
use dicom::transfer_syntax::TransferSyntaxRegistry;
use jiff::civil::Date;
use serde_json::{Map, Value};

use super::layout::{Layout, Source};
use super::{Attributes, CharacterSet, DatasetError, Header, Instance, Item, WriteError};
use crate::codes::{Uid, is_uid};

/// Who a patient is, as far as two data sets can be held against each other. Compared, and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Patient ID (0010,0020).
    id: String,
    /// Issuer of Patient ID (0010,0021).
    issuer: String,
    /// Patient's Birth Date (0010,0030).
    birth_date: String,
    /// Patient's Sex (0010,0040).
    sex: String,
    /// Patient's Name (0010,0010): family and given name of the first component group that there is.
    name: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// As a data set has it.
    pub fn of(object: &InMemDicomObject) -> Self {
        let charset = CharacterSet::of(object);
        let text = |tag| charset.texts(object, tag).into_iter().next().unwrap_or_default().trim().to_owned();
        let name = text(tags::PATIENT_NAME).to_uppercase();
        let group = name.split('=').map(|group| group.trim_matches(['^', ' '])).find(|group| !group.is_empty()).unwrap_or_default();
        let parts: Vec<&str> = group.split('^').take(2).map(str::trim).collect();
        Self {
            id: text(tags::PATIENT_ID),
            issuer: text(tags::ISSUER_OF_PATIENT_ID),
            birth_date: text(tags::PATIENT_BIRTH_DATE).replace('.', ""),
            sex: text(tags::PATIENT_SEX),
            name: parts.join("^"),
        }
    }

    /// As an instance has it.
    ///
    /// # Errors
    /// Where its header is too damaged.
    pub fn of_instance(instance: &Instance) -> Result<Self, DatasetError> {
        Ok(Self::of(instance.header()?))
    }

    /// Whether there is an ID that others can be asked for.
    pub fn has_id(&self) -> bool {
        !self.id.is_empty()
    }

    /// Patient ID, where there is one: to bring together what may be one patient's.
    pub fn id(&self) -> Option<&str> {
        Some(self.id.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether both are one patient beyond doubt: the same Patient ID, no other issuer, birth date or sex; and the same birth date, or the
    /// same name where one of them has none. A name alone may change, an ID alone may be another hospital's.
    pub fn is(&self, other: &Self) -> bool {
        let no_other = |ours: &str, theirs: &str| ours.is_empty() || theirs.is_empty() || ours == theirs;
        let both_born = !self.birth_date.is_empty() && !other.birth_date.is_empty();
        let known_sex = |sex: &str| ["M", "F"].contains(&sex);
        self.has_id()
            && self.id == other.id
            && no_other(&self.issuer, &other.issuer)
            && no_other(&self.birth_date, &other.birth_date)
            && !(known_sex(&self.sex) && known_sex(&other.sex) && self.sex != other.sex)
            && (both_born || (!self.name.is_empty() && self.name == other.name))
    }
}

/// When a study was made: Study Date (0008,0020) and Study Time (0008,0030); none where there is no date.
pub fn study_began(object: &impl Attributes) -> Option<(Date, String)> {
    let text = object.text(tags::STUDY_DATE).replace('.', "");
    let date = Date::strptime("%Y%m%d", &text).ok()?;
    Some((date, object.text(tags::STUDY_TIME).replace(':', "")))
}

/// A study as an archive names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyMatch {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// When it was made.
    pub began: Option<(Date, String)>,
    /// Modalities in Study (0008,0061); empty where the archive does not say.
    pub modalities: Vec<String>,
    /// Number of Study Related Instances (0020,1208), where the archive says.
    pub instances: Option<u32>,
    /// Accession Number (0008,0050); empty where the archive does not say.
    pub accession_number: String,
    /// Whose; of an answer in JSON nobody's.
    pub patient: Identity,
}

impl StudyMatch {
    /// Reads an identifier of an answer, in either native transfer syntax.
    ///
    /// # Errors
    /// Where it is no data set, or names no study.
    pub fn read(bytes: Vec<u8>) -> Result<Self, DatasetError> {
        Self::of(&object_of(bytes)?)
    }

    /// Reads the answers of a DICOMweb server (PS3.18 10.6.3.3).
    ///
    /// # Errors
    /// Where it is no list of data sets, or one names no study.
    pub fn read_json(json: &[u8]) -> Result<Vec<Self>, DatasetError> {
        objects_of_json(json)?.iter().map(Self::of).collect()
    }

    fn of(object: &InMemDicomObject) -> Result<Self, DatasetError> {
        let texts = object.texts(tags::MODALITIES_IN_STUDY);
        Ok(Self {
            study_uid: uid_of(object, tags::STUDY_INSTANCE_UID)?,
            began: study_began(object),
            modalities: texts.into_iter().filter(|modality| !modality.is_empty()).collect(),
            instances: number_of(object, tags::NUMBER_OF_STUDY_RELATED_INSTANCES),
            accession_number: object.text(tags::ACCESSION_NUMBER),
            patient: Identity::of(object),
        })
    }
}

/// A series as an archive names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesMatch {
    /// Series Instance UID.
    pub series_uid: Uid,
    /// Modality (0008,0060).
    pub modality: String,
    /// Number of Series Related Instances (0020,1209), where the archive says.
    pub instances: Option<u32>,
}

impl SeriesMatch {
    /// As [`StudyMatch::read`].
    ///
    /// # Errors
    /// Where it is no data set, or names no series.
    pub fn read(bytes: Vec<u8>) -> Result<Self, DatasetError> {
        Self::of(&object_of(bytes)?)
    }

    /// As [`StudyMatch::read_json`].
    ///
    /// # Errors
    /// Where it is no list of data sets, or one names no series.
    pub fn read_json(json: &[u8]) -> Result<Vec<Self>, DatasetError> {
        objects_of_json(json)?.iter().map(Self::of).collect()
    }

    fn of(object: &InMemDicomObject) -> Result<Self, DatasetError> {
        Ok(Self {
            series_uid: uid_of(object, tags::SERIES_INSTANCE_UID)?,
            modality: object.text(tags::MODALITY),
            instances: number_of(object, tags::NUMBER_OF_SERIES_RELATED_INSTANCES),
        })
    }
}

/// Asks for the studies of an accession number, or for one study by its UID where `accession_number` is none; only ASCII can be asked for,
/// and `*`, `?` and `\` in it would mean something else to the archive.
pub fn studies_named(accession_number: Option<&str>, study_uid: Option<&str>) -> Item {
    let keys = [tags::MODALITIES_IN_STUDY, tags::NUMBER_OF_STUDY_RELATED_INSTANCES];
    keys.into_iter()
        .fold(Item::new(), Item::empty)
        .text(tags::QUERY_RETRIEVE_LEVEL, "STUDY")
        .text(tags::ACCESSION_NUMBER, accession_number.unwrap_or_default())
        .text(tags::STUDY_INSTANCE_UID, study_uid.unwrap_or_default())
}

/// Accession Number (0008,0050) of an instance; empty where it states none.
///
/// # Errors
/// Where its header is too damaged.
pub fn accession_number_of(instance: &Instance) -> Result<String, DatasetError> {
    Ok(instance.header()?.text(tags::ACCESSION_NUMBER))
}

/// Asks for the studies of the patient of `source` that were made from `first` to `last`. Its ID goes out byte for byte, with its character
/// set; `*` and `?` in it are wildcards to the archive, so that answers must be held against it.
pub fn studies_of_patient(source: &InMemDicomObject, first: Date, last: Date) -> Item {
    let dates = format!("{}-{}", first.strftime("%Y%m%d"), last.strftime("%Y%m%d"));
    let keys = [
        tags::STUDY_TIME,
        tags::MODALITIES_IN_STUDY,
        tags::PATIENT_NAME,
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::STUDY_INSTANCE_UID,
        tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
    ];
    let keys = keys.into_iter().fold(Item::new(), Item::empty);
    keys.copied(tags::SPECIFIC_CHARACTER_SET, source)
        .text(tags::QUERY_RETRIEVE_LEVEL, "STUDY")
        .text(tags::STUDY_DATE, &dates)
        .copied(tags::PATIENT_ID, source)
        .copied_or_empty(tags::ISSUER_OF_PATIENT_ID, source)
}

/// Asks for the series of a study.
pub fn series_of_study(study_uid: &str) -> Item {
    let keys = [tags::MODALITY, tags::SERIES_INSTANCE_UID, tags::NUMBER_OF_SERIES_RELATED_INSTANCES];
    keys.into_iter().fold(Item::new(), Item::empty).text(tags::QUERY_RETRIEVE_LEVEL, "SERIES").text(tags::STUDY_INSTANCE_UID, study_uid)
}

/// Names a study to be retrieved.
pub fn whole_study(study_uid: &str) -> Item {
    Item::new().text(tags::QUERY_RETRIEVE_LEVEL, "STUDY").text(tags::STUDY_INSTANCE_UID, study_uid)
}

/// An identifier in a native transfer syntax.
///
/// # Errors
/// Where it is another transfer syntax.
pub fn identifier(keys: Item, transfer_syntax_uid: &str) -> Result<Vec<u8>, WriteError> {
    let wrong = || WriteError::Encode(format!("identifiers are not written in {transfer_syntax_uid}"));
    let native = [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].contains(&transfer_syntax_uid);
    let syntax = TransferSyntaxRegistry.get(transfer_syntax_uid).filter(|_| native).ok_or_else(wrong)?;
    let mut bytes = Vec::new();
    keys.into_inner().write_dataset_with_ts(&mut bytes, syntax).map_err(|error| WriteError::Encode(error.to_string()))?;
    Ok(bytes)
}

/// What is read of an answer in JSON. Names of people and sequences are not.
const OF_JSON: [Tag; 9] = [
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::MODALITY,
    tags::MODALITIES_IN_STUDY,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
    tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
];

/// A list of data sets in the DICOM JSON Model (PS3.18 annex F): of each what stands in [`OF_JSON`]. Numbers may stand as texts.
fn objects_of_json(json: &[u8]) -> Result<Vec<InMemDicomObject>, DatasetError> {
    let what = "an answer to a query that is no list of data sets";
    let list: Vec<Map<String, Value>> =
        serde_json::from_slice(json).map_err(|_| DatasetError::Malformed { what, offset: 0, path: "".into() })?;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let object = |data_set: Map<String, Value>| {
        let add = |item: Item, tag: Tag| {
            let values =
                data_set.get(&format!("{:04X}{:04X}", tag.group(), tag.element())).and_then(|element| element.get("Value")?.as_array());
            let texts: Vec<String> = values.into_iter().flatten().filter_map(text).collect();
            item.texts(tag, &texts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        OF_JSON.into_iter().fold(Item::new(), add).into_inner()
    };
    Ok(list.into_iter().map(object).collect())
}

fn object_of(bytes: Vec<u8>) -> Result<InMemDicomObject, DatasetError> {
    let nowhere = Path::new(""); // it has no file
    Header::of(&Layout::of(Source::of_bytes(bytes), nowhere)?).to_object(nowhere)
}

fn uid_of(object: &InMemDicomObject, tag: Tag) -> Result<Uid, DatasetError> {
    let found = object.text(tag);
    let what = "no valid UID where an answer to a query needs one";
    if is_uid(&found) { Ok(found) } else { Err(DatasetError::Malformed { what, offset: 0, path: "".into() }) }
}

/// A number of instances; none where it is missing or no number.
fn number_of(object: &InMemDicomObject, tag: Tag) -> Option<u32> {
    object.integer(tag).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ID, issuer, birth date, sex, name.
    fn patient([id, issuer, born, sex, name]: [&str; 5]) -> Identity {
        let item = Item::new()
            .text(tags::PATIENT_ID, id)
            .text(tags::ISSUER_OF_PATIENT_ID, issuer)
            .text(tags::PATIENT_BIRTH_DATE, born)
            .text(tags::PATIENT_SEX, sex)
            .text(tags::PATIENT_NAME, name);
        Identity::of(&item.into_inner())
    }

    #[test]
    fn another_patient_is_never_taken_for_the_same() {
        let one = patient(["P1", "A", "19500101", "F", "Doe^Jane"]);
        for (other, same, why) in [
            (["P1", "A", "19500101", "F", "Doe^Jane"], true, "the same"),
            (["P1", "", "19500101", "", "SMITH^JANE"], true, "a new name"),
            (["P1", "", "", "", "DOE^JANE^^^"], true, "no birth date, the same name"),
            (["P1", "", "", "", "SMITH^JANE"], false, "nothing but the ID"),
            (["P1", "", "", "", ""], false, "no birth date and no name"),
            (["P1", "B", "19500101", "F", "Doe^Jane"], false, "another issuer"),
            (["P1", "A", "19500102", "F", "Doe^Jane"], false, "another birth date"),
            (["P1", "A", "19500101", "M", "Doe^Jane"], false, "another sex"),
            (["P1", "A", "19500101", "O", "Doe^Jane"], true, "a sex that says nothing"),
            (["P2", "A", "19500101", "F", "Doe^Jane"], false, "another ID"),
            (["p1", "A", "19500101", "F", "Doe^Jane"], false, "IDs are not folded"),
            (["", "A", "19500101", "F", "Doe^Jane"], false, "no ID"),
        ] {
            let other = patient(other);
            assert_eq!((one.is(&other), other.is(&one)), (same, same), "{why}");
        }
        let nobody = patient(["", "", "19500101", "F", "Doe^Jane"]);
        assert!(!nobody.is(&nobody), "no ID is no patient");
        assert_eq!(format!("{one:?}"), "Identity", "not for logs");
    }

    #[test]
    fn answers_come_back_in_both_transfer_syntaxes() {
        let answer = || {
            Item::new()
                .text(tags::STUDY_DATE, "20200131")
                .text(tags::STUDY_TIME, "101500")
                .texts(tags::MODALITIES_IN_STUDY, &["CT", "SR"])
                .text(tags::PATIENT_ID, "P1")
                .text(tags::STUDY_INSTANCE_UID, "1.2.3")
                .integer(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, 300)
        };
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
            let found = StudyMatch::read(identifier(answer(), syntax).expect("native")).expect("what we write");
            let began = found.began.map(|(date, time)| (date.to_string(), time));
            assert_eq!(began, Some(("2020-01-31".into(), "101500".into())), "{syntax}");
            assert_eq!((found.study_uid.as_str(), found.instances), ("1.2.3", Some(300)));
            assert_eq!(found.modalities, ["CT", "SR"]);
        }
        assert!(identifier(answer(), "1.2.840.10008.1.2.4.50").is_err());
        for wrong in [
            Vec::new(),
            vec![0xFF; 100],
            identifier(Item::new().text(tags::PATIENT_ID, "P1"), uids::EXPLICIT_VR_LITTLE_ENDIAN).expect("native"),
        ] {
            StudyMatch::read(wrong.clone()).expect_err("no study");
            SeriesMatch::read(wrong).expect_err("no series");
        }
    }

    #[test]
    fn answers_in_json_say_the_same() {
        // As Orthanc's DICOMweb plugin answers, numbers as texts; then as the standard's example has them.
        let json = br#"[{"00080050": {"vr": "SH", "Value": ["A17"]}, "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
                "0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00201208": {"vr": "IS", "Value": ["300"]}},
            {"00080050": {"vr": "SH"}, "0020000D": {"vr": "UI", "Value": ["1.2.4"]}, "00201208": {"vr": "IS", "Value": [4]}}]"#;
        let [one, other] = StudyMatch::read_json(json).expect("two studies").try_into().expect("two");
        assert_eq!((one.study_uid.as_str(), one.accession_number.as_str(), one.instances), ("1.2.3", "A17", Some(300)));
        assert_eq!((one.modalities, one.patient.has_id()), (vec!["CT".to_owned(), "SR".to_owned()], false));
        assert_eq!((other.study_uid.as_str(), other.accession_number.as_str(), other.instances), ("1.2.4", "", Some(4)));
        for wrong in [&b"<html>"[..], b"", b"{}", b"[3]", b"[{}]", br#"[{"0020000D": {"Value": ["x"]}}]"#] {
            StudyMatch::read_json(wrong).expect_err("no study");
        }
        assert_eq!(StudyMatch::read_json(b"[]"), Ok(Vec::new()));
    }

    #[test]
    fn a_patient_id_goes_out_as_it_is() {
        // Latin 1, which ASCII could only give as a wildcard.
        let source = Item::new().text(tags::SPECIFIC_CHARACTER_SET, "ISO_IR 100").into_inner();
        let mut source = source;
        source.put(dicom::core::DataElement::new(tags::PATIENT_ID, dicom::core::VR::LO, dicom::core::PrimitiveValue::from("M\u{fc}1")));
        let day = Date::constant(2020, 1, 31);
        let asked = identifier(studies_of_patient(&source, day, day), uids::EXPLICIT_VR_LITTLE_ENDIAN).expect("native");
        let bytes = b"M\xfc1 ";
        assert!(asked.windows(bytes.len()).any(|window| window == bytes), "{asked:x?}");
    }
}
