//! A phantom in every orientation, through our reader into a segmentation that another program reads.
//!
//! `tests/python/orientation_study.py` samples three bodies on grids of all 48 axis orientations and of random oblique ones and writes them
//! as CT and Enhanced CT; here each is loaded, labelled by its exact values and written as SEG; highdicom then says where the segments lie.

use std::path::Path;

use roentgen::codes::{Code, uid_by_name};
use roentgen::dataset::write_object;
use roentgen::findings::{Finding, Findings};
use roentgen::geometry::{norm, sub};
use roentgen::results::segmentation;
use roentgen::series::{GeometryPolicy, Kind, Stack, discover};
use roentgen::volume::{LabelMap, Quantity, Volume};
use serde_json::Value;

use crate::support::{made_up, python, root, source_of};

/// HU of the three bodies, which are labels 1, 2 and 3.
const BODIES_HU: [f64; 3] = [100.0, 200.0, 300.0];
/// The script prints coordinates of at most 16 characters.
const CORNER_TOLERANCE_MM: f64 = 1e-6;

/// Loads one case, checks its grid against `expected` and gives what was found in it.
fn findings_of(folder: &Path, expected: &Value) -> Findings {
    let found = discover(&[folder.into()]);
    assert!(found.skipped.is_empty(), "{}: {:?}", folder.display(), found.skipped);
    let [series] = found.series.as_slice() else { panic!("{}: {} series", folder.display(), found.series.len()) };
    let parts = series.parts(GeometryPolicy::Refuse);
    let [part] = parts.as_slice() else { panic!("{}: {} parts", folder.display(), parts.len()) };
    let stack = part.gate().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    assert_eq!((stack.kind, &stack.quantity), (Kind::Volume, &Quantity::Hounsfield));
    let last = stack.grid.dims().map(|d| f64::from(d - 1));
    for (voxel, corner) in [[0.0; 3], last].into_iter().zip(expected["corners_mm"].as_array().expect("corners")) {
        let corner: [f64; 3] = serde_json::from_value(corner.clone()).expect("three numbers");
        let place = stack.grid.lps_from_voxel().apply(voxel);
        assert!(norm(sub(place, corner)) < CORNER_TOLERANCE_MM, "{}: {place:?} is not {corner:?}", folder.display());
    }
    labelled(stack)
}

/// The stack with every voxel labelled that has exactly the value of a body.
fn labelled(stack: Stack) -> Findings {
    let loaded = stack.load().expect("whole files");
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let mut labels = Vec::with_capacity(stack.grid.voxel_count());
    for k in 0..slices {
        for j in 0..rows {
            for i in 0..columns {
                let hu = loaded.image.physical([i, j, k]);
                labels.push(BODIES_HU.iter().position(|&body| body == hu).map_or(0, |n| n as u8 + 1));
            }
        }
    }
    let labels: LabelMap = Volume::new(stack.grid, labels);
    let finding = |n: u8| Finding {
        name: format!("body {n}"),
        tracking_uid: uid_by_name(&["test", "body", &n.to_string()]),
        segment: Some(n),
        place: None,
        colour: [80 * n, 40, 200],
        category: Code::new("85756007", "SCT", "Tissue"),
        finding_type: Code::new("85756007", "SCT", "Tissue"),
        site: None,
        laterality: None,
        present: labels.voxels().contains(&n),
        certainty_percent: None,
        evaluations: Vec::new(),
        measurements: Vec::new(),
    };
    let findings = [1, 2, 3].map(finding).to_vec();
    let source = source_of(&stack, &loaded);
    Findings {
        source,
        labels,
        findings,
        provenance: made_up("orientations"),
        warnings: Vec::new(),
        maps: Vec::new(),
        predecessors: Vec::new(),
        follow_up: None,
        priors: Default::default(),
    }
}

#[test]
fn every_orientation_comes_back_where_it_was() {
    let script = root().join("tests/python/orientation_study.py");
    let (study, results) = (tempfile::tempdir().expect("a temporary folder"), tempfile::tempdir().expect("a temporary folder"));
    let written = python(&script, &[Path::new("write"), study.path()]);
    assert_eq!(written.code, 0, "{}", written.all());
    let cases: Value = serde_json::from_slice(&std::fs::read(study.path().join("cases.json")).expect("readable")).expect("JSON");
    let cases = cases.as_object().expect("cases by name");
    assert!(cases.len() >= 4 * 24, "all 48 axis orientations, two kinds of objects: {}", cases.len());
    for (case, expected) in cases {
        let findings = findings_of(&study.path().join(case), expected);
        let object =
            segmentation(&findings).unwrap_or_else(|e| panic!("{case}: {e}")).unwrap_or_else(|| panic!("{case}: nothing to segment"));
        write_object(&results.path().join(format!("{case}.dcm")), object).expect("writable");
    }
    let read = python(&script, &[Path::new("read"), study.path(), results.path()]);
    println!("{}", read.stdout);
    assert_eq!(read.code, 0, "{}", read.all());
}
