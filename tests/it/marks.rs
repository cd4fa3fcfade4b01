//! Marks for viewers and planning systems, read by other people's programs: key objects, presentation states, structure sets.

use std::path::Path;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use roentgen::codes::{Code, uid_by_name};
use roentgen::dataset::{Item, tags, write_object};
use roentgen::findings::{Finding, Findings};
use roentgen::results::{Form, Forms, Written, write_all};
use roentgen::series::{GeometryPolicy, discover};
use roentgen::volume::Volume;
use serde_json::json;

use crate::support::{findings_json, made_up, python, root, source_of};

const COLUMNS: usize = 96;
const ROWS: usize = 80;
const SLICES: usize = 6;

/// What the images of a study are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Ct,
    /// One multi-frame instance.
    EnhancedCt,
    /// MONOCHROME1 without a Modality LUT or a window.
    Mr,
    /// A Modality LUT for each slice.
    ScaledMr,
    /// MONOCHROME1, one image that lies nowhere in the patient.
    Radiograph,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    orientation: [f64; 6],
    /// Between rows, between columns.
    spacing_mm: [f64; 2],
    /// By how much the last two slices lie further away.
    further_mm: f64,
}

const AXIAL: [f64; 6] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
const OBLIQUE: [f64; 6] = [0.8, 0.6, 0.0, -0.36, 0.48, 0.8];
const CT: Case = Case { name: "ct", kind: Kind::Ct, orientation: AXIAL, spacing_mm: [0.9765625, 0.9765625], further_mm: 0.0 };
const CASES: [Case; 6] = [
    CT,
    Case { name: "oblique", orientation: OBLIQUE, spacing_mm: [1.5, 0.7], ..CT },
    Case { name: "enhanced", kind: Kind::EnhancedCt, spacing_mm: [0.7, 1.1], ..CT },
    Case { name: "monochrome1", kind: Kind::Mr, spacing_mm: [0.8, 1.6], ..CT },
    Case { name: "scaled", kind: Kind::ScaledMr, orientation: OBLIQUE, ..CT },
    Case { name: "radiograph", kind: Kind::Radiograph, ..CT },
];

impl Case {
    fn uid(&self, what: &str) -> String {
        uid_by_name(&["test", "marks", self.name, what])
    }

    fn position(&self, k: usize) -> String {
        let [ax, ay, az, bx, by, bz] = self.orientation;
        let normal = [ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx];
        let along = 2.5 * k as f64 + if k + 2 < SLICES { 0.0 } else { self.further_mm };
        let at: [f64; 3] = std::array::from_fn(|n| [-31.5, 12.25, 140.0][n] + along * normal[n]);
        at.map(|mm| format!("{mm:.4}")).join("\\")
    }

    /// What all images of the study say.
    fn header(&self) -> Item {
        let (modality, class) = match self.kind {
            Kind::Ct => ("CT", "1.2.840.10008.5.1.4.1.1.2"),
            Kind::EnhancedCt => ("CT", "1.2.840.10008.5.1.4.1.1.2.1"),
            Kind::Mr | Kind::ScaledMr => ("MR", "1.2.840.10008.5.1.4.1.1.4"),
            Kind::Radiograph => ("DX", "1.2.840.10008.5.1.4.1.1.1.1"),
        };
        let photometric = if modality == "CT" { "MONOCHROME2" } else { "MONOCHROME1" };
        Item::new()
            .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY", "AXIAL"])
            .text(tags::SOP_CLASS_UID, class)
            .text(tags::STUDY_DATE, "20260101")
            .text(tags::STUDY_TIME, "120000")
            .empty(tags::ACCESSION_NUMBER)
            .text(tags::MODALITY, modality)
            .empty(tags::REFERRING_PHYSICIAN_NAME)
            .text(tags::PATIENT_NAME, "Made^By^Test")
            .text(tags::PATIENT_ID, "MARKS")
            .empty(tags::PATIENT_BIRTH_DATE)
            .text(tags::PATIENT_SEX, "O")
            .text(tags::BODY_PART_EXAMINED, "ABDOMEN")
            .text(tags::PATIENT_POSITION, "HFS")
            .text(tags::STUDY_INSTANCE_UID, &self.uid("study"))
            .text(tags::SERIES_INSTANCE_UID, &self.uid("series"))
            .text(tags::STUDY_ID, "1")
            .text(tags::SERIES_NUMBER, "2")
            .text(tags::FRAME_OF_REFERENCE_UID, &self.uid("frame of reference"))
            .empty(tags::POSITION_REFERENCE_INDICATOR)
            .integer(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, photometric)
            .integer(tags::ROWS, ROWS as u32)
            .integer(tags::COLUMNS, COLUMNS as u32)
            .integer(tags::BITS_ALLOCATED, 16)
            .integer(tags::BITS_STORED, 16)
            .integer(tags::HIGH_BIT, 15)
            .integer(tags::PIXEL_REPRESENTATION, 0)
    }

