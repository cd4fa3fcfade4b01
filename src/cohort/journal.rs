//! The journal of a cohort: what is done, as lines that survive any stop.
//!
//! 1. Each process appends to a file of its own, `work/journal-N.jsonl`: no two ever write to one file, on whatever file system.
//! 2. A line is synced before anything relies on it. The results that it speaks of were in place, in full and checked, before it.
//! 3. Only the last line of a file can be torn, by a stop while it was written. It is then as if it had not been begun.
//! 4. Of several lines about one series the last one counts, and none that was written for other files of the study.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::paths;
use super::record::{FileRecord, SeriesRecord, StudyRecord, VolumeRecord};
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

    /// Returns when the line is on disk.
    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

/// What all processes have done so far, by study.
#[derive(Debug, Default)]
pub(super) struct History {
    studies: BTreeMap<String, BTreeMap<String, Line>>,
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

    fn take(&mut self, line: Line) {
        let known = self.studies.entry(line.study.clone()).or_default();
        known.retain(|_, other| other.stamp == line.stamp);
        if !matches!(line.entry, Entry::Complete) {
            known.remove(STUDY); // it has come since, or failed once more
        }
        known.insert(line.entry.name(), line);
    }

    /// Forgets the entries about a study that `keep` refuses, and that it is complete where one goes.
    pub(super) fn review(&mut self, keep: impl Fn(&Line) -> bool) {
        for known in self.studies.values_mut() {
            let before = known.len();
            known.retain(|_, line| keep(line));
            if known.len() < before {
                known.retain(|_, line| !matches!(line.entry, Entry::Complete));
            }
        }
    }

    /// Forgets these studies.
    pub(super) fn forget<'k>(&mut self, studies: impl Iterator<Item = &'k str>) {
        studies.for_each(|study| drop(self.studies.remove(study)));
    }

    /// Whether nothing of the study with these files is left to do.
    pub(super) fn is_complete(&self, study: &str, stamp: &str) -> bool {
        self.of(study, stamp).any(|entry| matches!(entry, Entry::Complete))
    }

    /// Whether something is known of the study, but with other files.
    pub(super) fn has_changed(&self, study: &str, stamp: &str) -> bool {
        self.studies.get(study).is_some_and(|known| known.values().any(|line| line.stamp != stamp))
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
mod tests {
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
