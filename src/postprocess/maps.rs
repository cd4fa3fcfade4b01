//! Maps of values on the source grid from class scores: the probability of a class, how uncertain the choice between classes is.
//!
//! Scores are interpolated as for the label map, so that a map is high where its class wins. Probabilities are then computed at each voxel:
//! with `logits` by softmax, with `independent-logits` by a sigmoid for each class, with `probabilities` by dividing through their sum.

use rayon::prelude::*;

use super::{answered_by, kernel_on};
use crate::geometry::Grid;
use crate::infer::Scores;
use crate::kernels::bounding_box::uncrop;
use crate::kernels::{Interpolation, Rule, ScoresToLabels, map_scores_cpu};
use crate::model::{MapOf, ScoreKind};
use crate::volume::Volume;

/// The map on the source grid; `labels` has a label for each channel of the scores. What the scores do not answer for is certainly
/// background: 0. Runs on the CPU, whatever the backend.
///
/// # Panics
/// Where the map is of a channel that the scores do not have, or of a [`Spread`], which one set of scores has not: broken promises of the caller.
pub fn map_on(source: &Grid, scores: &Scores, labels: &[u8], of: MapOf, kind: ScoreKind) -> Volume<f32> {
    let kernel = kernel_on(&answered_by(scores, source), scores, labels);
    let value = |scores: &mut [f32]| {
        to_probabilities(scores, kind);
        match of {
            MapOf::Probability { channel } => scores[channel],
            MapOf::Uncertainty => uncertainty(scores, kind),
            MapOf::Spread { .. } => unreachable!("a spread is of several sets of scores"),
        }
    };
    let values = map_scores_cpu(&scores.values, &kernel, value);
    match scores.source_box {
        Some(bounds) => Volume::new(*source, uncrop(&values, source.dims(), bounds)),
        None => Volume::new(*source, values),
    }
}

/// How far the members of an ensemble are apart: the standard deviation over them (of all, not of a sample) of the probability of one class at
/// each voxel of the source, 0 to 0.5. Each member's probability is the map that it would have by itself.
///
/// Two volumes of floats on the source grid are kept, however many members there are (Welford's method), and one more while one is added.
#[derive(Debug)]
pub struct Spread {
    channel: usize,
    members: f32,
    /// Mean so far.
    means: Vec<f32>,
    /// Sum so far of squared distances from the mean.
    squares: Vec<f32>,
}

impl Spread {
    /// Of the class of a channel, and of no members yet.
    pub fn of(channel: usize) -> Self {
        Self { channel, members: 0.0, means: Vec::new(), squares: Vec::new() }
    }

    /// Bytes that a spread takes over so many voxels of the source.
    pub fn bytes(voxels: u64) -> u64 {
        3 * 4 * voxels
    }

    /// Adds what a member says.
    ///
    /// # Panics
    /// As [`map_on`], and where members are on different grids: broken promises of the caller.
    pub fn add(&mut self, source: &Grid, member: &Scores, labels: &[u8], kind: ScoreKind) {
        let probability = map_on(source, member, labels, MapOf::Probability { channel: self.channel }, kind);
        if self.members == 0.0 {
            self.means = vec![0.0; source.voxel_count()];
            self.squares = vec![0.0; source.voxel_count()];
        }
        assert_eq!(self.means.len(), source.voxel_count(), "members answer for the same voxels");
        self.members += 1.0;
        let members = self.members;
        self.means.par_iter_mut().zip(&mut self.squares).zip(probability.voxels()).for_each(|((mean, squares), &value)| {
            let off = value - *mean;
            *mean += off / members;
            *squares += off * (value - *mean);
        });
    }

    /// The spread over the members so far; of one it is 0 everywhere.
    ///
    /// # Panics
    /// Where there are none, or they are not on this grid: broken promises of the caller.
    pub fn into_map(self, source: &Grid) -> Volume<f32> {
        let mut values = self.squares;
        values.par_iter_mut().for_each(|squares| *squares = (*squares / self.members).sqrt().clamp(0.0, 0.5)); // rounding
        Volume::new(*source, values)
    }
}

