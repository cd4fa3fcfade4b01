//! A checked stack of slices, and its voxels.

use rayon::prelude::*;
use thiserror::Error;

use crate::codes::Uid;
use crate::dataset::{DatasetError, Instance, StoredAs, read_stored};
use crate::geometry::{Coded, Grid};
use crate::volume::{ImageVolume, Quantity, Rescale, Volume};

/// A series that passed the geometry gate.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Where the voxels lie; k increases along row direction cross column direction.
    pub grid: Grid,
    /// One for each slice, in the order of k.
    pub instances: Vec<Instance>,
    /// What the physical values are.
    pub quantity: Quantity,
    /// What the reader of a result should know.
    pub notes: Vec<String>,
    /// What the reader of a result should know of the series itself; no text of a header.
    pub warnings: Vec<String>,
    /// Study Instance UID, or the derived one.
    pub study_uid: Uid,
    /// Series Instance UID, or the derived one.
    pub series_uid: Uid,
    pub(super) stored_as: StoredAs,
}

/// The voxels of a stack.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Stored values on the grid.
    pub image: ImageVolume,
    /// SHA-256 of each slice's file, hexadecimal, in the order of k.
    pub content_sha256: Vec<String>,
}

/// Why the voxels of a stack cannot be had.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// One slice cannot be read or decoded.
    #[error("slice {index} of {total}: {error}")]
    Slice {
        /// Its k.
        index: usize,
        /// Number of slices.
        total: usize,
        /// What is wrong with it.
        error: DatasetError,
    },
    /// Not enough memory.
    #[error("no memory for {voxels} voxels of 2 bytes; give the machine more, or a smaller series")]
    Memory {
        /// Voxels of the grid.
        voxels: usize,
    },
}

impl Coded for SeriesError {
    fn code(&self) -> &'static str {
        match self {
            Self::Slice { error, .. } => error.code(),
            Self::Memory { .. } => "series.memory",
        }
    }
}

impl Stack {
    /// Decodes all slices, in parallel, straight into their places.
    ///
    /// # Errors
    /// The first slice that cannot be read, or a volume that does not fit in memory.
    pub fn load(&self) -> Result<Loaded, SeriesError> {
        let voxels = self.grid.voxel_count();
        // Asked for once in a way that can fail; zeroed pages then come when the decoders touch them.
        Vec::<i16>::new().try_reserve_exact(voxels).map_err(|_| SeriesError::Memory { voxels })?;
        let mut stored = vec![0i16; voxels];
        let results: Vec<Result<String, DatasetError>> = stored
            .par_chunks_mut(self.grid.slice_voxels())
            .zip(&self.instances)
            .map(|(slice, instance)| read_stored(instance, self.stored_as, slice))
            .collect();
        let total = self.instances.len();
        let hash =
            |(index, result): (usize, Result<String, DatasetError>)| result.map_err(|error| SeriesError::Slice { index, total, error });
        let content_sha256 = results.into_iter().enumerate().map(hash).collect::<Result<_, _>>()?;
        let rescale = self.instances.iter().map(|i| self.rescale(i)).collect();
        let image = ImageVolume { stored: Volume::new(self.grid, stored).into(), rescale, quantity: self.quantity };
        Ok(Loaded { image, content_sha256 })
    }

    /// From the values in the volume to physical ones.
    fn rescale(&self, instance: &Instance) -> Rescale {
        let Rescale { slope, intercept } = instance.rescale.unwrap_or(Rescale { slope: 1.0, intercept: 0.0 });
        Rescale { slope, intercept: intercept + slope * self.stored_as.offset() }
    }
}
