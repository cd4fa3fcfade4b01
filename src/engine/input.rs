//! What can be analysed, and its voxels.

use std::time::{Duration, Instant};

use super::EngineError;
use crate::findings::{Source, SourceChannel, SourceFile};
use crate::model::{ChannelFile, ChannelSeries, Eligible, EligibleVolume};
use crate::research::{self, ResearchError, ResearchVolume};
use crate::series::{Kind, Loaded, Stack, VolumeFile};
use crate::volume::{ImageVolume, Quantity};

/// Air is -1000 HU. Where nothing in a volume is below this, its values are hardly Hounsfield units.
const LEAST_HU: f64 = -500.0;

/// What can be analysed.
#[derive(Debug, Clone)]
pub enum Input {
    /// Part of a DICOM series that passed the gate, and the other channels of a package with several.
    Series(Box<Stack>, Vec<ChannelSeries>),
    /// A NIfTI or NRRD file that a package takes.
    File(Box<EligibleVolume>),
}

impl From<Stack> for Input {
    fn from(stack: Stack) -> Self {
        Self::Series(Box::new(stack), Vec::new())
    }
}

impl From<Eligible> for Input {
    fn from(eligible: Eligible) -> Self {
        Self::Series(Box::new(eligible.stack), eligible.others)
    }
}

impl From<EligibleVolume> for Input {
    fn from(volume: EligibleVolume) -> Self {
        Self::File(Box::new(volume))
    }
}

/// An input with its voxels in memory, ready to be analysed.
#[derive(Debug)]
pub struct Opened {
    pub(super) voxels: Voxels,
    /// The other channels of a package with several.
    pub(super) others: Vec<OpenedChannel>,
    /// When reading began.
    pub(super) started: jiff::ZonedDateTime,
    /// How long it took.
    pub(super) load: Duration,
}

/// A channel beside the reference, with its voxels in memory.
#[derive(Debug)]
pub(super) struct OpenedChannel {
    /// Which channel of the input.
    pub(super) channel: usize,
    /// Its name in the package.
    pub(super) name: String,
    pub(super) voxels: Voxels,
}

#[derive(Debug)]
pub(super) enum Voxels {
    Series(Box<Stack>, Loaded),
    File { image: ImageVolume, file: SourceFile, notes: Vec<String>, warnings: Vec<String> },
}

/// What is left of an input when all is computed.
pub(super) struct Closed {
    pub(super) image: ImageVolume,
    pub(super) source: Source,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Input {
    /// Reads the voxels. Needs no engine: while one is at work, the next input can be read.
    ///
    /// # Errors
    /// [`EngineError::Series`] or [`EngineError::Research`] where they cannot be read.
    pub fn open(self) -> Result<Opened, EngineError> {
        let (started, clock) = (jiff::ZonedDateTime::now(), Instant::now());
        let (voxels, others) = match self {
            Self::Series(stack, others) => {
                let others = others.into_iter().map(|ChannelSeries { channel, name, stack, .. }| {
                    Ok(OpenedChannel { channel, name, voxels: open_series(Box::new(stack))? })
                });
                (open_series(stack)?, others.collect::<Result<_, EngineError>>()?)
            }
            Self::File(volume) => {
                let EligibleVolume { file, quantity, warnings, others, .. } = *volume;
                let others = others.into_iter().map(|ChannelFile { channel, name, file, quantity }| {
                    Ok(OpenedChannel { channel, name, voxels: open_file(file, quantity, Vec::new())? })
                });
                (open_file(file, quantity, warnings)?, others.collect::<Result<_, EngineError>>()?)
            }
        };
        Ok(Opened { voxels, others, started, load: clock.elapsed() })
    }
}

fn open_series(stack: Box<Stack>) -> Result<Voxels, EngineError> {
    let loaded = stack.load()?;
    Ok(Voxels::Series(stack, loaded))
}

fn open_file(file: VolumeFile, quantity: Quantity, mut warnings: Vec<String>) -> Result<Voxels, ResearchError> {
    let ResearchVolume { stored, rescale, sha256, notes } = research::read_volume(&file.path)?;
    if *stored.grid() != file.header.grid {
        return Err(ResearchError::Changed { path: file.path });
    }
    let rescale = vec![rescale; stored.grid().dims()[2] as usize];
    let image = ImageVolume { stored, rescale, quantity };
    let [least, _] = image.range();
    if quantity == Quantity::Hounsfield && least > LEAST_HU {
        warnings.push(format!("the least value is {least:.0}: these may be no Hounsfield units, in which air is -1000"));
    }
    Ok(Voxels::File { image, file: SourceFile { format: file.header.format, sha256 }, notes, warnings })
}

impl Voxels {
    pub(super) fn image(&self) -> &ImageVolume {
        match self {
            Self::Series(_, loaded) => &loaded.image,
            Self::File { image, .. } => image,
        }
    }

    /// Whether high values are dark: Photometric Interpretation (0028,0004) MONOCHROME1, of radiographs alone.
    pub(super) fn is_monochrome1(&self) -> bool {
        match self {
            Self::Series(stack, _) => stack.kind == Kind::Image && stack.frames.iter().all(|f| f.instance.pixels.is_monochrome1()),
            Self::File { .. } => false,
        }
    }

    /// SHA-256 of each instance; see [`Loaded::content_sha256`].
    pub(super) fn content_sha256(&self) -> Vec<String> {
        match self {
            Self::Series(_, loaded) => loaded.content_sha256(),
            Self::File { .. } => Vec::new(),
        }
    }

    /// Takes it apart; `content_sha256` is what [`Voxels::content_sha256`] gave.
    pub(super) fn close(self, content_sha256: Vec<String>) -> Closed {
        match self {
            Self::Series(stack, Loaded { image, instances, .. }) => {
                let Stack { frames, slice_of_frame, notes, warnings, .. } = *stack;
                let source = Source { instances, content_sha256, frames, slice_of_frame, file: None, channels: Vec::new() };
                Closed { image, source, notes, warnings }
            }
            Self::File { image, file, notes, warnings } => {
                let (instances, frames, slice_of_frame) = (Vec::new(), Vec::new(), Vec::new());
                let source = Source { instances, content_sha256, frames, slice_of_frame, file: Some(file), channels: Vec::new() };
                Closed { image, source, notes, warnings }
            }
        }
    }
}

impl OpenedChannel {
    /// As a source, with what the reader of a result should know of it.
    pub(super) fn close(self, content_sha256: Vec<String>) -> (SourceChannel, Vec<String>) {
        let Closed { source, notes, warnings, .. } = self.voxels.close(content_sha256);
        let Source { instances, content_sha256, file, .. } = source;
        let of_channel = notes.into_iter().chain(warnings).map(|text| format!("channel {}: {text}", self.name)).collect();
        (SourceChannel { name: self.name, instances, content_sha256, file }, of_channel)
    }
}
