//! Classification and regression: each finding's probability, or number, for an image as a whole; and what of the image it rests on.

use std::sync::atomic::AtomicBool;

use super::input::{Closed, Voxels};
use super::timings::{Stage, Timings};
use super::{Analysis, Engine, EngineError, no_labels, occlusion_map, without_findings};
use crate::findings::{Finding, Findings, Measurement};
use crate::infer::{Cover, InferError};
use crate::model::{self, Explanation};
use crate::postprocess::{probability_of, values_on};
use crate::preprocess::Plan;
use crate::volume::{ImageVolume, Rescale, Volume};

/// Said where the network saw an image with its values turned round.
const TURNED: &str =
    "the image is MONOCHROME1: the network saw it turned round within its own range of values, so that high values are bright";

impl Engine {
    /// Analyses an image as a whole. The result has no label map where there is none to have: it is empty.
    pub(super) fn classify(
        &mut self,
        opened: Voxels,
        started: jiff::ZonedDateTime,
        mut timings: Timings,
        cancel: &AtomicBool,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<Analysis, EngineError> {
        let manifest = &self.package.manifest;
        let answers = |outputs: &[f32]| match manifest.output.scores {
            Some(kind) => probability_of(outputs, kind).map_err(|value| InferError::NotProbability { value }),
            None => estimates(manifest, outputs),
        };
        let grid = *opened.image().grid();
        let turned = opened.is_monochrome1().then(|| turned_round(opened.image()));
        let seen = turned.as_ref().unwrap_or(opened.image());
        let plan = Plan::new(&manifest.preprocess, &grid, None)?;
        let (content_sha256, input) =
            timings.time(Stage::Preprocess, on_stage, || rayon::join(|| opened.content_sha256(), || plan.run(&self.backend, seen)));
        let input = input?;
        let (found, effects) = timings.time(Stage::Infer, on_stage, || {
            let found = answers(&self.network.classify(&input, cancel)?)?;
            let effects = match manifest.explanation.as_ref().filter(|_| self.maps) {
                None => Vec::new(),
                Some(Explanation::Occlusion { patch, stride, fill, .. }) => {
                    let value = fill.value(|| mean_of(&input, &plan.content(&grid)));
                    let cover = Cover { patch: *patch, stride: *stride, value };
                    let fall = |scores: &[f32]| Ok(found.iter().zip(answers(scores)?).map(|(whole, covered)| whole - covered).collect());
                    self.network.covered(&input, &cover, found.len(), fall, cancel)?
                }
            };
            Ok::<_, InferError>((found, effects))
        })?;
        let maps = timings.time(Stage::Postprocess, on_stage, || {
            let map = |finding: &model::Finding| occlusion_map(&finding.name, values_on(&grid, input.grid(), &effects[finding.channel]));
            if effects.is_empty() { Vec::new() } else { manifest.finding.iter().map(map).collect() }
        });
        drop(input);

        let note = turned.map(|_| TURNED.to_owned());
        let Closed { image, source, notes, warnings } = opened.close(content_sha256);
        let provenance = self.provenance(notes.into_iter().chain(plan.note()).chain(note).collect(), started);
        let mut findings = without_findings(source, no_labels(grid), provenance, warnings, maps);
        findings.findings =
            self.package.manifest.finding.iter().map(|described| finding(described, found[described.channel], &findings)).collect();
        Ok(Analysis { findings, image, timings })
    }
}

/// The number of each channel.
fn estimates(manifest: &model::Manifest, outputs: &[f32]) -> Result<Vec<f64>, InferError> {
    let mut numbers = vec![0.0; outputs.len()];
    for finding in &manifest.finding {
        let estimate = finding.estimate.as_ref().expect("the manifest was checked: each finding of a regression has an estimate");
        let out_of_range = |value| InferError::OutOfRange {
            finding: finding.name.clone(),
            value,
            unit: estimate.unit.value.to_string(),
            least: estimate.least,
            most: estimate.most,
        };
        numbers[finding.channel] = estimate.of(outputs[finding.channel]).map_err(out_of_range)?;
    }
    Ok(numbers)
}

/// A finding of which the network has said `answer`: a probability, or a number.
fn finding(described: &model::Finding, answer: f64, findings: &Findings) -> Finding {
    let threshold = described.threshold.as_ref();
    let estimate = described.estimate.as_ref().map(|estimate| Measurement {
        concept: estimate.concept.clone(),
        derivation: None,
        method: None,
        value: Some(answer),
        unit: estimate.unit.clone(),
    });
    Finding {
        present: threshold.is_none_or(|threshold| answer >= threshold.at),
        certainty_percent: threshold.map(|_| 100.0 * answer),
        measurements: estimate.into_iter().collect(),
        ..Finding::of(described, described.name.clone(), findings.result_uid(&format!("tracking/channel {}", described.channel)))
    }
}

/// The image with its least and greatest value exchanged, and all between: black becomes white.
fn turned_round(image: &ImageVolume) -> ImageVolume {
    let [least, greatest] = image.range();
    let turned = |rescale: &Rescale| Rescale { slope: -rescale.slope, intercept: least + greatest - rescale.intercept };
    ImageVolume { stored: image.stored.clone(), rescale: image.rescale.iter().map(turned).collect(), quantity: image.quantity }
}

/// Mean of the voxels in a box.
fn mean_of(input: &Volume<f32>, [i, j, k]: &[std::ops::Range<usize>; 3]) -> f32 {
    let columns = input.grid().dims()[0] as usize;
    let rows = k.clone().flat_map(|k| j.clone().map(move |j| (k, j)));
    let sum: f64 = rows.map(|(k, j)| input.slice(k)[j * columns..][i.clone()].iter().map(|&v| f64::from(v)).sum::<f64>()).sum();
    (sum / (i.len() * j.len() * k.len()) as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Affine, Grid};
    use crate::volume::Quantity;

    #[test]
    fn black_becomes_white() {
        let grid = Grid::new([4, 1, 1], Affine::IDENTITY).expect("a grid");
        let rescale = vec![Rescale { slope: 2.0, intercept: 10.0 }];
        let image = ImageVolume { stored: Volume::new(grid, vec![-3i16, 0, 1, 5]).into(), rescale, quantity: Quantity::Arbitrary };
        let turned = turned_round(&image);
        assert_eq!([0, 1, 2, 3].map(|i| image.physical([i, 0, 0])), [4.0, 10.0, 12.0, 20.0]);
        assert_eq!([0, 1, 2, 3].map(|i| turned.physical([i, 0, 0])), [20.0, 14.0, 12.0, 4.0]);
    }

    #[test]
    fn the_mean_leaves_out_what_lies_beside() {
        let grid = Grid::new([3, 2, 2], Affine::IDENTITY).expect("a grid");
        let input = Volume::new(grid, (0..12).map(|n| n as f32).collect());
        assert_eq!(mean_of(&input, &[0..3, 0..2, 0..2]), 5.5);
        assert_eq!(mean_of(&input, &[1..3, 1..2, 0..2]), (4.0 + 5.0 + 10.0 + 11.0) / 4.0);
    }
}
