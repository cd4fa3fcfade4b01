//! What the node does beside receiving and sending: storage commitment, TLS, DICOMweb, HTTP, what operators see; and its peers' view of it.

use std::path::Path;

use crate::support::{ct_tissue, python, root, small_study};

/// A script of `tests/python` that runs the node with its peers.
fn check(script: &str) {
    let (_, study) = small_study();
    let script = root().join("tests/python").join(script);
    let ran = python(&script, &[Path::new(env!("CARGO_BIN_EXE_roentgen")), &ct_tissue(), study.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    println!("{}", ran.stdout);
}

#[test]
fn commitment_is_given_and_asked_for() {
    check("check_commitment.py");
}

#[test]
fn tls_lets_in_whom_it_should_and_nobody_else() {
    check("check_tls.py");
}

#[test]
fn what_is_stored_by_http_is_found_and_comes_back() {
    check("check_dicomweb.py");
}

#[test]
fn the_http_interface_is_what_its_description_says() {
    check("check_http.py");
}

#[test]
fn operators_see_what_happens_and_no_patients() {
    check("check_operations.py");
}
