//! Which studies are of one patient, and in which order they were made: what a package needs that follows findings over time.
//!
//! 1. Studies with one Patient ID are one group. They are done in the order of Study Date and Time, in one shard, and again together.
//! 2. A study is compared with an earlier one of its group only where both are of one patient beyond doubt ([`Identity::is`]).
//! 3. The stamp of a study covers those of the earlier ones of its group: where one of these changes or comes, it is done again.
//! 4. A study waits until the earlier ones are done, whoever does them. So its result does not depend on who is first.
//!
//! ```text
//!   work/earlier/KEY/STAMP/SERIES.gz   what later studies need to know of a series
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use rayon::prelude::*;

use super::CohortError;
use super::error::io_at;
use crate::codes::sha256_hex;
use crate::dataset::{Identity, Instance, study_began};
use crate::findings::Findings;
use crate::followup::Earlier;
use crate::series::{Inventory, StudyFiles};

const EARLIER: &str = "earlier";
/// Digits of a stamp that name a folder.
const DIGITS: usize = 20;

/// Studies of patients with several, by their place in the inventory; empty where the package follows nothing.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    visits: BTreeMap<usize, Visit>,
}

#[derive(Debug)]
struct Visit {
    patient: Identity,
    /// Hash of the Patient ID.
    group: String,
    began: (Date, String),
    /// Those of the group that were made before, the first one first.
    earlier: Vec<usize>,
}

/// An earlier study that a study may be compared with.
pub(super) struct EarlierStudy<'a> {
    pub(super) files: &'a StudyFiles,
    /// From its Study Date to that of the later one.
    pub(super) days: i64,
    /// Whether both are of one patient beyond doubt.
    pub(super) is_same_patient: bool,
}

impl Timeline {
    /// From the first header of each study: whose it is, and when it was made. One without Patient ID or Study Date has no place here.
    pub(super) fn of(inventory: &Inventory) -> Self {
        let visit = |(n, files): (usize, &StudyFiles)| {
            let instance = files.files.first().filter(|_| !files.study_uid.is_empty()).and_then(|path| Instance::read(path).ok())?;
            let patient = Identity::of_instance(&instance).ok()?;
            let group = sha256_hex(patient.id()?.as_bytes());
            Some((n, Visit { patient, group, began: study_began(&*instance.attributes)?, earlier: Vec::new() }))
        };
        Self { visits: inventory.studies.par_iter().enumerate().filter_map(visit).collect() }
    }

    /// What decides the share of a study that it belongs to: the same for the studies of one group.
    pub(super) fn group(&self, study: usize) -> Option<&str> {
        self.visits.get(&study).map(|visit| visit.group.as_str())
    }

