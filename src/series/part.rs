//! What a series is made of: stacks of slices, single images, cines, localizers.
//!
//! One Series Instance UID often covers more than one volume: phases, echoes, b-values, reconstructions, a scout. Localizers and
//! images that are no slices are always set apart. Slices are set apart by what makes them different only where the package's policy
//! says so; otherwise they are judged together, and refused together where they do not fit.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use dicom::core::Tag;

use super::gate::{self, GeometryPolicy};
use super::{Reason, Series};
use crate::dataset::{Attributes, Frame, Instance, tags};

/// What kind of image a SOP class holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Slices of a body that lie somewhere in the patient.
    Slice,
    /// One projection or photograph, or several over time.
    Picture,
    /// Segmentation.
    Segmentation,
    /// No image that is read, and what it is.
    Other(&'static str),
}

impl Class {
    pub(super) fn of(instance: &Instance) -> Self {
        let Some(class) = instance.sop_class_uid.strip_prefix("1.2.840.10008.5.1.4.1.1.") else {
            return Self::Other("of another SOP class");
        };
        match class {
            // CT; MR; PET; X-ray 3D angiographic, craniofacial, breast tomosynthesis; ophthalmic tomography; parametric maps.
            "2" | "2.1" | "2.2" | "4" | "4.1" | "4.3" | "4.4" | "128" | "128.1" | "130" | "13.1.1" | "13.1.2" | "13.1.3" | "77.1.5.4"
            | "30" => Self::Slice,
            // CR, DX, MG, intra-oral; XA, XRF; ultrasound; secondary capture; photographs.
            "1" | "1.1" | "1.1.1" | "1.2" | "1.2.1" | "1.3" | "1.3.1" | "12.1" | "12.1.1" | "12.2" | "12.2.1" | "3" | "3.1" | "6"
            | "6.1" | "7" => Self::Picture,
            "66.4" | "66.7" => Self::Segmentation,
            "20" => Self::Other("nuclear medicine images"),
            "6.2" => Self::Other("ultrasound volumes"),
            "66.1" | "66.2" | "66.3" | "66.5" | "66.6" => Self::Other("registrations, fiducials or surfaces"),
            "77.1.6" => Self::Other("whole-slide microscopy images"),
            _ if class.starts_with("7.") || class.starts_with("77.1.") => Self::Picture,
            _ if class.starts_with("88.") => Self::Other("structured reports or key objects"),
            _ if class.starts_with("11.") => Self::Other("presentation states"),
            _ if class.starts_with("481.") => Self::Other("radiotherapy objects"),
            _ if class.starts_with("104.") => Self::Other("encapsulated documents"),
            _ if class.starts_with("9.") => Self::Other("waveforms"),
            _ => Self::Other("of another SOP class"),
        }
    }
}

/// Images of a series that are judged, loaded and analysed together.
#[derive(Debug, Clone)]
pub struct Part<'s> {
    /// The series.
    pub series: &'s Series,
    /// Which part of the series it is, from 1.
    pub number: usize,
    /// How many parts the series has.
    pub of: usize,
    /// What sets it apart from the other parts: "echo time 4.6". Numbers and code strings only.
    pub label: String,
    /// Its images, in no particular order.
    pub frames: Vec<Frame>,
    /// The policy that it was set apart by, and is judged by.
    pub policy: GeometryPolicy,
    pub(super) class: Class,
    pub(super) defects: Vec<Reason>,
}

impl Part<'_> {
    /// The instance that attributes of all of it are taken from: that of the first image.
    pub fn first(&self) -> &Instance {
        &self.frames[0].instance
    }

    /// The instances that it has images of, each once.
    pub fn instances(&self) -> Vec<&Arc<Instance>> {
        let mut seen = HashSet::new();
        self.frames.iter().map(|f| &f.instance).filter(|i| seen.insert(Arc::as_ptr(i))).collect()
    }
}

