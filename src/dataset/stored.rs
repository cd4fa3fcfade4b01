//! What a DICOMweb server answers to a store request (PS3.18 10.5.3, PS3.3 CC.2.1), in the DICOM JSON Model.

use dicom::core::Tag;
use dicom::dictionary_std::tags;
use serde_json::Value;

use crate::codes::Uid;

/// Instances that a server has stored, and that it has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreAnswer {
    /// SOP Instance UID, and the Warning Reason (0008,1196) where there is one.
    pub stored: Vec<(Uid, Option<u16>)>,
    /// SOP Instance UID, and the Failure Reason (0008,1197).
    pub failed: Vec<(Uid, u16)>,
}

impl StoreAnswer {
    /// Reads the body of an answer: one data set, or a list with one. None where it is something else.
    pub fn read(json: &[u8]) -> Option<Self> {
        let answer: Value = serde_json::from_slice(json).ok()?;
        let data_set = answer.get(0).unwrap_or(&answer).as_object()?;
        let attribute = |item: &Value, tag: Tag| item.get(name(tag))?.get("Value")?.get(0).cloned();
        let items = |tag: Tag| {
            let items = data_set.get(&name(tag)).and_then(|sequence| sequence.get("Value")?.as_array());
            items.into_iter().flatten().filter_map(move |item| {
                let uid = attribute(item, tags::REFERENCED_SOP_INSTANCE_UID)?.as_str()?.to_owned();
                Some((uid, item))
            })
        };
        let number = |item: &Value, tag| attribute(item, tag).and_then(|value| u16::try_from(value.as_u64()?).ok());
        let stored = items(tags::REFERENCED_SOP_SEQUENCE).map(|(uid, item)| (uid, number(item, tags::WARNING_REASON)));
        // PS3.18 table 10.5.3-1: 0110H where it does not say which.
        let failed = items(tags::FAILED_SOP_SEQUENCE).map(|(uid, item)| (uid, number(item, tags::FAILURE_REASON).unwrap_or(0x0110)));
        Some(Self { stored: stored.collect(), failed: failed.collect() })
    }
}

/// A tag as the model writes it.
fn name(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_its_answer() {
        let text = br#"{
            "00081190": {"vr": "UR", "Value": ["http://pacs/studies/1"]},
            "00081198": {"vr": "SQ", "Value": [
                {"00081150": {"vr": "UI", "Value": ["1.9"]}, "00081155": {"vr": "UI", "Value": ["1.1"]}, "00081197": {"vr": "US", "Value": [290]}},
                {"00081155": {"vr": "UI", "Value": ["1.2"]}}]},
            "00081199": {"vr": "SQ", "Value": [
                {"00081155": {"vr": "UI", "Value": ["1.3"]}},
                {"00081155": {"vr": "UI", "Value": ["1.4"]}, "00081196": {"vr": "US", "Value": [45056]}},
                {"00081155": {"vr": "UI"}}]}
        }"#;
        let expected = StoreAnswer {
            stored: vec![("1.3".into(), None), ("1.4".into(), Some(0xB000))],
            failed: vec![("1.1".into(), 0x0122), ("1.2".into(), 0x0110)],
        };
        assert_eq!(StoreAnswer::read(text), Some(expected.clone()));
        assert_eq!(StoreAnswer::read(&[b"[", &text[..], b"]"].concat()), Some(expected));
        assert_eq!(StoreAnswer::read(b"{}"), Some(StoreAnswer::default()));
        for other in [&b"<html>"[..], b"", b"3", b"[]", b"\xFF"] {
            assert_eq!(StoreAnswer::read(other), None);
        }
    }
}
