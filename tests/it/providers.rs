//! Execution providers: what OpenVINO answers beside the CPU's own kernels and others' rules, and what becomes of one that is not there.

use std::path::{Path, PathBuf};
use std::process::Command;

use roentgen::infer::{Precision, Provider, runtime};
use serde_json::Value;

use crate::packages::with_graph;
use crate::support::{ct_tissue, findings_json, python, roentgen, root, small_study};
use crate::windows;

const OPEN_VINO: Provider = Provider::OpenVino(Precision::Float32);
const BFLOAT16: Provider = Provider::OpenVino(Precision::BFloat16);

/// What [`answers_of_a_provider`] is told by.
const CASES: &str = "ROENTGEN_TEST_CASES";
const PROVIDER: &str = "ROENTGEN_TEST_PROVIDER";

/// Whether there is a library with OpenVINO, as `tests/run` sees to where there can be one; or one line that says it is absent.
fn has_open_vino() -> bool {
    let found = runtime::find(None, OPEN_VINO).is_ok();
    if !found {
        println!("skipped: no ONNX Runtime library with OpenVINO (roentgen setup --provider openvino)");
    }
    found
}

#[test]
#[ignore = "started by the other tests in a process of its own, which has another ONNX Runtime library"]
fn answers_of_a_provider() {
    let told = |name| std::env::var(name).expect("the test that starts this one sets it");
    windows::answer(told(CASES).as_ref(), told(PROVIDER).parse().expect("a provider"));
}

/// Scores of each case in `folder`, in its order, by `provider`; or what the process that tried said.
fn answers(folder: &Path, provider: Provider) -> Result<Vec<Vec<f32>>, String> {
    let mut command = Command::new(std::env::current_exe().expect("this test's own program"));
    command.args(["--exact", "providers::answers_of_a_provider", "--ignored", "--nocapture"]);
    let ran = command.env(CASES, folder).env(PROVIDER, provider.to_string()).output().expect("it starts");
    if !ran.status.success() {
        return Err(format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr)));
    }
    let read = |case: &PathBuf| bytemuck::pod_collect_to_vec(&std::fs::read(case.join("scores.raw")).expect("it wrote them"));
    Ok(windows::cases(folder).iter().map(read).collect())
}

/// The largest difference, as a part of the range of the scores.
fn off(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let of_case = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let range = a.iter().copied().fold(f32::MIN, f32::max) - a.iter().copied().fold(f32::MAX, f32::min);
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / range
    };
    a.iter().zip(b).map(of_case).fold(0.0, f32::max)
}

