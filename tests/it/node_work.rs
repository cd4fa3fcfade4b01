//! The node's queue, worker and delivery where things go wrong (tests/python/check_work.py).

use std::path::Path;

use crate::support::{ct_tissue, python, root, small_study};

/// Checks by their names.
fn check(names: &str) {
    let (_, study) = small_study();
    let script = root().join("tests/python/check_work.py");
    let ran = python(&script, &[Path::new(env!("CARGO_BIN_EXE_roentgen")), &ct_tissue(), study.path(), Path::new(names)]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    println!("{}", ran.stdout);
}

#[test]
fn runs_that_do_not_end_hold_nobody_up() {
    check("endless");
}

#[cfg(debug_assertions)]
#[test]
fn what_takes_its_lane_or_the_process_down_is_quarantined() {
    check("stuck,killed");
}

#[cfg(debug_assertions)]
#[test]
fn a_lost_device_is_met_as_the_site_wants() {
    check("device");
}

#[test]
fn rules_decide_what_is_urgent_and_where_it_goes() {
    check("rules");
}

#[cfg(debug_assertions)]
#[test]
fn what_is_old_goes_when_nobody_needs_it() {
    check("retention,quota");
}

#[test]
fn people_are_told_once() {
    check("alerts");
}

#[test]
fn results_go_to_dicomweb_servers() {
    check("stow,stow_tls");
}

#[test]
fn another_form_goes_where_one_is_refused() {
    check("instead");
}

#[test]
fn damaged_instances_are_replaced() {
    check("damaged");
}

#[test]
fn another_configuration_is_taken_while_it_works() {
    check("reload");
}
