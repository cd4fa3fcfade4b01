//! Three stages at once: while one series is in the network, the next is read and the last one written.
//!
//! Each stage is one thread. A stage has room for one series: the one before it begins the next only when that has gone on, so that at most
//! three are in memory. Notes without voxels pass at any time. The order is that of the studies, and what a stage computes does not depend
//! on the others: results are those of one thread, bit for bit.
//!
//! Before them one more (`claimer.rs`) claims studies: one when the reader is free for it, or, where they come from a PACS, some ahead, which
//! it fetches.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use serde::Serialize;

use super::acquisition::Acquisition;
use super::claimer::{Claimed, Claimer};
use super::error::{CohortError, io_at};
use super::estimate::Pace;
use super::journal::{Entry, History, Journal};
use super::record::{Done, FileRecord, PartRecord, Problem, SeriesHead, SeriesRecord, Verdict, VolumeRecord, followed, in_short};
use super::remote::{self, Here};
use super::timeline;
use super::work::{Claims, Others, is_set};
use super::{Cohort, Event, picture_of};
use crate::engine::{Analysis, Engine, EngineError, Input, Opened, Stage};
use crate::followup::Earlier;
use crate::geometry::Coded;
use crate::gpu::GpuError;
use crate::model::{Check, Eligible, Ineligible, Package};
use crate::research::Format;
use crate::results;
use crate::series::{Part, StudyFiles};

/// Notes that may wait between two stages.
const NOTES: usize = 64;

/// Where the time of the engine went.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct EngineTime {
    /// It analysed: preprocessing, network, postprocessing, measuring.
    pub busy_s: f64,
    /// It waited for a series to be read.
    pub waited_for_reading_s: f64,
    /// It waited until the last series but one was written.
    pub waited_for_writing_s: f64,
}

impl EngineTime {
    /// Of the time from the first series to the last, percent; none where nothing was analysed.
    pub fn idle_percent(&self) -> Option<f64> {
        let waited = self.waited_for_reading_s + self.waited_for_writing_s;
        (self.busy_s > 0.0).then(|| waited / (waited + self.busy_s) * 100.0)
    }
}

/// What is analysed, without its voxels.
enum Subject {
    Series(Box<SeriesHead>),
    Volume { path: PathBuf, format: Format },
}

impl Subject {
    fn ended(self, verdict: Verdict) -> Entry {
        match self {
            Self::Series(head) => Entry::Series(Box::new(SeriesRecord { head: *head, verdict })),
            Self::Volume { path, format } => {
                let warnings = verdict.done().map(|done| done.result_warnings.clone()).unwrap_or_default();
                Entry::Volume(VolumeRecord { path, format, warnings, verdict })
            }
        }
    }

    /// Name of the folder of its results, within the output folder.
    fn folder(&self, analysis: &Analysis) -> PathBuf {
        match self {
            // A part that is all of its series has the series' name.
            Self::Series(head) => match &head.part {
                Some(part) => format!("{}.part{}", head.series_instance_uid, part.number).into(),
                None => (&head.series_instance_uid).into(),
            },
            Self::Volume { .. } => analysis.findings.source.file.as_ref().map_or("", |file| &file.sha256[..16]).into(),
        }
    }
}

/// What is handed from stage to stage.
enum Step<T> {
    Series {
        study: usize,
        subject: Subject,
        because: Vec<String>,
        preferred: Vec<String>,
        value: Box<T>,
    },
    /// Nothing is left to do with it but to note it.
    Ended {
        study: usize,
        entry: Box<Entry>,
    },
}

impl<T> Step<T> {
    fn ended(study: usize, subject: Subject, verdict: Verdict) -> Self {
        Self::Ended { study, entry: Box::new(subject.ended(verdict)) }
    }
}

