//! Networks of slices that see neighbouring slices as channels: which ones, whatever the batch, and what is refused.

use std::fs;
use std::path::Path;

use roentgen::geometry::Coded;
use roentgen::infer::{AtOnce, Network, Provider, runtime};
use roentgen::model::Package;
use serde_json::Value;

use crate::channels::{MANIFEST, REFERENCE, expected, package, study_of_both};
use crate::support::{Ran, command, files_below, python, root};
use crate::windows::{answer, cases};

#[test]
fn the_neighbours_that_numpy_gives_a_network() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = root().join("tests/python/check_slices.py");
    let made = python(&script, &["make".as_ref(), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    answer(folder.path(), Provider::Cpu);
    let checked = python(&script, &["check".as_ref(), folder.path()]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
    // One network and one volume, in batches of one, two, three and seven slices, as tiles and as patches.
    let is_batch = |case: &&std::path::PathBuf| case.file_name().is_some_and(|name| name.to_string_lossy().starts_with("batch-"));
    let all: Vec<Vec<u8>> =
        cases(folder.path()).iter().filter(is_batch).map(|case| fs::read(case.join("scores.raw")).expect("readable")).collect();
    assert!(all.len() == 7 && all.iter().all(|one| *one == all[0]), "the same bits whatever the batch");
}

/// The manifest of two series for a network that sees three slices of each.
fn of_slices() -> String {
    MANIFEST
        .replace("layout = \"NCDHW\"\n", "layout = \"NCHW\"\nslices = { count = 3 }\n")
        .replace("patch = [16, 16, 16]", "patch = [16, 16, 1]")
}

fn run(package: &Path, input: &Path, output: &Path) -> Ran {
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", "seg,json", "--model"]).arg(package).arg(input);
    Ran::of(run.arg("--output").arg(output).output().expect("the binary starts"))
}

#[test]
fn a_series_is_labelled_by_slices_of_two() {
    let (study, output) = (study_of_both(), tempfile::tempdir().expect("a temporary folder"));
    let ran = run(package(&of_slices(), "least-of-six-slices").path(), study.path(), output.path());
    assert_eq!(ran.code, 0, "{}", ran.all());
    // The least of three slices: what was found in all of them, the last one being its own neighbour.
    let found = expected();
    let [nx, ny, nz] = REFERENCE.dims.map(|n| n as usize);
    let in_all = |n: usize| {
        let (k, place) = (n / (nx * ny), n % (nx * ny));
        [k.saturating_sub(1), k, (k + 1).min(nz - 1)].iter().all(|k| found[k * nx * ny + place] == 1)
    };
    let count = (0..found.len()).filter(|&n| in_all(n)).count();
    assert!(count > 0 && count < found.iter().filter(|&&label| label == 1).count());
    let report = ran.json();
    let done = report["series"].as_array().expect("series").iter().find(|one| one["outcome"] == "done").expect("one is analysed");
    let volume_ml = done["findings"][0]["measurements"][0]["value"].as_f64().expect("a number");
    assert!((volume_ml - count as f64 * 0.64).abs() < 1e-6, "{volume_ml} ml are not {count} voxels");
    let findings: Value = serde_json::from_slice(
        &fs::read(files_below(output.path()).iter().find(|file| file.ends_with("findings.json")).expect("findings")).expect("readable"),
    )
    .expect("JSON");
    let parameters = findings["provenance"]["parameters"].to_string();
    for said in ["input.slices.count", "input.slices.beyond", "input.slices.order"] {
        assert!(parameters.contains(said), "{said}: {parameters}");
    }
}

#[test]
fn a_graph_with_other_channels_is_refused() {
    let runtime = runtime::load(None, Provider::Cpu).expect("ONNX Runtime is there");
    let five = of_slices().replace("count = 3", "count = 5");
    let folder = package(&five, "least-of-six-slices");
    let error = Network::load(runtime, &Package::read(folder.path()).expect("a package"), Provider::Cpu, AtOnce::default())
        .expect_err("6 are not 10");
    assert_eq!(error.code(), "infer.contract");
    let said = error.to_string();
    assert!(said.contains("expected [N, 10, H, W]: as channels 5 slices of each of 2 (`input.slices`)"), "{said}");
}

#[test]
fn more_slices_need_more_memory() {
    let runtime = runtime::load(None, Provider::Cpu).expect("ONNX Runtime is there");
    let folder = package(&of_slices(), "least-of-six-slices");
    let with =
        Network::load(runtime, &Package::read(folder.path()).expect("a package"), Provider::Cpu, AtOnce::default()).expect("it loads");
    let folder = package(&of_slices().replace("slices = { count = 3 }\n", ""), "least-of-two-slices");
    let without =
        Network::load(runtime, &Package::read(folder.path()).expect("a package"), Provider::Cpu, AtOnce::default()).expect("it loads");
    let voxels = 64 * 64 * 64;
    // A patch of 16 x 16 x 1: two slices more of two images in each of three places, and once more six channels.
    assert_eq!(with.needed_bytes(voxels) - without.needed_bytes(voxels), 4 * 256 * (3 * 2 * 2 + 6));
}
