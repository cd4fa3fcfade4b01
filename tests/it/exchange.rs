//! Forms for other programs: findings.json against its schema, CSV against findings.json.

use std::path::Path;

use roentgen::codes::Code;
use roentgen::findings::{Findings, SourceFile, ValueMap};
use roentgen::research::Format;
use roentgen::results::{Form, Forms, write_all};
use roentgen::series::GeometryPolicy;
use roentgen::volume::{ImageVolume, Volume};

use crate::reports::{self, Chance};
use crate::support::{python, root, small_study};

/// Random findings of which some are hard on a writer of tables.
fn findings(count: usize, seed: u8, study: &Path) -> (Findings, ImageVolume) {
    let (mut findings, image) = reports::findings(count, &mut Chance::new(seed), study, GeometryPolicy::Refuse);
    let names = ["=HYPERLINK(\"x\")", "a, \"quoted\" one", "-2", "@home", "two\r\nlines", "\u{c5}ngstr\u{f6}m \u{808c}"];
    findings.findings.iter_mut().zip(names).for_each(|(finding, name)| finding.name = name.into());
    if let Some(last) = findings.findings.last_mut() {
        last.present = true;
        last.segment = None;
        last.measurements.clear();
        last.evaluations.clear();
    }
    let numbers = findings.findings.iter_mut().flat_map(|finding| &mut finding.measurements);
    let hard = [Some(f64::NAN), Some(5e-324), Some(-0.1 - 0.2), Some(f64::MAX), None];
    numbers.zip(hard.into_iter().cycle()).step_by(3).for_each(|(measurement, value)| measurement.value = value);
    let grid = *findings.labels.grid();
    findings.maps.push(ValueMap {
        name: "probability".into(),
        quantity: Code::new("122157", "DCM", "Probability"),
        unit: Code::new("1", "UCUM", "no units"),
        values: Volume::new(grid, vec![0.5; grid.voxel_count()]),
    });
    // The segment of what is now without one.
    let described: Vec<u8> = findings.findings.iter().filter(|f| f.present).filter_map(|f| f.segment).collect();
    let voxels = findings.labels.voxels().iter().map(|label| if described.contains(label) { *label } else { 0 }).collect();
    findings.labels = Volume::new(grid, voxels);
    (findings, image)
}

/// The same as of a NIfTI volume.
fn of_a_file(mut findings: Findings) -> Findings {
    let source = &mut findings.source;
    source.instances.clear();
    source.content_sha256.clear();
    source.frames.clear();
    source.slice_of_frame.clear();
    source.file = Some(SourceFile { format: Format::Nifti1, sha256: "0f".repeat(32) });
    findings.predecessors.clear();
    findings
}

#[test]
fn every_form_for_programs_says_what_the_json_says() {
    let (_, study) = small_study();
    let results = tempfile::tempdir().expect("a temporary folder");
    for (n, count) in [1, 2, 7, 60].into_iter().enumerate() {
        let (findings, image) = findings(count, n as u8, study.path());
        let all: Forms = [Form::Seg, Form::Sr, Form::Json, Form::Csv].into_iter().collect();
        let text_only: Forms = [Form::Json, Form::Csv].into_iter().collect();
        write_all(&findings, &image, &all, &results.path().join(format!("series-{n}"))).expect("results are written");
        write_all(&findings, &image, &text_only, &results.path().join(format!("text-only-{n}"))).expect("results are written");
        let of_a_file = of_a_file(findings);
        write_all(&of_a_file, &image, &all, &results.path().join(format!("volume-{n}"))).expect("results are written");
    }
    let schema = root().join("docs/findings.schema.json");
    let checked = python(&root().join("tests/python/check_exchange.py"), &[&schema, results.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}
