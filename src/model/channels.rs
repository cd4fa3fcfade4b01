//! `[[input.channel]]`: networks that see several series of a study at once, as multi-channel MR.

use serde::Deserialize;

use super::manifest::{Manifest, PreprocessStep};
use super::select::{Kind, Select};

/// Channels of images that a network may have.
pub(super) const MAX_CHANNELS: usize = 16;
/// Characters of a channel's name.
pub(super) const MAX_NAME: usize = 64;
/// Part of the reference's voxels that a channel has, unless the package says otherwise.
const MIN_COVERAGE: f64 = 0.95;

/// One channel of the network's input.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// For people: "FLAIR".
    pub name: String,
    /// Which series of the study it is. None of one channel, the reference: the series that the package's `[select]` takes, on whose grid
    /// results lie.
    pub select: Option<Select>,
    /// All its steps, where they are others than the package's: the same geometry, other values.
    pub preprocess: Option<Vec<PreprocessStep>>,
    /// The least part of the reference's voxels that must lie within it, 0 to 1.
    #[serde(default = "min_coverage")]
    pub min_coverage: f64,
}

/// Whether a channel may have this name.
pub(super) fn is_channel_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_in_name)
}

/// Whether this may stand in a channel's name: names stand in DICOM texts, and between backquotes in messages.
pub(super) fn is_in_name(c: char) -> bool {
    matches!(c, ' '..='~') && !"\\`".contains(c)
}

fn min_coverage() -> f64 {
    MIN_COVERAGE
}

impl Manifest {
    /// The channel whose series is the reference: results lie on its grid. 0 where there is one image.
    pub fn reference_channel(&self) -> usize {
        self.input.channel.iter().position(|channel| channel.select.is_none()).unwrap_or(0)
    }

    /// What the network's input is made of: its images, and the labels of the stage before that it sees.
    pub fn input_channels(&self) -> usize {
        self.images() + self.input.previous.as_ref().map_or(0, |previous| previous.one_hot.len())
    }

    /// Images that the network sees: the first of its channels.
    pub fn images(&self) -> usize {
        self.input.channel.len().max(1)
    }

    /// The preprocessing steps of each image that the network sees, in the order of the channels; at least one.
    pub fn steps_of_images(&self) -> Vec<&[PreprocessStep]> {
        if self.input.channel.is_empty() {
            return vec![&self.preprocess];
        }
        self.input.channel.iter().map(|channel| channel.preprocess.as_ref().unwrap_or(&self.preprocess).as_slice()).collect()
    }

