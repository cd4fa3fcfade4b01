//! Boxes and points: what objects say of where they lie is where they were found, by the source's own geometry.

use std::collections::HashSet;

use dicom::object::InMemDicomObject;

use super::report::child;
use super::{code, is_code, item, source_frames};
use crate::codes::dcm;
use crate::dataset::{Attributes, Frame, items, tags};
use crate::findings::{Extent, Finding, Place};
use crate::geometry::{cross, dot, norm, sub};
use crate::results::Context;

/// How far single precision may be off, mm.
const ROUNDING_MM: f64 = 0.001;

/// Whether the surface of a group (TID 1411) is the box, face by face, or the point, of its finding.
pub(super) fn is_surface(context: &Context<'_>, group: &InMemDicomObject, place: &Place) -> bool {
    let source = &context.findings.source.instances[0];
    let is_surface = |i: &&InMemDicomObject| is_code(code(i, tags::CONCEPT_NAME_CODE_SEQUENCE).as_ref(), &dcm::VOLUME_SURFACE);
    let surfaces: Vec<&InMemDicomObject> = items(group, tags::CONTENT_SEQUENCE).iter().filter(is_surface).collect();
    let in_frame = |i: &&InMemDicomObject| i.text(tags::REFERENCED_FRAME_OF_REFERENCE_UID) == source.frame_of_reference_uid;
    let of_series = child(group, &dcm::SOURCE_SERIES_FOR_SEGMENTATION).map(|i| i.text(tags::UID));
    if !surfaces.iter().all(in_frame) || of_series.as_deref() != Some(&source.series_uid) {
        return false;
    }
    let points = |i: &InMemDicomObject| i.all_numbers(tags::GRAPHIC_DATA).unwrap_or_default().as_chunks::<3>().0.to_vec();
    match &place.extent {
        None => {
            let [one] = surfaces.as_slice() else { return false };
            one.text(tags::GRAPHIC_TYPE) == "POINT"
                && matches!(points(one).as_slice(), [at] if norm(sub(*at, place.centre_lps_mm)) <= tolerance_mm(*at))
        }
        Some(extent) => {
            let faces: Option<Vec<(usize, bool)>> = surfaces
                .iter()
                .map(|i| face(place.centre_lps_mm, extent, &points(i)).filter(|_| i.text(tags::GRAPHIC_TYPE) == "POLYGON"))
                .collect();
            let all = (0..3).flat_map(|n| [(n, false), (n, true)]);
            faces.is_some_and(|faces| faces.len() == 6 && all.into_iter().all(|face| faces.contains(&face)))
        }
    }
}

fn tolerance_mm(at: [f64; 3]) -> f64 {
    ROUNDING_MM + 1e-6 * norm(at)
}

/// Which face of a box a closed polygon is: across which axis, and whether at its far end. `None`: it is none.
fn face(centre: [f64; 3], extent: &Extent, points: &[[f64; 3]]) -> Option<(usize, bool)> {
    let [a, b, c, d, closing] = points else { return None };
    if a != closing {
        return None;
    }
    let tolerance = tolerance_mm(*a);
    let along: [[f64; 3]; 4] = [a, b, c, d].map(|&at| extent.axes_lps.map(|axis| dot(sub(at, centre), axis)));
    let is_corner = |at: &[f64; 3]| (0..3).all(|n| (at[n].abs() - extent.sides_mm[n] / 2.0).abs() <= tolerance);
    let axis = (0..3).find(|&n| along.iter().all(|at| (at[n] > 0.0) == (along[0][n] > 0.0)))?;
    // Of neighbours one coordinate differs, of those across both others: a polygon that does not cross itself.
    let differ = |x: usize, y: usize| (0..3).filter(|&n| (along[x][n] > 0.0) != (along[y][n] > 0.0)).count();
    let is_circle = (0..4).all(|n| differ(n, (n + 1) % 4) == 1) && differ(0, 2) == 2 && differ(1, 3) == 2;
    (along.iter().all(is_corner) && is_circle).then_some((axis, along[0][axis] > 0.0))
}

