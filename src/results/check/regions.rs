//! Segmentations: every segment described as its finding is, every voxel as the label map has it; counts and centroids.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};

use dicom::object::InMemDicomObject;
use rayon::prelude::*;

use super::frames::{Found, Frames, frames};
use super::{Problems, code, is_code};
use crate::codes::sop_class;
use crate::dataset::{Attributes, Frame, Instance, Place, items, native_pixels, read_frames, tags};
use crate::geometry::{norm, sub};
use crate::results::Context;
use crate::results::bits::where_equal;

/// How far apart centroids of the object and of the label map may lie.
const CENTROID_TOLERANCE_MM: f64 = 0.01;
/// Frames that are decoded at a time.
const BATCH: usize = 64;

pub(super) fn check(
    context: &Context<'_>,
    instance: &Instance,
    header: &InMemDicomObject,
    known: &HashMap<&str, &str>,
    problems: &mut Problems,
) {
    check_segments(context, header, problems);
    let Some(frames) = frames(context, instance, header, known, problems) else { return };
    let is_label_map = instance.sop_class_uid == sop_class::LABEL_MAP_SEGMENTATION;
    check_complete(context, &frames.found, is_label_map, problems);
    if !problems.0.is_empty() {
        return; // voxels would only say it again
    }
    let sums = if is_label_map { label_map_sums(context, instance, &frames.found) } else { bit_sums(context, instance, &frames.found) };
    match sums {
        Ok(sums) => check_sums(context, &frames, &sums, problems),
        Err(problem) => problems.add(problem),
    }
}

/// Segments are described as the findings are.
fn check_segments(context: &Context<'_>, header: &InMemDicomObject, problems: &mut Problems) {
    let described = items(header, tags::SEGMENT_SEQUENCE);
    let segments = context.segments.all();
    // A label map may describe its background, as segment 0.
    let described: Vec<_> = described.iter().filter(|s| s.count(tags::SEGMENT_NUMBER) > 0).collect();
    problems.unless(described.len() == segments.len(), || format!("{} segments, not {}", described.len(), segments.len()));
    for (item, segment) in described.into_iter().zip(segments) {
        let (n, finding) = (segment.number, segment.finding);
        problems.unless(item.count(tags::SEGMENT_NUMBER) == n, || format!("segment {n} has another number"));
        problems.unless(item.text(tags::TRACKING_UID) == finding.tracking_uid, || format!("segment {n} has another Tracking UID"));
        let category = code(item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE);
        problems.unless(is_code(category.as_ref(), &finding.category), || format!("segment {n} is of another category"));
        let kind = code(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE);
        problems.unless(is_code(kind.as_ref(), &finding.finding_type), || format!("segment {n} is of another type"));
        let side = super::item(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE)
            .and_then(|kind| code(kind, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE));
        let same_side = finding.laterality.as_ref().map_or(side.is_none(), |expected| is_code(side.as_ref(), expected));
        problems.unless(same_side, || format!("segment {n} lies on another side"));
    }
}

/// Each segment has its frames, none of them twice; those of a label map show any.
fn check_complete(context: &Context<'_>, found: &[Found], is_label_map: bool, problems: &mut Problems) {
    let segments = context.segments.all();
    let of_any = |frame: &Found| if is_label_map { 0 } else { frame.segment };
    let expected: HashSet<(u32, usize)> =
        segments.iter().flat_map(|s| s.frames.iter().map(|&n| (if is_label_map { 0 } else { s.number }, n as usize))).collect();
    let mut seen = HashSet::new();
    let again = found.iter().filter(|f| !seen.insert((of_any(f), f.source))).count();
    problems.unless(again == 0, || format!("{again} frames are there twice"));
    let (lack, more) = (expected.difference(&seen).count(), seen.difference(&expected).count());
    problems.unless(lack == 0 && more == 0, || format!("{lack} frames with voxels are missing, {more} frames show none"));
}

/// Voxels of one segment: how many, and the sum of their places along column, row and patient axes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    voxels: u64,
    columns: u64,
    rows: u64,
    /// Of the corners of the slices that they lie in, mm.
    corners_mm: [f64; 3],
}

impl Sum {
    /// Counts one voxel of a frame.
    fn count(&mut self, column: usize, row: usize) {
        self.voxels += 1;
        self.columns += column as u64;
        self.rows += row as u64;
    }

    /// Counts the voxels of a row whose bits are set, bit 0 at `column`.
    fn count_set(&mut self, column: usize, row: usize, set: u64) {
        /// Bit n is set in the m-th one where bit m is in n.
        const WITH_BIT: [u64; 6] = [
            0xAAAA_AAAA_AAAA_AAAA,
            0xCCCC_CCCC_CCCC_CCCC,
            0xF0F0_F0F0_F0F0_F0F0,
            0xFF00_FF00_FF00_FF00,
            0xFFFF_0000_FFFF_0000,
            0xFFFF_FFFF_0000_0000,
        ];
        if set == 0 {
            return;
        }
        let count = u64::from(set.count_ones());
        let within: u64 = (0..6).map(|m| u64::from((set & WITH_BIT[m]).count_ones()) << m).sum();
        self.voxels += count;
        self.columns += count * column as u64 + within;
        self.rows += count * row as u64;
    }

