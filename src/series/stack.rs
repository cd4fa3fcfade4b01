//! Images that passed the gate, and their voxels.

use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;

use super::{Mapping, VoiWindow};
use crate::codes::Uid;
use crate::dataset::{ContentHash, DatasetError, Frame, Instance, Place, StoredAs, read_frames};
use crate::geometry::{Coded, Grid};
use crate::volume::{ImageVolume, Quantity, Rescale, Stored, Volume, VolumeError, huge};

/// What images make together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Slices of a volume.
    Volume,
    /// One image.
    Image,
    /// One image over time; k is the frame.
    Cine,
}

/// What millimetres of a grid are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// Patient LPS.
    Patient,
    /// In the plane of the image, as large as in the patient; no place in the patient.
    Plane,
    /// In the plane of the detector, larger than in the patient.
    Detector,
    /// Not millimetres but pixels: no spacing is known.
    Pixels,
}

/// Part of a series that passed the gate.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Where the voxels lie; k of a volume increases along row direction cross column direction.
    pub grid: Grid,
    /// Volume, image or cine.
    pub kind: Kind,
    /// What the grid's millimetres are.
    pub space: Space,
    /// The images, in the order of k.
    pub frames: Vec<Frame>,
    /// For each frame the slice k of the grid that lies nearest: its own, unless slices were interpolated onto even distances.
    pub slice_of_frame: Vec<u32>,
    /// What the physical values are.
    pub quantity: Quantity,
    /// The VOI windows of the middle frame, in units of its Modality LUT, for pictures.
    pub windows: Vec<VoiWindow>,
    /// What the reader of a result should know.
    pub notes: Vec<String>,
    /// What the reader of a result should know of the series itself; no text of a header.
    pub warnings: Vec<String>,
    /// Study Instance UID, or the derived one.
    pub study_uid: Uid,
    /// Series Instance UID, or the derived one.
    pub series_uid: Uid,
    /// Which part of the series it is, from 1; none where it is all of it.
    pub part: Option<usize>,
    /// From stored to physical values, one for each frame.
    pub(super) mappings: Vec<Mapping>,
    pub(super) stored_as: StoredAs,
    /// Places of unevenly spaced frames, in slices of the grid.
    pub(super) uneven: Option<Vec<f64>>,
}

/// The voxels of a stack.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Stored values on the grid.
    pub image: ImageVolume,
    /// The instances that were read, in the order of their first frame.
    pub instances: Vec<Arc<Instance>>,
    /// One for each instance, with the slices of its frames in the order of its file.
    hashes: Vec<(ContentHash, Vec<usize>)>,
}

impl Loaded {
    /// SHA-256 of each instance's file as it was read, hexadecimal, in the order of `instances`. Computed here, in parallel, where the
    /// bytes of the file are those of the volume: 0.04 s for 158 MB on two cores.
    pub fn content_sha256(&self) -> Vec<String> {
        let slice = |k: usize| self.image.stored.as_int16().map_or(&[][..], |volume| volume.slice(k));
        self.hashes.par_iter().map(|(hash, slices)| hash.finish(slices.iter().map(|&k| slice(k)))).collect()
    }
}

/// Why the voxels of a stack cannot be had.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// One instance cannot be read or decoded.
    #[error("slice {index} of {total}: {error}")]
    Slice {
        /// k of its first frame.
        index: usize,
        /// Number of slices.
        total: usize,
        /// What is wrong with it.
        error: DatasetError,
    },
    /// Not enough memory.
    #[error("no memory for {voxels} voxels of {bytes} bytes; give the machine more, or a smaller series")]
    Memory {
        /// Voxels of the grid.
        voxels: usize,
        /// Bytes of each.
        bytes: usize,
    },
    /// Values that are no numbers.
    #[error(transparent)]
    Values(#[from] VolumeError),
    /// Colour where values are asked for, or the other way round.
    #[error("the images are {}; ask for those", if *.colour { "in colour" } else { "not in colour" })]
    Colour {
        /// What they are.
        colour: bool,
    },
}

impl Coded for SeriesError {
    fn code(&self) -> &'static str {
        match self {
            Self::Slice { error, .. } => error.code(),
            Self::Memory { .. } => "series.memory",
            Self::Values(error) => error.code(),
            Self::Colour { .. } => "series.colour",
        }
    }
}

impl Stack {
    /// Whether its pixels are colours.
    pub fn is_colour(&self) -> bool {
        self.stored_as == StoredAs::Rgb
    }

