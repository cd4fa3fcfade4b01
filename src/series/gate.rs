//! Whether a part of a series is a regular stack of slices, a single image or a cine.

use std::collections::{HashMap, HashSet};

use dicom::object::InMemDicomObject;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::lattice::{Found, Plane, lattice};
use super::part::{Class, Part, parts_of};
use super::values::{self, Mapping, PhysicalValues, VoiWindow};
use super::{Kind, Reason, Refusal, Series, Space, Stack, picture};
use crate::dataset::{DatasetError, Frame, FrameContext, Instance, StoredAs, check_decodable};
use crate::geometry::{Grid, cross, dot, norm, sub};
use crate::volume::Quantity;

/// Largest difference between direction cosines that are the same, and of their lengths and scalar product from 1, 1 and 0. Six
/// decimals are written at least, four by the coarsest writers; at 300 mm from the corner this moves a voxel by 0.03 mm.
const DIRECTION_TOLERANCE: f64 = 1e-4;
/// Largest relative difference between pixel spacings that are the same.
const SPACING_TOLERANCE: f64 = 1e-4;
/// Slices that a part needs to count as regular by itself: any two are.
const REGULAR_SLICES: usize = 3;

/// What to do with a series whose slices are not one regular, straight stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GeometryPolicy {
    /// Refuse it.
    #[default]
    Refuse,
    /// Several volumes in one series are judged each for itself; one that is sheared or unevenly spaced is refused.
    Split,
    /// As `Split`; and a sheared stack (gantry tilt) is taken as the sheared grid that it is, from which the network's input is
    /// resampled onto a straight one; an unevenly spaced one is interpolated onto even distances. Missing slices are refused all the same.
    Resample,
}

impl GeometryPolicy {
    pub(super) fn splits(self) -> bool {
        self != Self::Refuse
    }
}

impl Series {
    /// What the series is made of, under a policy: at least one part.
    pub fn parts(&self, policy: GeometryPolicy) -> Vec<Part<'_>> {
        parts_of(self, policy)
    }
}

