//! Reports on random findings, read by highdicom and held against findings.json.

use std::path::Path;

use dicom::core::{DataElement, PrimitiveValue, VR};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use roentgen::codes::{Code, uid_by_name};
use roentgen::dataset::tags;
use roentgen::findings::{Evaluation, Finding, Findings, Measurement, Predecessor};
use roentgen::results::{Form, Forms, write_all};
use roentgen::series::{GeometryPolicy, discover};
use roentgen::volume::{ImageVolume, LabelMap, Volume};

use crate::support::{files_below, made_up, python, root, small_study, source_of};

const CATEGORIES: [[&str; 3]; 3] =
    [["91723000", "SCT", "Anatomical Structure"], ["49755003", "SCT", "Morphologically Abnormal Structure"], ["85756007", "SCT", "Tissue"]];
const TYPES: [[&str; 3]; 5] = [
    ["27925004", "SCT", "Nodule"],
    ["39607008", "SCT", "Lung"],
    ["10200004", "SCT", "Liver"],
    ["PLAQUE", "99ROENTGEN", "Plaque of some kind"],
    ["60046008", "SCT", "Pleural effusion"],
];
const SIDES: [[&str; 3]; 3] = [["24028007", "SCT", "Right"], ["7771000", "SCT", "Left"], ["51440002", "SCT", "Bilateral"]];
/// Concept, derivation, unit.
const NUMBERS: [[&str; 9]; 6] = [
    ["118565006", "SCT", "Volume", "", "", "", "ml", "UCUM", "ml"],
    ["103339001", "SCT", "Long axis", "", "", "", "mm", "UCUM", "mm"],
    ["112031", "DCM", "Attenuation Coefficient", "373098007", "SCT", "Mean", "[hnsf'U]", "UCUM", "Hounsfield unit"],
    ["112031", "DCM", "Attenuation Coefficient", "386136009", "SCT", "Standard Deviation", "[hnsf'U]", "UCUM", "Hounsfield unit"],
    ["LAA", "99ROENTGEN", "Low attenuation volume fraction", "", "", "", "%", "UCUM", "Percent"],
    ["450360000", "SCT", "Coronary artery calcium score", "", "", "", "1", "UCUM", "no units"],
];