    /// Decodes all frames, in parallel, straight into their places.
    ///
    /// # Errors
    /// The first frame that cannot be read, a volume that does not fit in memory, floating point values that are no numbers, or colour.
    pub fn load(&self) -> Result<Loaded, SeriesError> {
        let (stored, read, rescale) = match self.stored_as {
            StoredAs::Rgb => return Err(SeriesError::Colour { colour: true }),
            StoredAs::Float => {
                let (mut voxels, read) = self.read(|place| Place::Float32(place))?;
                self.through_tables(&mut voxels);
                (Stored::float32(Volume::new(self.frame_grid(), voxels))?, read, self.rescale(0.0))
            }
            StoredAs::Same | StoredAs::Minus32768 => {
                let minus_32768 = self.stored_as == StoredAs::Minus32768;
                let (voxels, read) = self.read(|stored| Place::Int16 { stored, minus_32768 })?;
                (Stored::Int16(Volume::new(self.frame_grid(), voxels)), read, self.rescale(self.stored_as.offset()))
            }
        };
        let image = ImageVolume { stored, rescale, quantity: self.quantity };
        let (instances, hashes) = read.into_iter().map(|(instance, hash, slices)| (instance, (hash, slices))).unzip();
        let mut loaded = Loaded { image, instances, hashes };
        if let Some(places) = &self.uneven {
            // The slices that were read are about to go.
            loaded.hashes = loaded.content_sha256().into_iter().map(|hash| (ContentHash::Known(hash), Vec::new())).collect();
            loaded.image = super::even::evened(&loaded.image, places, self.grid);
        }
        Ok(loaded)
    }

    /// From kept values to physical ones, one a frame, where `offset` has to be added to a kept value to have the stored one. What went
    /// through a table is physical already.
    fn rescale(&self, offset: f64) -> Vec<Rescale> {
        let rescale = |mapping: &Mapping| match mapping {
            Mapping::Linear(r) => Rescale { slope: r.slope, intercept: r.intercept + r.slope * offset },
            Mapping::Lut(_) => Rescale { slope: 1.0, intercept: 0.0 },
        };
        self.mappings.iter().map(rescale).collect()
    }

    fn through_tables(&self, voxels: &mut [f32]) {
        voxels.par_chunks_mut(self.grid.slice_voxels()).zip(&self.mappings).for_each(|(slice, mapping)| {
            if let Mapping::Lut(lut) = mapping {
                slice.iter_mut().for_each(|v| *v = lut.apply(*v as i64) as f32);
            }
        });
    }

    /// Decodes all frames of a colour image or cine: red, green, blue, i fastest.
    ///
    /// # Errors
    /// As [`Stack::load`].
    pub fn load_rgb(&self) -> Result<Vec<[u8; 3]>, SeriesError> {
        if !self.is_colour() {
            return Err(SeriesError::Colour { colour: false });
        }
        Ok(self.read(|place| Place::Rgb(place))?.0)
    }

    /// The grid of the frames themselves: that of the stack, unless slices are interpolated onto even distances.
    fn frame_grid(&self) -> Grid {
        let [i, j, _] = self.grid.dims();
        Grid::new([i, j, self.frames.len() as u32], self.grid.lps_from_voxel()).expect("as many frames as were read are a grid")
    }

    /// Reads every frame into its place; instances in the order of their first frame, with the hash of each.
    fn read<T: Copy + Default + Send + bytemuck::Zeroable>(
        &self,
        place: impl for<'p> Fn(&'p mut [T]) -> Place<'p> + Sync,
    ) -> Result<(Vec<T>, Vec<ReadInstance>), SeriesError> {
        read_planes(&self.frames, self.grid.slice_voxels(), place)
    }
}

/// Reads every frame, of `plane` pixels, into its place; instances in the order of their first frame, with the hash of each.
pub(super) fn read_planes<T: Copy + Default + Send + bytemuck::Zeroable>(
    frames: &[Frame],
    plane: usize,
    place: impl for<'p> Fn(&'p mut [T]) -> Place<'p> + Sync,
) -> Result<(Vec<T>, Vec<ReadInstance>), SeriesError> {
    let voxels = plane * frames.len();
    let mut stored = huge::zeroed::<T>(voxels).ok_or(SeriesError::Memory { voxels, bytes: size_of::<T>() })?;
    // Frames by instance, in the order of the file.
    let mut jobs: Vec<Job<'_, T>> = Vec::new();
    let mut job_of = std::collections::HashMap::new();
    for ((k, frame), slice) in frames.iter().enumerate().zip(stored.chunks_exact_mut(plane)) {
        let n = *job_of.entry(Arc::as_ptr(&frame.instance)).or_insert_with(|| {
            jobs.push(Job { instance: &frame.instance, first_k: k, frames: Vec::new() });
            jobs.len() - 1
        });
        jobs[n].frames.push((frame.number, k, slice));
    }
    let total = frames.len();
    let read = jobs.into_par_iter().map(|mut job| {
        job.frames.sort_by_key(|frame| frame.0);
        let slices = job.frames.iter().map(|frame| frame.1).collect();
        let mut places: Vec<(u32, Place<'_>)> = job.frames.into_iter().map(|(number, _, slice)| (number, place(slice))).collect();
        let hash = read_frames(job.instance, &mut places).map_err(|error| SeriesError::Slice { index: job.first_k, total, error })?;
        Ok((Arc::clone(job.instance), hash, slices))
    });
    // The first error by slice, not by time.
    let read: Vec<Result<_, SeriesError>> = read.collect();
    let read = read.into_iter().collect::<Result<_, _>>()?;
    Ok((stored, read))
}

/// An instance that was read, its hash, and the slices of its frames in the order of its file.
pub(super) type ReadInstance = (Arc<Instance>, ContentHash, Vec<usize>);

/// The frames of one instance: number, slice, and where it goes.
struct Job<'s, T> {
    instance: &'s Arc<Instance>,
    first_k: usize,
    frames: Vec<(u32, usize, &'s mut [T])>,
}
