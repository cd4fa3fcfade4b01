//! Which findings become segments, and under which number.
//!
//! The label map keeps the numbers of the model package; a Segmentation numbers its segments 1, 2, 3 without gaps
//! (PS3.3 table C.8.20-4) and holds no empty ones. Where a finding is absent the two numberings differ, so both SR and SEG take
//! theirs from here.

use rayon::prelude::*;

use super::ResultsError;
use crate::dataset::Frame;
use crate::findings::{Finding, Findings, SegmentNumber};

/// The segments of a Segmentation, in the order of the findings. A researcher's volume has no frames and so none: its label map is written
/// as it is.
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
    /// Source frames with at least one voxel, by their place in `Source::frames`, ascending; at least one.
    pub(super) frames: Vec<u32>,
    /// Voxels on each of these.
    pub(super) areas: Vec<u32>,
}

impl<'a> Segments<'a> {
    /// Numbers the findings that are present and have a region.
    ///
    /// # Errors
    /// Where label map and findings contradict each other, or the label map does not lie on the source instances.
    pub(super) fn of(findings: &'a Findings) -> Result<Self, ResultsError> {
        if findings.source.file.is_none() {
            check_source(findings)?;
        }
        let dims = findings.labels.grid().dims();
        let areas: Vec<[u32; 256]> = (0..dims[2] as usize).into_par_iter().map(|k| areas_in(findings.labels.slice(k))).collect();
        let has_voxels = |label: SegmentNumber| areas.iter().any(|areas| areas[usize::from(label)] > 0);
        let mut described = [false; 256];
        described[0] = true;
        let mut segments = Vec::new();
        for finding in &findings.findings {
            let Some(label) = finding.segment else { continue };
            let wrong = |problem| Err(ResultsError::Contradiction { label, problem });
            if std::mem::replace(&mut described[usize::from(label)], true) {
                return wrong("is background, or that of two findings");
            }
            match (finding.present, has_voxels(label)) {
                (true, false) => return wrong("has no voxel, but its finding is present"),
                (false, true) => return wrong("has voxels, but its finding is absent"),
                (false, false) => {}
                (true, true) => {
                    let slices = findings.source.slice_of_frame.iter();
                    let area = |k: u32| areas[k as usize][usize::from(label)];
                    let shown = (0..).zip(slices).map(|(n, &k)| (n, area(k))).filter(|&(_, area)| area > 0);
                    let (frames, areas): (Vec<u32>, Vec<u32>) = shown.unzip();
                    // A region that lies between unevenly spaced slices alone has no frame to be shown on.
                    if !frames.is_empty() {
                        segments.push(Segment { number: segments.len() as u32 + 1, label, finding, frames, areas });
                    }
                }
            }
        }
        for label in 1..=SegmentNumber::MAX {
            if !described[usize::from(label)] && has_voxels(label) {
                return Err(ResultsError::Contradiction { label, problem: "has voxels, but no finding" });
            }
        }
        Ok(Self { segments })
    }

    /// As [`Segments::of`], for a DICOM object.
    pub(super) fn for_objects(findings: &'a Findings) -> Result<Self, ResultsError> {
        match &findings.source.file {
            Some(file) => Err(ResultsError::NoInstances { format: file.format.name() }),
            None => Self::of(findings),
        }
    }

    /// All segments, by number.
    pub(super) fn all(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// The segment of that number; none where there is none.
    pub(super) fn by_number(&self, number: u32) -> Option<&Segment<'a>> {
        self.segments.get((number as usize).checked_sub(1)?)
    }

    /// Segment Number of a finding; none where it has no segment.
    pub(super) fn number_of(&self, finding: &Finding) -> Option<u32> {
        self.segments.iter().find(|segment| std::ptr::eq(segment.finding, finding)).map(|segment| segment.number)
    }
}

/// A slice of the label map for each frame, of its size, each instance with the UIDs by which results refer to it.
fn check_source(findings: &Findings) -> Result<(), ResultsError> {
    let dims = findings.labels.grid().dims();
    let (frames, slices) = (&findings.source.frames, &findings.source.slice_of_frame);
    let fits = |f: &Frame| f.instance.columns == dims[0] && f.instance.rows == dims[1];
    let misfit = frames.iter().find(|f| !fits(f));
    if frames.is_empty() || frames.len() != slices.len() || slices.iter().any(|&k| k >= dims[2]) || misfit.is_some() {
        let (columns, rows) = misfit.or(frames.first()).map_or((0, 0), |f| (f.instance.columns, f.instance.rows));
        return Err(ResultsError::SourceMismatch { dims, frames: frames.len(), columns, rows });
    }
    // Slices lie in the patient, in one frame of reference; radiographs lie nowhere.
    let placed = |f: &Frame| f.position_mm.is_some() && f.orientation.is_some() && f.pixel_spacing_mm.is_some();
    let in_patient = findings.source.lies_in_patient();
    if frames.iter().any(|f| placed(f) != in_patient) {
        return Err(ResultsError::SourceLacks { attribute: "position, orientation or pixel spacing" });
    }
    for frame in frames {
        let instance = &frame.instance;
        let needed = [
            (&instance.sop_class_uid, "SOP Class UID"),
            (&instance.sop_instance_uid, "SOP Instance UID"),
            (&instance.series_uid, "Series Instance UID"),
            (&instance.study_uid, "Study Instance UID"),
            (&instance.frame_of_reference_uid, "Frame of Reference UID"),
        ];
        let needed = if in_patient { needed.as_slice() } else { &needed[..4] };
        if let Some((_, attribute)) = needed.iter().find(|(uid, _)| uid.is_empty()) {
            return Err(ResultsError::SourceLacks { attribute });
        }
    }
    Ok(())
}

/// Voxels of each label.
fn areas_in(slice: &[u8]) -> [u32; 256] {
    let mut areas = [0; 256];
    // Most of an image is one label for long.
    let (runs, rest) = slice.as_chunks::<64>();
    for run in runs {
        if *run == [run[0]; 64] {
            areas[usize::from(run[0])] += 64;
        } else {
            run.iter().for_each(|&label| areas[usize::from(label)] += 1);
        }
    }
    rest.iter().for_each(|&label| areas[usize::from(label)] += 1);
    areas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_counts() {
        let slice: Vec<u8> = (0..1000usize).map(|n| if n < 300 { 7 } else { (n % 5) as u8 }).collect();
        let areas = areas_in(&slice);
        for label in 0..=255u8 {
            assert_eq!(areas[usize::from(label)] as usize, slice.iter().filter(|&&l| l == label).count(), "{label}");
        }
    }
}
