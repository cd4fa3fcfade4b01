//! The journal of a cohort: what is done, as lines that survive any stop.
//!
//! 1. Each process appends to a file of its own, `work/journal-N.jsonl`: no two ever write to one file, on whatever file system.
//! 2. A line is synced before anything relies on it. The results that it speaks of were in place, in full and checked, before it.
//! 3. Only the last line of a file can be torn, by a stop while it was written. It is then as if it had not been begun.
//! 4. Of several lines about one series the last one counts, and none that was written for other files of the study.
//! 5. Folders of results that no line which counts speaks of are none of the cohort's: they go as soon as one process is alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::paths;
use super::record::{Done, FileRecord, SeriesRecord, StudyRecord, VolumeRecord};
use crate::codes::Uid;

const PREFIX: &str = "journal-";
const SUFFIX: &str = ".jsonl";

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    /// Key of the study.
    pub(super) study: String,
    /// Of its files when the line was written: see `series::StudyFiles::stamp`.
    pub(super) stamp: String,
    /// By which lists name it: see `series::StudyFiles::listed_uid`.
    pub(super) study_uid: Uid,
    /// Where its files lie, as `paths::text_of` has it. Folders may be named after patients: they go into lists of studies only.
    pub(super) study_paths: Vec<String>,
    #[serde(flatten)]
    pub(super) entry: Entry,
}

/// What a line says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub(super) enum Entry {
    Series(Box<SeriesRecord>),
    Volume(VolumeRecord),
    File(FileRecord),
    /// It did not come from its PACS.
    Study(StudyRecord),
    /// Nothing of the study is left to do.
    Complete,
    /// Its files are others than they were: nothing that was known of those counts.
    Changed,
    /// It is to be done again, whatever was known of it.
    Reopened,
}

/// What [`Entry::Study`] is named.
const STUDY: &str = "0";

impl Entry {
    /// What a later line about the same thing replaces.
    fn name(&self) -> String {
        match self {
            Self::Series(series) => {
                let part = series.head.part.as_ref().map_or(0, |part| part.number);
                format!("1 {} {part:06}", series.head.series_instance_uid)
            }
            Self::Volume(_) => "2".to_owned(),
            Self::File(file) => format!("3 {}", paths::text_of(&file.path)),
            Self::Study(_) => STUDY.to_owned(),
            Self::Complete => "4".to_owned(),
            Self::Changed | Self::Reopened => "5".to_owned(),
        }
    }

    /// The analysis that it speaks of.
    pub(super) fn done(&self) -> Option<&Done> {
        match self {
            Self::Series(series) => series.verdict.done(),
            Self::Volume(volume) => volume.verdict.done(),
            Self::File(_) | Self::Study(_) | Self::Complete | Self::Changed | Self::Reopened => None,
        }
    }
}

/// The journal of this process.
#[derive(Debug)]
pub(super) struct Journal {
    /// Of no other process of this cohort.
    pub(super) number: u32,
    file: File,
}