/// The parts of `series`; at least one.
pub(super) fn parts_of(series: &Series, policy: GeometryPolicy) -> Vec<Part<'_>> {
    let mut defects = series.defects.clone();
    let mut slices = Vec::new();
    let mut localizers = Vec::new();
    let mut others: BTreeMap<Class, Vec<Frame>> = BTreeMap::new();
    let mut pictures = Vec::new();
    let mut segmentations: BTreeMap<String, Vec<Frame>> = BTreeMap::new();
    let mut unreadable = Vec::new();
    for instance in &series.instances {
        let class = Class::of(instance);
        let frames = match Frame::all_of(instance) {
            Ok(frames) => frames,
            // Where the frames of an object are no images, their number does not matter.
            Err(error) => {
                unreadable.push(error);
                vec![Frame::unreadable(instance)]
            }
        };
        match class {
            Class::Slice if frames.iter().all(Frame::is_localizer) => localizers.extend(frames),
            Class::Slice => slices.extend(frames),
            Class::Picture => pictures.push(frames),
            Class::Segmentation => segmentations.entry(object_of(instance)).or_default().extend(frames),
            Class::Other(_) => others.entry(class).or_default().extend(frames),
        }
    }
    if let Some(first) = unreadable.first() {
        defects.push(Reason::Frames { count: unreadable.len(), total: series.instances.len(), first: first.clone() });
    }
    defects.extend(concatenation_defect(series));
    let mut parts: Vec<(String, Vec<Frame>, Class)> = Vec::new();
    if !slices.is_empty() {
        let split = if policy.splits() { split(slices) } else { vec![(String::new(), slices)] };
        parts.extend(split.into_iter().map(|(label, frames)| (label, frames, Class::Slice)));
    }
    parts.extend(pictures.into_iter().map(|frames| (String::new(), frames, Class::Picture)));
    parts.extend(segmentations.into_values().map(|frames| (String::new(), frames, Class::Segmentation)));
    if !localizers.is_empty() {
        parts.push(("localizers".into(), localizers, Class::Slice));
    }
    parts.extend(others.into_iter().map(|(class, frames)| (String::new(), frames, class)));
    let of = parts.len();
    let part = |(n, (label, frames, class))| Part { series, number: n + 1, of, label, frames, policy, class, defects: defects.clone() };
    parts.into_iter().enumerate().map(part).collect()
}

/// Which object an instance is, or is a part of: segmentations of one series are told apart by it.
fn object_of(instance: &Instance) -> String {
    let concatenation = instance.attributes.text(tags::CONCATENATION_UID);
    if concatenation.is_empty() { instance.sop_instance_uid.clone() } else { concatenation }
}

/// Parts of a concatenation (PS3.3 C.7.6.16.2.2.4) that are missing, where the object says how many there are.
fn concatenation_defect(series: &Series) -> Option<Reason> {
    let mut concatenations: BTreeMap<String, (usize, u32)> = BTreeMap::new();
    for instance in series.instances.iter().filter(|i| i.attributes.has(tags::CONCATENATION_UID)) {
        let entry = concatenations.entry(instance.attributes.text(tags::CONCATENATION_UID)).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(instance.attributes.count(tags::IN_CONCATENATION_TOTAL_NUMBER));
    }
    let (found, expected) = concatenations.into_values().find(|&(found, expected)| found < expected as usize)?;
    Some(Reason::Concatenation { found, expected: expected as usize })
}

/// An attribute by which images at one place differ.
struct Trait {
    name: &'static str,
    tags: &'static [Tag],
    /// Whether its values are numbers that a person may read in a label, rather than times and free text.
    shown: bool,
}

const fn number(name: &'static str, tags: &'static [Tag]) -> Trait {
    Trait { name, tags, shown: true }
}

const fn hidden(name: &'static str, tags: &'static [Tag]) -> Trait {
    Trait { name, tags, shown: false }
}