/// Carries out what is to do; returns when everything that was begun is on disk. `stop` ends it after the series at hand.
pub(super) fn run(
    engine: &mut Engine,
    cohort: &Cohort<'_>,
    history: History,
    journal: Journal,
    stop: &AtomicBool,
    on: &(dyn Fn(Event) + Sync),
) -> Result<EngineTime, CohortError> {
    let package = std::sync::Arc::clone(engine.package());
    let failed = AtomicBool::new(false);
    let pace = Pace::new(cohort, &history);
    let ends = || is_set(stop) || is_set(&failed);
    let folder = remote::folder(&cohort.work, journal.number);
    let to_fetch = cohort.remote.as_ref().filter(|remote| !remote.found.is_empty());
    let here = to_fetch.map(|remote| Here::new(remote, &folder)).transpose()?;
    let here = here.as_ref();
    std::thread::scope(|threads| {
        let (to_engine, read) = sync_channel(NOTES);
        let (to_writer, analysed) = sync_channel(NOTES);
        let (taken, room) = sync_channel(1);
        let (written, room_to_write) = sync_channel(1);
        let claims = Claims::of(&cohort.work, journal.number).map_err(io_at("claim studies in", &cohort.work))?;
        let (to_reader, claimed) = sync_channel(here.map_or(0, Here::most));
        let (was_read, room_to_read) = sync_channel(1);
        let mut claimer = Claimer {
            cohort,
            history,
            claims,
            others: Others::default(),
            here,
            in_a_row: 0,
            taken: HashSet::new(),
            follows: package.manifest.follow_up.is_some(),
            ends: &ends,
            to_reader,
            room: Room::free(room_to_read),
            on,
        };
        let claimer = threads.spawn(move || claimer.claim());
        let mut reader = Reader { cohort, package: &package, ends: &ends, to_engine, room: Room::free(room) };
        let reader = threads.spawn(move || reader.read(&claimed, &was_read));
        let mut writer = Writer { cohort, here, journal, pace, on };
        let failed = &failed;
        let writer = threads.spawn(move || {
            let wrote = writer.write(&analysed, &written);
            // Who cannot note what is done must not go on: the other stages hear of it by the channel that is gone.
            failed.fetch_or(wrote.is_err(), Ordering::Relaxed);
            wrote
        });
        let time = analyse(engine, cohort, (&read, taken), (to_writer, Room::free(room_to_write)), &ends, on);
        failed.fetch_or(time.is_err(), Ordering::Relaxed);
        drop(read);
        reader.join().expect("panics of series are caught");
        let claimed = claimer.join().expect("it analyses nothing");
        writer.join().expect("panics of series are caught")?;
        claimed?;
        time
    })
}

/// Room for one series in the next stage.
pub(super) struct Room {
    is_free: bool,
    freed: Receiver<()>,
}

impl Room {
    fn free(freed: Receiver<()>) -> Self {
        Self { is_free: true, freed }
    }

    /// Waits until there is room; false where the next stage has ended.
    pub(super) fn wait(&mut self) -> bool {
        self.is_free = self.is_free || self.freed.recv().is_ok();
        self.is_free
    }

    /// Something is sent there.
    pub(super) fn fill(&mut self) {
        self.is_free = false;
    }
}

/// The first stage.
struct Reader<'a> {
    cohort: &'a Cohort<'a>,
    package: &'a Package,
    ends: &'a (dyn Fn() -> bool + Sync),
    to_engine: SyncSender<Step<Opened>>,
    room: Room,
}

