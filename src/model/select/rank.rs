//! The best of several series of one study that fit.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::answer::{Answer, Eligible, Ineligible};
use super::evaluate::coverage_mm;
use super::rules::{Pattern, Rank, RankedAttribute, Take};
use crate::dataset::{Attribute, acquired_at};
use crate::model::Package;
use crate::series::Part;

/// Candidates from the best on, and what decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Places in the list of candidates, best first.
    pub order: Vec<usize>,
    /// For each place of `order` but the first: why the best one comes before it.
    pub why: Vec<String>,
}

/// What one rule of ranking says of one candidate.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    /// Lower is better; in thousandths of its unit, so that rounding in headers decides nothing.
    Low(i64),
    /// Higher is better.
    High(i64),
    /// Later is better.
    Late(String),
    /// Nothing to rank by: after all others.
    Missing,
}

impl Key {
    fn low(value: f64) -> Self {
        Self::Low((value * 1e3).round() as i64)
    }

    fn high(value: f64) -> Self {
        Self::High((value * 1e3).round() as i64)
    }

    /// `Less` is better.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Low(a), Self::Low(b)) => a.cmp(b),
            (Self::High(a), Self::High(b)) => b.cmp(a),
            (Self::Late(a), Self::Late(b)) => b.cmp(a),
            (a, b) => (*a == Self::Missing).cmp(&(*b == Self::Missing)),
        }
    }
}

impl Package {
    /// Of `answers` on these parts of the series of one run, those that are analysed: each that fits, or with `take = "best"` the best of each
    /// study, while the others become [`Ineligible::Outranked`]. Of a package with several channels those that have their other channels in
    /// the study, with these; the others become [`Ineligible::Channel`].
    ///
    /// # Panics
    /// Where there is not one answer a part: a broken promise of the caller.
    pub fn take(&self, parts: &[Part<'_>], answers: Vec<Answer>) -> Vec<Answer> {
        assert_eq!(parts.len(), answers.len(), "one answer a part");
        self.with_channels(parts, self.best_of_each_study(answers))
    }

    /// Of `answers`, with `take = "best"`, the best of each study.
    pub(super) fn best_of_each_study(&self, mut answers: Vec<Answer>) -> Vec<Answer> {
        if self.manifest.select.take == Take::All {
            return answers;
        }
        let mut studies: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
        for (place, eligible) in answers.iter().enumerate().filter_map(|(n, a)| Some((n, a.as_ref().ok()?))) {
            let patient = eligible.stack.frames.first().map(|f| f.instance.patient_key.clone()).unwrap_or_default();
            studies.entry((patient, eligible.stack.study_uid.clone())).or_default().push(place);
        }
        for places in studies.into_values().filter(|p| p.len() > 1) {
            let candidates: Vec<&Eligible> = places.iter().filter_map(|&p| answers[p].as_ref().ok()).collect();
            let Ranking { order, why } = rank(&self.manifest.select.rank, &candidates);
            let names: Vec<String> = candidates.iter().map(|c| c.name.clone()).collect();
            for (&other, why) in order.iter().skip(1).zip(&why) {
                answers[places[other]] = Err(vec![Ineligible::Outranked { series: names[order[0]].clone(), why: why.clone() }]);
            }
            if let Ok(best) = &mut answers[places[order[0]]] {
                best.preferred = order.iter().skip(1).zip(&why).map(|(&other, why)| format!("before {}: {why}", names[other])).collect();
            }
        }
        answers
    }
}

/// Orders `candidates` of one study by `rules`: the first that differs decides. Where none does, the lower series number, and then the UID.
pub(super) fn rank(rules: &[Rank], candidates: &[&Eligible]) -> Ranking {
    let keys: Vec<Vec<Key>> = candidates.iter().map(|c| rules.iter().map(|rule| key(rule, c)).collect()).collect();
    let first_difference =
        |a: usize, b: usize| keys[a].iter().zip(&keys[b]).map(|(a, b)| a.compare(b)).enumerate().find(|(_, o)| o.is_ne());
    let identity = |n: usize| {
        let first = candidates[n].stack.frames.first().map(|f| &f.instance);
        (first.and_then(|i| i.series_number).unwrap_or(i64::MAX), &candidates[n].stack.series_uid)
    };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| first_difference(a, b).map_or_else(|| identity(a).cmp(&identity(b)), |(_, ordering)| ordering));
    let why = order.iter().skip(1).map(|&other| match first_difference(order[0], other) {
        Some((rule, _)) => explain(&rules[rule], candidates[order[0]], candidates[other]),
        None => "equal by every rule of ranking, it has the lower series number or UID".to_owned(),
    });
    Ranking { why: why.collect(), order }
}

