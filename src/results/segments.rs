//! Which findings become segments, and under which number.
//!
//! The label map keeps the numbers of the model package; a Segmentation numbers its segments 1, 2, 3 without gaps
//! (PS3.3 table C.8.20-4) and holds no empty ones. Where a finding is absent the two numberings differ, so both SR and SEG take
//! theirs from here.

use rayon::prelude::*;

use super::ResultsError;
use crate::findings::{Finding, Findings, SegmentNumber};

/// The segments of a Segmentation, in the order of the findings.
#[derive(Debug)]
pub(super) struct Segments<'a> {
    segments: Vec<Segment<'a>>,
}

/// One finding that is present and has a region.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    /// Segment Number (0062,0004): 1, 2, 3, ..
    pub(super) number: u32,
    /// Its value in the label map.
    pub(super) label: SegmentNumber,
    /// What it is.
    pub(super) finding: &'a Finding,
    /// Slices k with at least one voxel, ascending; at least one.
    pub(super) slices: Vec<u32>,
}

impl<'a> Segments<'a> {
    /// Numbers the findings that are present and have a region.
    ///
    /// # Errors
    /// Where label map and findings contradict each other, or the label map does not lie on the source instances.
    pub(super) fn of(findings: &'a Findings) -> Result<Self, ResultsError> {
        check_source(findings)?;
        let dims = findings.labels.grid().dims();
        let seen_in: Vec<[bool; 256]> = (0..dims[2] as usize).into_par_iter().map(|k| labels_in(findings.labels.slice(k))).collect();
        let mut described = [false; 256];
        described[0] = true;
        let mut segments = Vec::new();
        for finding in &findings.findings {
            let Some(label) = finding.segment else { continue };
            let wrong = |problem| Err(ResultsError::Contradiction { label, problem });
            if std::mem::replace(&mut described[usize::from(label)], true) {
                return wrong("is background, or that of two findings");
            }
            let slices: Vec<u32> = (0..dims[2]).filter(|&k| seen_in[k as usize][usize::from(label)]).collect();
            match (finding.present, slices.is_empty()) {
                (true, true) => return wrong("has no voxel, but its finding is present"),
                (false, false) => return wrong("has voxels, but its finding is absent"),
                (false, true) => {}
                (true, false) => segments.push(Segment { number: segments.len() as u32 + 1, label, finding, slices }),
            }
        }
        for label in 1..=SegmentNumber::MAX {
            if !described[usize::from(label)] && seen_in.iter().any(|seen| seen[usize::from(label)]) {
                return Err(ResultsError::Contradiction { label, problem: "has voxels, but no finding" });
            }
        }
        Ok(Self { segments })
    }

    /// All segments, by number.
    pub(super) fn all(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// Segment Number of a finding; none where it has no segment.
    pub(super) fn number_of(&self, finding: &Finding) -> Option<u32> {
        self.segments.iter().find(|segment| std::ptr::eq(segment.finding, finding)).map(|segment| segment.number)
    }
}

/// One single-frame instance a slice, of the label map's size, each with the UIDs by which results refer to it.
fn check_source(findings: &Findings) -> Result<(), ResultsError> {
    let dims = findings.labels.grid().dims();
    let instances = &findings.source.instances;
    let fits = |n: usize| instances[n].columns == dims[0] && instances[n].rows == dims[1] && instances[n].frames == 1;
    let misfit = (0..instances.len()).find(|&n| !fits(n));
    if instances.len() != dims[2] as usize || misfit.is_some() {
        let (columns, rows) = instances.get(misfit.unwrap_or(0)).map_or((0, 0), |i| (i.columns, i.rows));
        return Err(ResultsError::SourceMismatch { dims, instances: instances.len(), columns, rows });
    }
    for instance in instances {
        let needed = [
            (&instance.sop_class_uid, "SOP Class UID"),
            (&instance.sop_instance_uid, "SOP Instance UID"),
            (&instance.series_uid, "Series Instance UID"),
            (&instance.study_uid, "Study Instance UID"),
            (&instance.frame_of_reference_uid, "Frame of Reference UID"),
        ];
        if let Some((_, attribute)) = needed.into_iter().find(|(uid, _)| uid.is_empty()) {
            return Err(ResultsError::SourceLacks { attribute });
        }
        if instance.position_mm.is_none() || instance.orientation.is_none() || instance.pixel_spacing_mm.is_none() {
            return Err(ResultsError::SourceLacks { attribute: "position, orientation or pixel spacing" });
        }
    }
    Ok(())
}

/// Which labels occur.
fn labels_in(slice: &[u8]) -> [bool; 256] {
    let mut seen = [false; 256];
    for run in slice.chunks(64) {
        // Most of an image is one label for long: compare before storing.
        let first = run[0];
        seen[usize::from(first)] = true;
        if run.iter().any(|&label| label != first) {
            run.iter().for_each(|&label| seen[usize::from(label)] = true);
        }
    }
    seen
}
