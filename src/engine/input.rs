//! What can be analysed, and its voxels.

use std::time::{Duration, Instant};

use super::EngineError;
use crate::findings::{Source, SourceFile};
use crate::model::EligibleVolume;
use crate::research::{self, ResearchError, ResearchVolume};
use crate::series::{Kind, Loaded, Stack};
use crate::volume::{ImageVolume, Quantity};

/// Air is -1000 HU. Where nothing in a volume is below this, its values are hardly Hounsfield units.
const LEAST_HU: f64 = -500.0;

/// What can be analysed.
#[derive(Debug, Clone)]
pub enum Input {
    /// Part of a DICOM series that passed the gate.
    Series(Box<Stack>),
    /// A NIfTI or NRRD file that a package takes.
    File(Box<EligibleVolume>),
}

impl From<Stack> for Input {
    fn from(stack: Stack) -> Self {
        Self::Series(Box::new(stack))
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
    /// When reading began.
    pub(super) started: jiff::ZonedDateTime,
    /// How long it took.
    pub(super) load: Duration,
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
        let voxels = match self {
            Self::Series(stack) => {
                let loaded = stack.load()?;
                Voxels::Series(stack, loaded)
            }
            Self::File(volume) => open_file(*volume)?,
        };
        Ok(Opened { voxels, started, load: clock.elapsed() })
    }
}

fn open_file(volume: EligibleVolume) -> Result<Voxels, ResearchError> {
    let EligibleVolume { file, quantity, mut warnings, .. } = volume;
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
                Closed { image, source: Source { instances, content_sha256, frames, slice_of_frame, file: None }, notes, warnings }
            }
            Self::File { image, file, notes, warnings } => {
                let (instances, frames, slice_of_frame) = (Vec::new(), Vec::new(), Vec::new());
                Closed { image, source: Source { instances, content_sha256, frames, slice_of_frame, file: Some(file) }, notes, warnings }
            }
        }
    }
}