/// Values on the network's grid, carried over to the source grid as scores are: linear between voxel centres.
///
/// # Panics
/// Where there is not one value for each voxel: a broken promise of the caller.
pub fn values_on(source: &Grid, network: &Grid, values: &[f32]) -> Volume<f32> {
    let kernel = ScoresToLabels {
        network_dims: network.dims(),
        target_dims: source.dims(),
        network_from_target: network.voxel_from_lps() * source.lps_from_voxel(),
        interpolation: [Interpolation::Linear; 3],
        label_of_channel: &[1],
        rule: Rule::Highest, // no label is asked for
    };
    Volume::new(*source, map_scores_cpu(values, &kernel, |scores| scores[0]))
}

/// The probability of each channel of an image as a whole, from its scores. With `probabilities` each is taken as it is, since the findings
/// of an image need not exclude each other.
///
/// # Errors
/// The first score that is called a probability and lies outside 0 to 1.
pub fn probability_of(scores: &[f32], kind: ScoreKind) -> Result<Vec<f64>, f32> {
    let scores_f64 = scores.iter().map(|&score| f64::from(score));
    match kind {
        ScoreKind::Logits => {
            let highest = scores_f64.clone().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores_f64.clone().map(|score| (score - highest).exp()).sum();
            Ok(scores_f64.map(|score| (score - highest).exp() / sum).collect())
        }
        ScoreKind::IndependentLogits => Ok(scores_f64.map(|score| 1.0 / (1.0 + (-score).exp())).collect()),
        ScoreKind::Probabilities => match scores.iter().find(|score| !(0.0..=1.0).contains(*score)) {
            Some(&wrong) => Err(wrong),
            None => Ok(scores_f64.collect()),
        },
    }
}

/// Scores of one voxel to probabilities, 0 to 1.
pub(super) fn to_probabilities(scores: &mut [f32], kind: ScoreKind) {
    match kind {
        ScoreKind::Logits => {
            let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - highest).exp());
        }
        ScoreKind::IndependentLogits => return scores.iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp())),
        ScoreKind::Probabilities => scores.iter_mut().for_each(|score| *score = score.max(0.0)),
    }
    let sum: f32 = scores.iter().sum();
    // Where no class has any, each has the same.
    let even = 1.0 / scores.len() as f32;
    scores.iter_mut().for_each(|score| *score = if sum > 0.0 { *score / sum } else { even });
}

