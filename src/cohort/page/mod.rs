//! The cohort as one page: counts, distributions, outliers, and a small picture of each series to sort and to filter. It opens from disk,
//! loads nothing and prints; without scripts everything is there, in the order of the studies.
//!
//! No patient text: series go by UID, and files, whose names may be patients', by their row in the list of failures. The pages that it leads
//! to hold patient data.

mod numbers;
mod over_time;
mod plot;

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use self::numbers::{Summary, outliers, summary};
use super::record::{Done, FindingRecord, Problem, Verdict, count_by_code};
use super::report::Report;
use super::table::{self, Cell, Measured, measured};
use super::{FAILURES_FILE, FINDINGS_CSV_FILE, PICTURES, WORK, paths};
use crate::results::{self, HTML_FILE, Markup, base64, document, escaped, number_for_people};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// What all pictures of a page take at most, bytes in base 64.
const MOST_PICTURE_BYTES: usize = 64 << 20;
/// Rows of the tables of failures and of outliers.
const MOST_ROWS: usize = 200;
/// Findings whose plots are shown at once; of more, each is opened by hand.
const MOST_OPEN: usize = 8;
/// Of fewer values there is nothing to say but the values.
const FEWEST: usize = 4;
/// What `certainty_percent` is, whether the finding is present or not.
const CERTAINTY: &str = "Probability of presence";

/// A series or volume that was analysed, or should have been.
struct Case<'a> {
    /// Series Instance UID with the number of the part, or the name of a volume.
    name: String,
    scanner: String,
    verdict: &'a Verdict,
    /// Its own page, from here.
    link: Option<String>,
    /// JPEG, base 64.
    picture: Option<String>,
}

/// A measurement of a finding over all cases, or how certain the model is of it.
struct Distribution<'a> {
    finding: &'a str,
    name: &'a str,
    /// UCUM.
    unit: &'a str,
    /// One for each case.
    values: Vec<Option<f64>>,
}

impl Distribution<'_> {
    /// "Volume, ml".
    fn measurement(&self) -> String {
        match self.unit {
            "1" => self.name.to_owned(),
            "[hnsf'U]" => format!("{}, HU", self.name),
            unit => format!("{}, {unit}", self.name),
        }
    }

    fn known(&self) -> Vec<f64> {
        self.values.iter().copied().flatten().collect()
    }
}

/// The page of the cohort in `output`.
pub(super) fn page(report: &Report, output: &Path) -> String {
    let names = FileNames::of(report);
    let cases = cases(report, output, &names);
    let findings = findings(&cases);
    let measured = measured(report);
    let distributions = distributions(&cases, &findings, &measured);
    let style = format!("{}{STYLE}", results::PAGE_STYLE);
    let banner = if report.banner.is_empty() { "AI result, not for diagnosis" } else { &report.banner };
    document(&format!("Cohort: {}", report.package), banner, &style, SCRIPT, |page| {
        counts(page, report, &cases);
        failures(page, report, &names);
        not_eligible(page, report);
        section(page, "cases", "Cases", |page| gallery(page, &cases, &findings, &distributions));
        over_time::over_time(page, report);
        if !findings.is_empty() {
            section(page, "distributions", "Distributions", |page| plots(page, &cases, &findings, &distributions));
        }
        if !distributions.is_empty() {
            section(page, "outliers", "Outliers", |page| outlying(page, &cases, &distributions));
        }
        let footer = format!("roentgen {}. The table behind this page: {FINDINGS_CSV_FILE}.", env!("CARGO_PKG_VERSION"));
        page.element("footer", &footer);
    })
}

/// How the page names files: by their row in the list of failures, from 1.
struct FileNames(HashMap<String, usize>);

impl FileNames {
    fn of(report: &Report) -> Self {
        let rows = table::failures(report).rows;
        let file = |(n, row): (usize, Vec<Cell>)| match <[Cell; 2]>::try_from(row.into_iter().take(2).collect::<Vec<_>>()) {
            Ok([Cell::Text(path), Cell::None]) => Some((path, n + 1)),
            _ => None,
        };
        Self(rows.into_iter().enumerate().filter_map(file).collect())
    }

