//! Input that must not become a volume: each a listed reason, and the rest of the batch goes on.

use std::fs;
use std::path::Path;

use dicom::core::{DataElement, PrimitiveValue, VR};
use dicom::dictionary_std::tags;
use dicom::object::open_file;
use serde_json::Value;

use crate::support::{Ran, command, outcomes, roentgen, run_ct_tissue, small_study};

/// Spoils a study in the folder beside a good one, runs both, and returns the report.
fn beside_a_good_study(spoil: impl FnOnce(&Path)) -> (Ran, Value) {
    let (_, good) = small_study();
    let (_, bad) = small_study();
    // Another series of another study, or the good one's instances would be there twice.
    for n in 1..=24 {
        edit(&slice(bad.path(), n), |object| {
            for (tag, suffix) in [(tags::STUDY_INSTANCE_UID, "1"), (tags::SERIES_INSTANCE_UID, "2")] {
                object.put(DataElement::new(tag, VR::UI, format!("2.25.4711.{suffix}")));
            }
            object.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, format!("2.25.4711.3.{n}")));
        });
    }
    spoil(bad.path());
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[bad.path(), good.path()], output.path());
    let report = ran.json();
    let done = outcomes(&report).iter().filter(|(outcome, _)| outcome == "done").count();
    assert!(done >= 1, "the good study must be done: {}", ran.all());
    (ran, report)
}

fn slice(folder: &Path, number: u32) -> std::path::PathBuf {
    folder.join(format!("{number:04}.dcm"))
}

fn edit(path: &Path, change: impl FnOnce(&mut dicom::object::FileDicomObject<dicom::object::InMemDicomObject>)) {
    let mut object = open_file(path).expect("readable");
    change(&mut object);
    object.write_to_file(path).expect("writable");
}

fn check(spoil: impl FnOnce(&Path), outcome: &str, code: &str) {
    let (ran, report) = beside_a_good_study(spoil);
    assert_eq!(ran.code, 1, "{}", ran.all());
    let found = outcomes(&report);
    assert!(found.iter().any(|(o, codes)| o == outcome && codes.iter().any(|c| c == code)), "{found:?} has no {outcome} with {code}");
}

#[test]
fn missing_slice() {
    check(|folder| fs::remove_file(slice(folder, 12)).expect("removed"), "refused", "series.missing-slices");
}

#[test]
fn mixed_orientation() {
    let turn = |folder: &Path| {
        edit(&slice(folder, 5), |object| {
            let values = PrimitiveValue::Strs(["1", "0", "0", "0", "0", "-1"].map(String::from).into_iter().collect());
            object.put(DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, values));
        });
    };
    check(turn, "refused", "series.mixed-orientations");
}

/// Results lie in a folder named by the Series Instance UID: another text there must not lead anywhere, nor be repeated.
#[test]
fn a_path_instead_of_a_uid() {
    let text = "../../Doe^John";
    let relabel = |folder: &Path| {
        for n in 1..=24 {
            edit(&slice(folder, n), |object| {
                object.put(DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, text));
            });
        }
    };
    let (ran, report) = beside_a_good_study(relabel);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(outcomes(&report).contains(&("refused".to_owned(), vec!["series.invalid-uid".to_owned()])), "{report}");
    assert!(!ran.all().contains("Doe"), "{}", ran.all());
}

#[test]
fn values_that_are_no_hounsfield_units() {
    let relabel = |folder: &Path| {
        for n in 1..=24 {
            edit(&slice(folder, n), |object| {
                object.put(DataElement::new(tags::RESCALE_TYPE, VR::LO, "US"));
            });
        }
    };
    check(relabel, "refused", "select.not-hounsfield");
}

#[test]
fn two_slices_at_one_position() {
    let copy = |folder: &Path| {
        fs::copy(slice(folder, 3), folder.join("again.dcm")).expect("copied");
        edit(&folder.join("again.dcm"), |object| {
            object.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, "2.25.4711.4"));
        });
    };
    check(copy, "refused", "series.shared-positions");
}

