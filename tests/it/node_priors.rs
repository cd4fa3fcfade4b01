//! Earlier studies from archives, and studies that are complete by evidence (acceptance scenario A22; tests/python/check_priors.py).

use std::path::Path;

use crate::support::{ct_tissue, python, root, small_study};

#[test]
fn priors_are_retrieved_held_and_referred_to() {
    let (_, study) = small_study();
    let script = root().join("tests/python/check_priors.py");
    let ran = python(&script, &[Path::new(env!("CARGO_BIN_EXE_roentgen")), &ct_tissue(), study.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    println!("{}", ran.stdout);
}
