//! Several networks in a row: around what the one before has found, and on what it has found; and patches that no network need see.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use roentgen::engine::{Engine, Options};
use roentgen::findings::Findings;
use roentgen::geometry::{Affine, Coded, Grid};
use roentgen::gpu::DeviceChoice;
use roentgen::infer::{AtOnce, Network, Provider, Scores, runtime};
use roentgen::model::Package;
use roentgen::phantom::Phantom;
use roentgen::series::discover;
use roentgen::volume::Volume;
use serde_json::Value;

use crate::channels::package;
use crate::support::{command, small_study};

/// Foreground is what is above -300.5 HU.
const MANIFEST: &str = r#"
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
[input]
tensor = "image"
dtype = "float32"
layout = "NCDHW"
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
scores = "logits"
background = 0
[[postprocess]]
step = "argmax"
[[finding]]
channel = 1
segment = 1
name = "body"
colour = [1, 2, 3]
category = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
type = { value = "87784001", scheme = "SCT", meaning = "Soft tissue" }
measurements = ["volume"]
"#;

/// Before it: bone is what is above 250.5 HU.
const STAGE: &str = r#"
[[stage]]
name = "localise"
file = [{ path = "stage.onnx", sha256 = "STAGE" }]
input = { tensor = "image", dtype = "float32", layout = "NCDHW" }
preprocess = [{ step = "normalize", subtract = 250.5, divide = 100.0 }]
inference = { tiles = { tile = [32, 32, 32], halo = 0 } }
output = { tensor = "scores", background = 0 }
postprocess = [{ step = "argmax" }]
label = [{ name = "bone", channel = 1, value = 7 }]
"#;

const CROP: &str = "[[preprocess]]\nstep = \"crop\"\nlabelled = [\"bone\"]\nmargin_mm = 9.0\n[[preprocess]]\nstep = \"normalize\"";

/// A package of two networks: the second one of so many channels.
fn staged(manifest: &str, graph: &str) -> tempfile::TempDir {
    let stage = package("SHA256", "least-of-one");
    let sha256 = std::fs::read_to_string(stage.path().join("model.toml")).expect("the hash");
    let both = package(&format!("{manifest}{}", STAGE.replace("STAGE", &sha256)), graph);
    std::fs::copy(stage.path().join("graph.onnx"), both.path().join("stage.onnx")).expect("copied");
    both
}

/// The findings of a study, or the code of why there are none; and what the binary says of it.
fn analysed(package: &Path, study: &Path) -> (Result<Findings, &'static str>, Value) {
    let output = tempfile::tempdir().expect("a temporary folder");
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", "seg,json", "--model"])
        .arg(package)
        .arg(study)
        .arg("--output")
        .arg(output.path());
    let ran = crate::support::Ran::of(run.output().expect("the binary starts"));
    let package = Package::read(package).expect("a package");
    let mut engine = Engine::new(package, &Options { device: DeviceChoice::Cpu, ..Options::default() }).expect("an engine");
    let found = discover(&[study.to_owned()]);
    let parts = found.series[0].parts(Default::default());
    let eligible = engine.package().eligible(&parts[0]).expect("the package takes it");
    let analysed = engine.analyse(eligible, &AtomicBool::new(false), &mut |_| {});
    (analysed.map(|analysis| analysis.findings).map_err(|error| error.code()), ran.json()["series"][0].clone())
}

/// Voxels of the phantom above a value, and the box around them.
fn above(phantom: &Phantom, hu: f64) -> (Vec<bool>, [[usize; 3]; 2]) {
    let [nx, ny, _] = phantom.image.grid().dims().map(|n| n as usize);
    let place = |n: usize| [n % nx, n / nx % ny, n / (nx * ny)];
    let kept: Vec<bool> = (0..phantom.image.grid().voxel_count()).map(|n| phantom.image.physical(place(n)) > hu).collect();
    let mut bounds = [[usize::MAX; 3], [0; 3]];
    for at in kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(n, _)| place(n)) {
        bounds = [std::array::from_fn(|n| bounds[0][n].min(at[n])), std::array::from_fn(|n| bounds[1][n].max(at[n]))];
    }
    (kept, bounds)
}

