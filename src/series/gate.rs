//! Whether a series is a regular stack of slices.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::lattice::{Plane, lattice};
use super::{Reason, Refusal, Series, Stack};
use crate::dataset::{Instance, StoredAs, check_decodable};
use crate::geometry::{Grid, cross, dot, norm};
use crate::volume::{Quantity, Rescale};

/// Largest difference between direction cosines that are the same, and of their lengths and scalar product from 1, 1 and 0. Six
/// decimals are written at least, four by the coarsest writers; at 300 mm from the corner this moves a voxel by 0.03 mm.
const DIRECTION_TOLERANCE: f64 = 1e-4;
/// Largest relative difference between pixel spacings that are the same.
const SPACING_TOLERANCE: f64 = 1e-4;

/// What to do with a series whose slices are not a regular, straight stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GeometryPolicy {
    /// Refuse it.
    #[default]
    Refuse,
}

impl Series {
    /// The series as a stack, sorted along the normal of its slices (row direction cross column direction).
    ///
    /// Only Image Position, Image Orientation and Pixel Spacing count (PS3.3 C.7.6.2); thickness, tilt, locations, instance numbers
    /// and file names do not.
    ///
    /// # Errors
    /// Every reason against it, not only the first.
    pub fn gate(&self, policy: GeometryPolicy) -> Result<Stack, Refusal> {
        let GeometryPolicy::Refuse = policy;
        let mut reasons = self.defects.clone();
        let mut notes = Vec::new();
        let slices = self.check_kind(&mut reasons);
        if slices {
            self.check_values(&mut reasons);
        }
        let geometry = if slices { self.check_geometry(&mut reasons, &mut notes) } else { None };
        match (geometry, StoredAs::for_series(&self.instances)) {
            (Some((grid, instances)), Some(stored_as)) if reasons.is_empty() => {
                self.add_notes(grid.spacing_mm()[2], &mut notes);
                let (series_uid, study_uid) = (self.series_uid.clone(), self.study_uid.clone());
                Ok(Stack {
                    grid,
                    instances,
                    quantity: self.quantity(),
                    stored_as,
                    notes,
                    warnings: self.warnings.clone(),
                    study_uid,
                    series_uid,
                })
            }
            _ => Err(Refusal { reasons, series_uid: self.series_uid.clone() }),
        }
    }

    fn count(&self, has: impl Fn(&Instance) -> bool) -> usize {
        self.instances.iter().filter(|&i| has(i)).count()
    }

    fn distinct<'s, T: Eq + std::hash::Hash>(&'s self, of: impl Fn(&'s Instance) -> T) -> usize {
        self.instances.iter().map(of).collect::<HashSet<_>>().len()
    }

    /// What the instances are. `false` when none is a single slice with pixels, so that nothing else needs to be said.
    fn check_kind(&self, reasons: &mut Vec<Reason>) -> bool {
        let total = self.instances.len();
        let others: Vec<_> = self.instances.iter().filter_map(|i| not_a_slice(&i.sop_class_uid)).collect();
        if let Some(what) = others.first() {
            reasons.push(Reason::NotASlice { count: others.len(), total, what });
        }
        let kinds = self.distinct(|i| (&i.modality, &i.sop_class_uid));
        if kinds > 1 {
            reasons.push(Reason::MixedKinds { kinds });
        }
        let multi: Vec<_> = self.instances.iter().filter(|i| i.frames != 1).collect();
        if let Some(first) = multi.first() {
            reasons.push(Reason::MultiFrame { count: multi.len(), total, frames: first.frames });
        }
        let count = self.count(|i| i.sop_instance_uid.is_empty());
        if count > 0 {
            reasons.push(Reason::NoSopInstanceUid { count, total });
        }
        let count = self.count(Instance::is_localizer);
        if count > 0 {
            reasons.push(Reason::Localizer { count, total });
        }
        others.len() < total && multi.len() < total
    }

    /// What the stored values are.
    fn check_values(&self, reasons: &mut Vec<Reason>) {
        let total = self.instances.len();
        let slice = |i: &&Instance| not_a_slice(&i.sop_class_uid).is_none() && i.frames == 1;
        let errors: Vec<_> = self.instances.iter().filter(slice).filter_map(|i| check_decodable(i).err()).collect();
        if let Some(first) = errors.first() {
            reasons.push(Reason::Pixels { count: errors.len(), total, first: first.clone() });
        }
        if StoredAs::for_series(&self.instances).is_none() {
            reasons.push(Reason::MixedSigns);
        }
        let count = self.count(|i| i.modality == "CT" && i.rescale.is_none());
        if count > 0 {
            reasons.push(Reason::NoRescale { count, total });
        }
        let count = self.count(|i| i.rescale.is_some_and(|r: Rescale| r.slope == 0.0));
        if count > 0 {
            reasons.push(Reason::ZeroSlope { count });
        }
        let count = self.count(|i| i.has_modality_lut);
        if count > 0 {
            reasons.push(Reason::ModalityLut { count });
        }
    }

