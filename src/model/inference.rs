//! How a package applies its network: to volumes larger than what the network sees at a time, or to an image as a whole.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::exactly::{exactly, exactly_some};

/// Voxels of a halo: with the longest tile the voxels of one run are still counted in 64 bits.
const MAX_HALO: u32 = 4096;

/// How a network is applied: `[inference.tiles]`, `[inference.sliding-window]` or `[inference.whole]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inference {
    /// For networks with a small receptive field: each voxel is answered for once, as if the network had seen the whole volume.
    Tiles(Tiles),
    /// For networks trained on patches: answers of patches that overlap are blended.
    SlidingWindow(SlidingWindow),
    /// For classifications: the network sees the image once and as a whole.
    Whole(Whole),
}

/// Nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {}

/// Tiles without seams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiles {
    /// Voxels of the network grid that one run answers for, along i, j, k.
    #[serde(deserialize_with = "exactly")]
    pub tile: [u32; 3],
    /// Voxels added around a tile and cut off again: the radius of the network's receptive field, so that tiles leave no seam.
    pub halo: u32,
}

/// Patches that overlap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlidingWindow {
    /// Voxels of the network grid that the network sees at a time, along i, j, k. Of an axis with 1 every voxel is seen by itself.
    #[serde(deserialize_with = "exactly")]
    pub patch: [u32; 3],
    /// The part of a patch that it shares with the next one along an axis, 0 to below 1: at least so much.
    pub overlap: f64,
    /// How much a voxel weighs by its place in a patch.
    pub blending: Blending,
    /// Whose rules say where patches lie, and what the Gaussian is.
    pub convention: Convention,
    /// What of a patch lies beyond a volume smaller than it.
    #[serde(default, skip_serializing_if = "Beyond::is_zero")]
    pub beyond: Beyond,
    /// Axes along which patches are turned round as well; the answers of all combinations are averaged.
    #[serde(default)]
    pub mirror: Vec<Axis>,
    /// Patches in which every value of the input lies from the first to the second of these, both included, are not shown to the network: what
    /// they alone cover is background.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exactly_some", serialize_with = "as_text")]
    pub empty: Option<[f64; 2]>,
}

/// JSON has no infinity.
fn as_text<S: Serializer>(range: &Option<[f64; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
    let [low, high] = range.unwrap_or_default();
    serializer.collect_str(&format_args!("{low} to {high}"))
}

/// How much a voxel weighs by its place in a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blending {
    /// The same everywhere.
    Constant,
    /// Less towards the edges, with a standard deviation of an eighth of the patch.
    Gaussian,
}

/// The tool that a network was made with, where tools differ in details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// `nnUNetPredictor` of nnU-Net v2: patches spread evenly.
    Nnunet,
    /// `sliding_window_inference` of MONAI: patches at a fixed interval, the last one at the end of the volume.
    Monai,
}

/// What of a patch lies beyond a volume smaller than it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Beyond {
    /// 0 after normalisation.
    #[default]
    Zero,
    /// The voxels at the edge continue.
    Edge,
}

impl Beyond {
    fn is_zero(&self) -> bool {
        *self == Self::Zero
    }
}

/// An axis of the network's grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Columns.
    I,
    /// Rows.
    J,
    /// Slices.
    K,
}

impl Axis {
    /// In order.
    pub const ALL: [Self; 3] = [Self::I, Self::J, Self::K];

