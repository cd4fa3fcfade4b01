//! The main job on data of our own: found beside truth, CPU beside GPU, once beside again.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;

use roentgen::codes::sop_class;
use roentgen::engine::{Analysis, Engine, Options};
use roentgen::gpu::{self, DeviceChoice};
use roentgen::infer::{AtOnce, Network, Provider, runtime};
use roentgen::kernels::{Backend, Interpolation, Rule, ScoresToLabels, scores_margin_cpu};
use roentgen::model::Package;
use roentgen::phantom::{self, Sampling};
use roentgen::preprocess::Plan;
use roentgen::results;
use roentgen::series;

use crate::support::{command, ct_tissue, files_below, outcomes, python, roentgen, root, run_ct_tissue, small_study};

fn demo(device: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().to_str().expect("ASCII");
    let ran = roentgen(&["demo", "--device", device, "--json", "--output", output]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let rows = ran.json();
    let rows = rows.as_array().expect("one row a tissue");
    assert_eq!(rows.len(), 5, "air, lung, fat, soft tissue, bone");
    for row in rows {
        let difference = row["difference_percent"].as_f64().expect("a number");
        assert!(difference.abs() <= 2.0, "{row}");
    }
    for file in files_below(&folder.path().join("results")) {
        assert!(!file.to_string_lossy().to_lowercase().contains("phantom"), "patient text in a file name: {}", file.display());
    }
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("Phantom^"), "patient text in the output");
    let mut files = files_below(&folder.path().join("results"));
    files.retain(|f| !f.components().any(|part| part.as_os_str() == "work"));
    let mut names: Vec<_> = files.iter().filter_map(|f| f.file_name()?.to_str()).collect();
    names.sort_unstable();
    let of_series = ["findings.json", "overview.png", "report.html", "seg.dcm", "sr.dcm"];
    let mut expected = [&of_series[..], &["failures.csv", "findings.csv", "findings.parquet", "report.html", "report.json"]].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn volumes_are_the_truth_on_the_cpu() {
    demo("cpu");
}

#[test]
fn volumes_are_the_truth_on_a_software_gpu() {
    match gpu::list_adapters().iter().find(|a| a.is_software) {
        Some(adapter) => demo(&format!("gpu:{}", adapter.index)),
        None => println!("skipped: no adapter"),
    }
}

#[test]
fn each_nodule_of_the_phantom_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().to_str().expect("ASCII");
    let ran = roentgen(&["demo", "--package", "ct-lung-nodule", "--device", "cpu", "--json", "--output", output]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let rows = ran.json();
    let rows = rows.as_array().expect("one row a tissue and nodule");
    assert_eq!(rows.iter().filter(|row| row["tissue"] == "nodule").count(), 4, "{}", ran.stdout);
    for row in rows {
        let difference = row["difference_percent"].as_f64().expect("a number");
        assert!(difference.abs() <= 15.0, "{row}");
    }
}

fn analyse(folder: &Path, device: DeviceChoice) -> Analysis {
    let package = Package::read(&ct_tissue()).expect("the shipped package is whole");
    let mut engine = Engine::new(package, &Options { device, ..Options::default() }).expect("the engine starts; run `tests/run`");
    let series = series::discover(&[folder.to_owned()]).series;
    let parts = series[0].parts(engine.package().manifest.select.geometry);
    let stack = engine.package().eligible(&parts[0]).expect("the phantom is eligible").stack;
    engine.analyse(stack, &AtomicBool::new(false), &mut |_| {}).expect("the phantom can be analysed")
}

/// Labels may differ only where the two best classes tie within what float arithmetic in another order can move.
#[test]
fn cpu_and_gpu_label_the_same() {
    let Some(adapter) = gpu::list_adapters().into_iter().next() else { return println!("skipped: no adapter") };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let study = phantom::chest(&Sampling::default());
    phantom::write_series(&study, folder.path()).expect("the study can be written");
    let on_cpu = analyse(folder.path(), DeviceChoice::Cpu);
    let on_gpu = analyse(folder.path(), format!("gpu:{}", adapter.index).parse().expect("a device"));

    // The margins once more on the CPU, from the scores themselves.
    let package = Package::read(&ct_tissue()).expect("the shipped package is whole");
    let runtime = runtime::load(None, Provider::Cpu).expect("loaded above");
    let mut network = Network::load(runtime, &package, Provider::Cpu, AtOnce::default()).expect("loaded above");
    let plan = Plan::new(&package.manifest.preprocess, on_cpu.image.grid(), None).expect("ran above");
    let input = plan.run(&Backend::Cpu, &on_cpu.image).expect("ran above");
    let scores = network.run(&[input], &AtomicBool::new(false)).expect("ran above");
    let labels: Vec<u8> = package.manifest.finding.iter().map(|f| f.segment).collect();
    let kernel = ScoresToLabels {
        network_dims: scores.grid.dims(),
        target_dims: on_cpu.image.grid().dims(),
        network_from_target: scores.grid.voxel_from_lps() * on_cpu.image.grid().lps_from_voxel(),
        interpolation: [Interpolation::Linear; 3],
        label_of_channel: &labels,
        rule: Rule::Highest,
    };
    let margins = scores_margin_cpu(&scores.values, &kernel);
    let (a, b) = (on_cpu.findings.labels.voxels(), on_gpu.findings.labels.voxels());
    let differing: Vec<usize> = (0..a.len()).filter(|&n| a[n] != b[n]).collect();
    println!("{} of {} voxels differ between CPU and {}", differing.len(), a.len(), on_gpu.findings.provenance.device);
    // Scores lie in 0..1.02; two f32 pipelines agree to about 1e-6 of that, amplified by the steep edge weights.
    let worst = differing.iter().map(|&n| margins[n]).fold(0.0, f32::max);
    assert!(worst < 2e-5, "a voxel with a margin of {worst} differs");
    assert!(differing.len() < a.len() / 10_000, "{} voxels tie", differing.len());
}

/// Byte-identical label maps and the same UIDs, in processes of their own.
#[test]
fn the_same_job_is_the_same_object() {
    let (_, study) = small_study();
    let runs: Vec<_> = (0..2)
        .map(|_| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let ran = run_ct_tissue(&[study.path()], folder.path());
            assert_eq!(ran.code, 0, "{}", ran.all());
            let find = |name: &str| files_below(folder.path()).into_iter().find(|f| f.ends_with(name)).expect("written");
            let identity = |name: &str| {
                let object = dicom::object::open_file(find(name)).expect("readable");
                let text = |name| object.element_by_name(name).expect("present").to_str().expect("text").into_owned();
                let class = text("SOPClassUID");
                let pixels = (class == sop_class::SEGMENTATION)
                    .then(|| object.element_by_name("PixelData").expect("present").to_bytes().expect("bytes").into_owned());
                (class, text("SOPInstanceUID"), text("SeriesInstanceUID"), pixels)
            };
            let png = std::fs::read(find(results::PNG_FILE)).expect("readable");
            (identity(results::SR_FILE), identity(results::SEG_FILE), png)
        })
        .collect();
    assert_eq!(runs[0], runs[1]);
}

