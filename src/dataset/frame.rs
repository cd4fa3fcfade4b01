//! One image plane: a frame of a multi-frame instance, or the one image of any other instance.
//!
//! Attributes of a multi-frame instance are looked up in its per-frame functional groups, then in the shared ones, then in the data
//! set (PS3.3 C.7.6.16); legacy converted objects keep what has no functional group in their "unassigned" sequences, which are looked
//! through in the same way.

use std::sync::Arc;

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::{Attributes, DatasetError, Instance, tags};

/// More frames than any object has (whole-slide images aside, which are no volumes).
const MAX_FRAMES: u32 = 1 << 20;

/// One image plane of a series.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The instance that holds it.
    pub instance: Arc<Instance>,
    /// Its number in the instance, from 1.
    pub number: u32,
    /// Image Position (Patient) (0020,0032), mm.
    pub position_mm: Option<[f64; 3]>,
    /// Image Orientation (Patient) (0020,0037): direction of increasing column, then of increasing row.
    pub orientation: Option<[f64; 6]>,
    /// Pixel Spacing (0028,0030): between rows, between columns, mm.
    pub pixel_spacing_mm: Option<[f64; 2]>,
    /// Slice Thickness (0018,0050), mm.
    pub slice_thickness_mm: Option<f64>,
    /// Image Type (0008,0008) or Frame Type (0008,9007).
    pub image_type: Vec<String>,
}

/// Where a frame's attributes are looked up, in this order.
#[derive(Debug, Clone, Copy)]
pub struct FrameContext<'a> {
    /// Its item of the Per-Frame Functional Groups Sequence (5200,9230).
    pub per_frame: Option<&'a InMemDicomObject>,
    /// The item of the Shared Functional Groups Sequence (5200,9229).
    pub shared: Option<&'a InMemDicomObject>,
    /// The data set itself.
    pub root: &'a InMemDicomObject,
}

impl<'a> FrameContext<'a> {
    /// The data set that has attribute `tag`: an item of a functional group, or the data set itself.
    pub fn holder(&self, tag: Tag) -> Option<&'a InMemDicomObject> {
        let groups = [self.per_frame, self.shared].into_iter().flatten();
        groups.filter_map(|group| in_groups(group, tag)).next().or_else(|| self.root.get(tag).map(|_| self.root))
    }

    /// The values of attribute `tag` as text.
    pub fn texts(&self, tag: Tag) -> Vec<String> {
        self.holder(tag).map(|holder| holder.texts(tag)).unwrap_or_default()
    }
}

/// The functional group macro (the first item of a sequence of `groups`) that has attribute `tag`, or `groups` itself.
fn in_groups(groups: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    if groups.get(tag).is_some() {
        return Some(groups);
    }
    groups.iter().filter_map(|element| element.value().items()?.first()).find(|item| item.get(tag).is_some())
}

impl Frame {
    /// The frames of an instance, in its order.
    ///
    /// # Errors
    /// A Number of Frames that the file cannot hold, functional groups for another number of frames, or a header that cannot be parsed.
    pub fn all_of(instance: &Arc<Instance>) -> Result<Vec<Self>, DatasetError> {
        let grouped = instance.attributes.has(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
            || instance.attributes.has(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        if instance.frames == 1 && !grouped {
            return Ok(vec![Self {
                number: 1,
                position_mm: instance.position_mm,
                orientation: instance.orientation,
                pixel_spacing_mm: instance.pixel_spacing_mm,
                slice_thickness_mm: instance.slice_thickness_mm,
                image_type: instance.image_type.clone(),
                instance: Arc::clone(instance),
            }]);
        }
        // A frame is no smaller than a bit in a file, or an item of encapsulated pixel data.
        let frames = instance.frames;
        if frames == 0 || frames > MAX_FRAMES || u64::from(frames) > instance.place.file_bytes.saturating_mul(8) {
            return Err(DatasetError::FrameCount { frames, groups: 0, path: instance.path.clone() });
        }
        let groups = if grouped { per_frame_items(instance.header()?) } else { 0 };
        if groups != 0 && groups != frames as usize {
            return Err(DatasetError::FrameCount { frames, groups, path: instance.path.clone() });
        }
        (1..=frames).map(|number| Self::of(instance, number)).collect()
    }

    /// The first image of an instance whose frames cannot be told: nothing is known of where it lies.
    pub fn unreadable(instance: &Arc<Instance>) -> Self {
        Self {
            number: 1,
            position_mm: None,
            orientation: None,
            pixel_spacing_mm: None,
            slice_thickness_mm: None,
            image_type: instance.image_type.clone(),
            instance: Arc::clone(instance),
        }
    }

    fn of(instance: &Arc<Instance>, number: u32) -> Result<Self, DatasetError> {
        let context = context(instance, number)?;
        let numbers = |tag| context.holder(tag).and_then(|holder| holder.all_numbers(tag));
        let frame_type = context.texts(tags::FRAME_TYPE);
        Ok(Self {
            number,
            position_mm: numbers(tags::IMAGE_POSITION_PATIENT).and_then(|v| v.try_into().ok()),
            orientation: numbers(tags::IMAGE_ORIENTATION_PATIENT).and_then(|v| v.try_into().ok()),
            pixel_spacing_mm: numbers(tags::PIXEL_SPACING).and_then(|v| v.try_into().ok()),
            slice_thickness_mm: numbers(tags::SLICE_THICKNESS).filter(|v| v.len() == 1).map(|v| v[0]),
            image_type: if frame_type.is_empty() { instance.image_type.clone() } else { frame_type },
            instance: Arc::clone(instance),
        })
    }

    /// Where its attributes are looked up.
    ///
    /// # Errors
    /// A header that cannot be parsed.
    pub fn context(&self) -> Result<FrameContext<'_>, DatasetError> {
        context(&self.instance, self.number)
    }

    /// The values of an attribute as text, wherever the object keeps it; empty when there is none.
    pub fn texts(&self, tag: Tag) -> Vec<String> {
        if self.is_whole_instance() {
            return self.instance.attributes.texts(tag);
        }
        self.context().map(|context| context.texts(tag)).unwrap_or_default()
    }

    /// Whether it is the only image of an instance without functional groups.
    pub fn is_whole_instance(&self) -> bool {
        self.instance.frames == 1 && !self.instance.attributes.has(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
    }

    /// Whether this is a localizer, scout or surview: a plan of the examination, not a slice of a volume (PS3.3 C.8.2.1.1.1).
    pub fn is_localizer(&self) -> bool {
        self.image_type.iter().skip(2).any(|v| v == "LOCALIZER")
    }
}

fn context(instance: &Instance, number: u32) -> Result<FrameContext<'_>, DatasetError> {
    let root = instance.header()?;
    let items = |tag| root.get(tag).and_then(|e| e.value().items());
    Ok(FrameContext {
        per_frame: items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|items| items.get(number as usize - 1)),
        shared: items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|items| items.first()),
        root,
    })
}

fn per_frame_items(root: &InMemDicomObject) -> usize {
    root.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|e| e.value().items()).map_or(0, <[_]>::len)
}
