//! The voxels of a segmentation: planes that are there, and volumes of them on a grid.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::{Segmentation, SegmentationError, SegmentationType};
use crate::dataset::{Frame, Instance, Place};
use crate::geometry::{Affine, Grid, MAX_VOXELS, norm, sub};
use crate::series::SeriesError;
use crate::series::lattice::allowed;
use crate::series::stack::read_planes;
use crate::volume::{LabelMap, Volume, huge};

/// The decoded frames of a segmentation. Volumes are made when they are asked for.
pub struct LoadedSegmentation {
    /// Where its frames lie.
    pub grid: Grid,
    /// How voxels tell of segments.
    pub kind: SegmentationType,
    /// The instances that were read, in the order of their first frame.
    pub instances: Vec<Arc<Instance>>,
    /// SHA-256 of each instance's file as it was read, hexadecimal, in the order of `instances`.
    pub content_sha256: Vec<String>,
    /// Numbers of the segments that were loaded, and where each is among the segments.
    numbers: HashMap<u16, usize>,
    /// Slice k and place of a plane, by segment.
    planes: HashMap<usize, Vec<(u32, usize)>>,
    voxels: Voxels,
}

enum Voxels {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

impl std::fmt::Debug for LoadedSegmentation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadedSegmentation({:?}, {:?}, {} segments)", self.kind, self.grid, self.numbers.len())
    }
}

impl Segmentation {
    /// Decodes all frames. Takes 3 bytes a voxel of the frames while it decodes (4 for label maps of 16 bits), and then 1 (2 where
    /// segment numbers beyond 255 occur); slices without a frame take none.
    ///
    /// # Errors
    /// The first frame that cannot be read, frames that do not fit in memory, and values that mean nothing: fractions above the maximum,
    /// labels that no segment describes and that are not background.
    pub fn load(&self) -> Result<LoadedSegmentation, SegmentationError> {
        let numbers: Vec<u16> = self.segments.iter().map(|segment| segment.number).collect();
        self.load_only(&numbers)
    }

    /// As [`Segmentation::load`], but only the frames of some segments, by number. Those of a label map belong to all.
    ///
    /// # Errors
    /// As [`Segmentation::load`], and for a number that no segment has.
    pub fn load_only(&self, numbers: &[u16]) -> Result<LoadedSegmentation, SegmentationError> {
        let place = |&number: &u16| {
            let place = self.segments.binary_search_by_key(&number, |s| s.number);
            place.map(|n| (number, n)).map_err(|_| SegmentationError::NoSegment { number })
        };
        let numbers: HashMap<u16, usize> = numbers.iter().map(place).collect::<Result<_, _>>()?;
        let label_map = matches!(self.kind, SegmentationType::LabelMap { .. });
        let wanted: HashSet<usize> = numbers.values().copied().collect();
        let kept: Vec<_> = self.frames.iter().filter(|f| label_map || wanted.contains(&f.segment)).collect();
        let mut planes: HashMap<usize, Vec<(u32, usize)>> = HashMap::new();
        for (n, frame) in kept.iter().enumerate() {
            planes.entry(frame.segment).or_default().push((frame.k, n));
        }
        let plane = self.grid.slice_voxels();
        let total = (plane as u64).saturating_mul(kept.len() as u64);
        if total > MAX_VOXELS {
            return Err(SeriesError::Memory { voxels: total as usize, bytes: size_of::<i16>() }.into());
        }
        let frames: Vec<Frame> = kept.iter().map(|f| f.frame.clone()).collect();
        let wide = frames.iter().any(|f| f.instance.pixels.bits_stored > 15);
        let (stored, read) = read_planes(&frames, plane, |stored| Place::Int16 { stored, minus_32768: wide })?;
        let hash = |(_, hash, slices): &(Arc<Instance>, crate::dataset::ContentHash, Vec<usize>)| {
            hash.finish(slices.iter().map(|&n| &stored[n * plane..][..plane]))
        };
        let content_sha256 = read.par_iter().map(hash).collect();
        let instances = read.iter().map(|(instance, _, _)| Arc::clone(instance)).collect();
        let voxels = self.checked(stored, wide)?;
        Ok(LoadedSegmentation { grid: self.grid, kind: self.kind, instances, content_sha256, numbers, planes, voxels })
    }