impl Part<'_> {
    /// The part as a stack of images that can be loaded.
    ///
    /// Of slices only Image Position, Image Orientation and Pixel Spacing count (PS3.3 C.7.6.2); thickness, tilt, locations, instance
    /// numbers and file names do not. They are sorted along their normal (row direction cross column direction).
    ///
    /// # Errors
    /// Every reason against it, not only the first.
    pub fn gate(&self) -> Result<Stack, Refusal> {
        self.gate_for(None)
    }

    /// As [`Part::gate`], with values in the quantity that is wanted: uptakes are standardised where the header says by what.
    ///
    /// # Errors
    /// As [`Part::gate`], and where the values are of another quantity that cannot be brought into this one.
    pub fn gate_for(&self, wanted: Option<Quantity>) -> Result<Stack, Refusal> {
        let mut reasons = self.defects.clone();
        let mut notes = Vec::new();
        if self.of > 1 {
            let label = if self.label.is_empty() { String::new() } else { format!(": {}", self.label) };
            notes.push(format!("part {} of {} of the series{label}", self.number, self.of));
        }
        let placed = match self.class {
            Class::Slice => {
                self.check_images(&mut reasons);
                self.slices(&mut reasons, &mut notes)
            }
            Class::Picture => {
                self.check_images(&mut reasons);
                picture::place(&self.frames, &mut reasons, &mut notes)
            }
            Class::Segmentation => {
                reasons.push(Reason::NotASlice { count: self.frames.len(), total: self.frames.len(), what: "segmentations" });
                None
            }
            Class::Other(what) => {
                reasons.push(Reason::NotASlice { count: self.instances().len(), total: self.series.instances.len(), what });
                None
            }
        };
        // What patient and study are copied from must be readable as a whole.
        let frames = placed.as_ref().map_or(&self.frames, |p| &p.frames);
        if let Err(first) = frames[0].instance.header() {
            reasons.push(Reason::Header { first });
        }
        let values = match self.class {
            Class::Slice | Class::Picture => self.values(frames, wanted).map_err(|faults| reasons.extend(faults)).ok(),
            Class::Segmentation | Class::Other(_) => None,
        };
        match (placed, values) {
            (Some(placed), Some((values, windows))) if reasons.is_empty() => {
                if self.class == Class::Slice {
                    self.add_notes(&placed, &mut notes);
                }
                notes.extend(values.notes);
                let tabled = values.mappings.iter().any(|m| matches!(m, Mapping::Lut(_)));
                Ok(Stack {
                    grid: placed.grid,
                    kind: placed.kind,
                    space: placed.space,
                    slice_of_frame: placed.slice_of_frame,
                    uneven: placed.uneven,
                    stored_as: StoredAs::for_series(placed.frames.iter().map(|f| &*f.instance)).tabled(tabled),
                    mappings: values.mappings,
                    frames: placed.frames,
                    quantity: values.quantity,
                    windows,
                    notes,
                    warnings: self.series.warnings.clone(),
                    study_uid: self.series.study_uid.clone(),
                    series_uid: self.series.series_uid.clone(),
                    part: (self.of > 1).then_some(self.number),
                })
            }
            _ => Err(Refusal { reasons, series_uid: self.series.series_uid.clone() }),
        }
    }

    fn count(&self, has: impl Fn(&Frame) -> bool) -> usize {
        self.frames.iter().filter(|&f| has(f)).count()
    }

    /// What the images are.
    fn check_images(&self, reasons: &mut Vec<Reason>) {
        let total = self.frames.len();
        let kinds = distinct(&self.frames, |f| (&f.instance.modality, &f.instance.sop_class_uid));
        if kinds > 1 {
            reasons.push(Reason::MixedKinds { kinds });
        }
        let count = self.count(|f| f.instance.sop_instance_uid.is_empty());
        if count > 0 {
            reasons.push(Reason::NoSopInstanceUid { count, total });
        }
        let count = self.count(Frame::is_localizer);
        if count > 0 {
            reasons.push(Reason::Localizer { count, total });
        }
        let count = self.count(|f| f.image_type.iter().any(|v| v == "MOSAIC"));
        if count > 0 {
            reasons.push(Reason::Mosaic { count, total });
        }
        let errors: Vec<_> = self.frames.iter().filter_map(|f| check_decodable(&f.instance).err()).collect();
        if let Some(first) = errors.first() {
            reasons.push(Reason::Pixels { count: errors.len(), total, first: first.clone() });
        }
        let colours = self.count(|f| f.instance.pixels.is_colour());
        if colours > 0 && colours < total {
            reasons.push(Reason::MixedColours { count: colours, total });
        }
    }

    /// What the values of `frames` are, in the quantity that is wanted where they can be brought into it; and the windows of the middle one.
    fn values(&self, frames: &[Frame], wanted: Option<Quantity>) -> Result<(PhysicalValues, Vec<VoiWindow>), Vec<Reason>> {
        let unreadable = |first: DatasetError| vec![Reason::Header { first }];
        // Headers are parsed for this alone, and of those that say the same of their values only one.
        let mut alike: HashMap<Vec<Vec<u8>>, usize> = HashMap::new();
        let mut parsed: Vec<&Frame> = Vec::new();
        let object_of_frame: Vec<Option<usize>> = frames
            .iter()
            .map(|frame| {
                let header = &frame.instance.attributes;
                frame.is_whole_instance().then(|| {
                    let mut parse = || {
                        parsed.push(frame);
                        parsed.len() - 1
                    };
                    match values::deciding(header, &frame.instance.modality) {
                        Some(key) => *alike.entry(key).or_insert_with(parse),
                        None => parse(),
                    }
                })
            })
            .collect();
        let object = |frame: &&Frame| frame.instance.attributes.to_object(&frame.instance.path);
        let objects: Vec<InMemDicomObject> = parsed.par_iter().map(object).collect::<Result<_, _>>().map_err(unreadable)?;
        let contexts: Result<Vec<FrameContext<'_>>, DatasetError> = frames
            .iter()
            .zip(&object_of_frame)
            .map(|(frame, object)| object.map_or_else(|| frame.context(), |n| Ok(FrameContext::of_single(&objects[n]))))
            .collect();
        let contexts = contexts.map_err(unreadable)?;
        // Hounsfield units and activities are of slices: a screenshot from a CT has its modality and not its units.
        let modality = if self.class == Class::Slice { self.first().modality.as_str() } else { "" };
        let values = match wanted {
            Some(wanted) => values::physical_values_as(&contexts, modality, wanted),
            None => values::physical_values(&contexts, modality),
        };
        let mut values = values.map_err(|reasons| reasons.into_iter().map(Reason::Values).collect::<Vec<_>>())?;
        let middle = &contexts[contexts.len() / 2];
        if values::has_voi_lut(middle) {
            values.notes.push("a VOI LUT Sequence says how the image is to be shown; pictures are made by windows alone".into());
        }
        Ok((values, values::windows(middle)))
    }

    /// Where the slices lie.
    fn slices(&self, reasons: &mut Vec<Reason>, notes: &mut Vec<String>) -> Option<Placed> {
        let before = reasons.len();
        let (plane, sorted) = plane_and_order(&self.frames, reasons)?;
        let positions: Vec<[f64; 3]> = sorted.iter().filter_map(|f| f.position_mm).collect();
        let found =
            lattice(&plane, &positions, self.policy == GeometryPolicy::Resample, notes).map_err(|found| reasons.extend(found)).ok()?;
        if reasons.len() > before {
            return None;
        }
        let Found { lps_from_voxel, uneven } = found;
        let slices = uneven.as_ref().map_or(sorted.len(), |uneven| uneven.slices);
        let first = &sorted[0].instance;
        let dims = [first.columns, first.rows, u32::try_from(slices).unwrap_or(u32::MAX)];
        let grid = Grid::new(dims, lps_from_voxel).map_err(|e| reasons.push(e.into())).ok()?;
        let slice_of_frame = match &uneven {
            None => (0..dims[2]).collect(),
            // The grid ends within the last slice, which may lie nearer to one that is no more.
            Some(uneven) => uneven.places.iter().map(|place| (place.round() as u32).min(dims[2] - 1)).collect(),
        };
        let frames = sorted.into_iter().cloned().collect();
        Some(Placed { grid, frames, kind: Kind::Volume, space: Space::Patient, slice_of_frame, uneven: uneven.map(|u| u.places) })
    }

    fn add_notes(&self, placed: &Placed, notes: &mut Vec<String>) {
        let grid = &placed.grid;
        let across = grid.spacing_mm()[2];
        let (total, slices) = (self.frames.len(), grid.dims()[2]);
        match placed.uneven {
            None => notes.insert(0, format!("regular stack of {total} slices, {across:.3} mm apart")),
            Some(_) => notes.insert(0, format!("{total} unevenly spaced slices, interpolated onto {slices} slices {across:.3} mm apart")),
        }
        let thickness_mm = self.frames[0].slice_thickness_mm.filter(|mm| (mm - across).abs() > 0.01);
        if let Some(thickness_mm) = thickness_mm {
            notes.push(format!("Slice Thickness says {thickness_mm:.3} mm; the positions count"));
        }
        let lossy = self.count(|f| f.instance.lossy);
        if lossy > 0 {
            notes.push(format!("{lossy} of {total} slices went through lossy compression"));
        }
        if self.frames.iter().any(|f| f.instance.pixels.bits_stored > 24) {
            notes.push("stored values of more than 24 bits are kept as the nearest 32-bit floats".into());
        }
        if self.first().frame_of_reference_uid.is_empty() {
            notes.push("no Frame of Reference UID: positions are compared within this series only".into());
        }
    }
}