fn key(rule: &Rank, candidate: &Eligible) -> Key {
    let grid = &candidate.stack.grid;
    let [x, y, z] = grid.spacing_mm();
    match rule {
        Rank::Thinnest {} => Key::low(z),
        Rank::FinestPixels {} => Key::low(x.max(y)),
        Rank::MostSlices {} => Key::High(i64::from(grid.dims()[2])),
        Rank::LargestCoverage {} => Key::high(coverage_mm(&candidate.stack.grid)),
        Rank::Newest {} => candidate.stack.frames.iter().filter_map(|f| acquired_at(&f.instance)).max().map_or(Key::Missing, Key::Late),
        Rank::Kernel { patterns } => earliest(candidate, &Attribute::known("ConvolutionKernel"), patterns),
        Rank::Description { patterns } => earliest(candidate, &Attribute::known("SeriesDescription"), patterns),
        Rank::Matching { tag, patterns } => earliest(candidate, &tag.0, patterns),
        Rank::Highest { tag } => number(candidate, tag).map_or(Key::Missing, Key::high),
        Rank::Lowest { tag } => number(candidate, tag).map_or(Key::Missing, Key::low),
    }
}

/// Values of the first instance.
fn values(candidate: &Eligible, attribute: &Attribute) -> Vec<String> {
    candidate.stack.frames.first().map(|f| attribute.values(f)).unwrap_or_default()
}

fn earliest(candidate: &Eligible, attribute: &Attribute, patterns: &[Pattern]) -> Key {
    let values = values(candidate, attribute);
    let place = patterns.iter().position(|p| values.iter().any(|v| p.matches(v)));
    place.map_or(Key::Missing, |n| Key::Low(n as i64))
}

fn number(candidate: &Eligible, RankedAttribute(attribute): &RankedAttribute) -> Option<f64> {
    values(candidate, attribute).iter().find_map(|v| attribute.number(v))
}

/// Why `best` comes before `other` by `rule`, with both values.
fn explain(rule: &Rank, best: &Eligible, other: &Eligible) -> String {
    let both = |of: &dyn Fn(&Eligible) -> String| format!("{} against {}", of(best), of(other));
    let spacing = |c: &Eligible| c.stack.grid.spacing_mm();
    let matched = |name: &str, attribute: &Attribute, patterns: &[Pattern]| {
        let pattern = |c: &Eligible| match earliest(c, attribute, patterns) {
            Key::Low(n) => format!("`{}`", patterns[n as usize]),
            _ => "no pattern".to_owned(),
        };
        format!("{name} matches {}", both(&pattern))
    };
    let measured = |word: &str, tag: &RankedAttribute| {
        let text = |c: &Eligible| number(c, tag).map_or_else(|| "none".to_owned(), |n| n.to_string());
        format!("{word} {}: {}", tag.0, both(&text))
    };
    match rule {
        Rank::Thinnest {} => format!("thinner slices, {}", both(&|c| format!("{:.2} mm", spacing(c)[2]))),
        Rank::FinestPixels {} => format!("finer pixels, {}", both(&|c| format!("{:.3} mm", spacing(c)[0].max(spacing(c)[1])))),
        Rank::MostSlices {} => format!("more slices, {}", both(&|c| c.stack.grid.dims()[2].to_string())),
        Rank::LargestCoverage {} => format!("larger extent, {}", both(&|c| format!("{:.1} mm", coverage_mm(&c.stack.grid)))),
        Rank::Newest {} if key(rule, other) == Key::Missing => "its time of acquisition is known".to_owned(),
        Rank::Newest {} => "acquired later".to_owned(),
        Rank::Kernel { patterns } => matched("Convolution Kernel", &Attribute::known("ConvolutionKernel"), patterns),
        Rank::Description { patterns } => matched("Series Description", &Attribute::known("SeriesDescription"), patterns),
        Rank::Matching { tag, patterns } => matched(&tag.0.to_string(), &tag.0, patterns),
        Rank::Highest { tag } => measured("higher", tag),
        Rank::Lowest { tag } => measured("lower", tag),
    }
}
