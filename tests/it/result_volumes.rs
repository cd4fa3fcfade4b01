//! Segmentations, label maps and maps of values on sources of every geometry, as other people's programs read them.
//!
//! Sources are made here or are real ones; each gets labels and a map that look the same nowhere, and `tests/python/check_volumes.py` holds
//! what highdicom, pydicom, GDCM and DCMTK read of the results against these.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use dicom::core::{DataElement, VR};
use roentgen::codes::{Code, dcm, sop_class, ucum, uid_by_name};
use roentgen::dataset::{Item, Writable, tags, write_object};
use roentgen::engine::{Engine, Options};
use roentgen::findings::{Finding, Findings, ValueMap};
use roentgen::geometry::{cross, norm};
use roentgen::gpu::DeviceChoice;
use roentgen::model::Package;
use roentgen::results::{Form, Forms, write_all};
use roentgen::series::{GeometryPolicy, discover};
use roentgen::volume::Volume;
use serde_json::json;

use crate::support::{ct_tissue, files_below, made_up, python, root, run_ct_tissue, small_study, source_of, test_data};

/// A series of slices.
struct Slices {
    row: [f64; 3],
    column: [f64; 3],
    /// From one slice to the next, along the normal of the slices and across it.
    step_mm: f64,
    shear_mm: [f64; 3],
    /// What each slice is moved by along the normal.
    moved_mm: &'static [(usize, f64)],
    enhanced: bool,
    dims: [u32; 3],
}

const AXIAL: Slices = Slices {
    row: [1.0, 0.0, 0.0],
    column: [0.0, 1.0, 0.0],
    step_mm: 3.75,
    shear_mm: [0.0; 3],
    moved_mm: &[],
    enhanced: false,
    dims: [13, 11, 7], // 143 pixels: frames begin within a byte
};

/// Between rows, between columns, mm.
const PIXEL_SPACING: [&str; 2] = ["2.0", "1.25"];

fn texts(values: &[f64]) -> Vec<String> {
    values.iter().map(|v| format!("{v:.10}")).collect()
}

impl Slices {
    fn position(&self, k: usize) -> [f64; 3] {
        let normal = cross(self.row, self.column);
        let moved: f64 = self.moved_mm.iter().filter(|(slice, _)| *slice <= k).map(|(_, mm)| mm).sum();
        let along = k as f64 * self.step_mm + moved;
        std::array::from_fn(|n| [-31.5, 17.25, 402.0][n] + along * normal[n] / norm(normal) + k as f64 * self.shear_mm[n])
    }

    /// What slices and the multi-frame image have in common.
    fn image(&self, name: &str, class: &str, instance: &str) -> Item {
        let uid = |what: &str| uid_by_name(&["test", "volumes", name, what]);
        Item::new()
            .text(tags::SOP_CLASS_UID, class)
            .text(tags::SOP_INSTANCE_UID, &uid(instance))
            .text(tags::STUDY_INSTANCE_UID, &uid("study"))
            .text(tags::SERIES_INSTANCE_UID, &uid("series"))
            .text(tags::FRAME_OF_REFERENCE_UID, &uid("frame of reference"))
            .text(tags::STUDY_DATE, "20240305")
            .text(tags::MODALITY, "CT")
            .text(tags::PATIENT_ID, "PHANTOM-VOLUMES")
            .text(tags::BODY_PART_EXAMINED, "CHEST")
            .integer(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME2")
            .integer(tags::ROWS, self.dims[1])
            .integer(tags::COLUMNS, self.dims[0])
            .integer(tags::BITS_ALLOCATED, 16)
            .integer(tags::BITS_STORED, 16)
            .integer(tags::HIGH_BIT, 15)
            .integer(tags::PIXEL_REPRESENTATION, 1)
    }

    fn write(&self, name: &str, folder: &Path) {
        let pixels: Vec<u16> = (0..self.dims[0] * self.dims[1]).map(|n| n as u16).collect();
        let orientation = texts(&[self.row, self.column].concat());
        let count = self.dims[2] as usize;
        let rescale = Item::new().text(tags::RESCALE_INTERCEPT, "-1024").text(tags::RESCALE_SLOPE, "1").text(tags::RESCALE_TYPE, "HU");
        let measures = Item::new().texts(tags::PIXEL_SPACING, &PIXEL_SPACING).text(tags::SLICE_THICKNESS, "1.5");
        if !self.enhanced {
            for k in 0..count {
                let image = self
                    .image(name, sop_class::CT_IMAGE, &k.to_string())
                    .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY", "AXIAL"])
                    .integer(tags::INSTANCE_NUMBER, (count - k) as u32)
                    .decimals_of(tags::IMAGE_ORIENTATION_PATIENT, &orientation)
                    .decimals_of(tags::IMAGE_POSITION_PATIENT, &texts(&self.position(k)))
                    .with(measures.clone())
                    .with(rescale.clone())
                    .words(tags::PIXEL_DATA, pixels.clone());
                write_object(&folder.join(format!("{k}.dcm")), image).expect("writable");
            }
            return;
        }
        let shared = Item::new()
            .sequence(tags::PIXEL_MEASURES_SEQUENCE, [measures])
            .sequence(tags::PLANE_ORIENTATION_SEQUENCE, [Item::new().decimals_of(tags::IMAGE_ORIENTATION_PATIENT, &orientation)])
            .sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, [rescale]);
        let image = self
            .image(name, "1.2.840.10008.5.1.4.1.1.2.1", "enhanced")
            .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
            .integer(tags::NUMBER_OF_FRAMES, self.dims[2])
            .sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, [shared]);
        // The frames in the other direction.
        let positions: Vec<Vec<String>> = (0..count).rev().map(|k| texts(&self.position(k))).collect();
        let groups = |n: usize| {
            let position = Item::new().decimals_of(tags::IMAGE_POSITION_PATIENT, &positions[n]);
            Item::new()
                .sequence(tags::PLANE_POSITION_SEQUENCE, [position])
                .sequence(tags::FRAME_CONTENT_SEQUENCE, [Item::new().text(tags::STACK_ID, "1")])
        };
        let bytes = pixels.len() as u64 * 2 * count as u64;
        let frame = |_| pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
        write_object(&folder.join("enhanced.dcm"), Writable::from(image).frame_groups(count, groups).pixel_data(bytes, count, frame))
            .expect("writable");
    }
}

