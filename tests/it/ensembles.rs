//! How far the graphs of an ensemble are apart, as a map.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use roentgen::codes::{other, sha256_hex};
use roentgen::engine::{Engine, Options};
use roentgen::findings::Findings;
use roentgen::geometry::Coded;
use roentgen::gpu::DeviceChoice;
use roentgen::model::Package;
use roentgen::series::discover;
use roentgen::volume::ImageVolume;
use tempfile::TempDir;

use crate::support::{Ran, command, files_below, findings_json, python, root, small_study};

/// The graphs of `check_spread.py`, once.
static GRAPHS: LazyLock<TempDir> = LazyLock::new(|| {
    let made = tempfile::tempdir().expect("a temporary folder");
    let ran = python(&root().join("tests/python/check_spread.py"), &["make".as_ref(), made.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    made
});

const MANIFEST: &str = r#"
format = 1
[model]
name = "ensemble"
version = "1.0.0"
task = "segmentation"
manufacturer = "roentgen"
licence = "MIT OR Apache-2.0"
intended_use = "A test."
regulatory_status = "none"
[select]
modality = ["CT"]
[input]
tensor = "image"
dtype = "float32"
layout = "NCDHW"
[[preprocess]]
step = "normalize"
subtract = 0.0
divide = 500.0
[inference.tiles]
tile = [40, 40, 10]
halo = 1
[output]
tensor = "scores"
scores = "logits"
background = 0
[[postprocess]]
step = "argmax"
[[finding]]
channel = 1
segment = 1
name = "one"
colour = [1, 2, 3]
category = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
type = { value = "87784001", scheme = "SCT", meaning = "Soft tissue" }
measurements = ["volume"]
[[finding]]
channel = 2
segment = 2
name = "two"
colour = [1, 2, 3]
category = { value = "85756007", scheme = "SCT", meaning = "Tissue" }
type = { value = "3138006", scheme = "SCT", meaning = "Bone" }
measurements = ["volume"]
"#;
const SPREAD: &str = "[[map]]\nname = \"spread of two\"\nof = \"spread\"\nfinding = \"two\"\n";
const PROBABILITY: &str = "[[map]]\nname = \"probability of two\"\nof = \"probability\"\nfinding = \"two\"\n";

/// A package of some of the graphs.
fn package(manifest: &str, members: &[usize]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut text = manifest.to_owned();
    for n in members {
        let graph = fs::read(GRAPHS.path().join(format!("{n}.onnx"))).expect("it is made");
        text += &format!("[[file]]\npath = \"{n}.onnx\"\nsha256 = \"{}\"\n", sha256_hex(&graph));
        fs::write(folder.path().join(format!("{n}.onnx")), graph).expect("written");
    }
    fs::write(folder.path().join("model.toml"), text).expect("written");
    folder
}

fn analysed(manifest: &str, members: &[usize], study: &Path, maps: bool) -> (Findings, ImageVolume) {
    let package = Package::read(package(manifest, members).path()).expect("a package");
    let mut engine = Engine::new(package.clone(), &Options { device: DeviceChoice::Cpu, maps, ..Options::default() }).expect("an engine");
    let found = discover(&[study.to_owned()]);
    let parts = found.series[0].parts(Default::default());
    let stack = package.eligible(&parts[0]).expect("the phantom is eligible").stack;
    let analysis = engine.analyse(stack, &AtomicBool::new(false), &mut |_| {}).expect("it is analysed");
    (analysis.findings, analysis.image)
}

#[test]
fn the_spread_that_numpy_finds() {
    let (_, study) = small_study();
    let manifest = format!("{MANIFEST}{PROBABILITY}{SPREAD}");
    let (findings, image) = analysed(&manifest, &[0, 1, 2], study.path(), true);
    assert_eq!(findings.maps.iter().map(|map| &map.name).collect::<Vec<_>>(), ["probability of two", "spread of two"]);
    let map = &findings.maps[1];
    assert_eq!(map.quantity, other::ENSEMBLE_SPREAD);
    // Whether maps are asked for changes no label.
    assert_eq!(analysed(&manifest, &[0, 1, 2], study.path(), false).0.labels.voxels(), findings.labels.voxels());

    let folder = GRAPHS.path();
    let [nx, ny, nz] = image.grid().dims().map(|n| n as usize);
    let voxels = (0..nx * ny * nz).map(|n| [n % nx, n / nx % ny, n / (nx * ny)]);
    let bytes = |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    fs::write(folder.join("image.json"), format!("[{nx}, {ny}, {nz}]")).expect("writable");
    fs::write(folder.join("image.raw"), bytes(&mut voxels.map(|voxel| image.physical(voxel) as f32))).expect("writable");
    fs::write(folder.join("spread.raw"), bytes(&mut map.values.voxels().iter().copied())).expect("writable");
    fs::write(folder.join("labels.raw"), findings.labels.voxels()).expect("writable");
    let checked = python(&root().join("tests/python/check_spread.py"), &["check".as_ref(), folder]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

/// Within a box, on another grid and after softmax: as of the maps that each graph has by itself.
#[test]
fn a_spread_is_that_of_the_members_own_maps() {
    let (_, study) = small_study();
    let resampled = "step = \"crop\"\nabove = -300.0\n[[preprocess]]\nstep = \"resample\"\nspacing_mm = [6.0, 5.0, 7.0]\ninterpolation = \"linear\"\n\
                     [[preprocess]]\nstep = \"normalize\"";
    let softmax = "[[postprocess]]\nstep = \"softmax\"\n[[postprocess]]\nstep = \"argmax\"";
    let manifest = MANIFEST.replace("step = \"normalize\"", resampled).replace("[[postprocess]]\nstep = \"argmax\"", softmax);
    let (findings, _) = analysed(&format!("{manifest}{SPREAD}"), &[0, 2], study.path(), true);
    let alone = [0, 2].map(|n| analysed(&format!("{manifest}{PROBABILITY}"), &[n], study.path(), true).0.maps.remove(0).values);
    let spread = findings.maps[0].values.voxels();
    for ((found, a), b) in spread.iter().zip(alone[0].voxels()).zip(alone[1].voxels()) {
        let expected = (f64::from(*a) - f64::from(*b)).abs() / 2.0; // the standard deviation of two
        assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
    }
    let most = spread.iter().copied().fold(0.0, f32::max);
    assert!(most > 0.05 && most <= 0.5, "{most}");
}

#[test]
fn a_spread_is_a_parametric_map() {
    let (_, study) = small_study();
    let output = tempfile::tempdir().expect("a temporary folder");
    let package = package(&format!("{MANIFEST}{SPREAD}"), &[0, 1]);
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", "map,json", "--model"]).arg(package.path()).arg(study.path());
    let ran = Ran::of(run.arg("--output").arg(output.path()).output().expect("the binary starts"));
    assert_eq!(ran.code, 0, "{}", ran.all());
    let files = files_below(output.path());
    assert!(files.iter().any(|file| file.ends_with("map.dcm")), "{files:?}");
    let folder = files.iter().find(|file| file.ends_with("findings.json")).and_then(|file| file.parent()).expect("findings");
    let findings = findings_json(folder);
    assert_eq!(findings["maps"][0]["quantity"]["value"], "ENSEMBLE-SPREAD", "{}", findings["maps"]);
}

#[test]
fn a_spread_of_nothing_is_refused() {
    for (map, members, said) in [
        (SPREAD.to_owned(), &[0][..], "the package has one graph"),
        (SPREAD.replace("finding = \"two\"\n", ""), &[0, 1][..], "names none"),
        (SPREAD.replace("\"two\"", "\"three\""), &[0, 1][..], "none of the package's"),
        (SPREAD.replace("finding = \"two\"\n", "") + PROBABILITY, &[0][..], "names none"),
    ] {
        let error = Package::read(package(&format!("{MANIFEST}{map}"), members).path()).expect_err("it is refused");
        assert_eq!(error.code(), "model.unsupported", "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}
