//! Networks that see several series of a study at once: the right mask, which series is which, and what is refused.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use dicom::core::{DataElement, VR};
use dicom::dictionary_std::tags;
use dicom::object::open_file;
use roentgen::codes::sha256_hex;
use roentgen::engine::{Engine, Options};
use roentgen::geometry::{Affine, Coded, Grid};
use roentgen::gpu::DeviceChoice;
use roentgen::model::Package;
use roentgen::phantom::{self, Phantom, Sampling};
use roentgen::research::{read_volume, write_label_nifti};
use roentgen::series::{Part, discover};
use roentgen::volume::{ImageVolume, LabelMap, Quantity, Rescale, Volume};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, command, files_below, outcomes, python, root};

pub(crate) const REFERENCE: Sampling = Sampling { dims: [45, 34, 24], spacing_mm: [8.0, 8.0, 10.0], noise_hu: 0.0 };

/// The graphs of `make_graphs.py`, once.
static GRAPHS: LazyLock<TempDir> = LazyLock::new(|| {
    let made = tempfile::tempdir().expect("a temporary folder");
    let ran = python(&root().join("tests/python/make_graphs.py"), &[made.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    made
});

/// Foreground where the first channel is above -300.5 HU and the second above 1: the lesser of the two above 0.
pub(crate) const MANIFEST: &str = r#"
format = 1
[model]
name = "least"
version = "1.0.0"
task = "segmentation"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "A test."
regulatory_status = "none"
[[file]]
path = "graph.onnx"
sha256 = "SHA256"
[select]
modality = ["CT"]
description = { any = ["^body$"] }
[input]
tensor = "image"
dtype = "float32"
layout = "NCDHW"
[[input.channel]]
name = "ramp"
[input.channel.select]
modality = ["CT"]
description = { any = ["^ramp"] }
[[input.channel.preprocess]]
step = "normalize"
subtract = 1.0
divide = 2.0
[[input.channel]]
name = "body"
[[preprocess]]
step = "normalize"
subtract = -300.5
divide = 1000.0
[inference.sliding-window]
patch = [16, 16, 16]
overlap = 0.5
blending = "constant"
convention = "nnunet"
[output]
tensor = "scores"
background = 0
[[postprocess]]
step = "argmax"
[[finding]]
channel = 1
segment = 1
name = "both"
colour = [1, 2, 3]
category = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
type = { value = "87784001", scheme = "SCT", meaning = "Soft tissue" }
measurements = ["volume", "mean"]
"#;

/// A package of this manifest and graph.
pub(crate) fn package(manifest: &str, graph: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let graph = fs::read(GRAPHS.path().join(format!("{graph}.onnx"))).expect("it is made");
    fs::write(folder.path().join("model.toml"), manifest.replace("SHA256", &sha256_hex(&graph))).expect("written");
    fs::write(folder.path().join("graph.onnx"), graph).expect("written");
    folder
}

/// A series whose values are twice the distance to the left of the middle, mm.
fn ramp(sampling: &Sampling) -> Phantom {
    let Phantom { image, truth, .. } = phantom::chest(sampling);
    let grid = *image.grid();
    let values = (0..grid.voxel_count()).map(|n| {
        let x_mm = grid.lps_from_voxel().apply([(n % grid.dims()[0] as usize) as f64, 0.0, 0.0])[0];
        (2.0 * x_mm + 1000.0).round() as i16
    });
    let rescale = vec![Rescale { slope: 1.0, intercept: -1000.0 }; grid.dims()[2] as usize];
    let stored = Volume::new(grid, values.collect()).into();
    Phantom { image: ImageVolume { stored, rescale, quantity: Quantity::Hounsfield }, truth, noise_hu: sampling.noise_hu }
}

/// What all series of the study have, unless a series is to differ.
const SAME: [(dicom::core::Tag, &str); 2] = [(tags::STUDY_INSTANCE_UID, "1.2.3.4"), (tags::FRAME_OF_REFERENCE_UID, "1.2.3.5")];

/// Writes a series with these attributes changed.
fn write(phantom: &Phantom, folder: &Path, number: u32, description: &str, other: &[(dicom::core::Tag, &str)]) {
    let uid = format!("1.2.3.6.{number}");
    phantom::write_series(phantom, folder).expect("the series can be written");
    for (n, entry) in fs::read_dir(folder).expect("readable").map(|e| e.expect("readable")).enumerate() {
        let mut object = open_file(entry.path()).expect("it was just written");
        let mut put = |tag, vr, text: &str| drop(object.put(DataElement::new(tag, vr, text)));
        SAME.iter().chain(other).for_each(|&(tag, text)| put(tag, VR::UI, text));
        put(tags::SERIES_INSTANCE_UID, VR::UI, &uid);
        put(tags::SOP_INSTANCE_UID, VR::UI, &format!("{uid}.{n}"));
        put(tags::SERIES_NUMBER, VR::IS, &number.to_string());
        put(tags::SERIES_DESCRIPTION, VR::LO, description);
        let meta = object.meta_mut();
        meta.media_storage_sop_instance_uid = format!("{uid}.{n}");
        object.write_to_file(entry.path()).expect("writable");
    }
}

/// A study with the body as series 2 and the ramp as series 3.
pub(crate) fn study_of_both() -> TempDir {
    let study = study();
    write(&ramp(&REFERENCE), &study.path().join("ramp"), 3, "ramp", &[]);
    study
}

/// A study with the body as series 2.
fn study() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(&phantom::chest(&REFERENCE), &folder.path().join("body"), 2, "body", &[]);
    folder
}

fn run(package: &Path, input: &Path, output: &Path) -> Ran {
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", "sr,seg,json", "--model"]).arg(package).arg(input);
    Ran::of(run.arg("--output").arg(output).output().expect("the binary starts"))
}

/// Which voxels of the reference must be found: body of the left side.
pub(crate) fn expected() -> Vec<u8> {
    let image = phantom::chest(&REFERENCE).image;
    let grid = *image.grid();
    let [nx, ny, _] = grid.dims().map(|n| n as usize);
    let is_found = |n: usize| {
        let voxel = [n % nx, n / nx % ny, n / (nx * ny)];
        let x_mm = grid.lps_from_voxel().apply(voxel.map(|v| v as f64))[0];
        image.physical(voxel) > -300.5 && 2.0 * x_mm > 1.0
    };
    (0..grid.voxel_count()).map(|n| is_found(n).into()).collect()
}

/// Runs the study through the binary and the library: the report, and what the results refer to.
fn check(study: &Path, manifest: &str) -> (Value, Value) {
    let package = package(manifest, "least-of-two");
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run(package.path(), study, output.path());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let report = ran.json();
    let expected = expected();
    let count = expected.iter().filter(|&&label| label == 1).count();
    let done = report["series"].as_array().expect("series").iter().find(|one| one["outcome"] == "done").expect("one is analysed");
    let volume_ml = done["findings"][0]["measurements"][0]["value"].as_f64().expect("a number");
    assert!((volume_ml - count as f64 * 0.64).abs() < 1e-6, "{volume_ml} ml are not {count} voxels");
    let folder = Path::new(done["folder"].as_str().expect("a folder"));
    let findings: Value = serde_json::from_slice(&fs::read(folder.join("findings.json")).expect("readable")).expect("JSON");
    for file in ["seg.dcm", "sr.dcm"] {
        let object = open_file(folder.join(file)).expect("readable");
        let evidence = |item: &dicom::object::InMemDicomObject| {
            item.element(tags::SERIES_INSTANCE_UID).map(|e| e.to_str().expect("a UID").into_owned())
        };
        let named: Vec<String> = match object.element(tags::REFERENCED_SERIES_SEQUENCE) {
            Ok(series) => series.items().expect("items").iter().filter_map(|item| evidence(item).ok()).collect(),
            Err(_) => {
                let study = object.element(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE).expect("evidence");
                let series = study.items().expect("a study")[0].element(tags::REFERENCED_SERIES_SEQUENCE).expect("series");
                series.items().expect("items").iter().filter_map(|item| evidence(item).ok()).collect()
            }
        };
        assert_eq!(named[0], "1.2.3.6.2", "{file}: the reference comes first");
        assert!(
            named.contains(&findings["source_channels"][0]["series_instance_uid"].as_str().expect("a UID").to_owned()),
            "{file}: {named:?}"
        );
    }
    let package = Package::read(package.path()).expect("a package");
    let mut engine = Engine::new(package, &Options { device: DeviceChoice::Cpu, ..Options::default() }).expect("an engine");
    let found = discover(&[study.to_owned()]);
    let parts: Vec<Part<'_>> = found.series.iter().flat_map(|one| one.parts(Default::default())).collect();
    let package = std::sync::Arc::clone(engine.package());
    let answers = package.take(&parts, parts.iter().map(|part| package.eligible(part)).collect());
    let eligible = answers.into_iter().find_map(Result::ok).expect("one is taken");
    let alone = engine.analyse(eligible.stack.clone(), &AtomicBool::new(false), &mut |_| {}).expect_err("a channel is missing");
    assert_eq!(alone.code(), "engine.channels");
    let analysis = engine.analyse(eligible, &AtomicBool::new(false), &mut |_| {}).expect("it is analysed");
    assert_eq!(analysis.findings.labels.voxels(), expected);
    (report, findings)
}

/// Every series is refused or not eligible, by these codes.
fn refused(study: &Path, manifest: &str, expected: &[(&str, &str)]) -> Value {
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = run(package(manifest, "least-of-two").path(), study, output.path());
    let report = ran.json();
    let all = outcomes(&report);
    let found: Vec<(&str, &str)> = all.iter().map(|(outcome, codes)| (outcome.as_str(), codes[0].as_str())).collect();
    assert_eq!(found, expected, "{report}");
    assert_eq!(ran.code, i32::from(expected.iter().any(|(outcome, _)| *outcome == "refused")), "{}", ran.all());
    report
}

#[test]
fn a_second_series_on_the_same_grid() {
    let study = study_of_both();
    let (report, findings) = check(study.path(), MANIFEST);
    let codes: Vec<_> = outcomes(&report);
    assert_eq!(codes[1], ("not-eligible".to_owned(), vec!["select.other-channel".to_owned()]), "{report}");
    let because = report["series"][0]["selected_because"].as_array().expect("reasons");
    assert!(because.iter().any(|line| line == "channel ramp: series 3 (1.2.3.6.3)"), "{because:?}");
    assert_eq!(findings["source_channels"][0]["source_instances"].as_array().expect("instances").len(), 24);
    let notes = findings["provenance"]["geometry"].to_string();
    assert!(notes.contains("channel ramp: ") && !notes.contains("interpolated"), "{notes}");
}

#[test]
fn a_second_series_on_another_grid_of_the_same_frame_of_reference() {
    let study = study();
    let finer = Sampling { dims: [80, 60, 52], spacing_mm: [5.0, 5.0, 5.0], noise_hu: 0.0 };
    write(&ramp(&finer), &study.path().join("ramp"), 3, "ramp", &[]);
    let (_, findings) = check(study.path(), MANIFEST);
    let notes = findings["provenance"]["geometry"].to_string();
    assert!(notes.contains("channel ramp: interpolated from a grid of its own, 80 x 60 x 52 voxels"), "{notes}");
}

#[test]
fn a_channel_that_is_not_there_is_named() {
    let study = study();
    let missing = ("refused", "select.channel-missing");
    let report = refused(study.path(), MANIFEST, &[missing]);
    let message = report["series"][0]["reasons"][0]["message"].as_str().expect("a message");
    assert!(message.contains("channel `ramp`"), "{message}");
    // Of another study, or with another description.
    write(&ramp(&REFERENCE), &study.path().join("a"), 3, "ramp", &[(tags::STUDY_INSTANCE_UID, "1.2.3.99")]);
    let elsewhere = ("not-eligible", "select.description");
    refused(study.path(), MANIFEST, &[missing, elsewhere]);
    write(&ramp(&REFERENCE), &study.path().join("b"), 4, "no ramp", &[]);
    let report = refused(study.path(), MANIFEST, &[missing, elsewhere, elsewhere]);
    let message = report["series"][0]["reasons"][0]["message"].as_str().expect("a message");
    assert!(message.contains("1 were looked at; nearest comes series 4 (1.2.3.6.4): SeriesDescription"), "{message}");
}

#[test]
fn of_several_candidates_the_rules_choose_or_none_is_taken() {
    let study = study();
    write(&ramp(&REFERENCE), &study.path().join("ramp"), 3, "ramp", &[]);
    let finer = Sampling { dims: [80, 60, 52], spacing_mm: [5.0, 5.0, 5.0], noise_hu: 0.0 };
    write(&ramp(&finer), &study.path().join("other"), 4, "ramp, finer", &[]);
    let elsewhere = ("not-eligible", "select.description");
    refused(study.path(), MANIFEST, &[("refused", "select.channel-ambiguous"), elsewhere, elsewhere]);
    let ranked = MANIFEST.replace("[\"^ramp\"] }", "[\"^ramp\"] }\ntake = \"best\"\nrank = [{ prefer = \"thinnest\" }]");
    let (report, findings) = check(study.path(), &ranked);
    assert_eq!(findings["source_channels"][0]["series_instance_uid"], "1.2.3.6.4");
    let because = report["series"][0]["selected_because"].to_string();
    assert!(because.contains("before series 3 (1.2.3.6.3): thinner slices, 5.00 mm against 10.00 mm"), "{because}");
}

#[test]
fn what_does_not_lie_where_the_reference_does_is_refused() {
    let elsewhere = ("not-eligible", "select.description");
    let other_frame = study();
    write(&ramp(&REFERENCE), &other_frame.path().join("ramp"), 3, "ramp", &[(tags::FRAME_OF_REFERENCE_UID, "1.2.3.98")]);
    refused(other_frame.path(), MANIFEST, &[("refused", "select.channel-frame-of-reference"), elsewhere]);
    // One in the reference's frame is taken, whatever else there is.
    write(&ramp(&REFERENCE), &other_frame.path().join("again"), 4, "ramp", &[]);
    let (_, findings) = check(other_frame.path(), MANIFEST);
    assert_eq!(findings["source_channels"][0]["series_instance_uid"], "1.2.3.6.4");

    let half = study();
    let shorter = Sampling { dims: [45, 34, 12], ..REFERENCE };
    write(&ramp(&shorter), &half.path().join("ramp"), 3, "ramp", &[]);
    let report = refused(half.path(), MANIFEST, &[("refused", "select.channel-coverage"), elsewhere]);
    let message = report["series"][0]["reasons"][0]["message"].as_str().expect("a message");
    assert!(message.contains("50.0 % of the reference's voxels"), "{message}");
    let less = MANIFEST.replace("name = \"ramp\"", "name = \"ramp\"\nmin_coverage = 0.4");
    let output = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(run(package(&less, "least-of-two").path(), half.path(), output.path()).code, 0);
}

#[test]
fn rules_that_do_not_tell_channels_apart_are_refused() {
    let study = study_of_both();
    let loose = MANIFEST.replace("any = [\"^body$\"]", "any = [\"^body$\", \"^ramp$\"]");
    let shared = ("refused", "select.channel-shared");
    refused(study.path(), &loose, &[shared, shared]);
}

#[test]
fn files_of_a_case_are_told_by_their_numbers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let grid = Grid::new([20, 18, 17], Affine::scale_then_shift([2.0, 2.0, 3.0], [-20.0, 5.0, 40.0])).expect("a grid");
    let volume = |value: &dyn Fn(usize) -> u8| LabelMap::new(grid, (0..grid.voxel_count()).map(value).collect());
    let write = |name: &str, labels: &LabelMap| write_label_nifti(&folder.path().join(name), labels).expect("written");
    // Channel 0 is the ramp: the network's threshold is 1, and that of the body below all of a file's values.
    write("case_0000.nii.gz", &volume(&|n| (n % 20) as u8));
    let output = tempfile::tempdir().expect("a temporary folder");
    let manifest = MANIFEST.replace("subtract = -300.5", "subtract = 100.5");
    let package = package(&manifest, "least-of-two");
    let run = |expected: i32| {
        let ran = run(package.path(), folder.path(), output.path());
        assert_eq!(ran.code, expected, "{}", ran.all());
        ran.json()
    };
    let codes = |report: &Value| -> Vec<String> {
        let volumes = report["volumes"].as_array().expect("volumes").iter();
        volumes.map(|one| one["reasons"][0]["code"].as_str().unwrap_or("done").to_owned()).collect()
    };
    // The reference is channel 1, which is not there.
    assert_eq!(codes(&run(1)), ["select.other-channel"]);
    write("case_0001.nii.gz", &volume(&|n| (n / 20 % 18 * 10) as u8));
    assert_eq!(codes(&run(0)), ["select.other-channel", "done"]);
    let labels = files_below(output.path()).into_iter().find(|file| file.ends_with("labels.nii.gz")).expect("a label map");
    let found = read_volume(&labels).expect("readable").stored;
    let found: Vec<i16> = found.as_int16().expect("integers").voxels().to_vec();
    let expected: Vec<i16> = (0..grid.voxel_count()).map(|n| (n % 20 > 1 && n / 20 % 18 > 10).into()).collect();
    assert_eq!(found, expected);
    fs::rename(folder.path().join("case_0000.nii.gz"), folder.path().join("other_0000.nii.gz")).expect("renamed");
    assert_eq!(codes(&run(1)), ["select.channel-file", "select.other-channel"]);
    let other = Grid::new([20, 18, 17], Affine::scale_then_shift([2.0, 2.0, 3.1], [-20.0, 5.0, 40.0])).expect("a grid");
    write("case_0000.nii.gz", &LabelMap::new(other, vec![1; other.voxel_count()]));
    assert_eq!(codes(&run(1))[1], "select.channel-grid");
    write("plain.nii.gz", &volume(&|_| 1));
    assert_eq!(codes(&run(1)).last().map(String::as_str), Some("select.channel-file-name"));
}
