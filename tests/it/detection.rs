//! Packages of task "detection": each object a finding of its own, in every form of the results.
//!
//! `ROENTGEN_KEEP_TEST_OUTPUT=DIR` keeps studies, packages and results in a new folder below DIR, to be looked at.

use std::fs;
use std::path::Path;

use roentgen::codes::sha256_hex;
use roentgen::geometry::{Affine, Grid};

use crate::support::{changed, findings_json, folder_to_look_at, python, results_below, roentgen, root, run_case, write_ct};

const DIMS: [usize; 3] = [72, 56, 24];
const SPACING_MM: [f64; 3] = [1.25, 1.25, 2.0];

const MANIFEST: &str = r#"
format = 1

[model]
name = "detector"
version = "1.0.0"
task = "detection"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "Made by a test, not for diagnosis."
regulatory_status = "none"

[[file]]
path = "detector.onnx"
sha256 = "SHA256"

[select]
modality = ["CT"]

[input]
tensor = "image"
dtype = "float32"
layout = "NCDHW"

[[preprocess]]
step = "clip"
min = 0.0
max = 2000.0

[[preprocess]]
step = "normalize"
subtract = 0.0
divide = 1000.0

[inference.tiles]
tile = [48, 48, 16]
halo = 0

[output]
tensor = "scores"
scores = "probabilities"
background = 0

[[postprocess]]
step = "argmax"

[[finding]]
channel = 1
segment = 1
name = "vessel"
colour = [200, 40, 40]
category = { value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "59820001", scheme = "SCT", meaning = "Blood Vessel" }
measurements = ["volume"]

[[finding]]
channel = 2
segment = 2
name = "nodule"
colour = [250, 220, 40]
category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Altered Structure" }
type = { value = "27925004", scheme = "SCT", meaning = "Nodule" }
site = { value = "39607008", scheme = "SCT", meaning = "Lung" }
measurements = ["volume", "mean", "standard-deviation", "longest-diameter", "long-axis", "short-axis"]

[finding.instances]
score = "maximum-probability"
min_score = 0.6
origin = "chosen by a test: MODEL_CARD.md, table 1"
max_count = 50
"#;

/// A ball, cut where the volume ends: 500 to 1500 HU are a nodule, more is a vessel.
#[derive(Debug, Clone, Copy)]
struct Ball {
    centre: [usize; 3],
    radius_mm: f64,
    hu: i16,
    /// Of the voxel in its middle.
    core_hu: i16,
}

const fn ball(centre: [usize; 3], radius_mm: f64, hu: i16) -> Ball {
    Ball { centre, radius_mm, hu, core_hu: hu }
}

/// A study of balls in air; `name` makes it another study.
fn write_study(name: u32, balls: &[Ball], folder: &Path) {
    let grid = Grid::new(DIMS.map(|d| d as u32), Affine::scale_then_shift(SPACING_MM, [-40.0, -30.0, 100.0])).expect("a grid");
    let mut stored = vec![24i16; grid.voxel_count()];
    for (n, value) in stored.iter_mut().enumerate() {
        let voxel = [n % DIMS[0], n / DIMS[0] % DIMS[1], n / (DIMS[0] * DIMS[1])];
        for ball in balls {
            let away: f64 = (0..3).map(|a| ((voxel[a] as f64 - ball.centre[a] as f64) * SPACING_MM[a]).powi(2)).sum();
            if away <= ball.radius_mm.powi(2) {
                *value = 1024 + if voxel == ball.centre { ball.core_hu } else { ball.hu };
            }
        }
    }
    write_ct(name, grid, stored, folder);
}

/// The detector's package with its manifest changed.
pub(crate) fn write_package(folder: &Path, changes: &[(&str, &str)]) {
    fs::create_dir_all(folder).expect("made");
    let graph = folder.join("detector.onnx");
    let made = python(&root().join("tests/python/make_detector.py"), &[&graph]);
    assert_eq!(made.code, 0, "{}", made.all());
    let hash = sha256_hex(&fs::read(&graph).expect("made"));
    let manifest = changed(MANIFEST.replace("SHA256", &hash), changes);
    fs::write(folder.join("model.toml"), manifest).expect("writable");
    fs::write(folder.join("MODEL_CARD.md"), "Table 1: none.").expect("writable");
}

/// Balls on a lattice, from the corner of the volume on: of all sizes from a voxel, some at its faces, some below the threshold, some of
/// equal score, one beside a vessel that it touches.
fn many() -> Vec<Ball> {
    let lattice = (0..90).map(|n| [n % 6 * 14, n / 6 % 5 * 13, n / 30 * 11]);
    let mut balls: Vec<Ball> = lattice
        .enumerate()
        .map(|(n, centre)| {
            let hu = 520 + n as i16 / 2 * 10;
            Ball { core_hu: if n.is_multiple_of(4) { 1000 - (n as i16) } else { hu }, ..ball(centre, 1.0 + (n % 8) as f64 * 0.75, hu) }
        })
        .collect();
    balls.push(ball([18, 13, 0], 3.0, 1800));
    balls
}

