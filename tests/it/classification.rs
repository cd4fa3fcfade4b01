//! Radiographs classified as a whole: probabilities against a formula, results by other people's tools, explanations, what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use roentgen::engine::{Engine, Options};
use roentgen::findings::Findings;
use roentgen::geometry::Coded;
use roentgen::gpu::DeviceChoice;
use roentgen::model::Package;
use roentgen::series::discover;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{command, outcomes, python, root};

/// What `make_radiographs.py` makes, once.
static MADE: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ran = python(&root().join("tests/python/make_radiographs.py"), &[folder.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    folder
});

fn study(name: &str) -> PathBuf {
    MADE.path().join("studies").join(name)
}

fn package(name: &str) -> PathBuf {
    MADE.path().join("packages").join(name)
}

/// `roentgen run --json` over one study, on the CPU.
fn run(package_name: &str, study_name: &str, results: &str, output: &Path) -> (i32, Value) {
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", results, "--model"]).arg(package(package_name));
    let done = run.arg(study(study_name)).arg("--output").arg(output).output().expect("the binary starts");
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    for hidden in ["Phantom^Radiograph", "PHANTOM-DX"] {
        assert!(!text.contains(hidden), "patient text in the output");
    }
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&done.stderr)));
    (done.status.code().expect("it ends by itself"), report)
}

fn certainties(report: &Value) -> Vec<f64> {
    let findings = report["series"][0]["findings"].as_array().unwrap_or_else(|| panic!("no findings: {report}"));
    findings.iter().map(|f| f["certainty_percent"].as_f64().expect("a number")).collect()
}

/// The findings of a study, by the library, with maps.
fn analysed(package_name: &str, study_name: &str) -> Result<Findings, String> {
    let package = Package::read(&package(package_name)).expect("a package");
    let options = Options { device: DeviceChoice::Cpu, maps: true, ..Options::default() };
    let mut engine = Engine::new(package, &options).map_err(|e| e.code().to_owned())?;
    let found = discover(&[study(study_name)]);
    let parts = found.series[0].parts(engine.package().manifest.select.geometry);
    let stack = engine.package().eligible(&parts[0]).expect("the package takes it").stack;
    engine.analyse(stack, &AtomicBool::new(false), &mut |_| {}).map(|a| a.findings).map_err(|e| e.code().to_owned())
}

#[test]
fn probabilities_are_those_of_the_formula() {
    let expected: Value = serde_json::from_slice(&fs::read(MADE.path().join("expected.json")).expect("readable")).expect("JSON");
    let output = tempfile::tempdir().expect("a temporary folder");
    for study in ["square", "inverted", "tall", "small", "no-spacing", "lossy"] {
        for package in ["quadrants", "one-at-a-time", "probabilities"] {
            let (code, report) = run(package, study, "json", &output.path().join(package).join(study));
            assert_eq!(code, 0, "{study}: {report}");
            for (n, found) in certainties(&report).into_iter().enumerate() {
                let expected = expected[study][n].as_f64().expect("a number");
                // Single precision: a logit of up to 6 is about 1e-6 off, and moves the probability by a quarter of that.
                assert!((found - expected).abs() < 1e-3, "{study} with {package}: {found} % is not {expected} %");
            }
        }
    }
}

#[test]
fn results_are_what_other_tools_read() {
    let output = tempfile::tempdir().expect("a temporary folder");
    for name in ["square", "inverted", "no-spacing", "lossy"] {
        let (code, report) = run("quadrants", name, "all", &output.path().join(name));
        assert_eq!(code, 0, "{report}");
        let folder = PathBuf::from(report["series"][0]["folder"].as_str().expect("a folder"));
        let checked = python(&root().join("tests/python/check_classification.py"), &[&study(name), &folder]);
        assert_eq!(checked.code, 0, "{name}: {}", checked.all());
    }
}

#[test]
fn a_map_says_how_far_the_probability_falls() {
    // 32 x 32 pixels are seen as they are: the formula again, patch by patch.
    let findings = analysed("quadrants", "small").expect("findings");
    let other = analysed("one-at-a-time", "small").expect("findings");
    let found = discover(&[study("small")]);
    let parts = found.series[0].parts(Default::default());
    let image = parts[0].gate().expect("an image").load().expect("pixels").image;
    let [low, high] = image.range();
    let pixels: Vec<f64> = (0..1024).map(|n| (image.physical([n % 32, n / 32, 0]) - low) / (high - low)).collect();
    let probabilities = |pixels: &[f64]| {
        [0, 16].map(|start: usize| {
            let quadrant = (start..start + 16).flat_map(|j| (start..start + 16).map(move |i| pixels[j * 32 + i]));
            1.0 / (1.0 + (-12.0 * (quadrant.sum::<f64>() / 256.0 - 0.5)).exp())
        })
    };
    let whole = probabilities(&pixels);
    let mean = pixels.iter().sum::<f64>() / 1024.0;
    let mut sums = vec![[0.0; 3]; 1024];
    for top in (0..=24).step_by(8) {
        for left in (0..=24).step_by(4) {
            let mut covered = pixels.clone();
            (top..top + 8).for_each(|j| covered[j * 32 + left..j * 32 + left + 8].fill(mean));
            let fell = probabilities(&covered);
            for place in (top..top + 8).flat_map(|j| (left..left + 8).map(move |i| j * 32 + i)) {
                (0..2).for_each(|n| sums[place][n] += whole[n] - fell[n]);
                sums[place][2] += 1.0;
            }
        }
    }
    assert_eq!(findings.maps.len(), 2);
    for (n, map) in findings.maps.iter().enumerate() {
        assert_eq!(map.values.voxels(), other.maps[n].values.voxels(), "the number of images in a run changes nothing");
        for (value, sum) in map.values.voxels().iter().zip(&sums) {
            let expected = sum[n] / sum[2];
            assert!((f64::from(*value) - expected).abs() < 1e-5, "{value} is not {expected}");
        }
    }
    assert!(findings.labels.voxels().iter().all(|&label| label == 0) && findings.findings.iter().all(|f| f.segment.is_none()));
}

