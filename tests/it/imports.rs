//! `roentgen model import`: what is no results folder or bundle, and nnU-Net's and MONAI's own answers where a Python with them is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, roentgen, root};

fn import(tool: &str, results: &Path, output: &Path) -> Ran {
    let text = |path: &Path| path.to_str().expect("ASCII").to_owned();
    roentgen(&["model", "import", tool, &text(results), "--output", &text(output), "--python", "no-such-python"])
}

#[test]
fn what_is_no_results_folder_of_nnunet_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (results, output) = (folder.path().join("results"), folder.path().join("package"));
    let refused = |expected: &str| {
        let ran = import("nnunet", &results, &output);
        assert_eq!(ran.code, 2, "{}", ran.all());
        assert!(ran.stderr.contains(expected) && !output.exists(), "{}", ran.all());
    };
    fs::create_dir(&results).expect("made");
    refused("no plans.json and dataset.json");
    fs::write(results.join("plans.json"), "{}").expect("written");
    fs::write(results.join("dataset.json"), "{}").expect("written");
    refused("no fold has the checkpoint");
    fs::create_dir(results.join("fold_0")).expect("made");
    fs::write(results.join("fold_0/checkpoint_final.pth"), "").expect("written");
    refused("no-such-python");
    fs::write(results.join("plans.pkl"), "").expect("written");
    refused("nnU-Net v1");
}

#[test]
fn what_is_no_bundle_of_monai() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (bundle, output) = (folder.path().join("bundle"), folder.path().join("package"));
    let refused = |expected: &str| {
        let ran = import("monai", &bundle, &output);
        assert_eq!(ran.code, 2, "{}", ran.all());
        assert!(ran.stderr.contains(expected) && !output.exists(), "{}", ran.all());
    };
    fs::create_dir_all(bundle.join("configs")).expect("made");
    refused("no configs/inference.json or .yaml");
    fs::write(bundle.join("configs/inference.yaml"), "").expect("written");
    refused("no models/model.pt or model.ts");
    fs::create_dir(bundle.join("models")).expect("made");
    fs::write(bundle.join("models/model.ts"), "").expect("written");
    refused("no-such-python");
}

/// Dice of at least 0.9999 a class: `tests/python/check_nnunet.py`.
#[test]
fn labels_are_those_of_nnunet() {
    labels_are_those_of("ROENTGEN_NNUNET_PYTHON", "nnunetv2, onnx and SimpleITK", "check_nnunet.py");
}

/// Dice of at least 0.9999 a class: `tests/python/check_monai.py`.
#[test]
fn labels_are_those_of_monai() {
    labels_are_those_of("ROENTGEN_MONAI_PYTHON", "monai, onnx, onnxruntime, nibabel, pyyaml and SimpleITK", "check_monai.py");
}

fn labels_are_those_of(variable: &str, needs: &str, script: &str) {
    let Some(python) = std::env::var_os(variable).map(PathBuf::from) else {
        println!("skipped: {variable} names no Python with {needs}");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("phantom.nii.gz");
    let script = root().join("tests/python").join(script);
    let run = Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_roentgen")).arg(&image).arg(folder.path()).output();
    let ran = run.expect("Python runs");
    println!("{}", String::from_utf8_lossy(&ran.stdout));
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
