//! NIfTI and NRRD against nibabel, pynrrd and SimpleITK, on files that they made and on files of other people.

use std::path::{Path, PathBuf};

use roentgen::geometry::{Affine, Coded, Grid};
use roentgen::research::{read_header, read_volume, write_label_nifti};
use roentgen::volume::{LabelMap, Volume};
use serde_json::{Value, json};

use crate::support::{files_below, python, root, test_data};

fn script() -> PathBuf {
    root().join("tests/python/check_research.py")
}

/// Reads `files`, and lets the script compare voxels and affines with what the other readers make of them. Returns how many it compared.
fn check(files: &[PathBuf]) -> u64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut read = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let raw = folder.path().join(format!("{n}.raw"));
        read.push(reading(file, &raw));
    }
    std::fs::write(folder.path().join("read.json"), Value::from(read).to_string()).expect("writable");
    let compared = python(&script(), &[Path::new("compare"), folder.path()]);
    assert_eq!(compared.code, 0, "{}", compared.all());
    println!("{}", compared.stderr.trim_end());
    compared.json()["compared"].as_u64().expect("a count")
}

/// What we make of `file`; its voxels go to `raw`.
fn reading(file: &Path, raw: &Path) -> Value {
    let volume = match read_volume(file) {
        Ok(volume) => volume,
        Err(error) => return json!({ "file": file, "error": error.code(), "message": error.to_string() }),
    };
    let header = read_header(file).expect("a volume has a header");
    assert_eq!(header.grid, *volume.grid());
    let floats = || volume.stored.as_float32().expect("integers or floats").voxels();
    let (kind, bytes): (_, Vec<u8>) = match volume.stored.as_int16() {
        Some(integers) => ("i2", integers.voxels().iter().flat_map(|v| v.to_le_bytes()).collect()),
        None => ("f4", floats().iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    std::fs::write(raw, bytes).expect("writable");
    json!({
        "file": file,
        "raw": raw,
        "kind": kind,
        "dims": volume.grid().dims(),
        "lps_from_voxel": volume.grid().lps_from_voxel().rows(),
        "slope": volume.rescale.slope,
        "intercept": volume.rescale.intercept,
        "unit_mm": header.unit.mm(),
        "notes": volume.notes,
    })
}

/// Every element type in both byte orders, the 48 orientations, oblique and sheared axes, pairs of files; and what must be refused.
#[test]
fn made_by_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = python(&script(), &[Path::new("make"), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    let data_only = |f: &PathBuf| f.extension().is_none_or(|e| e != "raw" && e != "gz") || f.to_string_lossy().ends_with(".nii.gz");
    let files: Vec<_> = files_below(folder.path()).into_iter().filter(data_only).collect();
    let compared = check(&files);
    assert!(compared > 250, "only {compared} files were compared");
}

/// Every NIfTI and NRRD file among the test data.
#[test]
fn of_other_people() {
    let Some(data) = test_data() else { return };
    let is_research = |f: &PathBuf| [".nii", ".nii.gz", ".nrrd"].iter().any(|end| f.to_string_lossy().ends_with(end));
    let files: Vec<_> = files_below(&data).into_iter().filter(is_research).collect();
    let compared = check(&files);
    assert_eq!(compared, files.len() as u64, "all are volumes");
    assert!(compared >= 30, "only {compared} files were compared");
}

/// Label maps that we write, read by nibabel and SimpleITK.
#[test]
fn label_maps_for_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut written = Vec::new();
    for (n, letters) in orientations().into_iter().enumerate() {
        let [x, y, z] = letters;
        let grid = Grid::new([6, 5, 4], Affine::from_columns(x, y, z, [-101.5, 33.0, 712.25])).expect("axes span space");
        let labels: LabelMap = Volume::new(grid, (0..120).map(|v| v * 2).collect());
        let file = folder.path().join(format!("{n}.nii.gz"));
        write_label_nifti(&file, &labels).expect("writable");
        written.push(json!({ "file": file, "dims": grid.dims(), "lps_from_voxel": grid.lps_from_voxel().rows() }));
    }
    std::fs::write(folder.path().join("written.json"), Value::from(written).to_string()).expect("writable");
    let compared = python(&script(), &[Path::new("labels"), folder.path()]);
    assert_eq!(compared.code, 0, "{}", compared.all());
}

/// The 48 ways along the axes, each once straight and once turned by an odd rotation.
fn orientations() -> Vec<[[f64; 3]; 3]> {
    let turn = Affine::from_columns([0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6], [0.0; 3]);
    let mut all = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for signs in 0..8 {
            let column = |n: usize| {
                let mut v = [0.0; 3];
                v[order[n]] = [0.7, 1.25, 3.0][n] * if signs >> n & 1 == 1 { -1.0 } else { 1.0 };
                v
            };
            let straight = [column(0), column(1), column(2)];
            all.push(straight);
            all.push(straight.map(|v| turn.apply(v)));
        }
    }
    all
}
