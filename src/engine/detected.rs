//! Boxes and points: those that are of one object brought together, and each a finding with its place in the patient.

use super::found::{Found, found};
use crate::codes::{Code, other, ucum};
use crate::findings::{Extent, Finding, Findings, Measurement, Place};
use crate::geometry::Grid;
use crate::infer::{Detected, ScoredBox};
use crate::model::Manifest;
use crate::postprocess::suppressed;

/// The objects that a network's boxes are of.
pub(super) struct Objects {
    /// For each finding of the package its boxes, the one with the highest score first.
    of_findings: Vec<Vec<ScoredBox>>,
    grid: Grid,
    /// What the reader of a result should know.
    pub(super) warnings: Vec<String>,
    /// Of what was not looked at, since it is nowhere.
    pub(super) note: Option<String>,
}

/// Brings the boxes together that are of one object. Those with their centre outside of `source`, where the network's grid has corners that
/// the images do not reach, are left out.
pub(super) fn objects(manifest: &Manifest, detected: Detected, source: &Grid) -> Objects {
    let Detected { grid, mut boxes, left_out, mut beyond, .. } = detected;
    let suppression = manifest.output.boxes.as_ref().and_then(|boxes| boxes.suppression());
    let suppression = suppression.expect("the manifest was checked: it says which boxes are one");
    let source_from_network = source.voxel_from_lps() * grid.lps_from_voxel();
    let found = boxes.len();
    boxes.retain(|one| source.has(source_from_network.apply(one.centre()), 0.0));
    beyond += found - boxes.len();
    let kept = suppressed(boxes, grid.spacing_mm(), suppression);
    let of = |channel: usize| kept.iter().copied().filter(|one| one.channel == channel).collect();
    let warning = format!(
        "the network gave more boxes than are looked at: {} with scores up to {:.3} were left out, those with higher scores were not",
        left_out.count, left_out.highest
    );
    Objects {
        of_findings: manifest.finding.iter().map(|finding| of(finding.channel)).collect(),
        grid,
        warnings: (left_out.count > 0).then_some(warning).into_iter().collect(),
        note: (beyond > 0).then(|| format!("{beyond} boxes had their centre outside of the image, and were left out")),
    }
}

impl Objects {
    /// The findings of a package as they were found, and a warning for each of which there are more than are reported.
    pub(super) fn found<'a>(&self, manifest: &'a Manifest) -> (Vec<(Found<'a>, Option<Place>)>, Vec<String>) {
        let scores: Vec<Option<Vec<f32>>> =
            self.of_findings.iter().map(|boxes| Some(boxes.iter().map(|one| one.score).collect())).collect();
        let (found, warnings) = found(&manifest.finding, &scores);
        let mut places = self.of_findings.iter().zip(&manifest.finding).flat_map(|(boxes, finding)| {
            let most = finding.instances.as_ref().map_or(0, |instances| usize::from(instances.max_count));
            boxes.iter().take(most)
        });
        let placed = found.into_iter().map(|found| {
            let place = found.score.and_then(|_| places.next()).map(|one| place(one, &self.grid));
            (found, place)
        });
        (placed.collect(), warnings)
    }
}

/// Where a box of the network's grid lies in the patient.
fn place(one: &ScoredBox, grid: &Grid) -> Place {
    let (affine, spacing_mm) = (grid.lps_from_voxel(), grid.spacing_mm());
    let extent = (one.low != one.high).then(|| Extent {
        axes_lps: std::array::from_fn(|n| affine.column(n).map(|v| v / spacing_mm[n])),
        sides_mm: std::array::from_fn(|n| (one.high[n] - one.low[n]) * spacing_mm[n]),
    });
    Place { centre_lps_mm: affine.apply(one.centre()), extent }
}

/// An object, or a finding of which there are none.
pub(super) fn finding((found, place): (Found<'_>, Option<Place>), findings: &Findings) -> Finding {
    let Found { described, name, score, .. } = found;
    let tracking_uid = findings.result_uid(&format!("tracking/box/{name}"));
    Finding {
        present: place.is_some(),
        certainty_percent: score.map(|score| f64::from(score) * 100.0),
        measurements: place.and_then(|place| place.extent).map(measurements).unwrap_or_default(),
        place,
        ..Finding::of(described, name, tracking_uid)
    }
}

/// The longest side of a box, and each of them.
fn measurements(Extent { sides_mm, .. }: Extent) -> Vec<Measurement> {
    let of = |concept: Code, mm: f64| Measurement { concept, derivation: None, method: None, value: Some(mm), unit: ucum::MILLIMETRE };
    let [i, j, k] = sides_mm;
    vec![of(other::BOX_LONGEST_SIDE, i.max(j).max(k)), of(other::BOX_EXTENT_I, i), of(other::BOX_EXTENT_J, j), of(other::BOX_EXTENT_K, k)]
}
