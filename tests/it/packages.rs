//! Model packages that must not run: each a typed error, nothing written.

use std::fs;
use std::path::Path;

use roentgen::geometry::Coded;
use roentgen::model::Package;

use crate::support::{ct_tissue, roentgen, small_study};

/// A copy of the shipped package with its manifest changed.
pub(crate) fn changed(change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(ct_tissue()).expect("readable").map(|e| e.expect("readable")) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    let manifest = folder.path().join("model.toml");
    let text = fs::read_to_string(&manifest).expect("readable");
    let other = change(text.clone());
    assert_ne!(text, other, "the change must change something");
    fs::write(&manifest, other).expect("written");
    folder
}

fn check(package: &Path, code: &str) {
    let error = Package::read(package).expect_err("must not be taken");
    assert_eq!(error.code(), code, "{error}");
    let (_, study) = small_study();
    let output = study.path().join("results");
    let text = |p: &Path| p.to_str().expect("ASCII").to_owned();
    let ran = roentgen(&["run", "--model", &text(package), "--output", &text(&output), &text(study.path())]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains(&error.to_string()), "{}", ran.all());
    assert!(!output.exists(), "nothing may be written");
}

#[test]
fn wrong_hash() {
    let package = changed(|text| text.replace("sha256 = \"", "sha256 = \"0"));
    check(package.path(), "model.hash");
}

#[test]
fn changed_graph() {
    let package = changed(|text| text + "\n# touched\n");
    let graph = package.path().join("ct-tissue.onnx");
    let mut bytes = fs::read(&graph).expect("readable");
    bytes[100] ^= 1;
    fs::write(&graph, bytes).expect("written");
    check(package.path(), "model.hash");
}

#[test]
fn unknown_step() {
    let package = changed(|text| text.replace("step = \"clip\"", "step = \"sharpen\""));
    check(package.path(), "model.unknown-step");
}

#[test]
fn newer_format() {
    let package = changed(|text| text.replace("format = 1", "format = 2"));
    check(package.path(), "model.newer-format");
}

#[test]
fn unknown_field() {
    let package = changed(|text| text.replace("task = ", "tusk = "));
    check(package.path(), "model.manifest");
}

#[test]
fn a_step_that_divides_by_zero() {
    let package = changed(|text| text.replacen("divide = 1000.0", "divide = 0.0", 1));
    check(package.path(), "model.unsupported");
}

#[test]
fn maps_that_cannot_be_computed() {
    for (from, to, code) in [
        ("scores = \"probabilities\"", "", "model.unsupported"),
        ("scores = \"probabilities\"", "scores = \"votes\"", "model.manifest"),
        ("finding = \"lung\"", "", "model.unsupported"),
        ("finding = \"lung\"", "finding = \"liver\"", "model.unsupported"),
        ("name = \"lung probability\"", "name = \"tissue uncertainty\"", "model.unsupported"),
        ("name = \"lung probability\"", "name = \"\"", "model.unsupported"),
        ("of = \"uncertainty\"", "of = \"doubt\"", "model.manifest"),
        ("of = \"uncertainty\"", "of = \"uncertainty\"\nfinding = \"lung\"", "model.unsupported"),
        ("of = \"uncertainty\"", "of = \"uncertainty\"\nchannel = 1", "model.manifest"),
    ] {
        let package = changed(|text| text.replacen(from, to, 1));
        let error = Package::read(package.path()).expect_err("must not be taken");
        assert_eq!(error.code(), code, "{from} -> {to}: {error}");
    }
}

#[test]
fn no_such_package() {
    let (_, study) = small_study();
    let ran = roentgen(&["run", "--model", "no-such-package", "--output", "unused", study.path().to_str().expect("ASCII")]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("ct-tissue"), "the names there are belong into the message: {}", ran.stderr);
}

#[test]
fn a_tensor_of_another_name() {
    let package = changed(|text| text.replace("tensor = \"scores\"", "tensor = \"logits\""));
    let (_, study) = small_study();
    let text = |p: &Path| p.to_str().expect("ASCII").to_owned();
    let ran = roentgen(&[
        "run",
        "--device",
        "cpu",
        "--model",
        &text(package.path()),
        "--output",
        &text(&study.path().join("out")),
        &text(study.path()),
    ]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("no tensor `logits`"), "{}", ran.stderr);
}

#[test]
fn a_graph_larger_than_onnx_has() {
    let package = changed(|text| text + "\n# touched\n");
    let graph = fs::File::create(package.path().join("ct-tissue.onnx")).expect("writable");
    graph.set_len(3 << 30).expect("a file with a hole");
    check(package.path(), "model.too-large");
}
