//! The node among its peers: acceptance scenarios against DCMTK, Orthanc and pynetdicom, each group a test (tests/python/check_node.py).

use std::path::Path;

use crate::archive::study_of;
use crate::support::{ct_tissue, python, root, small_study};

/// Scenarios by their names, on a study of the phantom and on `others`.
fn check(scenarios: &str, others: &[&Path]) {
    let (_, study) = small_study();
    let package = ct_tissue();
    let mut arguments = vec![Path::new(env!("CARGO_BIN_EXE_roentgen")), &package, Path::new(scenarios), study.path()];
    arguments.extend(others);
    if cfg!(debug_assertions) {
        arguments.push(Path::new("--crash-points"));
    }
    let checked = python(&root().join("tests/python/check_node.py"), &arguments);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

#[test]
fn associations_are_taken_and_rejected_as_they_should() {
    check("A1,A4,A5,A6,window", &[]);
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_comes_to_one_result() {
    check("A8,A9,A10", &[]);
}

#[test]
fn what_comes_twice_is_not_done_twice() {
    check("A11,A12", &[]);
}

#[test]
fn studies_come_back_from_the_pacs_with_results() {
    check("A2,A3,A7", &[]);
}

#[test]
fn full_disks_and_archives_that_are_down_or_refuse_lose_nothing() {
    check("A13,A14,A15", &[]);
}

#[test]
fn large_mixed_and_malformed_instances_do_no_harm() {
    check("A17,A18,A19", &[]);
}

#[test]
fn series_that_are_no_volume_are_refused_with_the_reason() {
    check("A20", &[]);
}

#[test]
fn patients_are_copied_byte_by_byte() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Latin 1 without an accession number, UTF-8 without one, Japanese with an empty one.
    let studies = [1, 3, 4].map(|n| (folder.path().join(n.to_string()), n));
    studies.iter().for_each(|(folder, n)| study_of(folder, *n));
    check("A21", &studies.each_ref().map(|(folder, _)| folder.as_path()));
}

#[test]
fn those_who_connect_and_say_nothing_are_let_go() {
    check("A25", &[]);
}
