//! Any number of studies through one package: planned, carried out in stages at once, resumed after any stop, and told as one table and page.
//!
//! 1. The output folder holds a folder of results for each series that was analysed, in full and checked, or not at all.
//! 2. `work/` in it holds what makes a run resumable: what is done (`journal.rs`), who does what (`work.rs`), by which settings.
//! 3. Tables and pages are made from the journal alone. A run that was stopped and resumed gives the table of one that was not.
//! 4. What was done with another package or other settings, or of files that have changed since, is never mixed with what is new, neither in
//!    tables nor as folders.
//!
//! ```text
//!   output/                      work/
//!     SERIES/  ..results           settings.json     package, forms, parameters
//!     findings.csv                 journal-N.jsonl   one for each process
//!     findings.parquet
//!     failures.csv                 alive-N.json      .. while it is at work
//!     report.json  report.html     claims/KEY.G      which process has which study
//!                                  pictures/         small ones, for the page
//!                                  fetched-N/        studies from a PACS, as long as they are needed
//!                                  earlier/          what later studies of a patient need to know (`timeline.rs`)
//! ```

mod acquisition;
mod claimer;
mod error;
mod estimate;
mod journal;
mod list;
mod page;
mod parquet;
mod paths;
mod pipeline;
mod plan;
mod query;
mod record;
mod remote;
mod report;
mod settings;
mod table;
mod timeline;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

pub use acquisition::Acquisition;
pub use error::CohortError;
pub use estimate::{bytes_for_people, time_for_people};
pub use list::StudyList;
pub use pipeline::EngineTime;
pub use plan::{Plan, PlannedFetch, PlannedSeries, PlannedStudy, plan};
pub use query::{Answer, query, study_list};
pub use record::{
    Done, FileRecord, FindingRecord, FollowUpRecord, Number, PartRecord, Problem, SeriesHead, SeriesRecord, StudyRecord, Verdict,
    VolumeRecord,
};
pub use report::Report;

use crate::codes::Uid;
use crate::engine::{Engine, Stage};
use crate::results::{self, Forms};
use crate::series::{Inventory, StudyFiles};
use error::io_at;
use journal::{Entry, History, Journal, Line};
use remote::Remote;
use settings::Settings;
use timeline::Timeline;
use work::{Alive, Others};

/// The report for programs.
pub const REPORT_FILE: &str = "report.json";
/// The table, a row a finding.
pub const FINDINGS_CSV_FILE: &str = "findings.csv";
/// The same table with types.
pub const FINDINGS_PARQUET_FILE: &str = "findings.parquet";
/// What should have been analysed and was not: a list of studies for `--only`.
pub const FAILURES_FILE: &str = "failures.csv";
/// The page.
pub const PAGE_FILE: &str = "report.html";
const WORK: &str = "work";
const PICTURES: &str = "pictures";
/// How the names of folders and files begin that are not in place yet.
const UNFINISHED: &str = ".roentgen-";

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Files, folders and lists of studies, as `roentgen run` takes them.
    pub inputs: &'a [PathBuf],
    /// Where results go; made where it is not there.
    pub output: &'a Path,
    /// A file with a table `[source]`: the PACS that has the studies of the lists that name no path.
    pub from: Option<&'a Path>,
    /// The forms of the results of each series.
    pub forms: &'a Forms,
    /// Goes on with what is in the output folder, beside other processes that do so too; otherwise it is begun anew.
    pub resume: bool,
    /// Which share of the studies; implies `resume`.
    pub shard: Option<Shard>,
    /// Only the studies of this list, and these again; implies `resume`.
    pub only: Option<&'a Path>,
}

/// One of several equal shares of the studies; a study is never torn apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    number: u64,
    of: u64,
}

impl FromStr for Shard {
    type Err = CohortError;

    fn from_str(text: &str) -> Result<Self, CohortError> {
        let parsed = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(CohortError::Shard { text: text.to_owned() }),
        }
    }
}