    fn name(&self, path: &Path) -> String {
        let path = paths::text_of(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        self.0.get(&path).map_or_else(|| "file".to_owned(), |row| format!("file {row} of {FAILURES_FILE}"))
    }
}

/// A message without the file that it ends with, in parentheses: `path`, where that is known, or what reads as one.
fn without_path<'a>(message: &'a str, path: &Path) -> &'a str {
    if let Some(message) = message.strip_suffix(&format!(" ({})", path.display())) {
        return message;
    }
    let has_extension = |text: &str| text.rsplit_once('.').is_some_and(|(_, end)| end.starts_with(char::is_alphabetic));
    let names_file = |text: &str| text.contains(std::path::MAIN_SEPARATOR) || has_extension(text);
    let Some(body) = message.strip_suffix(')') else { return message };
    let begins = body.match_indices(" (").find(|(at, _)| names_file(&body[at + 2..]));
    begins.map_or(message, |(at, _)| &message[..at])
}

fn cases<'a>(report: &'a Report, output: &Path, names: &FileNames) -> Vec<Case<'a>> {
    let mut left = MOST_PICTURE_BYTES;
    let mut case = |name: String, scanner: String, verdict: &'a Verdict| {
        let folder = verdict.done().and_then(|done| done.folder.file_name());
        let link = folder.filter(|name| output.join(name).join(HTML_FILE).is_file());
        let picture = folder.and_then(|name| std::fs::read(output.join(WORK).join(PICTURES).join(name).with_added_extension("jpg")).ok());
        let picture = picture.map(|bytes| base64(&bytes)).filter(|text| text.len() <= left);
        left -= picture.as_ref().map_or(0, String::len);
        Case { name, scanner, verdict, link: link.map(|name| format!("{}/{HTML_FILE}", name.to_string_lossy())), picture }
    };
    let is_shown = |verdict: &Verdict| verdict.done().is_some() || verdict.is_failure();
    let mut cases = Vec::new();
    for series in report.series.iter().filter(|series| is_shown(&series.verdict)) {
        let head = &series.head;
        let part = head.part.as_ref().map_or_else(String::new, |part| format!(", part {}", part.number));
        let acquisition = &head.acquisition;
        let scanner = format!("{} {}", acquisition.manufacturer, acquisition.model).trim().to_owned();
        cases.push(case(format!("{}{part}", head.series_instance_uid), scanner, &series.verdict));
    }
    for volume in report.volumes.iter().filter(|volume| is_shown(&volume.verdict)) {
        // The folder of its results is named after what the file holds.
        let folder = volume.verdict.done().and_then(|done| done.folder.file_name());
        let name = folder.map_or_else(|| names.name(&volume.path), |folder| folder.to_string_lossy().into_owned());
        cases.push(case(name, String::new(), &volume.verdict));
    }
    cases
}

/// Names of all findings, in the order in which they come.
fn findings<'a>(cases: &[Case<'a>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for finding in cases.iter().filter_map(|case| case.verdict.done()).flat_map(|done| &done.findings) {
        if !names.contains(&finding.name.as_str()) {
            names.push(&finding.name);
        }
    }
    names
}

fn finding_of<'a>(case: &Case<'a>, name: &str) -> Option<&'a FindingRecord> {
    case.verdict.done().and_then(|Done { findings, .. }| findings.iter().find(|finding| finding.name == name))
}

/// Those that have a value; of each finding first how certain the model is, then what was measured.
fn distributions<'a>(cases: &[Case<'_>], findings: &[&'a str], measured: &'a [Measured]) -> Vec<Distribution<'a>> {
    let over = |finding: &str, value: &dyn Fn(&FindingRecord) -> Option<f64>| -> Vec<Option<f64>> {
        cases.iter().map(|case| value(finding_of(case, finding)?)).collect()
    };
    let certain =
        |finding: &'a str| Distribution { finding, name: CERTAINTY, unit: "%", values: over(finding, &|found| found.certainty_percent) };
    let number = |finding: &'a str, measured: &'a Measured| {
        let values = over(finding, &|found| measured.of(found));
        Distribution { finding, name: &measured.name, unit: &measured.unit, values }
    };
    let all =
        findings.iter().flat_map(|&finding| std::iter::once(certain(finding)).chain(measured.iter().map(move |one| number(finding, one))));
    all.filter(|distribution| distribution.values.iter().any(Option::is_some)).collect()
}

fn section(page: &mut Markup, id: &str, title: &str, fill: impl FnOnce(&mut Markup)) {
    page.within(&format!("section id=\"{id}\" aria-labelledby=\"{id}-title\""), |page| {
        page.element(&format!("h2 id=\"{id}-title\""), title);
        fill(page);
    });
}

