//! The words and numbers that people read: the same in pictures, captures, pages and documents.
//!
//! All text here is plain; whoever writes it escapes it.

mod facts;
mod table;

pub(super) use facts::{Fact, provenance, study};
pub(super) use table::{Row, Table};

use super::Form;
use crate::codes::Code;
use crate::findings::{Finding, Measurement, PackageId};

/// Said once to every reader, whatever the package is.
pub(super) const UNVERIFIED: &str = "Computed by software. No person has verified this result: compare it with the images.";
/// In place of a name in a script that cannot be shown.
const HIDDEN_NAME: &str = "name in a script that cannot be shown here: see the header of the study";
/// In place of one of its writings.
const HIDDEN_WRITING: &str = "another writing: see the header of the study";
/// In place of a number.
pub(super) const NOT_COMPUTABLE: &str = "not computable";
/// In place of what does not apply.
pub(super) const NONE: &str = "\u{2013}";

/// What every picture, capture and report says at its top: what the result must not be used for, or, of a product that may be, that it
/// is not verified.
pub(super) fn banner(package: &PackageId) -> &'static str {
    let says_not = package.intended_use.to_ascii_lowercase().contains("not for diagnosis");
    if says_not || !package.is_cleared() { "AI result, not for diagnosis" } else { "AI result, not verified" }
}

/// A number for people: 4 significant digits, or all digits before the point where there are more. Whole numbers have no point.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return NOT_COMPUTABLE.to_owned();
    }
    if size != 0.0 && !(1e-4..1e9).contains(&size) {
        return format!("{value:.3e}");
    }
    if value.fract() == 0.0 {
        return format!("{}", value as i64);
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 7) as usize;
    format!("{value:.digits$}")
}

/// A UCUM unit as people write it; empty for a number without a unit.
pub(super) fn unit(code: &Code) -> String {
    if code.scheme != "UCUM" {
        return code.meaning.to_string();
    }
    match code.value.as_ref() {
        "[hnsf'U]" => "HU".into(),
        "1" => String::new(),
        "mm2" => "mm\u{b2}".into(),
        "cm2" => "cm\u{b2}".into(),
        "mm3" => "mm\u{b3}".into(),
        "cm3" => "cm\u{b3}".into(),
        "um2/s" => "\u{b5}m\u{b2}/s".into(),
        "mm2/s" => "mm\u{b2}/s".into(),
        "10*-3" => "\u{b7} 10\u{207b}\u{b3}".into(),
        // An annotation says what, which the name of the number does already.
        text => text.split('{').next().unwrap_or_default().to_owned(),
    }
}

/// What a measurement is called: concept, and how it was derived.
pub(super) fn measured(measurement: &Measurement) -> String {
    match &measurement.derivation {
        Some(derivation) => format!("{} ({})", measurement.concept.meaning, derivation.meaning.to_lowercase()),
        None => measurement.concept.meaning.to_string(),
    }
}

/// The number of a measurement without its unit.
pub(super) fn value(measurement: &Measurement) -> String {
    measurement.value.map_or_else(|| NOT_COMPUTABLE.to_owned(), number)
}

/// The number of a measurement with its unit.
pub(super) fn value_with_unit(measurement: &Measurement) -> String {
    let (value, unit) = (value(measurement), unit(&measurement.unit));
    if unit.is_empty() || value == NOT_COMPUTABLE { value } else { format!("{value} {unit}") }
}

/// How probable it is that a finding is there; a dash where the model does not say.
pub(super) fn certainty(finding: &Finding) -> String {
    let trimmed = |text: String| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    finding.certainty_percent.map_or_else(|| NONE.to_owned(), |percent| format!("{} %", trimmed(number(percent))))
}

/// Whether a finding is there.
pub(super) fn presence(finding: &Finding) -> &'static str {
    if finding.present { "present" } else { "absent" }
}

/// The finding in one line: name, and its first number, or whether it is there.
pub(super) fn line(finding: &Finding) -> String {
    match finding.numbers().first() {
        Some(first) if finding.present => format!("{}: {}", finding.name, value_with_unit(first)),
        _ => format!("{}: {}", finding.name, presence(finding)),
    }
}

/// Package and version.
pub(super) fn package(package: &PackageId) -> String {
    format!("{} {}", package.name, package.version)
}

/// `2026-03-04 05:06 +01:00`.
pub(super) fn started(started: &jiff::ZonedDateTime) -> String {
    started.strftime("%Y-%m-%d %H:%M %:z").to_string()
}

/// A DICOM date, `20260304`, as people write it; anything else as it is.
pub(super) fn date(text: &str) -> String {
    let text = text.trim();
    if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        format!("{}-{}-{}", &text[..4], &text[4..6], &text[6..])
    } else {
        text.to_owned()
    }
}

/// A DICOM time, `091500.25`, in hours and minutes; anything else as it is.
pub(super) fn time(text: &str) -> String {
    let text = text.trim();
    if text.len() >= 4 && text.bytes().take(4).all(|b| b.is_ascii_digit()) {
        format!("{}:{}", &text[..2], &text[2..4])
    } else {
        text.to_owned()
    }
}

