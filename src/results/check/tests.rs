//! Objects are spoilt in one way each; the check finds every one.

mod marks;
mod placed;

use dicom::core::value::{PixelFragmentSequence, Value};
use dicom::core::{DataElement, PrimitiveValue, Tag, VR};
use dicom::object::open_file;

use super::*;
use crate::findings::Findings;
use crate::geometry::Grid;
use crate::results::tests::{Phantom, findings};
use crate::results::{Form, Forms, dicom_objects, write_object};
use crate::volume::{ImageVolume, Volume};

pub(super) type Spoil = fn(&mut InMemDicomObject);

const SOURCE_IMAGE: [(Tag, usize); 2] = [(tags::DERIVATION_IMAGE_SEQUENCE, 0), (tags::SOURCE_IMAGE_SEQUENCE, 0)];
const PIXEL_MEASURES: [(Tag, usize); 2] = [(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0), (tags::PIXEL_MEASURES_SEQUENCE, 0)];

pub(super) fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, text: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
}

/// Changes an item that a path of sequences leads to.
pub(super) fn within(object: &mut InMemDicomObject, path: &[(Tag, usize)], change: impl FnOnce(&mut InMemDicomObject)) {
    match path {
        [] => change(object),
        [(tag, n), rest @ ..] => {
            let vr = object.get(*tag).expect("the sequence is there").vr();
            let Value::Sequence(sequence) = object.take(*tag).expect("the sequence is there").into_value() else {
                panic!("{tag} is no sequence")
            };
            let mut items: Vec<_> = sequence.into_items().into_vec();
            within(&mut items[*n], rest, change);
            object.put(DataElement::new(*tag, vr, Value::Sequence(items.into())));
        }
    }
}

/// The `n`-th content item below Imaging Measurements' first group that has this concept.
fn in_group(object: &mut InMemDicomObject, concept: &str, change: impl FnOnce(&mut InMemDicomObject)) {
    let place = |of: &InMemDicomObject, concept: &str| {
        let named = |i: &InMemDicomObject| code(i, tags::CONCEPT_NAME_CODE_SEQUENCE).is_some_and(|code| code.value == concept);
        items(of, tags::CONTENT_SEQUENCE).iter().position(named).unwrap_or_else(|| panic!("no item {concept}"))
    };
    let measurements = place(object, "126010");
    let group = &items(&items(object, tags::CONTENT_SEQUENCE)[measurements], tags::CONTENT_SEQUENCE)[0];
    let path = [(tags::CONTENT_SEQUENCE, measurements), (tags::CONTENT_SEQUENCE, 0), (tags::CONTENT_SEQUENCE, place(group, concept))];
    within(object, &path, change);
}

/// Changes the decimal strings of an attribute.
fn change_numbers(item: &mut InMemDicomObject, tag: Tag, change: impl FnOnce(&mut [f64])) {
    let mut values = item.all_numbers(tag).expect("numbers");
    change(&mut values);
    put(item, tag, VR::DS, &values.iter().map(|v| format!("{v:.8}")).collect::<Vec<_>>().join("\\"));
}

/// A sequence without its last item.
fn drop_last(object: &mut InMemDicomObject, tag: Tag) {
    let Value::Sequence(sequence) = object.take(tag).expect("the sequence is there").into_value() else { panic!("{tag} is no sequence") };
    let mut items = sequence.into_items().into_vec();
    items.pop();
    object.put(DataElement::new(tag, VR::SQ, Value::Sequence(items.into())));
}

fn in_frame(object: &mut InMemDicomObject, n: usize, path: &[(Tag, usize)], change: impl FnOnce(&mut InMemDicomObject)) {
    let path: Vec<_> = [(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, n)].iter().chain(path).copied().collect();
    within(object, &path, change);
}

pub(super) fn pixels(object: &mut InMemDicomObject, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = object.get(tags::PIXEL_DATA).expect("it has pixels").value().to_bytes().expect("bytes").into_owned();
    change(&mut bytes);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(bytes.into())));
}