    /// As packages name it.
    pub fn letter(self) -> char {
        match self {
            Self::I => 'i',
            Self::J => 'j',
            Self::K => 'k',
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

impl Inference {
    /// What TOML's types cannot say.
    pub(super) fn check(&self) -> Result<(), String> {
        let fits = |n: &u32| (1..=1 << 12).contains(n);
        match self {
            Self::Tiles(Tiles { tile, .. }) if !tile.iter().all(fits) => Err("`tiles.tile` has an axis outside 1 to 4096".to_owned()),
            Self::Tiles(Tiles { halo, .. }) if *halo > MAX_HALO => Err(format!("`tiles.halo` is above {MAX_HALO}")),
            Self::SlidingWindow(SlidingWindow { patch, .. }) if !patch.iter().all(fits) => {
                Err("`sliding-window.patch` has an axis outside 1 to 4096".to_owned())
            }
            Self::SlidingWindow(SlidingWindow { overlap, .. }) if !(0.0..0.95).contains(overlap) => {
                Err("`sliding-window.overlap` is outside 0 to 0.95".to_owned())
            }
            Self::SlidingWindow(SlidingWindow { empty: Some([low, high]), .. })
                if !(low <= high && (low.is_finite() || high.is_finite())) =>
            {
                Err("`sliding-window.empty` is no range: the lowest value first, then the highest; inf leaves one end open".to_owned())
            }
            Self::SlidingWindow(SlidingWindow { mirror, .. }) if (1..mirror.len()).any(|n| mirror[..n].contains(&mirror[n])) => {
                Err("`sliding-window.mirror` names an axis twice".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl SlidingWindow {
    /// The combinations of axes along which patches are turned round; the first one is none.
    pub fn mirrors(&self) -> Vec<[bool; 3]> {
        let mut all = vec![[false; 3]];
        for axis in &self.mirror {
            let turned: Vec<_> = all
                .iter()
                .map(|&(mut mirror)| {
                    mirror[*axis as usize] = true;
                    mirror
                })
                .collect();
            all.extend(turned);
        }
        all
    }

    /// Where patches start along an axis of `length` voxels: below 0 where the volume is smaller than a patch, which then has it in its middle.
    ///
    /// The same places as in the tool that [`Convention`] names.
    pub fn starts(&self, axis: usize, length: u32) -> Vec<i32> {
        let patch = self.patch[axis];
        if patch >= length {
            return vec![-(((patch - length) / 2) as i32)];
        }
        if patch == 1 {
            return (0..length as i32).collect();
        }
        let last = length - patch;
        let step = f64::from(patch) * (1.0 - self.overlap);
        match self.convention {
            Convention::Nnunet => {
                let gaps = (f64::from(last) / step).ceil();
                (0..=gaps as u32).map(|n| (f64::from(last) / gaps * f64::from(n)).round_ties_even() as i32).collect()
            }
            Convention::Monai => {
                let interval = (step as u32).max(1);
                (0..=last.div_ceil(interval)).map(|n| (n * interval).min(last) as i32).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(patch: u32, overlap: f64, convention: Convention) -> SlidingWindow {
        SlidingWindow {
            patch: [patch; 3],
            overlap,
            blending: Blending::Gaussian,
            convention,
            beyond: Beyond::Zero,
            mirror: Vec::new(),
            empty: None,
        }
    }

    fn check(convention: Convention, patch: u32, overlap: f64, length: u32, expected: &[i32]) {
        assert_eq!(window(patch, overlap, convention).starts(0, length), expected, "{patch} of {length}, {convention:?}");
    }

    #[test]
    fn patches_start_where_nnunet_starts_them() {
        // compute_steps_for_sliding_window((length,), (patch,), 1 - overlap) of nnunetv2 2.8.1.
        check(Convention::Nnunet, 32, 0.5, 100, &[0, 14, 27, 41, 54, 68]);
        check(Convention::Nnunet, 64, 0.5, 110, &[0, 23, 46]);
        check(Convention::Nnunet, 128, 0.5, 123, &[-2]);
        check(Convention::Nnunet, 4, 0.5, 9, &[0, 2, 3, 5]);
        check(Convention::Nnunet, 1, 0.5, 3, &[0, 1, 2]);
        check(Convention::Nnunet, 8, 0.5, 8, &[0]);
    }

    #[test]
    fn patches_start_where_monai_starts_them() {
        // dense_patch_slices((length,), (patch,), (interval,)) with the interval of sliding_window_inference, MONAI 1.6.1.
        check(Convention::Monai, 32, 0.25, 100, &[0, 24, 48, 68]);
        check(Convention::Monai, 64, 0.5, 110, &[0, 32, 46]);
        check(Convention::Monai, 128, 0.25, 123, &[-2]);
        check(Convention::Monai, 5, 0.25, 9, &[0, 3, 4]);
    }

    #[test]
    fn halos_are_bounded() {
        let with = |halo| Inference::Tiles(Tiles { tile: [4096; 3], halo }).check();
        assert_eq!(with(4096), Ok(()));
        assert!(with(4097).is_err_and(|what| what.contains("`tiles.halo`")));
    }

    #[test]
    fn mirrors_are_all_combinations() {
        let both = SlidingWindow { mirror: vec![Axis::I, Axis::K], ..window(8, 0.5, Convention::Nnunet) };
        let expected = [[false; 3], [true, false, false], [false, false, true], [true, false, true]];
        assert_eq!(both.mirrors(), expected);
        assert_eq!(window(8, 0.5, Convention::Monai).mirrors(), [[false; 3]]);
    }
}
