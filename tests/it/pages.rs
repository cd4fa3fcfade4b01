//! What people look at: the page in a browser, captures and documents as other people's programs show them, held against findings.json.
//!
//! `ROENTGEN_KEEP_TEST_OUTPUT=DIR` keeps studies and results in new folders below DIR, to be looked at.

use std::fs;
use std::path::Path;

use dicom::core::{DataElement, PrimitiveValue, VR};
use roentgen::dataset::tags;
use roentgen::findings::{Source, SourceFile};
use roentgen::research::Format;
use roentgen::results::{Form, Forms, HTML_FILE, write_all};
use roentgen::series::GeometryPolicy;

use crate::reports::{Chance, findings};
use crate::support::{files_below, folder_to_look_at, python, root, small_study};

/// A study that other studies differ from in these ways.
struct Case {
    name: &'static str,
    charset: &'static [&'static str],
    patient: &'static str,
    findings: usize,
    /// Pixel Spacing, where pixels are not square; such a study has a window of its own, too.
    spacing: Option<&'static str>,
}

const CASES: [Case; 5] = [
    Case { name: "latin", charset: &["ISO_IR 100"], patient: "Pr\u{fc}fling^J\u{f6}rg^^Dr.", findings: 2, spacing: None },
    Case { name: "unicode", charset: &["ISO_IR 192"], patient: "\u{5c71}\u{7530}^\u{592a}\u{90ce}", findings: 1, spacing: None },
    Case {
        name: "japanese",
        charset: &["", "ISO 2022 IR 87"],
        patient: "Yamada^Tarou=\u{1b}$B;3ED\u{1b}(B^\u{1b}$BB@O:\u{1b}(B=\u{1b}$B$d$^$@\u{1b}(B^\u{1b}$B$?$m$&\u{1b}(B",
        findings: 30,
        spacing: None,
    },
    Case { name: "markup", charset: &[], patient: "<script>alert(1)</script>^A & \"B\"", findings: 3, spacing: Some("4\\2.5") },
    Case { name: "many", charset: &["ISO_IR 192"], patient: "\u{16f}\u{151}^\u{416}\u{3a9}", findings: 300, spacing: None },
];

fn prepare(case: &Case, study: &Path) {
    for file in files_below(study) {
        let mut object = dicom::object::open_file(&file).expect("our own phantom");
        if !case.charset.is_empty() {
            let terms = case.charset.iter().map(|term| term.to_string()).collect();
            object.put(DataElement::new(tags::SPECIFIC_CHARACTER_SET, VR::CS, PrimitiveValue::Strs(terms)));
        }
        object.put(DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from(case.patient)));
        if let Some(spacing) = case.spacing {
            object.put(DataElement::new(tags::PIXEL_SPACING, VR::DS, PrimitiveValue::from(spacing)));
            object.put(DataElement::new(tags::WINDOW_CENTER, VR::DS, PrimitiveValue::from("-200")));
            object.put(DataElement::new(tags::WINDOW_WIDTH, VR::DS, PrimitiveValue::from("1500")));
        }
        object.write_to_file(&file).expect("writable");
    }
}

#[test]
fn people_see_what_the_json_says() {
    let folder = folder_to_look_at("pages-");
    for (n, case) in CASES.iter().enumerate() {
        let (_, study) = small_study();
        prepare(case, study.path());
        let (mut findings, image) = findings(case.findings, &mut Chance::new(n as u8), study.path(), GeometryPolicy::Refuse);
        findings.findings[0].name = "first <b>of all</b> & \"others\"".into();
        let results = folder.path().join(case.name).join("results");
        let forms: Forms = [Form::Seg, Form::Json, Form::Html, Form::Sc, Form::Pdf].into_iter().collect();
        write_all(&findings, &image, &forms, &results).expect("results are written");
        let bytes = fs::metadata(results.join(HTML_FILE)).expect("there").len();
        assert!(bytes < 6 << 20, "{bytes} bytes of page");
        let beside = folder.path().join(case.name).join("study");
        fs::create_dir(&beside).expect("made");
        for file in files_below(study.path()) {
            fs::copy(&file, beside.join(file.file_name().expect("a file"))).expect("copied");
        }
    }
    let checked = python(&root().join("tests/python/check_pages.py"), &[folder.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

#[test]
fn a_researchers_volume_has_a_page_without_a_patient() {
    let (_, study) = small_study();
    let (mut findings, image) = findings(3, &mut Chance::new(7), study.path(), GeometryPolicy::Refuse);
    let file = SourceFile { format: Format::Nifti1, sha256: "cd".repeat(32) };
    findings.source = Source {
        instances: Vec::new(),
        content_sha256: Vec::new(),
        frames: Vec::new(),
        slice_of_frame: Vec::new(),
        file: Some(file),
        channels: Vec::new(),
    };
    let results = study.path().join("results");
    write_all(&findings, &image, &Forms::all(), &results).expect("results are written");
    let page = fs::read_to_string(results.join(HTML_FILE)).expect("there");
    assert!(page.contains("NIfTI-1 volume") && page.contains(&"cd".repeat(32)) && page.contains("labels.nii.gz"));
    assert!(!page.contains("Patient ID") && !page.contains("patient data"));
}
