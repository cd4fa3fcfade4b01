//! Lists of studies: a CSV file with columns `path`, `study_instance_uid`, `accession_number`, one at least, and others that do not matter.
//!
//! A row with a UID names that study, a row without one everything below its path. Paths count from the folder of the list. A row without a
//! path names a study of a PACS, by its UID, or else by its accession number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use csv::ReaderBuilder;

use super::CohortError;
use crate::codes::{Uid, is_uid};
use crate::node::{Sought, is_accession_number};
use crate::series::StudyFiles;

/// The most rows of a list.
const MAX_ROWS: usize = 1_000_000;

/// Which studies a list names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StudyList {
    /// Where they may lie, each once, as the list has them.
    pub paths: Vec<PathBuf>,
    uids: BTreeSet<Uid>,
    /// Paths that are meant with all that they hold.
    whole: BTreeSet<PathBuf>,
    /// Those without a path.
    pub(super) sought: BTreeSet<Sought>,
}

impl StudyList {
    /// Whether a file of this name is a list.
    pub fn is_list(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) && path.is_file()
    }

    /// Reads a list.
    ///
    /// # Errors
    /// [`CohortError::List`] where it is none.
    pub fn read(path: &Path) -> Result<Self, CohortError> {
        let wrong = |what: String| CohortError::List { what, path: path.to_owned() };
        let mut reader = ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_path(path).map_err(|e| wrong(e.to_string()))?;
        let headers = reader.headers().map_err(|e| wrong(e.to_string()))?.clone();
        let column = |name: &str| headers.iter().position(|header| header.trim_start_matches('\u{feff}') == name);
        let (path_column, uid_column) = (column("path"), column("study_instance_uid"));
        let number_column = column("accession_number");
        if path_column.is_none() && uid_column.is_none() && number_column.is_none() {
            let what = "no column `path`, no column `study_instance_uid` and no column `accession_number` in the list of studies";
            return Err(wrong(what.to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut list = Self::default();
        let mut seen = BTreeSet::new();
        for (row, record) in reader.records().enumerate() {
            let record = record.map_err(|e| wrong(e.to_string()))?;
            if row == MAX_ROWS {
                return Err(wrong(format!("more than {MAX_ROWS} rows in the list of studies")));
            }
            let field = |column: Option<usize>| column.and_then(|n| record.get(n)).filter(|text| !text.is_empty());
            let place = field(path_column).map(|text| folder.join(text));
            match (field(uid_column), &place) {
                (Some(uid), _) if is_uid(uid) => {
                    list.uids.insert(uid.to_owned());
                    list.sought.extend(place.is_none().then(|| Sought::Study(uid.to_owned())));
                }
                (Some(_), _) => return Err(wrong(format!("row {} of the list of studies has no valid study_instance_uid", row + 1))),
                (None, Some(place)) => {
                    list.whole.insert(place.clone());
                }
                (None, None) => match field(number_column) {
                    Some(number) if is_accession_number(number) => {
                        list.sought.insert(Sought::Accession(number.to_owned()));
                    }
                    Some(_) => {
                        let what =
                            "has an accession_number that a PACS cannot be asked for exactly: 1 to 16 characters of ASCII without * ? \\";
                        return Err(wrong(format!("row {} of the list of studies {what}", row + 1)));
                    }
                    None => continue,
                },
            }
            list.paths.extend(place.filter(|place| seen.insert(place.clone())));
        }
        if list.rows() == 0 {
            return Err(wrong("the list of studies names none".to_owned()));
        }
        Ok(list)
    }

    /// One that names everything below these paths.
    pub(super) fn whole(paths: &[PathBuf]) -> Self {
        Self { paths: paths.to_vec(), whole: paths.iter().cloned().collect(), ..Self::default() }
    }

    /// Studies and paths that it names.
    pub(super) fn rows(&self) -> usize {
        self.uids.len() + self.whole.len() + self.sought.iter().filter(|one| matches!(one, Sought::Accession(_))).count()
    }

    /// Rows that a PACS is needed for: of those with a UID only where there is no path at all to look below.
    pub(super) fn without_place(&self, nowhere: bool) -> usize {
        self.sought.iter().filter(|one| nowhere || matches!(one, Sought::Accession(_))).count()
    }

    /// Whether it names this study.
    pub(super) fn names(&self, study: &StudyFiles, source_of: impl Fn(&Path) -> PathBuf) -> bool {
        let from_root = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let is_below = |file: &Path| self.whole.iter().any(|place| from_root(&source_of(file)).starts_with(from_root(place)));
        self.uids.contains(&study.study_uid) || (!self.whole.is_empty() && study.files.iter().any(|file| is_below(file)))
    }

    /// With what another list names.
    pub(super) fn join(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.uids.extend(other.uids);
        self.whole.extend(other.whole);
        self.sought.extend(other.sought);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&[&str], usize), &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.csv");
        std::fs::write(&path, text).unwrap();
        match (StudyList::read(&path), expected) {
            (Ok(list), Ok((paths, rows))) => {
                assert_eq!(list.paths, paths.iter().map(|p| folder.path().join(p)).collect::<Vec<_>>(), "{text}");
                assert_eq!(list.rows(), rows, "{text}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn lists_name_studies_and_paths() {
        check("path\na\n b \n\na\n", Ok((&["a", "b"], 2)));
        check("note,path\r\n\"x, y\",/data/c\r\n", Ok((&["/data/c"], 1)));
        check("\u{feff}study_instance_uid,path\n1.2.3,a\n1.2.4,a\n,b\n", Ok((&["a", "b"], 3)));
        check("accession_number,path,study_instance_uid\nA1,,\nA1,,\n,x,\n,,1.2.3\nA2,,1.2.3\n", Ok((&["x"], 3)));
        check("accession_number\nA*\n", Err("row 1"));
        check("patient\nx\n", Err("no column `path`"));
        check("path\n", Err("names none"));
        check("study_instance_uid\nJones\n", Err("row 1"));
    }
}
