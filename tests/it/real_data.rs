//! Scanner data of other people, where it is at hand: `../shared/data` or the folder named by ROENTGEN_TEST_DATA.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{files_below, outcomes, python, root, run_ct_tissue, test_data, unpacked};

/// Volumes and means against an independent computation (SimpleITK, numpy; neither our code nor our graph), and SR and SEG
/// against the checker beside the data.
fn check(data: &Path, series_folder: &Path, source: &Path, findings: &Path) {
    let reference = python(&root().join("tests/python/ct_tissue_reference.py"), &[series_folder, Path::new("--json")]);
    assert_eq!(reference.code, 0, "{}", reference.all());
    let reference = reference.json();
    let ours: Value = serde_json::from_slice(&std::fs::read(findings).expect("readable")).expect("JSON");
    for finding in ours["findings"].as_array().expect("findings") {
        let name = finding["name"].as_str().expect("a name");
        let tissues = reference["tissues"].as_array().expect("tissues");
        let tissue = tissues.iter().find(|t| t["name"] == name).expect("the same tissues");
        let expected = tissue["volume_ml"].as_f64().expect("a volume");
        let found = finding["measurements"][0]["value"].as_f64().expect("a volume");
        println!("{name}: {found:.3} ml, reference {expected:.3} ml");
        assert!((found - expected).abs() <= 0.005 * expected, "{name}: {found} ml, reference {expected} ml");
        let (expected, found) = (tissue["mean_hu"].as_f64(), finding["measurements"][1]["value"].as_f64());
        let (expected, found) = (expected.expect("a mean"), found.expect("a mean"));
        assert!((found - expected).abs() < 1.0, "{name}: {found} HU, reference {expected} HU");
    }
    let folder = findings.parent().expect("in a folder");
    let checker = data.join("../tools/check_result.py");
    let objects = [folder.join("sr.dcm"), folder.join("seg.dcm")];
    let checked = python(&checker, &[Path::new("--strict"), Path::new("--source"), source, &objects[0], &objects[1]]);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

fn findings_of(output: &Path) -> PathBuf {
    files_below(output).into_iter().find(|f| f.ends_with("findings.json")).expect("one series is done")
}

/// JPEG 2000, no UIDs in the data set, thickness that differs from the spacing.
#[test]
fn siemens_abdomen() {
    let Some(data) = test_data() else { return };
    let series = data.join("ct-abdomen-siemens/dicom");
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[&series], output.path());
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.json()["series"][0]["warnings"].as_array().is_some_and(|w| !w.is_empty()), "missing UIDs must be said");
    let findings = findings_of(output.path());
    // The checker looks instances up by the UIDs in their data sets, which are empty here: give it a copy that has those
    // of the file meta group, and the study and series UIDs that the result says were derived.
    let repaired = tempfile::tempdir().expect("a temporary folder");
    let script = root().join("tests/python/fill_uids.py");
    let filled = python(&script, &[&series, &findings, repaired.path()]);
    assert_eq!(filled.code, 0, "{}", filled.all());
    check(&data, &series, repaired.path(), &findings);
}

/// A straight series among a localizer and summary pages.
#[test]
fn philips_phantom_straight() {
    let Some(data) = test_data() else { return };
    let study = unpacked(&data.join("ct-phantom-philips/study21570-mixed.tar.xz"));
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[study.path()], output.path());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let found: Vec<_> = outcomes(&ran.json()).into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(found.iter().filter(|o| *o == "done").count(), 1, "{found:?}");
    assert_eq!(found.iter().filter(|o| *o == "not-eligible").count(), 7, "surview and six summary pages: {found:?}");
    let axial = files_below(study.path()).into_iter().find(|f| f.to_string_lossy().contains("S2010")).expect("the axial series");
    check(&data, axial.parent().expect("in a folder"), study.path(), &findings_of(output.path()));
}

/// Sheared and unevenly spaced at once: both reasons, with their numbers.
#[test]
fn ge_head_is_refused_with_both_reasons() {
    let Some(data) = test_data() else { return };
    let study = unpacked(&data.join("ct-head-ge-tilt-uneven/ge-head.tar.xz"));
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[study.path()], output.path());
    assert_eq!(ran.code, 1, "{}", ran.all());
    let report = ran.json();
    let (outcome, codes) = outcomes(&report).remove(0);
    assert_eq!(outcome, "refused");
    assert!(codes.contains(&"series.sheared".to_owned()) && codes.contains(&"series.uneven-spacing".to_owned()), "{codes:?}");
    let messages = report["series"][0]["reasons"].to_string();
    for number in ["18.50", "1.081", "6.999"] {
        assert!(messages.contains(number), "{number} is not in {messages}");
    }
}

#[test]
fn tilted_philips_phantom_is_refused() {
    let Some(data) = test_data() else { return };
    let study = unpacked(&data.join("ct-phantom-philips/study21610-tilt-minus18.tar.xz"));
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[study.path()], output.path());
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert_eq!(outcomes(&ran.json()), [("refused".to_owned(), vec!["series.sheared".to_owned()])]);
}

/// Everything odd and broken that others collected: no panic, an outcome for each.
#[test]
fn malformed_files_are_listed() {
    let Some(data) = test_data() else { return };
    let output = tempfile::tempdir().expect("a temporary folder");
    let inputs = ["malformed", "mixed-folder", "transfer-syntaxes", "charsets"].map(|f| data.join(f));
    let ran = run_ct_tissue(&inputs.each_ref().map(PathBuf::as_path), output.path());
    assert!(ran.code == 0 || ran.code == 1, "{}", ran.all());
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert!(!ran.json()["series"].as_array().expect("series").is_empty());
}
