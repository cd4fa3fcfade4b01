//! Forms for other programs (findings.json against its schema, CSV and FHIR against findings.json), and `roentgen show`.

use std::path::{Path, PathBuf};

use dicom::core::{DataElement, PrimitiveValue, VR};
use roentgen::codes::Code;
use roentgen::dataset::tags;
use roentgen::findings::{Findings, SourceFile, ValueMap};
use roentgen::research::Format;
use roentgen::results::show::{self, Page};
use roentgen::results::{Form, Forms, write_all};
use roentgen::series::GeometryPolicy;
use roentgen::volume::{ImageVolume, Volume};

use crate::reports::{self, Chance};
use crate::support::{files_below, findings_json, python, roentgen, root, small_study, test_data};

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

/// Character sets and names in them, as dicom-rs writes them.
const PATIENTS: [(&[&str], &str); 4] = [
    (&["ISO_IR 100"], "Pr\u{fc}fling^J\u{f6}rg^^Dr."),
    (&["ISO_IR 192"], "Wang^XiaoDong=\u{738b}^\u{5c0f}\u{6771}"),
    (&["", "ISO 2022 IR 87"], "Yamada^Tarou=\u{1b}$B;3ED\u{1b}(B^\u{1b}$BB@O:\u{1b}(B"),
    (&["ISO_IR 144"], "\u{41b}\u{44e}\u{43a}\u{441}"),
];

/// Gives the study another patient.
fn rename(study: &Path, (charset, name): (&[&str], &str)) {
    for file in files_below(study) {
        let mut object = dicom::object::open_file(&file).expect("our own phantom");
        let terms = PrimitiveValue::Strs(charset.iter().map(|&term| term.to_owned()).collect());
        object.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, terms));
        object.put(DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from(name)));
        object.put(DataElement::new(tags::PATIENT_BIRTH_DATE, VR::DA, PrimitiveValue::from("19600229")));
        object.put(DataElement::new(tags::ISSUER_OF_PATIENT_ID, VR::LO, PrimitiveValue::from("EXAMPLE")));
        object.put(DataElement::new(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, PrimitiveValue::from("+0100")));
        object.write_to_file(&file).expect("writable");
    }
}

