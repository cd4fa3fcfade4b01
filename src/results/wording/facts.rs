//! What was examined and how the result came about, as rows of a name and a value.

use dicom::core::Tag;

use super::{date, package, person, started, time};
use crate::dataset::{decoded_text, tags};
use crate::findings::{Findings, SourceChannel};
use crate::results::Context;
use crate::results::envelope::{known, source_header};

/// A row: a name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::results) struct Fact {
    pub(in crate::results) name: &'static str,
    pub(in crate::results) value: String,
}

fn fact(name: &'static str, value: impl Into<String>) -> Fact {
    Fact { name, value: value.into() }
}

/// The patient, the study and the series, as the source says; of a researcher's volume its format. Values are patient data.
///
/// A name is written in every script that `can_show` has the letters of.
pub(in crate::results) fn study(findings: &Findings, can_show: impl Fn(char) -> bool) -> Vec<Fact> {
    if let Some(file) = &findings.source.file {
        return vec![fact("Source", format!("{} volume", file.format.name())), fact("SHA-256", &file.sha256)];
    }
    let header = source_header(findings);
    let text = |tag: Tag| decoded_text(header, tag);
    let first = &findings.source.instances[0];
    let images = findings.source.frames.len();
    let when = [date(&text(tags::STUDY_DATE)), time(&text(tags::STUDY_TIME))].join(" ");
    let series = [first.modality.clone(), text(tags::SERIES_DESCRIPTION)].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>();
    let rows = [
        fact("Patient", person(&text(tags::PATIENT_NAME), can_show)),
        fact("Patient ID", text(tags::PATIENT_ID)),
        fact("Born", date(&text(tags::PATIENT_BIRTH_DATE))),
        fact("Sex", text(tags::PATIENT_SEX)),
        fact("Study", text(tags::STUDY_DESCRIPTION)),
        fact("Study date", when.trim()),
        fact("Accession number", text(tags::ACCESSION_NUMBER)),
        fact("Series", format!("{}, {images} image{}", series.join(", "), if images == 1 { "" } else { "s" })),
    ];
    rows.into()
}

/// Where the numbers come from; settings and geometry have lists of their own.
pub(in crate::results) fn provenance(context: &Context<'_>) -> Vec<Fact> {
    let provenance = &context.findings.provenance;
    let id = &provenance.package;
    let source = &context.findings.source;
    let inputs = match &source.file {
        Some(_) => "one file, named above by its SHA-256".to_owned(),
        None => format!("{} instances", source.content_sha256.len()),
    };
    let mut rows = vec![
        fact("Model package", package(id)),
        fact("SHA-256 of the package", &id.sha256),
        fact("Manufacturer", known(&id.manufacturer)),
        fact("Intended use", known(&id.intended_use)),
        fact("Regulatory status", known(&id.regulatory_status)),
        fact("Licence", known(&id.licence)),
        fact("Analysis began", started(&provenance.started)),
        fact("Program", format!("roentgen {}", provenance.roentgen_version)),
        fact("Device", &provenance.device),
        fact("Execution provider", format!("{}, ONNX Runtime {}", provenance.provider, provenance.onnxruntime_version)),
        fact("Input", inputs),
    ];
    if let Some(first) = source.instances.first() {
        rows.push(fact("Study Instance UID", &first.study_uid));
        rows.push(fact("Series Instance UID", &first.series_uid));
    }
    for SourceChannel { name, instances, file, .. } in &source.channels {
        let what = match (instances.first(), file) {
            (Some(first), _) => format!("series {}, {} instances", first.series_uid, instances.len()),
            (None, Some(file)) => format!("file with SHA-256 {}", file.sha256),
            (None, None) => continue,
        };
        rows.push(fact("Further channel", format!("{name}: {what}")));
    }
    rows
}
