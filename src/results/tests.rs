//! Results of a small oblique CT, written, read again and compared.
//!
//! `ROENTGEN_KEEP_TEST_OUTPUT=DIR cargo test --release results` keeps source and results below DIR, one folder a case, so that
//! other people's tools can judge them: `tools/check_result.py --strict --source DIR/CASE/ct DIR/CASE/results/*.dcm`.

use std::path::{Path, PathBuf};

use dicom::core::{DataElement, PrimitiveValue, VR};
use dicom::object::{FileDicomObject, InMemDicomObject, open_file};

use super::*;
use crate::codes::{Code, dcm, sct, ucum, uid_by_name};
use std::sync::Arc;

use crate::dataset::Frame;
use crate::dataset::{Instance, Item, decimal_string, items, tags, write_object};
use crate::findings::{Finding, Findings, Measurement, PackageId, Parameter, Priors, Provenance, Source, ValueMap};
use crate::geometry::{Affine, Grid, cross};
use crate::volume::{ImageVolume, Quantity, Rescale, Volume};

/// What a case varies.
#[derive(Debug, Clone)]
pub(super) struct Phantom {
    pub(super) name: &'static str,
    pub(super) dims: [u32; 3],
    /// Labels that get voxels: 1 body, 2 liver, 3 nodule, 4 spine.
    pub(super) present: &'static [u8],
    pub(super) charset: &'static [&'static str],
    pub(super) patient: &'static str,
    /// Rows run to the feet and columns backwards: a coronal series.
    pub(super) coronal: bool,
}

impl Phantom {
    pub(super) const OBLIQUE: Self = Self {
        name: "oblique",
        dims: [80, 64, 24],
        present: &[1, 2, 4],
        charset: &["ISO_IR 100"],
        patient: "Pr\u{fc}fling^J\u{f6}rg",
        coronal: false,
    };
}

/// Directions of increasing column, row and slice.
fn directions(phantom: &Phantom) -> [[f64; 3]; 3] {
    let (sin, cos) = 5f64.to_radians().sin_cos();
    let (row, column) = if phantom.coronal {
        ([cos, sin, 0.0], [0.0, 0.0, -1.0])
    } else {
        let (tilt_sin, tilt_cos) = 8f64.to_radians().sin_cos();
        ([cos, sin, 0.0], [-sin * tilt_cos, cos * tilt_cos, tilt_sin])
    };
    [row, column, cross(row, column)]
}

const SPACING_MM: [f64; 3] = [2.0, 2.5, 4.0];

pub(super) fn grid(phantom: &Phantom) -> Grid {
    let [x, y, z] = directions(phantom);
    let scaled = |v: [f64; 3], mm: f64| v.map(|c| c * mm);
    let half = phantom.dims.map(|d| (f64::from(d) - 1.0) / 2.0);
    let axes = [scaled(x, SPACING_MM[0]), scaled(y, SPACING_MM[1]), scaled(z, SPACING_MM[2])];
    let start = std::array::from_fn(|r| -10.0 - (0..3).map(|n| axes[n][r] * half[n]).sum::<f64>());
    Grid::new(phantom.dims, Affine::from_columns(axes[0], axes[1], axes[2], start)).expect("axes span space")
}

/// Label and CT number at a point of the patient, mm from the centre of the grid: a body with the liver on the right, the spine at the back,
/// an air-filled stomach on the left in front and a nodule high up on the left.
fn anatomy(p: [f64; 3]) -> (u8, i16) {
    let inside = |centre: [f64; 3], radius: [f64; 3]| (0..3).map(|n| ((p[n] - centre[n]) / radius[n]).powi(2)).sum::<f64>() < 1.0;
    if inside([30., -20., 30.], [6., 6., 8.]) {
        (3, 80)
    } else if inside([0., 45., 0.], [9., 10., 500.]) {
        (4, 400)
    } else if inside([-32., -5., 0.], [26., 30., 26.]) {
        (2, 60)
    } else if inside([25., -28., -10.], [16., 12., 18.]) {
        (0, -1000)
    } else if inside([0., 0., 0.], [70., 64., 500.]) {
        (1, 20)
    } else {
        (0, -1000)
    }
}