fn counts(page: &mut Markup, report: &Report, cases: &[Case<'_>]) {
    let count = |outcome: &str| report.verdicts().filter(|verdict| verdict.outcome() == outcome).count();
    let mut scanners: Vec<&str> = cases.iter().map(|case| case.scanner.as_str()).filter(|scanner| !scanner.is_empty()).collect();
    scanners.sort_unstable();
    scanners.dedup();
    let unreadable = report.files.iter().filter(|file| file.unreadable).count();
    let facts = [
        ("Analysed", count("done").to_string()),
        ("Not eligible", count("not-eligible").to_string()),
        ("Refused", count("refused").to_string()),
        ("Failed", count("failed").to_string()),
        ("Unreadable files", unreadable.to_string()),
        ("Scanners", scanners.len().to_string()),
        ("Package", report.package.clone()),
        ("Device", report.device.clone()),
    ];
    page.within("dl class=\"facts\"", |page| {
        // Of a PACS alone.
        let missing = Some(report.missing.len()).filter(|count| *count > 0).map(|count| ("Studies that did not come", count.to_string()));
        for (name, value) in facts.iter().chain(&missing) {
            page.within("div", |page| {
                page.element("dt", name).element("dd", value);
            });
        }
    });
    if report.is_stopped() {
        let left = report.studies.chosen - report.studies.complete;
        page.element("p class=\"warnings\"", &format!("{left} of {} studies were not done when this was written.", report.studies.chosen));
    }
}

fn failures(page: &mut Markup, report: &Report, names: &FileNames) {
    let mut rows: Vec<[String; 4]> = Vec::new();
    let why = |verdict: &Verdict| {
        let all = |text: fn(&Problem) -> &str| verdict.reasons().iter().map(text).collect::<Vec<_>>().join("; ");
        (all(|reason| &reason.code), all(|reason| without_path(&reason.message, Path::new(""))))
    };
    for series in report.series.iter().filter(|series| series.verdict.is_failure()) {
        let (code, message) = why(&series.verdict);
        rows.push([series.head.series_instance_uid.clone(), series.verdict.outcome().to_owned(), code, message]);
    }
    for volume in report.volumes.iter().filter(|volume| volume.verdict.is_failure()) {
        let (code, message) = why(&volume.verdict);
        rows.push([names.name(&volume.path), volume.verdict.outcome().to_owned(), code, message]);
    }
    for file in report.files.iter().filter(|file| file.unreadable) {
        let Problem { code, message } = &file.problem;
        rows.push([names.name(&file.path), "unreadable".to_owned(), code.clone(), without_path(message, &file.path).to_owned()]);
    }
    for study in &report.missing {
        // The number that the list has is in the other list.
        let uid = Some(&study.study_instance_uid).filter(|uid| !uid.is_empty()).map_or("a row of the list", String::as_str);
        rows.push([uid.to_owned(), "failed".to_owned(), study.problem.code.clone(), study.problem.message.clone()]);
    }
    if rows.is_empty() {
        return;
    }
    section(page, "failures", "What was not analysed", |page| {
        let [of_files, others] = report.failures();
        let again = format!(
            "{of_files} need other files: they are refused or broken. {others} may pass: the same command with --only {FAILURES_FILE} does \
             them again. {FAILURES_FILE} lists all."
        );
        page.element("p class=\"note\"", &again);
        rows.truncate(MOST_ROWS);
        table(page, "failures-title", &["Series or file", "Outcome", "Code", "Reason"], &rows);
    });
}

/// Why series and volumes were not eligible, and how many.
fn not_eligible(page: &mut Markup, report: &Report) {
    let verdicts = report.verdicts().filter(|verdict| matches!(verdict, Verdict::NotEligible { .. }));
    let rows: Vec<[String; 2]> =
        count_by_code(verdicts.map(Verdict::reasons)).into_iter().map(|(code, count)| [code.to_owned(), count.to_string()]).collect();
    if !rows.is_empty() {
        section(page, "not-eligible", "Why series were not eligible", |page| {
            table(page, "not-eligible-title", &["Code", "Series and volumes"], &rows);
        });
    }
}

fn table<const N: usize>(page: &mut Markup, label: &str, header: &[&str; N], rows: &[[String; N]]) {
    page.within(&format!("div class=\"scroll sheet\" role=\"region\" aria-labelledby=\"{label}\" tabindex=\"0\""), |page| {
        page.within("table", |page| {
            page.within("thead", |page| row(page, "th scope=\"col\"", header));
            page.within("tbody", |page| rows.iter().for_each(|texts| row(page, "td", texts)));
        });
    });
}

/// A row with a cell for each text.
fn row(page: &mut Markup, tag: &str, texts: &[impl AsRef<str>]) {
    page.within("tr", |page| {
        for text in texts {
            page.element(tag, text.as_ref());
        }
    });
}

fn plots(page: &mut Markup, cases: &[Case<'_>], findings: &[&str], distributions: &[Distribution<'_>]) {
    for finding in findings {
        let of: Vec<&Distribution<'_>> = distributions.iter().filter(|d| d.finding == *finding).collect();
        let present = cases.iter().filter(|case| finding_of(case, finding).is_some_and(|f| f.present)).count();
        let all = cases.iter().filter(|case| finding_of(case, finding).is_some()).count();
        let open = if findings.len() <= MOST_OPEN { " open" } else { "" };
        let told = format!("{finding}: present in {present} of {all}");
        if of.is_empty() {
            page.element("p", &told);
            continue;
        }
        page.within(&format!("details class=\"finding\"{open}"), |page| {
            page.element("summary", &told);
            page.within("div class=\"plots\"", |page| of.iter().for_each(|distribution| plotted(page, cases, distribution)));
        });
    }
}

fn plotted(page: &mut Markup, cases: &[Case<'_>], distribution: &Distribution<'_>) {
    let known = distribution.known();
    let Some(all) = summary(&known) else { return };
    page.within("figure class=\"plot\"", |page| {
        page.element("figcaption", &distribution.measurement());
        if known.len() < FEWEST {
            page.element("p class=\"note\"", &in_words(&known, &all));
            return;
        }
        page.raw(&plot::histogram(&known, &all, &format!("Histogram of {} of {}", distribution.measurement(), distribution.finding)));
        page.element("p class=\"note\"", &in_words(&known, &all));
        let mut scanners: Vec<&str> = cases.iter().map(|case| case.scanner.as_str()).collect();
        scanners.sort_unstable();
        scanners.dedup();
        if scanners.len() > 1 {
            page.within("table class=\"scanners\"", |page| {
                for scanner in scanners {
                    let of = cases.iter().zip(&distribution.values).filter(|(case, _)| case.scanner == scanner);
                    let known: Vec<f64> = of.filter_map(|(_, value)| *value).collect();
                    let Some(summary) = summary(&known) else { continue };
                    page.within("tr", |page| {
                        page.element("th scope=\"row\"", if scanner.is_empty() { "unknown scanner" } else { scanner });
                        page.element("td", &in_words(&known, &summary));
                    });
                }
            });
        }
    });
}

/// Of few values these, ascending.
fn in_words(values: &[f64], summary: &Summary) -> String {
    if values.len() < FEWEST {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        return values.into_iter().map(number_for_people).collect::<Vec<_>>().join(", ");
    }
    let Summary { count, median, quartiles, range } = summary;
    let [median, low, high, least, greatest] = [*median, quartiles[0], quartiles[1], range[0], range[1]].map(number_for_people);
    format!("n {count}, median {median}, quartiles {low} to {high}, range {least} to {greatest}")
}

fn outlying(page: &mut Markup, cases: &[Case<'_>], distributions: &[Distribution<'_>]) {
    let mut found: Vec<(f64, usize, &Distribution<'_>)> = Vec::new();
    for distribution in distributions {
        found.extend(outliers(&distribution.values).into_iter().map(|(case, distance)| (distance, case, distribution)));
    }
    found.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    let rule =
        "More than 3.5 robust standard deviations (1.4826 times the median absolute deviation) from the median, of at least 8 values";
    let found_first = if found.is_empty() { "none found".to_owned() } else { format!("{} found, the furthest first", found.len()) };
    page.element("p class=\"note\"", &format!("{rule}: {found_first}."));
    if found.is_empty() {
        return;
    }
    page.within("div class=\"scroll sheet\" role=\"region\" aria-labelledby=\"outliers-title\" tabindex=\"0\"", |page| {
        page.within("table", |page| {
            page.within("thead", |page| row(page, "th scope=\"col\"", &["Case", "Finding", "Measurement", "Value", "Deviations"]));
            page.within("tbody", |page| {
                for (distance, case, distribution) in found.iter().take(MOST_ROWS) {
                    page.within("tr", |page| {
                        page.within("td", |page| linked(page, &cases[*case]));
                        page.element("td", distribution.finding).element("td", &distribution.measurement());
                        let value = distribution.values[*case].map(number_for_people).unwrap_or_default();
                        page.element("td class=\"number\"", &value).element("td class=\"number\"", &format!("{distance:+.1}"));
                    });
                }
            });
        });
    });
}

/// The name of a case, leading to its page where it has one.
fn linked(page: &mut Markup, case: &Case<'_>) {
    match &case.link {
        Some(link) => page.element(&format!("a href=\"{}\"", escaped(link)), &case.name),
        None => page.element("span", &case.name),
    };
}

/// What the script sorts and filters by.
#[derive(Serialize)]
struct Data<'a> {
    /// "lung: Volume, ml".
    measurements: Vec<String>,
    findings: &'a [&'a str],
    /// The measurement that the cases are sorted by at first: the first certainty; none where there is none.
    by: Option<usize>,
    cases: Vec<CaseData<'a>>,
}

#[derive(Serialize)]
struct CaseData<'a> {
    outcome: &'static str,
    scanner: &'a str,
    /// As people read it, one for each measurement.
    values: Vec<Option<f64>>,
    /// One for each finding.
    present: Vec<Option<bool>>,
}

