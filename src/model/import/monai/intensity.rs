//! MONAI's transforms of values as steps of a package.

use serde_json::Value;

use super::{Lost, Transform};
use crate::model::PreprocessStep;

/// Steps so far, `resample` among them.
#[derive(Debug)]
pub(super) struct Intensity {
    /// Whether there are several channels: what measures must measure each by itself.
    pub(super) of_channels: bool,
    pub(super) steps: Vec<PreprocessStep>,
}

/// What a range of values becomes: `a` becomes 0 and 1, then these.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// `b_min` and `b_max`, or other names; 0 and 1 where there are none.
    fn of(transform: &Transform, [low, high]: [&str; 2]) -> Self {
        match (transform.number(low), transform.number(high)) {
            (Some(low), Some(high)) => Self { low, high },
            _ => Self { low: 0.0, high: 1.0 },
        }
    }

    /// Makes it of 0 to 1; none where it is that.
    fn step(self) -> Option<PreprocessStep> {
        let width = self.high - self.low;
        (self.low != 0.0 || width != 1.0).then_some(PreprocessStep::Normalize { subtract: -self.low / width, divide: 1.0 / width })
    }
}

impl Intensity {
    pub(super) fn resample(&mut self, step: PreprocessStep) {
        self.steps.push(step);
    }

    /// `is_resampled_later`: whether `Spacingd` is still to come.
    pub(super) fn add(&mut self, transform: &Transform, is_resampled_later: bool, lost: &mut Lost) {
        let name = transform.name.as_str();
        // What has been done to values or grid is measured as it is then; a package measures it on the network's grid alone.
        let is_first = self.steps.is_empty();
        if is_resampled_later && !is_first && name != "ScaleIntensityRanged" {
            lost.stop(format!("{name} after other values and before Spacingd"));
            return;
        }
        let measures = ["ScaleIntensityd", "ScaleIntensityRangePercentilesd"].contains(&name)
            || (name == "NormalizeIntensityd" && transform.get("subtrahend").is_none());
        if self.of_channels && measures && !transform.is_on("channel_wise") {
            lost.stop(format!("{name} without channel_wise: it measures all channels together, and a package each by itself"));
            return;
        }
        match name {
            "ScaleIntensityRanged" => self.range(transform, lost),
            "NormalizeIntensityd" => {
                let nonzero = transform.is_on("nonzero");
                match (transform.number("subtrahend"), transform.number("divisor")) {
                    (Some(subtract), Some(divide)) => {
                        lost.name_unless(!nonzero, "NormalizeIntensityd with numbers and nonzero: zeros are normalised as well");
                        self.steps.push(PreprocessStep::Normalize { subtract, divide });
                    }
                    (None, None) if transform.get("subtrahend").is_none() && transform.get("divisor").is_none() => {
                        if nonzero && is_resampled_later {
                            lost.name("NormalizeIntensityd with nonzero before Spacingd: what is not above 0 does not count");
                        }
                        // Before any other step the source is what is measured, which has the same voxels.
                        let on_grid = !is_first || (nonzero && !is_resampled_later);
                        self.steps.push(PreprocessStep::ZScore {
                            above: (nonzero && !on_grid).then_some(0.0),
                            over: None,
                            masked: nonzero,
                            nonzero: nonzero && on_grid,
                            resampled: on_grid,
                        });
                    }
                    _ => lost.stop("NormalizeIntensityd with one of subtrahend and divisor, or several of them"),
                }
            }
            "ScaleIntensityd" => {
                if transform.get("minv").is_none() || transform.get("maxv").is_none() {
                    lost.stop("ScaleIntensityd by a factor");
                    return;
                }
                self.percentiles([0.0, 100.0], Range::of(transform, ["minv", "maxv"]), is_resampled_later);
            }
            "ScaleIntensityRangePercentilesd" => {
                let (Some(low), Some(high)) = (transform.number("lower"), transform.number("upper")) else {
                    lost.stop("ScaleIntensityRangePercentilesd without lower and upper");
                    return;
                };
                lost.name_unless(!transform.is_on("relative"), "ScaleIntensityRangePercentilesd with relative");
                lost.name_unless(transform.is_on("clip"), "ScaleIntensityRangePercentilesd without clip: values beyond are clipped");
                self.percentiles([low, high], Range::of(transform, ["b_min", "b_max"]), is_resampled_later);
            }
            "CastToTyped" if transform.text("dtype") == Some("float32") => {}
            "Resized" | "ResizeWithPadOrCropd" | "Zoomd" => lost.stop(format!("the transform {name}: this version resamples to a spacing")),
            "CropForegroundd" => lost.name("CropForegroundd: the whole volume is looked at"),
            _ => lost.name(format!("the transform {name}")),
        }
    }

    /// Two percentiles become `to`.
    fn percentiles(&mut self, [low, high]: [f64; 2], to: Range, is_resampled_later: bool) {
        let range = to.step();
        let resampled = !self.steps.is_empty() || (range.is_some() && !is_resampled_later);
        self.steps.push(PreprocessStep::Percentiles { low, high, above: None, resampled });
        self.steps.extend(range);
    }

    /// `(v - a_min) / (a_max - a_min) * (b_max - b_min) + b_min`, clipped to `b_min` and `b_max`.
    fn range(&mut self, transform: &Transform, lost: &mut Lost) {
        let (Some(min), Some(max)) = (transform.number("a_min"), transform.number("a_max")) else {
            lost.stop("ScaleIntensityRanged without a_min and a_max");
            return;
        };
        let Range { low, high } = Range::of(transform, ["b_min", "b_max"]);
        if transform.is_on("clip") {
            // Without numbers MONAI clips to none.
            let clips = transform.get("b_min").is_some_and(Value::is_number) && transform.get("b_max").is_some_and(Value::is_number);
            lost.name_unless(clips, "ScaleIntensityRanged with clip to one side: it is to both");
            self.steps.push(PreprocessStep::Clip { min, max });
        }
        let divide = (max - min) / (high - low);
        self.steps.push(PreprocessStep::Normalize { subtract: min - low * divide, divide });
    }
}
