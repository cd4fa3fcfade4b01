//! MONAI's transforms from scores to labels as steps of a package.

use super::{Lost, NEUTRAL, Transform};
use crate::kernels::Interpolation;
use crate::model::PostprocessStep;

/// How scores become labels.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) interpolation: Interpolation,
    pub(super) steps: Vec<PostprocessStep>,
}

/// `is_resampled`: whether the network's voxels are not the source's.
pub(super) fn of(transforms: &[Transform], is_resampled: bool, lost: &mut Lost) -> Labels {
    let place = |name: &str| transforms.iter().position(|transform| transform.name == name);
    let inverted = place("Invertd");
    let argmax = transforms.iter().position(|transform| transform.name == "AsDiscreted" && transform.is_on("argmax"));
    let before_inversion = |n: Option<usize>| n.is_some_and(|n| inverted.is_some_and(|inverted| n < inverted));
    let nearest = inverted.is_some_and(|n| transforms[n].is_on("nearest_interp"));
    let interpolation = if nearest || before_inversion(argmax) { Interpolation::Nearest } else { Interpolation::Linear };
    if argmax.is_none() {
        lost.stop("no AsDiscreted with argmax: this version runs classes that exclude each other");
    }
    lost.name_unless(
        nearest || !before_inversion(argmax) || !is_resampled,
        "Invertd interpolates between the numbers of labels: that of the nearest voxel is taken",
    );
    lost.name_unless(inverted.is_some() || !is_resampled, "no Invertd: labels lie on the source's grid here, and on the network's there");
    let mut labels = Labels { interpolation: if is_resampled { interpolation } else { Interpolation::Linear }, steps: Vec::new() };
    let mut later = Vec::new();
    for (n, transform) in transforms.iter().enumerate() {
        match transform.name.as_str() {
            name if NEUTRAL.contains(&name) || ["SaveImaged", "Invertd"].contains(&name) => {}
            "Activationsd" => {
                if transform.is_on("sigmoid") || transform.get("other").is_some() {
                    lost.stop("Activationsd other than softmax: this version runs classes that exclude each other");
                }
                // Else it keeps the order of scores, and is not needed.
                if transform.is_on("softmax") && labels.interpolation == Interpolation::Linear && before_inversion(Some(n)) && is_resampled
                {
                    labels.steps.push(PostprocessStep::Softmax);
                }
            }
            "AsDiscreted" if transform.is_on("argmax") => {}
            "AsDiscreted" => lost.stop("AsDiscreted without argmax: this version runs classes that exclude each other"),
            "KeepLargestConnectedComponentd" => {
                let all = transform.get("applied_labels").is_none() && transform.is_on("independent");
                let single = transform.number("num_components") == Some(1.0);
                let full = transform.get("connectivity").is_none() || transform.number("connectivity") == Some(3.0);
                lost.name_unless(
                    all && single && full,
                    "KeepLargestConnectedComponentd of some labels, of all together, of several, or by other neighbours than 26: it is the largest of each",
                );
                lost.name_unless(
                    !before_inversion(Some(n)) || !is_resampled,
                    "KeepLargestConnectedComponentd before Invertd: it is done on the source's grid",
                );
                later.push(PostprocessStep::Components { min_ml: 0.0, keep_largest: true });
            }
            name => lost.name(format!("the transform {name}")),
        }
    }
    labels.steps.push(PostprocessStep::Argmax);
    labels.steps.extend(later);
    labels
}
