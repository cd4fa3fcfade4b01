//! `roentgen inspect`: what is in there, and which package would take it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{Outcome, text};
use crate::cohort::Problem;
use crate::geometry::Grid;
use crate::model::{Check, Eligible, Ineligible, Package};
use crate::research::Format;
use crate::series::{self, Discovery, GeometryPolicy, Kind, Part, Segment, Segmentation, Series, Space, VolumeFile};

/// Say what is in folders and files: patients, studies, series, volumes, geometry, and which packages would take which.
///
/// Reads headers only. Patients are numbered, never named. For each package that would not take
/// a series, every rule that fails is there with what it wants and what the series has.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Inspect {
    /// Folders and files to read: DICOM, DICOMDIR, zip, NIfTI, NRRD.
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
    volumes: Vec<VolumeEntry>,
    files_left_out: Vec<FileEntry>,
}

/// A NIfTI or NRRD file.
#[derive(Debug, Serialize)]
struct VolumeEntry {
    path: PathBuf,
    format: Format,
    grid: Grid,
    spacing_mm: [f64; 3],
    orientation: String,
    notes: Vec<String>,
    packages: Vec<PackageEntry>,
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
    parts: Vec<PartEntry>,
    packages: Vec<PackageEntry>,
}

/// A part of a series, or all of it.
#[derive(Debug, Serialize)]
struct PartEntry {
    label: String,
    instances: usize,
    geometry: Geometry,
}

#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
enum Geometry {
    Regular {
        kind: Kind,
        space: Space,
        colour: bool,
        grid: Grid,
        spacing_mm: [f64; 3],
        orientation: String,
        notes: Vec<String>,
    },
    Segmentation {
        segmentation_type: &'static str,
        grid: Grid,
        spacing_mm: [f64; 3],
        orientation: String,
        segments: Vec<SegmentEntry>,
        notes: Vec<String>,
    },
    Refused {
        reasons: Vec<Problem>,
    },
}

/// A segment, without its label: that is free text.
#[derive(Debug, Serialize)]
struct SegmentEntry {
    number: u16,
    /// What it is, as `scheme:value`, where that looks like a code.
    property_type: Option<String>,
    algorithm_type: &'static str,
    tracking_uid: Option<String>,
    frames: usize,
}

#[derive(Debug, Serialize)]
struct PackageEntry {
    package: String,
    /// Which part of the series it was asked about, where it sees several.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    takes_it: bool,
    reasons: Vec<Problem>,
    /// Why it is taken before other series of the study.
    preferred: Vec<String>,
    /// What of a NIfTI or NRRD file is not checked or taken for granted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
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
        let found = series::discover(&self.inputs);
        let Discovery { series, volumes, skipped, .. } = &found;
        if series.is_empty() && volumes.is_empty() && skipped.is_empty() {
            bail!("no file in the input; give folders or files with DICOM instances, or NIfTI or NRRD volumes");
        }