    /// Counts `count` voxels of a row, from `column` on.
    fn count_run(&mut self, column: usize, row: usize, count: usize) {
        self.voxels += count as u64;
        self.columns += (count * column + count * (count - 1) / 2) as u64;
        self.rows += (count * row) as u64;
    }

    /// Puts all that was counted into the frame at `position_mm`.
    fn place(&mut self, position_mm: [f64; 3]) {
        self.corners_mm = position_mm.map(|mm| mm * self.voxels as f64);
    }

    fn add(&mut self, other: &Self) {
        self.voxels += other.voxels;
        self.columns += other.columns;
        self.rows += other.rows;
        (0..3).for_each(|n| self.corners_mm[n] += other.corners_mm[n]);
    }

    fn centroid_mm(&self, across_mm: [f64; 3], down_mm: [f64; 3]) -> [f64; 3] {
        let count = self.voxels as f64;
        std::array::from_fn(|n| (self.corners_mm[n] + self.columns as f64 * across_mm[n] + self.rows as f64 * down_mm[n]) / count)
    }
}

/// Counts the voxels of each value of a frame, `columns` a row; most of an image is one value for long.
fn count_values<T: Copy + PartialEq>(sums: &mut [Sum], frame: &[T], columns: usize, index: impl Fn(T) -> usize) {
    for (row, values) in frame.chunks_exact(columns).enumerate() {
        let (eights, rest) = values.as_chunks::<8>();
        for (n, eight) in eights.iter().enumerate() {
            if *eight == [eight[0]; 8] {
                sums[index(eight[0])].count_run(8 * n, row, 8);
            } else {
                eight.iter().zip(8 * n..).for_each(|(&value, column)| sums[index(value)].count(column, row));
            }
        }
        rest.iter().zip(8 * eights.len()..).for_each(|(&value, column)| sums[index(value)].count(column, row));
    }
}

/// Sums by segment number, of a BINARY segmentation; every bit is compared with the label map on the way.
fn bit_sums(context: &Context<'_>, instance: &Instance, found: &[Found]) -> Result<Vec<Sum>, String> {
    let unreadable = || "its pixel data cannot be read again".to_owned();
    let plane = context.findings.labels.grid().slice_voxels();
    let range = native_pixels(instance).map_err(|_| unreadable())?;
    let needed = (instance.frames as u64 * plane as u64).div_ceil(8);
    if range.end - range.start < needed {
        return Err(format!("{} bytes of pixel data, not {needed}", range.end - range.start));
    }
    let mut file = std::fs::File::open(&instance.path).map_err(|_| unreadable())?;
    let mut sums = vec![Sum::default(); context.segments.all().len() + 1];
    let mut bytes = Vec::new();
    for batch in found.chunks(BATCH) {
        let (first, last) = (batch[0].n, batch[batch.len() - 1].n);
        let from = first * plane / 8;
        bytes.resize(((last + 1) * plane).div_ceil(8) - from, 0);
        file.seek(SeekFrom::Start(range.start + from as u64)).and_then(|_| file.read_exact(&mut bytes)).map_err(|_| unreadable())?;
        bytes.extend([0; 16]);
        let of_frame = |f: &Found| -> Result<(u32, Sum), String> {
            let label = context.segments.by_number(f.segment).ok_or_else(|| format!("frame {} is of no segment", f.n + 1))?.label;
            let labels = context.findings.labels.slice(context.findings.source.slice_of_frame[f.source] as usize);
            let mut sum = Sum::default();
            let same = compare_bits(&bytes, f.n * plane - from * 8, labels, label, instance.columns as usize, &mut sum);
            sum.place(f.position_mm);
            if same { Ok((f.segment, sum)) } else { Err(format!("voxels of frame {} are not those of the label map", f.n + 1)) }
        };
        for (number, sum) in batch.par_iter().map(of_frame).collect::<Result<Vec<_>, _>>()? {
            sums[number as usize].add(&sum);
        }
    }
    Ok(sums)
}

/// Whether the bits from `start` on are set just where `labels` are `label`; counts those that are. Behind the last bit are 16 more bytes.
fn compare_bits(bytes: &[u8], start: usize, labels: &[u8], label: u8, columns: usize, sum: &mut Sum) -> bool {
    let (mut column, mut row) = (0, 0);
    for (n, run) in labels.chunks(64).enumerate() {
        let bit = start + 64 * n;
        let around = bytes[bit / 8..].first_chunk().expect("16 bytes follow the last bit");
        let mut set = (u128::from_le_bytes(*around) >> (bit % 8)) as u64 & (u64::MAX >> (64 - run.len()));
        if set != bits_of(run, label) {
            return false;
        }
        if column + run.len() <= columns {
            sum.count_set(column, row, set);
        } else {
            while set != 0 {
                let at = column + set.trailing_zeros() as usize;
                sum.count(at % columns, row + at / columns);
                set &= set - 1;
            }
        }
        column += run.len();
        row += column / columns;
        column %= columns;
    }
    true
}