impl Shard {
    /// By a hash, hex: of its UID (the study's key), or of what brings studies of one patient together.
    fn has(self, hash: &str) -> bool {
        u64::from_str_radix(&hash[..15], 16).is_ok_and(|hash| hash % self.of == self.number - 1)
    }
}

/// What a run has to say while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// So many studies are to be done, and so many of them were done before.
    Begins {
        /// All.
        studies: usize,
        /// Already.
        done: usize,
    },
    /// The engine begins a stage.
    Stage(Stage),
    /// One more study is done.
    StudyDone,
    /// For people.
    Say(String),
}

/// What is to do.
struct Cohort<'a> {
    output: &'a Path,
    work: PathBuf,
    forms: &'a Forms,
    inventory: Inventory,
    /// Places in the inventory, in the order in which they are done.
    chosen: Vec<usize>,
    /// What a PACS has of the studies: those without files.
    remote: Option<Remote>,
    /// Of a package that follows findings over time.
    timeline: Timeline,
    /// Places in the inventory of studies whose stamps are those that a journal has.
    settled: Vec<usize>,
    /// Files and folders that were looked into.
    inputs: Vec<PathBuf>,
}

impl<'a> Cohort<'a> {
    /// Finds the studies; `say` hears of what a PACS refuses for the moment. Where the package `follows` findings, those of a patient stay
    /// together and are done in the order of their dates.
    fn of(asked: &Asked<'a>, follows: bool, go_on: &dyn Fn() -> bool, say: &dyn Fn(String)) -> Result<Self, CohortError> {
        let (inputs, list) = resolved(asked)?;
        for path in &inputs {
            fs::metadata(path).map_err(|source| CohortError::Input { path: path.clone(), source })?;
        }
        let whole = |path: &Path| path.canonicalize().ok();
        if whole(asked.output).is_some_and(|output| inputs.iter().any(|input| whole(input).as_ref() == Some(&output))) {
            return Err(CohortError::OutputIsInput { path: asked.output.to_owned() });
        }
        let mut inventory = Inventory::of(&inputs, Some(asked.output));
        let here: BTreeSet<&Uid> = inventory.studies.iter().map(|study| &study.study_uid).collect();
        let remote = asked.from.map(|from| Remote::of(from, list.as_ref(), &here, go_on, say)).transpose()?;
        let missing = remote.as_ref().map_or(0, |remote| remote.missing.len());
        inventory.studies.extend(remote.iter().flat_map(Remote::studies));
        if inventory.studies.is_empty() && inventory.skipped.is_empty() && missing == 0 {
            return Err(CohortError::Empty);
        }
        let mut timeline = if follows { Timeline::of(&inventory) } else { Timeline::default() };
        let index = list.as_ref().map(StudyList::index);
        let is_named = |n: usize| {
            let study = &inventory.studies[n];
            study.files.is_empty() || index.as_ref().is_none_or(|index| index.names(study, &inventory))
        };
        let mut named: Vec<usize> = (0..inventory.studies.len()).filter(|&n| is_named(n)).collect();
        if let Some(list) = list.as_ref().filter(|_| named.is_empty() && asked.shard.is_none() && missing == 0) {
            return Err(CohortError::NotThere { wanted: list.rows() });
        }
        let none = BTreeSet::new();
        let elsewhere = list.as_ref().filter(|_| remote.is_some()).map_or(&none, |list| &list.sought);
        let unmatched = index.map_or_else(Vec::new, |index| index.unmatched(&inventory, elsewhere));
        if !unmatched.is_empty() {
            say(list::said_of(&unmatched));
        }
        if asked.only.is_some() {
            named = timeline.whole(&named);
        }
        timeline.settle(&mut named, &mut inventory);
        let is_in_shard = |n: &usize| {
            let hash = timeline.group(*n).unwrap_or(&inventory.studies[*n].key);
            asked.shard.is_none_or(|shard| shard.has(hash))
        };
        let chosen = named.iter().copied().filter(is_in_shard).collect();
        // The stamps of patients' later studies cover those of the earlier ones that are named.
        let settled = if follows { named } else { (0..inventory.studies.len()).collect() };
        let (output, work, forms) = (asked.output, asked.output.join(WORK), asked.forms);
        Ok(Self { output, work, forms, inventory, chosen, remote, timeline, settled, inputs })
    }