pub(super) fn image_and_labels(phantom: &Phantom) -> (ImageVolume, Volume<u8>) {
    let grid = grid(phantom);
    let [columns, rows, slices] = phantom.dims;
    let mut stored = Vec::new();
    let mut labels = Vec::new();
    for k in 0..slices {
        for j in 0..rows {
            for i in 0..columns {
                let p = grid.lps_from_voxel().apply([i, j, k].map(f64::from)).map(|c| c + 10.0);
                let (label, hu) = anatomy(p);
                labels.push(if phantom.present.contains(&label) { label } else { 0 });
                stored.push(hu + 1024 + ((i * 7 + j * 13 + k * 5) % 11) as i16 - 5);
            }
        }
    }
    let rescale = vec![Rescale { slope: 1.0, intercept: -1024.0 }; slices as usize];
    let image = ImageVolume { stored: Volume::new(grid, stored).into(), rescale, quantity: Quantity::Hounsfield };
    (image, Volume::new(grid, labels))
}

fn ds(values: &[f64]) -> PrimitiveValue {
    PrimitiveValue::Strs(values.iter().map(|&v| decimal_string(v)).collect())
}

fn header(phantom: &Phantom, k: u32) -> InMemDicomObject {
    let grid = grid(phantom);
    let [row, column, _] = directions(phantom);
    let uid = |what: &str| uid_by_name(&["test", phantom.name, what]);
    let mut header = Item::new()
        .texts(tags::SPECIFIC_CHARACTER_SET, phantom.charset)
        .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY", "AXIAL"])
        .text(tags::SOP_CLASS_UID, sop_class::CT_IMAGE)
        .text(tags::SOP_INSTANCE_UID, &uid(&format!("instance {k}")))
        .text(tags::STUDY_DATE, "20240305")
        .text(tags::STUDY_TIME, "091500")
        .text(tags::SERIES_DATE, "20240305")
        .text(tags::CONTENT_DATE, "20240305")
        .text(tags::CONTENT_TIME, "091900")
        .empty(tags::ACCESSION_NUMBER)
        .text(tags::MODALITY, "CT")
        .text(tags::MANUFACTURER, "Synthetic")
        .text(tags::STUDY_DESCRIPTION, "CT Abdomen")
        .text(tags::PATIENT_ID, "PHANTOM-042")
        .text(tags::ISSUER_OF_PATIENT_ID, "EXAMPLE")
        .text(tags::PATIENT_BIRTH_DATE, "19600229")
        .text(tags::PATIENT_SEX, "F")
        .text(tags::BODY_PART_EXAMINED, "ABDOMEN")
        .text(tags::SLICE_THICKNESS, "5.0")
        .text(tags::KVP, "120")
        .text(tags::PATIENT_POSITION, "HFS")
        .text(tags::STUDY_INSTANCE_UID, &uid("study"))
        .text(tags::SERIES_INSTANCE_UID, &uid("series"))
        .text(tags::STUDY_ID, "S42")
        .text(tags::SERIES_NUMBER, "3")
        .text(tags::ACQUISITION_NUMBER, "1")
        .integer(tags::INSTANCE_NUMBER, phantom.dims[2] - k)
        .text(tags::FRAME_OF_REFERENCE_UID, &uid("frame of reference"))
        .empty(tags::POSITION_REFERENCE_INDICATOR)
        .integer(tags::SAMPLES_PER_PIXEL, 1)
        .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
        .integer(tags::ROWS, phantom.dims[1])
        .integer(tags::COLUMNS, phantom.dims[0])
        .integer(tags::BITS_ALLOCATED, 16)
        .integer(tags::BITS_STORED, 16)
        .integer(tags::HIGH_BIT, 15)
        .integer(tags::PIXEL_REPRESENTATION, 1)
        .text(tags::RESCALE_INTERCEPT, "-1024")
        .text(tags::RESCALE_SLOPE, "1")
        .text(tags::RESCALE_TYPE, "HU")
        .into_inner();
    let position = grid.lps_from_voxel().apply([0.0, 0.0, f64::from(k)]);
    let mut put = |tag, vr, value| header.put(DataElement::new(tag, vr, value));
    put(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from(phantom.patient));
    put(tags::REFERRING_PHYSICIAN_NAME, VR::PN, PrimitiveValue::from(phantom.patient));
    put(tags::IMAGE_POSITION_PATIENT, VR::DS, ds(&position));
    put(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, ds(&[row, column].concat()));
    put(tags::PIXEL_SPACING, VR::DS, PrimitiveValue::Strs(["2.50", "2.00"].map(String::from).into_iter().collect()));
    header
}

