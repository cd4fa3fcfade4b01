//! Short names for what UIDs stand for.

use std::collections::HashMap;
use std::sync::Arc;

use dicom::core::dictionary::{UidDictionary, UidDictionaryEntry};
use dicom::dictionary_std::StandardSopClassDictionary;

use super::clean;
use crate::codes::{is_uid, sop_class};
use crate::dataset::{Attributes, CharacterSet, Instance, items, tags};

/// Digits of a UID that tell it apart from others on one page.
const DIGITS: usize = 12;

/// The objects that are shown together, by SOP Instance UID.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_uid: HashMap<String, Name>,
}

#[derive(Debug)]
struct Name {
    file: String,
    /// Labels of its segments.
    segments: HashMap<String, String>,
}

impl Names {
    pub(super) fn of<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>) -> Self {
        let name = |instance: &Arc<Instance>| {
            let file = clean(&instance.path.file_name().unwrap_or_default().to_string_lossy());
            (instance.sop_instance_uid.clone(), Name { file, segments: labels(instance) })
        };
        Self { by_uid: instances.filter(|i| !i.sop_instance_uid.is_empty()).map(name).collect() }
    }

    /// An instance: its file where that is shown too, else its class and the end of its UID.
    pub(super) fn instance(&self, class_uid: &str, uid: &str) -> String {
        match self.by_uid.get(uid) {
            Some(name) => name.file.clone(),
            None => format!("{} {}", class_name(class_uid), short_uid(uid)),
        }
    }

    /// What a segment of an instance is called, where that is known.
    pub(super) fn segment(&self, uid: &str, number: &str) -> Option<&str> {
        self.by_uid.get(uid)?.segments.get(number).map(String::as_str)
    }
}

fn labels(instance: &Instance) -> HashMap<String, String> {
    let is_segmentation = [sop_class::SEGMENTATION, sop_class::LABEL_MAP_SEGMENTATION].contains(&instance.sop_class_uid.as_str());
    let Some(header) = instance.header().ok().filter(|_| is_segmentation) else { return HashMap::new() };
    let charset = CharacterSet::of(header);
    let label = |item| charset.within(item).texts(item, tags::SEGMENT_LABEL).into_iter().next().unwrap_or_default();
    items(header, tags::SEGMENT_SEQUENCE).iter().map(|item| (item.text(tags::SEGMENT_NUMBER), clean(&label(item)))).collect()
}

/// Name of a SOP class (PS3.6 annex A) less its "Storage"; its UID where the dictionary has none.
pub(super) fn class_name(uid: &str) -> String {
    match StandardSopClassDictionary.by_uid(uid) {
        Some(entry) => entry.name().trim_end_matches(" Storage").to_owned(),
        None if uid == sop_class::LABEL_MAP_SEGMENTATION => "Label Map Segmentation".to_owned(),
        None if is_uid(uid) => format!("SOP class {uid}"),
        None => "DICOM object without SOP class".to_owned(),
    }
}

/// The end of a UID; whole where it is short.
pub(super) fn short_uid(uid: &str) -> String {
    if !is_uid(uid) {
        return "(no UID)".to_owned();
    }
    if uid.len() <= DIGITS + 3 { uid.to_owned() } else { format!("..{}", &uid[uid.len() - DIGITS..]) }
}
