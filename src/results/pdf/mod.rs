//! The report to read as Encapsulated PDF (PS3.3 A.45.1): a page where it fits, with the findings, three planes, and where all comes from.

mod paper;
mod report;

use super::envelope::{ResultObject, Slot, envelope, reference_to, source_header};
use super::{Context, Object, PDF_FILE, wording};
use crate::codes::{dcm, sop_class};
use crate::dataset::tags;

pub(super) use report::document;

const DOCUMENT: Slot = Slot { name: "pdf", sop_class_uid: sop_class::ENCAPSULATED_PDF, modality: "DOC", kind: "report to read", place: 10 };

/// The document with everything that it was made from.
pub(super) fn objects(context: &Context<'_>) -> Vec<Object<'static>> {
    let findings = context.findings;
    let reference = ResultObject::of(findings, &DOCUMENT);
    let document = document(context);
    let data = envelope(findings, &reference)
        .text(tags::CONVERSION_TYPE, "WSD")
        .copied_or_empty(tags::ACQUISITION_DATE_TIME, source_header(findings))
        .text(tags::BURNED_IN_ANNOTATION, "YES")
        .text(tags::VERIFICATION_FLAG, "UNVERIFIED")
        .sequence(tags::SOURCE_INSTANCE_SEQUENCE, findings.source.instances.iter().map(|instance| reference_to(instance)))
        .text(tags::DOCUMENT_TITLE, &title(context))
        .code(tags::CONCEPT_NAME_CODE_SEQUENCE, &dcm::IMAGING_MEASUREMENT_REPORT)
        .text(tags::MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, "application/pdf")
        .integer(tags::ENCAPSULATED_DOCUMENT_LENGTH, document.len() as u32)
        .bytes(tags::ENCAPSULATED_DOCUMENT, document);
    vec![Object::new(PDF_FILE, reference, data)]
}

/// Document Title, and the title in the document.
pub(super) fn title(context: &Context<'_>) -> String {
    format!("AI result: {}", wording::package(&context.findings.provenance.package))
}