    /// Where the slices lie.
    fn check_geometry(&self, reasons: &mut Vec<Reason>, notes: &mut Vec<String>) -> Option<(Grid, Vec<Instance>)> {
        let total = self.instances.len();
        let missing = [
            ("Image Position (Patient)", self.count(|i| i.position_mm.is_none())),
            ("Image Orientation (Patient)", self.count(|i| i.orientation.is_none())),
            ("Pixel Spacing", self.count(|i| i.pixel_spacing_mm.is_none())),
        ];
        let before = reasons.len();
        reasons.extend(missing.iter().filter(|m| m.1 > 0).map(|&(attribute, count)| Reason::NoGeometry { attribute, count, total }));
        let frames = self.distinct(|i| &i.frame_of_reference_uid);
        if frames > 1 {
            reasons.push(Reason::MixedFramesOfReference { frames });
        }
        let sizes = self.distinct(|i| (i.rows, i.columns));
        let first = &self.instances[0];
        if sizes > 1 {
            reasons.push(Reason::MixedSizes { sizes, rows: first.rows, columns: first.columns });
        }
        let placed: Vec<_> = self.instances.iter().filter_map(|i| Some((i, i.position_mm?, i.orientation?, i.pixel_spacing_mm?))).collect();
        let &(_, _, orientation, spacing_mm) = placed.first()?;
        let plane = self.plane(orientation, spacing_mm, &placed.iter().map(|p| (p.2, p.3)).collect::<Vec<_>>(), reasons)?;
        let normal = plane.normal();
        let mut sorted = placed;
        sorted.sort_by(|a, b| {
            let along = dot(a.1, normal).total_cmp(&dot(b.1, normal));
            along.then_with(|| (a.0.instance_number, &a.0.sop_instance_uid).cmp(&(b.0.instance_number, &b.0.sop_instance_uid)))
        });
        let positions: Vec<[f64; 3]> = sorted.iter().map(|s| s.1).collect();
        let lps_from_voxel = lattice(&plane, &positions, notes).map_err(|found| reasons.extend(found)).ok()?;
        if reasons.len() > before {
            return None;
        }
        let dims = [first.columns, first.rows, u32::try_from(total).unwrap_or(u32::MAX)];
        let grid = Grid::new(dims, lps_from_voxel).map_err(|e| reasons.push(e.into())).ok()?;
        Some((grid, sorted.into_iter().map(|s| s.0.clone()).collect()))
    }

    /// The common plane of all slices; `None` when there is none, and slices cannot be sorted.
    fn plane(&self, first: [f64; 6], spacing_mm: [f64; 2], all: &[([f64; 6], [f64; 2])], reasons: &mut Vec<Reason>) -> Option<Plane> {
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

    /// Hounsfield units need CT whose Rescale Type, where it is given, says so (PS3.3 C.11.1.1.2).
    fn quantity(&self) -> Quantity {
        let hounsfield = |i: &Instance| i.modality == "CT" && matches!(i.rescale_type.as_str(), "" | "HU");
        if self.instances.iter().all(hounsfield) { Quantity::Hounsfield } else { Quantity::Arbitrary }
    }

    fn add_notes(&self, spacing_mm: f64, notes: &mut Vec<String>) {
        notes.insert(0, format!("regular stack of {} slices, {spacing_mm:.3} mm apart", self.instances.len()));
        let thickness_mm = self.instances[0].slice_thickness_mm.filter(|mm| (mm - spacing_mm).abs() > 0.01);
        if let Some(thickness_mm) = thickness_mm {
            notes.push(format!("Slice Thickness says {thickness_mm:.3} mm; the positions count"));
        }
        if self.modality == "CT" && self.quantity() == Quantity::Arbitrary {
            notes.push("Rescale Type is not HU: values are not taken as Hounsfield units".into());
        }
        let total = self.instances.len();
        let lossy = self.count(|i| i.lossy);
        if lossy > 0 {
            notes.push(format!("{lossy} of {total} slices went through lossy compression"));
        }
        if self.instances[0].frame_of_reference_uid.is_empty() {
            notes.push("no Frame of Reference UID: positions are compared within this series only".into());
        }
    }
}

fn directions(orientation: [f64; 6]) -> [[f64; 3]; 2] {
    let [a, b, c, d, e, f] = orientation;
    [[a, b, c], [d, e, f]]
}

/// What an instance is that is no CT, MR or PET image; `None` for those.
fn not_a_slice(sop_class_uid: &str) -> Option<&'static str> {
    match sop_class_uid.strip_prefix("1.2.840.10008.5.1.4.1.1.") {
        // CT, enhanced and legacy converted CT; MR; PET.
        Some("2" | "2.1" | "2.2" | "4" | "4.1" | "4.4" | "128" | "128.1" | "130") => None,
        Some(class) if class == "7" || class.starts_with("7.") => Some("Secondary Capture"),
        Some("1" | "1.1" | "1.1.1" | "1.2" | "1.2.1" | "1.3" | "1.3.1") => Some("radiographs"),
        Some("3.1" | "6.1" | "6.2") => Some("ultrasound"),
        Some("66.4" | "66.7") => Some("segmentations"),
        Some(class) if class.starts_with("88.") => Some("structured reports or key objects"),
        Some(class) if class.starts_with("11.") => Some("presentation states"),
        Some(class) if class.starts_with("481.") => Some("radiotherapy objects"),
        _ => Some("of another SOP class"),
    }
}