    /// Values as small as they fit, each of which means something.
    fn checked(&self, stored: Vec<i16>, wide: bool) -> Result<Voxels, SegmentationError> {
        let value = |v: i16| if wide { v as u16 ^ 0x8000 } else { v as u16 };
        let (meant, why): (Vec<bool>, _) = match self.kind {
            SegmentationType::Binary => ((0..=0xFFFF).map(|v| v <= 1).collect(), "a mask has 0 and 1"),
            SegmentationType::Fractional { maximum, .. } => {
                ((0..=0xFFFF).map(|v| v <= u32::from(maximum)).collect(), "beyond the Maximum Fractional Value")
            }
            SegmentationType::LabelMap { background } => {
                let mut meant = vec![false; 1 << 16];
                self.segments.iter().map(|s| s.number).chain([background]).for_each(|v| meant[usize::from(v)] = true);
                (meant, "neither background nor the number of a segment that is described")
            }
        };
        let plane = self.grid.slice_voxels();
        // Of each frame: voxels without meaning, the least of their values, the largest value of all.
        let of_frame = |frame: &[i16]| {
            frame.iter().fold((0usize, u16::MAX, 0u16), |(bad, least, largest), &v| {
                let v = value(v);
                let is_bad = !meant[usize::from(v)];
                (bad + usize::from(is_bad), if is_bad { least.min(v) } else { least }, largest.max(v))
            })
        };
        let joined = |a: (usize, u16, u16), b: (usize, u16, u16)| (a.0 + b.0, a.1.min(b.1), a.2.max(b.2));
        let (voxels, least, largest) = stored.par_chunks(plane).map(of_frame).reduce(|| (0, u16::MAX, 0), joined);
        if voxels > 0 {
            return Err(SegmentationError::Value { value: least.into(), voxels, why });
        }
        let no_memory = || SeriesError::Memory { voxels: stored.len(), bytes: if largest > 0xFF { 2 } else { 1 } };
        if largest <= 0xFF {
            let mut bytes = huge::zeroed::<u8>(stored.len()).ok_or_else(no_memory)?;
            bytes.par_chunks_mut(plane).zip(stored.par_chunks(plane)).for_each(|(out, frame)| {
                out.iter_mut().zip(frame).for_each(|(out, &v)| *out = value(v) as u8);
            });
            return Ok(Voxels::Bytes(bytes));
        }
        let mut words = huge::zeroed::<u16>(stored.len()).ok_or_else(no_memory)?;
        words.par_chunks_mut(plane).zip(stored.par_chunks(plane)).for_each(|(out, frame)| {
            out.iter_mut().zip(frame).for_each(|(out, &v)| *out = value(v));
        });
        Ok(Voxels::Words(words))
    }
}

impl LoadedSegmentation {
    /// The mask of a segment, 0 and 1, on the segmentation's own grid; of BINARY and LABELMAP objects.
    ///
    /// # Errors
    /// A segment that was not loaded, fractions, or a volume that does not fit in memory.
    pub fn mask(&self, number: u16) -> Result<LabelMap, SegmentationError> {
        self.mask_on(number, &self.grid)
    }

    /// As [`LoadedSegmentation::mask`], on a grid of which the segmentation's slices are slices: that of the series that it was made
    /// of, for one. Slices may run the other way; rows and columns are the same. Nothing is resampled.
    ///
    /// # Errors
    /// As [`LoadedSegmentation::mask`], and where a frame lies on no slice of `grid`, to 1 % of its spacing or 0.01 mm.
    pub fn mask_on(&self, number: u16, grid: &Grid) -> Result<LabelMap, SegmentationError> {
        let segment = self.place_of(number)?;
        match self.kind {
            SegmentationType::Binary => self.bytes_on(segment, grid, 0, |v| v),
            SegmentationType::LabelMap { background } => {
                // A background that is described as a segment has the slices without a frame, too.
                let empty = u8::from(background == number);
                match &self.voxels {
                    Voxels::Bytes(all) => self.volume_on(all, 0, grid, empty, |v| u8::from(u16::from(v) == number)),
                    Voxels::Words(all) => self.volume_on(all, 0, grid, empty, |v| u8::from(v == number)),
                }
            }
            SegmentationType::Fractional { .. } => Err(self.other_kind("masks; ask for fractions")),
        }
    }

    /// The fractions of a segment as they are stored, of which Maximum Fractional Value stands for 1, on its own grid.
    ///
    /// # Errors
    /// As [`LoadedSegmentation::mask`], for what has no fractions.
    pub fn fractions(&self, number: u16) -> Result<Volume<u8>, SegmentationError> {
        self.fractions_on(number, &self.grid)
    }

    /// As [`LoadedSegmentation::fractions`], on a grid as for [`LoadedSegmentation::mask_on`].
    ///
    /// # Errors
    /// As [`LoadedSegmentation::mask_on`].
    pub fn fractions_on(&self, number: u16, grid: &Grid) -> Result<Volume<u8>, SegmentationError> {
        let segment = self.place_of(number)?;
        match self.kind {
            SegmentationType::Fractional { .. } => self.bytes_on(segment, grid, 0, |v| v),
            _ => Err(self.other_kind("fractions; ask for masks")),
        }
    }

    /// The values of a LABELMAP as they are stored, background where there is no frame, on its own grid. Background is what
    /// [`SegmentationType::LabelMap`] says, which need not be 0.
    ///
    /// # Errors
    /// What is no label map, values beyond 255, or a volume that does not fit in memory.
    pub fn labels(&self) -> Result<LabelMap, SegmentationError> {
        self.labels_on(&self.grid)
    }