fn instance(phantom: &Phantom, k: u32) -> Instance {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(format!("{k:02}.dcm"));
    write_object(&path, Item::from(header(phantom, k))).expect("writable");
    Instance::read(&path).expect("readable")
}

pub(super) fn findings(phantom: &Phantom) -> (Findings, ImageVolume) {
    let (image, labels) = image_and_labels(phantom);
    let one = |label: u8, name: &str, category: Code, finding_type: Code, colour, side: Option<Code>| {
        let hu: Vec<f64> = labels
            .voxels()
            .iter()
            .zip(image.stored.as_int16().expect("integers").voxels())
            .filter(|(l, _)| **l == label)
            .map(|(_, &stored)| f64::from(stored) - 1024.0)
            .collect();
        let count = hu.len() as f64;
        let mean = (count > 0.0).then(|| hu.iter().sum::<f64>() / count);
        let sd = mean.map(|mean| (hu.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt());
        let number = |concept: Code, derivation, value, unit: Code| Measurement { concept, derivation, method: None, value, unit };
        let hounsfield = |derivation, value| number(dcm::ATTENUATION_COEFFICIENT, Some(derivation), value, ucum::HOUNSFIELD);
        Finding {
            name: name.into(),
            tracking_uid: uid_by_name(&["test", phantom.name, "tracking", name]),
            segment: Some(label),
            place: None,
            colour,
            category,
            finding_type,
            site: None,
            laterality: side,
            present: count > 0.0,
            certainty_percent: None,
            evaluations: Vec::new(),
            measurements: vec![
                number(sct::VOLUME, None, Some(count * grid(phantom).voxel_volume_mm3() / 1000.0), ucum::MILLILITRE),
                hounsfield(sct::MEAN, mean),
                hounsfield(sct::STANDARD_DEVIATION, sd),
            ],
        }
    };
    let structure = || Code::new("91723000", "SCT", "Anatomical Structure");
    let abnormal = Code::new("49755003", "SCT", "Morphologically Abnormal Structure");
    let tissue = Code::new("85756007", "SCT", "Tissue");
    let soft = Code::new("SOFT", "99ROENTGEN", "Soft tissue");
    let lung = Code::new("39607008", "SCT", "Lung");
    let mut nodule = one(3, "nodule", abnormal, Code::new("27925004", "SCT", "Nodule"), [250, 220, 40], None);
    nodule.site = Some(lung);
    nodule.laterality = Some(Code::new("7771000", "SCT", "Left"));
    let instances: Vec<_> = (0..phantom.dims[2]).map(|k| Arc::new(instance(phantom, k))).collect();
    let all = vec![
        one(1, "soft tissue", tissue, soft, [230, 120, 90], None),
        one(2, "liver", structure(), Code::new("10200004", "SCT", "Liver"), [150, 70, 200], None),
        nodule,
        one(4, "spine", structure(), Code::new("421060004", "SCT", "Spine"), [90, 200, 250], None),
    ];
    let package = PackageId {
        name: "ct-tissue".into(),
        version: "1.0.0".into(),
        sha256: "0123456789abcdef".repeat(4),
        manufacturer: "roentgen".into(),
        intended_use: "Engineering reference for testing the engine on CT, not for diagnosis.".into(),
        licence: "MIT OR Apache-2.0".into(),
        regulatory_status: "none".into(),
        card: None,
    };
    let provenance = Provenance {
        roentgen_version: env!("CARGO_PKG_VERSION").into(),
        package,
        device: "CPU".into(),
        provider: "CPUExecutionProvider".into(),
        onnxruntime_version: "1.24.0".into(),
        parameters: vec![Parameter { name: "preprocess.1.resample".into(), value: "spacing_mm=1.5,1.5,1.5".into() }],
        geometry: vec!["24 slices, 4.00 mm apart".into()],
        started: "2026-03-04T05:06:07+01:00[Europe/Berlin]".parse().expect("a time"),
    };
    let frames: Vec<Frame> = instances.iter().flat_map(|i| Frame::all_of(i).expect("single frames")).collect();
    let slice_of_frame = (0..frames.len() as u32).collect();
    let source = Source {
        content_sha256: instances.iter().map(|_| "ab".repeat(32)).collect(),
        instances,
        frames,
        slice_of_frame,
        file: None,
        channels: Vec::new(),
    };
    let findings = Findings {
        source,
        labels,
        findings: all,
        provenance,
        warnings: vec!["made by a test".into()],
        maps: maps(grid(phantom)),
        predecessors: Vec::new(),
        follow_up: None,
        priors: Priors::default(),
    };
    (findings, image)
}

/// Two maps, of values of both signs and of a quantity of our own.
fn maps(grid: Grid) -> Vec<ValueMap> {
    let map = |name: &str, quantity, unit, value: fn(usize) -> f32| {
        let values = Volume::new(grid, (0..grid.voxel_count()).map(value).collect());
        ValueMap { name: name.into(), quantity, unit, values }
    };
    let distance = Code::new("DISTANCE", "99ROENTGEN", "Distance to the wall");
    vec![
        map("liver probability", dcm::PROBABILITY, ucum::ONE, |n| (n * 7 % 1000) as f32 / 999.0),
        map("distance to the wall", distance, ucum::MILLIMETRE, |n| (n as f32).sin() * 1e3),
    ]
}

/// The folder of a case: kept where ROENTGEN_KEEP_TEST_OUTPUT says, else removed with the guard.
fn case_folder(phantom: &Phantom) -> (PathBuf, Option<tempfile::TempDir>) {
    match std::env::var_os("ROENTGEN_KEEP_TEST_OUTPUT") {
        Some(kept) => {
            let folder = Path::new(&kept).join(phantom.name);
            std::fs::create_dir_all(&folder).expect("folder for kept output");
            (folder, None)
        }
        None => {
            let folder = tempfile::tempdir().expect("temporary folder");
            (folder.path().to_owned(), Some(folder))
        }
    }
}

fn write_source(phantom: &Phantom, image: &ImageVolume, folder: &Path) {
    std::fs::create_dir_all(folder).expect("source folder");
    for k in 0..phantom.dims[2] {
        let words = image.stored.as_int16().expect("integers").slice(k as usize).iter().map(|&v| v as u16).collect();
        let object = Item::from(header(phantom, k)).words(tags::PIXEL_DATA, words);
        write_object(&folder.join(format!("{k:02}.dcm")), object).expect("source is written");
    }
}

type Object = FileDicomObject<InMemDicomObject>;

fn text(object: &InMemDicomObject, tag: dicom::core::Tag) -> String {
    object.get(tag).unwrap_or_else(|| panic!("{tag} is absent")).value().to_str().expect("text").into_owned()
}

/// Writes the case and reads its reports and SEG.
fn written(phantom: &Phantom) -> (Findings, Written, Vec<Object>, Option<Object>, Option<tempfile::TempDir>) {
    let (findings, image) = findings(phantom);
    let (folder, guard) = case_folder(phantom);
    write_source(phantom, &image, &folder.join("ct"));
    let written = write_all(&findings, &image, &Forms::all(), &folder.join("results")).expect("results are written");
    let reports = written.files.iter().filter(|(form, _)| *form == Form::Sr);
    let reports = reports.map(|(_, path)| open_file(path).expect("SR reads")).collect();
    let seg = written.first(Form::Seg).map(|path| open_file(path).expect("SEG reads"));
    (findings, written, reports, seg, guard)
}

/// Each bit of each frame is the label of the voxel at the frame's place.
fn check_frames(findings: &Findings, seg: &Object) {
    let grid = findings.labels.grid();
    let plane = grid.slice_voxels();
    let bits = seg.get(tags::PIXEL_DATA).expect("pixel data").value().to_bytes().expect("bytes");
    assert_eq!(bits.len() % 2, 0);
    let frames = items(seg, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    assert_eq!(text(seg, tags::NUMBER_OF_FRAMES), frames.len().to_string());
    let described = items(seg, tags::SEGMENT_SEQUENCE);
    let mut voxels = 0;
    for (f, frame) in frames.iter().enumerate() {
        let identification = &items(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)[0];
        let number: usize = text(identification, tags::REFERENCED_SEGMENT_NUMBER).parse().expect("a number");
        let tracking = text(&described[number - 1], tags::TRACKING_UID);
        let finding = findings.findings.iter().find(|finding| finding.tracking_uid == tracking).expect("a finding");
        let position = text(&items(frame, tags::PLANE_POSITION_SEQUENCE)[0], tags::IMAGE_POSITION_PATIENT);
        let source = &items(&items(frame, tags::DERIVATION_IMAGE_SEQUENCE)[0], tags::SOURCE_IMAGE_SEQUENCE)[0];
        let named = text(source, tags::REFERENCED_SOP_INSTANCE_UID);
        let k = findings.source.instances.iter().position(|i| i.sop_instance_uid == named).expect("a source instance");
        assert_eq!(
            position,
            text(findings.source.instances[k].header().expect("parsed"), tags::IMAGE_POSITION_PATIENT),
            "strings are copied"
        );
        let slice = findings.labels.slice(k);
        for (n, &label) in slice.iter().enumerate() {
            let bit = f * plane + n;
            let set = bits[bit / 8] >> (bit % 8) & 1 == 1;
            assert_eq!(set, Some(label) == finding.segment, "frame {f}, voxel {n}");
            voxels += usize::from(set);
        }
        assert!(slice.iter().any(|&label| Some(label) == finding.segment), "frame {f} is empty");
    }
    assert_eq!(voxels, findings.labels.voxels().iter().filter(|&&label| label != 0).count(), "no voxel is left out");
}

/// Groups of the report: template, tracking UID, referenced segment, numbers.
fn groups(sr: &Object) -> Vec<(String, String, Option<usize>, Vec<f64>)> {
    let root = items(sr, tags::CONTENT_SEQUENCE);
    let measurements = root.last().expect("imaging measurements");
    let read = |group: &InMemDicomObject| {
        let children = items(group, tags::CONTENT_SEQUENCE);
        let of_type = |value_type: &str| children.iter().filter(|c| text(c, tags::VALUE_TYPE) == value_type).collect::<Vec<_>>();
        let segment = of_type("IMAGE")
            .first()
            .map(|c| text(&items(c, tags::REFERENCED_SOP_SEQUENCE)[0], tags::REFERENCED_SEGMENT_NUMBER).parse().expect("a number"));
        let numbers = of_type("NUM")
            .iter()
            .flat_map(|c| items(c, tags::MEASURED_VALUE_SEQUENCE))
            .map(|m| m.get(tags::FLOATING_POINT_VALUE).expect("exact").value().to_float64().expect("a number"))
            .collect();
        let template = text(&items(group, tags::CONTENT_TEMPLATE_SEQUENCE)[0], tags::TEMPLATE_IDENTIFIER);
        (template, text(of_type("UIDREF")[0], tags::UID), segment, numbers)
    };
    items(measurements, tags::CONTENT_SEQUENCE).iter().map(read).collect()
}

fn check(phantom: Phantom) {
    let (findings, written, reports, seg, _guard) = written(&phantom);
    for object in reports.iter().chain(seg.as_ref()) {
        assert_eq!(text(object, tags::PATIENT_NAME), phantom.patient);
        assert_eq!(text(object, tags::ACCESSION_NUMBER), "");
        assert_eq!(text(object, tags::STUDY_INSTANCE_UID), findings.source.instances[0].study_uid);
        assert_eq!(text(object, tags::CONTENT_DATE), "20260304");
        assert_eq!(text(object, tags::CONTENT_TIME), "050607");
        assert_eq!(text(object, tags::SOP_INSTANCE_UID), object.meta().media_storage_sop_instance_uid.trim_end_matches('\0'));
    }
    if let Some(seg) = &seg {
        check_frames(&findings, seg);
        assert_eq!(
            text(&items(&items(seg, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)[0], tags::PIXEL_MEASURES_SEQUENCE)[0], tags::PIXEL_SPACING),
            "2.50\\2.00"
        );
    }
    let groups: Vec<_> = reports.iter().map(groups).collect();
    for of_one_report in &groups {
        assert!(of_one_report.iter().all(|g| g.0 == of_one_report[0].0), "one kind of group a report");
    }
    let groups: Vec<_> = groups.into_iter().flatten().collect();
    assert_eq!(groups.len(), findings.findings.len());
    for finding in &findings.findings {
        let (template, tracking, segment, numbers) =
            groups.iter().find(|g| g.1 == finding.tracking_uid).expect("each finding has a group").clone();
        assert_eq!(template, if finding.present { "1411" } else { "1501" });
        assert_eq!(segment.is_some(), finding.present);
        let expected: Vec<f64> = finding.measurements.iter().filter(|_| finding.present).filter_map(|m| m.value).collect();
        assert_eq!(numbers, expected);
        if let (Some(number), Some(seg)) = (segment, &seg) {
            assert_eq!(text(&items(seg, tags::SEGMENT_SEQUENCE)[number - 1], tags::TRACKING_UID), tracking);
        }
    }
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(written.first(Form::Json).expect("asked for")).expect("JSON")).expect("is JSON");
    assert_eq!(json["findings"].as_array().map(Vec::len), Some(findings.findings.len()));
    let everything = std::fs::read_to_string(written.first(Form::Json).expect("asked for")).expect("text");
    assert!(!everything.contains("PHANTOM-042") && !everything.contains("fling"), "no patient in the JSON");
    let again = tempfile::tempdir().expect("temporary folder");
    let (_, image) = super::tests::findings(&phantom);
    let twin = write_all(&findings, &image, &Forms::all(), &again.path().join("results")).expect("results are written");
    assert_eq!(written.files.len(), twin.files.len());
    for ((_, a), (_, b)) in written.files.iter().zip(&twin.files) {
        assert!(std::fs::read(a).expect("there") == std::fs::read(b).expect("there"), "the same findings give the same bytes");
    }
}

#[test]
fn a_finding_that_is_absent_leaves_no_gap() {
    check(Phantom::OBLIQUE);
}

#[test]
fn frames_may_begin_within_a_byte() {
    check(Phantom {
        name: "odd",
        dims: [79, 63, 11],
        present: &[1, 2, 3, 4],
        charset: &["ISO_IR 192"],
        patient: "\u{5c71}\u{7530}",
        ..Phantom::OBLIQUE
    });
}

#[test]
fn nothing_found_is_a_report() {
    check(Phantom { name: "nothing", present: &[], ..Phantom::OBLIQUE });
}

/// DCMTK 3.6.7 does not know this character set, so check_result.py says so; the bytes are the source's.
#[test]
fn escape_sequences_in_names_survive() {
    let japanese = "Yamada^Tarou=\u{1b}$B;3ED\u{1b}(B^\u{1b}$BB@O:\u{1b}(B";
    check(Phantom { name: "japanese", charset: &["", "ISO 2022 IR 87"], patient: japanese, ..Phantom::OBLIQUE });
}

#[test]
fn coronal_series() {
    check(Phantom { name: "coronal", dims: [80, 40, 40], present: &[1, 2, 3, 4], coronal: true, ..Phantom::OBLIQUE });
}

#[test]
fn contradictions_are_refused() {
    let (mut findings, image) = findings(&Phantom::OBLIQUE);
    let folder = tempfile::tempdir().expect("temporary folder");
    let refused = |findings: &Findings, label| match write_all(findings, &image, &Forms::default(), &folder.path().join("out")) {
        Err(ResultsError::Contradiction { label: found, .. }) => assert_eq!(found, label),
        other => panic!("{other:?}"),
    };
    findings.findings[2].present = true;
    refused(&findings, 3);
    findings.findings[2].present = false;
    findings.findings[1].present = false;
    refused(&findings, 2);
    findings.findings.remove(1);
    refused(&findings, 2);
    assert!(!folder.path().join("out").exists(), "nothing is left behind");
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0, "nothing is left behind");
}

