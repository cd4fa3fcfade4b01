//! Secondary Captures of maps: they name the image that they lie on, and are what is drawn again.

use dicom::object::InMemDicomObject;

use super::Problems;
use super::capture::{same_pixels, source_of};
use crate::dataset::Instance;
use crate::results::Context;
use crate::results::envelope::ResultObject;
use crate::results::heat::{drawn, reference_of};

/// Which map an object is of.
pub(super) fn map_of(context: &Context<'_>, reference: &ResultObject) -> Option<usize> {
    (0..context.findings.maps.len()).find(|&n| reference_of(context.findings, n) == *reference)
}

pub(super) fn check(context: &Context<'_>, n: usize, instance: &Instance, header: &InMemDicomObject, problems: &mut Problems) {
    let Some((uid, _)) = source_of(context, header, problems) else { return };
    problems.unless(context.findings.source.frames[0].instance.sop_instance_uid == uid, || "its source is another image".into());
    same_pixels(instance, &drawn(context, n), "map", problems);
}