    /// As [`LoadedSegmentation::labels`], on a grid as for [`LoadedSegmentation::mask_on`].
    ///
    /// # Errors
    /// As [`LoadedSegmentation::labels`], and where a frame lies on no slice of `grid`.
    pub fn labels_on(&self, grid: &Grid) -> Result<LabelMap, SegmentationError> {
        let SegmentationType::LabelMap { background } = self.kind else { return Err(self.other_kind("label map; ask for masks")) };
        let empty = u8::try_from(background).map_err(|_| SegmentationError::LabelTooLarge { value: background })?;
        self.bytes_on(0, grid, empty, |v| v)
    }

    /// Voxels of each segment that was loaded, by number, as far as frames have them: of fractions those that are not 0.
    pub fn voxel_counts(&self) -> BTreeMap<u16, u64> {
        match &self.voxels {
            Voxels::Bytes(all) => self.counts_in(all),
            Voxels::Words(all) => self.counts_in(all),
        }
    }

    fn counts_in<T: Copy + Into<u16>>(&self, all: &[T]) -> BTreeMap<u16, u64> {
        if matches!(self.kind, SegmentationType::LabelMap { .. }) {
            let mut of_value = vec![0u64; 1 << 16];
            all.iter().for_each(|&value| of_value[usize::from(value.into())] += 1);
            return self.numbers.keys().map(|&number| (number, of_value[usize::from(number)])).collect();
        }
        let plane = self.grid.slice_voxels();
        let count = |&(_, n): &(u32, usize)| all[n * plane..][..plane].iter().filter(|&&value| value.into() != 0).count() as u64;
        let of_segment = |segment| self.planes.get(segment).map_or(0, |planes| planes.iter().map(count).sum());
        self.numbers.iter().map(|(&number, segment)| (number, of_segment(segment))).collect()
    }

    fn other_kind(&self, wanted: &'static str) -> SegmentationError {
        SegmentationError::OtherKind { kind: self.kind.name(), wanted }
    }

    fn place_of(&self, number: u16) -> Result<usize, SegmentationError> {
        self.numbers.get(&number).copied().ok_or(SegmentationError::NoSegment { number })
    }

    fn bytes_on(&self, segment: usize, grid: &Grid, empty: u8, map: impl Fn(u8) -> u8 + Sync) -> Result<Volume<u8>, SegmentationError> {
        match &self.voxels {
            Voxels::Bytes(all) => self.volume_on(all, segment, grid, empty, map),
            Voxels::Words(all) => Err(SegmentationError::LabelTooLarge { value: all.iter().copied().max().unwrap_or(0) }),
        }
    }

    /// The planes of a segment on `grid`, `empty` elsewhere.
    fn volume_on<T: Copy + Sync>(
        &self,
        all: &[T],
        segment: usize,
        grid: &Grid,
        empty: u8,
        map: impl Fn(T) -> u8 + Sync,
    ) -> Result<Volume<u8>, SegmentationError> {
        let plane = self.grid.slice_voxels();
        let planes = self.planes.get(&segment).map_or(&[][..], Vec::as_slice);
        let grid_from_own = grid.voxel_from_lps() * self.grid.lps_from_voxel();
        let mut source: HashMap<u32, usize> = HashMap::new();
        for &(k, n) in planes {
            source.insert(self.slice_on(k, grid, &grid_from_own)?, n);
        }
        let voxels = grid.voxel_count();
        let mut out = huge::zeroed::<u8>(voxels).ok_or(SeriesError::Memory { voxels, bytes: 1 })?;
        out.par_chunks_mut(grid.slice_voxels()).enumerate().for_each(|(k, slice)| match source.get(&(k as u32)) {
            Some(&n) => slice.iter_mut().zip(&all[n * plane..][..plane]).for_each(|(out, &v)| *out = map(v)),
            None if empty != 0 => slice.fill(empty),
            None => {}
        });
        Ok(Volume::new(*grid, out))
    }

    /// The slice of `grid` that slice `k` lies on.
    fn slice_on(&self, k: u32, grid: &Grid, grid_from_own: &Affine) -> Result<u32, SegmentationError> {
        let [columns, rows, _] = self.grid.dims();
        let [grid_columns, grid_rows, slices] = grid.dims();
        let allowed_mm = allowed(grid.spacing_mm()[2]);
        let other = |off_mm| SegmentationError::OtherGrid { index: k, off_mm, allowed_mm, columns, rows, grid_columns, grid_rows };
        let at = grid_from_own.apply([0.0, 0.0, f64::from(k)])[2].round();
        if [columns, rows] != [grid_columns, grid_rows] || !(0.0..f64::from(slices)).contains(&at) {
            return Err(other(f64::INFINITY));
        }
        let corners = [[0, 0], [columns - 1, 0], [0, rows - 1], [columns - 1, rows - 1]];
        let off_mm = corners
            .map(|[i, j]| {
                let [own, there] = [f64::from(k), at].map(|k| [f64::from(i), f64::from(j), k]);
                norm(sub(self.grid.lps_from_voxel().apply(own), grid.lps_from_voxel().apply(there)))
            })
            .into_iter()
            .fold(0.0, f64::max);
        if off_mm > allowed_mm { Err(other(off_mm)) } else { Ok(at as u32) }
    }
}
