//! `[input.slices]`: networks of two dimensions that see a slice among its neighbours, which are channels of one image ("2.5D").

use serde::{Deserialize, Serialize};

use super::Beyond;
use super::manifest::{Layout, Manifest};

/// Slices that a network may see for one.
const MAX_SLICES: usize = 31;

/// The slices that a network of slices sees for each one that it answers for, along k of its grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slices {
    /// How many, an odd number: the one that is answered for is in the middle, and they come by rising k.
    pub count: usize,
    /// What those are that lie beyond the ends of the volume.
    #[serde(default = "edge")]
    pub beyond: Beyond,
    /// How they lie among the channels where the network sees several images.
    #[serde(default)]
    pub order: SliceOrder,
}

fn edge() -> Beyond {
    Beyond::Edge
}

/// How slices of several images lie among the channels of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SliceOrder {
    /// All slices of the first image, then all of the second.
    #[default]
    ByImage,
    /// The first slice of all images, then the second of all.
    BySlice,
}

impl Slices {
    /// Whether a network may see so many slices for one.
    pub fn is_count(count: usize) -> bool {
        (3..=MAX_SLICES).contains(&count) && count % 2 == 1
    }

    /// Slices on each side of the one that is answered for.
    pub fn reach(&self) -> usize {
        self.count / 2
    }

    /// Of `images` images, the image and the place among its slices that is channel `channel` of the input.
    pub fn of_channel(&self, channel: usize, images: usize) -> [usize; 2] {
        match self.order {
            SliceOrder::ByImage => [channel / self.count, channel % self.count],
            SliceOrder::BySlice => [channel % images, channel / images],
        }
    }
}

impl Manifest {
    /// Channels of the graph's input tensor: the slices of each image and label that it is made of, or one of each.
    pub fn tensor_channels(&self) -> usize {
        self.input_channels() * self.input.slices.map_or(1, |slices| slices.count)
    }

    /// What TOML's types cannot say of slices.
    pub(super) fn check_slices(&self) -> Result<(), String> {
        match self.input.slices {
            None => Ok(()),
            Some(_) if self.model.task.is_of_whole() => {
                Err("`input.slices` is not for networks that see an image as a whole: leave it out".to_owned())
            }
            Some(_) if self.input.layout != Layout::Nchw => {
                Err("`input.slices` is of networks of two dimensions: `layout = \"NCHW\"`, or leave it out".to_owned())
            }
            Some(Slices { count, .. }) if !Slices::is_count(count) => Err(format!(
                "`input.slices.count` is {count}, and not an odd number of 3 to {MAX_SLICES}: the slice in the middle is labelled"
            )),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::geometry::Coded;
    use crate::model::ModelError;

    /// The shipped manifest as that of a network of slices, with these lines more in `[input]`.
    fn with(layout: &str, slices: &str) -> Result<Manifest, ModelError> {
        let shipped = include_str!("../../models/ct-tissue/model.toml");
        let own = "layout = \"NCDHW\"\n";
        assert_eq!(shipped.matches(own).count(), 1);
        Manifest::parse(&shipped.replace(own, &format!("layout = \"{layout}\"\n{slices}")), Path::new("model.toml"))
    }

    #[test]
    fn edges_continue_and_images_come_one_after_the_other_unless_said_otherwise() {
        let manifest = with("NCHW", "slices = { count = 5 }\n").expect("a manifest");
        assert_eq!(manifest.input.slices, Some(Slices { count: 5, beyond: Beyond::Edge, order: SliceOrder::ByImage }));
        assert_eq!((manifest.input_channels(), manifest.tensor_channels()), (1, 5));
        let manifest = with("NCHW", "slices = { count = 3, beyond = \"zero\", order = \"by-slice\" }\n").expect("a manifest");
        assert_eq!(manifest.input.slices, Some(Slices { count: 3, beyond: Beyond::Zero, order: SliceOrder::BySlice }));
        assert_eq!(with("NCHW", "").expect("a manifest").tensor_channels(), 1);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |layout: &str, slices: &str, code: &str, said: &str| {
            let error = with(layout, slices).expect_err("it is refused");
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        };
        refused("NCDHW", "slices = { count = 5 }\n", "model.unsupported", "`layout = \"NCHW\"`");
        for count in [0, 1, 2, 4, 33] {
            refused(
                "NCHW",
                &format!("slices = {{ count = {count} }}\n"),
                "model.unsupported",
                &format!("is {count}, and not an odd number"),
            );
        }
        refused("NCHW", "slices = { count = -3 }\n", "model.manifest", "");
        refused("NCHW", "slices = 5\n", "model.manifest", "");
        refused("NCHW", "slices = { count = 5, beyond = \"reflect\" }\n", "model.manifest", "`zero` or `edge`");
        refused("NCHW", "slices = { count = 5, order = \"any\" }\n", "model.manifest", "`by-image` or `by-slice`");
    }

    #[test]
    fn channels_are_slices_of_images() {
        let of = |order, channel| Slices { count: 3, beyond: Beyond::Edge, order }.of_channel(channel, 2);
        assert_eq!([0, 2, 3, 5].map(|channel| of(SliceOrder::ByImage, channel)), [[0, 0], [0, 2], [1, 0], [1, 2]]);
        assert_eq!([0, 1, 2, 5].map(|channel| of(SliceOrder::BySlice, channel)), [[0, 0], [1, 0], [0, 1], [1, 2]]);
    }
}