impl Journal {
    /// Begins a file of its own in `folder`, which is there.
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        let mut number = numbers(folder)?.last().map_or(1, |last| last + 1);
        loop {
            match OpenOptions::new().append(true).create_new(true).open(folder.join(format!("{PREFIX}{number:04}{SUFFIX}"))) {
                Ok(file) => {
                    if cfg!(unix) {
                        File::open(folder)?.sync_all()?; // the name of the file, too
                    }
                    return Ok(Self { number, file });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether it still lies in `folder`, which another process may have taken away.
    pub(super) fn is_in(&self, folder: &Path) -> bool {
        folder.join(format!("{PREFIX}{:04}{SUFFIX}", self.number)).is_file()
    }

    /// Returns when the line is on disk.
    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        self.append_all(std::slice::from_ref(line))
    }

    /// Returns when the lines are on disk.
    pub(super) fn append_all(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            text += &serde_json::to_string(line)?;
            text.push('\n');
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

/// What all processes have done so far, by study.
#[derive(Debug, Default)]
pub(super) struct History {
    studies: BTreeMap<String, BTreeMap<String, Line>>,
    /// Folders of results that any line has named.
    folders: BTreeSet<PathBuf>,
    /// Bytes of all files: whether something has been added since.
    pub(super) bytes: u64,
}

impl History {
    /// Reads every journal in `folder`; nothing where there is none.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        let mut history = Self::default();
        for number in numbers(folder)? {
            let text = fs::read(folder.join(format!("{PREFIX}{number:04}{SUFFIX}")))?;
            history.bytes += text.len() as u64;
            // What follows the last line feed was never completed.
            let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |end| &text[..end]);
            for line in whole.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                history.take(serde_json::from_slice(line)?);
            }
        }
        Ok(history)
    }

    pub(super) fn take(&mut self, line: Line) {
        if let Some(done) = line.entry.done() {
            self.folders.insert(done.folder.clone());
        }
        let known = self.studies.entry(line.study.clone()).or_default();
        known.retain(|_, other| other.stamp == line.stamp);
        match line.entry {
            Entry::Changed => return,
            Entry::Reopened => return known.clear(),
            _ => {}
        }
        if !matches!(line.entry, Entry::Complete) {
            known.remove(STUDY); // it has come since, or failed once more
        }
        known.insert(line.entry.name(), line);
    }

    /// Forgets the entries about a study that `keep` refuses, and that it is complete where one goes.
    pub(super) fn review(&mut self, keep: impl Fn(&Line) -> bool) {
        for known in self.studies.values_mut() {
            let before = known.len();
            known.retain(|_, line| {
                let is_kept = keep(line);
                if let Some(done) = line.entry.done().filter(|_| !is_kept) {
                    self.folders.remove(&done.folder);
                }
                is_kept
            });
            if known.len() < before {
                known.retain(|_, line| !matches!(line.entry, Entry::Complete));
            }
        }
    }

    /// Whether nothing of the study with these files is left to do.
    pub(super) fn is_complete(&self, study: &str, stamp: &str) -> bool {
        self.of(study, stamp).any(|entry| matches!(entry, Entry::Complete))
    }

    /// Where the study lay when it had other files; none where nothing is known of it, or of these files.
    pub(super) fn changed(&self, study: &str, stamp: &str) -> Option<Vec<PathBuf>> {
        let line = self.studies.get(study)?.values().find(|line| line.stamp != stamp)?;
        Some(line.study_paths.iter().map(|text| paths::path_of(text)).collect())
    }

    /// Folders with earlier results that nothing which is known speaks of.
    pub(super) fn left(&self) -> Vec<&PathBuf> {
        let known: BTreeSet<&PathBuf> = self.lines().filter_map(|line| Some(&line.entry.done()?.folder)).collect();
        self.folders.iter().filter(|folder| !known.contains(folder)).collect()
    }

    /// Every folder of results that was ever named.
    pub(super) fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.folders.iter()
    }

    /// What is known of the study with these files.
    pub(super) fn of(&self, study: &str, stamp: &str) -> impl Iterator<Item = &Entry> {
        self.studies.get(study).into_iter().flat_map(BTreeMap::values).filter(move |line| line.stamp == stamp).map(|line| &line.entry)
    }

    /// Everything, by study.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.studies.values().flat_map(BTreeMap::values)
    }
}

