//! Findings that were matched between studies, each with a plot of its volume over time.
//!
//! Time is counted in days from the first study of a patient that the page knows: no date stands here.

use std::collections::BTreeMap;

use super::{MOST_ROWS, plot, section, table};
use crate::cohort::Report;
use crate::cohort::record::{Done, FindingRecord};
use crate::findings::Status;
use crate::results::{Markup, number_for_people};

/// Plots at most.
const MOST_PLOTS: usize = 200;

/// A finding in one study.
struct Visit<'a> {
    day: i64,
    finding: &'a FindingRecord,
}

impl Visit<'_> {
    fn number(&self, name: &str, unit: &str) -> Option<f64> {
        self.finding.measurements.iter().find(|m| m.name == name && m.unit == unit)?.value
    }

    /// None where it is not found any more.
    fn volume_ml(&self) -> Option<f64> {
        self.number("Volume", "ml").filter(|_| self.finding.present)
    }
}

/// A finding with all studies that it was looked for in.
struct Tracked<'a> {
    patient: &'a str,
    visits: Vec<Visit<'a>>,
}

/// The section; nothing where no study was compared with another.
pub(super) fn over_time(page: &mut Markup, report: &Report) {
    let is_followed = |done: &Done| done.follow_up.is_some();
    if !report.series.iter().filter_map(|series| series.verdict.done()).any(is_followed) {
        return;
    }
    let tracked = tracked(report);
    let refused = refused(report);
    section(page, "follow-up", "Over time", |page| {
        let rule = "Findings of one patient that were matched after their images were registered. Days count from the first study.";
        page.element("p class=\"note\"", rule);
        if !refused.is_empty() {
            page.within("ul class=\"warnings\"", |page| {
                refused.iter().take(MOST_ROWS).for_each(|text| {
                    page.element("li", text);
                });
            });
        }
        if tracked.is_empty() {
            page.element("p class=\"note\"", "No finding was matched.");
            return;
        }
        let rows: Vec<[String; 8]> = tracked.iter().flat_map(rows).take(MOST_ROWS).collect();
        let header = ["Patient", "Finding", "Day", "Status", "Volume, ml", "Change, ml", "Change, %", "Doubling time, d"];
        table(page, "follow-up-title", &header, &rows);
        page.within("div class=\"plots\"", |page| tracked.iter().take(MOST_PLOTS).for_each(|tracked| drawn(page, tracked)));
    });
}

/// Studies whose findings were not matched, and why.
fn refused(report: &Report) -> Vec<String> {
    let of = |series: &crate::cohort::SeriesRecord| {
        let refused = series.verdict.done()?.follow_up.as_ref()?.refused.as_ref()?;
        Some(format!("{}: not matched. {refused}", series.head.series_instance_uid))
    };
    report.series.iter().filter_map(of).collect()
}

/// Findings that more than one study knows, by patient, and in the order in which they come.
fn tracked(report: &Report) -> Vec<Tracked<'_>> {
    let days = days(report);
    let mut by_uid: BTreeMap<(&str, &str), Tracked<'_>> = BTreeMap::new();
    for series in &report.series {
        let Some(done) = series.verdict.done() else { continue };
        let day = days.get(series.head.study_instance_uid.as_str()).copied().unwrap_or(0);
        let patient = series.head.acquisition.patient.as_str();
        for finding in done.findings.iter().filter(|finding| !finding.tracking_uid.is_empty()) {
            let tracked = by_uid.entry((patient, &finding.tracking_uid)).or_insert(Tracked { patient, visits: Vec::new() });
            tracked.visits.push(Visit { day, finding });
        }
    }
    let mut all: Vec<Tracked<'_>> = by_uid.into_values().filter(|tracked| tracked.visits.len() > 1).collect();
    for tracked in &mut all {
        tracked.visits.sort_by_key(|visit| visit.day);
    }
    // By what they were called first.
    all.sort_by(|a, b| (a.patient, &a.visits[0].finding.name).cmp(&(b.patient, &b.visits[0].finding.name)));
    all
}

/// Days of each study from the first one that it is compared with, by way of others.
fn days(report: &Report) -> BTreeMap<&str, i64> {
    let mut before: BTreeMap<&str, (&str, i64)> = BTreeMap::new();
    for series in &report.series {
        if let Some(followed) = series.verdict.done().and_then(|done| done.follow_up.as_ref()) {
            before.insert(&series.head.study_instance_uid, (&followed.study_instance_uid, followed.days));
        }
    }
    let day = |study: &str| {
        let (mut day, mut study) = (0, study);
        // A study is later than the one before it; the bound is for a journal that says otherwise.
        for _ in 0..=before.len() {
            let Some((earlier, days)) = before.get(study) else { break };
            (day, study) = (day + days, earlier);
        }
        day
    };
    before.keys().map(|study| (*study, day(study))).collect()
}

fn rows(tracked: &Tracked<'_>) -> Vec<[String; 8]> {
    let shown = |value: Option<f64>| value.map_or_else(|| "\u{2013}".to_owned(), number_for_people);
    let signed = |value: Option<f64>| {
        value.map_or_else(|| "\u{2013}".to_owned(), |v| format!("{}{}", if v > 0.0 { "+" } else { "" }, number_for_people(v)))
    };
    let row = |visit: &Visit<'_>| {
        [
            tracked.patient.to_owned(),
            visit.finding.name.clone(),
            visit.day.to_string(),
            visit.finding.status.map_or("first study", Status::word).to_owned(),
            shown(visit.volume_ml()),
            signed(visit.number("Volume change", "ml")),
            signed(visit.number("Volume change", "%")),
            shown(visit.number("Volume doubling time", "d")),
        ]
    };
    tracked.visits.iter().map(row).collect()
}

fn drawn(page: &mut Markup, tracked: &Tracked<'_>) {
    let points: Vec<(i64, Option<f64>)> = tracked.visits.iter().map(|visit| (visit.day, visit.volume_ml())).collect();
    let names: Vec<&str> = tracked.visits.iter().map(|visit| visit.finding.name.as_str()).collect();
    let caption = names.join(", then ");
    page.within("figure class=\"plot\"", |page| {
        page.element("figcaption", &format!("{caption}: volume, ml"));
        page.raw(&plot::over_time(&points, &format!("Volume over time of {caption}")));
    });
}