        let mut asked: Vec<Vec<PackageEntry>> = series.iter().map(|_| Vec::new()).collect();
        for package in &packages {
            self.ask(package, &found).into_iter().for_each(|(n, entry)| asked[n].push(entry));
        }
        let mut patients: BTreeMap<&str, PatientEntry> = BTreeMap::new();
        for (one, packages) in series.iter().zip(asked) {
            let patient = patients.entry(&one.instances[0].patient_key).or_insert_with(|| PatientEntry { studies: BTreeMap::new() });
            patient.studies.entry(one.study_uid.clone()).or_default().push(entry(one, packages, &found));
        }
        let inspection = Inspection {
            patients: patients.into_values().collect(),
            volumes: volumes.iter().map(|file| self.volume(file, &packages, &found)).collect(),
            files_left_out: skipped
                .iter()
                .map(|s| FileEntry { path: s.path.clone(), problem: Problem::of(&s.error, |message| found.shown_in(message)) })
                .collect(),
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
    /// One package on all parts of all series, by its own policy: what it says of one depends on the others where it takes the best
    /// of a study. One entry for each part, with the place of its series.
    fn ask(&self, package: &Package, found: &Discovery) -> Vec<(usize, PackageEntry)> {
        let policy = package.manifest.select.geometry;
        let parts: Vec<(usize, Part<'_>)> =
            found.series.iter().enumerate().flat_map(|(n, one)| one.parts(policy).into_iter().map(move |part| (n, part))).collect();
        let (checks, answers): (Vec<_>, Vec<_>) =
            parts.iter().map(|(_, part)| package.assess(part)).map(|a| (a.checks.clone(), a.answer())).unzip();
        let alone: Vec<Part<'_>> = parts.iter().map(|(_, part)| part.clone()).collect();
        let answered = parts.iter().zip(checks).zip(package.take(&alone, answers));
        let entry = |(((n, part), checks), answer): ((&(usize, Part<'_>), _), Result<Eligible, _>)| {
            let part = (part.of > 1).then(|| format!("part {} of {}", part.number, part.of));
            (*n, PackageEntry { part, ..self.entry(package, checks, answer.map(|e| e.preferred), found) })
        };
        answered.map(entry).collect()
    }

    fn volume(&self, file: &VolumeFile, packages: &[Package], found: &Discovery) -> VolumeEntry {
        let ask = |package: &Package| {
            let assessment = package.assess_volume(file);
            let (checks, warnings) = (assessment.checks.clone(), assessment.warnings.clone());
            let mut entry = self.entry(package, checks, assessment.answer().map(|_| Vec::new()), found);
            entry.lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
            PackageEntry { warnings, ..entry }
        };
        let grid = file.header.grid;
        VolumeEntry {
            path: file.shown.clone(),
            format: file.header.format,
            grid,
            spacing_mm: grid.spacing_mm(),
            orientation: grid.orientation().to_string(),
            notes: file.header.notes.clone(),
            packages: packages.iter().map(ask).collect(),
        }
    }

    /// `answer`: why it is preferred, or why not taken.
    fn entry(
        &self,
        package: &Package,
        checks: Vec<Check>,
        answer: Result<Vec<String>, Vec<Ineligible>>,
        found: &Discovery,
    ) -> PackageEntry {
        let (reasons, preferred) = match answer {
            Ok(preferred) => (Vec::new(), preferred),
            Err(reasons) => (reasons, Vec::new()),
        };
        let line = |reason: &Ineligible| match reason {
            Ineligible::Rule(check) => format!("because {} [{}]", check.message(self.show_text), check.code),
            other => format!("because {}", Problem::of(other, |message| found.shown_in(message))),
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
            part: None,
            takes_it: reasons.is_empty(),
            reasons: reasons.iter().map(|r| Problem::of(r, |message| found.shown_in(message))).collect(),
            preferred,
            warnings: Vec::new(),
            checks,
            lines,
        }
    }
}

fn entry(series: &Series, packages: Vec<PackageEntry>, found: &Discovery) -> SeriesEntry {
    // As it is judged where the parts of a series are taken apart; what a package's own policy says is in its answer.
    let parts = series.parts(GeometryPolicy::Split);
    SeriesEntry {
        series_instance_uid: series.series_uid.clone(),
        modality: series.modality.clone(),
        instances: series.instances.len(),
        warnings: series.warnings.clone(),
        parts: parts.iter().map(|part| part_entry(part, found)).collect(),
        packages,
    }
}

fn part_entry(part: &Part<'_>, found: &Discovery) -> PartEntry {
    if part.is_segmentation() {
        let geometry = match part.segmentation() {
            Ok(segmentation) => segmentation_entry(segmentation),
            Err(refusal) => {
                Geometry::Refused { reasons: refusal.reasons.iter().map(|r| Problem::of(r, |message| found.shown_in(message))).collect() }
            }
        };
        return PartEntry { label: part.label.clone(), instances: part.instances().len(), geometry };
    }
    let geometry = match part.gate() {
        Ok(stack) => Geometry::Regular {
            kind: stack.kind,
            space: stack.space,
            colour: stack.is_colour(),
            grid: stack.grid,
            spacing_mm: stack.grid.spacing_mm(),
            orientation: stack.grid.orientation().to_string(),
            notes: stack.notes,
        },
        Err(refusal) => {
            Geometry::Refused { reasons: refusal.reasons.iter().map(|r| Problem::of(r, |message| found.shown_in(message))).collect() }
        }
    };
    PartEntry { label: part.label.clone(), instances: part.instances().len(), geometry }
}

fn segmentation_entry(segmentation: Segmentation) -> Geometry {
    let entry = |segment: &Segment| SegmentEntry {
        number: segment.number,
        property_type: segment.property_type.as_ref().map(|code| format!("{}:{}", code.scheme, code.value)).filter(|code| is_code(code)),
        algorithm_type: segment.algorithm_type.name(),
        tracking_uid: segment.tracking_uid.clone(),
        frames: segment.frames,
    };
    Geometry::Segmentation {
        segmentation_type: segmentation.kind.name(),
        grid: segmentation.grid,
        spacing_mm: segmentation.grid.spacing_mm(),
        orientation: segmentation.grid.orientation().to_string(),
        segments: segmentation.segments.iter().map(entry).collect(),
        notes: segmentation.notes,
    }
}

/// Whether a text looks like a code, and not like a name: what is shown of any header (`dataset::Attribute`).
fn is_code(text: &str) -> bool {
    text.len() <= 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b))
}

impl Inspection {
    fn print(&self) {
        for (n, patient) in self.patients.iter().enumerate() {
            say!("patient {}", n + 1);
            for (study, series) in &patient.studies {
                say!("  study {study}");
                series.iter().for_each(SeriesEntry::print);
            }
        }
        self.volumes.iter().for_each(VolumeEntry::print);
        for file in &self.files_left_out {
            say!("left out: {}", file.problem);
        }
    }
}

impl SeriesEntry {
    fn print(&self) {
        say!("    {} series {}, {} instances", self.modality, self.series_instance_uid, self.instances);
        self.warnings.iter().for_each(|warning| say!("      warning: {warning}"));
        for (n, part) in self.parts.iter().enumerate() {
            if self.parts.len() > 1 {
                let label = if part.label.is_empty() { String::new() } else { format!(" ({})", part.label) };
                say!("      part {} of {}{label}, {} instances", n + 1, self.parts.len(), part.instances);
            }
            part.print();
        }
        self.packages.iter().for_each(|package| package.print("      "));
    }
}

impl PackageEntry {
    fn print(&self, indent: &str) {
        let part = self.part.as_ref().map_or_else(String::new, |part| format!(" on {part}"));
        say!("{indent}package {}: {}{part}", self.package, if self.takes_it { "would run" } else { "would not run" });
        self.lines.iter().for_each(|line| say!("{indent}  {line}"));
    }
}

impl VolumeEntry {
    fn print(&self) {
        let Self { path, format, grid, spacing_mm: [x, y, z], orientation, notes, packages } = self;
        let [i, j, k] = grid.dims();
        say!("{} volume {}", format.name(), path.display());
        say!("  geometry: volume, {i} x {j} x {k} voxels of {x:.3} x {y:.3} x {z:.3} mm, {orientation}");
        notes.iter().for_each(|note| say!("  note: {note}"));
        packages.iter().for_each(|package| package.print("  "));
    }
}

impl PartEntry {
    fn print(&self) {
        match &self.geometry {
            Geometry::Regular { kind, space, colour, grid, spacing_mm: [x, y, z], orientation, notes } => {
                let [i, j, k] = grid.dims();
                let colour = if *colour { ", colour" } else { "" };
                let unit = if *space == Space::Pixels { "pixels" } else { "mm" };
                match kind {
                    Kind::Volume => {
                        say!("      geometry: volume, {i} x {j} x {k} voxels of {x:.3} x {y:.3} x {z:.3} mm, {orientation}{colour}")
                    }
                    Kind::Image => say!("      geometry: image, {i} x {j} pixels of {x:.3} x {y:.3} {unit}{colour}"),
                    Kind::Cine => say!("      geometry: cine, {k} frames of {i} x {j} pixels of {x:.3} x {y:.3} {unit}{colour}"),
                }
                notes.iter().for_each(|note| say!("      note: {note}"));
            }
            Geometry::Segmentation { segmentation_type, grid, spacing_mm: [x, y, z], orientation, segments, notes } => {
                let [i, j, k] = grid.dims();
                let count = if segments.len() == 1 { "1 segment".to_owned() } else { format!("{} segments", segments.len()) };
                say!(
                    "      segmentation: {segmentation_type}, {count} on {i} x {j} x {k} voxels of {x:.3} x {y:.3} x {z:.3} mm, {orientation}"
                );
                for segment in segments {
                    let what = segment.property_type.as_deref().unwrap_or("no code that can be shown");
                    let frames = if segment.frames > 0 { format!(", {} frames", segment.frames) } else { String::new() };
                    say!("        segment {}: {what}, {}{frames}", segment.number, segment.algorithm_type);
                }
                notes.iter().for_each(|note| say!("      note: {note}"));
            }
            Geometry::Refused { reasons } => reasons.iter().for_each(|reason| say!("      geometry: refused: {reason}")),
        }
    }
}
