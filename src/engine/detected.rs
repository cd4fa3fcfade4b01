//! Boxes and points: those that are of one object brought together, and each a finding with its place in the patient.

use std::sync::atomic::AtomicBool;

use super::found::{Found, found};
use super::networks::{Course, Subject, ask_for_boxes};
use super::timings::Stage;
use super::{Analysis, Begun, Engine, EngineError, Read, content_of, no_labels, occlusion_map, without_findings};
use crate::codes::{Code, other, ucum};
use crate::findings::{Extent, Finding, Findings, Measurement, Place};
use crate::geometry::Grid;
use crate::infer::{Cover, CoveredBox, Detected, InferError, Network, ScoredBox};
use crate::model::{self, Explanation, Manifest, Suppression};
use crate::postprocess::{are_one, suppressed, values_on};
use crate::preprocess::Previous;
use crate::volume::Volume;

/// Objects that are explained where a package does not say how many.
const OBJECTS: u8 = 5;

impl Engine {
    /// Finds objects in an image, each with its place. The result's label map is empty.
    pub(super) fn detect(&mut self, begun: Begun, cancel: &AtomicBool, on_stage: &mut dyn FnMut(Stage)) -> Result<Analysis, EngineError> {
        let manifest = &self.package.manifest;
        let Begun { voxels, others, labelled, notes: of_stages, started, mut timings } = begun;
        let previous = labelled.as_ref().map(|labels| Previous { labels, names: manifest.last_labels() });
        let subject = Subject { image: voxels.image(), others: &others, previous };
        let mut course = Course { backend: &self.backend, cancel, timings: &mut timings, on_stage: &mut *on_stage };
        let hashed = || content_of(&voxels, &others);
        let grid = *voxels.image().grid();
        let explanation = manifest.explanation.as_ref().filter(|_| self.maps);
        let then = |detected: Detected, network: &mut Network, input: &[Volume<f32>], cancel: &AtomicBool| {
            let objects = objects(manifest, detected, &grid);
            let falls = explanation.map(|explanation| explained(manifest, explanation, &objects, network, input, cancel)).transpose()?;
            Ok((objects, falls.unwrap_or_default()))
        };
        let ((objects, falls), of_network, hashes) = ask_for_boxes(manifest, &mut self.network, subject, &mut course, hashed, then)?;
        drop(labelled);
        let maps = timings.time(Stage::Postprocess, on_stage, || {
            let map =
                |(finding, falls): (&model::Finding, &Falls)| occlusion_map(&finding.name, values_on(&grid, &objects.grid, &falls.values));
            manifest.finding.iter().zip(&falls).map(map).collect::<Vec<_>>()
        });
        let (found, of_many) = objects.found(manifest);
        let (Read { image, source, notes }, warnings) = Read::of(voxels, others, hashes);
        let of_explanation = falls.iter().flat_map(|falls| &falls.notes).cloned();
        let notes = notes.into_iter().chain(of_stages).chain(of_network).chain(objects.note).chain(of_explanation);
        let provenance = self.provenance(notes.collect(), started);
        let warnings = warnings.into_iter().chain(objects.warnings).chain(of_many).collect();
        let mut findings = without_findings(source, no_labels(grid), provenance, warnings, maps);
        findings.findings = found.into_iter().map(|found| finding(found, &findings)).collect();
        Ok(Analysis { findings, image, timings })
    }
}

/// The objects that a network's boxes are of.
struct Objects {
    /// For each finding of the package its boxes, the one with the highest score first.
    of_findings: Vec<Vec<ScoredBox>>,
    grid: Grid,
    /// Which boxes were one.
    suppression: Suppression,
    /// What the reader of a result should know.
    warnings: Vec<String>,
    /// Of what was not looked at, since it is nowhere.
    note: Option<String>,
}

/// Brings the boxes together that are of one object. Those with their centre outside of `source`, where the network's grid has corners that
/// the images do not reach, are left out.
fn objects(manifest: &Manifest, detected: Detected, source: &Grid) -> Objects {
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
        suppression,
        warnings: (left_out.count > 0).then_some(warning).into_iter().collect(),
        note: (beyond > 0).then(|| format!("{beyond} boxes had their centre outside of the image, and were left out")),
    }
}