impl Reader<'_> {
    fn read(&mut self, claimed: &Receiver<Claimed>, was_read: &SyncSender<()>) {
        for Claimed { study, known, files } in claimed {
            if (self.ends)() {
                return;
            }
            match files {
                Ok(files) => {
                    if let Err(problem) = guarded(|| self.study(study, &files, &known)) {
                        let path = self.cohort.inventory.places_of(&files).into_iter().next().unwrap_or_default();
                        self.send(Step::Ended { study, entry: Box::new(Entry::File(FileRecord { path, unreadable: true, problem })) });
                        self.send(Step::Ended { study, entry: Box::new(Entry::Complete) });
                    }
                }
                Err((record, may_come)) => {
                    self.send(Step::Ended { study, entry: Box::new(Entry::Study(record)) });
                    if !may_come {
                        self.send(Step::Ended { study, entry: Box::new(Entry::Complete) });
                    }
                }
            }
            // One note is enough; and who has claimed the last one is not there any more.
            let _ = was_read.try_send(());
        }
    }

    /// Reads what is left of a study. A stop leaves the rest of it to a later run.
    fn study(&mut self, study: usize, files: &StudyFiles, known: &[Entry]) {
        let (cohort, package) = (self.cohort, self.package);
        let found = cohort.inventory.open(files);
        let parts: Vec<Part<'_>> = found.series.iter().flat_map(|one| one.parts(package.manifest.select.geometry)).collect();
        let answers = package.take(&parts, parts.iter().map(|part| package.eligible(part)).collect());
        for (part, answer) in parts.iter().zip(answers) {
            let head = head_of(part, answer.as_ref().ok());
            if knows_series(known, &head) {
                continue;
            }
            let job = answer.map(|mut eligible| {
                let because = because(&eligible.checks, eligible.others.iter().map(|other| other.why.clone()));
                let preferred = std::mem::take(&mut eligible.preferred);
                (Input::from(eligible), because, preferred)
            });
            if !self.hand_over(study, Subject::Series(Box::new(head)), job) {
                return;
            }
        }
        for file in &found.volumes {
            if known.iter().any(|entry| matches!(entry, Entry::Volume(_))) {
                continue;
            }
            let answer = package.assess_volume(file).answer();
            let job = answer.map(|volume| {
                let because =
                    because(&volume.checks, volume.others.iter().map(|other| format!("channel {}: a file beside it", other.name)));
                (Input::from(volume), because, Vec::new())
            });
            if !self.hand_over(study, Subject::Volume { path: file.shown.clone(), format: file.header.format }, job) {
                return;
            }
        }
        // These could be read a moment ago.
        for skipped in &found.skipped {
            let problem = Problem::of(&skipped.error, |message| cohort.inventory.shown_in(message));
            let record = FileRecord { path: skipped.path.clone(), unreadable: !skipped.error.is_foreign(), problem };
            if !self.send(Step::Ended { study, entry: Box::new(Entry::File(record)) }) {
                return;
            }
        }
        self.send(Step::Ended { study, entry: Box::new(Entry::Complete) });
    }

    /// Reads the voxels and hands them to the engine; false where the run ends.
    fn hand_over(&mut self, study: usize, subject: Subject, job: Result<(Input, Vec<String>, Vec<String>), Vec<Ineligible>>) -> bool {
        if (self.ends)() {
            return false;
        }
        let inventory = &self.cohort.inventory;
        let shown = |message: &str| inventory.shown_in(message);
        let (input, because, preferred) = match job {
            Ok(job) => job,
            Err(reasons) => {
                let refused = reasons.iter().all(Ineligible::is_refusal);
                let reasons = reasons.iter().map(|reason| Problem::of(reason, shown)).collect();
                let verdict = if refused { Verdict::Refused { reasons } } else { Verdict::NotEligible { reasons } };
                return self.send(Step::ended(study, subject, verdict));
            }
        };
        if !self.room.wait() {
            return false;
        }
        match guarded(|| input.open()) {
            Ok(Ok(opened)) => {
                self.room.fill();
                self.send(Step::Series { study, subject, because, preferred, value: Box::new(opened) })
            }
            Ok(Err(error)) => self.send(Step::ended(study, subject, failure(Problem::of(&error, shown)))),
            Err(panicked) => self.send(Step::ended(study, subject, failure(panicked))),
        }
    }

    fn send(&self, step: Step<Opened>) -> bool {
        self.to_engine.send(step).is_ok()
    }
}

/// Each rule that holds, in short, and what the other channels are.
fn because(checks: &[Check], others: impl Iterator<Item = String>) -> Vec<String> {
    checks.iter().map(Check::short).chain(others).collect()
}

