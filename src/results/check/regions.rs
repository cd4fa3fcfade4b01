//! Segmentations: every frame where the source has it, every voxel as the label map has it; volumes and centroids.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use dicom::object::InMemDicomObject;
use rayon::prelude::*;

use super::{Problems, code, is_code, item};
use crate::codes::{Uid, sop_class};
use crate::dataset::{Attributes, Frame, Instance, Place, items, native_pixels, read_frames, tags};
use crate::geometry::{cross, norm, sub};
use crate::results::Context;
use crate::results::segments::Segment;

/// How far a frame may lie from the source image that it is about: positions are the source's strings.
const POSITION_TOLERANCE_MM: f64 = 0.01;
/// How far apart centroids of the object and of the label map may lie.
const CENTROID_TOLERANCE_MM: f64 = 0.01;
/// By how much volumes may differ, as a part: spacings are decimal strings.
const VOLUME_TOLERANCE: f64 = 1e-4;
/// Frames that are decoded at a time.
const BATCH: usize = 64;

pub(super) fn check(context: &Context<'_>, instance: &Arc<Instance>, header: &InMemDicomObject, problems: &mut Problems) {
    check_segments(context, header, problems);
    let Ok(frames) = Frame::all_of(instance) else { return problems.add("its frames have no geometry".into()) };
    let dims = context.findings.labels.grid().dims();
    if [instance.columns, instance.rows] != dims[..2] {
        return problems.add(format!("frames of {} x {} pixels, not {} x {}", instance.columns, instance.rows, dims[0], dims[1]));
    }
    let is_label_map = instance.sop_class_uid == sop_class::LABEL_MAP_SEGMENTATION;
    let images = context.findings.source.frames.iter().zip(0..);
    let images = images.map(|(frame, n)| ((frame.instance.sop_instance_uid.clone(), frame.number), n)).collect();
    let found: Vec<Found<'_>> =
        frames.iter().enumerate().filter_map(|(n, frame)| place(context, &images, frame, n, is_label_map, problems)).collect();
    check_complete(context, &found, is_label_map, problems);
    if !problems.0.is_empty() {
        return; // voxels would only say it again
    }
    let sums = if is_label_map { label_map_sums(context, instance, &found) } else { bit_sums(context, instance, &found) };
    match sums {
        Ok(sums) => check_sums(context, &frames[0], &sums, problems),
        Err(problem) => problems.add(problem),
    }
}

/// A frame: its place in the object and in the source, and of which segment it is.
struct Found<'a> {
    n: usize,
    /// Its place in `Source::frames`.
    source: usize,
    position_mm: [f64; 3],
    /// None for a label map.
    segment: Option<&'a Segment<'a>>,
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

/// Places of the frames of `Source::frames`, by instance and number.
type Images = HashMap<(Uid, u32), usize>;

/// Where the frame lies, if that is where a source image does which it names.
fn place<'a>(
    context: &'a Context<'_>,
    images: &Images,
    frame: &Frame,
    n: usize,
    is_label_map: bool,
    problems: &mut Problems,
) -> Option<Found<'a>> {
    let at = n + 1;
    let groups = frame.context().ok()?;
    let (Some(position_mm), Some(orientation), Some(spacing_mm)) = (frame.position_mm, frame.orientation, frame.pixel_spacing_mm) else {
        problems.add(format!("frame {at} has no place"));
        return None;
    };
    let image = groups.per_frame.and_then(|f| item(item(f, tags::DERIVATION_IMAGE_SEQUENCE)?, tags::SOURCE_IMAGE_SEQUENCE));
    let named = image.map(|image| (image.text(tags::REFERENCED_SOP_INSTANCE_UID), image.count(tags::REFERENCED_FRAME_NUMBER).max(1)));
    let Some(named) = named else {
        problems.add(format!("frame {at} names no source image"));
        return None;
    };
    let Some(&source) = images.get(&named) else {
        problems.add(format!("frame {at} names a source image that was not analysed"));
        return None;
    };
    let there = &context.findings.source.frames[source];
    let off_mm = there.position_mm.map_or(f64::INFINITY, |p| norm(sub(p, position_mm)));
    problems.unless(off_mm <= POSITION_TOLERANCE_MM, || format!("frame {at} lies {off_mm:.3} mm from its source image"));
    let labels = &context.findings.labels;
    let slice = f64::from(context.findings.source.slice_of_frame[source]);
    let off_slices = (labels.grid().voxel_from_lps().apply(position_mm)[2] - slice).abs();
    problems.unless(off_slices < 1.0, || format!("frame {at} lies {off_slices:.2} slices from its own"));
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4);
    let same_orientation = there.orientation.is_some_and(|o| close(&o, &orientation));
    problems.unless(same_orientation, || format!("frame {at} is turned against its source image"));
    let same_spacing = there.pixel_spacing_mm.is_some_and(|s| close(&s, &spacing_mm));
    problems.unless(same_spacing, || format!("frame {at} has another pixel spacing than its source image"));
    if is_label_map {
        return Some(Found { n, source, position_mm, segment: None });
    }
    let number = groups.holder(tags::REFERENCED_SEGMENT_NUMBER).map(|h| h.count(tags::REFERENCED_SEGMENT_NUMBER)).unwrap_or_default();
    let segment = context.segments.by_number(number);
    problems.unless(segment.is_some(), || format!("frame {at} is of segment {number}, which is none"));
    segment.map(|segment| Found { n, source, position_mm, segment: Some(segment) })
}

