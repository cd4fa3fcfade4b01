//! Key Object Selections: of every segment the image that shows most of it, of every box and point the nearest one, and no others.

use std::collections::BTreeSet;

use dicom::object::InMemDicomObject;
use rayon::prelude::*;

use super::report::{check_evidence, child};
use super::{Problems, code, is_code, item, source_frames};
use crate::codes::dcm;
use crate::dataset::{Attributes, Frame, items, tags};
use crate::findings::Place;
use crate::geometry::{cross, dot, sub};
use crate::results::Context;
use crate::results::placed::placed;
use crate::results::segments::Segment;

pub(super) fn check(context: &Context<'_>, header: &InMemDicomObject, problems: &mut Problems) {
    check_evidence(header, problems);
    let title = code(header, tags::CONCEPT_NAME_CODE_SEQUENCE);
    problems.unless(is_code(title.as_ref(), &dcm::OF_INTEREST), || "it has another title".into());
    let template = item(header, tags::CONTENT_TEMPLATE_SEQUENCE).map(|t| t.text(tags::TEMPLATE_IDENTIFIER));
    problems.unless(template.as_deref() == Some("2010"), || "it is of another template".into());
    let observer = child(header, &dcm::OBSERVER_TYPE).and_then(|i| code(i, tags::CONCEPT_CODE_SEQUENCE));
    problems.unless(is_code(observer.as_ref(), &dcm::DEVICE), || "its observer is no device".into());
    problems.unless(child(header, &dcm::KEY_OBJECT_DESCRIPTION).is_some(), || "it has no description".into());

    let images: Vec<_> = items(header, tags::CONTENT_SEQUENCE).iter().filter(|i| i.text(tags::VALUE_TYPE) == "IMAGE").collect();
    problems.unless(images.iter().all(|i| !i.has(tags::CONCEPT_NAME_CODE_SEQUENCE)), || "an image has a concept name".into());
    let selected: Vec<Vec<usize>> =
        images.iter().filter_map(|i| item(i, tags::REFERENCED_SOP_SEQUENCE)).map(|image| source_frames(context, image)).collect();
    problems.unless(selected.iter().all(|frames| !frames.is_empty()), || "an image was not analysed".into());
    let distinct: BTreeSet<usize> = selected.iter().flatten().copied().collect();
    problems.unless(distinct.len() == selected.iter().flatten().count(), || "an image is selected twice".into());
    let mut needed = BTreeSet::new();
    for segment in context.segments.all() {
        let best = best_frames(context, segment);
        problems.unless(!best.is_disjoint(&distinct), || format!("the image that shows most of segment {} is missing", segment.number));
        needed.extend(best);
    }
    for one in placed(context.findings) {
        let nearest = nearest_frames(context, one.place);
        problems.unless(!nearest.is_disjoint(&distinct), || format!("the image nearest to `{}` is missing", one.finding.name));
        needed.extend(nearest);
    }
    let idle = distinct.difference(&needed).count();
    problems.unless(idle == 0, || format!("{idle} images show nothing best"));
}

/// The frames with the most voxels of a segment.
fn best_frames(context: &Context<'_>, segment: &Segment<'_>) -> BTreeSet<usize> {
    let findings = context.findings;
    let voxels = |&n: &u32| {
        let slice = findings.labels.slice(findings.source.slice_of_frame[n as usize] as usize);
        (n as usize, slice.iter().filter(|&&label| label == segment.label).count())
    };
    let areas: Vec<(usize, usize)> = segment.frames.par_iter().map(voxels).collect();
    let most = areas.iter().map(|(_, area)| *area).max().unwrap_or_default();
    areas.into_iter().filter(|(_, area)| *area == most).map(|(n, _)| n).collect()
}

/// The frames nearest to the centre of a box or a point, along their normal; of several that are as near to a hundredth of their distance, all.
fn nearest_frames(context: &Context<'_>, place: &Place) -> BTreeSet<usize> {
    let away = |frame: &Frame| {
        let ([a, b, c, d, e, f], position) = (frame.orientation?, frame.position_mm?);
        Some(dot(sub(place.centre_lps_mm, position), cross([a, b, c], [d, e, f])).abs())
    };
    let all: Vec<f64> = context.findings.source.frames.iter().map(|frame| away(frame).unwrap_or(f64::INFINITY)).collect();
    let nearest = all.iter().copied().fold(f64::INFINITY, f64::min);
    let slack = 0.01 + 0.02 * context.findings.labels.grid().spacing_mm()[2];
    (0..).zip(all).filter(|(_, away)| *away <= nearest + slack).map(|(n, _)| n).collect()
}