fn knows_series(known: &[Entry], head: &SeriesHead) -> bool {
    let number = |head: &SeriesHead| head.part.as_ref().map(|part| part.number);
    known.iter().any(|entry| match entry {
        Entry::Series(known) => known.head.series_instance_uid == head.series_instance_uid && number(&known.head) == number(head),
        _ => false,
    })
}

fn head_of(part: &Part<'_>, eligible: Option<&Eligible>) -> SeriesHead {
    SeriesHead {
        study_instance_uid: part.series.study_uid.clone(),
        series_instance_uid: part.series.series_uid.clone(),
        part: (part.of > 1).then(|| PartRecord { number: part.number, of: part.of, label: part.label.clone() }),
        modality: part.first().modality.clone(),
        series_number: part.series.series_number,
        instances: part.instances().len(),
        warnings: part.series.warnings.clone(),
        acquisition: Acquisition::of(part, eligible.map(|eligible| &eligible.stack)),
    }
}

/// Why there is no analysis of a series.
enum Unanalysed {
    /// A reason of its own: the others go on.
    Series(Problem),
    /// No other series would fare better.
    Run(CohortError),
}

impl Unanalysed {
    /// Memory that one series lacks is enough for another; a device that has gone is there for none.
    fn of(error: EngineError, shown: impl Fn(&str) -> String) -> Self {
        if error.device_loss().is_some_and(|loss| !matches!(loss, GpuError::OutOfMemory { .. })) {
            return Self::Run(CohortError::DeviceLost(Box::new(error)));
        }
        Self::Series(Problem::of(&error, shown))
    }
}

/// The second stage, in the thread of who called. Ends without a word about the series at hand where the device has gone: it is done when the
/// run is resumed.
fn analyse(
    engine: &mut Engine,
    cohort: &Cohort<'_>,
    (read, taken): (&Receiver<Step<Opened>>, SyncSender<()>),
    (to_writer, mut room): (SyncSender<Step<Analysis>>, Room),
    ends: &dyn Fn() -> bool,
    on: &(dyn Fn(Event) + Sync),
) -> Result<EngineTime, CohortError> {
    let mut time = EngineTime::default();
    let mut began = None;
    loop {
        let clock = Instant::now();
        let Ok(step) = read.recv() else { return Ok(time) };
        // Until the first series there was nothing to do.
        if began.is_some() {
            time.waited_for_reading_s += clock.elapsed().as_secs_f64();
        }
        let step = match step {
            Step::Ended { study, entry } => Step::Ended { study, entry },
            Step::Series { .. } if ends() => return Ok(time),
            Step::Series { study, subject, because, preferred, value } => {
                let clock = Instant::now();
                began.get_or_insert(clock);
                // Who is not there any more needs no room.
                let _ = taken.send(());
                let cancel = AtomicBool::new(false);
                let shown = |message: &str| cohort.inventory.shown_in(message);
                let analysed = guarded(|| {
                    let analysed = engine.analyse_opened(*value, &cancel, &mut |stage| on(Event::Stage(stage)));
                    let mut analysis = analysed.map_err(|error| Unanalysed::of(error, shown))?;
                    follow(engine, cohort, study, &subject.folder(&analysis), &mut analysis)?;
                    Ok(analysis)
                });
                time.busy_s += clock.elapsed().as_secs_f64();
                match analysed.map_err(Unanalysed::Series).flatten() {
                    Ok(analysis) => Step::Series { study, subject, because, preferred, value: Box::new(analysis) },
                    Err(Unanalysed::Series(problem)) => Step::ended(study, subject, failure(problem)),
                    Err(Unanalysed::Run(error)) => return Err(error),
                }
            }
        };
        let clock = Instant::now();
        if matches!(step, Step::Series { .. }) {
            if !room.wait() {
                return Ok(time);
            }
            room.fill();
        }
        if to_writer.send(step).is_err() {
            return Ok(time);
        }
        if began.is_some() {
            time.waited_for_writing_s += clock.elapsed().as_secs_f64();
        }
    }
}