/// Whether the region of a group (TID 1410) is where the frame that it names cuts the box, or lies nearest to the point.
pub(super) fn is_region(context: &Context<'_>, group: &InMemDicomObject, finding: &Finding) -> bool {
    let Some((region, place)) = child(group, &dcm::IMAGE_REGION).zip(finding.place.as_ref()) else { return false };
    let source = item(region, tags::CONTENT_SEQUENCE).and_then(|i| item(i, tags::REFERENCED_SOP_SEQUENCE));
    let frames = source.map(|reference| source_frames(context, reference)).unwrap_or_default();
    let [frame] = frames.as_slice() else { return false };
    let wanted = if place.extent.is_some() { "POLYLINE" } else { "POINT" };
    let points = region.all_numbers(tags::GRAPHIC_DATA).unwrap_or_default().as_chunks::<2>().0.to_vec();
    region.text(tags::GRAPHIC_TYPE) == wanted && is_marked(context, place, *frame, &points)
}

/// Whether points on a frame, in pixels, mark where it cuts the box or lies at the point; the frame is the nearest to its centre, or cuts it.
pub(super) fn is_marked(context: &Context<'_>, place: &Place, n: usize, points: &[[f64; 2]]) -> bool {
    let frames = &context.findings.source.frames;
    let (frame, spacing_mm) = (&frames[n], context.findings.labels.grid().spacing_mm());
    let away = |frame: &Frame| normal(frame).zip(frame.position_mm).map(|(normal, at)| dot(sub(place.centre_lps_mm, at), normal).abs());
    let Some((own, nearest)) = away(frame).zip(frames.iter().filter_map(away).min_by(f64::total_cmp)) else { return false };
    // Slices may lie a hundredth of their distance from where they should.
    let slack = 0.01 + 0.02 * spacing_mm.into_iter().fold(0.0, f64::max);
    let Some(lps) = points.iter().map(|&point| lps_mm(frame, point)).collect::<Option<Vec<_>>>() else { return false };
    let within = |at: &[f64; 2]| {
        (0.0..=f64::from(frame.instance.columns)).contains(&at[0]) && (0.0..=f64::from(frame.instance.rows)).contains(&at[1])
    };
    let Some(extent) = &place.extent else {
        let across = |at: &[f64; 3]| {
            let off = sub(*at, place.centre_lps_mm);
            (dot(off, off) - own * own).max(0.0).sqrt()
        };
        return own <= nearest + slack && points.iter().all(within) && matches!(lps.as_slice(), [at] if across(at) <= slack);
    };
    let Some(normal) = normal(frame) else { return false };
    let along = |n: usize| dot(extent.axes_lps[n], normal).abs();
    let through = (0..3).max_by(|&a, &b| along(a).total_cmp(&along(b))).expect("three axes");
    let slack = slack + 0.002 * extent.sides_mm.into_iter().fold(0.0, f64::max);
    let is_edge = |at: f64, count: u32| at == 0.0 || at == f64::from(count);
    let is_corner = |(point, lps): (&[f64; 2], &[f64; 3])| {
        let off = sub(*lps, place.centre_lps_mm);
        let at_edge = is_edge(point[0], frame.instance.columns) || is_edge(point[1], frame.instance.rows);
        (0..3).filter(|&n| n != through).all(|n| {
            let (at, half) = (dot(off, extent.axes_lps[n]).abs(), extent.sides_mm[n] / 2.0);
            (at - half).abs() <= slack || (at_edge && at <= half + slack)
        })
    };
    let side = |at: &[f64; 3], n: usize| dot(sub(*at, place.centre_lps_mm), extent.axes_lps[n]) > 0.0;
    let sides = |at: &[f64; 3]| (0..3).filter(|&n| n != through).map(|n| side(at, n)).collect::<Vec<bool>>();
    let corners: HashSet<Vec<bool>> = lps.iter().map(sides).collect();
    let cuts = own <= nearest + slack || own <= extent.sides_mm[through] / 2.0 + slack;
    let is_closed = points.len() == 5 && points.first() == points.last();
    cuts && is_closed && corners.len() == 4 && points.iter().all(within) && points.iter().zip(&lps).all(is_corner)
}

/// Where a point of a frame lies, in pixels with 0.0 at the outer corner of the first.
fn lps_mm(frame: &Frame, [column, row]: [f64; 2]) -> Option<[f64; 3]> {
    let (position, orientation, [down, across]) = (frame.position_mm?, frame.orientation?, frame.pixel_spacing_mm?);
    let (right, below) = ((column - 0.5) * across, (row - 0.5) * down);
    Some(std::array::from_fn(|n| position[n] + orientation[n] * right + orientation[3 + n] * below))
}

fn normal(frame: &Frame) -> Option<[f64; 3]> {
    let [a, b, c, d, e, f] = frame.orientation?;
    let normal = cross([a, b, c], [d, e, f]);
    Some(normal.map(|v| v / norm(normal)))
}
