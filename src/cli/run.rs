//! `roentgen run`: a package over any number of folders and files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::{EngineArgs, Outcome, OutputArgs, ResultArgs, outcome, text};
use crate::cohort::{
    self, Asked, Event, Plan, PlannedFetch, PlannedSeries, PlannedStudy, Report, Shard, StudyRecord, bytes_for_people, time_for_people,
};
use crate::engine::Engine;
use crate::model::Package;

/// Run a model package on studies.
///
/// Results for each series that the package takes, reasons for each that it does not.
/// Inputs are files and folders in any order, patients and series mixed; what belongs
/// together is decided by the DICOM headers. Beside DICOM files an input may be
///
///   a DICOMDIR                 the files that it refers to
///   a zip archive              its files; archives named *.zip in folders too
///   .nii .nii.gz .nrrd .nhdr   a NIfTI or NRRD volume, .hdr with .img a pair
///   .csv                       a list of studies: a column path, and study_instance_uid where
///                              not everything below the path is meant; or accession_number or
///                              study_instance_uid alone, with --from (docs/cohorts.md)
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
/// A package that sees several series at once (multi-channel MR) finds them in the study; of
/// files NAME_0000.nii.gz is its first channel, NAME_0001.nii.gz the second, in one folder.
///
/// DIR/report.json lists every series, volume and file with its outcome. A second run over the
/// same input with the same package and device writes the same objects under the same UIDs.
///
/// Ctrl-C ends after the series at hand, a second one at once. However a run was stopped, the
/// same command with --resume goes on where it was; several such commands, on one machine or
/// on many that share DIR, divide the studies among themselves.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES, verbatim_doc_comment, args_override_self = true)]
pub(super) struct Run {
    /// The package: a folder with a model.toml, or the name of an installed package.
    #[arg(long, value_name = "PACKAGE")]
    model: String,

    /// Folders and files to read: DICOM, DICOMDIR, zip, NIfTI, NRRD, lists of studies. With --only those of its list where none is given.
    #[arg(required_unless_present = "only", value_name = "INPUT")]
    inputs: Vec<PathBuf>,

    /// Folder for the results; made when it is not there.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// Go on with what is in DIR: what is done stays, what was begun is done again. Helps a process that is at work there.
    #[arg(long)]
    resume: bool,

    /// Only the I-th of N equal shares of the studies: `1/4`. Studies are never torn apart. Goes on with what is in DIR.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// Only the studies of this list, and these again: DIR/failures.csv, for one. The others in DIR stay.
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,

    /// A TOML file with a table [source]: the PACS that has the studies of the lists that name no path. By C-FIND with C-GET or C-MOVE:
    /// `ae_title`, `address`; by DICOMweb: `url`.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// A TOML file with these arguments: `model = "ct-tissue"`, `inputs = ["incoming"]`, `output = "out"`, `resume = true`. Those of the
    /// command line win. Paths in it count from its folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Say what would be done, with which series and why not with others, and stop.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    results: ResultArgs,

    #[command(flatten)]
    engine: EngineArgs,

    #[command(flatten)]
    output_args: OutputArgs,
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let package = super::packages().find(&self.model)?;
        if self.dry_run {
            return self.plan(&package);
        }
        let mut engine = Engine::new(package, &self.engine.options(&self.results.results))?;
        let report = run_all(&mut engine, &self.asked())?;
        if self.output_args.json {
            text::print_json(&report)?;
        } else {
            outcome::print(&report, self.output_args.timings);
            if report.has_failures() {
                say!("\nagain, those alone: {}", self.command_for_failures());
            }
        }
        if report.is_stopped() {
            eprintln!("stopped before the end: the same command with --resume goes on");
            return Ok(Outcome::Stopped);
        }
        Ok(outcome::outcome(&report))
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            inputs: &self.inputs,
            output: &self.output,
            from: self.from.as_deref(),
            forms: &self.results.results,
            resume: self.resume,
            shard: self.shard,
            only: self.only.as_deref(),
        }
    }

    /// What does again what failed, for a shell.
    fn command_for_failures(&self) -> String {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let mut command = format!("roentgen run --model {} --output {}", quoted(Path::new(&self.model)), quoted(&self.output));
        command += &format!(" --device {} --results {}", self.engine.device, self.results.results);
        command += &self.from.as_deref().map_or_else(String::new, |from| format!(" --from {}", quoted(from)));
        command += &format!(" --only {}", quoted(&self.output.join(cohort::FAILURES_FILE)));
        self.inputs.iter().for_each(|input| command += &format!(" {}", quoted(input)));
        command
    }

    fn plan(&self, package: &Package) -> anyhow::Result<Outcome> {
        let plan = cohort::plan(package, &self.asked(), &|text| eprintln!("{text}"))?;
        if self.output_args.json {
            text::print_json(&plan)?;
        } else {
            print_plan(&plan);
        }
        Ok(if plan.takes_some() { Outcome::AllDone } else { Outcome::SomeFailed })
    }
}

