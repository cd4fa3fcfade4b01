//! The objects of a class: each connected component has a score, and those that count have labels of their own.
//!
//! Runs on the CPU, whatever the backend: the label map and the scores are in host memory by then. Probabilities are computed at the
//! voxels of the class alone.

use super::maps::to_probabilities;
use super::{PostprocessError, kernel_on};
use crate::infer::Scores;
use crate::kernels::components::{ComponentRuns, Connectivity};
use crate::kernels::region_values_cpu;
use crate::kernels::regions::RegionRuns;
use crate::model::{Finding, InstanceScore, Instances, Manifest, ScoreKind};
use crate::volume::{LabelMap, Volume};

/// For each finding with instances the scores of its objects that reach `min_score`, the highest first, of equals that whose first voxel
/// comes first in memory; `None` for the others.
pub type ObjectScores = Vec<Option<Vec<f32>>>;

/// Gives object n of a finding with instances, from 0 in the order of [`ObjectScores`], the label `segment + n`. Objects that do not reach
/// `min_score`, and those beyond `max_count`, become background.
///
/// # Errors
/// [`PostprocessError::Score`] where a probability is no number.
pub fn objects_on(labels: LabelMap, scores: &Scores, manifest: &Manifest) -> Result<(LabelMap, ObjectScores), PostprocessError> {
    let has_objects = manifest.finding.iter().any(|finding| finding.instances.is_some());
    let Some(kind) = manifest.score_kind().filter(|_| has_objects) else {
        return Ok((labels, vec![None; manifest.finding.len()]));
    };
    let grid = *labels.grid();
    let mut voxels = labels.into_voxels();
    let components = ComponentRuns::of(&voxels, grid.dims(), Connectivity::TwentySix);
    let mut label_of: Vec<u8> = components.components().iter().map(|component| component.label).collect();
    let kernel_labels = manifest.label_of_channel();
    let kernel = kernel_on(&grid, scores, &kernel_labels);
    let mut all = Vec::with_capacity(manifest.finding.len());
    for finding in &manifest.finding {
        let Some(instances) = &finding.instances else {
            all.push(None);
            continue;
        };
        let regions = RegionRuns::of_some_components(&components, |component| component.label == finding.segment);
        let probability = |scores: &mut [f32]| probability(scores, kind, finding);
        let values = region_values_cpu(&scores.values, &kernel, &regions, probability);
        let mut objects: Vec<(usize, f32)> = Vec::new();
        for (component, values) in values.iter().enumerate().filter_map(|(n, values)| Some((n, values.as_ref()?))) {
            if !values.mean.is_finite() {
                return Err(PostprocessError::Score { finding: finding.name.clone() });
            }
            label_of[component] = 0;
            let score = match instances.score {
                // That of boxes is none of voxels: the manifest was checked.
                InstanceScore::MaximumProbability | InstanceScore::Box => values.greatest,
                InstanceScore::MeanProbability => values.mean as f32,
            };
            objects.extend(reaches(score, instances).then_some((component, score)));
        }
        // Stable: equals stay in the order of components, which is that of their first voxels.
        objects.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("scores are numbers"));
        for ((component, _), label) in objects.iter().take(instances.max_count.into()).zip(finding.segment..=u8::MAX) {
            label_of[*component] = label;
        }
        all.push(Some(objects.into_iter().map(|(_, score)| score).collect()));
    }
    components.relabel(&mut voxels, |number, _| label_of[number as usize - 1]);
    Ok((Volume::new(grid, voxels), all))
}

fn probability(scores: &mut [f32], kind: ScoreKind, finding: &Finding) -> f32 {
    to_probabilities(scores, kind);
    scores[finding.channel]
}

