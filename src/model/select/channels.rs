//! Several series of one study as the channels of a network's input: which is which.
//!
//! 1. Results lie on the reference, the series that `[select]` takes. The other channels are looked for in its study alone.
//! 2. A series is one channel: one that the rules take for two is refused, and so is a channel of which there are several, unless it ranks them.
//! 3. A channel lies in the reference's frame of reference (PS3.3 C.7.4.1): only then do coordinates say where it lies in the reference.

use std::path::Path;

use thiserror::Error;

use super::answer::{Answer, Eligible, Ineligible, name_of};
use super::rank::{Ranking, rank};
use super::rules::Take;
use crate::geometry::{Coded, Grid, SAME_PLACE};
use crate::model::{Channel, Package};
use crate::research::read_header;
use crate::series::{Part, Stack, VolumeFile};
use crate::volume::Quantity;

/// Steps along an axis at which it is looked whether one grid lies within another.
const COVERAGE_STEPS: u32 = 24;

/// A series that is a channel beside the reference.
#[derive(Debug, Clone)]
pub struct ChannelSeries {
    /// Which channel of the input.
    pub channel: usize,
    /// Its name in the package.
    pub name: String,
    /// Its instances as a regular stack.
    pub stack: Stack,
    /// Number and UID of the series, and what was preferred; for people.
    pub why: String,
}

/// A file that is a channel beside the reference.
#[derive(Debug, Clone)]
pub struct ChannelFile {
    /// Which channel of the input.
    pub channel: usize,
    /// Its name in the package.
    pub name: String,
    /// The file, on the reference's grid.
    pub file: VolumeFile,
    /// What its values are taken as.
    pub quantity: Quantity,
}

/// Why series or files are not the channels that a package needs.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ChannelProblem {
    /// The series is another channel.
    #[error("it is the channel `{channel}` of {of}")]
    IsChannel {
        /// Which.
        channel: String,
        /// Number and UID of the reference, or its file.
        of: String,
    },
    /// No series of the study fits.
    #[error(
        "no series of the study is the channel `{channel}`, {looked_at} were looked at{nearest}; send what is missing, or correct the rules of the package"
    )]
    Missing {
        /// Which.
        channel: String,
        /// Series, or parts of them, beside the reference.
        looked_at: usize,
        /// The one with the fewest reasons against it, and the first of these.
        nearest: String,
    },
    /// More than one fits.
    #[error(
        "{first} and {second} are both the channel `{channel}`, and the package does not say which is better: it needs `take = \"best\"` and a rank"
    )]
    Ambiguous {
        /// Which.
        channel: String,
        /// One of them.
        first: String,
        /// Another one.
        second: String,
    },
    /// The rules of two channels take the same series.
    #[error("{series} is the channel `{first}` and the channel `{second}`: the rules of the package do not tell them apart")]
    Shared {
        /// Number and UID.
        series: String,
        /// One of them.
        first: String,
        /// Another one.
        second: String,
    },
    /// Nothing says how one lies in the other.
    #[error(
        "{series}, the channel `{channel}`, is in another frame of reference, or one of the two has none: where it lies in the reference is \
         not known; send series of one frame of reference, registered where that is needed"
    )]
    FrameOfReference {
        /// Which.
        channel: String,
        /// Number and UID.
        series: String,
    },
    /// It shows another place.
    #[error("{series}, the channel `{channel}`, has {found_percent:.1} % of the reference's voxels in it, {least_percent:.1} % are needed")]
    Coverage {
        /// Which.
        channel: String,
        /// Number and UID.
        series: String,
        /// Voxels of the reference that lie in it.
        found_percent: f64,
        /// What the package needs.
        least_percent: f64,
    },
    /// Files are told apart by their names.
    #[error(
        "the package has {channels} channels, which are told by the file's name: NAME_0000 is `{first}`, and so on; of this file that is not the end"
    )]
    FileName {
        /// How many.
        channels: usize,
        /// Name of the first one.
        first: String,
    },
    /// A file of the case is not there or cannot be read.
    #[error("the file of the channel `{channel}` cannot be read: {reason}")]
    File {
        /// Which.
        channel: String,
        /// Why.
        reason: String,
    },
    /// Files of a case lie on different grids.
    #[error("the file of the channel `{channel}` has another grid than that of the reference: resample it there")]
    FileGrid {
        /// Which.
        channel: String,
    },
}

