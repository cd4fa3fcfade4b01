//! `roentgen inspect`: what is in there, and which package would take it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::run::Problem;
use super::{Outcome, text};
use crate::geometry::Grid;
use crate::model::{Check, Eligible, Ineligible, Package};
use crate::series::{self, Discovery, GeometryPolicy, Series};

/// Say what is in folders and files: patients, studies, series, geometry, and which packages would take which series.
///
/// Reads headers only. Patients are numbered, never named. For each package that would not take
/// a series, every rule that fails is there with what it wants and what the series has.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Inspect {
    /// Folders and files to read.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,

    /// A package to ask beside the installed ones: a folder or a name.
    #[arg(long, value_name = "PACKAGE")]
    model: Vec<String>,

    /// Name the rules that hold, too.
    #[arg(long)]
    why: bool,

    /// Repeat free text (Series Description, Protocol Name and the like) that rules were held against. It may hold anything, names
    /// of patients among it: for your eyes, not for a log.
    #[arg(long, conflicts_with = "json")]
    show_text: bool,

    /// Print JSON instead of text; it holds every rule, and no free text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Inspection {
    patients: Vec<PatientEntry>,
    files_left_out: Vec<FileEntry>,
}

#[derive(Debug, Serialize)]
struct PatientEntry {
    studies: BTreeMap<String, Vec<SeriesEntry>>,
}

#[derive(Debug, Serialize)]
struct SeriesEntry {
    series_instance_uid: String,
    modality: String,
    instances: usize,
    warnings: Vec<String>,
    geometry: Geometry,
    packages: Vec<PackageEntry>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
enum Geometry {
    Regular { grid: Grid, spacing_mm: [f64; 3], orientation: String, notes: Vec<String> },
    Refused { reasons: Vec<Problem> },
}

#[derive(Debug, Serialize)]
struct PackageEntry {
    package: String,
    takes_it: bool,
    reasons: Vec<Problem>,
    /// Why it is taken before other series of the study.
    preferred: Vec<String>,
    checks: Vec<Check>,
    /// What is said for people.
    #[serde(skip)]
    lines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct FileEntry {
    path: PathBuf,
    #[serde(flatten)]
    problem: Problem,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        for input in &self.inputs {
            std::fs::metadata(input).with_context(|| format!("cannot read the input {}", input.display()))?;
        }
        let folders = super::packages();
        let mut packages: Vec<Package> = folders.installed().into_iter().filter_map(|(_, package)| package.ok()).collect();
        for wanted in &self.model {
            packages.push(folders.find(wanted)?);
        }
        let Discovery { series, skipped } = series::discover(&self.inputs);
        if series.is_empty() && skipped.is_empty() {
            bail!("no file in the input; give folders or files with DICOM instances");
        }

        let mut asked: Vec<Vec<PackageEntry>> = series.iter().map(|_| Vec::new()).collect();
        for package in &packages {
            asked.iter_mut().zip(self.ask(package, &series)).for_each(|(of_series, entry)| of_series.push(entry));
        }
        let mut patients: BTreeMap<&str, PatientEntry> = BTreeMap::new();
        for (one, packages) in series.iter().zip(asked) {
            let patient = patients.entry(&one.instances[0].patient_key).or_insert_with(|| PatientEntry { studies: BTreeMap::new() });
            patient.studies.entry(one.study_uid.clone()).or_default().push(entry(one, packages));
        }
        let inspection = Inspection {
            patients: patients.into_values().collect(),
            files_left_out: skipped.iter().map(|s| FileEntry { path: s.path.clone(), problem: Problem::of(&s.error) }).collect(),
        };
        let unreadable = skipped.iter().any(|s| !s.error.is_foreign());
        if self.json {
            text::print_json(&inspection)?;
        } else {
            inspection.print();
        }
        Ok(if unreadable { Outcome::SomeFailed } else { Outcome::AllDone })
    }
}

impl Inspect {
    /// One package on all series: what it says of one depends on the others where it takes the best of a study.
    fn ask(&self, package: &Package, series: &[Series]) -> Vec<PackageEntry> {
        let (checks, answers): (Vec<_>, Vec<_>) =
            series.iter().map(|one| package.assess(one)).map(|a| (a.checks.clone(), a.answer())).unzip();
        let entry = |(checks, answer): (Vec<Check>, Result<Eligible, Vec<Ineligible>>)| {
            let (reasons, preferred) = match answer {
                Ok(eligible) => (Vec::new(), eligible.preferred),
                Err(reasons) => (reasons, Vec::new()),
            };
            let line = |reason: &Ineligible| match reason {
                Ineligible::Rule(check) => format!("because {} [{}]", check.message(self.show_text), check.code),
                other => format!("because {}", Problem::of(other)),
            };
            let more = |check: &Check| match check.passed {
                Some(true) => Some(format!("holds: {} [{}]", check.message(self.show_text), check.code)),
                None => Some(format!("open: {} [{}]", check.message(self.show_text), check.code)),
                Some(false) => None,
            };
            let mut lines: Vec<String> = reasons.iter().map(line).chain(preferred.iter().map(|p| format!("taken {p}"))).collect();
            if self.why {
                lines.extend(checks.iter().filter_map(more));
            }
            PackageEntry {
                package: format!("{} {}", package.id.name, package.id.version),
                takes_it: reasons.is_empty(),
                reasons: reasons.iter().map(|r| Problem::of(r)).collect(),
                preferred,
                checks,
                lines,
            }
        };
        checks.into_iter().zip(package.take(answers)).map(entry).collect()
    }
}

fn entry(series: &Series, packages: Vec<PackageEntry>) -> SeriesEntry {
    let geometry = match series.gate(GeometryPolicy::default()) {
        Ok(stack) => Geometry::Regular {
            grid: stack.grid,
            spacing_mm: stack.grid.spacing_mm(),
            orientation: stack.grid.orientation().to_string(),
            notes: stack.notes,
        },
        Err(refusal) => Geometry::Refused { reasons: refusal.reasons.iter().map(|r| Problem::of(r)).collect() },
    };
    SeriesEntry {
        series_instance_uid: series.series_uid.clone(),
        modality: series.modality.clone(),
        instances: series.instances.len(),
        warnings: series.warnings.clone(),
        geometry,
        packages,
    }
}

impl Inspection {
    fn print(&self) {
        for (n, patient) in self.patients.iter().enumerate() {
            println!("patient {}", n + 1);
            for (study, series) in &patient.studies {
                println!("  study {study}");
                series.iter().for_each(SeriesEntry::print);
            }
        }
        for file in &self.files_left_out {
            println!("left out: {}", file.problem);
        }
    }
}

impl SeriesEntry {
    fn print(&self) {
        println!("    {} series {}, {} instances", self.modality, self.series_instance_uid, self.instances);
        self.warnings.iter().for_each(|warning| println!("      warning: {warning}"));
        match &self.geometry {
            Geometry::Regular { grid, spacing_mm: [x, y, z], orientation, notes } => {
                let [i, j, k] = grid.dims();
                println!("      geometry: regular, {i} x {j} x {k} voxels of {x:.3} x {y:.3} x {z:.3} mm, {orientation}");
                notes.iter().for_each(|note| println!("      note: {note}"));
            }
            Geometry::Refused { reasons } => reasons.iter().for_each(|reason| println!("      geometry: refused: {reason}")),
        }
        for package in &self.packages {
            println!("      package {}: {}", package.package, if package.takes_it { "would run" } else { "would not run" });
            package.lines.iter().for_each(|line| println!("        {line}"));
        }
    }
}