/// A decoded name of a person (PS3.5 6.2.1): family name, given names; ideographic and phonetic writing in brackets. A writing with letters
/// that cannot be shown is left out as a whole, and that is said.
pub(super) fn person(text: &str, can_show: impl Fn(char) -> bool) -> String {
    let group = |text: &str| {
        let parts: Vec<&str> = text.split('^').map(str::trim).collect();
        let part = |n: usize| parts.get(n).copied().unwrap_or_default();
        let joined = |parts: [&str; 3], by| parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(by);
        joined([part(0), &joined([part(3), part(1), part(2)], " "), part(4)], ", ")
    };
    let groups = text.split('=').map(group).filter(|g| !g.is_empty());
    let (mut shown, hidden): (Vec<String>, Vec<String>) = groups.partition(|g| g.chars().all(&can_show));
    if !hidden.is_empty() {
        shown.push(if shown.is_empty() { HIDDEN_NAME } else { HIDDEN_WRITING }.to_owned());
    }
    match shown.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} ({})", others.join("; ")),
    }
}

/// What a file of a form is.
pub(super) fn form(form: Form) -> &'static str {
    match form {
        Form::Sr => "Structured report (DICOM SR, TID 1500)",
        Form::SrOutlines => "Structured report with outlines (DICOM SR, TID 1500)",
        Form::Seg => "Segmentation",
        Form::Labelmap => "Segmentation as label map (DICOM)",
        Form::Map => "Map of values (DICOM Parametric Map, or Secondary Capture)",
        Form::Sc => "Key image with overlay (DICOM Secondary Capture)",
        Form::Gsps => "Outlines for viewers (DICOM Presentation State)",
        Form::Ko => "List of key images (DICOM Key Object Selection)",
        Form::Rtstruct => "Contours (DICOM RT Structure Set)",
        Form::Pdf => "Report to read (DICOM Encapsulated PDF)",
        Form::Json => "Findings with everything (JSON)",
        Form::Csv => "Numbers (CSV)",
        Form::Fhir => "Findings (FHIR R4)",
        Form::FhirR5 => "Findings (FHIR R5)",
        Form::Html => "This page",
        Form::Png => "Overview picture (PNG)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cleared_product_is_not_called_unfit() {
        let banner = |regulatory_status: &str, intended_use: &str| {
            super::banner(&PackageId {
                name: "nodules".into(),
                version: "1.0.0".into(),
                sha256: "0".repeat(64),
                manufacturer: "somebody".into(),
                intended_use: intended_use.into(),
                licence: "proprietary".into(),
                regulatory_status: regulatory_status.into(),
                card: None,
            })
        };
        assert_eq!(banner("none", "Finds nodules."), "AI result, not for diagnosis");
        assert_eq!(banner("CE, class IIa", "For research, Not for Diagnosis."), "AI result, not for diagnosis");
        assert_eq!(banner("CE, class IIa", "Finds nodules."), "AI result, not verified");
    }

    #[test]
    fn numbers_for_people() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (12.0, "12"),
            (12.5, "12.50"),
            (-812.345, "-812.3"),
            (34567.89, "34568"),
            (4321.06, "4321"),
            (0.012_345_6, "0.01235"),
            (0.000_123_456, "0.0001235"),
            (1.5e-7, "1.500e-7"),
            (-3e12, "-3.000e12"),
            (999_999_999.5, "1000000000"),
            (f64::NAN, NOT_COMPUTABLE),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn names_dates_and_units() {
        let person = |text: &str| super::person(text, |_| true);
        assert_eq!(person("Pr\u{fc}fling^J\u{f6}rg^^Dr."), "Pr\u{fc}fling, Dr. J\u{f6}rg");
        assert_eq!(
            person("Yamada^Tarou=\u{5c71}\u{7530}^\u{592a}\u{90ce}=\u{3084}\u{307e}\u{3060}^\u{305f}\u{308d}\u{3046}"),
            "Yamada, Tarou (\u{5c71}\u{7530}, \u{592a}\u{90ce}; \u{3084}\u{307e}\u{3060}, \u{305f}\u{308d}\u{3046})"
        );
        assert_eq!([person(""), person("^^^"), person("=\u{5c71}")], ["", "", "\u{5c71}"]);
        let latin = |text: &str| super::person(text, |c| c.is_ascii());
        assert_eq!([latin("Yamada^Tarou"), latin("Yamada=\u{5c71}")], ["Yamada, Tarou", &format!("Yamada ({HIDDEN_WRITING})")]);
        assert_eq!(latin("\u{5c71}"), HIDDEN_NAME);
        assert_eq!([date("20260304"), date("1960"), date("")], ["2026-03-04", "1960", ""]);
        assert_eq!([time("091500.25"), time("09"), time("\u{e4}\u{e4}")], ["09:15", "09", "\u{e4}\u{e4}"]);
        let of = |value| unit(&Code::new(value, "UCUM", "?"));
        assert_eq!([of("[hnsf'U]"), of("1"), of("ml"), of("g/ml{SUVbw}"), of("{pixels}")], ["HU", "", "ml", "g/ml", ""]);
    }
}
