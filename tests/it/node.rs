//! The node among its peers: acceptance scenarios against DCMTK, Orthanc and pynetdicom, each group a test (tests/python/check_node.py).

use std::path::Path;

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
    check("A1,A4,A5,A6", &[]);
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
    check("A2,A3", &[]);
}
