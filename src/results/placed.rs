//! Findings that are boxes or points, on the images of the source.

use crate::findings::{Finding, Findings, Place};

/// A finding that is there and is a box or a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    /// From 1, in the order of the findings.
    pub(super) number: u32,
    pub(super) finding: &'a Finding,
    pub(super) place: &'a Place,
}

/// All of them.
pub(super) fn placed(findings: &Findings) -> impl Iterator<Item = Placed<'_>> {
    let there = findings.findings.iter().filter(|finding| finding.present);
    let with_place = there.filter_map(|finding| Some((finding, finding.place.as_ref()?)));
    (1..).zip(with_place).map(|(number, (finding, place))| Placed { number, finding, place })
}

/// That of a number.
pub(super) fn by_number(findings: &Findings, number: u32) -> Option<Placed<'_>> {
    placed(findings).find(|one| one.number == number)
}

impl Placed<'_> {
    /// The frame of the source nearest to its centre, by its place in `Source::frames`, the first of several; none where there are no frames,
    /// or the images lie nowhere in the patient.
    pub(super) fn frame(&self, findings: &Findings) -> Option<u32> {
        if !findings.source.lies_in_patient() {
            return None;
        }
        let [_, _, k] = self.place.centre_in(findings.labels.grid());
        let slices = findings.source.slice_of_frame.iter().map(|&slice| (f64::from(slice) - k).abs());
        let nearest = (0..).zip(slices).min_by(|(n, a), (m, b)| a.total_cmp(b).then(n.cmp(m)));
        nearest.map(|(frame, _)| frame)
    }

    /// Whether a frame shows it.
    pub(super) fn is_on(&self, findings: &Findings, frame: u32) -> bool {
        let slice = findings.source.slice_of_frame[frame as usize];
        self.frame(findings) == Some(frame) || self.place.section(findings.labels.grid(), 2, slice).is_some()
    }

    /// Where it lies on a frame, in pixels with 0.0 at the outer corner of the first (PS3.3 C.18.6): left and right, top and bottom, within the
    /// image.
    pub(super) fn rectangle(&self, findings: &Findings, frame: u32) -> [[f64; 2]; 2] {
        let grid = findings.labels.grid();
        let ends = self.place.projection(grid, 2, findings.source.slice_of_frame[frame as usize]);
        std::array::from_fn(|n| ends[n].map(|at| (at + 0.5).clamp(0.0, f64::from(grid.dims()[n]))))
    }

    /// The corners of that, in a circle and closed.
    pub(super) fn outline(&self, findings: &Findings, frame: u32) -> Vec<[f32; 2]> {
        let [[left, right], [top, bottom]] = self.rectangle(findings, frame).map(|ends| ends.map(|at| at as f32));
        vec![[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    }

    /// Its centre on a frame, in the same pixels.
    pub(super) fn point(&self, findings: &Findings, frame: u32) -> [f32; 2] {
        let grid = findings.labels.grid();
        let at = self.place.point_on(grid, 2, findings.source.slice_of_frame[frame as usize]);
        std::array::from_fn(|n| (at[n] + 0.5).clamp(0.0, f64::from(grid.dims()[n])) as f32)
    }
}