#[test]
fn open_vino_answers_as_others_and_the_same_each_time() {
    if !has_open_vino() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = root().join("tests/python/check_windows.py");
    let made = python(&script, &["make".as_ref(), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    let first = answers(folder.path(), OPEN_VINO).expect("it answers");
    let checked = python(&script, &["check".as_ref(), folder.path()]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
    assert!(first == answers(folder.path(), OPEN_VINO).expect("it answers"), "another process, other scores");

    match answers(folder.path(), BFLOAT16) {
        // 8 bits are a step of 1/256 at most; sums of 125 products stay well below ten of them.
        Ok(rounded) => {
            let off = off(&first, &rounded);
            println!("bfloat16 is off by {off:.1e} of the range");
            assert!((1e-4..0.04).contains(&off), "{off}");
        }
        Err(said) => assert!(said.contains("no bfloat16"), "{said}"),
    }
}

/// Findings of the small study by the shipped package on this provider, with its label map beside them.
fn findings(study: &Path, provider: &str) -> Value {
    let output = study.join("out").join(provider.replace(':', "-"));
    let text = |path: &Path| path.to_str().expect("ASCII").to_owned();
    let arguments = ["run", "--device", "cpu", "--provider", provider, "--results", "json", "--model"].map(str::to_owned);
    let inputs = [text(&ct_tissue()), text(&study.join("study")), "--output".to_owned(), text(&output)];
    let ran = roentgen(&[&arguments[..], &inputs[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let series = std::fs::read_dir(&output)
        .expect("results")
        .map(|entry| entry.expect("readable").path())
        .find(|path| path.join("findings.json").is_file());
    findings_json(&series.expect("one series"))
}

#[test]
fn results_say_which_provider_ran_and_how_precisely() {
    if !has_open_vino() {
        return;
    }
    let (_, made) = small_study();
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::rename(made.path(), folder.path().join("study")).expect("on one file system");
    let [cpu, open_vino] = ["cpu", "openvino"].map(|provider| findings(folder.path(), provider));
    let parameter = |findings: &Value, name: &str| {
        let all = findings["provenance"]["parameters"].as_array().expect("parameters").clone();
        all.iter().find(|parameter| parameter["name"] == name).map(|parameter| parameter["value"].as_str().expect("text").to_owned())
    };
    assert_eq!(cpu["provenance"]["provider"], "CPUExecutionProvider");
    assert_eq!(parameter(&cpu, "precision"), None);
    assert_eq!(open_vino["provenance"]["provider"], "OpenVINOExecutionProvider");
    assert_eq!(parameter(&open_vino, "provider").as_deref(), Some("OpenVINOExecutionProvider"));
    assert_eq!(parameter(&open_vino, "precision").as_deref(), Some("float32"));
    assert_ne!(parameter(&open_vino, "onnxruntime"), parameter(&cpu, "onnxruntime"), "a library of its own");
    // Memberships of this package are a few sums: both providers come to the same labels.
    let measured = |findings: &Value| {
        let of = |finding: &Value| finding["measurements"].as_array().expect("measurements").iter().map(|m| m["value"].clone()).collect();
        findings["findings"].as_array().expect("findings").iter().map(of).collect::<Vec<Vec<Value>>>()
    };
    assert_eq!(measured(&cpu), measured(&open_vino));
}

#[test]
fn a_graph_that_open_vino_cannot_run_by_itself_is_refused() {
    if !has_open_vino() {
        return;
    }
    let package = with_graph("hardmax");
    let on = |provider: &str| {
        let package = package.path().to_str().expect("ASCII");
        roentgen(&["model", "check", package, "--device", "cpu", "--provider", provider])
    };
    let refused = on("openvino");
    assert_eq!(refused.code, 1, "{}", refused.all());
    assert!(refused.stdout.contains("has not all operators"), "{}", refused.all());
    assert!(!on("cpu").stdout.contains("has not all operators"));
}

#[test]
fn a_package_is_checked_on_each_provider_that_is_there() {
    if !has_open_vino() {
        return;
    }
    let ran = roentgen(&["model", "check", ct_tissue().to_str().expect("ASCII"), "--device", "cpu"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    for provider in [Provider::Cpu, OPEN_VINO] {
        assert!(ran.stdout.contains(&format!("{} on cpu", provider.name())), "{}", ran.all());
    }
}

#[test]
fn a_provider_that_is_not_there_is_refused_by_name() {
    let (_, study) = small_study();
    let output = study.path().join("out");
    let run = |provider: &str| {
        let [package, study, output] = [&ct_tissue(), study.path(), &output].map(|path| path.to_str().expect("ASCII").to_owned());
        roentgen(&["run", "--provider", provider, "--model", &package, "--output", &output, &study])
    };
    for (provider, expected) in [("directml", "DmlExecutionProvider"), ("gpu", "no execution provider `gpu`: there are cpu, openvino, ")] {
        let ran = run(provider);
        assert_eq!(ran.code, 2, "{}", ran.all());
        assert!(ran.stderr.contains(expected), "{}", ran.all());
        assert!(!output.exists(), "nothing may be written");
    }
    let setup = roentgen(&["setup", "--provider", "cuda"]);
    assert_eq!(setup.code, 2, "{}", setup.all());
    assert!(setup.stderr.contains("only with `cpu` and `openvino`"), "{}", setup.all());
}
