//! Networks that give boxes or points with scores: each a finding with its place in the patient, in every form of the results.
//!
//! `ROENTGEN_KEEP_TEST_OUTPUT=DIR` keeps studies, packages and results in a new folder below DIR, to be looked at.

use std::fs;
use std::path::Path;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use roentgen::codes::sha256_hex;
use roentgen::geometry::{Affine, Grid};
use roentgen::infer::ScoredBox;
use roentgen::model::Suppression;
use roentgen::postprocess::suppressed;
use serde_json::json;

use crate::support::{changed, findings_json, folder_to_look_at, python, results_below, roentgen, root, run_case, write_ct};

const DIMS: [usize; 3] = [72, 56, 24];
const SPACING_MM: [f64; 3] = [1.25, 1.25, 2.0];

const MANIFEST: &str = r#"
format = 1

[model]
name = "boxes"
version = "1.0.0"
task = "detection"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "Made by a test, not for diagnosis."
regulatory_status = "none"

[[file]]
path = "boxes.onnx"
sha256 = "SHA256"

[select]
modality = ["CT"]

[input]
tensor = "image"
dtype = "float32"
layout = "NCDHW"

#GEOMETRY

[[preprocess]]
step = "clip"
min = 0.0
max = 2000.0

[[preprocess]]
step = "normalize"
subtract = 0.0
divide = 1000.0

[inference.sliding-window]
patch = [32, 32, 16]
overlap = 0.5
blending = "constant"
convention = "monai"

[output]
tensor = "scores"
scores = "probabilities"

[output.boxes]
tensor = "boxes"
columns = ["k1", "j1", "i1", "k2", "j2", "i2"]
zero = "voxel-centre"
max_iou = 0.1
max_per_patch = 100

[[finding]]
channel = 0
name = "nodule"
colour = [250, 220, 40]
category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Altered Structure" }
type = { value = "27925004", scheme = "SCT", meaning = "Nodule" }
site = { value = "39607008", scheme = "SCT", meaning = "Lung" }

[finding.instances]
score = "box"
min_score = 0.6
origin = "chosen by a test: MODEL_CARD.md, table 1"
max_count = 50
"#;

const ANOTHER: &str = r#"
[[finding]]
channel = 1
name = "vessel"
colour = [200, 40, 40]
category = { value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "59820001", scheme = "SCT", meaning = "Blood Vessel" }

[finding.instances]
score = "box"
min_score = 0.6
origin = "chosen by a test: MODEL_CARD.md, table 1"
max_count = 50
"#;

/// A block of 400 HU in air with one brighter voxel in its middle.
#[derive(Debug, Clone, Copy)]
struct Block {
    centre: [usize; 3],
    half: [usize; 3],
    core_hu: i16,
}

const fn block(centre: [usize; 3], half: [usize; 3], core_hu: i16) -> Block {
    Block { centre, half, core_hu }
}

/// The first lies where eight patches overlap, the last one does not count.
const BLOCKS: [Block; 5] = [
    block([20, 18, 11], [3, 4, 2], 900),
    block([44, 30, 12], [6, 3, 2], 800),
    block([60, 45, 18], [2, 2, 1], 700),
    block([24, 40, 5], [1, 1, 0], 640),
    block([8, 8, 18], [2, 2, 1], 580),
];

/// A study of blocks; `name` makes it another study.
fn write_study(name: u32, blocks: &[Block], folder: &Path) {
    let grid = Grid::new(DIMS.map(|d| d as u32), Affine::scale_then_shift(SPACING_MM, [-40.0, -30.0, 100.0])).expect("a grid");
    let mut stored = vec![24i16; grid.voxel_count()];
    for (n, value) in stored.iter_mut().enumerate() {
        let voxel = [n % DIMS[0], n / DIMS[0] % DIMS[1], n / (DIMS[0] * DIMS[1])];
        for block in blocks.iter().filter(|block| (0..3).all(|a| voxel[a].abs_diff(block.centre[a]) <= block.half[a])) {
            *value = 1024 + if voxel == block.centre { block.core_hu } else { 400 };
        }
    }
    write_ct(name, grid, stored, folder);
}

fn make(what: &str, path: &Path, how: &str) {
    let made = python(&root().join("tests/python/make_boxes.py"), &[Path::new(what), path, Path::new(how)]);
    assert_eq!(made.code, 0, "{}", made.all());
}