/// A radiograph that lies nowhere in the patient.
fn write_radiograph(folder: &Path, with_spacing: bool) {
    let image = AXIAL
        .image("radiograph", "1.2.840.10008.5.1.4.1.1.1", "only")
        .texts(tags::IMAGE_TYPE, &["ORIGINAL", "PRIMARY"])
        .text(tags::MODALITY, "CR")
        .text(tags::INSTANCE_NUMBER, "1")
        .words(tags::PIXEL_DATA, vec![7; 143]);
    let image = if with_spacing { image.texts(tags::PIXEL_SPACING, &PIXEL_SPACING) } else { image };
    let mut image = image.into_inner();
    image.remove_element(tags::FRAME_OF_REFERENCE_UID);
    write_object(&folder.join("cr.dcm"), Item::from(image)).expect("writable");
}

/// Labels 1, 3 and 4 (2 is described and absent) that look the same in no other place, and no voxel in one of the middle slices.
fn label([i, j, k]: [usize; 3], slices: usize) -> u8 {
    let pattern = [0, 1, 0, 3, 4, 0, 3, 1, 1, 0, 4];
    let empty = slices > 3 && k == slices / 2;
    if empty { 0 } else { pattern[(i * i + 3 * j + 5 * k * (j + 1) + i * j * k) % pattern.len()] }
}