#[test]
fn every_form_for_programs_says_what_the_json_says() {
    let results = tempfile::tempdir().expect("a temporary folder");
    for (n, (count, patient)) in [1, 2, 7, 60].into_iter().zip(PATIENTS).enumerate() {
        let (_, study) = small_study();
        rename(study.path(), patient);
        let (findings, image) = findings(count, n as u8, study.path());
        let text_only = [Form::Json, Form::Csv, Form::Fhir, Form::FhirR5];
        let all: Forms = [Form::Seg, Form::Sr].into_iter().chain(text_only).collect();
        let text_only: Forms = text_only.into_iter().collect();
        write_all(&findings, &image, &all, &results.path().join(format!("series-{n}"))).expect("results are written");
        write_all(&findings, &image, &text_only, &results.path().join(format!("text-only-{n}"))).expect("results are written");
        let of_a_file = of_a_file(findings);
        let written = write_all(&of_a_file, &image, &all, &results.path().join(format!("volume-{n}"))).expect("results are written");
        assert!(written.first(Form::Fhir).is_none(), "a file has no patient");
    }
    let schema = root().join("docs/findings.schema.json");
    let checked = python(&root().join("tests/python/check_exchange.py"), &[&schema, results.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
    let checked = python(&root().join("tests/python/check_fhir.py"), &[results.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

/// Results of a made-up analysis in every form.
fn results_in(folder: &Path) -> (Findings, PathBuf) {
    let (_, study) = small_study();
    rename(study.path(), PATIENTS[0]);
    let (findings, image) = findings(12, 3, study.path());
    let results = folder.join("results");
    write_all(&findings, &image, &Forms::all(), &results).expect("results are written");
    (findings, results)
}

fn shown(arguments: &[&str], files: &Path) -> crate::support::Ran {
    let files = files.to_str().expect("ASCII");
    roentgen(&[&["show"], arguments, &[files]].concat())
}

#[test]
fn results_are_shown_without_their_patient() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (findings, results) = results_in(folder.path());
    let text = shown(&[], &results);
    assert_eq!(text.code, 0, "{}", text.all());
    for finding in findings.findings.iter().skip(6) {
        assert!(text.stdout.contains(&finding.name), "{} is not there", finding.name);
    }
    assert!(text.stdout.contains("seg.dcm, segment 1 \""), "the report refers to the segmentation by name");
    for hidden in ["fling", "19600229", "ROENTGEN-PHANTOM"] {
        assert!(!text.stdout.contains(hidden), "{hidden} is shown");
    }
    let with_patient = shown(&["--patient"], &results);
    assert!(with_patient.stdout.contains("Pr\u{fc}fling^J\u{f6}rg^^Dr."), "{}", with_patient.stdout);

    // Voxels as the label map has them.
    let json = shown(&["--json"], &results).json();
    let objects = json["objects"].as_array().expect("a list");
    let seg = objects.iter().find(|o| o["file"] == "seg.dcm").expect("it is shown");
    for row in seg["tables"][0]["rows"].as_array().expect("rows") {
        let cell = |n: usize| row[n].as_str().expect("a text");
        let number: u64 = cell(0).parse().expect("a number");
        let finding = findings_json(&results)["findings"].as_array().expect("a list").iter().position(|f| f["segment_number"] == number);
        let finding = &findings.findings[finding.expect("a finding")];
        let voxels = findings.labels.voxels().iter().filter(|&&label| Some(label) == finding.segment).count();
        assert_eq!(cell(7), voxels.to_string(), "segment {number}");
        let [red, green, blue] = finding.colour;
        assert_eq!(cell(9), format!("#{red:02x}{green:02x}{blue:02x}"));
    }

    let page = folder.path().join("page.html");
    let html = shown(&["--html", "--output", page.to_str().expect("ASCII")], &results);
    assert_eq!((html.code, html.stdout.as_str()), (0, ""), "{}", html.all());
    let html = std::fs::read_to_string(&page).expect("written");
    assert!(html.contains("=HYPERLINK(&quot;x&quot;)") && !html.contains("<script"), "texts are escaped");
    assert!(!html.contains("fling") && !html.contains("http://") && !html.contains("https://"), "nothing from elsewhere");
}

#[test]
fn what_cannot_be_shown_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let check = |path: &Path, code: i32, said: &str| {
        let ran = shown(&[], path);
        assert_eq!(ran.code, code, "{}", ran.all());
        assert!(ran.stderr.contains(said), "{}", ran.all());
    };
    check(&folder.path().join("nothing"), 2, "cannot read the input");
    check(folder.path(), 2, "no DICOM object");
    check(&file("text", b"a text"), 1, "[dataset.not-dicom]");
    check(&file("other.json", b"{\"schema\": \"other\"}"), 1, "[show.findings]");
    check(&file("broken.json", b"{\"schema\": "), 1, "[show.findings]");
    check(&file("deep.json", "{\"a\":".repeat(5000).as_bytes()), 1, "[show.findings]");
    check(&file("newer.json", b"{\"schema\": \"roentgen-findings\", \"schema_version\": 2}"), 1, "does not know");
}

/// Bytes of real and of our own objects, changed at random: shown or refused, and never more than a page holds.
#[test]
fn broken_objects_never_break_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (_, results) = results_in(folder.path());
    let mut files: Vec<PathBuf> = files_below(&results).into_iter().filter(|f| f.extension().is_some_and(|e| e == "dcm")).collect();
    if let Some(data) = test_data() {
        let others = ["reference_results", "seg-sr", "malformed/pydicom"].map(|part| files_below(&data.join(part)));
        files.extend(others.into_iter().flatten().filter(|f| std::fs::metadata(f).is_ok_and(|m| m.len() < 300_000)));
    }
    let (mut chance, mut shown, mut refused) = (Chance::new(77), 0, 0);
    for file in &files {
        let whole = std::fs::read(file).expect("readable");
        for round in 0..6 {
            let mut bytes = whole.clone();
            match round {
                0 => {}
                1 => bytes.truncate(chance.below(bytes.len().max(1))),
                _ => (0..1 << (round - 2)).for_each(|_| {
                    let at = chance.below(bytes.len().max(1));
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = chance.below(256) as u8;
                    }
                }),
            }
            let path = folder.path().join("broken.dcm");
            std::fs::write(&path, &bytes).expect("written");
            match show::show(&[path], round % 2 == 0).remove(0) {
                Ok(page) => {
                    shown += 1;
                    assert!(show::text(&page, false).len() < 20 << 20, "a page is bounded");
                    assert!(!show::text(&page, false).contains('\u{1b}'), "no control characters");
                    show::html(&[page, Page::default()]);
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{} files: {shown} times shown, {refused} times refused", files.len());
    assert!(shown > files.len(), "whole ones and some broken ones are shown");
}