/// Bit n is set where voxel n of at most 64 has the label.
fn bits_of(run: &[u8], label: u8) -> u64 {
    match run.as_array::<64>() {
        Some(run) => where_equal(run, label),
        None => run.iter().enumerate().fold(0, |bits, (n, &l)| bits | u64::from(l == label) << n),
    }
}

/// The same of a label map.
fn label_map_sums(context: &Context<'_>, instance: &Instance, found: &[Found]) -> Result<Vec<Sum>, String> {
    let plane = context.findings.labels.grid().slice_voxels();
    let columns = instance.columns as usize;
    let mut number_of = [0i16; 256];
    context.segments.all().iter().for_each(|s| number_of[usize::from(s.label)] = s.number as i16);
    let none = || vec![Sum::default(); context.segments.all().len() + 1];
    let mut sums = none();
    let mut stored = Vec::new();
    for batch in found.chunks(BATCH) {
        stored.resize(plane * batch.len(), 0i16);
        let places = stored.chunks_exact_mut(plane).zip(batch);
        let mut places: Vec<(u32, Place<'_>)> =
            places.map(|(stored, f)| (f.n as u32 + 1, Place::Int16 { stored, minus_32768: false })).collect();
        read_frames(instance, &mut places).map_err(|_| "its pixel data cannot be decoded again".to_owned())?;
        let of_frame = |(f, stored): (&Found, &[i16])| -> Result<Vec<Sum>, String> {
            let labels = context.findings.labels.slice(context.findings.source.slice_of_frame[f.source] as usize);
            if stored.iter().zip(labels).any(|(&value, &label)| value != number_of[usize::from(label)]) {
                return Err(format!("voxels of frame {} are not those of the label map", f.n + 1));
            }
            let mut sums = none();
            count_values(&mut sums, stored, columns, |number| number as usize);
            sums.iter_mut().for_each(|sum| sum.place(f.position_mm));
            Ok(sums)
        };
        for of_frame in batch.par_iter().zip(stored.par_chunks_exact(plane)).map(of_frame).collect::<Result<Vec<_>, _>>()? {
            sums.iter_mut().zip(&of_frame).for_each(|(sum, more)| sum.add(more));
        }
    }
    Ok(sums)
}

/// The same of the label map, by label: its slices at source frames, where those lie. A regular series need not be so to the last digit, and
/// an uneven one is not: where a frame is counts, not where its slice would be.
fn expected_sums(context: &Context<'_>) -> Vec<Sum> {
    let source = &context.findings.source;
    let labels = &context.findings.labels;
    let columns = labels.grid().dims()[0] as usize;
    let none = || vec![Sum::default(); 256];
    let of_frame = |(frame, &k): (&Frame, &u32)| {
        let mut sums = none();
        count_values(&mut sums, labels.slice(k as usize), columns, usize::from);
        sums.iter_mut().for_each(|sum| sum.place(frame.position_mm.unwrap_or_default()));
        sums
    };
    let joined = |mut all: Vec<Sum>, more: Vec<Sum>| {
        all.iter_mut().zip(&more).for_each(|(sum, more)| sum.add(more));
        all
    };
    source.frames.par_iter().zip(&source.slice_of_frame).map(of_frame).reduce(none, joined)
}

/// Number of voxels and centroid of each segment by the object's own geometry are those of the label map on the source's.
fn check_sums(context: &Context<'_>, frames: &Frames, sums: &[Sum], problems: &mut Problems) {
    let grid = context.findings.labels.grid();
    let affine = grid.lps_from_voxel();
    let expected = expected_sums(context);
    for segment in context.segments.all() {
        let n = segment.number;
        let (sum, expected) = (&sums[n as usize], &expected[usize::from(segment.label)]);
        problems.unless(sum.voxels == expected.voxels, || format!("segment {n} has {} voxels, not {}", sum.voxels, expected.voxels));
        let Some(plane) = frames.plane.as_ref().filter(|_| sum.voxels > 0) else { continue };
        let direction = |from: usize, mm: f64| -> [f64; 3] { std::array::from_fn(|n| plane.orientation[from + n] * mm) };
        let [down, across] = plane.spacing_mm;
        let (across_mm, down_mm) = (direction(0, across), direction(3, down));
        let off_mm = norm(sub(sum.centroid_mm(across_mm, down_mm), expected.centroid_mm(affine.column(0), affine.column(1))));
        problems.unless(off_mm <= CENTROID_TOLERANCE_MM, || format!("segment {n} lies {off_mm:.3} mm from where it was found"));
    }
}
