//! The table of findings.

use super::{NONE, certainty, measured, presence, unit, value, value_with_unit};
use crate::findings::{Finding, Measurement};

/// Kinds of numbers that have a column each at most; where there are more, the numbers of a finding stand in one cell.
const MOST_COLUMNS: usize = 4;

/// Findings with their numbers, in the order of the package.
#[derive(Debug, PartialEq)]
pub(in crate::results) struct Table<'a> {
    /// Headings of the columns of numbers: what, and in which unit. Empty where numbers stand in one cell.
    pub(in crate::results) columns: Vec<[String; 2]>,
    pub(in crate::results) rows: Vec<Row<'a>>,
    /// Whether some finding has a certainty, an answer, a site.
    pub(in crate::results) has_certainty: bool,
    pub(in crate::results) has_answers: bool,
    pub(in crate::results) has_site: bool,
}

/// A finding.
#[derive(Debug, PartialEq)]
pub(in crate::results) struct Row<'a> {
    pub(in crate::results) finding: &'a Finding,
    /// What it is, where its name does not say so.
    pub(in crate::results) kind: Option<&'a str>,
    /// Where it is: "Lung, left".
    pub(in crate::results) site: String,
    pub(in crate::results) presence: &'static str,
    /// With its unit.
    pub(in crate::results) certainty: String,
    /// "Risk class: Abnormal".
    pub(in crate::results) answers: Vec<String>,
    /// One cell a column of [`Table::columns`]; of numbers that are none of a column, one line each.
    pub(in crate::results) numbers: Vec<String>,
}

impl<'a> Table<'a> {
    pub(in crate::results) fn of(findings: &'a [Finding]) -> Self {
        let mut columns: Vec<[String; 2]> = Vec::new();
        for measurement in findings.iter().flat_map(|f| &f.measurements) {
            let heading = heading(measurement);
            if !columns.contains(&heading) {
                columns.push(heading);
            }
        }
        if columns.len() > MOST_COLUMNS {
            columns.clear();
        }
        Self {
            rows: findings.iter().map(|finding| row(finding, &columns)).collect(),
            columns,
            has_certainty: findings.iter().any(|f| f.certainty_percent.is_some()),
            has_answers: findings.iter().any(|f| !f.evaluations.is_empty()),
            has_site: findings.iter().any(|f| !site(f).is_empty()),
        }
    }
}

fn heading(measurement: &Measurement) -> [String; 2] {
    let method = measurement.method.as_ref();
    let name = match method {
        Some(method) if measurement.concept.meaning != "Volume" => format!("{}, {}", measured(measurement), method.meaning),
        _ => measured(measurement),
    };
    [name, unit(&measurement.unit)]
}

fn row<'a>(finding: &'a Finding, columns: &[[String; 2]]) -> Row<'a> {
    let numbers = finding.numbers();
    let in_column = |column: &[String; 2]| {
        let found: Vec<String> = numbers.iter().filter(|m| heading(m) == *column).map(value).collect();
        if found.is_empty() { NONE.to_owned() } else { found.join("; ") }
    };
    let kind = finding.finding_type.meaning.as_ref();
    Row {
        finding,
        kind: (!kind.eq_ignore_ascii_case(&finding.name)).then_some(kind),
        site: site(finding),
        presence: presence(finding),
        certainty: certainty(finding),
        answers: finding.evaluations.iter().map(|e| format!("{}: {}", e.question.meaning, e.answer.meaning)).collect(),
        numbers: if columns.is_empty() {
            numbers.iter().map(|m| format!("{} {}", heading(m)[0], value_with_unit(m))).collect()
        } else {
            columns.iter().map(in_column).collect()
        },
    }
}

/// Where a finding is, and on which side; the side alone where that is all that is known.
fn site(finding: &Finding) -> String {
    let place = finding.site.as_ref().filter(|site| **site != finding.finding_type).map(|site| site.meaning.to_string());
    let side = finding.laterality.as_ref().map(|side| side.meaning.to_lowercase());
    place.into_iter().chain(side).collect::<Vec<_>>().join(", ")
}