fn gallery(page: &mut Markup, cases: &[Case<'_>], findings: &[&str], distributions: &[Distribution<'_>]) {
    let data = Data {
        measurements: distributions.iter().map(|d| format!("{}: {}", d.finding, d.measurement())).collect(),
        findings,
        by: distributions.iter().position(|d| d.name == CERTAINTY),
        cases: cases.iter().enumerate().map(|(n, case)| case_data(n, case, findings, distributions)).collect(),
    };
    page.raw("<form id=\"controls\" class=\"control\" hidden></form>\n<p id=\"shown\" class=\"note\" aria-live=\"polite\"></p>\n");
    page.within("div id=\"gallery\" role=\"region\" aria-labelledby=\"cases-title\" tabindex=\"0\"", |page| {
        for case in cases {
            page.within(&format!("figure class=\"case {}\"", case.verdict.outcome()), |page| tile(page, case));
        }
    });
    // Within a script element only `<` could end the data too early.
    let data = serde_json::to_string(&data).expect("names are texts, and numbers finite").replace('<', "\\u003c");
    page.raw("<script type=\"application/json\" id=\"cohort-data\">").raw(&data).raw("</script>\n");
}

fn case_data<'a>(n: usize, case: &'a Case<'_>, findings: &[&str], distributions: &[Distribution<'_>]) -> CaseData<'a> {
    CaseData {
        outcome: case.verdict.outcome(),
        scanner: &case.scanner,
        values: distributions.iter().map(|distribution| distribution.values[n]).collect(),
        present: findings.iter().map(|finding| finding_of(case, finding).map(|f| f.present)).collect(),
    }
}