/// Entropy of probabilities as a part of the greatest possible: 0 where the choice is certain, 1 where every class is as likely. Of
/// independent classes the mean of those of each.
fn uncertainty(probabilities: &[f32], kind: ScoreKind) -> f32 {
    let term = |p: f32| if p > 0.0 { -p * p.ln() } else { 0.0 };
    let count = probabilities.len() as f32;
    let entropy = match kind {
        ScoreKind::IndependentLogits => {
            probabilities.iter().map(|&p| term(p) + term(1.0 - p)).sum::<f32>() / (count * std::f32::consts::LN_2)
        }
        ScoreKind::Logits | ScoreKind::Probabilities => probabilities.iter().copied().map(term).sum::<f32>() / count.ln(),
    };
    entropy.clamp(0.0, 1.0) // rounding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;

    fn check(kind: ScoreKind, scores: &[f32], probabilities: &[f32], expected: f32) {
        let mut found = scores.to_vec();
        to_probabilities(&mut found, kind);
        assert!(found.iter().zip(probabilities).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        let found = uncertainty(&found, kind);
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn ends_of_the_scale() {
        check(ScoreKind::Logits, &[3.0, 3.0], &[0.5, 0.5], 1.0);
        check(ScoreKind::Logits, &[1000.0, -1000.0, 0.0], &[1.0, 0.0, 0.0], 0.0);
        check(ScoreKind::IndependentLogits, &[0.0, 0.0], &[0.5, 0.5], 1.0);
        check(ScoreKind::IndependentLogits, &[0.0, 1000.0], &[0.5, 1.0], 0.5);
        check(ScoreKind::Probabilities, &[0.4, 0.0, -1e-8], &[1.0, 0.0, 0.0], 0.0);
        check(ScoreKind::Probabilities, &[0.0, 0.0], &[0.5, 0.5], 1.0);
    }

    #[test]
    fn members_of_an_ensemble_are_apart() {
        let grid = Grid::new([4, 1, 1], Affine::IDENTITY).expect("a grid");
        let mut spread = Spread::of(1);
        // Logits of two classes: the second is less certain than the first by so much.
        for second in [[0.0, 40.0, 1.0, -2.0], [0.0, 40.0, 2.0, 0.5], [0.0, -40.0, -1.0, 3.0]] {
            let scores = Scores::linear(grid, [[0.0; 4], second].concat());
            spread.add(&grid, &scores, &[0, 1], ScoreKind::Logits);
        }
        let found = spread.into_map(&grid);
        // np.std(scipy.special.expit([[0, 40, 1, -2], [0, 40, 2, .5], [0, -40, -1, 3]]), axis=0)
        let expected = [0.0, 0.471_404_52, 0.260_414_46, 0.342_661_2];
        assert!(found.voxels().iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{:?}", found.voxels());
        let mut halves = Spread::of(0);
        for first in [100.0, -100.0] {
            halves.add(&grid, &Scores::linear(grid, vec![first; 4]), &[1], ScoreKind::IndependentLogits);
        }
        assert_eq!(halves.into_map(&grid).voxels(), [0.5; 4]);
    }

    #[test]
    fn probabilities_of_a_whole_image() {
        let check = |kind, scores: &[f32], expected: &[f64]| {
            let found = probability_of(scores, kind).expect("probabilities");
            assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        };
        // scipy.special.softmax([1.0, 2.0, -1.0]), expit([0.5, -200.0])
        check(ScoreKind::Logits, &[1.0, 2.0, -1.0], &[0.259_496_460_342_418_7, 0.705_384_512_698_241_3, 0.035_119_026_959_339_97]);
        check(ScoreKind::IndependentLogits, &[0.5, -200.0], &[0.622_459_331_201_854_6, 1.383_896_526_736_737_5e-87]);
        check(ScoreKind::Probabilities, &[1.0, 0.0, 0.75], &[1.0, 0.0, 0.75]);
        assert_eq!(probability_of(&[0.5, 1.5, -1.0], ScoreKind::Probabilities), Err(1.5));
    }

    // import numpy as np; from scipy.ndimage import map_coordinates; from scipy.special import softmax, expit
    // c, z, y, x = np.meshgrid(np.arange(3), np.arange(3), np.arange(3), np.arange(4), indexing="ij")
    // s = (4 * np.sin(1.7 * x + 2.1 * c) + 3 * np.cos(1.3 * y - c) * np.cos(0.9 * z)).astype(np.float32).astype(np.float64)
    // k, j, i = np.meshgrid(np.arange(2), np.arange(3), np.arange(4), indexing="ij")
    // for at in ([0.8 * k + 0.15, 0.7 * j + 0.1, 0.55 * i - 0.2], [0.7 * k + 0.2 * j - 0.15 * i + 0.3, -0.1 * k + 0.8 * j + 0.25 * i - 0.2,
    //            0.2 * k - 0.3 * j + 0.9 * i + 0.4]):
    //     v = np.stack([map_coordinates(a, at, order=1, mode="nearest") for a in s])
    //     p = softmax(v, 0); e = expit(v); q = np.maximum(v, 0) / np.maximum(v, 0).sum(0)
    //     h = lambda p: -(p * np.log(np.where(p > 0, p, 1))).sum(0)
    //     for m in (p[1], h(p) / np.log(3), e[1], (h(e) + h(1 - e)) / (3 * np.log(2)), np.nan_to_num(q[1], nan=1 / 3)):
    //         print(m.round(6).ravel().tolist())
    #[test]
    fn scipy_agrees() {
        let values = (0..3 * 36).map(|n: u32| {
            let [c, z, y, x] = [n / 36, n / 12 % 3, n / 4 % 3, n % 4].map(f64::from);
            (4.0 * (1.7 * x + 2.1 * c).sin() + 3.0 * (1.3 * y - c).cos() * (0.9 * z).cos()) as f32
        });
        let scores = Scores::linear(Grid::new([4, 3, 3], Affine::IDENTITY).expect("a grid"), values.collect());
        let cases = [
            (Affine::scale_then_shift([0.55, 0.7, 0.8], [-0.2, 0.1, 0.15]), ALIGNED),
            (Affine::from_columns([0.9, 0.25, -0.15], [-0.3, 0.8, 0.2], [0.2, -0.1, 0.7], [0.4, -0.2, 0.3]), OBLIQUE),
        ];
        for (affine, expected) in cases {
            let source = Grid::new([4, 3, 2], affine).expect("a grid");
            let kinds = [ScoreKind::Logits, ScoreKind::IndependentLogits];
            let maps = kinds.into_iter().flat_map(|kind| [(MapOf::Probability { channel: 1 }, kind), (MapOf::Uncertainty, kind)]);
            let maps = maps.chain([(MapOf::Probability { channel: 1 }, ScoreKind::Probabilities)]);
            for ((of, kind), expected) in maps.zip(expected) {
                let found = map_on(&source, &scores, &[1, 2, 3], of, kind);
                for (n, (found, expected)) in found.voxels().iter().zip(expected).enumerate() {
                    // Printed with six digits; single precision adds about as much.
                    assert!((found - expected).abs() < 2e-6, "{of:?} of {kind:?}, voxel {n}: {found} is not {expected}");
                }
            }
        }
    }

    const ALIGNED: [[f32; 24]; 5] = [
        [
            0.922427, 0.273455, 0.001653, 0.004831, 0.991061, 0.781662, 0.015711, 0.028653, 0.99385, 0.864696, 0.032605, 0.010226,
            0.941974, 0.339643, 0.002259, 0.006417, 0.986562, 0.702913, 0.010425, 0.01982, 0.99087, 0.792196, 0.017768, 0.011932,
        ],
        [
            0.248852, 0.536743, 0.012568, 0.093867, 0.047868, 0.497765, 0.111406, 0.706706, 0.037852, 0.430142, 0.419911, 0.329948,
            0.202666, 0.589867, 0.018425, 0.189706, 0.066792, 0.578955, 0.087632, 0.670831, 0.051449, 0.530977, 0.232196, 0.527596,
        ],
        [
            0.993935, 0.954091, 0.447431, 0.274938, 0.997325, 0.97929, 0.64818, 0.463165, 0.991534, 0.936914, 0.366549, 0.213207, 0.989757,
            0.924543, 0.323132, 0.182714, 0.994113, 0.955383, 0.454837, 0.28094, 0.987165, 0.907002, 0.275364, 0.15107,
        ],
        [
            0.170262, 0.190098, 0.463694, 0.648782, 0.448669, 0.423095, 0.666768, 0.567371, 0.574818, 0.745178, 0.741789, 0.620696,
            0.267208, 0.280487, 0.46676, 0.618385, 0.447105, 0.44443, 0.670942, 0.595517, 0.527724, 0.698506, 0.706231, 0.602518,
        ],
        [
            0.660377, 0.430681, 0.0, 0.0, 0.834832, 0.601025, 0.11416, 0.0, 1.0, 0.82954, 0.0, 0.0, 0.719627, 0.441547, 0.0, 0.0, 0.865724,
            0.583856, 0.0, 0.0, 1.0, 0.734791, 0.0, 0.0,
        ],
    ];
    const OBLIQUE: [[f32; 24]; 5] = [
        [
            0.152284, 0.002086, 0.060543, 0.985779, 0.953012, 0.006187, 0.002773, 0.57101, 0.99232, 0.148184, 0.001805, 0.013, 0.034715,
            0.006158, 0.2199, 0.983304, 0.65438, 0.007932, 0.004573, 0.925676, 0.982178, 0.010889, 0.001371, 0.144686,
        ],
        [
            0.390596, 0.02815, 0.480599, 0.070188, 0.175488, 0.073248, 0.040105, 0.624506, 0.044564, 0.688631, 0.05751, 0.064144, 0.142104,
            0.187362, 0.691114, 0.080419, 0.602977, 0.175, 0.045049, 0.242193, 0.085059, 0.145603, 0.04173, 0.379504,
        ],
        [
            0.926193, 0.274438, 0.591856, 0.99585, 0.991697, 0.469284, 0.399252, 0.977531, 0.990908, 0.517968, 0.076142, 0.524217,
            0.715093, 0.177231, 0.721358, 0.992623, 0.936817, 0.260619, 0.417635, 0.990973, 0.982213, 0.206015, 0.077474, 0.789101,
        ],
        [
            0.213077, 0.588539, 0.715395, 0.458019, 0.34654, 0.685846, 0.669338, 0.177859, 0.550769, 0.873911, 0.466887, 0.388559,
            0.410501, 0.614389, 0.778427, 0.485666, 0.400793, 0.65262, 0.64624, 0.236667, 0.47993, 0.632194, 0.446837, 0.361474,
        ],
        [
            0.373337, 0.0, 0.089222, 0.820614, 0.730997, 0.0, 0.0, 0.51976, 1.0, 0.041139, 0.0, 0.021431, 0.178167, 0.0, 0.309186,
            0.863981, 0.56821, 0.0, 0.0, 0.683699, 1.0, 0.0, 0.0, 0.29884,
        ],
    ];
}