/// Images that were put in their places.
pub(super) struct Placed {
    pub(super) grid: Grid,
    /// In the order of their places.
    pub(super) frames: Vec<Frame>,
    pub(super) kind: Kind,
    pub(super) space: Space,
    pub(super) slice_of_frame: Vec<u32>,
    /// Places of unevenly spaced frames, in slices of the grid.
    pub(super) uneven: Option<Vec<f64>>,
}

fn distinct<'f, T: Eq + std::hash::Hash>(frames: &'f [Frame], of: impl Fn(&'f Frame) -> T) -> usize {
    frames.iter().map(of).collect::<HashSet<_>>().len()
}

/// Frames that may lie in one stack, by what cannot differ within one, each with what sets it apart.
pub(super) fn planes(frames: Vec<Frame>) -> Vec<(String, Vec<Frame>)> {
    let key = |i: &Instance| {
        (i.sop_class_uid.clone(), i.modality.clone(), i.rows, i.columns, i.pixels.is_colour(), i.frame_of_reference_uid.clone())
    };
    let close = |a: &[f64], b: &[f64], by: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by);
    let same_plane = |a: &Frame, b: &Frame| match (a.orientation, b.orientation, a.pixel_spacing_mm, b.pixel_spacing_mm) {
        (Some(ao), Some(bo), Some(a_mm), Some(b_mm)) => {
            close(&ao, &bo, DIRECTION_TOLERANCE) && close(&a_mm, &b_mm, SPACING_TOLERANCE * a_mm[0].abs())
        }
        // What lies nowhere is refused with the others.
        _ => true,
    };
    let mut groups: Vec<Vec<Frame>> = Vec::new();
    for frame in frames {
        let group = groups.iter_mut().find(|g| key(&g[0].instance) == key(&frame.instance) && same_plane(&g[0], &frame));
        match group {
            Some(group) => group.push(frame),
            None => groups.push(vec![frame]),
        }
    }
    let of = groups.len();
    let label = |n: usize| if of > 1 { format!("plane {} of {of}", n + 1) } else { String::new() };
    groups.into_iter().enumerate().map(|(n, frames)| (label(n), frames)).collect()
}

