//! What came of a run, for people.

use super::{Outcome, text};
use crate::cohort::{Done, FindingRecord, PartRecord, Report, Verdict};

/// Whether every series and volume that the package's rules take was analysed, and there was one.
pub(super) fn outcome(report: &Report) -> Outcome {
    let done = report.verdicts().any(|v| v.done().is_some());
    let failed = report.verdicts().any(Verdict::is_failure);
    let unreadable = report.files.iter().any(|f| f.unreadable);
    if done && !failed && !unreadable && report.missing.is_empty() { Outcome::AllDone } else { Outcome::SomeFailed }
}

/// What ran on what.
pub(super) fn headline(report: &Report) -> String {
    format!("{} on {}", report.package, report.device)
}

/// The whole report; of many studies only what failed, and how many did not.
pub(super) fn print(report: &Report, with_timings: bool) {
    say!("{}", headline(report));
    let many = report.series.len() + report.volumes.len() > MOST_IN_FULL;
    let is_told = |verdict: &Verdict| !many || verdict.is_failure();
    for series in report.series.iter().filter(|series| is_told(&series.verdict)) {
        let head = &series.head;
        say!("\n{} {}, {} instances", head.modality, head.series_instance_uid, head.instances);
        if let Some(PartRecord { number, of, label }) = &head.part {
            say!("  part {number} of {of}{}{label}", if label.is_empty() { "" } else { ": " });
        }
        head.warnings.iter().for_each(|warning| say!("  warning: {warning}"));
        print_verdict(&series.verdict, with_timings);
    }
    for volume in report.volumes.iter().filter(|volume| is_told(&volume.verdict)) {
        say!("\n{} {}", volume.format.name(), volume.path.display());
        volume.warnings.iter().for_each(|warning| say!("  warning: {warning}"));
        print_verdict(&volume.verdict, with_timings);
    }
    for file in report.files.iter().filter(|file| !many || file.unreadable) {
        say!("\n{}: {}", if file.unreadable { "unreadable" } else { "left out" }, file.problem);
    }
    for study in &report.missing {
        let uid = Some(&study.study_instance_uid).filter(|uid| !uid.is_empty());
        say!("\n{}\n  failed: {}", uid.map_or("a row of the list".to_owned(), |uid| format!("study {uid}")), study.problem);
    }
    say!("\n{}", summary(report));
    if with_timings {
        print_engine(report);
        print_peak_memory(report);
    }
}

/// Series and volumes that are told one by one.
const MOST_IN_FULL: usize = 50;

/// How many ended how.
fn summary(report: &Report) -> String {
    let count = |outcome: &str| report.verdicts().filter(|v| v.outcome() == outcome).count();
    let unreadable = report.files.iter().filter(|f| f.unreadable).count();
    let mut text = format!(
        "{} done, {} not eligible, {} refused, {} failed; {unreadable} files unreadable, {} left out",
        count("done"),
        count("not-eligible"),
        count("refused"),
        count("failed"),
        report.files.len() - unreadable,
    );
    if !report.missing.is_empty() {
        text += &format!("; {} studies did not come", report.missing.len());
    }
    if report.studies.complete < report.studies.chosen {
        text += &format!("; {} of {} studies are not done yet", report.studies.chosen - report.studies.complete, report.studies.chosen);
    }
    text
}

fn print_engine(report: &Report) {
    let time = &report.engine;
    if let Some(idle) = time.idle_percent() {
        let (reading, writing) = (time.waited_for_reading_s, time.waited_for_writing_s);
        say!("engine busy {:.3} s, idle {idle:.1} %: waited {reading:.3} s for reading, {writing:.3} s for writing", time.busy_s);
    }
}

/// For `--timings`.
pub(super) fn print_peak_memory(report: &Report) {
    match report.peak_memory_mb {
        Some(mb) => say!("peak memory {mb:.0} MB"),
        None => say!("peak memory: this system does not say"),
    }
}

fn print_verdict(verdict: &Verdict, with_timings: bool) {
    if let Verdict::Done(Done { folder, findings, preferred, stages_s, .. }) = verdict {
        preferred.iter().for_each(|line| say!("  taken {line}"));
        say!("  done: {}", folder.display());
        let text = findings_table(findings) + &if with_timings { text::timings(stages_s) } else { String::new() };
        text.lines().for_each(|line| say!("    {line}"));
    }
    let word = verdict.outcome().replace('-', " ");
    verdict.reasons().iter().for_each(|reason| say!("  {word}: {reason}"));
}

/// UCUM writes for programs.
fn unit_for_people(ucum: &str) -> &str {
    match ucum {
        "[hnsf'U]" => "HU",
        "1" => "",
        unit => unit,
    }
}

/// One row a finding; a column for each number that some finding has, and where the model says how certain it is, for that and for what
/// follows.
fn findings_table(findings: &[FindingRecord]) -> String {
    let mut columns: Vec<[&str; 2]> = Vec::new();
    for m in findings.iter().flat_map(|f| &f.measurements) {
        if !columns.contains(&[&m.name, &m.unit]) {
            columns.push([&m.name, &m.unit]);
        }
    }
    let headings = columns.iter().map(|[name, unit]| format!("{} {}", name.to_lowercase(), unit_for_people(unit)).trim_end().to_owned());
    let has_certainty = findings.iter().any(|f| f.certainty_percent.is_some());
    let of_certainty = ["present", "probability of presence %"].into_iter().filter(|_| has_certainty).map(str::to_owned);
    let header: Vec<String> = std::iter::once("finding".to_owned()).chain(of_certainty).chain(headings).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let cell = |f: &FindingRecord, n: usize| match f.measurements.iter().find(|m| [&m.name, &m.unit] == columns[n]).and_then(|m| m.value) {
        Some(value) if f.present && columns[n][1] == "1" => format!("{value:.3}"),
        Some(value) if f.present => format!("{value:.1}"),
        _ => "-".to_owned(),
    };
    let certainty = |f: &FindingRecord| {
        let percent = f.certainty_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}"));
        [if f.present { "yes" } else { "no" }.to_owned(), percent].into_iter().filter(|_| has_certainty)
    };
    let row =
        |f: &FindingRecord| std::iter::once(f.name.clone()).chain(certainty(f)).chain((0..columns.len()).map(|n| cell(f, n))).collect();
    text::table(&header, &findings.iter().map(row).collect::<Vec<_>>())
}