/// Numbers of the journals in `folder`, ascending.
fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cohort::record::Problem;

    fn line(study: &str, stamp: &str, path: &str) -> Line {
        let problem = Problem { code: "test".into(), message: path.into() };
        let entry = Entry::File(FileRecord { path: path.into(), unreadable: true, problem });
        Line { study: study.into(), stamp: stamp.into(), study_uid: "1.2".into(), study_paths: vec!["here".into()], entry }
    }

    fn complete(study: &str, stamp: &str) -> Line {
        Line { entry: Entry::Complete, ..line(study, stamp, "") }
    }

    fn check(lines: &[Line], cut: usize, complete: bool, entries: usize) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(folder.path()).unwrap();
        lines.iter().for_each(|line| journal.append(line).unwrap());
        let path = folder.path().join("journal-0001.jsonl");
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - cut]).unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!((history.is_complete("a", "1"), history.of("a", "1").count()), (complete, entries));
        assert_eq!(Journal::begin(folder.path()).unwrap().number, 2);
    }

    /// A series that was analysed, with results in a folder of its name.
    pub(in crate::cohort) fn done(study: &str, stamp: &str, series_uid: &str) -> Line {
        let record = serde_json::json!({
            "entry": "series", "study_instance_uid": "1.2", "series_instance_uid": series_uid, "modality": "CT", "instances": 1, "warnings": [],
            "outcome": "done", "folder": series_uid, "findings": [], "selected_because": [], "preferred": [], "device": "CPU",
            "provider": "cpu", "result_bytes": 1, "stages_s": {},
        });
        Line { entry: serde_json::from_value(record).unwrap(), ..line(study, stamp, "") }
    }

    /// As a later process reads it.
    fn read(lines: &[Line]) -> History {
        let folder = tempfile::tempdir().unwrap();
        Journal::begin(folder.path()).unwrap().append_all(lines).unwrap();
        History::read(folder.path()).unwrap()
    }

    #[test]
    fn what_is_done_again_was_not_done() {
        let before = [done("a", "1", "1.1"), complete("a", "1"), done("b", "1", "2.1"), complete("b", "1")];
        let again = |entry: Entry, stamp: &str| read(&[&before[..], &[Line { entry, ..line("a", stamp, "") }]].concat());
        let left = |history: &History| history.left().iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>();
        let reopened = again(Entry::Reopened, "1");
        assert!(!reopened.is_complete("a", "1") && reopened.is_complete("b", "1"));
        assert_eq!((reopened.of("a", "1").count(), left(&reopened)), (0, vec!["1.1".to_owned()]));
        let changed = again(Entry::Changed, "2");
        assert!(changed.changed("a", "2").is_none() && changed.is_complete("b", "1"));
        assert_eq!((changed.lines().count(), left(&changed)), (2, vec!["1.1".to_owned()]));
        // Another process has noted so, too, and these files are done already.
        let helped = again(Entry::Changed, "1");
        assert!(helped.is_complete("a", "1") && left(&helped).is_empty());
        let mut gone = again(Entry::Reopened, "2");
        gone.review(|line| line.study != "b");
        assert_eq!(left(&gone), ["1.1"], "what is not there is not to be removed");
    }

    #[test]
    fn a_torn_line_was_never_begun() {
        let lines = [line("a", "1", "x"), line("a", "1", "y"), complete("a", "1")];
        check(&lines, 0, true, 3);
        check(&lines, 1, false, 2);
        check(&lines, 40, false, 2);
        check(&lines[..1], 1, false, 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/M\xfcller/x.txt"));
        let mut line = line("a", "1", "x");
        let Entry::File(file) = &mut line.entry else { unreachable!("made above") };
        file.path = path.to_owned();
        let folder = tempfile::tempdir().unwrap();
        Journal::begin(folder.path()).unwrap().append(&line).unwrap();
        let history = History::read(folder.path()).unwrap();
        let Some(Entry::File(file)) = history.of("a", "1").next() else { panic!("{history:?}") };
        assert_eq!(file.path, path);
    }

    #[test]
    fn the_last_line_counts_and_none_of_other_files() {
        check(&[line("a", "1", "x"), line("a", "1", "x"), complete("a", "1"), line("b", "7", "x")], 0, true, 2);
        check(&[line("a", "0", "x"), complete("a", "0"), line("a", "1", "y")], 0, false, 1);
    }
}
