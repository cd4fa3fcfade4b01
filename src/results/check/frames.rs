//! Frames of a multi-frame result: each lies where the source frame does that it names, one functional group at a time.

use std::collections::HashMap;

use dicom::object::InMemDicomObject;
use rayon::prelude::*;

use super::{Problems, check_references, item};
use crate::codes::Uid;
use crate::dataset::{Attributes, FrameContext, Instance, items, tags};
use crate::geometry::{cross, norm, sub};
use crate::results::Context;

/// How far a frame may lie from the source image that it is about: positions are the source's strings.
const POSITION_TOLERANCE_MM: f64 = 0.01;
/// The same for direction cosines and spacings.
const TOLERANCE: f64 = 1e-4;
/// By how much the volume of a voxel may differ, as a part: spacings are decimal strings.
const VOLUME_TOLERANCE: f64 = 1e-4;

/// The frames of an object, and what they share.
pub(super) struct Frames {
    pub(super) found: Vec<Found>,
    /// Of the first frame; those of all are the source's. None where the source lies nowhere.
    pub(super) plane: Option<Plane>,
}

/// A plane in the patient, as the object has it.
pub(super) struct Plane {
    pub(super) orientation: [f64; 6],
    /// Between rows, between columns.
    pub(super) spacing_mm: [f64; 2],
    between_slices_mm: Option<f64>,
}

/// A frame: its place in the object and in the source, and of which segment it says that it is.
pub(super) struct Found {
    pub(super) n: usize,
    /// Its place in `Source::frames`.
    pub(super) source: usize,
    /// Of the centre of its first pixel; zero where the source lies nowhere.
    pub(super) position_mm: [f64; 3],
    /// 0 for none.
    pub(super) segment: u32,
}

/// Places of the frames of `Source::frames`, by instance and number.
type Images<'a> = HashMap<(&'a str, u32), usize>;