/// Whether frames lie one beside the other at even distances, enough of them to say so.
pub(super) fn is_regular(frames: &[Frame]) -> bool {
    if frames.len() < REGULAR_SLICES {
        return false;
    }
    let Some((plane, sorted)) = plane_and_order(frames, &mut Vec::new()) else { return false };
    let positions: Vec<[f64; 3]> = sorted.iter().filter_map(|f| f.position_mm).collect();
    match lattice(&plane, &positions, false, &mut Vec::new()) {
        Ok(_) => true,
        Err(reasons) => reasons.iter().all(|r| matches!(r, Reason::Sheared { .. })),
    }
}

/// Whether two frames lie at one place along the normal of the first.
pub(super) fn has_shared_positions(frames: &[Frame]) -> bool {
    let Some((plane, sorted)) = plane_and_order(frames, &mut Vec::new()) else { return false };
    let positions: Vec<[f64; 3]> = sorted.iter().filter_map(|f| f.position_mm).collect();
    positions.windows(2).any(|w| dot(sub(w[1], w[0]), plane.normal()) < super::lattice::SAME_POSITION_MM)
}

/// The common plane of all frames, and the frames along its normal; `None` when there is none.
pub(super) fn plane_and_order<'f>(frames: &'f [Frame], reasons: &mut Vec<Reason>) -> Option<(Plane, Vec<&'f Frame>)> {
    let total = frames.len();
    let count = |has: fn(&Frame) -> bool| frames.iter().filter(|f| has(f)).count();
    let missing = [
        ("Image Position (Patient)", count(|f| f.position_mm.is_none())),
        ("Image Orientation (Patient)", count(|f| f.orientation.is_none())),
        ("Pixel Spacing", count(|f| f.pixel_spacing_mm.is_none())),
    ];
    reasons.extend(missing.iter().filter(|m| m.1 > 0).map(|&(attribute, count)| Reason::NoGeometry { attribute, count, total }));
    let references = distinct(frames, |f| &f.instance.frame_of_reference_uid);
    if references > 1 {
        reasons.push(Reason::MixedFramesOfReference { frames: references });
    }
    let sizes = distinct(frames, |f| (f.instance.rows, f.instance.columns));
    let first = &frames[0].instance;
    if sizes > 1 {
        reasons.push(Reason::MixedSizes { sizes, rows: first.rows, columns: first.columns });
    }
    let placed: Vec<_> = frames.iter().filter_map(|f| Some((f, f.position_mm?, f.orientation?, f.pixel_spacing_mm?))).collect();
    let &(_, _, orientation, spacing_mm) = placed.first()?;
    let plane = plane_of(orientation, spacing_mm, &placed.iter().map(|p| (p.2, p.3)).collect::<Vec<_>>(), reasons)?;
    let normal = plane.normal();
    let mut sorted = placed;
    sorted.sort_by(|a, b| {
        let along = dot(a.1, normal).total_cmp(&dot(b.1, normal));
        let order = |f: &Frame| (f.instance.instance_number, f.number);
        along.then_with(|| order(a.0).cmp(&order(b.0))).then_with(|| a.0.instance.sop_instance_uid.cmp(&b.0.instance.sop_instance_uid))
    });
    Some((plane, sorted.into_iter().map(|s| s.0).collect()))
}

