//! Sequences and the codes in them.

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::{Attributes, tags};
use crate::codes::Code;

/// The items of a sequence; none where there is no such sequence.
pub fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object.get(tag).and_then(|e| e.value().items()).unwrap_or_default()
}

/// The codes in a code sequence (PS3.3 8.8); what has no value is no code.
pub fn codes(object: &InMemDicomObject, tag: Tag) -> Vec<Code> {
    let code = |item: &InMemDicomObject| {
        let values = [tags::CODE_VALUE, tags::LONG_CODE_VALUE, tags::URN_CODE_VALUE].map(|tag| item.text(tag));
        let value = values.into_iter().find(|value| !value.is_empty())?;
        let text = |tag| item.text(tag).into();
        Some(Code { value: value.into(), scheme: text(tags::CODING_SCHEME_DESIGNATOR), meaning: text(tags::CODE_MEANING) })
    };
    items(object, tag).iter().filter_map(code).collect()
}
