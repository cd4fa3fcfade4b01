//! Networks applied patch by patch, against the tools whose conventions the manifest names.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use roentgen::geometry::{Affine, Grid};
use roentgen::infer::{Network, Provider, runtime};
use roentgen::model::Package;
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
        let dims: [u32; 3] = serde_json::from_slice(&std::fs::read(case.join("dims.json")).expect("readable")).expect("three numbers");
        let input: Vec<f32> = bytemuck::pod_collect_to_vec(&std::fs::read(case.join("input.raw")).expect("readable"));
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
        let input: Vec<_> = input.chunks_exact(grid.voxel_count()).map(|values| Volume::new(grid, values.to_vec())).collect();
        let package = Package::read(&case).expect("a package");
        let mut network = Network::load(runtime, &package, provider).expect("it loads");
        let scores = network.run(&input, &AtomicBool::new(false)).expect("it answers");
        std::fs::write(case.join("scores.raw"), bytemuck::cast_slice(&scores.values)).expect("writable");
    }
}
