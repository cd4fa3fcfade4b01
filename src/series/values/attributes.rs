//! Attributes of a frame, looked up in its functional groups and its data set.

use dicom::core::{PrimitiveValue, Tag};
use dicom::object::InMemDicomObject;

use crate::dataset::{FrameContext, items, tags};

impl<'a> FrameContext<'a> {
    /// A single-frame instance's.
    pub(crate) fn of_single(root: &'a InMemDicomObject) -> Self {
        Self { per_frame: None, shared: None, root }
    }

    /// The first item of functional group `group`, the frame's own before the shared one, then the data set itself.
    pub(super) fn within(&self, group: Tag) -> impl Iterator<Item = &'a InMemDicomObject> {
        let groups = [self.per_frame, self.shared].into_iter().flatten();
        groups.filter_map(move |g| items(g, group).first()).chain([self.root])
    }

    /// The items of sequence `tag`, from the first place that has any.
    pub(super) fn items(&self, tag: Tag) -> &'a [InMemDicomObject] {
        let places = [self.per_frame, self.shared, Some(self.root)].into_iter().flatten();
        places.map(|place| items(place, tag)).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Pixel Representation (0028,0103): whether stored values, and the attributes in their terms, are signed.
    pub(super) fn signed(&self) -> bool {
        integer(self.root, tags::PIXEL_REPRESENTATION).is_ok_and(|v| v == Some(1))
    }
}

/// A value that is there and cannot be read as what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The values as text, padding taken off; none where the attribute is absent or empty. Bytes (VR UN) count as text.
pub(super) fn texts(object: &InMemDicomObject, tag: Tag) -> Vec<String> {
    object.get(tag).and_then(|e| e.value().primitive()).map(texts_of).unwrap_or_default()
}

fn texts_of(value: &PrimitiveValue) -> Vec<String> {
    let trimmed = |text: &str| text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
    let found: Vec<String> = match value {
        PrimitiveValue::Empty => Vec::new(),
        PrimitiveValue::U8(bytes) => String::from_utf8_lossy(bytes).split('\\').map(trimmed).collect(),
        other => other.to_multi_str().iter().map(|v| trimmed(v)).collect(),
    };
    if found.iter().all(String::is_empty) { Vec::new() } else { found }
}

/// The first value as text; empty when there is none.
pub(super) fn text(object: &InMemDicomObject, tag: Tag) -> String {
    texts(object, tag).into_iter().next().unwrap_or_default()
}

/// One finite number; `None` where the attribute is absent or empty.
pub(super) fn number(object: &InMemDicomObject, tag: Tag) -> Result<Option<f64>, Unreadable> {
    one_number(&texts(object, tag))
}

/// As [`number`], of a private element that `creator` owns.
pub(super) fn private_number(object: &InMemDicomObject, group: u16, creator: &str, element: u8) -> Result<Option<f64>, Unreadable> {
    one_number(&private_texts(object, group, creator, element))
}

/// As [`texts`], of a private element that `creator` owns.
pub(super) fn private_texts(object: &InMemDicomObject, group: u16, creator: &str, element: u8) -> Vec<String> {
    let found = object.private_element(group, creator, element).ok();
    found.and_then(|e| e.value().primitive()).map(texts_of).unwrap_or_default()
}

fn one_number(values: &[String]) -> Result<Option<f64>, Unreadable> {
    match values {
        [] => Ok(None),
        [text] => text.parse().ok().filter(|n: &f64| n.is_finite()).map(Some).ok_or(Unreadable),
        _ => Err(Unreadable),
    }
}

/// One whole number of at most 32 bits; `None` where the attribute is absent or empty.
pub(super) fn integer(object: &InMemDicomObject, tag: Tag) -> Result<Option<i64>, Unreadable> {
    let whole = |n: f64| n.fract() == 0.0 && n.abs() <= f64::from(u32::MAX);
    number(object, tag)?.map(|n| if whole(n) { Ok(n as i64) } else { Err(Unreadable) }).transpose()
}

/// A value of VR `US or SS` in the terms of the pixels: writers and readers confuse the two, the bits are the same.
pub(super) fn as_stored(value: i64, signed: bool) -> i64 {
    match value {
        32_768..=65_535 if signed => value - 65_536,
        -32_768..=-1 if !signed => value + 65_536,
        _ => value,
    }
}