#[test]
fn maps_that_are_no_numbers_are_refused() {
    let (mut findings, image) = findings(&Phantom::OBLIQUE);
    let folder = tempfile::tempdir().expect("temporary folder");
    let forms: Forms = [Form::Map].into_iter().collect();
    let refused = |findings: &Findings| {
        let written = write_all(findings, &image, &forms, &folder.path().join("out"));
        assert!(matches!(&written, Err(ResultsError::Map { name, .. }) if name == "distance to the wall"), "{written:?}");
    };
    let grid = *findings.labels.grid();
    let mut values = findings.maps[1].values.voxels().to_vec();
    values[77] = f32::NAN;
    findings.maps[1].values = Volume::new(grid, values);
    refused(&findings);
    let shifted = Affine::from_columns([2.0, 0.0, 0.0], [0.0, 2.5, 0.0], [0.0, 0.0, 4.0], [0.0; 3]);
    let elsewhere = Grid::new(grid.dims(), shifted).expect("a grid");
    findings.maps[1].values = Volume::new(elsewhere, vec![0.0; grid.voxel_count()]);
    refused(&findings);
}

/// Other content never has the same UID, whatever is written beside it.
#[test]
fn what_is_written_beside_an_object_changes_it_only_under_another_uid() {
    use sha2::{Digest, Sha256};

    let (findings, image) = findings(&Phantom::OBLIQUE);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sets =
        ["sr", "sr,seg", "sr,labelmap", "sr,seg,labelmap,pdf", "pdf", "pdf,json,png", "seg,ko", "gsps", "gsps,seg", "sr-outlines,json"];
    let mut seen: Vec<(String, String)> = Vec::new();
    for forms in sets {
        let written = write_all(&findings, &image, &forms.parse().expect("forms"), &folder.path().join(forms)).expect("written");
        for (_, path) in written.files.iter().filter(|(_, path)| path.extension().is_some_and(|e| e == "dcm")) {
            let object = open_file(path).expect("DICOM");
            let uid = object.meta().media_storage_sop_instance_uid().trim_end_matches('\0').to_owned();
            let content = crate::codes::hex(&Sha256::digest(std::fs::read(path).expect("readable")));
            if let Some((_, other)) = seen.iter().find(|(known, _)| *known == uid) {
                assert_eq!(*other, content, "{} of {forms}", path.display());
            }
            seen.push((uid, content));
        }
    }
}