/// The package of the formula as a regression: what the graph says before the sigmoid, on a scale of months.
fn regression(folder: &Path, changes: &[(&str, &str)]) -> Result<Package, roentgen::model::ModelError> {
    let text = fs::read_to_string(package("quadrants").join("model.toml")).expect("readable");
    let explanation = text.find("[explanation]").expect("it has one");
    let estimate = "estimate = { concept = { value = \"BONE-AGE\", scheme = \"99TEST\", meaning = \"Bone age\" }, \
                    unit = { value = \"mo\", scheme = \"UCUM\", meaning = \"month\" }, scale = 10.0, offset = 100.0, least = 0.0, most = 240.0 }";
    let text = text[..explanation].replace("task = \"classification\"", "task = \"regression\"");
    let text = text.replace("scores = \"independent-logits\"\n", "").replace("threshold = { at = 0.6, origin = \"a test\" }", estimate);
    let change = |text: String, (from, to): &(&str, &str)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    fs::write(folder.join("model.toml"), changes.iter().fold(text, change)).expect("written");
    fs::copy(package("quadrants").join("quadrants.onnx"), folder.join("quadrants.onnx")).expect("copied");
    Package::read(folder)
}

#[test]
fn a_regression_gives_numbers_with_units() {
    let expected: Value = serde_json::from_slice(&fs::read(MADE.path().join("expected.json")).expect("readable")).expect("JSON");
    let [folder, output] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    regression(folder.path(), &[]).expect("a package");
    let (code, report) = run(folder.path().to_str().expect("ASCII"), "tall", "all", output.path());
    assert_eq!(code, 0, "{report}");
    let findings = report["series"][0]["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 2);
    for (n, finding) in findings.iter().enumerate() {
        let probability = expected["tall"][n].as_f64().expect("a number") / 100.0;
        let months = 100.0 + 10.0 * (probability / (1.0 - probability)).ln();
        let measured = &finding["measurements"][0];
        let found = measured["value"].as_f64().expect("a number");
        assert!((found - months).abs() < 1e-2, "{found} is not {months}");
        assert!(measured["unit"] == "mo" && measured["name"] == "Bone age", "{measured}");
        assert!(finding["certainty_percent"].is_null(), "{finding}");
    }
    let results = PathBuf::from(report["series"][0]["folder"].as_str().expect("a folder"));
    let report = crate::support::roentgen(&["show", results.join("sr-study.dcm").to_str().expect("ASCII")]);
    assert!(report.code == 0 && report.stdout.matches("Bone age (99TEST BONE-AGE): ").count() == 2, "{}", report.all());
    for file in ["findings.csv", "findings.json", "fhir-r4.json", "report.html"] {
        let text = fs::read_to_string(results.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.contains("Bone age"), "{file}");
    }
}

#[test]
fn a_regression_that_is_out_of_range_is_no_result() {
    let [folder, output] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    regression(folder.path(), &[("most = 240.0", "most = 1.0")]).expect("a package");
    let (code, report) = run(folder.path().to_str().expect("ASCII"), "tall", "json", output.path());
    assert_eq!((code, outcomes(&report)), (1, vec![("failed".to_owned(), vec!["infer.out-of-range".to_owned()])]));
    for (from, to) in [
        ("scale = 10.0", "scale = 0.0"),
        ("least = 0.0", "least = 300.0"),
        ("scheme = \"UCUM\"", "scheme = \"SCT\""),
        ("meaning = \"Bone age\"", "meaning = \"\""),
        ("[output]\n", "[output]\nscores = \"logits\"\n"),
        ("task = \"regression\"", "task = \"classification\""),
    ] {
        let error = regression(folder.path(), &[(from, to)]).expect_err(to);
        assert_eq!(error.code(), "model.unsupported", "{from} -> {to}: {error}");
    }
}

#[test]
fn black_and_white_must_not_contradict_each_other() {
    let output = tempfile::tempdir().expect("a temporary folder");
    let (code, report) = run("quadrants", "contradicted", "json", output.path());
    assert_eq!((code, outcomes(&report)), (1, vec![("not-eligible".to_owned(), vec!["select.polarity".to_owned()])]));
}

#[test]
fn graphs_that_are_not_what_the_manifest_says() {
    assert_eq!(analysed("three-channels", "square").map(|_| ()), Err("infer.contract".to_owned()));
    assert_eq!(analysed("no-probabilities", "square").map(|_| ()), Err("infer.not-probability".to_owned()));
}

#[test]
fn manifests_that_no_classification_can_have() {
    let text = fs::read_to_string(package("quadrants").join("model.toml")).expect("readable");
    let graph = package("quadrants").join("quadrants.onnx");
    let threshold = "threshold = { at = 0.6, origin = \"a test\" }";
    let finding = "name = \"bright above\"\n";
    for (from, to, code) in [
        (threshold, "", "model.unsupported"),
        (threshold, "threshold = 0.6", "model.manifest"),
        (threshold, "threshold = { at = 0.0, origin = \"a test\" }", "model.unsupported"),
        (threshold, "threshold = { at = 1.5, origin = \"a test\" }", "model.unsupported"),
        (threshold, "threshold = { at = 0.6, origin = \"\" }", "model.unsupported"),
        (threshold, "threshold = { at = 0.6 }", "model.manifest"),
        (finding, "name = \"bright above\"\nsegment = 1\n", "model.unsupported"),
        (finding, "name = \"bright above\"\nmeasurements = [\"volume\"]\n", "model.unsupported"),
        (finding, "name = \"bright above\"\ncolour = [1, 2, 3]\n", "model.unsupported"),
        ("scores = \"independent-logits\"", "", "model.unsupported"),
        ("kind = \"image\"", "kind = \"volume\"", "model.unsupported"),
        ("modality = [\"DX\", \"CR\"]", "modality = [\"CT\"]", "model.unsupported"),
        ("to = [32, 32, 1]", "to = [32, 32, 8]", "model.unsupported"),
        ("to = [32, 32, 1]", "to = [32, 0, 1]", "model.unsupported"),
        ("step = \"resize\"\nto = [32, 32, 1]", "step = \"resample\"\nspacing_mm = [1.0, 1.0, 1.0]", "model.unsupported"),
        ("[inference.whole]", "[inference.tiles]\ntile = [32, 32, 1]\nhalo = 0", "model.unsupported"),
        ("[inference.whole]", "[inference.whole]\nhalo = 0", "model.manifest"),
        ("[inference.whole]", "[[postprocess]]\nstep = \"argmax\"\n\n[inference.whole]", "model.unsupported"),
        ("patch = [8, 8, 1]", "patch = [40, 8, 1]", "model.unsupported"),
        ("stride = [4, 8, 1]", "stride = [4, 9, 1]", "model.unsupported"),
        ("stride = [4, 8, 1]", "stride = [0, 8, 1]", "model.unsupported"),
        ("fill = \"mean\"", "fill = \"median\"", "model.manifest"),
        ("fill = \"mean\"", "fill = inf", "model.unsupported"),
        ("method = \"occlusion\"", "method = \"gradient\"", "model.manifest"),
        ("task = \"classification\"", "task = \"segmentation\"", "model.unsupported"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let other = text.replacen(from, to, 1);
        assert_ne!(text, other, "{from} is in the manifest");
        fs::write(folder.path().join("model.toml"), other).expect("written");
        fs::copy(&graph, folder.path().join("quadrants.onnx")).expect("copied");
        let error = Package::read(folder.path()).expect_err(to);
        assert_eq!(error.code(), code, "{from} -> {to}: {error}");
    }
    // 65 x 65 places.
    let many = text.replace("to = [32, 32, 1]", "to = [65, 65, 1]").replace("patch = [8, 8, 1]", "patch = [1, 1, 1]");
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("model.toml"), many.replace("stride = [4, 8, 1]", "stride = [1, 1, 1]")).expect("written");
    let error = Package::read(folder.path()).expect_err("4225 runs are too many");
    assert!(error.to_string().contains("4225 runs") && error.code() == "model.unsupported", "{error}");
}

#[test]
fn the_shipped_package_does_what_it_says() {
    let ran = crate::support::roentgen(&["model", "check", "cxr-screen", "--device", "cpu", "--provider", "cpu"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert_eq!(ran.stdout.matches("passed").count(), 3, "two probabilities, and all: {}", ran.stdout);
    let output = tempfile::tempdir().expect("a temporary folder");
    let mut demo = command();
    demo.args(["demo", "--package", "cxr-screen", "--device", "cpu", "--json", "--results", "sr,json,html,png,map", "--output"]);
    let done = demo.arg(output.path()).output().expect("the binary starts");
    let findings: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let names: Vec<&str> = findings.as_array().expect("findings").iter().map(|f| f["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["pleural effusion", "cardiomegaly"]);
    let files = crate::support::files_below(output.path());
    assert!(files.iter().filter(|f| f.ends_with("map-2.dcm")).count() == 1, "{files:?}");
}