#[test]
fn a_network_looks_around_what_the_one_before_has_found() {
    let (phantom, study) = small_study();
    let package = staged(&MANIFEST.replace("[[preprocess]]\nstep = \"normalize\"", CROP), "least-of-one");
    let (findings, report) = analysed(package.path(), study.path());
    let findings = findings.expect("findings");
    let (_, [low, high]) = above(&phantom, 250.5);
    let (body, _) = above(&phantom, -300.5);
    let [nx, ny, nz] = phantom.image.grid().dims().map(|n| n as usize);
    // 9 mm are 3 voxels of 4 mm, and 1 of 9.6 mm.
    let within = |n: usize| {
        let at = [n % nx, n / nx % ny, n / (nx * ny)];
        (0..3).all(|axis| at[axis] + [3, 3, 1][axis] >= low[axis] && at[axis] <= high[axis] + [3, 3, 1][axis])
    };
    let expected: Vec<u8> = body.iter().enumerate().map(|(n, &is)| (is && within(n)).into()).collect();
    assert_eq!(findings.labels.voxels(), expected);
    let count = expected.iter().filter(|&&label| label == 1).count();
    assert!(count > 0 && count < body.iter().filter(|is| **is).count(), "some of the body lies outside: {count}");
    assert!(nz > 1 && (report["findings"][0]["measurements"][0]["value"].as_f64().expect("ml") - count as f64 * 0.1536).abs() < 1e-6);
    let named: Vec<_> = findings.provenance.parameters.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
    assert!(named.contains(&("stage.localise.preprocess.normalize.subtract", "250.5")), "{named:?}");
    assert!(named.contains(&("preprocess.crop.labelled", "[\"bone\"]")), "{named:?}");
}

#[test]
fn a_result_says_how_much_any_of_its_networks_did_at_a_time() {
    let package = staged(MANIFEST, "least-of-one");
    let manifest = package.path().join("model.toml");
    let text = std::fs::read_to_string(&manifest).expect("readable");
    let windows = r#"sliding-window = { patch = [16, 16, 16], overlap = 0.5, blending = "constant", convention = "nnunet" }"#;
    let (before, rest) = text.split_once("[inference.sliding-window]").expect("the last network's");
    let (_, after) = rest.split_once("[output]").expect("what follows");
    let of_whole = format!("{before}[inference.tiles]\ntile = [32, 32, 32]\nhalo = 0\n[output]{after}");
    std::fs::write(&manifest, of_whole.replace("tiles = { tile = [32, 32, 32], halo = 0 }", windows)).expect("written");
    let options = Options { device: DeviceChoice::Cpu, at_once: AtOnce { sessions: 2, patches: 1 }, ..Options::default() };
    let engine = Engine::new(Package::read(package.path()).expect("a package"), &options).expect("an engine");
    let parameters = engine.parameters();
    let of = |name: &str| parameters.iter().find(|p| p.name == name).map(|p| p.value.as_str());
    assert_eq!((of("sessions"), of("patches")), (Some("2"), None), "{parameters:?}");
}

#[test]
fn a_network_sees_what_the_one_before_has_found() {
    let (phantom, study) = small_study();
    let seen = MANIFEST.replace("layout = \"NCDHW\"\n", "layout = \"NCDHW\"\nprevious = { one_hot = [\"bone\"] }\n");
    let (findings, _) = analysed(staged(&seen, "least-of-two").path(), study.path());
    let expected: Vec<u8> = above(&phantom, 250.5).0.into_iter().map(u8::from).collect();
    assert_eq!(findings.expect("findings").labels.voxels(), expected);
}

