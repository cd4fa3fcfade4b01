//! The report to read: it says what it is, and is the document that the findings give.

use dicom::object::InMemDicomObject;

use super::Problems;
use crate::dataset::{Attributes, items, tags};
use crate::results::{Context, pdf};

pub(super) fn check(context: &Context<'_>, header: &InMemDicomObject, problems: &mut Problems) {
    let expected = [
        ("MIME Type of Encapsulated Document", tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, "application/pdf".to_owned()),
        ("Document Title", tags::DOCUMENT_TITLE, pdf::title(context)),
        ("Burned In Annotation", tags::BURNED_IN_ANNOTATION, "YES".to_owned()),
        ("Conversion Type", tags::CONVERSION_TYPE, "WSD".to_owned()),
        ("Verification Flag", tags::VERIFICATION_FLAG, "UNVERIFIED".to_owned()),
    ];
    for (name, tag, value) in expected {
        problems.unless(header.text(tag) == value, || format!("{name} is not {value}"));
    }
    let named: Vec<String> =
        items(header, tags::SOURCE_INSTANCE_SEQUENCE).iter().map(|item| item.text(tags::REFERENCED_SOP_INSTANCE_UID)).collect();
    let sources = &context.findings.source.instances;
    problems.unless(named.iter().eq(sources.iter().map(|i| &i.sop_instance_uid)), || {
        format!("it names {} sources, not the {} that were analysed", named.len(), sources.len())
    });
    let Some(bytes) = header.get(tags::ENCAPSULATED_DOCUMENT).and_then(|e| e.value().to_bytes().ok()) else {
        return problems.add("it holds no document".into());
    };
    let length = header.count(tags::ENCAPSULATED_DOCUMENT_LENGTH) as usize;
    problems.unless(bytes.len() == length + length % 2, || format!("{} bytes of document, {length} are stated", bytes.len()));
    let document = bytes.get(..length).unwrap_or(&bytes);
    problems.unless(document.starts_with(b"%PDF-") && document.trim_ascii_end().ends_with(b"%%EOF"), || "its document is no PDF".into());
    problems.unless(document == pdf::document(context), || "its document is not what the findings give".into());
}

#[cfg(test)]
mod tests {
    use dicom::core::{DataElement, PrimitiveValue, VR};

    use super::*;
    use crate::results::check::tests::{Spoil, each_is_found, put};

    fn document(object: &mut InMemDicomObject, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = object.get(tags::ENCAPSULATED_DOCUMENT).expect("there").value().to_bytes().expect("bytes").into_owned();
        change(&mut bytes);
        object.put(DataElement::new(tags::ENCAPSULATED_DOCUMENT, VR::OB, PrimitiveValue::U8(bytes.into())));
    }

    const DOCUMENT: [(&str, Spoil); 8] = [
        ("another MIME type", |o| put(o, tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, VR::LO, "text/xml")),
        ("another title", |o| put(o, tags::DOCUMENT_TITLE, VR::ST, "Report")),
        ("verified by nobody", |o| put(o, tags::VERIFICATION_FLAG, VR::CS, "VERIFIED")),
        ("no warning of burnt-in text", |o| put(o, tags::BURNED_IN_ANNOTATION, VR::CS, "NO")),
        ("no sources", |o| {
            o.remove_element(tags::SOURCE_INSTANCE_SEQUENCE);
        }),
        ("a document cut off", |o| document(o, |bytes| bytes.truncate(bytes.len() - 40))),
        ("another document", |o| document(o, |bytes| bytes[3000] ^= 1)),
        ("no document", |o| {
            o.remove_element(tags::ENCAPSULATED_DOCUMENT);
        }),
    ];

    #[test]
    fn every_spoilt_document_is_found() {
        each_is_found("pdf", "pdf.dcm", &[&DOCUMENT]);
    }
}