fn floats(object: &mut InMemDicomObject, change: impl FnOnce(&mut Vec<f32>)) {
    let mut values = object.get(tags::FLOAT_PIXEL_DATA).expect("it has floats").value().to_multi_float32().expect("floats");
    change(&mut values);
    object.put(DataElement::new(tags::FLOAT_PIXEL_DATA, VR::OF, PrimitiveValue::F32(values.into())));
}

fn in_mapping(object: &mut InMemDicomObject, path: &[(Tag, usize)], change: impl FnOnce(&mut InMemDicomObject)) {
    let shared = [(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0), (tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE, 0)];
    within(object, &[&shared, path].concat(), change);
}

fn fragments(object: &mut InMemDicomObject, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let Value::PixelSequence(sequence) = object.take(tags::PIXEL_DATA).expect("it has pixels").into_value() else {
        panic!("it is not compressed")
    };
    let mut all: Vec<Vec<u8>> = sequence.fragments().to_vec();
    change(&mut all);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PixelFragmentSequence::new_fragments(all)));
}

/// What may happen to any object.
const ANY: [(&str, Spoil); 9] = [
    ("another patient's ID", |o| put(o, tags::PATIENT_ID, VR::LO, "PHANTOM-043")),
    ("no issuer of the patient's ID", |o| {
        o.remove_element(tags::ISSUER_OF_PATIENT_ID);
    }),
    ("a name of another spelling", |o| put(o, tags::PATIENT_NAME, VR::PN, "Pruefling^Joerg")),
    ("another birth date", |o| put(o, tags::PATIENT_BIRTH_DATE, VR::DA, "19600301")),
    ("an accession number from elsewhere", |o| put(o, tags::ACCESSION_NUMBER, VR::SH, "A1")),
    ("another study", |o| put(o, tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3")),
    ("another instance UID", |o| put(o, tags::SOP_INSTANCE_UID, VR::UI, "1.2.3")),
    ("the series UID of the source", |o| put(o, tags::SERIES_INSTANCE_UID, VR::UI, "1.2.4")),
    ("no character set", |o| {
        o.remove_element(tags::SPECIFIC_CHARACTER_SET);
    }),
];

/// What may happen to any frames.
const FRAMES: [(&str, Spoil); 8] = [
    ("a frame 1 mm aside", |o| {
        in_frame(o, 3, &[(tags::PLANE_POSITION_SEQUENCE, 0)], |item| {
            change_numbers(item, tags::IMAGE_POSITION_PATIENT, |at| at[0] += 1.0);
        });
    }),
    ("a frame that names the next slice", |o| {
        let mut uid = String::new();
        in_frame(o, 4, &SOURCE_IMAGE, |item| uid = item.text(tags::REFERENCED_SOP_INSTANCE_UID));
        in_frame(o, 3, &SOURCE_IMAGE, |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &uid));
    }),
    ("a source image of another study", |o| {
        in_frame(o, 0, &SOURCE_IMAGE, |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3"));
    }),
    ("rows and columns of pixel spacing exchanged", |o| {
        within(o, &PIXEL_MEASURES, |item| put(item, tags::PIXEL_SPACING, VR::DS, "2.00\\2.50"));
    }),
    ("slices further apart", |o| {
        within(o, &PIXEL_MEASURES, |item| put(item, tags::SPACING_BETWEEN_SLICES, VR::DS, "5"));
    }),
    ("a mirrored orientation", |o| {
        let path = [(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 0), (tags::PLANE_ORIENTATION_SEQUENCE, 0)];
        within(o, &path, |item| {
            change_numbers(item, tags::IMAGE_ORIENTATION_PATIENT, |axes| axes[..3].iter_mut().for_each(|v| *v = -*v));
        });
    }),
    ("another frame of reference", |o| put(o, tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3")),
    ("one description less", |o| drop_last(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)),
];

/// What may happen to the description of segments.
const SEGMENTS: [(&str, Spoil); 3] = [
    ("a segment that is something else", |o| {
        let path = [(tags::SEGMENT_SEQUENCE, 1), (tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, 0)];
        within(o, &path, |item| put(item, tags::CODE_VALUE, VR::SH, "78961009"));
    }),
    ("a segment with a side", |o| {
        let path = [(tags::SEGMENT_SEQUENCE, 0), (tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, 0)];
        within(o, &path, |item| {
            let side = crate::dataset::Item::of_code(&crate::codes::Code::new("24028007", "SCT", "Right")).into_inner();
            item.put(DataElement::new(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, VR::SQ, Value::Sequence(vec![side].into())));
        });
    }),
    ("another finding's Tracking UID", |o| {
        within(o, &[(tags::SEGMENT_SEQUENCE, 0)], |item| put(item, tags::TRACKING_UID, VR::UI, "1.2.3"));
    }),
];

const BITS: [(&str, Spoil); 5] = [
    ("one voxel more", |o| pixels(o, |bytes| bytes[7] ^= 1)),
    ("mirrored bytes", |o| pixels(o, |bytes| bytes.iter_mut().for_each(|b| *b = b.reverse_bits()))),
    ("two frames exchanged", |o| {
        let plane = 80 * 64 / 8;
        pixels(o, |bytes| (0..plane).for_each(|n| bytes.swap(5 * plane + n, 12 * plane + n)));
    }),
    ("a frame of another segment", |o| {
        in_frame(o, 2, &[(tags::SEGMENT_IDENTIFICATION_SEQUENCE, 0)], |item| {
            item.put(DataElement::new(tags::REFERENCED_SEGMENT_NUMBER, VR::US, PrimitiveValue::from(2u16)));
        });
    }),
    ("one frame less", |o| {
        drop_last(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let left = items(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).len().to_string();
        put(o, tags::NUMBER_OF_FRAMES, VR::IS, &left);
        let plane = 80 * 64 / 8;
        pixels(o, |bytes| bytes.truncate(bytes.len() - plane));
    }),
];

const LABEL_MAP: [(&str, Spoil); 4] = [
    ("voxels of another segment", |o| fragments(o, |all| all[3][65] += 1)),
    ("two label map frames exchanged", |o| fragments(o, |all| all.swap(5, 12))),
    ("one label map frame less", |o| {
        drop_last(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let left = items(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).len().to_string();
        put(o, tags::NUMBER_OF_FRAMES, VR::IS, &left);
        fragments(o, |all| drop(all.pop()));
    }),
    ("a frame that is there twice", |o| {
        let twin = items(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)[5].clone();
        in_frame(o, 6, &[], |item| *item = twin);
    }),
];

const MAP: [(&str, Spoil); 7] = [
    ("a value with another last bit", |o| floats(o, |all| all[777] = f32::from_bits(all[777].to_bits() ^ 1))),
    ("two map frames exchanged", |o| {
        let plane = 80 * 64;
        floats(o, |all| (0..plane).for_each(|n| all.swap(5 * plane + n, 12 * plane + n)));
    }),
    ("one map frame less", |o| {
        drop_last(o, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        put(o, tags::NUMBER_OF_FRAMES, VR::IS, "23");
        floats(o, |all| all.truncate(23 * 80 * 64));
    }),
    ("values in another unit", |o| {
        in_mapping(o, &[(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, 0)], |unit| put(unit, tags::CODE_VALUE, VR::SH, "%"));
    }),
    ("values of another quantity", |o| {
        let path = [(tags::QUANTITY_DEFINITION_SEQUENCE, 0), (tags::CONCEPT_CODE_SEQUENCE, 0)];
        in_mapping(o, &path, |quantity| put(quantity, tags::CODE_VALUE, VR::SH, "111047"));
    }),
    ("values that are scaled", |o| {
        in_mapping(o, &[], |mapping| {
            drop(mapping.put(DataElement::new(tags::REAL_WORLD_VALUE_SLOPE, VR::FD, PrimitiveValue::from(100.0))))
        });
    }),
    ("values that are not mapped", |o| {
        let tag = tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_LAST_VALUE_MAPPED;
        in_mapping(o, &[], |mapping| drop(mapping.put(DataElement::new(tag, VR::FD, PrimitiveValue::from(0.5)))));
    }),
];

const REPORT: [(&str, Spoil); 12] = [
    ("verified by nobody", |o| put(o, tags::VERIFICATION_FLAG, VR::CS, "VERIFIED")),
    ("not complete", |o| put(o, tags::COMPLETION_FLAG, VR::CS, "PARTIAL")),
    ("litres for millilitres", |o| {
        in_group(o, "118565006", |i| {
            within(i, &[(tags::MEASURED_VALUE_SEQUENCE, 0), (tags::MEASUREMENT_UNITS_CODE_SEQUENCE, 0)], |u| {
                put(u, tags::CODE_VALUE, VR::SH, "l")
            });
        });
    }),
    ("a value a thousand times too large", |o| {
        in_group(o, "118565006", |i| {
            within(i, &[(tags::MEASURED_VALUE_SEQUENCE, 0)], |m| {
                let value = m.number(tags::FLOATING_POINT_VALUE).expect("a number") * 1000.0;
                m.put(DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, PrimitiveValue::from(value)));
            });
        });
    }),
    ("a decimal string that is another number", |o| {
        in_group(o, "118565006", |i| within(i, &[(tags::MEASURED_VALUE_SEQUENCE, 0)], |m| put(m, tags::NUMERIC_VALUE, VR::DS, "1")));
    }),
    ("another finding", |o| {
        in_group(o, "121071", |i| within(i, &[(tags::CONCEPT_CODE_SEQUENCE, 0)], |c| put(c, tags::CODE_VALUE, VR::SH, "78961009")));
    }),
    ("a mean that is called a minimum", |o| {
        in_group(o, "112031", |i| {
            within(i, &[(tags::CONTENT_SEQUENCE, 0), (tags::CONCEPT_CODE_SEQUENCE, 0)], |c| put(c, tags::CODE_VALUE, VR::SH, "255605001"));
        });
    }),
    ("another segment", |o| {
        in_group(o, "121191", |i| {
            within(i, &[(tags::REFERENCED_SOP_SEQUENCE, 0)], |r| {
                r.put(DataElement::new(tags::REFERENCED_SEGMENT_NUMBER, VR::US, PrimitiveValue::from(3u16)));
            });
        });
    }),
    ("a segmentation of another result", |o| {
        in_group(o, "121191", |i| {
            within(i, &[(tags::REFERENCED_SOP_SEQUENCE, 0)], |r| put(r, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3"));
        });
    }),
    ("another tracking UID", |o| in_group(o, "112040", |i| put(i, tags::UID, VR::UI, "1.2.3"))),
    ("another version of the model", |o| in_group(o, "111003", |i| put(i, tags::TEXT_VALUE, VR::UT, "1.0.1"))),
    ("evidence without the segmentation", |o| {
        let path = [(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, 0)];
        within(o, &path, |study| drop_last(study, tags::REFERENCED_SERIES_SEQUENCE));
    }),
];

/// A result and the image that it lies on.
type Made = (Findings, ImageVolume);

/// Writes the objects of `forms` to a folder, lets `spoil` at it, and checks all.
fn check_spoilt(forms: &Forms, spoil: impl Fn(&Path)) -> Result<(), ResultsError> {
    check_spoilt_of(&findings(&Phantom::OBLIQUE), forms, spoil)
}

fn check_spoilt_of((findings, image): &Made, forms: &Forms, spoil: impl Fn(&Path)) -> Result<(), ResultsError> {
    let context = Context::of(findings, image, forms).expect("consistent");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut objects = Vec::new();
    for object in Form::ALL.into_iter().filter(|form| forms.contains(*form)).flat_map(|form| dicom_objects(form, &context)) {
        write_object(&folder.path().join(&object.file), object.data).expect("writable");
        objects.push((object.file, object.reference));
    }
    spoil(folder.path());
    check(&context, folder.path(), &objects)
}

#[test]
fn what_is_right_passes() {
    check_spoilt(&Forms::all(), |_| {}).expect("nothing is spoilt");
}

#[test]
fn every_spoilt_object_is_found() {
    each_is_found("seg", "seg.dcm", &[&FRAMES, &SEGMENTS, &BITS]);
    each_is_found("labelmap", "labelmap.dcm", &[&FRAMES, &SEGMENTS, &LABEL_MAP]);
    each_is_found("map", "map-1.dcm", &[&FRAMES, &MAP]);
    each_is_found("seg,sr", "sr.dcm", &[&REPORT]);
}

/// Spoils one file of these forms in each of these ways, and in those that any object can be spoilt in.
pub(super) fn each_is_found(forms: &str, file: &str, ways: &[&[(&str, Spoil)]]) {
    each_of_is_found(&findings(&Phantom::OBLIQUE), forms, file, ways);
}

fn each_of_is_found(made: &Made, forms: &str, file: &str, ways: &[&[(&str, Spoil)]]) {
    let forms: Forms = forms.parse().expect("forms");
    let mut count = 0;
    for (what, spoil) in ways.iter().copied().flatten().chain(&ANY) {
        let checked = check_spoilt_of(made, &forms, |folder| {
            let mut object = open_file(folder.join(file)).expect("we wrote it");
            spoil(&mut object);
            object.write_to_file(folder.join(file)).expect("writable");
        });
        match checked {
            Err(ResultsError::SelfCheck { file: found, problems }) => {
                assert_eq!(found, file, "{what}");
                let text = problems.join("; ");
                assert!(!text.contains("PHANTOM") && !text.contains("fling"), "patient text: {text}");
                println!("{file}, {what}: {text}");
            }
            other => panic!("{file}, {what}: {other:?}"),
        }
        count += 1;
    }
    println!("{count} ways to spoil {file} are found");
}

/// The first slice alone, as if it lay nowhere in the patient, without segments, and its part of the maps.
fn radiograph() -> Made {
    let (mut findings, image) = findings(&Phantom::OBLIQUE);
    let [columns, rows, _] = findings.labels.grid().dims();
    let grid = Grid::new([columns, rows, 1], findings.labels.grid().lps_from_voxel()).expect("a slice");
    let source = &mut findings.source;
    source.instances.truncate(1);
    source.content_sha256.truncate(1);
    source.frames.truncate(1);
    source.slice_of_frame.truncate(1);
    source.frames[0].position_mm = None;
    findings.labels = Volume::new(grid, vec![0; grid.voxel_count()]);
    findings.findings.iter_mut().for_each(|finding| finding.segment = None);
    findings.maps.iter_mut().for_each(|map| map.values = Volume::new(grid, map.values.slice(0).to_vec()));
    let stored = image.stored.as_int16().expect("integers").slice(0).to_vec();
    (findings, ImageVolume { stored: Volume::new(grid, stored).into(), rescale: vec![image.rescale[0]], quantity: image.quantity })
}

const MAP_OVER_IMAGE: [(&str, Spoil); 6] = [
    ("another colour at one place", |o| pixels(o, |bytes| bytes[1_000_000] ^= 64)),
    ("a margin of another grey", |o| pixels(o, |bytes| bytes[..9000].fill(16))),
    ("another source", |o| {
        within(o, &[(tags::SOURCE_IMAGE_SEQUENCE, 0)], |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, "1.2.3"));
    }),
    ("no source", |o| drop_last(o, tags::SOURCE_IMAGE_SEQUENCE)),
    ("a length on it", |o| put(o, tags::PIXEL_SPACING, VR::DS, "1\\1")),
    ("compressed with loss", |o| put(o, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01")),
];

#[test]
fn every_spoilt_map_over_an_image_is_found() {
    let made = radiograph();
    check_spoilt_of(&made, &"map".parse().expect("forms"), |_| {}).expect("nothing is spoilt");
    each_of_is_found(&made, "map", "map-2.dcm", &[&MAP_OVER_IMAGE]);
}

#[test]
fn a_file_that_is_cut_off_is_found() {
    let forms: Forms = [Form::Seg].into_iter().collect();
    let keep: [fn(usize) -> usize; 5] = [|n| n - 1, |n| n - 600, |n| n / 2, |_| 400, |_| 0];
    for keep in keep {
        let checked = check_spoilt(&forms, |folder| {
            let path = folder.join("seg.dcm");
            let bytes = std::fs::read(&path).expect("we wrote it");
            std::fs::write(&path, &bytes[..keep(bytes.len())]).expect("writable");
        });
        assert!(checked.is_err(), "{} of 1000 bytes", keep(1000));
    }
}