/// Runs `engine` on what is asked, with a bar on a terminal. The first Ctrl-C ends it after the series at hand, the second at once.
///
/// # Errors
/// Only what keeps it from starting, or from noting what is done. All else is in the report.
pub(super) fn run_all(engine: &mut Engine, asked: &Asked<'_>) -> anyhow::Result<Report> {
    static STOP: AtomicBool = AtomicBool::new(false);
    super::signals::on_stop(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(super::signals::STOPPED_AT_ONCE);
        }
        eprintln!("\nstopping after the series at hand; once more stops at once");
    })?;
    let bar = text::progress();
    let hear = |event| match event {
        Event::Begins { studies, done } => {
            bar.set_length(studies as u64);
            bar.set_position(done as u64);
            bar.reset_eta();
            if done > 0 {
                bar.suspend(|| eprintln!("{done} of {studies} studies are done already"));
            }
        }
        Event::Stage(stage) => bar.set_message(stage.to_string()),
        Event::StudyDone => bar.inc(1),
        Event::Say(text) => bar.suspend(|| eprintln!("{text}")),
    };
    let report = cohort::run(engine, asked, &STOP, &hear);
    bar.finish_and_clear();
    Ok(report?)
}

/// A line for each series.
fn print_plan(plan: &Plan) {
    for PlannedStudy { study_instance_uid, volume, is_done, fetch, series, bytes } in &plan.studies {
        let name = match volume {
            Some(path) => format!("volume {}", path.display()),
            None if study_instance_uid.is_empty() => "study without UID".to_owned(),
            None => format!("study {study_instance_uid}"),
        };
        let done = if *is_done { ", done" } else { "" };
        if let Some(fetch) = fetch {
            say!("{name}{}{done}", told(fetch));
            continue;
        }
        say!("{name}, {}{done}", bytes_for_people(*bytes));
        for PlannedSeries { series_instance_uid, part, modality, instances, reasons, is_refused } in series {
            let part = part.map_or_else(String::new, |part| format!(" part {part}"));
            if !series_instance_uid.is_empty() {
                say!("  {modality} {series_instance_uid}{part}, {instances} instances");
            }
            if reasons.is_empty() {
                say!("    {}", if *is_done { "is done" } else { "would be analysed" });
            }
            let word = if *is_refused { "refused" } else { "not eligible" };
            reasons.iter().for_each(|reason| say!("    {word}: {reason}"));
        }
    }
    for StudyRecord { study_instance_uid, accession_number, problem } in &plan.missing {
        let name = if accession_number.is_empty() { study_instance_uid } else { accession_number };
        say!("{name}\n    failed: {problem}");
    }
    let done = plan.studies.iter().filter(|study| study.is_done).count();
    let bytes = plan.studies.iter().map(|study| study.bytes).sum();
    let (studies, to_analyse) = (plan.studies.len(), plan.to_analyse());
    say!("\n{studies} studies, {}, {done} of them done; {to_analyse} series would be analysed", bytes_for_people(bytes));
    if plan.to_fetch() + plan.missing.len() > 0 {
        say!("{} studies would be fetched; {} are not there, or not surely", plan.to_fetch(), plan.missing.len());
    }
    say!("{} files unreadable, {} left out", plan.unreadable, plan.left_out);
    match &plan.estimate {
        Some(estimate) => say!(
            "at most {} and {} of disk, from the {} that are done",
            time_for_people(Duration::try_from_secs_f64(estimate.at_most_s).unwrap_or_default()),
            bytes_for_people(estimate.result_bytes),
            estimate.from
        ),
        None => say!("time and disk are known once some are done: the run says so after three studies"),
    }
    if let Some(free) = plan.free_bytes {
        say!("{} are free", bytes_for_people(free));
    }
}

/// What is known of a study before it is fetched.
fn told(fetch: &PlannedFetch) -> String {
    let PlannedFetch { from, accession_number, instances, modalities } = fetch;
    let number = accession_number.as_ref().map_or_else(String::new, |number| format!(", accession number {number}"));
    let instances = instances.map_or_else(String::new, |count| format!(", {count} instances"));
    let modalities = if modalities.is_empty() { String::new() } else { format!(", {}", modalities.join(" ")) };
    format!("{number}{modalities}{instances}, from {from}")
}

/// Everything in `inputs`, begun anew.
pub(super) fn asked_anew<'a>(inputs: &'a [PathBuf], forms: &'a crate::results::Forms, output: &'a Path) -> Asked<'a> {
    Asked { inputs, output, from: None, forms, resume: false, shard: None, only: None }
}