    /// What TOML's types cannot say of channels.
    pub(super) fn check_channels(&self) -> Result<(), String> {
        let channels = &self.input.channel;
        if channels.is_empty() {
            return Ok(());
        }
        if !(2..=MAX_CHANNELS).contains(&channels.len()) {
            return Err(format!("{} `input.channel`: give 2 to {MAX_CHANNELS}, or none for a network of one", channels.len()));
        }
        if self.model.task.is_of_whole() {
            return Err("`input.channel` is not for networks that see an image as a whole: this version shows them one".to_owned());
        }
        if channels.iter().filter(|channel| channel.select.is_none()).count() != 1 {
            return Err("one `input.channel`, the reference, has no `select`: it is the series that [select] takes".to_owned());
        }
        let geometry = |steps: &[PreprocessStep]| -> Vec<PreprocessStep> { steps.iter().filter(|s| s.is_geometry()).cloned().collect() };
        for (n, channel) in channels.iter().enumerate() {
            let wrong = |what: &str| Err(format!("the `input.channel` `{}` {what}", channel.name));
            if !is_channel_name(&channel.name) {
                return Err("`input.channel.name` takes 1 to 64 ASCII characters, none of them a backslash or backquote".to_owned());
            }
            if channels[n + 1..].iter().any(|other| other.name == channel.name) {
                return wrong("is there twice");
            }
            if !(0.0..=1.0).contains(&channel.min_coverage) {
                return wrong("has a `min_coverage` outside 0 to 1");
            }
            if let Some(select) = &channel.select {
                select.check().or_else(|what| wrong(&format!("cannot be selected: {what}")))?;
                if select.kind != Kind::Volume || select.geometry != self.select.geometry {
                    return wrong("has another `kind` or `geometry` in its `select` than [select]");
                }
            }
            if channel.preprocess.as_ref().is_some_and(|own| geometry(own) != geometry(&self.preprocess)) {
                return wrong("has other `orient`, `crop` or `resample` steps than [[preprocess]]: all channels share the network's grid");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::geometry::Coded;
    use crate::model::ModelError;

    /// The shipped manifest with these lines after those of `[input]`.
    fn with(channels: &str) -> Result<Manifest, ModelError> {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let layout = "layout = \"NCDHW\"\n";
        assert_eq!(shipped.matches(layout).count(), 1);
        Manifest::parse(&shipped.replace(layout, &format!("{layout}{channels}")), Path::new("model.toml"))
    }

    const FIRST: &str = "[[input.channel]]\nname = \"native\"\n";
    const SECOND: &str = "[[input.channel]]\nname = \"late\"\nselect = { modality = [\"CT\"], description = { any = [\"late\"] } }\n";

    #[test]
    fn channels_have_series_and_steps_of_their_own() {
        assert_eq!(with("").expect("a manifest").steps_of_images().len(), 1);
        let manifest = with(&format!("{SECOND}{FIRST}")).expect("a manifest");
        assert_eq!(manifest.reference_channel(), 1);
        assert_eq!(manifest.steps_of_images(), [&manifest.preprocess[..]; 2]);
        assert_eq!(manifest.input.channel[0].min_coverage, 0.95);
        let steps = manifest.preprocess.len();
        let orient = "[[input.channel.preprocess]]\nstep = \"orient\"\nto = \"LPS\"\n";
        let resample = "[[input.channel.preprocess]]\nstep = \"resample\"\nspacing_mm = [1.5, 1.5, 1.5]\ninterpolation = \"linear\"\n";
        let own = format!("{orient}{resample}[[input.channel.preprocess]]\nstep = \"z-score\"\n");
        let manifest = with(&format!("{FIRST}{SECOND}{own}")).expect("a manifest");
        let [first, second] = manifest.steps_of_images()[..] else { panic!("two channels") };
        assert_eq!((first.len(), second.len()), (steps, 3));
        assert!(matches!(second[2], PreprocessStep::ZScore { .. }));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |channels: &str, code: &str, said: &str| {
            let error = with(channels).expect_err("it is refused");
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        };
        let both = format!("{FIRST}{SECOND}");
        refused(FIRST, "model.unsupported", "2 to 16");
        refused(&format!("{FIRST}{}", FIRST.replace("native", "late")), "model.unsupported", "the reference, has no `select`");
        refused(&format!("{SECOND}{SECOND}"), "model.unsupported", "the reference, has no `select`");
        refused(&both.replace("\"late\"\n", "\"native\"\n"), "model.unsupported", "twice");
        refused(&both.replace("[\"CT\"], ", "[\"CT\"], geometry = \"split\", "), "model.unsupported", "`geometry`");
        refused(&both.replace("any = [\"late\"]", ""), "model.unsupported", "`select.description`");
        refused(&both.replace("any = [\"late\"]", "any = [\"(\"]"), "model.manifest", "regular expression");
        refused(&format!("{both}min_coverage = 1.5\n"), "model.unsupported", "outside 0 to 1");
        let other = "[[input.channel.preprocess]]\nstep = \"orient\"\nto = \"LPS\"\n";
        refused(&format!("{both}{other}"), "model.unsupported", "share the network's grid");
        let bad = "[[input.channel.preprocess]]\nstep = \"normalize\"\nsubtract = 0.0\ndivide = 0.0\n";
        refused(&format!("{both}{bad}"), "model.unsupported", "");
    }
}
