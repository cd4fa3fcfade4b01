//! What was written is read again and held against the findings before it leaves: a mismatch is an error, and nothing leaves.
//!
//! Objects are read by the reader that reads other people's, from the file, and compared with the findings and the source, never with what
//! the writers had in memory. Problems name attributes and numbers, no patient text.

mod capture;
mod document;
mod fill;
mod frames;
mod heat;
mod key_objects;
mod maps;
mod placed;
mod presentation;
mod regions;
mod report;
mod rtstruct;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use dicom::object::InMemDicomObject;

use super::envelope::{ResultObject, source_header};
use super::{Context, ResultsError};
use crate::codes::{Code, sop_class};
use crate::dataset::{Attributes, Frame, Instance, codes, items, study_attributes, tags};

/// Problems of one object that are told at most.
const MOST: usize = 20;

/// Reads the DICOM objects in `folder` again and compares them with the findings.
///
/// # Errors
/// [`ResultsError::SelfCheck`] for the first object that is not what the findings say, with everything that differs.
pub(super) fn check(context: &Context<'_>, folder: &Path, objects: &[(String, ResultObject)]) -> Result<(), ResultsError> {
    let known = references(context, objects);
    for (file, reference) in objects {
        let mut problems = Problems::default();
        match Instance::read(&folder.join(file)) {
            Ok(instance) => check_object(context, &instance, reference, &known, &mut problems),
            Err(_) => problems.add("cannot be read again".into()),
        }
        if !problems.0.is_empty() {
            return Err(ResultsError::SelfCheck { file: file.clone(), problems: problems.0 });
        }
    }
    Ok(())
}

/// What differs.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) {
        if self.0.len() < MOST {
            self.0.push(problem);
        }
    }

    fn unless(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.add(problem());
        }
    }
}

fn check_object(
    context: &Context<'_>,
    instance: &Instance,
    reference: &ResultObject,
    known: &HashMap<&str, &str>,
    problems: &mut Problems,
) {
    // Frames may be many: each one's functional groups are parsed for themselves.
    let header = instance.attributes.object_without_frames(&instance.path);
    let Ok(header) = &header else { return problems.add("the header cannot be parsed again".into()) };
    let source = &context.findings.source.instances[0];
    let expected = [
        ("SOP Class UID", tags::SOP_CLASS_UID, reference.sop_class_uid),
        ("SOP Instance UID", tags::SOP_INSTANCE_UID, &reference.sop_instance_uid),
        ("Series Instance UID", tags::SERIES_INSTANCE_UID, &reference.series_uid),
        ("Study Instance UID", tags::STUDY_INSTANCE_UID, &source.study_uid),
        ("Modality", tags::MODALITY, reference.modality),
    ];
    for (name, tag, value) in expected {
        problems.unless(header.text(tag) == value, || format!("{name} is not what it was made with"));
    }
    check_study(header, source_header(context.findings), problems);
    check_references(header, known, 0, problems);
    match reference.sop_class_uid {
        sop_class::SEGMENTATION | sop_class::LABEL_MAP_SEGMENTATION => regions::check(context, instance, header, known, problems),
        sop_class::PARAMETRIC_MAP => maps::check(context, instance, header, reference, known, problems),
        sop_class::RT_STRUCTURE_SET => rtstruct::check(context, header, problems),
        sop_class::COMPREHENSIVE_3D_SR => report::check(context, header, known, problems),
        sop_class::GRAYSCALE_PRESENTATION_STATE => presentation::check(context, header, problems),
        sop_class::KEY_OBJECT_SELECTION => key_objects::check(context, header, problems),
        sop_class::ENCAPSULATED_PDF => document::check(context, header, problems),
        sop_class::SECONDARY_CAPTURE => match heat::map_of(context, reference) {
            Some(n) => heat::check(context, n, instance, header, problems),
            None => capture::check(context, instance, header, problems),
        },
        _ => {}
    }
}