/// In single precision, as probabilities are: what is 0.7 there reaches 0.7.
fn reaches(score: f32, instances: &Instances) -> bool {
    score >= instances.min_score as f32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::geometry::{Affine, Coded, Grid};
    use crate::kernels::Interpolation;
    use crate::model::MapOf;
    use crate::postprocess::{labels_on, map_on};

    /// Two classes and no background: 1 is what is left, 2 and the labels after it are objects.
    fn manifest(scores: &str, instances: &str) -> Manifest {
        let text = format!(
            r#"
            format = 1
            file = [{{ path = "a.onnx", sha256 = "{}" }}]
            select = {{ modality = ["CT"] }}
            input = {{ tensor = "image", dtype = "float32", layout = "NCDHW" }}
            preprocess = []
            inference = {{ tiles = {{ tile = [8, 8, 8], halo = 0 }} }}
            output = {{ tensor = "scores", scores = "{scores}" }}
            postprocess = [{{ step = "argmax" }}]
            [model]
            name = "test"
            version = "1"
            task = "detection"
            manufacturer = ""
            licence = ""
            intended_use = ""
            regulatory_status = "none"
            [[finding]]
            channel = 0
            segment = 1
            name = "rest"
            colour = [0, 0, 0]
            category = {{ value = "85756007", scheme = "SCT", meaning = "Tissue" }}
            type = {{ value = "85756007", scheme = "SCT", meaning = "Tissue" }}
            measurements = []
            [[finding]]
            channel = 1
            segment = 2
            name = "nodule"
            colour = [0, 0, 0]
            category = {{ value = "49755003", scheme = "SCT", meaning = "Morphologically Altered Structure" }}
            type = {{ value = "27925004", scheme = "SCT", meaning = "Nodule" }}
            measurements = []
            [finding.instances]
            origin = "a test"
            {instances}
            "#,
            "0".repeat(64)
        );
        Manifest::parse(&text, Path::new("model.toml")).expect("a manifest")
    }

    /// What is made of probabilities of class 2 on a grid of these dims.
    fn objects(dims: [u32; 3], of_class: &[f32], instances: &str) -> (Vec<u8>, Vec<f32>) {
        let grid = Grid::new(dims, Affine::IDENTITY).expect("a grid");
        let scores = Scores::linear(grid, of_class.iter().map(|p| 1.0 - p).chain(of_class.iter().copied()).collect());
        let labels = of_class.iter().map(|&p| if p > 0.0 { 2 } else { 1 }).collect();
        let manifest = manifest("probabilities", instances);
        let (labels, objects) = objects_on(Volume::new(grid, labels), &scores, &manifest).expect("numbers");
        assert_eq!(objects[0], None);
        (labels.into_voxels(), objects[1].clone().expect("it has instances"))
    }

    #[test]
    fn the_highest_score_comes_first() {
        let row = [0.5, 0.5, 0.0, 0.75, 0.0, 0.25, 1.0, 0.25, 0.0, 0.5];
        let check = |instances: &str, labels: &[u8], scores: &[f32]| {
            assert_eq!(objects([10, 1, 1], &row, instances), (labels.to_vec(), scores.to_vec()), "{instances}");
        };
        let maximum = "score = \"maximum-probability\"";
        let mean = "score = \"mean-probability\"";
        check(&format!("{maximum}\nmin_score = 0.0\nmax_count = 9"), &[4, 4, 1, 3, 1, 2, 2, 2, 1, 5], &[1.0, 0.75, 0.5, 0.5]);
        check(&format!("{mean}\nmin_score = 0.0\nmax_count = 9"), &[3, 3, 1, 2, 1, 4, 4, 4, 1, 5], &[0.75, 0.5, 0.5, 0.5]);
        // Exactly at the threshold is enough; beyond the count they are counted.
        check(&format!("{maximum}\nmin_score = 0.5\nmax_count = 3"), &[4, 4, 1, 3, 1, 2, 2, 2, 1, 0], &[1.0, 0.75, 0.5, 0.5]);
        check(&format!("{maximum}\nmin_score = 0.76\nmax_count = 3"), &[0, 0, 1, 0, 1, 2, 2, 2, 1, 0], &[1.0]);
        check(&format!("{mean}\nmin_score = 0.76\nmax_count = 3"), &[0, 0, 1, 0, 1, 0, 0, 0, 1, 0], &[]);
    }

    #[test]
    fn a_threshold_is_met_in_single_precision() {
        for score in ["maximum-probability", "mean-probability"] {
            for threshold in [0.1, 0.3, 0.7, 0.9] {
                let [below, at] = [(threshold as f32).next_down(), threshold as f32];
                let instances = format!("score = \"{score}\"\nmin_score = {threshold}\nmax_count = 9");
                let (labels, _) = objects([5, 1, 1], &[at, 0.0, below, 0.0, at], &instances);
                assert_eq!(labels, [2, 1, 0, 1, 3], "{score} {threshold}");
            }
        }
    }

    #[test]
    fn corners_connect_and_borders_end() {
        // Two voxels that touch at a corner, and one at each end of a row that is not a neighbour of the next row's first.
        let mut field = [0.0; 4 * 3 * 2];
        for (at, value) in [(0, 0.6), (4 + 1 + 12, 0.8), (3, 0.9), (8, 0.7)] {
            field[at] = value;
        }
        let (labels, scores) = objects([4, 3, 2], &field, "score = \"maximum-probability\"\nmin_score = 0.5\nmax_count = 9");
        assert_eq!(scores, [0.9, 0.8]);
        assert_eq!([labels[0], labels[17], labels[8], labels[3]], [3, 3, 3, 2]);
    }

    #[test]
    fn thousands_of_specks_leave_those_that_count() {
        let dims = [61, 40, 30];
        let speck = |n: usize| {
            let at = [n % 61, n / 61 % 40, n / 2440];
            if at.iter().all(|i| i.is_multiple_of(2)) { 0.25 + 0.5 * (n * 7919 % 9000) as f32 / 9000.0 } else { 0.0 }
        };
        let field: Vec<f32> = (0..61 * 40 * 30).map(speck).collect();
        let (labels, scores) = objects(dims, &field, "score = \"mean-probability\"\nmin_score = 0.3\nmax_count = 254");
        let specks = 31 * 20 * 15;
        assert!(scores.len() > specks * 4 / 5 && scores.len() < specks, "{} of {specks}", scores.len());
        assert!(scores.is_sorted_by(|a, b| a >= b));
        for label in 2..=255u8 {
            let voxels: Vec<usize> = (0..labels.len()).filter(|&n| labels[n] == label).collect();
            assert_eq!(voxels.len(), 1, "label {label}");
            assert_eq!(field[voxels[0]], scores[usize::from(label) - 2], "label {label}");
        }
    }

    /// On grids that are aligned, turned and oblique, with each kind of scores: greatest and mean of the map's own values, to the bit.
    #[test]
    fn scores_are_those_of_the_map() {
        let network = Grid::new([9, 8, 7], Affine::scale_then_shift([2.0, 2.5, 3.0], [-8.0, -9.0, -10.0])).expect("a grid");
        let wave = |n: usize| {
            let [c, k, j, i] = [n / 504, n / 72 % 7, n / 9 % 8, n % 9].map(|v| v as f64);
            (3.0 * (1.3 * i + 0.9 * c).sin() * (1.1 * j).cos() + 2.0 * (0.8 * k + c).cos()) as f32
        };
        let linear = Scores::linear(network, (0..2 * 504).map(wave).collect());
        let thick = Scores { interpolation: [Interpolation::Linear, Interpolation::Linear, Interpolation::Nearest], ..linear.clone() };
        let sources = [
            Grid::new([19, 17, 13], Affine::scale_then_shift([0.9, 1.1, 1.4], [-8.4, -9.2, -9.1])),
            Grid::new([13, 19, 17], Affine::from_columns([0.0, 0.0, 1.4], [0.9, 0.0, 0.0], [0.0, -1.1, 0.0], [-8.4, 9.2, -9.1])),
            Grid::new([19, 17, 13], Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 1.1, 0.2], [0.2, -0.1, 1.4], [-7.0, -6.0, -9.0])),
        ];
        let mut compared = 0;
        for source in sources.map(|grid| grid.expect("a grid")) {
            for (scores, kind) in [(&linear, "logits"), (&thick, "logits"), (&linear, "independent-logits"), (&linear, "probabilities")] {
                let with = |score: &str| manifest(kind, &format!("score = \"{score}\"\nmin_score = 0.0\nmax_count = 254"));
                let [by_maximum, by_mean] = ["maximum-probability", "mean-probability"].map(with);
                let kind = by_mean.score_kind().expect("given");
                let map = map_on(&source, scores, &by_mean.label_of_channel(), MapOf::Probability { channel: 1 }, kind);
                for (manifest, mean) in [(by_maximum, false), (by_mean, true)] {
                    let backend = crate::kernels::Backend::Cpu;
                    let labels =
                        labels_on(&source, scores, &manifest.label_of_channel(), &manifest.postprocess, &backend).expect("on the CPU");
                    let (labels, objects) = objects_on(labels, scores, &manifest).expect("numbers");
                    for (n, &score) in objects[1].as_ref().expect("instances").iter().enumerate() {
                        let own = labels.voxels().iter().zip(map.voxels()).filter(|(label, _)| usize::from(**label) == n + 2);
                        let values: Vec<f32> = own.map(|(_, &value)| value).collect();
                        let sum: f64 = values.iter().copied().map(f64::from).sum();
                        let greatest = values.iter().copied().fold(0.0, f32::max);
                        let expected = if mean { (sum / values.len() as f64) as f32 } else { greatest };
                        assert_eq!(score.to_bits(), expected.to_bits(), "object {n} on {:?}, {kind:?}", source.dims());
                        compared += values.len();
                    }
                }
            }
        }
        assert!(compared > 10_000, "{compared} voxels");
    }

    #[test]
    fn a_probability_that_is_no_number_is_an_error() {
        let grid = Grid::new([2, 1, 1], Affine::IDENTITY).expect("a grid");
        // Finite, as the network's answers are; their difference is not, and 0 times that is no number.
        let scores = Scores::linear(grid, vec![f32::MIN, f32::MAX, f32::MIN, f32::MAX]);
        let manifest = manifest("independent-logits", "score = \"maximum-probability\"\nmin_score = 0.5\nmax_count = 9");
        let error = objects_on(Volume::new(grid, vec![2, 2]), &scores, &manifest).expect_err("no number");
        assert_eq!(error.code(), "postprocess.score", "{error}");
    }

    #[test]
    fn without_instances_nothing_is_done() {
        let grid = Grid::new([2, 1, 1], Affine::IDENTITY).expect("a grid");
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let manifest = Manifest::parse(shipped, Path::new("model.toml")).expect("the shipped one");
        let labels = Volume::new(grid, vec![5, 1]);
        let scores = Scores::linear(grid, vec![0.0; 10]);
        assert_eq!(objects_on(labels.clone(), &scores, &manifest).expect("numbers"), (labels, vec![None; 5]));
    }
}
