//! Marks for viewers and planning systems, spoilt.

use super::*;
use crate::dataset::Item;

/// The path to the first content item of a value type.
fn first_item(object: &InMemDicomObject, value_type: &str) -> [(Tag, usize); 1] {
    let n = items(object, tags::CONTENT_SEQUENCE).iter().position(|i| i.text(tags::VALUE_TYPE) == value_type);
    [(tags::CONTENT_SEQUENCE, n.expect("it has one"))]
}

const KEY_OBJECTS: [(&str, Spoil); 6] = [
    ("one image less", |o| drop_last(o, tags::CONTENT_SEQUENCE)),
    ("another image of the source", |o| {
        let path = [first_item(o, "IMAGE")[0], (tags::REFERENCED_SOP_SEQUENCE, 0)];
        let other = crate::codes::uid_by_name(&["test", "oblique", "instance 0"]);
        within(o, &path, |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &other));
    }),
    ("a frame of a single-frame image", |o| {
        let path = [first_item(o, "IMAGE")[0], (tags::REFERENCED_SOP_SEQUENCE, 0)];
        within(o, &path, |item| put(item, tags::REFERENCED_FRAME_NUMBER, VR::IS, "1"));
    }),
    ("rejected for quality reasons", |o| {
        within(o, &[(tags::CONCEPT_NAME_CODE_SEQUENCE, 0)], |item| put(item, tags::CODE_VALUE, VR::SH, "113001"));
    }),
    ("evidence without the images", |o| {
        let path = [(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, 0)];
        within(o, &path, |study| drop_last(study, tags::REFERENCED_SERIES_SEQUENCE));
    }),
    ("a person as observer", |o| {
        let path = [first_item(o, "CODE")[0], (tags::CONCEPT_CODE_SEQUENCE, 0)];
        within(o, &path, |item| put(item, tags::CODE_VALUE, VR::SH, "121006"));
    }),
];

const ANNOTATION: (Tag, usize) = (tags::GRAPHIC_ANNOTATION_SEQUENCE, 0);

/// Changes the points of the first outline.
fn change_points(object: &mut InMemDicomObject, change: impl FnOnce(&mut [f32])) {
    within(object, &[ANNOTATION, (tags::GRAPHIC_OBJECT_SEQUENCE, 0)], |item| {
        let mut points = item.element(tags::GRAPHIC_DATA).expect("points").to_multi_float32().expect("numbers");
        change(&mut points);
        item.put(DataElement::new(tags::GRAPHIC_DATA, VR::FL, PrimitiveValue::F32(points.into())));
    });
}

const PRESENTATION: [(&str, Spoil); 14] = [
    ("an outline one pixel to the right", |o| change_points(o, |points| points.iter_mut().step_by(2).for_each(|x| *x += 1.0))),
    ("rows and columns exchanged", |o| change_points(o, |points| points.as_chunks_mut::<2>().0.iter_mut().for_each(|p| p.reverse()))),
    ("an outline that is open", |o| change_points(o, |points| points[0] += 0.25)),
    ("an outline less", |o| within(o, &[ANNOTATION], |item| drop_last(item, tags::GRAPHIC_OBJECT_SEQUENCE))),
    ("an image less", |o| {
        let path = [(tags::REFERENCED_SERIES_SEQUENCE, 0)];
        within(o, &path, |series| drop_last(series, tags::REFERENCED_IMAGE_SEQUENCE));
        drop_last(o, tags::GRAPHIC_ANNOTATION_SEQUENCE);
        drop_last(o, tags::GRAPHIC_ANNOTATION_SEQUENCE);
    }),
    ("an annotation less", |o| drop_last(o, tags::GRAPHIC_ANNOTATION_SEQUENCE)),
    ("an annotation on another image", |o| {
        let path = [(tags::GRAPHIC_ANNOTATION_SEQUENCE, 1), (tags::REFERENCED_IMAGE_SEQUENCE, 0)];
        let other = crate::codes::uid_by_name(&["test", "oblique", "instance 0"]);
        within(o, &path, |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &other));
    }),
    ("another segment's layer", |o| within(o, &[ANNOTATION], |item| put(item, tags::GRAPHIC_LAYER, VR::CS, "AI_2"))),
    ("another name", |o| {
        within(o, &[ANNOTATION, (tags::TEXT_OBJECT_SEQUENCE, 0)], |item| put(item, tags::UNFORMATTED_TEXT_VALUE, VR::ST, "spleen"));
    }),
    ("another colour", |o| {
        within(o, &[(tags::GRAPHIC_LAYER_SEQUENCE, 0)], |item| {
            let colour = PrimitiveValue::U16([1, 2, 3].into_iter().collect());
            item.put(DataElement::new(tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE, VR::US, colour));
        });
    }),
    ("another intercept", |o| put(o, tags::RESCALE_INTERCEPT, VR::DS, "0")),
    ("black for white", |o| put(o, tags::PRESENTATION_LUT_SHAPE, VR::CS, "INVERSE")),
    ("no VOI", |o| drop_last(o, tags::SOFTCOPY_VOILUT_SEQUENCE)),
    ("half an image", |o| {
        within(o, &[(tags::DISPLAYED_AREA_SELECTION_SEQUENCE, 0)], |item| {
            let half = PrimitiveValue::I32([40, 64].into_iter().collect());
            item.put(DataElement::new(tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER, VR::SL, half));
        });
    }),
];