    /// `chosen` with all other studies of their groups, ascending.
    pub(super) fn whole(&self, chosen: &[usize]) -> Vec<usize> {
        let groups: HashSet<&str> = chosen.iter().filter_map(|&n| self.group(n)).collect();
        let others = self.visits.iter().filter(|(_, visit)| groups.contains(visit.group.as_str())).map(|(&n, _)| n);
        let mut all: Vec<usize> = chosen.iter().copied().chain(others).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Of `chosen` alone: says which come before which, puts them in an order in which they can be done, and gives stamps that cover the
    /// earlier ones.
    pub(super) fn settle(&mut self, chosen: &mut [usize], inventory: &mut Inventory) {
        let wanted: HashSet<usize> = chosen.iter().copied().collect();
        self.visits.retain(|n, _| wanted.contains(n));
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (&n, visit) in &self.visits {
            groups.entry(&visit.group).or_default().push(n);
        }
        let mut place: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut all_earlier: Vec<(usize, Vec<usize>)> = Vec::new();
        for mut members in groups.into_values() {
            let first = members[0];
            members.sort_by_key(|n| (&self.visits[n].began, *n));
            for (rank, &n) in members.iter().enumerate() {
                place.insert(n, (first, rank));
                let earlier: Vec<usize> =
                    members[..rank].iter().copied().filter(|e| is_before(&self.visits[e].began, &self.visits[&n].began)).collect();
                if !earlier.is_empty() {
                    let stamps: Vec<&str> = earlier.iter().chain([&n]).map(|&n| inventory.studies[n].stamp.as_str()).collect();
                    inventory.studies[n].stamp = sha256_hex(stamps.join("\n").as_bytes());
                }
                all_earlier.push((n, earlier));
            }
        }
        for (n, earlier) in all_earlier {
            self.visits.entry(n).and_modify(|visit| visit.earlier = earlier);
        }
        chosen.sort_by_key(|n| place.get(n).copied().unwrap_or((*n, 0)));
    }

    /// The studies that must be done before this one, the first one first.
    pub(super) fn earlier(&self, study: usize) -> &[usize] {
        self.visits.get(&study).map_or(&[], |visit| &visit.earlier)
    }

    /// The same with what is to be known of them, the last one first.
    pub(super) fn earlier_of<'a>(&'a self, study: usize, inventory: &'a Inventory) -> impl Iterator<Item = EarlierStudy<'a>> {
        let visit = self.visits.get(&study);
        let of = move |&n: &usize| {
            let (now, then) = (visit?, self.visits.get(&n)?);
            let days = i64::from(now.began.0.since(then.began.0).ok()?.get_days());
            Some(EarlierStudy { files: &inventory.studies[n], days, is_same_patient: now.patient.is(&then.patient) })
        };
        self.earlier(study).iter().rev().filter_map(of)
    }

    /// Whether a result is of the patient whose study it is taken for: false, too, where the study has no place in time.
    pub(super) fn is_of_patient(&self, study: usize, findings: &Findings) -> bool {
        let analysed = findings.source.instances.first().and_then(|instance| Identity::of_instance(instance).ok());
        self.visits.get(&study).zip(analysed).is_some_and(|(visit, analysed)| visit.patient.is(&analysed))
    }
}

/// Whether one moment is before another; of one day, where both times are known.
fn is_before((date, time): &(Date, String), (other_date, other_time): &(Date, String)) -> bool {
    date < other_date || (date == other_date && !time.is_empty() && !other_time.is_empty() && time < other_time)
}

fn folder(work: &Path, study: &StudyFiles) -> PathBuf {
    work.join(EARLIER).join(&study.key).join(&study.stamp[..DIGITS.min(study.stamp.len())])
}

/// Forgets what is known of a study, of whatever files.
pub(super) fn forget(work: &Path, study: &StudyFiles) -> Result<(), CohortError> {
    let folder = work.join(EARLIER).join(&study.key);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Keeps what later studies need to know of a series; `name` is that of its results.
pub(super) fn keep(work: &Path, study: &StudyFiles, name: &Path, earlier: &Earlier) -> Result<(), CohortError> {
    let folder = folder(work, study);
    let path = folder.join(name).with_added_extension("gz");
    let write = || {
        fs::create_dir_all(&folder)?;
        let mut file = tempfile::Builder::new().prefix(".earlier-").tempfile_in(&folder)?;
        earlier.write(io::BufWriter::new(&mut file))?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error).map(drop)
    };
    write().map_err(io_at("write", &path))
}

/// What is known of each series of a study that was analysed, by the name of its results.
pub(super) fn kept(work: &Path, study: &StudyFiles) -> Result<Vec<Earlier>, CohortError> {
    let folder = folder(work, study);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_at("look into", &folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_at("look into", &folder))?.path();
        paths.extend(path.extension().is_some_and(|extension| extension == "gz").then_some(path));
    }
    paths.sort();
    let read = |path: &PathBuf| File::open(path).and_then(|file| Earlier::read(io::BufReader::new(file))).map_err(io_at("read", path));
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_day_has_an_order_only_by_times() {
        let at = |date: &str, time: &str| (date.parse::<Date>().unwrap(), time.to_owned());
        let day = "2026-01-01";
        assert!(is_before(&at(day, ""), &at("2026-01-02", "")));
        assert!(is_before(&at(day, "0900"), &at(day, "100000.5")));
        for (a, b) in [("", ""), ("0900", ""), ("", "0900"), ("0900", "0900"), ("10", "09")] {
            assert!(!is_before(&at(day, a), &at(day, b)), "{a} {b}");
        }
        assert!(!is_before(&at("2026-01-02", "01"), &at(day, "02")));
    }
}
