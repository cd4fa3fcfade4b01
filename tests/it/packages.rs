//! Model packages that must not run: each a typed error, nothing written.

use std::fs;
use std::path::Path;

use roentgen::codes::sha256_hex;
use roentgen::geometry::Coded;
use roentgen::infer::{AtOnce, Network, Provider, runtime};
use roentgen::model::Package;

use crate::support::{Ran, ct_tissue, python, roentgen, root, small_study};

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

/// The shipped package with one of the graphs of `make_graphs.py` instead of its own.
pub(crate) fn with_graph(name: &str) -> tempfile::TempDir {
    let made = tempfile::tempdir().expect("a temporary folder");
    let ran = python(&root().join("tests/python/make_graphs.py"), &[made.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let graph = fs::read(made.path().join(format!("{name}.onnx"))).expect("it is made");
    let own = fs::read(ct_tissue().join("ct-tissue.onnx")).expect("readable");
    let package = changed(|text| text.replace(&sha256_hex(&own), &sha256_hex(&graph)));
    fs::write(package.path().join("ct-tissue.onnx"), graph).expect("written");
    package
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
    let package = changed(|text| {
        let (before, after) = text.split_once("sha256 = \"").expect("a hash");
        format!("{before}sha256 = \"{}{}", if after.starts_with('0') { '1' } else { '0' }, &after[1..])
    });
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

/// The binary on a small study, and whether it wrote anything.
fn run_on_small_study(package: &Path) -> (Ran, bool) {
    let (_, study) = small_study();
    let output = study.path().join("results");
    let [package, output_text, study] = [package, &output, study.path()].map(|path| path.to_str().expect("ASCII"));
    let ran = roentgen(&["run", "--device", "cpu", "--model", package, "--output", output_text, study]);
    (ran, output.exists())
}

/// What comes of loading the shipped package with another graph: in this process and by the binary, which writes nothing.
fn check_graph(name: &str, code: &str) {
    let package = with_graph(name);
    let runtime = runtime::load(None, Provider::Cpu).expect("ONNX Runtime is there");
    let found = Package::read(package.path()).expect("its hashes hold");
    let error = Network::load(runtime, &found, Provider::Cpu, AtOnce::default()).expect_err("must not be taken");
    assert_eq!(error.code(), code, "{name}: {error}");
    let (ran, wrote) = run_on_small_study(package.path());
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains(&error.to_string()) && !wrote, "{name}: {}", ran.all());
}

#[test]
fn a_graph_that_does_not_fit_its_manifest() {
    for name in ["dtype", "rank", "input-channels", "output-channels"] {
        check_graph(name, "infer.contract");
    }
}

#[test]
fn a_graph_with_an_operator_that_nobody_has_or_without_its_end() {
    for name in ["operator", "cut-short"] {
        check_graph(name, "infer.graph");
    }
}

#[test]
fn a_graph_whose_answers_are_no_scores() {
    for (name, code) in [("size", "infer.contract"), ("not-finite", "infer.not-finite")] {
        let (ran, _) = run_on_small_study(with_graph(name).path());
        assert_eq!(ran.code, 1, "{}", ran.all());
        assert!(ran.stdout.contains(code), "{name}: {}", ran.all());
    }
    let (fits, _) = run_on_small_study(with_graph("fits").path());
    assert_eq!(fits.code, 0, "{}", fits.all());
}

#[test]
fn a_volume_that_does_not_fit_into_memory() {
    let (_, study) = small_study();
    let [package, output, input] =
        [&ct_tissue(), &study.path().join("results"), study.path()].map(|path| path.to_str().expect("ASCII").to_owned());
    let run =
        |megabytes: &str| roentgen(&["run", "--device", "cpu", "--memory-mb", megabytes, "--model", &package, "--output", &output, &input]);
    let refused = run("1");
    assert_eq!(refused.code, 1, "{}", refused.all());
    // 90 x 68 x 24 voxels of 4 x 4 x 9.6 mm are 240 x 182 x 154 of 1.5 mm, and each of them an input and five scores of 4 bytes.
    assert!(refused.stdout.contains("[infer.memory]") && refused.stdout.contains(" MB are to be had"), "{}", refused.all());
    let fits = run("8192");
    assert_eq!(fits.code, 0, "{}", fits.all());
}