    fn orientation(&self) -> Item {
        Item::new().decimals_of(tags::IMAGE_ORIENTATION_PATIENT, &self.orientation.map(|v| v.to_string()))
    }

    fn measures(&self) -> Item {
        Item::new().decimals_of(tags::PIXEL_SPACING, &self.spacing_mm.map(|v| v.to_string())).decimal(tags::SLICE_THICKNESS, 2.5)
    }

    fn plane(&self, k: usize) -> Item {
        let position: Vec<String> = self.position(k).split('\\').map(str::to_owned).collect();
        Item::new().decimals_of(tags::IMAGE_POSITION_PATIENT, &position)
    }

    fn modality_lut(&self, k: usize) -> Item {
        let rescale = |slope, intercept| Item::new().decimal(tags::RESCALE_SLOPE, slope).decimal(tags::RESCALE_INTERCEPT, intercept);
        match self.kind {
            Kind::Ct | Kind::EnhancedCt => rescale(1.0, -1024.0).text(tags::RESCALE_TYPE, "HU"),
            Kind::Mr | Kind::Radiograph => Item::new(),
            Kind::ScaledMr => rescale(0.5 + 0.25 * k as f64, 3.0).text(tags::RESCALE_TYPE, "US"),
        }
    }

    /// Slices differ in theirs.
    fn window(&self, k: usize) -> Item {
        match self.kind {
            Kind::Ct => Item::new().texts(tags::WINDOW_CENTER, &["40", "-600"]).texts(tags::WINDOW_WIDTH, &["350", "1500"]),
            Kind::EnhancedCt => Item::new().decimal(tags::WINDOW_CENTER, 40.0 + k as f64).decimal(tags::WINDOW_WIDTH, 300.0),
            Kind::Mr | Kind::ScaledMr => Item::new(),
            Kind::Radiograph => Item::new().texts(tags::WINDOW_CENTER, &["1050"]).texts(tags::WINDOW_WIDTH, &["500.5"]),
        }
    }

    fn pixels(k: usize) -> impl Iterator<Item = u16> {
        (0..ROWS * COLUMNS).map(move |n| (900 + n % COLUMNS * 3 + n / COLUMNS * 2 + k * 7) as u16)
    }

    fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder");
        if self.kind == Kind::EnhancedCt {
            let sequence = |tag, item| Item::new().sequence(tag, [item]);
            let frame =
                |k| sequence(tags::PLANE_POSITION_SEQUENCE, self.plane(k)).with(sequence(tags::FRAME_VOILUT_SEQUENCE, self.window(k)));
            let shared = sequence(tags::PLANE_ORIENTATION_SEQUENCE, self.orientation())
                .with(sequence(tags::PIXEL_MEASURES_SEQUENCE, self.measures()))
                .with(sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, self.modality_lut(0)));
            let object = self
                .header()
                .text(tags::SOP_INSTANCE_UID, &self.uid("instance"))
                .integer(tags::INSTANCE_NUMBER, 1)
                .integer(tags::NUMBER_OF_FRAMES, SLICES as u32)
                .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, [shared])
                .sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, (0..SLICES).map(frame))
                .words(tags::PIXEL_DATA, (0..SLICES).flat_map(Self::pixels).collect());
            return write_object(&folder.join("all.dcm"), object).expect("writable");
        }
        if self.kind == Kind::Radiograph {
            let object = self
                .header()
                .text(tags::SOP_INSTANCE_UID, &self.uid("instance"))
                .decimals_of(tags::IMAGER_PIXEL_SPACING, &["0.14", "0.14"].map(str::to_owned))
                .with(self.window(0))
                .words(tags::PIXEL_DATA, Self::pixels(0).collect());
            return write_object(&folder.join("image.dcm"), object).expect("writable");
        }
        for k in 0..SLICES {
            let object = self
                .header()
                .text(tags::SOP_INSTANCE_UID, &self.uid(&format!("instance {k}")))
                .integer(tags::INSTANCE_NUMBER, (SLICES - k) as u32)
                .with(self.orientation().with(self.measures()).with(self.plane(k)).with(self.modality_lut(k)).with(self.window(k)))
                .words(tags::PIXEL_DATA, Self::pixels(k).collect());
            write_object(&folder.join(format!("{k}.dcm")), object).expect("writable");
        }
    }
}

