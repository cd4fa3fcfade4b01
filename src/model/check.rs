//! What TOML's types cannot say of a manifest: numbers, order of steps, names and what belongs together.
//!
//! What one table alone decides stands beside it: `channels.rs`, `slices.rs`, `stage.rs`, `instances.rs`, `boxes.rs`, `whole.rs`, `follow_up.rs`.

use std::path::{Component, Path};

use super::Inference;
use super::manifest::{FORMAT, File, Manifest, MapKind, PostprocessStep, PreprocessStep, ScoreKind};
use super::select::Kind;
use crate::codes::Code;
use crate::kernels::Interpolation;

/// Maps that a package may have.
const MAX_MAPS: usize = 16;
/// Steps from the first one that is `resampled` on: each is a pass over the network's grid.
const MAX_PASSES: usize = 8;
const LATER_STEPS: &str = "after a step that is `resampled` come only others, `clip` and `normalize`: 8 at most";
/// Findings that `regions` can tell apart: one label is that of none.
const MAX_REGIONS: usize = 254;

impl Manifest {
    /// What TOML's types cannot say.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_stages()?;
        self.check_network()
    }

    /// What holds of the package's own network, and of each stage by itself.
    pub(super) fn check_network(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(self.format == FORMAT, "`format` is not 1")?;
        require(
            Self::is_name(&self.model.name) && Self::is_name(&self.model.version),
            "`model.name` and `model.version` take 1 to 32 letters, digits, - . _ +",
        )?;
        require(is_version(&self.model.version), "`model.version` is no version: numbers with dots between them, as 1.0.0 or 1.2.0-rc.1")?;
        let is_hash = |file: &File| file.sha256.len() == 64 && file.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if let Some(file) = self.files().find(|file| !is_hash(file)) {
            return Err(format!("the `sha256` of the file {:?} is not 64 hexadecimal digits, a to f in small letters", file.path));
        }
        require(!self.file.is_empty(), "no `file`: a package has an ONNX graph at least")?;
        self.select.check()?;
        self.inference.check()?;
        if self.has_labels() {
            self.check_labels()?;
        }
        self.check_boxes()?;
        self.check_channels()?;
        self.check_slices()?;
        self.steps_of_images().into_iter().try_for_each(Self::check_preprocess)?;
        self.check_findings()?;
        self.check_maps()
    }

    /// Numbers and order of the preprocessing steps.
    fn check_preprocess(steps: &[PreprocessStep]) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        let is_resample = |s: &PreprocessStep| matches!(s, PreprocessStep::Resample { .. } | PreprocessStep::Resize { .. });
        let of_values = steps.iter().position(|s| !s.is_geometry());
        let resample_comes_first = steps.iter().position(is_resample).is_some_and(|n| of_values.is_none_or(|first| n < first));
        for step in steps {
            match step {
                PreprocessStep::Orient { .. } => {}
                PreprocessStep::Resample { spacing_mm, within, from_first, nearest_beyond, .. } => {
                    require(!(*within && *from_first), "`resample` keeps the outer faces (`within`) or the first voxel (`from_first`)")?;
                    let fits = |&s: &f64| s == 0.0 || (0.05..=50.0).contains(&s);
                    require(spacing_mm.iter().all(fits), "`resample.spacing_mm` is outside 0.05 to 50 mm, and not 0, which keeps an axis")?;
                    require(
                        nearest_beyond.is_none_or(|ratio| (1.0..=1000.0).contains(&ratio)),
                        "`resample.nearest_beyond` is outside 1 to 1000",
                    )?;
                }
                PreprocessStep::Resize { to, .. } => {
                    require(to.iter().all(|n| (1..=1 << 12).contains(n)), "`resize.to` has an axis outside 1 to 4096")?;
                }
                PreprocessStep::Crop { to, above, labelled, margin_mm, .. } => {
                    let given = [to.is_some(), above.is_some(), !labelled.is_empty()].into_iter().filter(|is| *is).count();
                    require(given == 1, "`crop` takes one of `to`, `above` and `labelled`")?;
                    require(above.is_none_or(f64::is_finite), "`crop.above` is not finite")?;
                    require((0.0..=1000.0).contains(margin_mm), "`crop.margin_mm` is outside 0 to 1000 mm")?;
                }
                PreprocessStep::Clip { min, max } => require(min < max, "`clip` has min >= max")?,
                PreprocessStep::Normalize { divide, .. } => require(divide.is_normal(), "`normalize.divide` is 0 or not finite")?,
                PreprocessStep::ZScore { above, over, masked, nonzero, resampled } => {
                    require(above.is_none_or(f64::is_finite), "`z-score.above` is not finite")?;
                    require(above.is_none() || over.is_none(), "`z-score` takes one of `above` and `over`")?;
                    require(over.is_none() || !resampled, "`z-score.over` is of the series: not for `resampled`, which has `nonzero`")?;
                    require(
                        above.is_some() || over.is_some() || *nonzero || !masked,
                        "`z-score.masked` needs `above`, `over` or `nonzero`",
                    )?;
                    require(
                        !masked || *resampled || !resample_comes_first,
                        "`z-score` with `masked` comes before `resample`, or is `resampled`",
                    )?;
                    require(!nonzero || (*resampled && above.is_none()), "`z-score.nonzero` is for `resampled`, and without `above`")?;
                }
                PreprocessStep::Percentiles { low, high, above, .. } => {
                    require(above.is_none_or(f64::is_finite), "`percentiles.above` is not finite")?;
                    require(
                        (0.0..=100.0).contains(low) && (0.0..=100.0).contains(high) && low < high,
                        "`percentiles` has no `low` below `high`, both 0 to 100",
                    )?;
                }
            }
        }
        let rank = |s: &PreprocessStep| match s {
            PreprocessStep::Orient { .. } => 0,
            PreprocessStep::Crop { .. } => 1,
            PreprocessStep::Resample { .. } | PreprocessStep::Resize { .. } => {
                if resample_comes_first {
                    2
                } else {
                    5
                }
            }
            PreprocessStep::Clip { .. } => 3,
            PreprocessStep::Normalize { .. } | PreprocessStep::ZScore { .. } | PreprocessStep::Percentiles { .. } => 4,
        };
        let first_resampled = steps.iter().position(PreprocessStep::measures_resampled).unwrap_or(steps.len());
        let (fused, later) = steps.split_at(first_resampled);
        require(
            fused.is_sorted_by(|a, b| rank(a) < rank(b)),
            "`preprocess` steps come at most once each and in the order orient, crop, resample or resize, clip, and one of normalize, z-score, \
             percentiles; or orient, crop, clip, one of these, resample or resize; then those that are `resampled`",
        )?;
        let follows =
            |s: &PreprocessStep| s.measures_resampled() || matches!(s, PreprocessStep::Clip { .. } | PreprocessStep::Normalize { .. });
        require(later.len() <= MAX_PASSES && later.iter().all(follows), LATER_STEPS)?;
        let clips = fused.iter().any(|s| matches!(s, PreprocessStep::Clip { .. }));
        let measures = fused.iter().any(|s| matches!(s, PreprocessStep::ZScore { .. } | PreprocessStep::Percentiles { .. }));
        require(!(clips && measures), "`z-score` and `percentiles` take the image as it is: no `clip` before them")
    }

    /// Names, numbers and codes of the findings, and what is named beside them.
    fn check_findings(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(!self.finding.is_empty(), "no `finding`")?;
        require(
            self.output.background.is_none_or(|background| background < self.channels()),
            "`output.background` is beyond the channels of the output: one for each finding and the background",
        )?;
        for (n, finding) in self.finding.iter().enumerate() {
            require(finding.segment > 0 || !self.has_labels(), "`finding.segment` 0 is background")?;
            let before = self.finding[..n].iter().map(|other| other.channel).chain(self.output.background);
            require(
                finding.channel < self.channels() && before.clone().all(|other| other != finding.channel),
                "`finding.channel` and `output.background` name each channel of the output once, from 0 on",
            )?;
            let others = &self.finding[n + 1..];
            require(
                others.iter().all(|o| (o.segment != finding.segment || !self.has_labels()) && o.name != finding.name),
                "two findings share a segment or a name",
            )?;
            for code in [Some(&finding.category), Some(&finding.finding_type), finding.site.as_ref(), finding.laterality.as_ref()] {
                require(code.is_none_or(is_code), "a code has an empty part, or a value over 16 or a meaning over 64 characters")?;
            }
        }
        self.check_instances()?;
        self.check_follow_up()?;
        if self.model.task.is_of_whole() {
            self.check_whole()?;
        }
        self.reference.as_ref().map_or(Ok(()), |reference| reference.check(&self.finding))?;
        let inside = |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        require(self.files().all(|file| inside(&file.path)), "the path of a file does not lie within the package")
    }

    /// What a package whose result is a label map needs, and what it has no use for.
    fn check_labels(&self) -> Result<(), String> {
        let require = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        require(
            [Interpolation::Nearest, Interpolation::Linear].contains(&self.output.interpolation),
            "`output.interpolation` is neither \"nearest\" nor \"linear\"",
        )?;
        require(
            !self.has_softmax() || self.output.scores.is_none_or(|kind| kind == ScoreKind::Logits),
            "`softmax` makes probabilities of `logits`: `output.scores` says something else",
        )?;
        let labels = &self.postprocess[usize::from(self.postprocess.first() == Some(&PostprocessStep::Softmax))..];
        let decides = match labels.first() {
            Some(PostprocessStep::Argmax) => true,
            Some(PostprocessStep::Regions { .. }) => !self.has_softmax(),
            _ => false,
        };
        require(decides, "the first `postprocess` step must be `argmax`, `softmax` and then `argmax`, or `regions`")?;
        let once = |s: &PostprocessStep| matches!(s, PostprocessStep::Components { .. });
        require(labels.iter().skip(1).all(once), "`postprocess` has `softmax` late, or a second `softmax`, `argmax` or `regions`")?;
        if let Some(PostprocessStep::Regions { above }) = labels.first() {
            require(above.is_finite(), "`regions.above` is not finite")?;
            require(self.output.background.is_none(), "`regions` has no channel for the background: it is where no region is")?;
            require(self.finding.len() <= MAX_REGIONS, "`regions` takes 254 findings at most")?;
        }
        require(
            self.empty_patches().is_none() || (self.output.scores.is_some() && self.background_scores().is_some()),
            "`sliding-window.empty` makes background of patches: it needs `output.scores`, and `output.background` or `regions`",
        )?;
        require(!matches!(self.inference, Inference::Whole(_)), "`inference.whole` is of classifications: give tiles or a sliding window")?;
        require(self.select.kind == Kind::Volume, "`select.kind` of anything but a classification is \"volume\"")?;
        let resizes = self.preprocess.iter().any(|s| matches!(s, PreprocessStep::Resize { .. }));
        require(!resizes, "`resize` is of classifications: give `resample` with a spacing")?;
        require(
            self.explanation.is_none(),
            "`explanation` is of classifications and of boxes: a [[map]] shows a segmentation's probabilities",
        )?;
        require(self.finding.iter().all(|f| f.threshold.is_none()), "`finding.threshold` is of classifications")?;
        require(self.finding.iter().all(|f| f.estimate.is_none()), "`finding.estimate` is of regressions")?;
        require(self.finding.iter().all(|f| f.colour.is_some()), "a `finding` with a segment has no `colour`")
    }

    fn check_maps(&self) -> Result<(), String> {
        if !self.map.is_empty() && self.output.scores.is_none() {
            return Err("a `map` needs `output.scores`: `logits`, `independent-logits` or `probabilities`".to_owned());
        }
        if self.map.len() > MAX_MAPS {
            return Err(format!("{} maps: at most {MAX_MAPS} are written", self.map.len()));
        }
        for (n, map) in self.map.iter().enumerate() {
            let wrong = |what: &str| Err(format!("the map `{}` {what}", map.name));
            if !(1..=64).contains(&map.name.len()) || !map.name.chars().all(|c| matches!(c, ' '..='~') && c != '\\') {
                return Err("`map.name` takes 1 to 64 ASCII characters, none of them a backslash".to_owned());
            }
            if self.map[n + 1..].iter().any(|other| other.name == map.name) {
                return wrong("is there twice");
            }
            match (map.of, &map.finding) {
                (MapKind::Probability, None) => return wrong("is of the probability of a `finding`, and names none"),
                (MapKind::Spread, None) => return wrong("is of the spread of the probability of a `finding`, and names none"),
                (MapKind::Spread, Some(_)) if self.file.len() < 2 => {
                    return wrong(
                        "is of the spread over an ensemble, and the package has one graph: give several [[file]], or leave it out",
                    );
                }
                (MapKind::Probability | MapKind::Spread, Some(name)) if !self.finding.iter().any(|finding| finding.name == *name) => {
                    return wrong("is of a `finding` that is none of the package's");
                }
                (MapKind::Uncertainty, Some(_)) => return wrong("is of the uncertainty between all findings, and names one"),
                (MapKind::Uncertainty, None) if self.channels() < 2 => return wrong("is of the uncertainty between one finding"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a code has all its parts, each as long as it may be.
pub(super) fn is_code(code: &Code) -> bool {
    (1..=16).contains(&code.value.len()) && !code.scheme.is_empty() && (1..=64).contains(&code.meaning.len())
}

/// Whether a text is numbers with dots between them, and what may follow a `-` or `+`: `1.0.0`, `1.2.0-rc.1`.
pub(super) fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (1..=4).contains(&numbers.split('.').count()) && numbers.split('.').all(is_number)
}