/// Lays an analysis beside the last study of the patient before it that was analysed, and keeps what later ones need to know; `name` is that
/// of its results.
fn follow(engine: &Engine, cohort: &Cohort<'_>, study: usize, name: &Path, analysis: &mut Analysis) -> Result<(), Unanalysed> {
    if engine.package().manifest.follow_up.is_none() {
        return Ok(());
    }
    let clock = Instant::now();
    let shown = |message: &str| cohort.inventory.shown_in(message);
    let failed = |error: &dyn Coded| Unanalysed::Series(Problem::of(error, shown));
    if !cohort.timeline.is_of_patient(study, &analysis.findings) {
        if !cohort.timeline.earlier(study).is_empty() {
            analysis.findings.warnings.push(
                "findings were not compared with earlier studies: the series is not beyond doubt of the patient of its study".to_owned(),
            );
        }
        return Ok(());
    }
    let (mut earlier, mut others) = (None, 0);
    for then in cohort.timeline.earlier_of(study, &cohort.inventory) {
        if !then.is_same_patient {
            others += 1;
            continue;
        }
        let kept = timeline::kept(&cohort.work, then.files).map_err(|error| failed(&error))?;
        // Of several series that whose voxels are the most alike in size.
        let voxel_mm3 = analysis.image.grid().voxel_volume_mm3();
        let unlike = |earlier: &Earlier| (earlier.known.voxel_mm3 / voxel_mm3).ln().abs();
        if let Some(kept) = kept.into_iter().min_by(|a, b| unlike(a).total_cmp(&unlike(b))) {
            earlier = Some((kept, then.days));
            break;
        }
    }
    if others > 0 {
        analysis.findings.warnings.push(format!(
            "findings were not compared with {others} earlier studies that have the same Patient ID and are not beyond doubt of the same \
             patient: issuer, birth date, sex or name differ or are not there"
        ));
    }
    let known =
        engine.follow(analysis, earlier.as_ref().map(|(earlier, days)| (earlier, *days))).map_err(|error| Unanalysed::of(error, shown))?;
    if let Some(known) = known {
        timeline::keep(&cohort.work, &cohort.inventory.studies[study], name, &known).map_err(|error| failed(&error))?;
    }
    analysis.timings.0.push((Stage::FollowUp, clock.elapsed()));
    Ok(())
}

/// The third stage.
struct Writer<'a> {
    cohort: &'a Cohort<'a>,
    /// Where studies of a PACS are, until they are complete.
    here: Option<&'a Here<'a>>,
    journal: Journal,
    pace: Pace,
    on: &'a (dyn Fn(Event) + Sync),
}

impl Writer<'_> {
    fn write(&mut self, analysed: &Receiver<Step<Analysis>>, written: &SyncSender<()>) -> Result<(), CohortError> {
        for step in analysed {
            let (study, entry) = match step {
                Step::Ended { study, entry } => (study, *entry),
                Step::Series { study, subject, because, preferred, value } => {
                    let verdict = match guarded(|| self.results(&subject, because, preferred, *value)) {
                        Ok(verdict) => verdict?,
                        Err(panicked) => failure(panicked),
                    };
                    // Who is not there any more needs no room.
                    let _ = written.send(());
                    (study, subject.ended(verdict))
                }
            };
            let files = &self.cohort.inventory.studies[study];
            let is_complete = matches!(entry, Entry::Complete);
            let news = self.pace.hear(&entry, files, self.cohort.output);
            let line = self.cohort.line(files, entry);
            self.journal.append(&line).map_err(io_at("note what is done in the journal in", &self.cohort.work))?;
            news.into_iter().for_each(|text| (self.on)(Event::Say(text)));
            if is_complete {
                self.here.into_iter().for_each(|here| here.release(&files.study_uid));
                (self.on)(Event::StudyDone);
            }
        }
        Ok(())
    }

    /// # Errors
    /// Where the disk takes nothing more: nothing is noted of the series then, and it is done when the run is resumed.
    fn results(
        &self,
        subject: &Subject,
        selected_because: Vec<String>,
        preferred: Vec<String>,
        mut analysis: Analysis,
    ) -> Result<Verdict, CohortError> {
        let name = subject.folder(&analysis);
        let folder = self.cohort.output.join(&name);
        let Analysis { findings, image, timings } = &mut analysis;
        let write = || results::write_all(findings, image, self.cohort.forms, &folder);
        let written = match timings.time(Stage::Write, &mut |_| {}, write) {
            Ok(written) => written,
            Err(error) if error.is_of_disk() => return Err(CohortError::Disk { path: self.cohort.output.to_owned(), source: error }),
            Err(error) => return Ok(failure(Problem::of(&error, |message| self.cohort.inventory.shown_in(message)))),
        };
        let picture = results::thumbnail(image, findings);
        let path = picture_of(self.cohort.output, &name);
        // What keeps a picture of ours out of our own folder keeps the journal out of it, too.
        std::fs::write(&path, picture).map_err(io_at("write", path))?;
        Ok(Verdict::Done(Done {
            findings: in_short(findings),
            selected_because,
            preferred,
            result_warnings: findings.warnings.clone(),
            follow_up: followed(findings),
            device: findings.provenance.device.clone(),
            provider: findings.provenance.provider.clone(),
            source_file_sha256: findings.source.file.as_ref().map(|file| file.sha256.as_str().into()),
            result_bytes: written.files.iter().map(|(_, path)| bytes_of(path)).sum(),
            stages_s: timings.clone(),
            folder: name,
        }))
    }
}

fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn failure(problem: Problem) -> Verdict {
    Verdict::Failed { reasons: vec![problem] }
}

/// A broken promise of ours ends one series or study, not the cohort.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Problem> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Problem {
        code: "cohort.panicked".to_owned(),
        message: "a defect of roentgen ended this series or study, the others go on; please report what stands on stderr".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests as tests_of_cohort;
    use super::*;

    #[test]
    fn a_lost_device_ends_the_run_and_a_large_series_does_not() {
        let of = |error: GpuError| Unanalysed::of(error.into(), str::to_owned);
        let lost = of(GpuError::Lost { during: "a run".into(), reason: "a test said so".into() });
        assert!(matches!(lost, Unanalysed::Run(CohortError::DeviceLost(_))));
        assert!(matches!(of(GpuError::OutOfMemory { during: "a run".into() }), Unanalysed::Series(_)));
    }

    #[test]
    fn a_study_that_panics_is_noted_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [folder.path().join("study")];
        tests_of_cohort::write_study(&inputs[0]);
        let (output, forms) = (folder.path().join("out"), Default::default());
        let cohort = tests_of_cohort::cohort(&inputs, &output, &forms).unwrap();
        let package = Package::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/ct-tissue")).unwrap();
        // It is asked before each study, and before each series.
        let asked = std::sync::atomic::AtomicU32::new(0);
        let ends = || {
            assert_ne!(asked.fetch_add(1, Ordering::Relaxed), 1, "a defect");
            false
        };
        let (to_engine, read) = sync_channel(8);
        let (_taken, room) = sync_channel(1);
        let mut reader = Reader { cohort: &cohort, package: &package, ends: &ends, to_engine, room: Room::free(room) };
        let (to_reader, claimed) = sync_channel(2);
        for _ in 0..2 {
            let files = Ok(cohort.inventory.studies[0].clone());
            assert!(to_reader.send(Claimed { study: 0, known: Vec::new(), files }).is_ok());
        }
        drop(to_reader);
        let (was_read, _room) = sync_channel(2);
        reader.read(&claimed, &was_read);
        drop(reader);
        let code = |entry: &Entry| match entry {
            Entry::File(file) => file.problem.code.clone(),
            Entry::Series(_) => "series".to_owned(),
            other => format!("{other:?}"),
        };
        let steps: Vec<String> =
            read.iter().map(|step| if let Step::Ended { entry, .. } = step { code(&entry) } else { "series".into() }).collect();
        assert_eq!(steps, ["cohort.panicked", "Complete", "series", "Complete"]);
    }
}