/// Changes the points, mm, of the first contour of the second region.
fn change_contour(object: &mut InMemDicomObject, change: impl FnOnce(&mut [[f64; 3]])) {
    within(object, &[(tags::ROI_CONTOUR_SEQUENCE, 1), (tags::CONTOUR_SEQUENCE, 0)], |item| {
        change_numbers(item, tags::CONTOUR_DATA, |values| change(values.as_chunks_mut::<3>().0));
    });
}

const STRUCTURE_SET: [(&str, Spoil); 13] = [
    ("a contour half a pixel along the patient", |o| change_contour(o, |points| points.iter_mut().for_each(|p| p[0] += 1.0))),
    ("a contour that leaves its plane", |o| change_contour(o, |points| points[0][2] += 0.5)),
    ("a contour through the centres of pixels", |o| {
        change_contour(o, |points| {
            let middle: [f64; 3] = std::array::from_fn(|n| points.iter().map(|p| p[n]).sum::<f64>() / points.len() as f64);
            points.iter_mut().for_each(|p| (0..3).for_each(|n| p[n] += (middle[n] - p[n]) * 0.03));
        });
    }),
    ("a contour on the next image", |o| {
        let path = |n| [(tags::ROI_CONTOUR_SEQUENCE, 1), (tags::CONTOUR_SEQUENCE, n), (tags::CONTOUR_IMAGE_SEQUENCE, 0)];
        let mut uid = String::new();
        within(o, &path(1), |item| uid = item.text(tags::REFERENCED_SOP_INSTANCE_UID));
        within(o, &path(0), |item| put(item, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &uid));
    }),
    ("a contour less", |o| within(o, &[(tags::ROI_CONTOUR_SEQUENCE, 0)], |item| drop_last(item, tags::CONTOUR_SEQUENCE))),
    ("a region less", |o| drop_last(o, tags::ROI_CONTOUR_SEQUENCE)),
    ("another name", |o| within(o, &[(tags::STRUCTURE_SET_ROI_SEQUENCE, 1)], |item| put(item, tags::ROI_NAME, VR::LO, "spleen"))),
    ("drawn by hand", |o| {
        within(o, &[(tags::STRUCTURE_SET_ROI_SEQUENCE, 0)], |item| put(item, tags::ROI_GENERATION_ALGORITHM, VR::CS, "MANUAL"));
    }),
    ("another organ", |o| {
        let path = [(tags::RTROI_OBSERVATIONS_SEQUENCE, 1), (tags::RTROI_IDENTIFICATION_CODE_SEQUENCE, 0)];
        within(o, &path, |item| put(item, tags::CODE_VALUE, VR::SH, "78961009"));
    }),
    ("a target volume", |o| {
        within(o, &[(tags::RTROI_OBSERVATIONS_SEQUENCE, 0)], |item| put(item, tags::RTROI_INTERPRETED_TYPE, VR::CS, "GTV"));
    }),
    ("another colour", |o| within(o, &[(tags::ROI_CONTOUR_SEQUENCE, 0)], |item| put(item, tags::ROI_DISPLAY_COLOR, VR::IS, "1\\2\\3"))),
    ("approved by nobody", |o| put(o, tags::APPROVAL_STATUS, VR::CS, "APPROVED")),
    ("another Frame of Reference", |o| {
        within(o, &[(tags::STRUCTURE_SET_ROI_SEQUENCE, 0)], |i| put(i, tags::REFERENCED_FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3"));
    }),
];

#[test]
fn every_spoilt_mark_is_found() {
    all_found("gsps.dcm", Form::Gsps, &PRESENTATION);
    all_found("rtstruct.dcm", Form::Rtstruct, &STRUCTURE_SET);
    all_found("ko.dcm", Form::Ko, &KEY_OBJECTS);
}

/// Spoils a file in each way, its own and those of any object.
fn all_found(file: &str, form: Form, ways: &[(&str, Spoil)]) {
    for (what, spoil) in ways.iter().chain(&ANY) {
        let checked = check_spoilt(&[form].into_iter().collect(), |folder| {
            let mut object = open_file(folder.join(file)).expect("we wrote it").into_inner();
            spoil(&mut object);
            write_object(&folder.join(file), Item::from(object)).expect("writable");
        });
        match checked {
            Err(ResultsError::SelfCheck { file: found, problems }) => {
                assert_eq!(found, file, "{what}");
                println!("{file}, {what}: {}", problems.join("; "));
            }
            other => panic!("{file}, {what}: {other:?}"),
        }
    }
}