impl Objects {
    /// Of each finding those that are reported.
    fn reported<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = &'a [ScoredBox]> {
        self.of_findings.iter().zip(&manifest.finding).map(|(boxes, finding)| {
            let most = finding.instances.as_ref().map_or(0, |instances| usize::from(instances.max_count));
            &boxes[..most.min(boxes.len())]
        })
    }

    /// The findings of a package as they were found, and a warning for each of which there are more than are reported.
    fn found<'a>(&self, manifest: &'a Manifest) -> (Vec<(Found<'a>, Option<Place>)>, Vec<String>) {
        let scores: Vec<Option<Vec<f32>>> =
            self.of_findings.iter().map(|boxes| Some(boxes.iter().map(|one| one.score).collect())).collect();
        let (found, warnings) = found(&manifest.finding, &scores);
        let mut places = self.reported(manifest).flatten();
        let placed = found.into_iter().map(|found| {
            let place = found.score.and_then(|_| places.next()).map(|one| place(one, &self.grid));
            (found, place)
        });
        (placed.collect(), warnings)
    }
}

/// How far the scores of a finding's objects fall where parts of them and around them are covered.
struct Falls {
    /// On the network's grid: of the object that falls farthest there.
    values: Vec<f32>,
    /// What the reader of a result should know.
    notes: Vec<String>,
}

/// For each finding of the package what the scores of its objects rest on: of those with the highest scores of all, as many as the package wants.
fn explained(
    manifest: &Manifest,
    explanation: &Explanation,
    objects: &Objects,
    network: &mut Network,
    input: &[Volume<f32>],
    cancel: &AtomicBool,
) -> Result<Vec<Falls>, InferError> {
    let Explanation::Occlusion { patch, stride, fill, objects: most } = explanation;
    let most = usize::from(most.unwrap_or(OBJECTS));
    let mean = |image: &Volume<f32>| (image.voxels().iter().map(|&v| f64::from(v)).sum::<f64>() / image.voxels().len() as f64) as f32;
    let values: Vec<f32> = input[..manifest.images()].iter().map(|image| fill.value(|| mean(image))).collect();
    let cover = Cover { patch: *patch, stride: *stride, value: values.as_slice() };
    let mut chosen: Vec<(usize, usize, &ScoredBox)> = Vec::new();
    for (finding, boxes) in objects.reported(manifest).enumerate() {
        chosen.extend(boxes.iter().enumerate().map(|(n, one)| (finding, n, one)));
    }
    chosen.sort_by(|(.., a), (.., b)| a.order(b));
    let left_out = chosen.len().saturating_sub(most);
    chosen.truncate(most);
    let grid = objects.grid;
    let nothing = || Falls { values: vec![0.0; grid.voxel_count()], notes: Vec::new() };
    let mut falls: Vec<Falls> = manifest.finding.iter().map(|_| nothing()).collect();
    for (finding, n, object) in chosen {
        let is_one = |other: &ScoredBox| are_one(object, other, grid.spacing_mm(), objects.suppression);
        let Falls { values, notes } = &mut falls[finding];
        match network.covered_box(input, object, &cover, is_one, cancel)? {
            Some(covered) => raise(values, grid.dims(), &covered),
            None => notes.push(format!(
                "`{} {}` is not explained: it is too large for `explanation.stride`",
                manifest.finding[finding].name,
                n + 1
            )),
        }
    }
    if let (Some(first), true) = (falls.first_mut(), left_out > 0) {
        first.notes.push(format!("{most} objects with the highest scores are explained, {left_out} others are not"));
    }
    Ok(falls)
}

/// Brings what is known of one object to the others: each voxel has the highest of all.
fn raise(values: &mut [f32], [nx, ny, _]: [u32; 3], covered: &CoveredBox) {
    let [i, j, k] = &covered.part;
    let rows = k.clone().flat_map(|k| j.clone().map(move |j| (k * ny as usize + j) * nx as usize));
    for (row, falls) in rows.zip(covered.falls.chunks_exact(i.len())) {
        values[row + i.start..row + i.end].iter_mut().zip(falls).for_each(|(value, &fall)| *value = value.max(fall));
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
fn finding((found, place): (Found<'_>, Option<Place>), findings: &Findings) -> Finding {
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