    /// Those that are to be done, whether or not they are.
    fn studies(&self) -> impl Iterator<Item = &StudyFiles> {
        self.chosen.iter().map(|&n| &self.inventory.studies[n])
    }

    /// A line about a study.
    fn line(&self, files: &StudyFiles, entry: Entry) -> Line {
        Line {
            study: files.key.clone(),
            stamp: files.stamp.clone(),
            study_uid: files.listed_uid.clone(),
            study_paths: self.inventory.places_of(files).iter().map(|place| paths::text_of(place)).collect(),
            entry,
        }
    }

    /// Says which studies have other files than when they were analysed: what was known of them counts no more, in no table.
    fn changed(&self, history: &History, on: &dyn Fn(Event)) -> Result<Vec<Line>, CohortError> {
        let chosen: BTreeSet<usize> = self.chosen.iter().copied().collect();
        let (mut lines, mut again, mut elsewhere) = (Vec::new(), 0, Vec::new());
        for &n in &self.settled {
            let files = &self.inventory.studies[n];
            let Some(then) = history.changed(&files.key, &files.stamp) else { continue };
            elsewhere.extend(then.into_iter().find(|path| !self.looks_into(path)));
            again += usize::from(chosen.contains(&n));
            lines.push(self.line(files, Entry::Changed));
        }
        let studies = elsewhere.len();
        if let Some(path) = elsewhere.pop() {
            return Err(CohortError::Elsewhere { studies, path });
        }
        if again > 0 {
            on(Event::Say(format!("the files of {again} studies have changed since they were analysed: these are done again")));
        }
        if lines.len() > again {
            let others = lines.len() - again;
            on(Event::Say(format!(
                "the files of {others} other studies have changed since, too: their results are left out of the tables"
            )));
        }
        Ok(lines)
    }

    /// Whether what lies there was among what was looked into, or is not there any more.
    fn looks_into(&self, path: &Path) -> bool {
        let folder = |input: &PathBuf| {
            let input = input.canonicalize().ok()?;
            // A file may stand for those beside it.
            if input.is_dir() { Some(input) } else { input.parent().map(Path::to_owned) }
        };
        path.canonicalize().map_or(true, |path| self.inputs.iter().filter_map(folder).any(|folder| path.starts_with(folder)))
    }

    /// What is done, and whose results are still there.
    fn history(&self) -> io::Result<History> {
        history(self.output)
    }
}

/// What is done in an output folder, and whose results are still there.
fn history(output: &Path) -> io::Result<History> {
    let mut history = History::read(&output.join(WORK))?;
    history.review(|line| line.entry.done().is_none_or(|done| output.join(&done.folder).is_dir()));
    Ok(history)
}

/// The paths to read, and the studies that are meant of what is there; all of them where there is none.
fn resolved(asked: &Asked<'_>) -> Result<(Vec<PathBuf>, Option<StudyList>), CohortError> {
    let (lists, mut inputs): (Vec<PathBuf>, Vec<PathBuf>) = asked.inputs.iter().cloned().partition(|path| StudyList::is_list(path));
    let mut meant: Option<StudyList> = None;
    for path in &lists {
        let list = StudyList::read(path)?;
        meant.get_or_insert_default().join(list);
    }
    if let Some(list) = meant.as_mut() {
        // Inputs beside the lists are meant as a whole.
        list.join(StudyList::whole(&inputs));
        inputs.clone_from(&list.paths);
    }
    let Some(only) = asked.only else {
        // With --only what has no path may be among the inputs.
        return match meant.as_ref().map_or(0, |list| list.without_place(inputs.is_empty())) {
            count @ 1.. if asked.from.is_none() => Err(CohortError::NoSource { count }),
            _ => Ok((inputs, meant)),
        };
    };
    let only = StudyList::read(only)?;
    if inputs.is_empty() {
        inputs.clone_from(&only.paths);
    }
    Ok((inputs, Some(only)))
}