#[test]
fn where_nothing_is_located_nothing_is_guessed() {
    let (_, study) = small_study();
    let package = staged(&MANIFEST.replace("[[preprocess]]\nstep = \"normalize\"", CROP), "least-of-one");
    let manifest = package.path().join("model.toml");
    let text = std::fs::read_to_string(&manifest).expect("readable");
    std::fs::write(&manifest, text.replace("subtract = 250.5", "subtract = 9000.0")).expect("written");
    let (findings, report) = analysed(package.path(), study.path());
    assert_eq!(findings.err(), Some("preprocess.nothing-located"));
    assert_eq!((report["outcome"].as_str(), report["reasons"][0]["code"].as_str()), (Some("failed"), Some("preprocess.nothing-located")));
    assert!(report["reasons"][0]["message"].as_str().expect("a message").contains("found no bone in the image"), "{report}");
}

/// Scores of a volume by a package, and how long they took.
fn scores(manifest: &str, input: &Volume<f32>) -> (Scores, Duration) {
    let package = package(manifest, "slow-least-of-one");
    let package = Package::read(package.path()).expect("a package");
    let runtime = runtime::load(None, Provider::Cpu).expect("ONNX Runtime is there");
    let mut network = Network::load(runtime, &package, Provider::Cpu, AtOnce::default()).expect("it loads");
    let began = Instant::now();
    let scores = network.run(std::slice::from_ref(input), &AtomicBool::new(false)).expect("it answers");
    (scores, began.elapsed())
}

#[test]
fn patches_of_air_are_not_shown_to_the_network() {
    let grid = Grid::new([64, 64, 64], Affine::IDENTITY).expect("a grid");
    // A corner of tissue in air of -1.
    let value = |n: usize| if n % 64 < 20 && n / 64 % 64 < 20 && n / 4096 < 20 { (n % 7) as f32 - 2.0 } else { -1.0 };
    let input = Volume::new(grid, (0..grid.voxel_count()).map(value).collect());
    let skipping = MANIFEST.replace("convention = \"nnunet\"", "convention = \"nnunet\"\nmirror = [\"i\"]\nempty = [-inf, -1.0]");
    let all = skipping.replace("empty = [-inf, -1.0]", "");
    let ((found, took), (expected, all_took)) = (scores(&skipping, &input), scores(&all, &input));
    // Patches start at 0, 8 .. 48: the first three of each axis see some of the corner.
    assert_eq!((found.patches, found.empty_patches), (2 * 343, 2 * (343 - 27)));
    assert_eq!((expected.patches, expected.empty_patches), (2 * 343, 0));
    let labels = |scores: &Scores| -> Vec<bool> {
        let (background, foreground) = scores.values.split_at(grid.voxel_count());
        background.iter().zip(foreground).map(|(background, foreground)| foreground > background).collect()
    };
    assert_eq!(labels(&found), labels(&expected));
    assert!(labels(&found).contains(&true));
    println!("all patches {all_took:?}, without empty ones {took:?}");
    assert!(took * 2 < all_took, "{took:?} of {all_took:?}");
    // What is no value of air is not left out, wherever it lies.
    let narrower = skipping.replace("[-inf, -1.0]", "[-0.5, 0.5]");
    assert_eq!(scores(&narrower, &input).0.empty_patches, 0);
}

#[test]
fn a_result_says_how_many_patches_were_left_out() {
    let (phantom, study) = small_study();
    let skipping = MANIFEST.replace("[16, 16, 16]", "[8, 8, 4]").replace("\"nnunet\"", "\"nnunet\"\nempty = [-inf, 0.0]");
    let (findings, _) = analysed(package(&skipping, "least-of-one").path(), study.path());
    let findings = findings.expect("findings");
    let expected: Vec<u8> = above(&phantom, -300.5).0.into_iter().map(u8::from).collect();
    assert_eq!(findings.labels.voxels(), expected);
    let said = "patches hold nothing but values of -inf to 0, after normalisation";
    let note = findings.provenance.geometry.iter().find(|note| note.contains(said)).expect("it says so");
    let empty: usize = note.split(' ').next().expect("a number").parse().expect("a number");
    assert!(empty > 0, "{note}");
}
