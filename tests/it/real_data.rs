//! Scanner data of other people, where it is at hand: `../shared/data` or the folder named by ROENTGEN_TEST_DATA.

use std::path::{Path, PathBuf};

use roentgen::codes::sha256_hex;
use roentgen::research::read_volume;
use serde_json::Value;

use crate::support::{files_below, outcomes, python, roentgen, root, run_ct_tissue, test_data, unpacked};

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

/// The manifest of docs/package-format.md, with `graph` and where its axes run.
fn meshnet(folder: &Path, graph: &Path, to: &str) {
    let docs = std::fs::read_to_string(root().join("docs/package-format.md")).expect("the format");
    let (_, section) = docs.split_once("### A network without a tool: MeshNet").expect("the section");
    let (_, example) = section.split_once("```toml\n").expect("an example");
    let (manifest, _) = example.split_once("```").expect("its end");
    let bytes = std::fs::read(graph).expect("a graph");
    let manifest = manifest.replace("sha256 = \"...\"", &format!("sha256 = \"{}\"", sha256_hex(&bytes)));
    std::fs::write(folder.join("model.toml"), manifest.replace("\"AIL\"", &format!("\"{to}\""))).expect("writable");
    std::fs::write(folder.join("model5_gw_ae.onnx"), bytes).expect("writable");
}

/// Stored numbers of a label map.
fn labels_in(file: &Path) -> Vec<i16> {
    let volume = read_volume(file).expect("a label map");
    volume.stored.as_int16().expect("whole numbers").voxels().to_vec()
}

/// A published network on its own T1 volume, against ONNX Runtime alone; and its conversion whose tensor has the axes the other way round.
#[test]
fn meshnet_finds_what_it_finds_elsewhere() {
    let Some(data) = test_data() else { return };
    let data = data.join("meshnet");
    let expected = labels_in(&data.join("t1_crop.model5_gw_ae.labels.nii.gz"));
    for (graph, to) in [("model5_gw_ae.onnx", "AIL"), ("model5_gw_ae_niivue_zyx.onnx", "LIA")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [package, output] = ["meshnet", "results"].map(|name| folder.path().join(name));
        std::fs::create_dir(&package).expect("made");
        meshnet(&package, &data.join(graph), to);
        let image = data.join("t1_crop.nii.gz");
        let arguments = ["run", "--device", "cpu", "--results", "seg", "--model"].map(std::ffi::OsStr::new);
        let paths = [package.as_os_str(), "--output".as_ref(), output.as_os_str(), image.as_os_str()];
        let ran = roentgen(&[&arguments[..], &paths[..]].concat());
        assert_eq!(ran.code, 0, "{}", ran.all());
        let labels = files_below(&output).into_iter().find(|f| f.ends_with("labels.nii.gz")).expect("a label map");
        let found = labels_in(&labels);
        assert_eq!(found.len(), expected.len());
        for label in 0..3 {
            let is = |&&l: &&i16| l == label;
            let both = found.iter().zip(&expected).filter(|(a, b)| is(a) && is(b)).count();
            let dice = 2.0 * both as f64 / (found.iter().filter(is).count() + expected.iter().filter(is).count()) as f64;
            println!("{graph}, label {label}: Dice {dice:.6}");
            assert!(dice >= 0.999, "{graph}, label {label}: Dice {dice}");
        }
        println!("{graph}: {} voxels differ", found.iter().zip(&expected).filter(|(a, b)| a != b).count());
    }
}
