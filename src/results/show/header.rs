//! What any object says of itself, and pictures and documents.

use dicom::object::InMemDicomObject;

use super::names::{class_name, short_uid};
use super::{Page, View, clean};
use crate::codes::is_uid;
use crate::dataset::{Attributes, CharacterSet, Instance, items, tags};

pub(super) fn facts(instance: &Instance, header: &InMemDicomObject, view: &View<'_>, page: &mut Page) {
    let charset = CharacterSet::of(header);
    let decoded = |tag| charset.texts(header, tag).join(", ");
    let uid = |uid: &str| if is_uid(uid) { uid.to_owned() } else { String::new() };
    let patient = [tags::PATIENT_NAME, tags::PATIENT_ID, tags::PATIENT_BIRTH_DATE, tags::PATIENT_SEX].map(decoded);
    page.fact("patient", view.private(&patient.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")));
    if view.patient {
        for (name, tag) in [
            ("study date", tags::STUDY_DATE),
            ("accession number", tags::ACCESSION_NUMBER),
            ("study description", tags::STUDY_DESCRIPTION),
            ("series description", tags::SERIES_DESCRIPTION),
            ("content date", tags::CONTENT_DATE),
            ("content time", tags::CONTENT_TIME),
        ] {
            page.fact(name, decoded(tag));
        }
    }
    page.fact("modality", &instance.modality);
    page.fact("SOP instance", uid(&instance.sop_instance_uid));
    page.fact("series", uid(&instance.series_uid));
    page.fact("series number", instance.series_number.map_or_else(String::new, |n| n.to_string()));
    page.fact("study", uid(&instance.study_uid));
    let status =
        [tags::COMPLETION_FLAG, tags::VERIFICATION_FLAG, tags::PRELIMINARY_FLAG, tags::APPROVAL_STATUS].map(|tag| header.text(tag));
    page.fact("status", status.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", "));
    page.fact("made by", equipment(header));
    for item in items(header, tags::CONTRIBUTING_EQUIPMENT_SEQUENCE).iter().take(8) {
        page.fact("with", equipment(item));
    }
    let series: Vec<String> =
        items(header, tags::REFERENCED_SERIES_SEQUENCE).iter().take(8).map(|s| short_uid(&s.text(tags::SERIES_INSTANCE_UID))).collect();
    page.fact("of series", series.join(", "));
}

/// Model and versions of what made it, and who made that.
fn equipment(object: &InMemDicomObject) -> String {
    let charset = CharacterSet::of(object);
    let parts = [tags::MANUFACTURER_MODEL_NAME, tags::SOFTWARE_VERSIONS].map(|tag| charset.texts(object, tag).join(" "));
    let maker = charset.texts(object, tags::MANUFACTURER).join(" ");
    let name = clean(parts.join(" ").trim());
    match (name.is_empty(), maker.is_empty() || maker == parts[0]) {
        (_, true) => name,
        (true, false) => maker,
        (false, false) => format!("{name} ({maker})"),
    }
}

/// An image, a document, or an object of which no more is known than its header says.
pub(super) fn picture_or_document(instance: &Instance, header: &InMemDicomObject, view: &View<'_>, page: &mut Page) {
    let charset = CharacterSet::of(header);
    if instance.has_pixel_data {
        let pixels = &instance.pixels;
        page.fact("size", format!("{} x {} pixels", instance.columns, instance.rows));
        page.fact("frames", instance.frames.to_string());
        page.fact("pixels", format!("{}, {} bits", pixels.photometric, pixels.bits_stored));
        page.fact("image type", instance.image_type.join(", "));
        page.fact("conversion", header.text(tags::CONVERSION_TYPE));
        page.fact("burned in annotation", header.text(tags::BURNED_IN_ANNOTATION));
    }
    let document = header.get(tags::ENCAPSULATED_DOCUMENT).and_then(|e| e.value().primitive());
    if let Some(document) = document {
        let stated = header.integer(tags::ENCAPSULATED_DOCUMENT_LENGTH);
        let bytes = stated.map_or_else(|| document.calculate_byte_len().to_string(), |bytes| bytes.to_string());
        page.fact("document", header.text(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT));
        page.fact("document size", format!("{bytes} bytes"));
        page.fact("document title", view.private(&charset.texts(header, tags::DOCUMENT_TITLE).join(", ")));
    }
    let sources = [tags::SOURCE_IMAGE_SEQUENCE, tags::SOURCE_INSTANCE_SEQUENCE].map(|tag| items(header, tag));
    let sources: Vec<&InMemDicomObject> = sources.into_iter().flatten().collect();
    if let Some(first) = sources.first() {
        let class = class_name(&first.text(tags::REFERENCED_SOP_CLASS_UID));
        page.fact("made of", if sources.len() == 1 { class } else { format!("{} instances, the first of {class}", sources.len()) });
    }
    if !instance.has_pixel_data && document.is_none() {
        page.fact("attributes", header.iter().count().to_string());
    }
}