type Replaced<'a> = (&'a str, &'a str);

/// The package of one of the graphs in `graphs`, with its manifest changed.
fn write_package(folder: &Path, graphs: &Path, graph: &str, changes: &[Replaced<'_>]) {
    fs::create_dir_all(folder).expect("made");
    let bytes = fs::read(graphs.join(format!("{graph}.onnx"))).expect("made");
    fs::write(folder.join("boxes.onnx"), &bytes).expect("writable");
    let manifest = changed(MANIFEST.replace("SHA256", &sha256_hex(&bytes)), changes);
    fs::write(folder.join("model.toml"), manifest.replace("#GEOMETRY", "")).expect("writable");
    fs::write(folder.join("MODEL_CARD.md"), "Table 1: none.").expect("writable");
}

const COLUMNS: &str = r#"columns = ["k1", "j1", "i1", "k2", "j2", "i2"]"#;
const PATCH: &str = "patch = [32, 32, 16]";

fn orient(to: &str) -> String {
    format!("[[preprocess]]\nstep = \"orient\"\nto = \"{to}\"\n")
}

#[test]
fn each_box_is_a_finding_in_every_form() {
    let folder = folder_to_look_at("boxes-");
    let graphs = folder.path().join("graphs");
    make("graphs", &graphs, "");

    let many: Vec<Block> =
        (0..60).map(|n| block([n % 8 * 8 + 6, n / 8 % 6 * 8 + 6, n / 48 * 12 + 5], [2, 1, 1], 650 + n as i16 * 5)).collect();
    let (lps, sar, kji, two_findings) = (orient("LPS"), orient("SAR"), orient("kji"), format!("{ANOTHER}\n[[finding]]"));
    let resample = "[[preprocess]]\nstep = \"resample\"\nspacing_mm = [0.625, 0.625, 1.0]\ninterpolation = \"nearest\"\nwithin = true\n";
    let small = [block([20, 18, 11], [2, 1, 1], 900), block([45, 30, 12], [1, 2, 0], 800)];
    let cube = (PATCH, "patch = [32, 32, 32]");
    let channels = ("channel = 0", "channel = 2");
    let another = ("[[finding]]", two_findings.as_str());
    let two = [("scores = \"probabilities\"", "scores = \"independent-logits\"\nbackground = 0"), channels, another];
    let with_background = ("scores = \"probabilities\"", "scores = \"probabilities\"\nbackground = 0");
    let labelled = [with_background, ("max_iou", "labels = \"labels\"\nmax_iou"), channels, another];
    let points = [(COLUMNS, r#"columns = ["k", "j", "i"]"#), ("max_iou = 0.1", "min_distance_mm = 3.0")];
    let sized = [(COLUMNS, r#"columns = ["k", "j", "i", "dk", "dj", "di"]"#)];
    let interleaved = [(COLUMNS, r#"columns = ["k1", "j1", "k2", "j2", "i1", "i2"]"#), ("#GEOMETRY", sar.as_str()), cube];
    let resampled = [("#GEOMETRY", resample), (PATCH, "patch = [48, 48, 32]"), ("\"voxel-centre\"", "\"voxel-corner\"")];
    let empty = [("overlap = 0.5", "overlap = 0.5\nempty = [-inf, 0.0]")];
    type Case<'a> = (&'a str, &'a str, &'a str, &'a [Block], &'a [Replaced<'a>]);
    let cases: [Case<'_>; 15] = [
        ("none", "axial", "corners", &[], &[]),
        ("none-that-counts", "axial", "corners", &BLOCKS[4..], &[]),
        ("five", "axial", "corners", &BLOCKS, &[]),
        ("filled-up", "axial", "filled-up", &BLOCKS[..2], &[]),
        ("oblique", "oblique", "interleaved", &BLOCKS, &interleaved),
        ("oblique-as-stored", "oblique", "sized", &BLOCKS, &sized),
        ("flipped", "flipped", "corners", &BLOCKS, &[("#GEOMETRY", lps.as_str()), cube]),
        ("turned", "flipped", "corners", &BLOCKS, &[("#GEOMETRY", kji.as_str()), cube]),
        ("resampled", "oblique", "faces", &small, &resampled),
        ("points", "oblique", "points", &BLOCKS, &points),
        ("classes", "axial", "classes", &BLOCKS, &two),
        ("labels", "axial", "labels", &BLOCKS, &labelled),
        ("many", "axial", "corners", &many, &[("max_count = 50", "max_count = 40")]),
        ("padding", "axial", "ghost", &BLOCKS, &[(PATCH, "patch = [32, 32, 48]")]),
        ("empty-patches", "axial", "corners", &BLOCKS, &empty),
    ];
    for (n, (name, orientation, graph, blocks, changes)) in (0..).zip(cases) {
        let case = folder.path().join("cases").join(name);
        write_study(n, blocks, &case.join("study"));
        make("turn", &case.join("study"), orientation);
        write_package(&case.join("package"), &graphs, graph, changes);
        let ran = run_case(&case, "results", "all");
        assert_eq!(ran.code, 0, "{name}: {}", ran.all());
        let checked = python(&root().join("tests/python/check_reports.py"), &[&case.join("study"), &case.join("results")]);
        assert_eq!(checked.code, 0, "{name}: {}", checked.all());
    }
    let cases = folder.path().join("cases");
    let checked = python(&root().join("tests/python/check_boxes.py"), &[&root().join("docs/findings.schema.json"), &cases]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
    let five = cases.join("five");
    let study_results = results_below(&five.join("results"));
    let checked = python(&root().join("tests/python/check_fhir.py"), &[study_results.parent().expect("in a folder")]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    let checked = python(
        &root().join("tests/python/check_exchange.py"),
        &[&root().join("docs/findings.schema.json"), study_results.parent().expect("in a folder")],
    );
    assert!(!checked.all().contains("columns differ") && !checked.all().contains(": row "), "{}", checked.all());

    // The same job in another process: the same objects.
    assert_eq!(run_case(&five, "again", "all").code, 0);
    let [once, again] = ["results", "again"].map(|output| {
        let mut findings = findings_json(&results_below(&five.join(output)));
        findings["provenance"]["started"].take();
        findings
    });
    assert_eq!(once, again);
    let note = |case: &str| findings_json(&results_below(&cases.join(case).join("results")))["provenance"]["geometry"].to_string();
    assert!(note("padding").contains("boxes had their centre outside of the image, and were left out"), "{}", note("padding"));
    assert!(note("empty-patches").contains("the network was not asked about"), "{}", note("empty-patches"));
}

/// What the scores of boxes rest on, against the same computed by ONNX Runtime and NumPy alone.
#[test]
fn scores_of_boxes_are_explained() {
    let folder = folder_to_look_at("explained-");
    let graphs = folder.path().join("graphs");
    make("graphs", &graphs, "");
    let explained = |more: &str| format!("[explanation]\nmethod = \"occlusion\"\npatch = [6, 4, 3]\nstride = [3, 4, 1]\n{more}\n[output]");
    let (mean, value) = (explained("fill = \"mean\""), explained("fill = 0.2\nobjects = 2"));
    let points = [(COLUMNS, r#"columns = ["k", "j", "i"]"#), ("max_iou = 0.1", "min_distance_mm = 3.0"), ("[output]", value.as_str())];
    let padded = [("[output]", mean.as_str()), (PATCH, "patch = [32, 32, 32]")];
    let cases: [(&str, &str, &[Block], &[Replaced<'_>]); 4] = [
        ("boxes", "corners", &BLOCKS, &[("[output]", &mean)]),
        ("two-of-them", "corners", &BLOCKS, &[("[output]", &value)]),
        ("points", "points", &BLOCKS, &points),
        ("padded", "corners", &BLOCKS[..2], &padded),
    ];
    for (n, (name, graph, blocks, changes)) in (100..).zip(cases) {
        let case = folder.path().join("cases").join(name);
        write_study(n, blocks, &case.join("study"));
        write_package(&case.join("package"), &graphs, graph, changes);
        let ran = run_case(&case, "results", "json,map,sr,html");
        assert_eq!(ran.code, 0, "{name}: {}", ran.all());
    }
    let checked = python(&root().join("tests/python/check_explained_boxes.py"), &[&folder.path().join("cases")]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);

    // Nothing is computed where nobody asks for maps.
    assert_eq!(run_case(&folder.path().join("cases/boxes"), "unasked", "json").code, 0);
    let document = findings_json(&results_below(&folder.path().join("cases/boxes/unasked")));
    assert!(document.get("maps").is_none_or(|maps| maps.as_array().is_some_and(Vec::is_empty)), "{document}");

    let refused = |more: &str, said: &str| {
        let wrong = explained(more);
        write_package(&folder.path().join("package"), &graphs, "corners", &[("[output]", &wrong)]);
        write_study(110, &BLOCKS[..1], &folder.path().join("study"));
        let ran = run_case(folder.path(), "results", "json,map");
        assert!(ran.code == 2 && ran.all().contains(said), "{}", ran.all());
    };
    refused("fill = 0.0\nobjects = 0", "`explanation.objects` is outside 1 to 100");
    let whole = "patch = [6, 4, 3]";
    assert!(mean.contains(whole));
    write_package(&folder.path().join("package"), &graphs, "corners", &[("[output]", &mean.replace(whole, "patch = [33, 4, 3]"))]);
    let ran = run_case(folder.path(), "results", "json,map");
    assert!(ran.code == 2 && ran.all().contains("`explanation.patch` is empty or larger"), "{}", ran.all());
}

/// Boxes of a patch beyond the package's number are left out, and the result says how many.
#[test]
fn more_boxes_than_are_looked_at_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make("graphs", &folder.path().join("graphs"), "");
    write_study(50, &BLOCKS, &folder.path().join("study"));
    let changes = [("max_per_patch = 100", "max_per_patch = 7"), ("max_count = 50", "max_count = 5")];
    write_package(&folder.path().join("package"), &folder.path().join("graphs"), "cloud", &changes);
    let ran = run_case(folder.path(), "results", "json,seg,html");
    assert_eq!(ran.code, 0, "{}", ran.all());
    let document = findings_json(&results_below(&folder.path().join("results")));
    let warnings: Vec<&str> = document["warnings"].as_array().expect("warnings").iter().filter_map(|w| w.as_str()).collect();
    assert!(warnings.iter().any(|w| w.starts_with("the network gave more boxes than are looked at: ")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("objects of `nodule` reach the score 0.6; the 5 with the highest scores")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.starts_with("no segmentation, label map or contours")), "{warnings:?}");
    assert_eq!(document["findings"].as_array().map(Vec::len), Some(5));
}

/// What a network must not give is named, with its code; what the graph says of itself is held against the manifest before anything runs.
#[test]
fn what_is_no_box_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let graphs = folder.path().join("graphs");
    make("graphs", &graphs, "");
    write_study(60, &BLOCKS[..2], &folder.path().join("study"));
    let check = |graph: &str, changes: &[Replaced<'_>], code: i32, said: &str| {
        write_package(&folder.path().join("package"), &graphs, graph, changes);
        let ran = run_case(folder.path(), "results", "json");
        assert_eq!(ran.code, code, "{graph}: {}", ran.all());
        assert!(ran.all().contains(said), "{graph}: no `{said}` in {}", ran.all());
    };
    let labels = [("max_iou", "labels = \"labels\"\nmax_iou")];
    check("narrow", &[], 2, "`boxes` has shape [-1, 5], expected [N, 6]");
    check("batched", &[], 2, "`boxes` has shape [1, -1, 6], expected [N, 6]");
    check("double", &[], 2, "`boxes` has element type f64, and is read as float32");
    check("labels-int32", &labels, 2, "`labels` has element type i32, and is read as int64");
    check("corners", &labels, 2, "no tensor `labels`, the graph has [\"boxes\", \"scores\"]");
    check("classes", &[], 2, "`scores` has shape [-1, 3], expected [N] or [N, 1]");
    let two = [("scores = \"probabilities\"", "scores = \"probabilities\"\nbackground = 1")];
    check("corners", &two, 2, "`scores` has shape [-1], expected [N, 2]");
    check("rows-differ", &[], 1, "a row for each of `boxes`");
    check("rows-differ", &[], 1, "infer.contract");
    check("labels-unknown", &labels, 1, "infer.box");
    check("nan", &[], 1, "infer.not-finite");
    check("turned-round", &[], 1, "it runs from 5 to 2 along j: the lower face comes first");
    check("empty", &[], 1, "it runs from 3 to 3 along i");
    check("empty", &[], 1, "infer.box");
    check("no-probability", &[], 1, "infer.not-probability");
}

/// A volume that is no DICOM has its boxes in JSON and CSV, and no label map, since nobody has labelled anything.
#[test]
fn a_file_has_boxes_and_no_label_map() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make("graphs", &folder.path().join("graphs"), "");
    write_study(70, &BLOCKS[..2], &folder.path().join("dicom"));
    make("nifti", &folder.path().join("dicom"), folder.path().join("study").to_str().expect("ASCII"));
    write_package(&folder.path().join("package"), &folder.path().join("graphs"), "corners", &[]);
    let ran = run_case(folder.path(), "results", "json,seg,csv,html,png");
    assert_eq!(ran.code, 0, "{}", ran.all());
    let results = results_below(&folder.path().join("results"));
    let document = findings_json(&results);
    let centre = document["findings"][0]["place"]["centre_lps_mm"].as_array().expect("a place").iter().filter_map(|v| v.as_f64());
    // (20, 18, 11) of the grid.
    let expected = [-40.0 + 20.0 * 1.25, -30.0 + 18.0 * 1.25, 100.0 + 11.0 * 2.0];
    assert!(centre.zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{document}");
    assert!(!results.join("labels.nii.gz").exists() && document.get("labels").is_none());
    assert!(document["warnings"].to_string().contains("no segmentation"), "{document}");
}

/// A reference case names boxes by their score.
#[test]
fn a_reference_case_may_name_boxes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make("graphs", &folder.path().join("graphs"), "");
    write_study(80, &BLOCKS[..2], &folder.path().join("dicom"));
    make("nifti", &folder.path().join("dicom"), folder.path().join("volume").to_str().expect("ASCII"));
    let image = fs::read(folder.path().join("volume/volume.nii.gz")).expect("made");
    let check = |name: &str, finding: &str, score: f64, code: i32, said: &str| {
        let package = folder.path().join(name);
        let reference = format!(
            "max_count = 3\n\n[reference]\ninput = {{ file = {{ path = \"volume.nii.gz\", sha256 = \"{}\" }} }}\n\n[[reference.expect]]\n\
             finding = \"{finding}\"\nvalue = {score}\ntolerance = 0.001\n",
            sha256_hex(&image)
        );
        write_package(&package, &folder.path().join("graphs"), "corners", &[("max_count = 50", &reference)]);
        fs::write(package.join("volume.nii.gz"), &image).expect("writable");
        let ran = roentgen(&["model", "check", package.to_str().expect("ASCII"), "--device", "cpu", "--provider", "cpu"]);
        assert_eq!(ran.code, code, "{}", ran.all());
        assert!(ran.all().contains(said), "{}", ran.all());
    };
    check("there", "nodule 2", 0.8, 0, "passed");
    check("elsewhere", "nodule 2", 0.9, 1, "FAILED");
    check("beyond", "nodule 4", 0.8, 2, "which is no finding");
}

/// Greedy suppression by numpy, as torchvision's `nms` has it, of boxes in three dimensions and, with one slice, in two.
#[test]
fn suppression_is_that_of_numpy() {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut cases = Vec::new();
    for n in 0..40u32 {
        let mut uniform = |low: f64, high: f64| low + (high - low) * f64::from(random.next_u32()) / f64::from(u32::MAX);
        let boxes: Vec<ScoredBox> = (0..1 + 15 * (n as usize % 20))
            .map(|m| {
                let mut low: [f64; 3] = std::array::from_fn(|_| uniform(0.0, 30.0));
                let mut high = low.map(|at| at + uniform(1.0, 14.0));
                if n % 2 == 1 {
                    (low[2], high[2]) = (0.0, 1.0);
                }
                // Some scores are equal.
                ScoredBox { channel: m % 2, score: (uniform(0.0, 1.0) * 50.0).round() as f32 / 50.0, low, high }
            })
            .collect();
        let (most, spacing_mm) = (uniform(0.05, 0.6), [0.7, 0.7, 2.5]);
        let kept = suppressed(boxes.clone(), spacing_mm, Suppression::Iou(most));
        let as_json = |boxes: &[ScoredBox]| -> Vec<_> { boxes.iter().map(|b| json!([b.channel, b.score, b.low, b.high])).collect() };
        cases.push(json!({ "max_iou": most, "spacing_mm": spacing_mm, "boxes": as_json(&boxes), "kept": as_json(&kept) }));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("nms.json");
    fs::write(&file, json!(cases).to_string()).expect("writable");
    let checked = python(&root().join("tests/python/check_suppression.py"), &[&file]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}