/// Patient and study are the source's, value by value.
fn check_study(header: &InMemDicomObject, source: &InMemDicomObject, problems: &mut Problems) {
    for tag in study_attributes().filter(|tag| *tag != tags::STUDY_INSTANCE_UID) {
        let [found, expected] = [header, source].map(|of| of.get(tag).map(|e| e.value()).filter(|v| !is_empty(v)));
        problems.unless(found == expected, || format!("{tag} of patient or study is not the source's"));
    }
    let charset = |of: &InMemDicomObject| of.texts(tags::SPECIFIC_CHARACTER_SET);
    let declared = charset(source);
    problems.unless(declared.iter().all(String::is_empty) || charset(header) == declared, || {
        "Specific Character Set is not the source's, though patient and study are in it".into()
    });
}

type Value = dicom::core::value::Value<InMemDicomObject, dicom::core::value::InMemFragment>;

fn is_empty(value: &Value) -> bool {
    value.primitive().is_some_and(|p| p.calculate_byte_len() == 0) || value.items().is_some_and(<[_]>::is_empty)
}

/// Every instance that an object may refer to: its SOP class, by SOP Instance UID.
fn references<'a>(context: &'a Context<'_>, objects: &'a [(String, ResultObject)]) -> HashMap<&'a str, &'a str> {
    let sources = context.findings.source.series().into_iter().flatten().map(|i| (i.sop_instance_uid.as_str(), i.sop_class_uid.as_str()));
    let earlier = context.findings.predecessors.iter().chain(&context.findings.priors.instances);
    let earlier = earlier.map(|p| (p.sop_instance_uid.as_str(), p.sop_class_uid.as_str()));
    // A structure set names its study, as an instance of a retired class.
    let study = [(context.findings.source.instances[0].study_uid.as_str(), sop_class::DETACHED_STUDY)];
    let own = objects.iter().map(|(_, o)| (o.sop_instance_uid.as_str(), o.sop_class_uid));
    sources.chain(earlier).chain(study).chain(own).collect()
}

/// No reference leads elsewhere than to the source, to earlier reports and studies and to the objects of this result.
fn check_references(item: &InMemDicomObject, known: &HashMap<&str, &str>, depth: usize, problems: &mut Problems) {
    if item.has(tags::REFERENCED_SOP_INSTANCE_UID) {
        let (uid, class) = (item.text(tags::REFERENCED_SOP_INSTANCE_UID), item.text(tags::REFERENCED_SOP_CLASS_UID));
        problems.unless(known.get(uid.as_str()) == Some(&class.as_str()), || {
            format!("it refers to {uid}, which is neither source nor result, or of another class than {class}")
        });
    }
    if depth < 16 {
        // Those of patient and study lead where the source's do, and were compared as a whole.
        let sequences = item.iter().filter(|e| !study_attributes().any(|tag| tag == e.header().tag));
        sequences.filter_map(|e| e.items()).flatten().for_each(|item| check_references(item, known, depth + 1, problems));
    }
}

/// The first item of a sequence.
fn item(object: &InMemDicomObject, tag: dicom::core::Tag) -> Option<&InMemDicomObject> {
    items(object, tag).first()
}

/// The code in a sequence.
fn code(object: &InMemDicomObject, tag: dicom::core::Tag) -> Option<Code> {
    codes(object, tag).into_iter().next()
}

/// The places in `Source::frames` of the images that an item refers to: of a multi-frame instance the frames that it names by number, and
/// for a number that there is not, none.
fn source_frames(context: &Context<'_>, reference: &InMemDicomObject) -> Vec<usize> {
    let uid = reference.text(tags::REFERENCED_SOP_INSTANCE_UID);
    let numbers = reference.all_numbers(tags::REFERENCED_FRAME_NUMBER).unwrap_or_default();
    let is_named = |frame: &Frame| {
        frame.instance.sop_instance_uid == uid
            && if frame.is_whole_instance() { numbers.is_empty() } else { numbers.contains(&f64::from(frame.number)) }
    };
    (0..).zip(&context.findings.source.frames).filter(|(_, frame)| is_named(frame)).map(|(n, _)| n).collect()
}

/// Whether it is that code, whatever its meaning is called.
fn is_code(found: Option<&Code>, expected: &Code) -> bool {
    found.is_some_and(|found| (&found.value, &found.scheme) == (&expected.value, &expected.scheme))
}
