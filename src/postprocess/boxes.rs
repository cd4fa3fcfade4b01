//! Non-maximum suppression: of several boxes, or points, that are of one object, that with the highest score stays.

use crate::infer::ScoredBox;
use crate::model::Suppression;

/// The boxes that stay, by falling score, those of equal score by their place (k, then j, then i): greedily, each that is not one with a box
/// of its channel that stays already. The order in which they come does not matter.
///
/// `spacing_mm` is that of the grid along i, j, k, whose axes are at right angles.
pub fn suppressed(mut boxes: Vec<ScoredBox>, spacing_mm: [f64; 3], suppression: Suppression) -> Vec<ScoredBox> {
    boxes.sort_by(ScoredBox::order);
    let mut kept: Vec<ScoredBox> = Vec::new();
    for one in boxes {
        if !kept.iter().any(|other| other.channel == one.channel && are_one(&one, other, spacing_mm, suppression)) {
            kept.push(one);
        }
    }
    kept
}

/// Whether two boxes, or points, are of one object. `spacing_mm` as of [`suppressed`].
pub fn are_one(a: &ScoredBox, b: &ScoredBox, spacing_mm: [f64; 3], suppression: Suppression) -> bool {
    match suppression {
        Suppression::Iou(most) => iou(a, b) > most,
        Suppression::DistanceMm(least_mm) => {
            let (a, b) = (a.centre(), b.centre());
            let square: f64 = (0..3).map(|n| ((a[n] - b[n]) * spacing_mm[n]).powi(2)).sum();
            square.sqrt() < least_mm
        }
    }
}

