//! `roentgen run`: a package over any number of folders and files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{EngineArgs, Outcome, OutputArgs, ResultArgs, text};
use crate::codes::sct;
use crate::engine::{Analysis, Engine, Input, Stage, Timings};
use crate::findings::{Findings, Measurement};
use crate::geometry::Coded;
use crate::model::{Check, Eligible, EligibleVolume, Ineligible};
use crate::research::Format;
use crate::results::{self, Forms};
use crate::series::{self, Discovery, Part};

/// Run a model package on studies.
///
/// Results for each series that the package takes, reasons for each that it does not.
/// Inputs are files and folders in any order, patients and series mixed; what belongs
/// together is decided by the DICOM headers. Beside DICOM files an input may be
///
///   a DICOMDIR                 the files that it refers to
///   a zip archive              its files; archives named *.zip in folders too
///   .nii .nii.gz .nrrd .nhdr   a NIfTI or NRRD volume, .hdr with .img a pair
///
/// Each analysed series gets a folder DIR/<Series Instance UID>, and
/// <Series Instance UID>.partN where a series has several, with
///
///   sr.dcm         the findings with a segment, DICOM SR (TID 1500)
///   sr-study.dcm   those without, what was not found among them (when there are any)
///   seg.dcm        the segments, DICOM SEG on the series' own grid (when there are any)
///   findings.json  the same findings with provenance (docs/findings.schema.json says what is in it)
///   report.html    a page with findings, pictures and provenance; it holds patient data
///   overview.png   three planes with and without overlay
///
/// A NIfTI or NRRD volume gets DIR/<first 16 digits of its SHA-256> with labels.nii.gz in place
/// of the DICOM objects. Such a file says neither what it shows nor what its values are: the
/// package's rules on that are not checked, which the results repeat.
///
/// DIR/report.json lists every series, volume and file with its outcome. A second run over the
/// same input with the same package and device writes the same objects under the same UIDs.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES, verbatim_doc_comment)]
pub(super) struct Run {
    /// The package: a folder with a model.toml, or the name of an installed package.
    #[arg(long, value_name = "PACKAGE")]
    model: String,

    /// Folders and files to read: DICOM, DICOMDIR, zip, NIfTI, NRRD.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,

    /// Folder for the results; made when it is not there.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    #[command(flatten)]
    results: ResultArgs,

    #[command(flatten)]
    engine: EngineArgs,

    #[command(flatten)]
    output_args: OutputArgs,
}

/// What became of every input: also written as `report.json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    roentgen_version: &'static str,
    package: String,
    device: String,
    series: Vec<SeriesReport>,
    volumes: Vec<VolumeReport>,
    files: Vec<FileReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_mb: Option<f64>,
}

/// What became of one series.
#[derive(Debug, Serialize)]
pub(super) struct SeriesReport {
    study_instance_uid: String,
    series_instance_uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartReport>,
    modality: String,
    instances: usize,
    warnings: Vec<String>,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
}

/// What became of one NIfTI or NRRD file.
#[derive(Debug, Serialize)]
struct VolumeReport {
    path: PathBuf,
    format: Format,
    warnings: Vec<String>,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Which part of a series that has several.
#[derive(Debug, Serialize)]
struct PartReport {
    number: usize,
    of: usize,
    /// What sets it apart.
    label: String,
}

/// How one series or volume ended.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Results are written.
    Done {
        folder: PathBuf,
        findings: Vec<FindingLine>,
        /// Each rule of the package in short: what the series has.
        selected_because: Vec<String>,
        /// Why it was taken before other series of its study that fit as well.
        preferred: Vec<String>,
        #[serde(serialize_with = "stage_seconds")]
        stages_s: Timings,
    },
    /// The package's rules do not take it: nothing is wrong with it.
    NotEligible { reasons: Vec<Problem> },
    /// The package's rules take it, but its geometry is not safe to analyse.
    Refused { reasons: Vec<Problem> },
    /// It should have been analysed and was not.
    Failed { reasons: Vec<Problem> },
}

/// A finding in one line.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FindingLine {
    pub(super) name: String,
    pub(super) present: bool,
    /// The model's output for *present*, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certainty_percent: Option<f64>,
    pub(super) measurements: Vec<NumberLine>,
}