/// Carries out what is `asked` with `engine`. `stop` ends it after the series at hand: the report then says what is left.
///
/// # Errors
/// Only what keeps it from starting or from noting what is done. All else is in the report.
pub fn run(engine: &mut Engine, asked: &Asked<'_>, stop: &AtomicBool, on: &(dyn Fn(Event) + Sync)) -> Result<Report, CohortError> {
    let follows = engine.package().manifest.follow_up.is_some();
    let cohort = Cohort::of(asked, follows, &|| !work::is_set(stop), &|text| on(Event::Say(text)))?;
    let Cohort { output, work, .. } = &cohort;
    fs::create_dir_all(output).map_err(io_at("make the output folder", *output))?;
    let settings = Settings::of(engine, asked.forms);
    let mut others = Others::default();
    let goes_on = asked.resume || asked.shard.is_some() || asked.only.is_some();
    if !goes_on || asked.only.is_some() {
        let say = |text| on(Event::Say(text));
        if others.any_at_work(work, &|| !work::is_set(stop), &say).map_err(io_at("look into", work))? {
            return Err(CohortError::Busy { path: asked.output.to_owned() });
        }
        if !goes_on {
            begin_anew(output, work, &mut others, on)?;
        }
    }
    fs::create_dir_all(work.join(PICTURES)).map_err(io_at("make the folder", work))?;
    settings.enter(work)?;
    let mut journal = Journal::begin(work).map_err(io_at("begin a journal in", work))?;
    let number = journal.number;
    let alive = Alive::begin(work, number).map_err(io_at("say in", work))?;
    // Another may have begun anew before this one has said that it is there: the folder is that one's then.
    if !journal.is_in(work) {
        return Err(CohortError::Busy { path: asked.output.to_owned() });
    }
    settings.enter(work)?;
    // Of two that begin at once, each has said so before it looks for the other.
    let is_alone = tidy(&cohort, &mut others, number)?;
    let mut history = cohort.history().map_err(io_at("read the journal in", work))?;
    let mut lines = cohort.changed(&history, on)?;
    if asked.only.is_some() {
        lines.extend(cohort.studies().map(|files| cohort.line(files, Entry::Reopened)));
        work::release(work, cohort.studies().map(|study| study.key.as_str())).map_err(io_at("release the claims in", work))?;
    }
    journal.append_all(&lines).map_err(io_at("note what is done again in the journal in", work))?;
    lines.into_iter().for_each(|line| history.take(line));
    if is_alone {
        remove_results(output, history.left(), on);
    }
    let done = cohort.studies().filter(|study| history.is_complete(&study.key, &study.stamp)).count();
    on(Event::Begins { studies: cohort.chosen.len(), done });
    let (time, lost) = match pipeline::run(engine, &cohort, history, journal, stop, on) {
        Ok(time) => (time, None),
        // What was done until then is told.
        Err(error @ CohortError::DeviceLost(_)) => (EngineTime::default(), Some(error)),
        Err(error) => return Err(error),
    };
    // Who writes the report last has read every journal to its end.
    loop {
        let history = cohort.history().map_err(io_at("read the journal in", work))?;
        let report = Report::of(&settings, &history, &cohort, time);
        report.write(output)?;
        if cohort.history().map_err(io_at("read the journal in", work))?.bytes == history.bytes {
            if !is_alone && tidy(&cohort, &mut others, number)? {
                remove_results(output, history.left(), on);
            }
            drop(alive);
            return lost.map_or(Ok(report), Err);
        }
    }
}

