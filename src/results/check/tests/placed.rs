//! Boxes and points, spoilt.

use super::*;
use crate::findings::{Extent, Place};

/// A result of boxes and a point on an oblique series: nothing has voxels.
fn boxes() -> Made {
    let (mut findings, image) = findings(&Phantom::OBLIQUE);
    let grid = *findings.labels.grid();
    let (affine, spacing_mm) = (grid.lps_from_voxel(), grid.spacing_mm());
    findings.labels = Volume::new(grid, vec![0; grid.voxel_count()]);
    findings.maps.clear();
    let axes_lps = std::array::from_fn(|n| affine.column(n).map(|v| v / spacing_mm[n]));
    let last = grid.dims().map(|n| f64::from(n) - 1.0);
    for (n, finding) in findings.findings.iter_mut().enumerate() {
        let at = [0.3, 0.45, 0.6, 0.7][n.min(3)];
        let extent = (n != 1).then_some(Extent { axes_lps, sides_mm: [21.0, 13.5 + n as f64, 9.0] });
        finding.segment = None;
        finding.present = true;
        finding.certainty_percent = Some(90.0 - n as f64);
        finding.place = Some(Place { centre_lps_mm: affine.apply(last.map(|last| at * last)), extent });
    }
    (findings, image)
}

/// Changes the points of an item of the first group.
fn change_points(object: &mut InMemDicomObject, concept: &str, change: impl FnOnce(&mut [f32])) {
    in_group(object, concept, |item| moved(item, change));
}

fn moved(item: &mut InMemDicomObject, change: impl FnOnce(&mut [f32])) {
    let mut points = item.element(tags::GRAPHIC_DATA).expect("points").to_multi_float32().expect("numbers");
    change(&mut points);
    item.put(DataElement::new(tags::GRAPHIC_DATA, VR::FL, PrimitiveValue::F32(points.into())));
}

const SURFACE: [(&str, Spoil); 8] = [
    ("a corner 0.1 mm aside", |o| change_points(o, "121231", |p| p[3] += 0.1)),
    ("a face 0.1 mm aside", |o| change_points(o, "121231", |p| p.iter_mut().step_by(3).for_each(|x| *x += 0.1))),
    ("corners that cross each other", |o| change_points(o, "121231", |p| (0..3).for_each(|n| p.swap(3 + n, 6 + n)))),
    ("an open face", |o| change_points(o, "121231", |p| p[12] += 1.0)),
    ("another frame of reference", |o| in_group(o, "121231", |i| put(i, tags::REFERENCED_FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3"))),
    ("an ellipse", |o| in_group(o, "121231", |i| put(i, tags::GRAPHIC_TYPE, VR::CS, "ELLIPSE"))),
    ("of another series", |o| in_group(o, "121232", |i| put(i, tags::UID, VR::UI, "1.2.3"))),
    ("another side", |o| {
        let path = [(tags::MEASURED_VALUE_SEQUENCE, 0)];
        let changed = DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, PrimitiveValue::from(3.25f64));
        in_group(o, "112031", |i| within(i, &path, |m| drop(m.put(changed))));
    }),
];

const REGION: [(&str, Spoil); 6] = [
    ("a rectangle one pixel to the right", |o| change_points(o, "111030", |p| p.iter_mut().step_by(2).for_each(|x| *x += 1.0))),
    ("rows and columns exchanged", |o| change_points(o, "111030", |p| p.as_chunks_mut::<2>().0.iter_mut().for_each(|p| p.reverse()))),
    ("an open rectangle", |o| change_points(o, "111030", |p| p[0] += 0.5)),
    ("the rectangle of a point", |o| in_group(o, "111030", |i| put(i, tags::GRAPHIC_TYPE, VR::CS, "POINT"))),
    ("another image of the source", |o| {
        let other = crate::codes::uid_by_name(&["test", "oblique", "instance 0"]);
        let path = [(tags::CONTENT_SEQUENCE, 0), (tags::REFERENCED_SOP_SEQUENCE, 0)];
        in_group(o, "111030", |i| within(i, &path, |r| put(r, tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &other)));
    }),
    ("another certainty", |o| {
        let changed = DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, PrimitiveValue::from(9.0f64));
        in_group(o, "111012", |i| within(i, &[(tags::MEASURED_VALUE_SEQUENCE, 0)], |m| drop(m.put(changed))));
    }),
];

const ANNOTATION: [(Tag, usize); 2] = [(tags::GRAPHIC_ANNOTATION_SEQUENCE, 0), (tags::GRAPHIC_OBJECT_SEQUENCE, 0)];

const PRESENTATION: [(&str, Spoil); 5] = [
    ("a rectangle one pixel lower", |o| {
        within(o, &ANNOTATION, |i| moved(i, |p| p.iter_mut().skip(1).step_by(2).for_each(|y| *y += 1.0)));
    }),
    ("an annotation less", |o| drop_last(o, tags::GRAPHIC_ANNOTATION_SEQUENCE)),
    ("another colour", |o| {
        within(o, &[(tags::GRAPHIC_LAYER_SEQUENCE, 0)], |i| {
            let grey = PrimitiveValue::U16([30000u16, 32896, 32896].into_iter().collect());
            i.put(DataElement::new(tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE, VR::US, grey));
        });
    }),
    ("another name", |o| within(o, &[(tags::GRAPHIC_LAYER_SEQUENCE, 0)], |i| put(i, tags::GRAPHIC_LAYER_DESCRIPTION, VR::LO, "spleen"))),
    ("no object", |o| within(o, &ANNOTATION[..1], |i| drop_last(i, tags::GRAPHIC_OBJECT_SEQUENCE))),
];

const KEY_OBJECTS: [(&str, Spoil); 1] = [("one image less", |o| drop_last(o, tags::CONTENT_SEQUENCE))];

const CAPTURE: [(&str, Spoil); 2] = [
    ("red and blue exchanged", |o| pixels(o, |bytes| bytes.as_chunks_mut::<3>().0.iter_mut().for_each(|p| p.swap(0, 2)))),
    ("one sample changed", |o| pixels(o, |bytes| bytes[1000] ^= 1)),
];

#[test]
fn every_spoilt_box_is_found() {
    let made = boxes();
    check_spoilt_of(&made, &Forms::all(), |_| {}).expect("nothing is spoilt");
    each_of_is_found(&made, "sr", "sr.dcm", &[&SURFACE]);
    each_of_is_found(&made, "sr-outlines", "sr-outlines.dcm", &[&REGION]);
    each_of_is_found(&made, "gsps", "gsps.dcm", &[&PRESENTATION]);
    each_of_is_found(&made, "ko", "ko.dcm", &[&KEY_OBJECTS]);
    each_of_is_found(&made, "sc", "sc-1.dcm", &[&CAPTURE]);
}

/// What an image shows, and where: pictures have frames in the colours of the findings, and nothing inside them.
#[test]
fn frames_are_drawn_where_boxes_are() {
    let (findings, image) = boxes();
    let forms = Forms::all();
    let context = Context::of(&findings, &image, &forms).expect("consistent");
    assert!(context.segments.all().is_empty());
    let numbers: Vec<u32> = context.key_images.iter().flat_map(|image| image.placed.iter().copied()).collect();
    assert_eq!(numbers.len(), findings.findings.len(), "each has one key image");
    let picture = crate::results::picture(&image, &findings, context.window);
    let drawn = |colour: [u8; 3]| picture.pixels().filter(|pixel| pixel.0 == colour).count();
    // Beside its square in the legend, 256 pixels.
    assert!(findings.findings.iter().any(|f| drawn(f.colour) > 300), "no frame is drawn");
}