/// Each segment has its frames, none of them twice.
fn check_complete(context: &Context<'_>, found: &[Found<'_>], is_label_map: bool, problems: &mut Problems) {
    let segments = context.segments.all();
    let expected: HashSet<(u32, usize)> = if is_label_map {
        segments.iter().flat_map(|s| &s.frames).map(|&n| (0, n as usize)).collect()
    } else {
        segments.iter().flat_map(|s| s.frames.iter().map(|&n| (s.number, n as usize))).collect()
    };
    let mut seen = HashSet::new();
    let again = found.iter().filter(|f| !seen.insert((f.segment.map_or(0, |s| s.number), f.source))).count();
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
    /// Counts voxel `n` of a frame.
    fn count(&mut self, n: usize, columns: usize) {
        self.voxels += 1;
        self.columns += (n % columns) as u64;
        self.rows += (n / columns) as u64;
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

/// Sums by segment number, of a BINARY segmentation; every bit is compared with the label map on the way.
fn bit_sums(context: &Context<'_>, instance: &Instance, found: &[Found<'_>]) -> Result<Vec<Sum>, String> {
    let unreadable = || "its pixel data cannot be read again".to_owned();
    let plane = context.findings.labels.grid().slice_voxels();
    let columns = instance.columns as usize;
    let range = native_pixels(instance).map_err(|_| unreadable())?;
    let needed = (instance.frames as u64 * plane as u64).div_ceil(8);
    if range.end - range.start < needed {
        return Err(format!("{} bytes of pixel data, not {needed}", range.end - range.start));
    }
    let mut file = std::fs::File::open(&instance.path).map_err(|_| unreadable())?;
    let mut sums = vec![Sum::default(); context.segments.all().len() + 1];
    for batch in found.chunks(BATCH) {
        let (first, last) = (batch[0].n, batch[batch.len() - 1].n);
        let from = first * plane / 8;
        let mut bytes = vec![0; ((last + 1) * plane).div_ceil(8) - from];
        file.seek(SeekFrom::Start(range.start + from as u64)).and_then(|_| file.read_exact(&mut bytes)).map_err(|_| unreadable())?;
        bytes.push(0); // so that a byte's successor is always there
        let of_frame = |f: &Found<'_>| -> Result<(u32, Sum), String> {
            let segment = f.segment.expect("a BINARY frame has one");
            let labels = context.findings.labels.slice(context.findings.source.slice_of_frame[f.source] as usize);
            let start = f.n * plane - from * 8;
            let mut sum = Sum::default();
            for (n, eight) in labels.chunks(8).enumerate() {
                let bit = start + 8 * n;
                let pair = u16::from_le_bytes([bytes[bit / 8], bytes[bit / 8 + 1]]);
                let mut set = (pair >> (bit % 8)) as u8 & (0xFF >> (8 - eight.len()));
                let expected = eight.iter().enumerate().fold(0, |byte, (b, &label)| byte | u8::from(label == segment.label) << b);
                if set != expected {
                    return Err(format!("voxels of frame {} are not those of the label map", f.n + 1));
                }
                while set != 0 {
                    sum.count(8 * n + set.trailing_zeros() as usize, columns);
                    set &= set - 1;
                }
            }
            sum.place(f.position_mm);
            Ok((segment.number, sum))
        };
        for (number, sum) in batch.par_iter().map(of_frame).collect::<Result<Vec<_>, _>>()? {
            sums[number as usize].add(&sum);
        }
    }
    Ok(sums)
}