impl Coded for ChannelProblem {
    fn code(&self) -> &'static str {
        match self {
            Self::IsChannel { .. } => "select.other-channel",
            Self::Missing { .. } => "select.channel-missing",
            Self::Ambiguous { .. } => "select.channel-ambiguous",
            Self::Shared { .. } => "select.channel-shared",
            Self::FrameOfReference { .. } => "select.channel-frame-of-reference",
            Self::Coverage { .. } => "select.channel-coverage",
            Self::FileName { .. } => "select.channel-file-name",
            Self::File { .. } => "select.channel-file",
            Self::FileGrid { .. } => "select.channel-grid",
        }
    }
}

impl ChannelProblem {
    /// Whether the series is one that the package wants, and cannot have safely.
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, Self::IsChannel { .. })
    }
}

impl Package {
    /// Gives each series that is taken its other channels; see [`Package::take`].
    pub(super) fn with_channels(&self, parts: &[Part<'_>], mut answers: Vec<Answer>) -> Vec<Answer> {
        let channels = &self.manifest.input.channel;
        if channels.is_empty() || answers.iter().all(Result::is_err) {
            return answers;
        }
        let reference = self.manifest.reference_channel();
        // By channel and part. Of the reference those that were outranked are taken as well.
        let mut taken: Vec<Vec<Answer>> = Vec::new();
        for channel in channels {
            taken.push(match &channel.select {
                Some(select) => parts.iter().map(|part| select.assess(part).answer()).collect(),
                None => answers.clone(),
            });
        }
        let fits = |channel: usize, part: usize| match &taken[channel][part] {
            Ok(_) => true,
            Err(reasons) => matches!(reasons[..], [Ineligible::Outranked { .. }]),
        };
        let shared = |part: usize, channel: usize| {
            let other = (0..channels.len()).find(|&other| other != channel && fits(other, part))?;
            let [first, second] = [channel.min(other), channel.max(other)].map(|n| channels[n].name.clone());
            Some(ChannelProblem::Shared { series: name_of(&parts[part]), first, second })
        };
        let mut found = Vec::new();
        for (n, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()) {
            let Ok(eligible) = answer else { continue };
            let mut problems: Vec<ChannelProblem> = shared(n, reference).into_iter().collect();
            let mut others = Vec::new();
            for (c, channel) in channels.iter().enumerate().filter(|(c, _)| *c != reference) {
                match other_channel(channel, eligible, &parts[n], n, parts, &taken[c]) {
                    Ok((part, series)) => {
                        problems.extend(shared(part, c));
                        others.push((part, ChannelSeries { channel: c, ..series }));
                    }
                    Err(problem) => problems.push(problem),
                }
            }
            problems.dedup();
            found.push((n, eligible.name.clone(), if problems.is_empty() { Ok(others) } else { Err(problems) }));
        }
        for (n, of, channels) in found {
            let others = match channels {
                Ok(others) => others,
                Err(problems) => {
                    answers[n] = Err(problems.into_iter().map(Ineligible::Channel).collect());
                    continue;
                }
            };
            for (part, other) in &others {
                if answers[*part].is_err() {
                    let (channel, of) = (other.name.clone(), of.clone());
                    answers[*part] = Err(vec![Ineligible::Channel(ChannelProblem::IsChannel { channel, of })]);
                }
            }
            if let Ok(eligible) = &mut answers[n] {
                eligible.others = others.into_iter().map(|(_, other)| other).collect();
            }
        }
        answers
    }

    /// The other channels of the case that `file` is the reference of: `NAME_0000.nii.gz` is the first channel, `NAME_0001.nii.gz` the second, as
    /// in nnU-Net's folders, all on one grid.
    ///
    /// # Errors
    /// [`ChannelProblem`] where it is another channel, or others are not there.
    pub(super) fn channel_files(&self, file: &VolumeFile) -> Result<Vec<ChannelFile>, ChannelProblem> {
        let channels = &self.manifest.input.channel;
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let reference = self.manifest.reference_channel();
        let no_number = || ChannelProblem::FileName { channels: channels.len(), first: channels[0].name.clone() };
        let number = channel_number(&file.path).filter(|&n| n < channels.len()).ok_or_else(no_number)?;
        if number != reference {
            let of = sibling(&file.shown, reference).file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(ChannelProblem::IsChannel { channel: channels[number].name.clone(), of });
        }
        let others = channels.iter().enumerate().filter(|(n, _)| *n != reference);
        others
            .map(|(n, Channel { name, select, .. })| {
                let path = sibling(&file.path, n);
                let header = read_header(&path);
                let header = header.map_err(|error| ChannelProblem::File { channel: name.clone(), reason: error.to_string() })?;
                if !file.header.grid.coincides(&header.grid) {
                    return Err(ChannelProblem::FileGrid { channel: name.clone() });
                }
                let file = VolumeFile { path, shown: sibling(&file.shown, n), header };
                let quantity = select.as_ref().unwrap_or(&self.manifest.select).wanted_of_file();
                Ok(ChannelFile { channel: n, name: name.clone(), file, quantity })
            })
            .collect()
    }
}

/// The part that is this channel of `reference`, part `n`, and its number.
fn other_channel(
    channel: &Channel,
    reference: &Eligible,
    reference_part: &Part<'_>,
    n: usize,
    parts: &[Part<'_>],
    taken: &[Answer],
) -> Result<(usize, ChannelSeries), ChannelProblem> {
    let first = reference_part.first();
    let is_of_study =
        |part: &Part<'_>| part.first().patient_key == first.patient_key && part.series.study_uid == reference_part.series.study_uid;
    let others = || parts.iter().enumerate().filter(|(m, part)| *m != n && is_of_study(part)).map(|(m, _)| m);
    let fitting: Vec<(usize, &Eligible)> = others().filter_map(|m| Some((m, taken[m].as_ref().ok()?))).collect();
    let frame = &first.frame_of_reference_uid;
    let shares_frame = |m: usize| !frame.is_empty() && parts[m].first().frame_of_reference_uid == *frame;
    let name = || channel.name.clone();
    let candidates: Vec<(usize, &Eligible)> = fitting.iter().copied().filter(|(m, _)| shares_frame(*m)).collect();
    let (part, chosen, why) = match (&candidates[..], &fitting[..]) {
        ([], []) => {
            return Err(ChannelProblem::Missing { channel: name(), looked_at: others().count(), nearest: nearest(others(), parts, taken) });
        }
        ([], [(_, other), ..]) => return Err(ChannelProblem::FrameOfReference { channel: name(), series: other.name.clone() }),
        ([(part, one)], _) => (*part, *one, String::new()),
        ([(_, first), (_, second), ..], _) => {
            let select = channel.select.as_ref().filter(|select| select.take == Take::Best);
            let Some(select) = select else {
                return Err(ChannelProblem::Ambiguous { channel: name(), first: first.name.clone(), second: second.name.clone() });
            };
            let all: Vec<&Eligible> = candidates.iter().map(|(_, one)| *one).collect();
            let Ranking { order, why } = rank(&select.rank, &all);
            let why = order.iter().skip(1).zip(&why).map(|(&other, why)| format!(", before {}: {why}", all[other].name));
            (candidates[order[0]].0, all[order[0]], why.collect())
        }
    };
    let found = coverage(&reference.stack.grid, &chosen.stack.grid);
    if found < channel.min_coverage {
        let [found_percent, least_percent] = [found, channel.min_coverage].map(|part| 100.0 * part);
        return Err(ChannelProblem::Coverage { channel: name(), series: chosen.name.clone(), found_percent, least_percent });
    }
    let why = format!("channel {}: {}{why}", channel.name, chosen.name);
    Ok((part, ChannelSeries { channel: 0, name: name(), stack: chosen.stack.clone(), why }))
}

/// Of the parts that do not fit, the one with the fewest reasons against it, for people.
fn nearest(others: impl Iterator<Item = usize>, parts: &[Part<'_>], taken: &[Answer]) -> String {
    let refused = others.filter_map(|m| Some((m, taken[m].as_ref().err()?)));
    let nearest = refused.min_by_key(|(_, reasons)| reasons.len());
    nearest.map_or_else(String::new, |(m, reasons)| format!("; nearest comes {}: {}", name_of(&parts[m]), reasons[0]))
}

/// The part of `reference`'s voxel centres that have a voxel of `other` around them, 0 to 1, on a lattice of at most so many steps an axis.
fn coverage(reference: &Grid, other: &Grid) -> f64 {
    let other_from_reference = other.voxel_from_lps() * reference.lps_from_voxel();
    let steps = reference.dims().map(|n| n.min(COVERAGE_STEPS));
    let place = |axis: usize, n: u32| match steps[axis] {
        1 => f64::from(reference.dims()[axis] - 1) / 2.0,
        steps => f64::from(n) * f64::from(reference.dims()[axis] - 1) / f64::from(steps - 1),
    };
    let mut within = 0u32;
    for k in 0..steps[2] {
        for j in 0..steps[1] {
            for i in 0..steps[0] {
                let at = other_from_reference.apply([place(0, i), place(1, j), place(2, k)]);
                within += u32::from(other.has(at, SAME_PLACE));
            }
        }
    }
    f64::from(within) / f64::from(steps.iter().product::<u32>())
}

/// The number that ends a name before its extension: `BRATS_001_0002.nii.gz` is channel 2.
fn channel_number(path: &Path) -> Option<usize> {
    let (stem, _) = split_name(path)?;
    let (_, digits) = stem.rsplit_once('_')?;
    (digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The file of another channel, beside one that has a [`channel_number`].
fn sibling(path: &Path, channel: usize) -> std::path::PathBuf {
    match split_name(path).and_then(|(stem, extension)| Some((stem.rsplit_once('_')?.0, extension))) {
        Some((case, extension)) => path.with_file_name(format!("{case}_{channel:04}{extension}")),
        None => path.to_owned(),
    }
}

/// A file's name, parted where its extension begins.
fn split_name(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?;
    let extension = [".nii.gz", ".nii", ".nrrd", ".nhdr", ".hdr"].into_iter().find(|extension| name.ends_with(extension))?;
    Some(name.split_at(name.len() - extension.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Affine;

    #[test]
    fn files_of_a_case_are_told_by_their_names() {
        let check = |name: &str, number: Option<usize>| assert_eq!(channel_number(Path::new(name)), number, "{name}");
        check("a/BRATS_001_0002.nii.gz", Some(2));
        check("case_0000.nrrd", Some(0));
        check("case_000.nii", None);
        check("case.nii.gz", None);
        check("0001.nii.gz", None);
        check("case_00a1.nii.gz", None);
        assert_eq!(sibling(Path::new("a/BRATS_001_0000.nii.gz"), 3), Path::new("a/BRATS_001_0003.nii.gz"));
    }

    #[test]
    fn coverage_counts_voxels_of_the_reference() {
        let grid = |dims, start: f64| Grid::new(dims, Affine::scale_then_shift([1.0, 1.0, 2.0], [0.0, 0.0, start])).expect("a grid");
        let reference = grid([40, 30, 20], 0.0);
        assert_eq!(coverage(&reference, &reference), 1.0);
        assert_eq!(coverage(&reference, &grid([40, 30, 20], 10.0)), 0.75);
        assert_eq!(coverage(&reference, &grid([40, 30, 20], 100.0)), 0.0);
        let larger = Grid::new([100, 100, 100], Affine::scale_then_shift([1.0; 3], [-20.0; 3])).expect("a grid");
        assert_eq!(coverage(&reference, &larger), 1.0);
    }
}
