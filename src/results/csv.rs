//! The findings as CSV (RFC 4180, UTF-8, one header row): for spreadsheets and statistics. No patient text and no path of this machine.
//!
//! A row is one number of a finding, one answer, or, for a finding that has neither, the finding itself, so each finding has a row and what
//! was not found is told. What all rows share stands in each of them, and no field holds a line break: rows of many series are put together
//! line by line, as `head -n 1 A/findings.csv; tail -q -n +2 */findings.csv` does.
//!
//! A text that a spreadsheet would run as a formula (`=`, `+`, `-`, `@` at its start) gets a `'` in front. Values are written as in
//! `findings.json`: they parse to the number that was computed.

use ::csv::{Terminator, WriterBuilder};

use super::envelope::{REPORT, ResultObject};
use super::sr::{STUDY_REPORT, stands_in_space};
use super::{Context, labels_object, report_object};
use crate::codes::Code;
use crate::findings::{Evaluation, Finding, Findings, Measurement};

/// Columns in their order. A code is three: scheme, value, meaning.
const COLUMNS: [&str; 45] = [
    "study_instance_uid",
    "series_instance_uid",
    "source_file_sha256",
    "package",
    "package_version",
    "started",
    "finding",
    "tracking_uid",
    "category_scheme",
    "category_value",
    "category_meaning",
    "type_scheme",
    "type_value",
    "type_meaning",
    "site_scheme",
    "site_value",
    "site_meaning",
    "laterality_scheme",
    "laterality_value",
    "laterality_meaning",
    "present",
    "certainty_percent",
    "centre_l_mm",
    "centre_p_mm",
    "centre_s_mm",
    "segment_number",
    "sr_sop_instance_uid",
    "seg_sop_instance_uid",
    "row",
    "concept_scheme",
    "concept_value",
    "concept_meaning",
    "derivation_scheme",
    "derivation_value",
    "derivation_meaning",
    "method_scheme",
    "method_value",
    "method_meaning",
    "value",
    "unit_scheme",
    "unit_value",
    "unit_meaning",
    "answer_scheme",
    "answer_value",
    "answer_meaning",
];

/// The findings as CSV text; `objects` are those written beside it.
pub(super) fn csv_of(context: &Context<'_>, objects: &[(String, ResultObject)]) -> String {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    let mut write = |fields: Vec<String>| {
        assert_eq!(fields.len(), COLUMNS.len(), "a field for each column");
        writer.write_record(fields).expect("memory takes all, and each row has all fields");
    };
    write(COLUMNS.map(str::to_owned).to_vec());
    let findings = context.findings;
    for finding in &findings.findings {
        let mut row = |content: Content<'_>| {
            let mut fields = job(findings);
            fields.extend(about(context, finding, objects));
            fields.extend(content.fields());
            write(fields);
        };
        finding.numbers().iter().for_each(|number| row(Content::Number(number)));
        finding.evaluations.iter().for_each(|evaluation| row(Content::Answer(evaluation)));
        if finding.numbers().is_empty() && finding.evaluations.is_empty() {
            row(Content::Finding);
        }
    }
    let bytes = writer.into_inner().expect("memory takes all");
    String::from_utf8(bytes).expect("all fields are texts")
}

/// What a row adds to its finding.
enum Content<'a> {
    Number(&'a Measurement),
    Answer(&'a Evaluation),
    Finding,
}

impl Content<'_> {
    /// From `row` to `answer_meaning`.
    fn fields(&self) -> Vec<String> {
        let (kind, number, answer) = match self {
            Self::Number(number) => ("number", Some(*number), None),
            Self::Answer(answer) => ("answer", None, Some(*answer)),
            Self::Finding => ("finding", None, None),
        };
        let concept = number.map(|n| &n.concept).or(answer.map(|a| &a.question));
        let mut fields = vec![kind.to_owned()];
        fields.extend(code(concept));
        fields.extend(code(number.and_then(|n| n.derivation.as_ref())));
        fields.extend(code(number.and_then(|n| n.method.as_ref())));
        fields.push(decimal(number.and_then(|n| n.value)));
        fields.extend(code(number.map(|n| &n.unit)));
        fields.extend(code(answer.map(|a| &a.answer)));
        fields
    }
}

/// From `study_instance_uid` to `started`.
fn job(findings: &Findings) -> Vec<String> {
    let first = findings.source.instances.first();
    let (package, started) = (&findings.provenance.package, &findings.provenance.started);
    vec![
        first.map_or_else(String::new, |i| i.study_uid.clone()),
        first.map_or_else(String::new, |i| i.series_uid.clone()),
        findings.source.file.as_ref().map_or_else(String::new, |file| file.sha256.clone()),
        safe(&package.name),
        safe(&package.version_string()),
        started.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    ]
}

/// From `finding` to `seg_sop_instance_uid`.
fn about(context: &Context<'_>, finding: &Finding, objects: &[(String, ResultObject)]) -> Vec<String> {
    let labels = labels_object(context);
    let number = context.segments.number_of(finding).filter(|_| context.findings.source.file.is_none());
    // Numbers of a segment stand in the report on regions, where the object with the segments is written, and those of boxes always.
    let in_space = context.findings.source.file.is_none() && stands_in_space(context.findings, finding);
    let report = if in_space || (number.is_some() && labels.is_some()) { &REPORT } else { &STUDY_REPORT };
    let report = report_object(context, report);
    let written = |object: &ResultObject| objects.iter().any(|(_, o)| o.sop_instance_uid == object.sop_instance_uid);
    let uid = |object: Option<ResultObject>| object.filter(written).map_or_else(String::new, |o| o.sop_instance_uid);
    let centre = |axis: usize| decimal(finding.place.map(|place| place.centre_lps_mm[axis]));
    let mut fields = vec![safe(&finding.name), finding.tracking_uid.clone()];
    fields.extend(code(Some(&finding.category)));
    fields.extend(code(Some(&finding.finding_type)));
    fields.extend(code(finding.site.as_ref()));
    fields.extend(code(finding.laterality.as_ref()));
    fields.extend([
        finding.present.to_string(),
        decimal(finding.certainty_percent),
        centre(0),
        centre(1),
        centre(2),
        number.map_or_else(String::new, |n| n.to_string()),
        uid(Some(report)),
        uid(labels.filter(|_| number.is_some())),
    ]);
    fields
}

fn code(code: Option<&Code>) -> [String; 3] {
    code.map_or_else(Default::default, |code| [safe(&code.scheme), safe(&code.value), safe(&code.meaning)])
}

/// As JSON writes it; empty where there is no finite number.
fn decimal(value: Option<f64>) -> String {
    value.and_then(serde_json::Number::from_f64).map_or_else(String::new, |number| number.to_string())
}

/// A text of the package on one line, and no formula to a spreadsheet; full-width signs are those of East Asian ones.
pub(crate) fn safe(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }).collect();
    let formula = text.trim_start().starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    if formula { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_no_formulas() {
        for (text, written) in [
            ("liver, right", "liver, right"),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            (" -2", "' -2"),
            ("\t=1", "' =1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("two\r\nlines", "two  lines"),
            ("a=b", "a=b"),
        ] {
            assert_eq!(safe(text), written);
        }
    }

    #[test]
    fn numbers_are_exact() {
        for value in [0.1 + 0.2, -1.0 / 3.0, 1e-300, 6.02e23, 5e-324, f64::MAX] {
            assert_eq!(decimal(Some(value)).parse(), Ok(value));
        }
        assert_eq!(decimal(Some(f64::NAN)), "");
        assert_eq!(decimal(None), "");
    }
}