/// The same of a label map.
fn label_map_sums(context: &Context<'_>, instance: &Instance, found: &[Found<'_>]) -> Result<Vec<Sum>, String> {
    let plane = context.findings.labels.grid().slice_voxels();
    let columns = instance.columns as usize;
    let mut number_of = [0u16; 256];
    context.segments.all().iter().for_each(|s| number_of[usize::from(s.label)] = s.number as u16);
    let mut sums = vec![Sum::default(); context.segments.all().len() + 1];
    for batch in found.chunks(BATCH) {
        let mut stored = vec![0i16; plane * batch.len()];
        let places = stored.chunks_exact_mut(plane).zip(batch);
        let mut places: Vec<(u32, Place<'_>)> =
            places.map(|(stored, f)| (f.n as u32 + 1, Place::Int16 { stored, minus_32768: false })).collect();
        read_frames(instance, &mut places).map_err(|_| "its pixel data cannot be decoded again".to_owned())?;
        let of_frame = |(f, stored): (&Found<'_>, &[i16])| -> Result<Vec<Sum>, String> {
            let mut sums = vec![Sum::default(); context.segments.all().len() + 1];
            let labels = context.findings.labels.slice(context.findings.source.slice_of_frame[f.source] as usize);
            for (n, (&value, &label)) in stored.iter().zip(labels).enumerate() {
                if value as u16 != number_of[usize::from(label)] {
                    return Err(format!("voxels of frame {} are not those of the label map", f.n + 1));
                }
                sums[value as usize].count(n, columns);
            }
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
        labels.slice(k as usize).iter().enumerate().for_each(|(n, &label)| sums[usize::from(label)].count(n, columns));
        sums.iter_mut().for_each(|sum| sum.place(frame.position_mm.unwrap_or_default()));
        sums
    };
    let joined = |mut all: Vec<Sum>, more: Vec<Sum>| {
        all.iter_mut().zip(&more).for_each(|(sum, more)| sum.add(more));
        all
    };
    source.frames.par_iter().zip(&source.slice_of_frame).map(of_frame).reduce(none, joined)
}

/// Volume and centroid of each segment by the object's own geometry are those of the label map on the source's.
fn check_sums(context: &Context<'_>, frame: &Frame, sums: &[Sum], problems: &mut Problems) {
    let (Some(orientation), Some([down, across])) = (frame.orientation, frame.pixel_spacing_mm) else { return };
    let direction = |from: usize, mm: f64| -> [f64; 3] { std::array::from_fn(|n| orientation[from + n] * mm) };
    let (across_mm, down_mm) = (direction(0, across), direction(3, down));
    let spacing_mm = frame.context().ok().and_then(|c| c.holder(tags::SPACING_BETWEEN_SLICES)?.number(tags::SPACING_BETWEEN_SLICES));
    let grid = context.findings.labels.grid();
    let affine = grid.lps_from_voxel();
    let expected = expected_sums(context);
    for segment in context.segments.all() {
        let n = segment.number;
        let (sum, expected) = (&sums[n as usize], &expected[usize::from(segment.label)]);
        problems.unless(sum.voxels == expected.voxels, || format!("segment {n} has {} voxels, not {}", sum.voxels, expected.voxels));
        if sum.voxels == 0 {
            continue;
        }
        let off_mm = norm(sub(sum.centroid_mm(across_mm, down_mm), expected.centroid_mm(affine.column(0), affine.column(1))));
        problems.unless(off_mm <= CENTROID_TOLERANCE_MM, || format!("segment {n} lies {off_mm:.3} mm from where it was found"));
        if let Some(spacing_mm) = spacing_mm {
            let voxel_mm3 = norm(cross(across_mm, down_mm)) * spacing_mm;
            let ratio = voxel_mm3 / grid.voxel_volume_mm3();
            problems.unless((ratio - 1.0).abs() <= VOLUME_TOLERANCE, || format!("segment {n} has {ratio:.6} times its volume"));
        }
    }
}
