//! Marks for viewers and planning systems, spoilt.

use super::*;

/// The path to the first content item of a value type.
fn first_item(object: &InMemDicomObject, value_type: &str) -> [(Tag, usize); 1] {
    let n = items(object, tags::CONTENT_SEQUENCE).iter().position(|i| i.text(tags::VALUE_TYPE) == value_type);
    [(tags::CONTENT_SEQUENCE, n.expect("it has one"))]
}

const KEY_OBJECTS: [(&str, Spoil); 6] = [
    ("one image less", |o| drop_last(o, tags::CONTENT_SEQUENCE)),
    ("another image of the source", |o| {
        let path = [first_item(o, "IMAGE")[0], (tags::REFERENCED_SOP_SEQUENCE, 0)];
        let other = crate::codes::uid_by_name(&["test", "oblique", "instance 0"]);
        within(o, &path, |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &other));
    }),
    ("a frame of a single-frame image", |o| {
        let path = [first_item(o, "IMAGE")[0], (tags::REFERENCED_SOP_SEQUENCE, 0)];
        within(o, &path, |item| put(item, tags::REFERENCED_FRAME_NUMBER, VR::IS, "1"));
    }),
    ("rejected for quality reasons", |o| {
        within(o, &[(tags::CONCEPT_NAME_CODE_SEQUENCE, 0)], |item| put(item, tags::CODE_VALUE, VR::SH, "113001"));
    }),
    ("evidence without the images", |o| {
        let path = [(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, 0)];
        within(o, &path, |study| drop_last(study, tags::REFERENCED_SERIES_SEQUENCE));
    }),
    ("a person as observer", |o| {
        let path = [first_item(o, "CODE")[0], (tags::CONCEPT_CODE_SEQUENCE, 0)];
        within(o, &path, |item| put(item, tags::CODE_VALUE, VR::SH, "121006"));
    }),
];

#[test]
fn every_spoilt_mark_is_found() {
    all_found([("ko.dcm", Form::Ko, KEY_OBJECTS.as_slice())]);
}

/// Spoils each file in each way, its own and those of any object.
fn all_found<const N: usize>(files: [(&str, Form, &[(&str, Spoil)]); N]) {
    for (file, form, ways) in files {
        for (what, spoil) in ways.iter().chain(&ANY) {
            let checked = check_spoilt(&[form].into_iter().collect(), |folder| {
                let mut object = open_file(folder.join(file)).expect("we wrote it").into_inner();
                spoil(&mut object);
                write_object(&folder.join(file), object.into()).expect("writable");
            });
            match checked {
                Err(ResultsError::SelfCheck { file: found, problems }) => {
                    assert_eq!(found, file, "{what}");
                    println!("{file}, {what}: {}", problems.join("; "));
                }
                other => panic!("{file}, {what}: {other:?}"),
            }
        }
    }
}