fn tile(page: &mut Markup, case: &Case<'_>) {
    let picture = match &case.picture {
        Some(picture) => format!("<img loading=\"lazy\" src=\"data:image/jpeg;base64,{picture}\" alt=\"image with segments\">"),
        None => format!("<span class=\"none\">{}</span>", case.verdict.outcome()),
    };
    match &case.link {
        Some(link) => page.raw(&format!("<a href=\"{}\">{picture}</a>\n", escaped(link))),
        None => page.raw(&picture),
    };
    page.within("figcaption", |page| {
        page.element("span class=\"uid\"", &case.name).element("span class=\"value\"", "");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_are_told_one_by_one() {
        let words = |values: &[f64]| in_words(values, &summary(values).unwrap());
        assert_eq!(words(&[2977.0]), "2977");
        assert_eq!(words(&[3.0, 1.0, 2.0]), "1, 2, 3");
        assert!(words(&[3.0, 1.0, 2.0, 4.0]).starts_with("n 4, median"));
    }

    #[test]
    fn no_message_names_a_file() {
        for (message, expected) in [
            ("not a DICOM file (in/Doe (2)/1.dcm)", "not a DICOM file"),
            ("the file is cut off; send it again (doe.dcm)", "the file is cut off; send it again"),
            ("tilted by 12 degrees (at most 0.06)", "tilted by 12 degrees (at most 0.06)"),
            ("not a DICOM file (Doe, J)", "not a DICOM file"),
            ("gap after slice 19 (3.5)", "gap after slice 19 (3.5)"),
        ] {
            assert_eq!(without_path(message, Path::new("Doe, J")), expected);
        }
    }
}