/// A number in one line.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NumberLine {
    pub(super) name: String,
    pub(super) value: Option<f64>,
    pub(super) unit: String,
}

/// A reason: what programs match on, and what people read.
#[derive(Debug, Serialize)]
pub(super) struct Problem {
    code: &'static str,
    message: String,
}

impl Problem {
    /// With the names of archives' entries for paths of temporary files.
    pub(super) fn of(error: &dyn Coded, found: &Discovery) -> Self {
        Self { code: error.code(), message: found.shown_in(&error.to_string()) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

/// A file that is no part of any series.
#[derive(Debug, Serialize)]
struct FileReport {
    path: PathBuf,
    unreadable: bool,
    #[serde(flatten)]
    problem: Problem,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let package = super::packages().find(&self.model)?;
        let mut engine = Engine::new(package, &self.engine.options(&self.results.results))?;
        let report = run_all(&mut engine, &self.inputs, &self.results.results, &self.output)?;
        if self.output_args.json {
            text::print_json(&report)?;
        } else {
            report.print(self.output_args.timings);
        }
        Ok(report.outcome())
    }
}

/// Runs `engine` on everything under `inputs`.
///
/// # Errors
/// Only what keeps it from starting: no input, no output folder. All else is in the report.
pub(super) fn run_all(engine: &mut Engine, inputs: &[PathBuf], forms: &Forms, output: &Path) -> anyhow::Result<Report> {
    for input in inputs {
        std::fs::metadata(input).with_context(|| format!("cannot read the input {}", input.display()))?;
    }
    std::fs::create_dir_all(output).with_context(|| format!("cannot make the output folder {}", output.display()))?;
    let found = series::discover(inputs);
    let Discovery { series, volumes, skipped, .. } = &found;
    if series.is_empty() && volumes.is_empty() && skipped.is_empty() {
        bail!("no file in the input; give folders or files with DICOM instances, or NIfTI or NRRD volumes");
    }

    let package = engine.package();
    let parts: Vec<Part<'_>> = series.iter().flat_map(|one| one.parts(package.manifest.select.geometry)).collect();
    let answers = package.take(parts.iter().map(|part| package.eligible(part)).collect());
    let volume_answers: Vec<_> = volumes.iter().map(|file| package.assess_volume(file).answer()).collect();
    let bar = text::progress(parts.len() + volumes.len());
    let mut reports = Vec::with_capacity(parts.len());
    for (part, answer) in parts.iter().zip(answers) {
        // A part that is all of its series has the series' name.
        let suffix = if part.of > 1 { format!(".part{}", part.number) } else { String::new() };
        let folder = output.join(format!("{}{suffix}", part.series.series_uid));
        let job = answer.map(Job::from);
        let verdict = run_one(engine, &found, job, forms, |_| folder, &mut |stage| bar.set_message(stage.to_string()));
        reports.push(SeriesReport {
            study_instance_uid: part.series.study_uid.clone(),
            series_instance_uid: part.series.series_uid.clone(),
            part: (part.of > 1).then(|| PartReport { number: part.number, of: part.of, label: part.label.clone() }),
            modality: part.first().modality.clone(),
            instances: part.instances().len(),
            warnings: part.series.warnings.clone(),
            verdict,
        });
        bar.inc(1);
    }
    let mut volume_reports = Vec::with_capacity(volumes.len());
    for (file, answer) in volumes.iter().zip(volume_answers) {
        let mut warnings = Vec::new();
        let folder = |findings: &Findings| {
            warnings.clone_from(&findings.warnings);
            output.join(findings.source.file.as_ref().map_or("", |f| &f.sha256[..16]))
        };
        let verdict = run_one(engine, &found, answer.map(Job::from), forms, folder, &mut |stage| bar.set_message(stage.to_string()));
        volume_reports.push(VolumeReport { path: file.shown.clone(), format: file.header.format, warnings, verdict });
        bar.inc(1);
    }
    bar.finish_and_clear();

    let files = skipped
        .iter()
        .map(|s| FileReport { path: s.path.clone(), unreadable: !s.error.is_foreign(), problem: Problem::of(&s.error, &found) })
        .collect();
    let report = Report {
        roentgen_version: env!("CARGO_PKG_VERSION"),
        package: format!("{} {}", engine.package().id.name, engine.package().id.version_string()),
        device: engine.device(),
        series: reports,
        volumes: volume_reports,
        files,
        peak_memory_mb: text::peak_memory_mb(),
    };
    let path = output.join("report.json");
    let json = serde_json::to_vec_pretty(&report)?;
    std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(report)
}

/// What is to be analysed, and why.
struct Job {
    input: Input,
    checks: Vec<Check>,
    preferred: Vec<String>,
}

impl From<Eligible> for Job {
    fn from(Eligible { stack, checks, preferred, .. }: Eligible) -> Self {
        Self { input: stack.into(), checks, preferred }
    }
}

impl From<EligibleVolume> for Job {
    fn from(volume: EligibleVolume) -> Self {
        Self { checks: volume.checks.clone(), input: volume.into(), preferred: Vec::new() }
    }
}

fn run_one(
    engine: &mut Engine,
    found: &Discovery,
    job: Result<Job, Vec<Ineligible>>,
    forms: &Forms,
    folder_of: impl FnOnce(&Findings) -> PathBuf,
    on_stage: &mut dyn FnMut(Stage),
) -> Verdict {
    let Job { input, checks, preferred } = match job {
        Ok(job) => job,
        Err(reasons) => {
            let refused = reasons.iter().all(Ineligible::is_refusal);
            let reasons = reasons.iter().map(|r| Problem::of(r, found)).collect();
            return if refused { Verdict::Refused { reasons } } else { Verdict::NotEligible { reasons } };
        }
    };
    let selected_because = checks.iter().map(Check::short).collect();
    let cancel = AtomicBool::new(false);
    let Analysis { findings, image, mut timings } = match engine.analyse(input, &cancel, on_stage) {
        Ok(analysis) => analysis,
        Err(error) => return Verdict::Failed { reasons: vec![Problem::of(&error, found)] },
    };
    let folder = folder_of(&findings);
    match timings.time(Stage::Write, on_stage, || results::write_all(&findings, &image, forms, &folder)) {
        Ok(_) => Verdict::Done { folder, findings: lines(&findings), selected_because, preferred, stages_s: timings },
        Err(error) => Verdict::Failed { reasons: vec![Problem::of(&error, found)] },
    }
}

fn lines(findings: &Findings) -> Vec<FindingLine> {
    // Image values go by how they were derived from the voxels: their unit says what they are.
    let name = |m: &Measurement| match &m.derivation {
        Some(derivation) if m.concept == sct::DIAMETER => format!("{} {}", derivation.meaning, m.concept.meaning),
        Some(derivation) => derivation.meaning.to_string(),
        None => m.concept.meaning.to_string(),
    };
    let number = |m: &Measurement| NumberLine { name: name(m), value: m.value, unit: m.unit.value.to_string() };
    let line = |f: &crate::findings::Finding| FindingLine {
        name: f.name.clone(),
        present: f.present,
        certainty_percent: f.certainty_percent,
        measurements: f.measurements.iter().map(number).collect(),
    };
    findings.findings.iter().map(line).collect()
}

fn stage_seconds<S: serde::Serializer>(timings: &Timings, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(timings.0.iter().map(|(stage, time)| (stage, Duration::as_secs_f64(time))))
}

impl Report {
    /// The series in the order they were found.
    pub(super) fn series(&self) -> &[SeriesReport] {
        &self.series
    }

    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.series.iter().map(|s| &s.verdict).chain(self.volumes.iter().map(|v| &v.verdict))
    }

    /// Whether every series and volume that the package's rules take was analysed, and there was one.
    pub(super) fn outcome(&self) -> Outcome {
        let done = self.verdicts().any(|v| matches!(v, Verdict::Done { .. }));
        let failed = self.verdicts().any(|v| matches!(v, Verdict::Failed { .. } | Verdict::Refused { .. }));
        let unreadable = self.files.iter().any(|f| f.unreadable);
        if done && !failed && !unreadable { Outcome::AllDone } else { Outcome::SomeFailed }
    }

    /// What ran on what.
    pub(super) fn headline(&self) -> String {
        format!("{} on {}", self.package, self.device)
    }

    /// For people.
    pub(super) fn print(&self, with_timings: bool) {
        println!("{}", self.headline());
        for series in &self.series {
            println!("\n{} {}, {} instances", series.modality, series.series_instance_uid, series.instances);
            if let Some(PartReport { number, of, label }) = &series.part {
                println!("  part {number} of {of}{}{label}", if label.is_empty() { "" } else { ": " });
            }
            for warning in &series.warnings {
                println!("  warning: {warning}");
            }
            series.verdict.print(with_timings);
        }
        for volume in &self.volumes {
            println!("\n{} {}", volume.format.name(), volume.path.display());
            volume.warnings.iter().for_each(|warning| println!("  warning: {warning}"));
            volume.verdict.print(with_timings);
        }
        for file in &self.files {
            println!("\n{}: {}", if file.unreadable { "unreadable" } else { "left out" }, file.problem);
        }
        let count = |wanted: fn(&Verdict) -> bool| self.verdicts().filter(|v| wanted(v)).count();
        println!(
            "\n{} done, {} not eligible, {} refused, {} failed; {} files unreadable, {} left out",
            count(|v| matches!(v, Verdict::Done { .. })),
            count(|v| matches!(v, Verdict::NotEligible { .. })),
            count(|v| matches!(v, Verdict::Refused { .. })),
            count(|v| matches!(v, Verdict::Failed { .. })),
            self.files.iter().filter(|f| f.unreadable).count(),
            self.files.iter().filter(|f| !f.unreadable).count(),
        );
        if with_timings {
            self.print_peak_memory();
        }
    }

    /// For `--timings`.
    pub(super) fn print_peak_memory(&self) {
        match self.peak_memory_mb {
            Some(mb) => println!("peak memory {mb:.0} MB"),
            None => println!("peak memory: this system does not say"),
        }
    }
}

impl Verdict {
    fn print(&self, with_timings: bool) {
        let (word, reasons) = match self {
            Self::Done { folder, findings, preferred, stages_s, .. } => {
                preferred.iter().for_each(|line| println!("  taken {line}"));
                println!("  done: {}", folder.display());
                let text = findings_table(findings) + &if with_timings { text::timings(stages_s) } else { String::new() };
                text.lines().for_each(|line| println!("    {line}"));
                return;
            }
            Self::NotEligible { reasons } => ("not eligible", reasons),
            Self::Refused { reasons } => ("refused", reasons),
            Self::Failed { reasons } => ("failed", reasons),
        };
        reasons.iter().for_each(|reason| println!("  {word}: {reason}"));
    }
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
fn findings_table(findings: &[FindingLine]) -> String {
    let mut columns: Vec<[&str; 2]> = Vec::new();
    for m in findings.iter().flat_map(|f| &f.measurements) {
        if !columns.contains(&[&m.name, &m.unit]) {
            columns.push([&m.name, &m.unit]);
        }
    }
    let headings = columns.iter().map(|[name, unit]| format!("{} {}", name.to_lowercase(), unit_for_people(unit)).trim_end().to_owned());
    let has_certainty = findings.iter().any(|f| f.certainty_percent.is_some());
    let of_certainty = ["present", "certainty %"].into_iter().filter(|_| has_certainty).map(str::to_owned);
    let header: Vec<String> = std::iter::once("finding".to_owned()).chain(of_certainty).chain(headings).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let cell = |f: &FindingLine, n: usize| match f.measurements.iter().find(|m| [&m.name, &m.unit] == columns[n]).and_then(|m| m.value) {
        Some(value) if f.present && columns[n][1] == "1" => format!("{value:.3}"),
        Some(value) if f.present => format!("{value:.1}"),
        _ => "-".to_owned(),
    };
    let certainty = |f: &FindingLine| {
        let percent = f.certainty_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}"));
        [if f.present { "yes" } else { "no" }.to_owned(), percent].into_iter().filter(|_| has_certainty)
    };
    let row = |f: &FindingLine| std::iter::once(f.name.clone()).chain(certainty(f)).chain((0..columns.len()).map(|n| cell(f, n))).collect();
    text::table(&header, &findings.iter().map(row).collect::<Vec<_>>())
}