#[test]
fn each_object_is_a_finding_in_every_form() {
    let folder = folder_to_look_at("detection-");
    let two = [ball([20, 20, 8], 6.0, 1100), ball([50, 30, 14], 4.0, 800)];
    let mean = ("score = \"maximum", "score = \"mean");
    type Replaced<'a> = (&'a str, &'a str);
    let cases: [(&str, &[Ball], &[Replaced<'_>]); 7] = [
        ("none", &[], &[]),
        ("none-that-counts", &[ball([20, 20, 8], 6.0, 570)], &[]),
        ("one", &two[..1], &[]),
        ("one-voxel", &[ball([71, 55, 23], 0.5, 900)], &[]),
        ("two", &two, &[mean]),
        ("fifty", &many(), &[]),
        ("all", &many(), &[mean, ("max_count = 50", "max_count = 254"), ("min_score = 0.6", "min_score = 0.0")]),
    ];
    for (n, (name, balls, changes)) in (0..).zip(cases) {
        let case = folder.path().join(name);
        write_study(n, balls, &case.join("study"));
        write_package(&case.join("package"), changes);
        let ran = run_case(&case, "results", "all");
        assert_eq!(ran.code, 0, "{name}: {}", ran.all());
        let checked = python(&root().join("tests/python/check_reports.py"), &[&case.join("study"), &case.join("results")]);
        assert_eq!(checked.code, 0, "{name}: {}", checked.all());
    }
    let checked = python(&root().join("tests/python/check_detection.py"), &[&root().join("docs/findings.schema.json"), folder.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
    let fifty = folder.path().join("fifty");
    let study_results = results_below(&fifty.join("results"));
    let checked = python(&root().join("tests/python/check_fhir.py"), &[study_results.parent().expect("in a folder")]);
    assert_eq!(checked.code, 0, "{}", checked.all());

    // The same job in another process: the same objects.
    assert_eq!(run_case(&fifty, "again", "all").code, 0);
    let [once, again] = ["results", "again"].map(|output| {
        let mut findings = findings_json(&results_below(&fifty.join(output)));
        findings["provenance"]["started"].take();
        findings
    });
    assert_eq!(once, again);
    let pixels = |output: &str, file: &str| {
        let object = dicom::object::open_file(results_below(&fifty.join(output)).join(file)).expect("written");
        object.element_by_name("PixelData").expect("present").value().clone()
    };
    for file in ["seg.dcm", "labelmap.dcm"] {
        assert_eq!(pixels("results", file), pixels("again", file), "{file}");
    }
}

/// What a person sees on the terminal, and what `show` prints of the report.
#[test]
fn people_read_the_certainty() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_study(40, &[ball([20, 20, 8], 6.0, 1125), ball([50, 30, 14], 4.0, 750)], &folder.path().join("study"));
    write_package(&folder.path().join("package"), &[]);
    let path = |name: &str| folder.path().join(name).to_str().expect("ASCII").to_owned();
    let ran = roentgen(&["run", "--device", "cpu", "--model", &path("package"), "--output", &path("results"), &path("study")]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let row = |name: &str| ran.stdout.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("finding").contains("probability of presence %"), "{}", ran.stdout);
    assert!(row("nodule 1").contains(" 87.5 ") && row("nodule 2").contains(" 75.0 "), "{}", ran.stdout);
    let shown = roentgen(&["show", results_below(&folder.path().join("results")).to_str().expect("ASCII")]);
    assert_eq!(shown.code, 0, "{}", shown.all());
    for text in ["nodule 1", "nodule 2", "Certainty of Finding", "87.5"] {
        assert!(shown.stdout.contains(text), "no `{text}` in:\n{}", shown.stdout);
    }
}

/// A reference case names objects; one that is not found fails.
#[test]
fn a_reference_case_may_name_objects() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = |name: &str, finding: &str, code: i32, said: &str| {
        let package = folder.path().join(name);
        let reference = format!(
            "max_count = 3\n\n[reference]\ninput = \"phantom\"\n\n[[reference.expect]]\nfinding = \"{finding}\"\nmeasurement = \"mean\"\n\
             value = 390.0\ntolerance = 40.0\n"
        );
        // The bones of the phantom, 400 HU, stand in for nodules.
        write_package(&package, &[("max_count = 50", &reference), ("divide = 1000.0", "divide = 500.0"), ("max = 2000.0", "max = 1000.0")]);
        let ran = roentgen(&["model", "check", package.to_str().expect("ASCII"), "--device", "cpu"]);
        assert_eq!(ran.code, code, "{}", ran.all());
        assert!(ran.all().contains(said), "{}", ran.all());
    };
    check("there", "nodule 1", 0, "passed");
    check("beyond", "nodule 4", 2, "which is no finding");
}