/// Takes away what an earlier run has left: first its work aside, as a whole, so that of two that begin anew one finds the other there; then
/// the results that its journal names.
fn begin_anew(output: &Path, work: &Path, others: &mut Others, on: &dyn Fn(Event)) -> Result<(), CohortError> {
    let failed = || io_at("remove what an earlier run has left in", work);
    let aside = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(output).map_err(failed())?;
    let old = aside.path().join(WORK);
    match fs::rename(work, &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(failed())?,
    }
    if others.any_lives(&old, None).map_err(failed())? {
        if let Err(error) = fs::rename(&old, work) {
            let _ = aside.keep(); // it is the other's
            return Err(failed()(error));
        }
        return Err(CohortError::Busy { path: output.to_owned() });
    }
    let history = History::read(&old).unwrap_or_else(|error| {
        on(Event::Say(format!("the journal of an earlier run cannot be read, so that its results stay: {error}")));
        History::default()
    });
    if history.lines().next().is_some() {
        on(Event::Say("what an earlier run has done here is done again; with --resume it stays".to_owned()));
    }
    remove_results(output, history.folders(), on);
    aside.close().map_err(failed())
}

/// Removes earlier results by the names of their folders, and their pictures; says how many are gone, and which cannot be removed.
fn remove_results<'f>(output: &Path, folders: impl IntoIterator<Item = &'f PathBuf>, on: &dyn Fn(Event)) {
    let mut removed = 0;
    for name in folders {
        // A journal names folders right in the output folder.
        if name.components().count() != 1 || name.file_name().is_none() {
            continue;
        }
        let folder = output.join(name);
        match results::remove_all(&folder) {
            Ok(was_there) => removed += usize::from(was_there),
            Err(error) => on(Event::Say(format!("earlier results stay, and are not of this run: {error} ({})", folder.display()))),
        }
        let _ = fs::remove_file(picture_of(output, name)); // no page shows it any more
    }
    if removed > 0 {
        on(Event::Say(format!("{removed} earlier results are removed: they are not of this run")));
    }
}

/// The small picture of the results in a folder.
fn picture_of(output: &Path, folder: &Path) -> PathBuf {
    output.join(WORK).join(PICTURES).join(folder).with_added_extension("jpg")
}

/// Removes what runs that were stopped have left, where nobody else is at work; whether that is so.
fn tidy(cohort: &Cohort<'_>, others: &mut Others, own: u32) -> Result<bool, CohortError> {
    let Cohort { output, work, .. } = cohort;
    if others.any_lives(work, Some(own)).map_err(io_at("look into", work))? {
        return Ok(false);
    }
    others.remove_signs(work).map_err(io_at("remove what a run that was stopped has left in", work))?;
    remove_unfinished(output).map_err(io_at("remove what a run that was stopped has left in", *output))?;
    remote::remove_left(work).map_err(io_at("remove what a run that was stopped has fetched into", work))?;
    Ok(true)
}

