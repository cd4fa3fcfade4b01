//! Earlier studies from archives, and studies that are complete by evidence (acceptance scenario A22; tests/python/check_priors.py).

use std::path::Path;

use crate::support::{ct_tissue, python, root, small_study};

/// Scenarios by their names, on a study of the phantom.
fn check(scenarios: &str) {
    let (_, study) = small_study();
    let script = root().join("tests/python/check_priors.py");
    let node = Path::new(env!("CARGO_BIN_EXE_roentgen"));
    let ran = python(&script, &[node, &ct_tissue(), study.path(), Path::new(scenarios)]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    println!("{}", ran.stdout);
}

#[test]
fn priors_are_retrieved_held_and_referred_to_and_studies_counted() {
    check("get");
}

#[test]
fn an_archive_that_does_not_know_the_node_is_no_riddle() {
    check("move,A801");
}

#[test]
fn another_patient_is_never_a_prior_and_nothing_waits_for_ever() {
    check("patient,killed,late");
}