fn code([value, scheme, meaning]: [&'static str; 3]) -> Code {
    Code::new(value, scheme, meaning)
}

/// A source of choices that repeats.
pub(crate) struct Chance(TestRng);

impl Chance {
    pub(crate) fn new(seed: u8) -> Self {
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.next_u64() as usize % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Of any sign and size, whole numbers and halves too.
    fn number(&mut self) -> f64 {
        let sign = if self.below(4) == 0 { -1.0 } else { 1.0 };
        let mantissa = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        match self.below(6) {
            0 => 0.0,
            1 => sign * self.below(1000) as f64,
            2 => sign * (self.below(1000) as f64 + 0.5),
            _ => sign * mantissa * 10f64.powi(self.below(16) as i32 - 6),
        }
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(3) > 0).then(|| value(self))
    }
}

fn measurement(chance: &mut Chance) -> Measurement {
    let [value, scheme, meaning, a, b, c, unit, unit_scheme, unit_meaning] = chance.one_of(&NUMBERS);
    Measurement {
        concept: Code::new(value, scheme, meaning),
        derivation: (!a.is_empty()).then(|| Code::new(a, b, c)),
        method: (value == "118565006").then(|| Code::new("126030", "DCM", "Sum of segmented voxel method for volume")),
        value: (chance.below(12) > 0).then(|| chance.number()),
        unit: Code::new(unit, unit_scheme, unit_meaning),
    }
}

/// `count` findings in the study's series, of which the first ones have a region: a row of voxels each.
pub(crate) fn findings(count: usize, chance: &mut Chance, study: &Path, policy: GeometryPolicy) -> (Findings, ImageVolume) {
    let found = discover(&[study.to_owned()]);
    let stack = found.series[0].parts(policy)[0].gate().expect("our own phantom");
    let loaded = stack.load().expect("whole files");
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let mut labels = vec![0u8; columns * rows * slices];
    let all = (0..count)
        .map(|n| {
            let site = chance.maybe(|c| code(c.one_of(&TYPES[1..3])));
            let with_region = n < 250 && chance.below(5) > 0;
            let present = chance.below(4) > 0;
            let segment = with_region.then(|| n as u8 + 1);
            if let (Some(label), true) = (segment, present) {
                let (slice, row) = (n % slices, n / slices);
                let row = &mut labels[(slice * rows + row) * columns..][..columns];
                let from = chance.below(columns - 4);
                row[from..from + 1 + chance.below(4)].fill(label);
            }
            Finding {
                name: format!("finding {n}"),
                tracking_uid: uid_by_name(&["test", "report", &n.to_string()]),
                segment,
                place: None,
                colour: [n as u8, 120, 200],
                category: code(chance.one_of(&CATEGORIES)),
                finding_type: code(chance.one_of(&TYPES)),
                laterality: site.as_ref().and_then(|_| chance.maybe(|c| code(c.one_of(&SIDES)))),
                site,
                present,
                certainty_percent: chance.maybe(|c| c.below(1001) as f64 / 10.0),
                evaluations: chance
                    .maybe(|_| Evaluation {
                        question: Code::new("RISK", "99ROENTGEN", "Risk class"),
                        answer: Code::new("263654008", "SCT", "Abnormal"),
                    })
                    .into_iter()
                    .collect(),
                measurements: (0..1 + chance.below(4)).map(|_| measurement(chance)).collect(),
            }
        })
        .collect();
    let labels: LabelMap = Volume::new(stack.grid, labels);
    let source = source_of(&stack, &loaded);
    let predecessors = (0..count % 3)
        .map(|n| Predecessor {
            study_instance_uid: source.instances[0].study_uid.clone(),
            series_instance_uid: uid_by_name(&["test", "earlier series"]),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.88.34".into(),
            sop_instance_uid: uid_by_name(&["test", "earlier report", &n.to_string()]),
        })
        .collect();
    let (warnings, maps) = (vec!["random".into()], Vec::new());
    (
        Findings {
            source,
            labels,
            findings: all,
            provenance: made_up("random"),
            warnings,
            maps,
            predecessors,
            priors: Default::default(),
            follow_up: None,
        },
        loaded.image,
    )
}

#[test]
fn highdicom_reads_every_group_as_the_json_says() {
    let (_, study) = small_study();
    let results = tempfile::tempdir().expect("a temporary folder");
    for (n, count) in [1, 2, 6, 25, 300].into_iter().enumerate() {
        let mut chance = Chance::new(n as u8);
        let (findings, image) = findings(count, &mut chance, study.path(), GeometryPolicy::Refuse);
        // Without a segmentation the numbers stand in the report on the study.
        let labels: &[Form] = match n % 4 {
            0..2 => &[Form::Seg],
            2 => &[Form::Seg, Form::SrOutlines],
            _ => &[],
        };
        let forms: Forms = [Form::Sr, Form::Json].into_iter().chain(labels.iter().copied()).collect();
        write_all(&findings, &image, &forms, &results.path().join(format!("{count:03}"))).expect("results are written");
    }
    let checked = python(&root().join("tests/python/check_reports.py"), &[study.path(), results.path()]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

/// The last slices of the series further up than their distance: by how much, in distances, is between slices of the even grid.
#[test]
fn an_unevenly_spaced_series_has_a_result() {
    for further in [0.3, 0.6, 1.4] {
        let (_, study) = small_study();
        for file in files_below(study.path()) {
            let mut object = dicom::object::open_file(&file).expect("our own phantom");
            let position = object.element(tags::IMAGE_POSITION_PATIENT).expect("a position").to_multi_float64().expect("numbers");
            if object.element(tags::INSTANCE_NUMBER).expect("a number").to_int::<u32>().expect("a number") > 22 {
                let moved = format!("{}\\{}\\{}", position[0], position[1], position[2] + 9.6 * further);
                object.put(DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, PrimitiveValue::from(moved)));
                object.write_to_file(&file).expect("writable");
            }
        }
        let mut chance = Chance::new(9);
        let (findings, image) = findings(40, &mut chance, study.path(), GeometryPolicy::Resample);
        let folder = study.path().join("results");
        let written = write_all(&findings, &image, &Forms::all(), &folder).expect("results are written");
        assert!(written.first(Form::Seg).is_some() && written.first(Form::Sr).is_some(), "{written:?}");
    }
}
