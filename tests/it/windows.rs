//! Networks applied patch by patch, against the tools whose conventions the manifest names.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use roentgen::geometry::{Affine, Coded, Grid};
use roentgen::infer::{AtOnce, Network, Provider, runtime};
use roentgen::model::{Layout, Package};
use roentgen::volume::Volume;

use crate::support::{python, root};

#[test]
fn patches_are_placed_turned_and_blended_as_elsewhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = root().join("tests/python/check_windows.py");
    let made = python(&script, &["make".as_ref(), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    answer(folder.path(), Provider::Cpu);
    let checked = python(&script, &["check".as_ref(), folder.path()]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

/// How much a network does at a time decides how long it takes: with several sessions each patch's answer comes to the same place in the same
/// order, and with several patches a run it is the same but for rounding.
#[test]
fn answers_do_not_depend_on_how_much_is_done_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = python(&root().join("tests/python/check_windows.py"), &["make".as_ref(), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    let runtime = runtime::load(None, Provider::Cpu).expect("ONNX Runtime is there");
    for case in cases(folder.path()) {
        let (package, input) = (Package::read(&case).expect("a package"), input_of(&case));
        let is_of_slices = package.manifest.input.layout == Layout::Nchw;
        let answer = |sessions, patches| {
            let at_once = AtOnce { sessions, patches };
            let mut network = Network::load(runtime, &package, Provider::Cpu, at_once).expect("it loads");
            assert_eq!(network.at_once(), if is_of_slices { AtOnce { patches: 1, ..at_once } } else { at_once }, "{}", case.display());
            network.run(&input, &AtomicBool::new(false)).expect("it answers").values
        };
        let one = answer(1, 1);
        for sessions in [2, 5] {
            assert!(answer(sessions, 1) == one, "{}: {sessions} sessions give other numbers", case.display());
        }
        let (together, again) = (answer(2, 3), answer(2, 3));
        assert!(together == again, "{}: not the same twice", case.display());
        let range = one.iter().fold(0f32, |most, value| most.max(value.abs()));
        let off = one.iter().zip(&together).fold(0f32, |most, (one, other)| most.max((one - other).abs()));
        assert!(off <= 1e-5 * range, "{}: patches together are off by {off} of {range}", case.display());
    }
}

/// The shipped nodule network's graph takes one patch.
#[test]
fn a_graph_that_takes_one_patch_is_not_given_several() {
    let package = Package::read(&root().join("models/ct-lung-nodule")).expect("a package");
    let runtime = runtime::load(None, Provider::Cpu).expect("ONNX Runtime is there");
    let at_once = AtOnce { sessions: 1, patches: 2 };
    let error = Network::load(runtime, &package, Provider::Cpu, at_once).expect_err("it must not be taken");
    assert_eq!(error.code(), "infer.contract");
    assert!(error.to_string().contains("takes one patch at a time, and 2 are asked for"), "{error}");
}

/// The cases that `check_windows.py make` has written.
pub(crate) fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<_> = std::fs::read_dir(folder).expect("readable").map(|case| case.expect("readable").path()).collect();
    cases.sort();
    cases
}

/// Writes the scores of each case beside it.
pub(crate) fn answer(folder: &Path, provider: Provider) {
    let runtime = runtime::load(None, provider).expect("ONNX Runtime is there");
    for case in cases(folder) {
        let input = input_of(&case);
        let package = Package::read(&case).expect("a package");
        let mut network = Network::load(runtime, &package, provider, AtOnce::default()).expect("it loads");
        let scores = network.run(&input, &AtomicBool::new(false)).expect("it answers");
        std::fs::write(case.join("scores.raw"), bytemuck::cast_slice(&scores.values)).expect("writable");
    }
}

/// What a case's network sees.
fn input_of(case: &Path) -> Vec<Volume<f32>> {
    let dims: [u32; 3] = serde_json::from_slice(&std::fs::read(case.join("dims.json")).expect("readable")).expect("three numbers");
    let input: Vec<f32> = bytemuck::pod_collect_to_vec(&std::fs::read(case.join("input.raw")).expect("readable"));
    let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
    input.chunks_exact(grid.voxel_count()).map(|values| Volume::new(grid, values.to_vec())).collect()
}