/// In the order in which they are tried: what is certainly another image before what may be the same one.
const TRAITS: &[Trait] = &[
    hidden("stack", &[tags::STACK_ID]),
    number("echo time", &[tags::EFFECTIVE_ECHO_TIME, tags::ECHO_TIME]),
    number("echo number", &[tags::ECHO_NUMBERS]),
    number("inversion time", &[tags::INVERSION_TIME, tags::INVERSION_TIMES]),
    number("flip angle", &[tags::FLIP_ANGLE]),
    // Siemens and Philips kept b-values in private elements before the standard had one.
    number("b-value", &[tags::DIFFUSION_B_VALUE, Tag(0x0019, 0x100C), Tag(0x2001, 0x1003)]),
    hidden("gradient direction", &[tags::DIFFUSION_GRADIENT_ORIENTATION]),
    number("temporal position", &[tags::TEMPORAL_POSITION_INDEX, tags::TEMPORAL_POSITION_IDENTIFIER]),
    number("cardiac phase", &[tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE, tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME, tags::TRIGGER_TIME]),
    number("frame reference time", &[tags::FRAME_REFERENCE_TIME]),
    hidden("image type", &[]),
    hidden("complex component", &[tags::COMPLEX_IMAGE_COMPONENT]),
    hidden("convolution kernel", &[tags::CONVOLUTION_KERNEL]),
    number("energy", &[tags::KVP]),
    number("acquisition", &[tags::FRAME_ACQUISITION_NUMBER, tags::ACQUISITION_NUMBER]),
    hidden("contrast phase", &[tags::CONTRAST_BOLUS_AGENT_PHASE]),
    hidden("acquisition time", &[tags::FRAME_ACQUISITION_DATE_TIME, tags::ACQUISITION_TIME]),
];

impl Trait {
    fn value(&self, frame: &Frame) -> String {
        if self.tags.is_empty() {
            return frame.image_type.join("\\");
        }
        self.tags.iter().map(|&tag| frame.texts(tag).join("\\")).find(|value| !value.is_empty()).unwrap_or_default()
    }

    /// Frames by value, each with its label, in the order of numbers and then of texts.
    fn groups(&self, frames: &[Frame]) -> Vec<(String, Vec<Frame>)> {
        let mut groups: BTreeMap<String, Vec<Frame>> = BTreeMap::new();
        for frame in frames {
            groups.entry(self.value(frame)).or_default().push(frame.clone());
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        let key = |value: &str| value.parse::<f64>().unwrap_or(f64::INFINITY);
        groups.sort_by(|a, b| key(&a.0).total_cmp(&key(&b.0)));
        let of = groups.len();
        let label = |(n, (value, frames)): (usize, (String, Vec<Frame>))| {
            let numeric = self.shown && value.parse::<f64>().is_ok();
            (if numeric { format!("{} {value}", self.name) } else { format!("{} {} of {of}", self.name, n + 1) }, frames)
        };
        groups.into_iter().enumerate().map(label).collect()
    }
}

/// Slices by what sets them apart: first what cannot be one grid, then, where several lie at one place, the first attribute that
/// explains it. Places that are merely uneven or apart are no reason to split: half a head is worse than a refusal.
fn split(frames: Vec<Frame>) -> Vec<(String, Vec<Frame>)> {
    gate::planes(frames).into_iter().flat_map(|(label, frames)| split_places(label, frames, 0)).collect()
}

fn split_places(label: String, frames: Vec<Frame>, from: usize) -> Vec<(String, Vec<Frame>)> {
    if !gate::has_shared_positions(&frames) {
        return vec![(label, frames)];
    }
    // Groups of one slice explain nothing: what lies at one place over time is no volume.
    let several = |groups: &[(String, Vec<Frame>)]| groups.len() > 1 && groups.iter().all(|(_, f)| f.len() > 1);
    let apart = |groups: &[(String, Vec<Frame>)]| several(groups) && groups.iter().all(|(_, f)| !gate::has_shared_positions(f));
    let regular = |groups: &[(String, Vec<Frame>)]| several(groups) && groups.iter().all(|(_, f)| gate::is_regular(f));
    let candidates: Vec<_> = TRAITS[from..].iter().map(|t| t.groups(&frames)).collect();
    let joined = |more: &str| if label.is_empty() { more.to_owned() } else { format!("{label}, {more}") };
    let one = candidates.iter().find(|groups| regular(groups)).or_else(|| candidates.iter().find(|groups| apart(groups)));
    if let Some(groups) = one {
        return groups.iter().map(|(more, frames)| (joined(more), frames.clone())).collect();
    }
    // No attribute alone does it: take the first that differs, and go on within its groups.
    match candidates.iter().position(|groups| several(groups)) {
        Some(n) => candidates[n].iter().flat_map(|(more, frames)| split_places(joined(more), frames.clone(), from + n + 1)).collect(),
        None => vec![(label, frames)],
    }
}