/// Writes the results on the series in `folder/source` to `folder/results`, and what they must hold beside it.
fn write_results(folder: &Path, volume: bool) {
    let found = discover(&[folder.join("source")]);
    let parts = found.series[0].parts(GeometryPolicy::Resample);
    let stack = parts[0].gate().unwrap_or_else(|refusal| panic!("{}: {refusal}", folder.display()));
    let loaded = stack.load().expect("whole files");
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let voxels = (0..columns * rows * slices).map(|n| [n % columns, n / columns % rows, n / (columns * rows)]);
    let labels: Vec<u8> = voxels.clone().map(|voxel| label(voxel, slices)).collect();
    let values: Vec<f32> = voxels.map(|[i, j, k]| (i as f32 + 100.0 * j as f32 - 1e4 * k as f32) / 3.0).collect();
    let finding = |n: u8| Finding {
        name: format!("structure {n}"),
        tracking_uid: uid_by_name(&["test", "volumes", "tracking", &n.to_string()]),
        segment: Some(n),
        place: None,
        colour: [60 * n, 120, 200],
        category: Code::new("85756007", "SCT", "Tissue"),
        finding_type: Code::new("87784001", "SCT", "Soft tissue"),
        site: None,
        laterality: None,
        present: labels.contains(&n),
        certainty_percent: None,
        evaluations: Vec::new(),
        measurements: Vec::new(),
    };
    let all = [1, 2, 3, 4].map(finding).to_vec();
    let numbers: Vec<u8> = labels.iter().map(|&label| if label > 2 { label - 1 } else { label }).collect();
    let raw = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("writable");
    raw("numbers.raw", &numbers);
    raw("map.raw", &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let images: Vec<_> = stack
        .frames
        .iter()
        .zip(&stack.slice_of_frame)
        .map(|(f, &k)| {
            let number = (!f.is_whole_instance()).then_some(f.number);
            json!({ "uid": f.instance.sop_instance_uid, "frame": number, "position": f.position_mm, "slice": k })
        })
        .collect();
    let expected = json!({
        "dims": [columns, rows, slices],
        "lps_from_voxel": stack.grid.lps_from_voxel().rows(),
        "volume": volume,
        "tolerance_mm": if folder.ends_with("siemens") { 1e-3 } else { 1e-4 }, // its positions are rounded
        "images": images,
    });
    raw("expected.json", expected.to_string().as_bytes());
    let maps = vec![ValueMap { name: "ramp".into(), quantity: dcm::PROBABILITY, unit: ucum::ONE, values: Volume::new(stack.grid, values) }];
    let findings = Findings {
        source: source_of(&stack, &loaded),
        labels: Volume::new(stack.grid, labels),
        findings: all,
        provenance: made_up("volumes"),
        warnings: Vec::new(),
        maps,
        predecessors: Vec::new(),
        follow_up: None,
        priors: Default::default(),
    };
    let forms: Forms = [Form::Seg, Form::Labelmap, Form::Map, Form::Sr].into_iter().collect();
    write_all(&findings, &loaded.image, &forms, &folder.join("results")).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
}

fn first_dicom(path: &Path) -> PathBuf {
    let files = if path.is_dir() { files_below(path) } else { vec![path.to_owned()] };
    files.into_iter().find(|file| dicom::object::open_file(file).is_ok()).expect("an instance")
}

/// Volumes as highdicom puts them together, where they are regular; else, and of radiographs, frame by frame.
#[test]
fn as_other_programs_read_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let case = |name: &str| -> PathBuf {
        let source = folder.path().join(name).join("source");
        std::fs::create_dir_all(&source).expect("made");
        source
    };
    let (sin, cos) = 0.4f64.sin_cos();
    let oblique = Slices { row: [cos, sin * cos, sin * sin], column: [-sin, cos * cos, cos * sin], ..AXIAL };
    let whole = Slices { dims: [16, 8, 5], ..AXIAL };
    let slices = [
        ("axial", true, AXIAL),
        ("bytes", true, whole),
        ("sagittal", true, Slices { row: [0.0, 1.0, 0.0], column: [0.0, 0.0, -1.0], ..AXIAL }),
        ("coronal", true, Slices { column: [0.0, 0.0, -1.0], ..AXIAL }),
        ("flipped", true, Slices { row: [-1.0, 0.0, 0.0], ..AXIAL }),
        ("turned", true, Slices { row: [0.0, -1.0, 0.0], column: [-1.0, 0.0, 0.0], ..AXIAL }),
        ("oblique", true, Slices { ..oblique }),
        ("enhanced", true, Slices { enhanced: true, ..oblique }),
        ("tilted", false, Slices { shear_mm: [0.0, 0.9, 0.0], ..AXIAL }),
        ("uneven", false, Slices { moved_mm: &[(3, 0.8), (5, 2.5)], ..AXIAL }),
        ("slightly-uneven", false, Slices { moved_mm: &[(3, 0.3), (4, -0.3)], ..AXIAL }),
    ];
    for (name, volume, slices) in slices {
        slices.write(name, &case(name));
        write_results(&folder.path().join(name), volume);
    }
    for (name, with_spacing) in [("radiograph", true), ("radiograph-in-pixels", false)] {
        write_radiograph(&case(name), with_spacing);
        write_results(&folder.path().join(name), false);
    }
    if let Some(data) = test_data() {
        for (name, file, volume) in [("siemens", "mr-enhanced/siemens-8frames", true), ("dx", "xray-2d/dx_image.dcm", false)] {
            let mut object = dicom::object::open_file(first_dicom(&data.join(file))).expect("readable");
            if volume {
                // Whoever shared it took its frame of reference away.
                object.put(DataElement::new(tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3"));
            }
            object.write_to_file(case(name).join("image")).expect("writable");
            write_results(&folder.path().join(name), volume);
        }
    }
    let checked = python(&root().join("tests/python/check_volumes.py"), &[folder.path()]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
}

/// The shipped package's maps: only where they are asked for, and what the formula gives in double precision.
#[test]
fn maps_of_a_package() {
    let (_, study) = small_study();
    let package = Package::read(&ct_tissue()).expect("the shipped package is whole");
    let analyse = |maps| {
        let mut engine =
            Engine::new(package.clone(), &Options { device: DeviceChoice::Cpu, maps, ..Options::default() }).expect("the engine starts");
        let found = discover(&[study.path().to_owned()]);
        let parts = found.series[0].parts(GeometryPolicy::Refuse);
        let stack = package.eligible(&parts[0]).expect("the phantom is eligible").stack;
        engine.analyse(stack, &AtomicBool::new(false), &mut |_| {}).expect("the phantom can be analysed").findings
    };
    assert!(analyse(false).maps.is_empty());
    let findings = analyse(true);
    assert_eq!(findings.maps.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["lung probability", "tissue uncertainty"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (n, map) in findings.maps.iter().enumerate() {
        let bytes: Vec<u8> = map.values.voxels().iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(folder.path().join(format!("{n}.raw")), bytes).expect("writable");
    }
    let checked = python(&root().join("tests/python/check_maps.py"), &[study.path(), folder.path()]);
    println!("{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.all());
    // Without `map` among the forms no map is written.
    let output = folder.path().join("out");
    assert_eq!(run_ct_tissue(&[study.path()], &output).code, 0);
    assert!(!files_below(&output).iter().any(|f| f.to_string_lossy().contains("map")));
}