/// Every frame of the object; none where it cannot be told what they are.
pub(super) fn frames(
    context: &Context<'_>,
    instance: &Instance,
    header: &InMemDicomObject,
    known: &HashMap<&str, &str>,
    problems: &mut Problems,
) -> Option<Frames> {
    let dims = context.findings.labels.grid().dims();
    if [instance.columns, instance.rows] != dims[..2] {
        problems.add(format!("frames of {} x {} pixels, not {} x {}", instance.columns, instance.rows, dims[0], dims[1]));
        return None;
    }
    let count = instance.attributes.frame_count();
    if count == 0 || count != instance.frames as usize {
        problems.add(format!("{} frames with the description of {count}", instance.frames));
        return None;
    }
    let frame_of_reference: &Uid = &context.findings.source.instances[0].frame_of_reference_uid;
    let in_patient = context.findings.source.lies_in_patient();
    problems.unless(!in_patient || header.text(tags::FRAME_OF_REFERENCE_UID) == *frame_of_reference, || {
        "Frame of Reference UID is not the source's".into()
    });
    let images: Images<'_> = context
        .findings
        .source
        .frames
        .iter()
        .zip(0..)
        .map(|(frame, n)| ((frame.instance.sop_instance_uid.as_str(), frame.number), n))
        .collect();
    let shared = items(header, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    let read = |n: usize| {
        let mut problems = Problems::default();
        let Some(groups) = instance.attributes.frame_groups(n) else {
            problems.add(format!("the description of frame {} cannot be parsed again", n + 1));
            return (None, problems);
        };
        check_references(&groups, known, 1, &mut problems);
        let groups = FrameContext { per_frame: Some(&groups), shared, root: header };
        let found = place(context, &images, &groups, n, &mut problems);
        (found.map(|found| (found, (n == 0).then(|| plane(&groups)).flatten())), problems)
    };
    let read: Vec<_> = (0..count).into_par_iter().map(read).collect();
    let mut all = Frames { found: Vec::with_capacity(count), plane: None };
    for (found, of_frame) in read {
        of_frame.0.into_iter().for_each(|problem| problems.add(problem));
        if let Some((found, plane)) = found {
            all.found.push(found);
            all.plane = all.plane.or(plane);
        }
    }
    if let Some(plane) = &all.plane {
        check_voxel(context, plane, problems);
    }
    Some(all)
}

/// A voxel has the volume that it has in the label map, where the object says how far slices are apart.
fn check_voxel(context: &Context<'_>, plane: &Plane, problems: &mut Problems) {
    let Some(between_slices_mm) = plane.between_slices_mm else { return };
    let [a, b, c, d, e, f] = plane.orientation;
    let voxel_mm3 = norm(cross([a, b, c], [d, e, f])) * plane.spacing_mm[0] * plane.spacing_mm[1] * between_slices_mm;
    let ratio = voxel_mm3 / context.findings.labels.grid().voxel_volume_mm3();
    problems.unless((ratio - 1.0).abs() <= VOLUME_TOLERANCE, || format!("its voxels have {ratio:.6} times their volume"));
}

/// Where the frame lies, if that is where a source image does which it names.
fn place(context: &Context<'_>, images: &Images<'_>, groups: &FrameContext<'_>, n: usize, problems: &mut Problems) -> Option<Found> {
    let at = n + 1;
    let image = groups.per_frame.and_then(|f| item(item(f, tags::DERIVATION_IMAGE_SEQUENCE)?, tags::SOURCE_IMAGE_SEQUENCE));
    let Some(image) = image else {
        problems.add(format!("frame {at} names no source image"));
        return None;
    };
    let (uid, number) = (image.text(tags::REFERENCED_SOP_INSTANCE_UID), image.count(tags::REFERENCED_FRAME_NUMBER).max(1));
    let Some(&source) = images.get(&(uid.as_str(), number)) else {
        problems.add(format!("frame {at} names a source image that was not analysed"));
        return None;
    };
    let there = &context.findings.source.frames[source];
    let segment = groups.holder(tags::REFERENCED_SEGMENT_NUMBER).map_or(0, |h| h.count(tags::REFERENCED_SEGMENT_NUMBER));
    let position = groups.holder(tags::IMAGE_POSITION_PATIENT).and_then(|h| h.numbers::<3>(tags::IMAGE_POSITION_PATIENT));
    let position_mm = match (position, there.position_mm) {
        (Some(position_mm), Some(there_mm)) => {
            check_plane(context, groups, source, n, position_mm, problems);
            let off_mm = norm(sub(there_mm, position_mm));
            problems.unless(off_mm <= POSITION_TOLERANCE_MM, || format!("frame {at} lies {off_mm:.3} mm from its source image"));
            position_mm
        }
        (None, None) => [0.0; 3],
        (None, Some(_)) => {
            problems.add(format!("frame {at} has no place"));
            return None;
        }
        (Some(_), None) => {
            problems.add(format!("frame {at} has a place, but its source image lies nowhere"));
            return None;
        }
    };
    Some(Found { n, source, position_mm, segment })
}

/// The frame lies at its slice of the label map, in the plane of its source image.
fn check_plane(context: &Context<'_>, groups: &FrameContext<'_>, source: usize, n: usize, position_mm: [f64; 3], problems: &mut Problems) {
    let at = n + 1;
    let slice = f64::from(context.findings.source.slice_of_frame[source]);
    let off_slices = (context.findings.labels.grid().voxel_from_lps().apply(position_mm)[2] - slice).abs();
    problems.unless(off_slices < 1.0, || format!("frame {at} lies {off_slices:.2} slices from its own"));
    let there = &context.findings.source.frames[source];
    let same = |tag, expected: Option<&[f64]>| {
        let found = groups.holder(tag).and_then(|holder| holder.all_numbers(tag));
        let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= TOLERANCE);
        found.zip(expected).is_some_and(|(found, expected)| close(&found, expected))
    };
    let orientation = there.orientation.as_ref().map(<[f64; 6]>::as_slice);
    problems.unless(same(tags::IMAGE_ORIENTATION_PATIENT, orientation), || format!("frame {at} is turned against its source image"));
    let spacing = there.pixel_spacing_mm.as_ref().map(<[f64; 2]>::as_slice);
    problems.unless(same(tags::PIXEL_SPACING, spacing), || format!("frame {at} has another pixel spacing than its source image"));
}

fn plane(groups: &FrameContext<'_>) -> Option<Plane> {
    let spacing = tags::SPACING_BETWEEN_SLICES;
    Some(Plane {
        orientation: groups.holder(tags::IMAGE_ORIENTATION_PATIENT)?.numbers(tags::IMAGE_ORIENTATION_PATIENT)?,
        spacing_mm: groups.holder(tags::PIXEL_SPACING)?.numbers(tags::PIXEL_SPACING)?,
        between_slices_mm: groups.holder(spacing).and_then(|holder| holder.number(spacing)),
    })
}