/// 1 a sponge of many holes, whose contours are too long for Explicit VR; 2 a ring with an island in it, and pixels that touch at a corner
/// alone; 3 one voxel in the ring.
fn labels() -> Vec<u8> {
    let mut chance = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
    let mut labels = vec![0u8; COLUMNS * ROWS * SLICES];
    for (n, label) in labels.iter_mut().enumerate() {
        let (i, j, k) = (n % COLUMNS, n / COLUMNS % ROWS, n / (COLUMNS * ROWS));
        let ring = |from: usize, side: usize| (70 + from..70 + from + side).contains(&i) && (10 + from..10 + from + side).contains(&j);
        let in_ring = (ring(0, 20) && !ring(3, 14)) || ring(6, 6) || ((60..64).contains(&j) && i >= 88 && (i + j) % 2 == 0);
        let sponge = i < 60 && chance.next_u32() % 16 < 11;
        *label = match k {
            3 if (i, j) == (74, 14) => 3,
            1..5 if in_ring => 2,
            0 | 2..5 if sponge && j < 70 + k => 1,
            _ => 0,
        };
    }
    labels
}

/// Writes study, labels and results of a case below `folder`.
fn write(case: &Case, folder: &Path, policy: GeometryPolicy) -> Written {
    let study = folder.join("study");
    case.write(&study);
    let found = discover(std::slice::from_ref(&study));
    let stack = found.series[0].parts(policy)[0].gate().unwrap_or_else(|refusal| panic!("{}: {refusal}", case.name));
    let loaded = stack.load().expect("whole files");
    let mut voxels = labels();
    voxels.resize(stack.grid.voxel_count(), 0);
    let finding = |segment: u8, name: &str, category: [&'static str; 2], kind: [&'static str; 3], colour| Finding {
        name: name.into(),
        tracking_uid: case.uid(name),
        segment: Some(segment),
        place: None,
        colour,
        category: Code::new(category[0], "SCT", category[1]),
        finding_type: Code::new(kind[0], kind[1], kind[2]),
        site: None,
        laterality: (segment == 2).then(|| Code::new("24028007", "SCT", "Right")),
        present: voxels.contains(&segment),
        certainty_percent: (segment == 3).then_some(87.5),
        evaluations: Vec::new(),
        measurements: Vec::new(),
    };
    let organ = ["91723000", "Anatomical Structure"];
    let abnormal = ["49755003", "Morphologically Abnormal Structure"];
    let findings = vec![
        finding(1, "spleen", organ, ["78961009", "SCT", "Spleen"], [157, 108, 162]),
        finding(4, "absent", organ, ["10200004", "SCT", "Liver"], [10, 10, 10]),
        finding(2, "kidney", organ, ["64033007", "SCT", "Kidney"], [185, 102, 83]),
        finding(3, "plaque", abnormal, ["PLAQUE", "99ROENTGEN", "Plaque of some kind"], [255, 220, 0]),
    ];
    let (source, labels) = (source_of(&stack, &loaded), Volume::new(stack.grid, voxels));
    let frames: Vec<_> = source.frames.iter().map(|f| json!([f.instance.sop_instance_uid, f.number])).collect();
    std::fs::write(folder.join("frames.json"), json!({ "frames": frames, "dims": stack.grid.dims() }).to_string()).expect("writable");
    std::fs::write(folder.join("labels.raw"), labels.voxels()).expect("writable");
    let (warnings, maps, predecessors) = (Vec::new(), Vec::new(), Vec::new());
    let findings = Findings {
        source,
        labels,
        findings,
        provenance: made_up("marks"),
        warnings,
        maps,
        predecessors,
        priors: Default::default(),
        follow_up: None,
    };
    let forms: Forms = [Form::Ko, Form::Gsps, Form::Rtstruct, Form::Json].into_iter().collect();
    write_all(&findings, &loaded.image, &forms, &folder.join("results")).expect("results are written")
}

#[test]
fn other_programs_read_the_marks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for case in &CASES {
        write(case, &folder.path().join(case.name), GeometryPolicy::Refuse);
    }
    let checked = python(&root().join("tests/python/check_marks.py"), &[folder.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

/// Planning systems take the distance of two contours for the thickness of all; `findings.json` says it.
#[test]
fn unevenly_spaced_slices_have_no_structure_set() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = write(&Case { name: "uneven", further_mm: 0.9, ..CT }, folder.path(), GeometryPolicy::Resample);
    let forms: Vec<Form> = written.files.iter().map(|(form, _)| *form).collect();
    assert_eq!(forms, [Form::Gsps, Form::Ko, Form::Json]);
    let warnings = findings_json(&folder.path().join("results"))["warnings"].to_string();
    assert!(warnings.contains("no structure set: the slices are not evenly spaced"), "{warnings}");
}
