//! Results beside other people's text and in other people's archives: patients in every character set, and Orthanc.

use std::path::Path;

use dicom::core::{DataElement, PrimitiveValue, Tag, VR};
use dicom::object::open_file;
use roentgen::codes::{Code, dcm, ucum, uid_by_name};
use roentgen::dataset::{decoded_text, tags};
use roentgen::findings::{Finding, Findings, Measurement, ValueMap};
use roentgen::results::{Forms, write_all};
use roentgen::series::{GeometryPolicy, discover};
use roentgen::volume::{LabelMap, Volume};

use crate::support::{files_below, made_up, python, root, small_study, source_of};

/// Character set, the bytes of Patient's Name in it, the name.
const PATIENTS: [(&str, &str, &[u8], &str); 8] = [
    ("default", "", b"Tester^Anna", "Tester^Anna"),
    ("latin-1", "ISO_IR 100", b"Pr\xfcfling^J\xf6rg", "Prüfling^Jörg"),
    ("cyrillic", "ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1yp\xd3", "Люкceмбypг"),
    ("utf-8", "ISO_IR 192", "Wang^XiaoDong=王^小東".as_bytes(), "Wang^XiaoDong=王^小東"),
    ("japanese", "\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
    ("korean", "\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
    // Wrong in the source, and none of our business: it stays as it is.
    ("not what is declared", "ISO_IR 192", b"M\xfcller", "M\u{FFFD}ller"),
    ("not declared", "", b"M\xfcller", "Müller"),
];

/// A small study of that patient in `folder`; an odd one has neither accession number nor referring physician, and an empty birth date.
pub(crate) fn study_of(folder: &Path, n: usize) {
    let (name, charset, patient, _) = PATIENTS[n];
    let (_, study) = small_study();
    std::fs::create_dir_all(folder).expect("a folder");
    for file in files_below(study.path()) {
        let mut object = open_file(&file).expect("our own phantom");
        let mut put = |tag: Tag, vr, value: PrimitiveValue| object.put(DataElement::new(tag, vr, value));
        if !charset.is_empty() {
            put(tags::SPECIFIC_CHARACTER_SET, VR::CS, PrimitiveValue::Strs(charset.split('\\').map(str::to_owned).collect()));
        }
        let padding: &[u8] = if patient.len() % 2 == 1 { b" " } else { b"" };
        put(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from([patient, padding].concat()));
        put(tags::PATIENT_BIRTH_DATE, VR::DA, PrimitiveValue::Empty);
        for (tag, slot) in [(tags::STUDY_INSTANCE_UID, "study"), (tags::SERIES_INSTANCE_UID, "series")] {
            put(tag, VR::UI, PrimitiveValue::from(uid_by_name(&["test", "archive", name, slot])));
        }
        let instance = uid_by_name(&["test", "archive", name, &file.file_name().expect("a name").to_string_lossy()]);
        put(tags::SOP_INSTANCE_UID, VR::UI, PrimitiveValue::from(instance.clone()));
        if n % 2 == 1 {
            object.remove_element(tags::ACCESSION_NUMBER);
            object.remove_element(tags::REFERRING_PHYSICIAN_NAME);
        }
        object.update_meta(|meta| meta.media_storage_sop_instance_uid = instance);
        object.write_to_file(folder.join(file.file_name().expect("a name"))).expect("writable");
    }
}

/// Two findings with a region and one that is absent, in the study's series, in every form.
fn write_results(study: &Path, results: &Path) {
    let found = discover(&[study.to_owned()]);
    let stack = found.series[0].parts(GeometryPolicy::Refuse)[0].gate().expect("our own phantom");
    let loaded = stack.load().expect("whole files");
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let mut labels = vec![0u8; columns * rows * slices];
    for (n, label) in labels.iter_mut().enumerate() {
        let [i, j, k] = [n % columns, n / columns % rows, n / (columns * rows)];
        *label = match ((30..50).contains(&i), (20..40).contains(&j), k) {
            (true, true, 8..12) => 1,
            (true, true, 12..16) if i % 7 > 2 => 2,
            _ => 0,
        };
    }
    let labels: LabelMap = Volume::new(stack.grid, labels);
    let finding = |n: u8, name: &str, kind: Code| Finding {
        name: name.into(),
        tracking_uid: uid_by_name(&["test", "archive", name]),
        segment: Some(n),
        place: None,
        colour: [80 * n, 200, 40],
        category: Code::new("91723000", "SCT", "Anatomical Structure"),
        finding_type: kind,
        site: None,
        laterality: (n == 2).then(|| Code::new("7771000", "SCT", "Left")),
        present: n < 3,
        certainty_percent: Some(87.5),
        evaluations: Vec::new(),
        measurements: vec![Measurement {
            concept: Code::new("118565006", "SCT", "Volume"),
            derivation: None,
            method: None,
            value: Some(labels.voxels().iter().filter(|&&label| label == n).count() as f64 * 0.1536),
            unit: Code::new("ml", "UCUM", "ml"),
        }],
    };
    let findings = vec![
        finding(1, "liver", Code::new("10200004", "SCT", "Liver")),
        finding(2, "lung", Code::new("39607008", "SCT", "Lung")),
        finding(3, "heart", Code::new("80891009", "SCT", "Heart")),
    ];
    // Less than 1 from end to end: a window that not every VOI LUT function takes.
    let values = labels.voxels().iter().map(|&label| f32::from(label) * 0.4).collect();
    let maps =
        vec![ValueMap { name: "liver".into(), quantity: dcm::PROBABILITY, unit: ucum::ONE, values: Volume::new(stack.grid, values) }];
    let findings = Findings {
        source: source_of(&stack, &loaded),
        labels,
        findings,
        provenance: made_up("archive"),
        warnings: vec!["made up".into()],
        maps,
        predecessors: Vec::new(),
        follow_up: None,
        priors: Default::default(),
    };
    write_all(&findings, &loaded.image, &Forms::all(), results).expect("results are written");
}

#[test]
fn patients_keep_their_names_in_every_form() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut expected = serde_json::Map::new();
    for (n, (case, _, bytes, name)) in PATIENTS.into_iter().enumerate() {
        let case_folder = folder.path().join(case);
        study_of(&case_folder.join("study"), n);
        write_results(&case_folder.join("study"), &case_folder.join("results"));
        let sr = open_file(case_folder.join("results/sr.dcm")).expect("a report");
        // dicom-rs cannot show what it could not decode.
        if name.contains('\u{FFFD}') {
            assert!(!bytes.is_ascii());
        } else {
            assert_eq!(decoded_text(&sr, tags::PATIENT_NAME), name, "{case}");
        }
        expected.insert(case.into(), name.into());
    }
    std::fs::write(folder.path().join("names.json"), serde_json::to_vec(&expected).expect("JSON")).expect("writable");
    let checked = python(&root().join("tests/python/check_patients.py"), &[folder.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

#[test]
fn orthanc_takes_every_object_and_gives_it_back_unchanged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (study, results) = (folder.path().join("study"), folder.path().join("results"));
    study_of(&study, 1);
    write_results(&study, &results);
    let checked = python(&root().join("tests/python/check_orthanc.py"), &[&study, &results]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}