#[test]
fn other_peoples_files_are_not_replaced() {
    let (findings, image) = findings(&Phantom::OBLIQUE);
    let folder = tempfile::tempdir().expect("temporary folder");
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("made");
    write_all(&findings, &image, &Forms::default(), &out).expect("an empty folder is replaced");
    write_all(&findings, &image, &Forms::default(), &out).expect("earlier results are replaced");
    let count = || std::fs::read_dir(&out).expect("readable").count();
    let results = count();
    std::fs::write(out.join("notes.txt"), "mine").expect("written");
    let refused = write_all(&findings, &image, &Forms::default(), &out);
    assert!(matches!(&refused, Err(ResultsError::Occupied { found }) if found == "notes.txt"), "{refused:?}");
    assert_eq!(count(), results + 1, "all is as it was");
}

/// The liver is on the patient's right, which is the picture's left; the spine at the bottom of axial, on the right of sagittal; the
/// nodule in the upper half of coronal. The same for both ways the grid runs through the patient.
#[test]
fn the_picture_is_in_radiological_convention() {
    for phantom in [Phantom::OBLIQUE, Phantom { dims: [80, 40, 40], coronal: true, ..Phantom::OBLIQUE }] {
        let (findings, image) = findings(&Phantom { present: &[1, 2, 3, 4], ..phantom });
        let picture = picture(&image, &findings, Window::of(&image));
        // Mean place of the pixels that are nearest in hue to a finding's border colour, in panel n of the lower row, from -1 to 1.
        let place = |n: u32, finding: usize| {
            let colour = findings.findings[finding].colour;
            let (left, top) = (12 + n * 432, 36 + 456 + 24);
            let found: Vec<(f64, f64)> = (0..420 * 420)
                .map(|p| (p % 420, p / 420))
                .filter(|&(x, y)| picture.get_pixel(left + x, top + y).0 == colour)
                .map(|(x, y)| (f64::from(x) / 210.0 - 1.0, f64::from(y) / 210.0 - 1.0))
                .collect();
            assert!(!found.is_empty(), "finding {finding} is not in panel {n}");
            let count = found.len() as f64;
            (found.iter().map(|p| p.0).sum::<f64>() / count, found.iter().map(|p| p.1).sum::<f64>() / count)
        };
        assert!(place(1, 1).0 < -0.2, "liver on the left of coronal");
        assert!(place(1, 2).0 > 0.2 && place(1, 2).1 < -0.1, "nodule high on the right of coronal");
        assert!(place(0, 3).1 > 0.3, "spine at the bottom of axial");
        assert!(place(2, 2).0 < -0.1 && place(2, 2).1 < -0.1, "nodule in front and high in sagittal");
    }
}