#[test]
fn another_patient_in_the_series() {
    let rename = |folder: &Path| {
        edit(&slice(folder, 7), |object| {
            object.put(DataElement::new(tags::PATIENT_ID, VR::LO, "SOMEBODY-ELSE"));
        });
    };
    let (ran, report) = beside_a_good_study(rename);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(outcomes(&report).iter().any(|(o, c)| o == "refused" && c.contains(&"series.mixed-patients".to_owned())), "{report}");
    assert!(!ran.stdout.contains("SOMEBODY-ELSE"), "patient text in the output");
}

#[test]
fn truncated_pixel_data() {
    let cut = |folder: &Path| {
        let bytes = fs::read(slice(folder, 9)).expect("readable");
        fs::write(slice(folder, 9), &bytes[..bytes.len() - 4000]).expect("written");
    };
    let (ran, report) = beside_a_good_study(cut);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(outcomes(&report).iter().any(|(o, _)| o == "failed" || o == "refused"), "a cut-off slice must not pass: {report}");
}

#[test]
fn truncated_header() {
    let cut = |folder: &Path| {
        let bytes = fs::read(slice(folder, 9)).expect("readable");
        fs::write(slice(folder, 9), &bytes[..700]).expect("written");
    };
    let (ran, report) = beside_a_good_study(cut);
    assert_eq!(ran.code, 1, "{}", ran.all());
    let unreadable = report["files"].as_array().expect("files").iter().filter(|f| f["unreadable"] == true).count();
    assert_eq!(unreadable, 1, "{report}");
}

#[test]
fn objects_that_are_no_images_and_files_that_are_no_objects() {
    let (_, study) = small_study();
    let first = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(run_ct_tissue(&[study.path()], first.path()).code, 0);
    // Our own results beside the study, a text, and an empty file.
    fs::write(study.path().join("notes.txt"), "not DICOM").expect("written");
    fs::write(study.path().join("empty"), "").expect("written");
    let second = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[study.path(), first.path()], second.path());
    let report = ran.json();
    assert_eq!(ran.code, 0, "{}", ran.all());
    let found = outcomes(&report);
    assert_eq!(found.iter().filter(|(o, _)| o == "done").count(), 1, "{found:?}");
    assert_eq!(found.iter().filter(|(o, _)| o == "not-eligible").count(), 2, "SR and SEG: {found:?}");
    assert!(report["files"].as_array().expect("files").len() >= 2, "{report}");
}

#[test]
fn empty_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[folder.path()], &folder.path().join("out"));
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("no file in the input"), "{}", ran.stderr);
}

#[test]
fn no_such_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[&folder.path().join("nowhere")], &folder.path().join("out"));
    assert_eq!(ran.code, 2, "{}", ran.all());
}

/// A folder that this user may not read. Root may read everything, so root becomes nobody for the run.
#[cfg(unix)]
#[test]
fn folder_without_read_permission() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65534;
    let open_to_all = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("own folder");
    let (_, study) = small_study();
    let output = tempfile::tempdir().expect("a temporary folder");
    open_to_all(study.path());
    open_to_all(output.path());
    let closed = study.path().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::copy(slice(study.path(), 1), closed.join("hidden.dcm")).expect("copied");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("own folder");

    // `inspect` needs no ONNX Runtime library, which may lie in a home that nobody may not enter.
    let mut command = command();
    command.args(["inspect", "--json"]).arg(study.path());
    if fs::read_dir(&closed).is_ok() {
        let binary = output.path().join("roentgen");
        fs::copy(env!("CARGO_BIN_EXE_roentgen"), &binary).expect("copied");
        command = std::process::Command::new(binary);
        command.args(["inspect", "--json"]).arg(study.path()).current_dir("/").uid(NOBODY).gid(NOBODY);
    }
    let ran = command.output().expect("the binary starts");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("own folder");
    let inspection: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(ran.status.code(), Some(1), "{inspection}");
    let left_out = inspection["files_left_out"].as_array().expect("files");
    assert!(left_out.iter().any(|f| f["path"].as_str().is_some_and(|p| p.ends_with("closed"))), "{inspection}");
    assert_eq!(inspection["patients"].as_array().expect("patients").len(), 1, "the rest goes on: {inspection}");
}

#[test]
fn wrong_arguments_cannot_start() {
    for arguments in [&["run"][..], &["run", "--model", "ct-tissue", "--output", "x", "--device", "abacus", "in"], &["frobnicate"]] {
        assert_eq!(roentgen(arguments).code, 2, "{arguments:?}");
    }
}
