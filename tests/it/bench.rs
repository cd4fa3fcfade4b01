//! `roentgen bench`: what it measures is plausible, its files are whole, and a comparison finds what became slower.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{python, roentgen, root};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A report whose medians are `factor` times those of `report`, without spread.
fn scaled(report: &Value, factor: f64) -> Value {
    let mut report = report.clone();
    let scale = |one: &mut Value| {
        one["median_ms"] = (number(&one["median_ms"]) * factor).into();
        one["spread_percent"] = 0.0.into();
    };
    report["kernels"].as_array_mut().expect("kernels").iter_mut().for_each(scale);
    let runs = report["runs"].as_array_mut().expect("runs");
    runs.iter_mut().flat_map(|run| run["stages"].as_array_mut().expect("stages")).for_each(scale);
    report
}

#[test]
fn kernels_and_runs_are_measured_and_compared() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().expect("UTF-8");
    let (json, html, trace) = (path("report.json"), path("report.html"), path("trace.json"));
    let bench = ["bench", "--quick", "--device", "cpu", "--sizes", "40"];
    let ran = roentgen(&[&bench[..], &["--json", &json, "--html", &html, "--trace", &trace]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());

    let report: Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    let limits = &report["devices"][0]["limits"];
    for name in ["copy_gb_s", "read_gb_s", "fill_gb_s", "compute_gflop_s"] {
        assert!((0.1..1e5).contains(&number(&limits[name])), "{name}: {limits}");
    }
    let kernels = report["kernels"].as_array().expect("kernels");
    for name in ["resample", "scores to labels", "components", "label statistics"] {
        assert!(kernels.iter().any(|kernel| kernel["kernel"] == name), "{name} is not measured");
        assert!(ran.stdout.contains(name), "{name} is not in the table:\n{}", ran.stdout);
    }
    for kernel in kernels {
        let gb_s = number(&kernel["bytes"]) / 1e6 / number(&kernel["median_ms"]);
        assert!((number(&kernel["gb_s"]) / gb_s - 1.0).abs() < 1e-6, "{kernel}");
        assert!(number(&kernel["samples"]) >= 3.0 && number(&kernel["voxels"]) >= 6_000.0, "{kernel}");
    }
    let stages: Vec<_> = report["runs"][0]["stages"].as_array().expect("a run").iter().map(|stage| stage["stage"].clone()).collect();
    assert_eq!(stages, ["load", "preprocess", "infer", "postprocess", "measure", "write"]);

    let events: Value = serde_json::from_slice(&fs::read(&trace).expect("written")).expect("JSON");
    let events: Vec<&Value> = events["traceEvents"].as_array().expect("events").iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(events.iter().map(|event| event["name"].clone()).collect::<Vec<_>>(), stages);
    let end = |event: &Value| number(&event["ts"]) + number(&event["dur"]);
    assert!(events.windows(2).all(|pair| end(pair[0]) <= number(&pair[1]["ts"])), "stages follow each other");

    for (factor, code, word) in [(0.01, 1, "slower"), (100.0, 0, "faster")] {
        let old = path("old.json");
        fs::write(&old, scaled(&report, factor).to_string()).expect("writable");
        let ran = roentgen(&[&bench[..], &["--compare", &old]].concat());
        assert_eq!(ran.code, code, "{}", ran.all());
        let measurements = kernels.len() + stages.len();
        assert!(ran.stdout.contains(&format!("{measurements} of {measurements} measurements are {word}")), "{}", ran.stdout);
    }
    let ran = roentgen(&[&bench[..], &["--compare", &trace]].concat());
    assert_eq!(ran.code, 2, "a timeline is no report: {}", ran.all());

    let shown = python(&root().join("tests/python/check_bench_page.py"), &[Path::new(&html), Path::new(&json)]);
    assert_eq!(shown.code, 0, "{}", shown.all());
}

#[test]
fn devices_that_are_not_there_are_an_error() {
    let ran = roentgen(&["bench", "--quick", "--device", "gpu:99"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("gpu:99") || ran.stderr.contains("99"), "{}", ran.stderr);
}
