//! `roentgen run`: a package over any number of folders and files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;

use super::{EngineArgs, Outcome, OutputArgs, ResultArgs, outcome, text};
use crate::cohort::{
    self, Asked, Event, Plan, PlannedFetch, PlannedSeries, PlannedStudy, Report, Shard, StudyRecord, bytes_for_people, time_for_people,
};
use crate::engine::Engine;
use crate::gpu::DeviceChoice;
use crate::infer::Provider;
use crate::model::Package;
use crate::results::Forms;

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

/// Without a terminal there is a line no more often than this.
const SAYS: Duration = Duration::from_secs(30);

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        super::check_folder(&self.output)?;
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
            let [of_files, others] = report.failures();
            if of_files > 0 {
                say!("\n{of_files} need other files: refused or broken; --resume does them when these are there");
            }
            if others > 0 {
                say!("\n{others} may pass; again, what failed alone: {}", self.command_for_failures());
            }
            if report.verdicts().filter(|verdict| verdict.done().is_some()).count() > 1 {
                self.say_where();
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

    /// Where the cohort is found, and how it is asked.
    fn say_where(&self) {
        let [table, page] = [cohort::FINDINGS_CSV_FILE, cohort::PAGE_FILE].map(|name| self.output.join(name));
        say!("\ntable: {}\npage: {}", table.display(), page.display());
        let question = "select finding, count(*) as n from findings where present group by finding";
        say!("questions: roentgen query {} \"{question}\"", quoted(&self.output));
    }

    /// What does again what failed, for a shell.
    fn command_for_failures(&self) -> String {
        let mut command = format!("roentgen run --model {} --output {}", quoted(Path::new(&self.model)), quoted(&self.output));
        let EngineArgs { device, provider, ort_lib, sessions, patches, memory_mb } = &self.engine;
        if *device != DeviceChoice::default() {
            command += &format!(" --device {}", quoted(Path::new(&device.to_string())));
        }
        if *provider != Provider::default() {
            command += &format!(" --provider {}", quoted(Path::new(&provider.to_string())));
        }
        command += &ort_lib.as_deref().map_or_else(String::new, |path| format!(" --ort-lib {}", quoted(path)));
        for (name, count) in [("sessions", sessions), ("patches", patches)].into_iter().filter(|(_, count)| **count > 1) {
            command += &format!(" --{name} {count}");
        }
        command += &memory_mb.map_or_else(String::new, |mb| format!(" --memory-mb {mb}"));
        let forms = &self.results.results;
        command += &if *forms == Forms::all() { " --results all".to_owned() } else { format!(" --results {forms}") };
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

/// For a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Runs `engine` on what is asked, with a bar on a terminal and lines elsewhere. The first Ctrl-C ends it after the series at hand, the
/// second at once.
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
    let began = Instant::now();
    let said = Mutex::new((0, 0, began));
    let lock = || said.lock().unwrap_or_else(PoisonError::into_inner);
    let hear = |event| match event {
        Event::Begins { studies, done } => {
            *lock() = (done, studies, began);
            bar.set_length(studies as u64);
            bar.set_position(done as u64);
            bar.reset_eta();
            if done > 0 {
                bar.suspend(|| eprintln!("{done} of {studies} studies are done already"));
            }
        }
        Event::Stage(stage) => bar.set_message(stage.to_string()),
        Event::StudyDone => {
            bar.inc(1);
            let (done, studies, last) = &mut *lock();
            *done += 1;
            if bar.is_hidden() && last.elapsed() >= SAYS {
                eprintln!("{done} of {studies} studies, {} since the beginning", time_for_people(began.elapsed()));
                *last = Instant::now();
            }
        }
        Event::Say(text) => bar.suspend(|| eprintln!("{text}")),
    };
    let report = cohort::run(engine, asked, &STOP, &hear);
    bar.finish_and_clear();
    Ok(report?)
}

/// A line for each series.
fn print_plan(plan: &Plan) {
    let mut studies: Vec<&PlannedStudy> = plan.studies.iter().collect();
    studies.sort_by(|a, b| a.paths.cmp(&b.paths)); // as people look for them
    for PlannedStudy { study_instance_uid, paths, volume, is_done, fetch, series, bytes } in studies {
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
        if volume.is_none() {
            paths.iter().for_each(|path| say!("  in {path}"));
        }
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
    let counts = plan.reasons();
    if !counts.is_empty() {
        let rows: Vec<Vec<String>> = counts.into_iter().map(|(code, count)| vec![code.to_owned(), count.to_string()]).collect();
        say!("\n{}", text::table(&["reason", "series"], &rows).trim_end());
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
pub(super) fn asked_anew<'a>(inputs: &'a [PathBuf], forms: &'a Forms, output: &'a Path) -> Asked<'a> {
    Asked { inputs, output, from: None, forms, resume: false, shard: None, only: None }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn check(arguments: &str, expected: &str) {
        let line = Line::try_parse_from(["run", "--model", "m", "--output", "o"].into_iter().chain(arguments.split_whitespace())).unwrap();
        let command = line.run.command_for_failures();
        assert_eq!(command, format!("roentgen run --model 'm' --output 'o'{expected}"));
    }

    #[test]
    fn the_command_for_failures_asks_for_the_same() {
        let forms = Forms::default();
        check("in", &format!(" --results {forms} --only 'o/failures.csv' 'in'"));
        check(
            "in --device gpu:1 --provider openvino --ort-lib x.so --memory-mb 900 --results all",
            " --device 'gpu:1' --provider 'openvino' --ort-lib 'x.so' --memory-mb 900 --results all --only 'o/failures.csv' 'in'",
        );
    }
}