/// Validators by other people: dciodvfy, dsrdump, highdicom, and highdicom's numbers against our JSON.
#[test]
fn validators_accept_the_results() {
    let (_, study) = small_study();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ran = run_ct_tissue(&[study.path()], folder.path());
    assert_eq!(outcomes(&ran.json()), [("done".to_owned(), Vec::new())], "{}", ran.all());
    let results = files_below(folder.path()).into_iter().find(|f| f.ends_with(results::SR_FILE)).expect("written");
    let checked = python(&root().join("tests/python/validate_results.py"), &[study.path(), results.parent().expect("in a folder")]);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

/// The network's graph against its definition in numpy, and its bytes against the script that builds them.
#[test]
fn the_graph_is_its_definition() {
    let checked = python(&root().join("tests/python/test_model.py"), &[]);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

#[test]
fn runs_without_any_graphics_driver() {
    let (_, study) = small_study();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = command();
    command.env("VK_DRIVER_FILES", "/nonexistent.json").env("VK_ICD_FILENAMES", "/nonexistent.json");
    command.args(["run", "--model", "ct-tissue", "--json", "--output"]).arg(folder.path()).arg(study.path());
    let output = command.output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["device"], "cpu");
}

#[test]
fn output_that_cannot_be_written() {
    let ran_into = |stdout: Stdio| {
        let mut ran = command().arg("man").stdout(stdout).stderr(Stdio::piped()).spawn().expect("the binary starts");
        drop(ran.stdout.take()); // who reads has seen enough
        let code = ran.wait().expect("it ends").code();
        let mut stderr = String::new();
        ran.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        (code, stderr)
    };
    assert_eq!(ran_into(Stdio::piped()), (Some(0), String::new()));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has one");
    let (code, stderr) = ran_into(full.into());
    assert!(code == Some(2) && stderr.contains("cannot print all of the result"), "{stderr}");
}