/// Intersection over union: the volume that two boxes share, as a part of what both have together, 0 to 1. The same in voxels and in mm,
/// since both are volumes along the same axes.
pub fn iou(a: &ScoredBox, b: &ScoredBox) -> f64 {
    let volume = |low: [f64; 3], high: [f64; 3]| (0..3).map(|n| (high[n] - low[n]).max(0.0)).product::<f64>();
    let shared = volume(std::array::from_fn(|n| a.low[n].max(b.low[n])), std::array::from_fn(|n| a.high[n].min(b.high[n])));
    let union = volume(a.low, a.high) + volume(b.low, b.high) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(low: [f64; 3], high: [f64; 3], score: f32) -> ScoredBox {
        ScoredBox { channel: 0, score, low, high }
    }

    #[test]
    fn iou_is_a_share() {
        let cube = of([0.0; 3], [2.0; 3], 0.5);
        assert_eq!(iou(&cube, &cube), 1.0);
        assert_eq!(iou(&cube, &of([1.0, 0.0, 0.0], [3.0, 2.0, 2.0], 0.5)), 4.0 / 12.0);
        assert_eq!(iou(&cube, &of([2.0, 0.0, 0.0], [3.0, 2.0, 2.0], 0.5)), 0.0, "faces that touch share nothing");
        assert_eq!(iou(&cube, &of([5.0; 3], [6.0; 3], 0.5)), 0.0);
    }

    #[test]
    fn the_limit_itself_is_not_above_it() {
        let (a, b) = (of([0.0; 3], [2.0; 3], 0.9), of([1.0, 0.0, 0.0], [3.0, 2.0, 2.0], 0.8));
        let kept = |most| suppressed(vec![b, a], [1.0; 3], Suppression::Iou(most));
        assert_eq!((kept(4.0 / 12.0), kept(0.33)), (vec![a, b], vec![a]));
        let points = [of([0.0; 3], [0.0; 3], 0.9), of([3.0, 0.0, 0.0], [3.0, 0.0, 0.0], 0.8)];
        let kept = |least_mm| suppressed(points.to_vec(), [2.0, 1.0, 1.0], Suppression::DistanceMm(least_mm)).len();
        assert_eq!((kept(6.0), kept(6.1)), (2, 1), "in mm, not in voxels");
    }

    /// The definition by itself: a box stays where no box of its channel stays that comes before it and is one with it.
    fn stays(sorted: &[ScoredBox], n: usize, are_one: &dyn Fn(&ScoredBox, &ScoredBox) -> bool, known: &mut [Option<bool>]) -> bool {
        if let Some(known) = known[n] {
            return known;
        }
        let is_one = |m: usize| sorted[m].channel == sorted[n].channel && are_one(&sorted[m], &sorted[n]);
        let suppressing: Vec<usize> = (0..n).filter(|&m| is_one(m)).collect();
        let answer = !suppressing.into_iter().any(|m| stays(sorted, m, are_one, known));
        known[n] = Some(answer);
        answer
    }

    /// Faces on a coarse lattice and few scores, so that there are ties of both.
    fn boxes() -> impl Strategy<Value = Vec<ScoredBox>> {
        let one = (0..2usize, 1..6u8, prop::array::uniform3(0..6u8), prop::array::uniform3(1..5u8));
        let made = |(channel, score, low, size): (usize, u8, [u8; 3], [u8; 3])| ScoredBox {
            channel,
            score: f32::from(score) / 5.0,
            low: low.map(f64::from),
            high: std::array::from_fn(|n| f64::from(low[n] + size[n])),
        };
        prop::collection::vec(one.prop_map(made), 0..40)
    }

    proptest! {
        // Counting cubes takes its time.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn as_the_definition_says(boxes in boxes(), most in 0.0..0.9f64, rotated in 0..40usize) {
            let mut sorted = boxes.clone();
            sorted.sort_by(|a, b| {
                let place = |one: &ScoredBox| [one.low, one.high].map(|[i, j, k]| [k, j, i]);
                (b.score, place(a), a.channel).partial_cmp(&(a.score, place(b), b.channel)).expect("numbers")
            });
            let one = |a: &ScoredBox, b: &ScoredBox| {
                // By counting: faces lie on whole numbers, so unit cubes are in a box or not.
                let middle = |n: u32| [n % 10, n / 10 % 10, n / 100].map(|v| f64::from(v) + 0.5);
                let cubes = |of: &dyn Fn([f64; 3]) -> bool| (0..1000).filter(|&n| of(middle(n))).count();
                let inside = |of: &ScoredBox, at: [f64; 3]| (0..3).all(|n| of.low[n] < at[n] && at[n] < of.high[n]);
                cubes(&|at| inside(a, at) && inside(b, at)) as f64 / cubes(&|at| inside(a, at) || inside(b, at)) as f64 > most
            };
            let mut known = vec![None; sorted.len()];
            let expected: Vec<ScoredBox> = (0..sorted.len()).filter(|&n| stays(&sorted, n, &one, &mut known)).map(|n| sorted[n]).collect();
            let mut other_order = boxes.clone();
            if !boxes.is_empty() {
                other_order.rotate_left(rotated % boxes.len());
            }
            prop_assert_eq!(&suppressed(boxes, [0.7, 0.7, 2.5], Suppression::Iou(most)), &expected);
            prop_assert_eq!(&suppressed(other_order, [1.0; 3], Suppression::Iou(most)), &expected);
        }

        #[test]
        fn points_as_well(boxes in boxes(), least_mm in 0.5..9.0f64, spacing_mm in prop::array::uniform3(0.5..3.0f64)) {
            let points: Vec<ScoredBox> = boxes.into_iter().map(|one| ScoredBox { high: one.low, ..one }).collect();
            let kept = suppressed(points.clone(), spacing_mm, Suppression::DistanceMm(least_mm));
            let far = |a: &ScoredBox, b: &ScoredBox| {
                let square: f64 = (0..3).map(|n| ((a.low[n] - b.low[n]) * spacing_mm[n]).powi(2)).sum();
                a.channel != b.channel || square.sqrt() >= least_mm
            };
            for (n, a) in kept.iter().enumerate() {
                prop_assert!(kept[..n].iter().all(|b| far(a, b)), "two that stay are one");
            }
            for one in points.iter().filter(|one| !kept.contains(one)) {
                let by_higher = |other: &&ScoredBox| other.score >= one.score && !far(one, other);
                prop_assert!(kept.iter().any(|other| by_higher(&other)), "{one:?} went for nothing");
            }
        }
    }
}