/// The plane that all have in common; `None` when there is none, and slices cannot be sorted.
fn plane_of(first: [f64; 6], spacing_mm: [f64; 2], all: &[([f64; 6], [f64; 2])], reasons: &mut Vec<Reason>) -> Option<Plane> {
    let mut different: Vec<[f64; 6]> = Vec::new();
    for (orientation, _) in all {
        if !different.iter().any(|d| d.iter().zip(orientation).all(|(a, b)| (a - b).abs() <= DIRECTION_TOLERANCE)) {
            different.push(*orientation);
        }
    }
    let [row, column] = directions(first);
    let normal = cross(row, column);
    let (row_length, column_length, product) = (norm(row), norm(column), dot(row, column));
    let bad = [row_length - 1.0, column_length - 1.0, product].iter().any(|d| d.abs() > DIRECTION_TOLERANCE);
    if bad {
        reasons.push(Reason::BadOrientation { row_length, column_length, product });
    }
    if different.len() > 1 {
        let angle_deg = different.iter().map(|&o| {
            let [r, c] = directions(o);
            let other = cross(r, c);
            norm(cross(normal, other)).atan2(dot(normal, other)).to_degrees()
        });
        reasons.push(Reason::MixedOrientations { orientations: different.len(), angle_deg: angle_deg.fold(0.0, f64::max) });
    }
    let usable = spacing_mm.iter().all(|&s| s > 0.0);
    if !usable {
        reasons.push(Reason::BadPixelSpacing { spacing_mm });
    }
    let other = |s: &[f64; 2]| s.iter().zip(spacing_mm).any(|(a, b)| (a - b).abs() > SPACING_TOLERANCE * b.abs());
    let count = all.iter().filter(|(_, s)| other(s)).count();
    if count > 0 {
        reasons.push(Reason::MixedPixelSpacing { count, total: all.len() });
    }
    (!bad && different.len() == 1 && usable).then(|| Plane {
        row_direction: row.map(|v| v / row_length),
        column_direction: column.map(|v| v / column_length),
        spacing_mm,
    })
}

fn directions(orientation: [f64; 6]) -> [[f64; 3]; 2] {
    let [a, b, c, d, e, f] = orientation;
    [[a, b, c], [d, e, f]]
}
