//! Lists of studies: a CSV file with columns `path`, `study_instance_uid`, `accession_number`, one at least, and others that do not matter.
//!
//! A row with a UID names that study, a row without one everything below its path. Paths count from the folder of the list. A row without a
//! path names a study of a PACS, by its UID, or else by its accession number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use csv::ReaderBuilder;

use super::{CohortError, paths};
use crate::codes::{Uid, is_uid};
use crate::node::{Sought, is_accession_number};
use crate::series::{Inventory, StudyFiles, real_path};

/// The most rows of a list.
const MAX_ROWS: usize = 1_000_000;

/// Rows without a study that are told one by one.
const MOST_SAID: usize = 20;

/// Which studies a list names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StudyList {
    /// Where they may lie, each once, as the list has them.
    pub paths: Vec<PathBuf>,
    /// With the row, from 1.
    uids: BTreeMap<Uid, usize>,
    /// Paths that are meant with all that they hold, with the row; 0 for inputs beside the list.
    whole: BTreeMap<PathBuf, usize>,
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
            let place = field(path_column).map(|text| folder.join(paths::path_of(text)));
            if place.as_ref().is_some_and(|place| real_path(place).parent().is_none()) {
                let what = "has the root of the file system as its path: name the folders that the studies lie in";
                return Err(wrong(format!("row {} of the list of studies {what}", row + 1)));
            }
            match (field(uid_column), &place) {
                (Some(uid), _) if is_uid(uid) => {
                    list.uids.entry(uid.to_owned()).or_insert(row + 1);
                    list.sought.extend(place.is_none().then(|| Sought::Study(uid.to_owned())));
                }
                (Some(_), _) => return Err(wrong(format!("row {} of the list of studies has no valid study_instance_uid", row + 1))),
                (None, Some(place)) => {
                    list.whole.entry(place.clone()).or_insert(row + 1);
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
        Self { paths: paths.to_vec(), whole: paths.iter().map(|path| (path.clone(), 0)).collect(), ..Self::default() }
    }

    /// Studies and paths that it names.
    pub(super) fn rows(&self) -> usize {
        self.uids.len() + self.whole.len() + self.sought.iter().filter(|one| matches!(one, Sought::Accession(_))).count()
    }

    /// Rows that a PACS is needed for: of those with a UID only where there is no path at all to look below.
    pub(super) fn without_place(&self, nowhere: bool) -> usize {
        self.sought.iter().filter(|one| nowhere || matches!(one, Sought::Accession(_))).count()
    }

    /// What it names, by which studies are looked up.
    pub(super) fn index(&self) -> Index<'_> {
        let mut places: HashMap<PathBuf, Vec<usize>> = HashMap::new();
        for (path, &row) in &self.whole {
            for form in forms(path) {
                places.entry(form).or_default().push(row);
            }
        }
        Index { uids: &self.uids, places }
    }

    /// With what another list names.
    pub(super) fn join(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.uids.extend(other.uids);
        self.whole.extend(other.whole);
        self.sought.extend(other.sought);
    }
}

/// For people.
pub(super) fn said_of(unmatched: &[usize]) -> String {
    let numbers: Vec<String> = unmatched.iter().take(MOST_SAID).map(usize::to_string).collect();
    let more = if unmatched.len() > MOST_SAID { ", .." } else { "" };
    format!("{} rows of the list name nothing that is in the input: {}{more}", unmatched.len(), numbers.join(", "))
}

/// From the root, as it is written and as it is: one file is named by many paths.
fn forms(path: &Path) -> [PathBuf; 2] {
    [std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), real_path(path)]
}

/// What a list names, with the rows.
pub(super) struct Index<'a> {
    uids: &'a BTreeMap<Uid, usize>,
    /// From the root.
    places: HashMap<PathBuf, Vec<usize>>,
}

impl Index<'_> {
    /// Whether the list names this study.
    pub(super) fn names(&self, study: &StudyFiles, inventory: &Inventory) -> bool {
        self.uids.contains_key(&study.listed_uid) || study.files.iter().any(|file| !self.rows_over(&inventory.source_of(file)).is_empty())
    }

    /// Rows that mean everything below a folder that this file is in.
    fn rows_over(&self, file: &Path) -> Vec<usize> {
        if self.places.is_empty() {
            return Vec::new();
        }
        forms(file).iter().flat_map(|form| form.ancestors()).filter_map(|folder| self.places.get(folder)).flatten().copied().collect()
    }

    /// Rows that name nothing of what is there, ascending; `elsewhere` are studies that are looked for in a PACS.
    pub(super) fn unmatched(&self, inventory: &Inventory, elsewhere: &BTreeSet<Sought>) -> Vec<usize> {
        let mut left: BTreeSet<usize> = self.uids.values().chain(self.places.values().flatten()).copied().filter(|&row| row > 0).collect();
        let asked = elsewhere.iter().filter_map(|sought| if let Sought::Study(uid) = sought { Some(uid) } else { None });
        let uids = inventory.studies.iter().map(|study| &study.listed_uid).chain(asked);
        let files = inventory.studies.iter().flat_map(|study| &study.files).chain(inventory.skipped.iter().map(|skipped| &skipped.path));
        let named = uids.filter_map(|uid| self.uids.get(uid).copied());
        for row in named.chain(files.flat_map(|file| self.rows_over(&inventory.source_of(file)))) {
            left.remove(&row);
        }
        left.into_iter().collect()
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
    fn a_path_is_the_same_however_it_is_written() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().join("lists");
        let volumes = root.path().join("volumes");
        std::fs::create_dir_all(&here).unwrap();
        std::fs::create_dir_all(volumes.join("one")).unwrap();
        std::fs::write(volumes.join("one/x.txt"), "x").unwrap();
        std::fs::write(here.join("list.csv"), "path,study_instance_uid\n../volumes/one,\n../volumes/none,\n,1.2.3\n,1.2.4\n").unwrap();
        let list = StudyList::read(&here.join("list.csv")).unwrap();
        let inventory = Inventory::of(std::slice::from_ref(&volumes), None);
        let study = StudyFiles::elsewhere("1.2.5", String::new()).with(vec![volumes.join("one/x.txt")]);
        assert!(list.index().names(&study, &inventory));
        assert!(!list.index().names(&study.with(vec![volumes.join("two/x.txt")]), &inventory));
        assert_eq!(list.index().unmatched(&inventory, &[Sought::Study("1.2.4".to_owned())].into()), [2, 3]);
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
        check("path\na\n/\n", Err("row 2 of the list of studies has the root"));
        check("path,study_instance_uid\n/..,1.2.3\n", Err("row 1 of the list of studies has the root"));
        check("study_instance_uid\nJones\n", Err("row 1"));
    }
}