/// Folders of results, and files, that were never completed.
fn remove_unfinished(output: &Path) -> io::Result<()> {
    for entry in fs::read_dir(output)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::phantom::{Sampling, chest, write_series};

    /// Slices of a small CT.
    pub(super) const SLICES: usize = 4;

    pub(super) fn write_study(folder: &Path) {
        let sampling = Sampling { dims: [16, 12, SLICES as u32], spacing_mm: [20.0, 20.0, 20.0], noise_hu: 0.0 };
        write_series(&chest(&sampling), folder).unwrap();
    }

    /// What is to do with `inputs`.
    pub(super) fn cohort<'a>(inputs: &'a [PathBuf], output: &'a Path, forms: &'a Forms) -> Result<Cohort<'a>, CohortError> {
        let asked = Asked { inputs, output, from: None, forms, resume: false, shard: None, only: None };
        Cohort::of(&asked, false, &|| true, &|_| {})
    }

    #[test]
    fn results_within_the_input_are_no_input() {
        let (folder, forms) = (tempfile::tempdir().unwrap(), Forms::default());
        let [study, output] = ["study", "study/out"].map(|name| folder.path().join(name));
        write_study(&study);
        write_study(&output.join("1.2.3"));
        let files =
            |output: &Path| cohort(std::slice::from_ref(&study), output, &forms).map(|cohort| cohort.inventory.studies[0].files.len());
        assert_eq!(files(&output).unwrap(), SLICES);
        assert_eq!(files(&folder.path().join("elsewhere")).unwrap(), 2 * SLICES, "what is no output folder is an input");
        assert!(matches!(files(&study.join("../study")), Err(CohortError::OutputIsInput { .. })));
    }

    #[test]
    fn what_is_known_of_other_files_counts_no_more() {
        let (folder, forms) = (tempfile::tempdir().unwrap(), Forms::default());
        let [study, other, output] = ["study", "other", "out"].map(|name| folder.path().join(name));
        write_study(&study);
        fs::create_dir(&other).unwrap();
        let inputs = [study.clone()];
        let mut cohort = cohort(&inputs, &output, &forms).unwrap();
        let said = RefCell::new(String::new());
        let changed = |cohort: &Cohort<'_>, then: &Path| {
            let mut history = History::default();
            history.take(Line {
                stamp: "0".into(),
                study_paths: vec![paths::text_of(Path::new(then))],
                ..cohort.line(&cohort.inventory.studies[0], Entry::Complete)
            });
            said.take();
            let lines = cohort.changed(&history, &|event| said.borrow_mut().push_str(&format!("{event:?}")))?;
            lines.into_iter().for_each(|line| history.take(line));
            Ok::<_, CohortError>(history.lines().count())
        };
        assert_eq!(changed(&cohort, &study).unwrap(), 0);
        assert!(said.borrow().contains("of 1 studies have changed"), "{said:?}");
        assert_eq!(changed(&cohort, &folder.path().join("gone")).unwrap(), 0, "it was moved");
        assert!(matches!(changed(&cohort, &other), Err(CohortError::Elsewhere { studies: 1, path }) if path == other));
        // Of another shard.
        cohort.chosen.clear();
        assert_eq!(changed(&cohort, &study).unwrap(), 0);
        assert!(said.borrow().contains("of 1 other studies") && !said.borrow().contains("done again"), "{said:?}");
    }

    #[test]
    fn who_begins_anew_removes_what_was_there_but_nobody_at_work() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let work = output.join(WORK);
        let begin = |said: &RefCell<String>| {
            let on = |event: Event| said.borrow_mut().push_str(&format!("{event:?}"));
            begin_anew(&output, &work, &mut Others::default(), &on)
        };
        for (name, file) in [("out/1.1", "findings.json"), ("out/1.2", "notes.txt"), ("beside", "findings.json"), ("out/work", "x")] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join(file), "").unwrap();
        }
        let mut journal = Journal::begin(&work).unwrap();
        for name in ["1.1", "1.2", "../beside", "1.3"] {
            journal.append(&journal::tests::done("a", "1", name)).unwrap();
        }
        // Another has begun at the same time.
        let alive = Alive::begin(&work, journal.number).unwrap();
        let said = RefCell::default();
        assert!(matches!(begin(&said), Err(CohortError::Busy { .. })));
        assert!(journal.is_in(&work) && output.join("1.1").is_dir() && said.borrow().is_empty());
        drop(alive);
        begin(&said).unwrap();
        assert!(!journal.is_in(&work) && !work.exists() && !output.join("1.1").exists());
        assert!(output.join("1.2/notes.txt").exists() && folder.path().join("beside").exists(), "these are not ours");
        assert!(said.borrow().contains("1 earlier results") && said.borrow().contains("notes.txt"), "{said:?}");
        assert_eq!(fs::read_dir(&output).unwrap().count(), 1);
        begin(&said).unwrap();
    }

    #[test]
    fn each_study_is_in_one_shard() {
        let shards: Vec<Shard> = (1..=3).map(|n| format!("{n}/3").parse().unwrap()).collect();
        let key = |n: u32| crate::codes::sha256_hex(&n.to_le_bytes())[..20].to_owned();
        let mut counts = [0; 3];
        for n in 0..300 {
            let in_shards: Vec<usize> = (0..3).filter(|&s| shards[s].has(&key(n))).collect();
            assert_eq!(in_shards.len(), 1);
            counts[in_shards[0]] += 1;
        }
        assert!(counts.iter().all(|&count| (70..130).contains(&count)), "{counts:?}");
        for text in ["0/3", "4/3", "1/0", "1", "a/b", "-1/2"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
