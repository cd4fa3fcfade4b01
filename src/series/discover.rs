//! Files and folders to series.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Reason, Series};
use crate::codes::{is_uid, uid_by_name};
use crate::dataset::{DatasetError, Instance, same_content};

/// The largest number of files below all inputs.
const MAX_FILES: usize = 1_000_000;
/// Folders within folders.
const MAX_LEVELS: usize = 32;

/// What was found.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// By study UID, series number and series UID.
    pub series: Vec<Series>,
    /// What is no DICOM instance or cannot be read, by path.
    pub skipped: Vec<Skipped>,
}

/// One file or folder that was left out.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub error: DatasetError,
}

/// Finds the series in files and below folders, whatever the names are. The order of `inputs` and of files does not matter.
///
/// One bad file never stops the rest: it is listed. Links are followed, each folder once.
pub fn discover(inputs: &[PathBuf]) -> Discovery {
    let mut walk = Walk::default();
    for input in inputs {
        walk.visit(input, 0);
    }
    walk.files.sort();
    walk.files.dedup();
    let mut skipped = walk.skipped;
    let read: Vec<_> = walk.files.par_iter().map(|path| Instance::read(path)).collect();
    let mut groups: BTreeMap<Vec<String>, Vec<Instance>> = BTreeMap::new();
    for (path, result) in walk.files.into_iter().zip(read) {
        match result {
            Ok(instance) => groups.entry(group_of(&instance)).or_default().push(instance),
            Err(error) => skipped.push(Skipped { path, error }),
        }
    }
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    let mut series: Vec<Series> = groups.into_values().collect::<Vec<_>>().into_par_iter().map(series_of).collect();
    series.sort_by(|a, b| (&a.study_uid, a.series_number, &a.series_uid).cmp(&(&b.study_uid, b.series_number, &b.series_uid)));
    Discovery { series, skipped }
}

#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    folders_seen: HashSet<PathBuf>,
    skipped: Vec<Skipped>,
}

impl Walk {
    fn visit(&mut self, path: &Path, level: usize) {
        if let Err(error) = self.try_visit(path, level) {
            self.skipped.push(Skipped { path: path.into(), error });
        }
    }

    fn try_visit(&mut self, path: &Path, level: usize) -> Result<(), DatasetError> {
        let refused = |what: &'static str| move |e: std::io::Error| DatasetError::Io { what, kind: e.kind(), path: path.into() };
        let metadata = std::fs::metadata(path).map_err(refused("file"))?;
        if !metadata.is_dir() {
            if self.files.len() == MAX_FILES {
                return Err(DatasetError::TooMany { what: "files", limit: MAX_FILES, path: path.into() });
            }
            self.files.push(path.into());
            return Ok(());
        }
        if level == MAX_LEVELS {
            return Err(DatasetError::TooMany { what: "levels of folders", limit: MAX_LEVELS, path: path.into() });
        }
        // A link back up, or an input inside another, leads to a folder that was seen.
        if !self.folders_seen.insert(path.canonicalize().map_err(refused("folder"))?) {
            return Ok(());
        }
        let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(refused("folder"))?.map(|e| e.map(|e| e.path())).collect();
        let mut entries = entries.map_err(refused("folder"))?;
        entries.sort();
        entries.iter().for_each(|entry| self.visit(entry, level + 1));
        Ok(())
    }
}

/// What instances of one series have in common. A series UID is enough; without one, what an ordinary export keeps together.
fn group_of(instance: &Instance) -> Vec<String> {
    if !instance.series_uid.is_empty() {
        return vec![instance.series_uid.clone()];
    }
    let folder = instance.path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let number = instance.series_number.map_or_else(String::new, |n| n.to_string());
    let sop_class = instance.sop_class_uid.clone();
    vec![String::new(), instance.study_uid.clone(), folder, instance.patient_key.clone(), instance.modality.clone(), number, sop_class]
}

/// One group as a series: instances that are there twice are dropped, missing UIDs derived, contradictions noted.
pub(super) fn series_of(mut instances: Vec<Instance>) -> Series {
    assert!(!instances.is_empty(), "a series has instances");
    instances.sort_by(|a, b| (a.instance_number, &a.sop_instance_uid, &a.path).cmp(&(b.instance_number, &b.sop_instance_uid, &b.path)));
    let mut warnings = Vec::new();
    let mut defects = Vec::new();
    drop_copies(&mut instances, &mut warnings, &mut defects);
    let distinct = |of: fn(&Instance) -> &String| instances.iter().map(of).collect::<HashSet<_>>().len();
    let (patients, studies) = (distinct(|i| &i.patient_key), distinct(|i| &i.study_uid));
    if patients > 1 {
        defects.push(Reason::MixedPatients { patients });
    }
    if studies > 1 {
        defects.push(Reason::MixedStudies { studies });
    }
    let total = instances.len();
    let mut check_uid = |what, uid_of: fn(&Instance) -> &String| {
        let count = instances.iter().map(uid_of).filter(|uid| !uid.is_empty() && !is_uid(uid)).count();
        if count > 0 {
            defects.push(Reason::InvalidUid { what, count, total });
        }
    };
    check_uid("Study Instance", |i| &i.study_uid);
    check_uid("Series Instance", |i| &i.series_uid);
    check_uid("SOP Instance", |i| &i.sop_instance_uid);
    check_uid("Frame of Reference", |i| &i.frame_of_reference_uid);
    let first = &instances[0];
    let mut sop_uids: Vec<&str> = instances.iter().map(|i| i.sop_instance_uid.as_str()).collect();
    sop_uids.sort_unstable();
    let mut uid = |stated: &str, level: &'static str| {
        if is_uid(stated) {
            return stated.to_owned();
        }
        if stated.is_empty() {
            warnings.push(format!("{level} Instance UID is missing in the instances; one derived from their SOP Instance UIDs is used"));
        }
        let parts: Vec<&str> = [level].into_iter().chain(sop_uids.iter().copied()).collect();
        uid_by_name(&parts)
    };
    let (study_uid, series_uid) = (uid(&first.study_uid, "Study"), uid(&first.series_uid, "Series"));
    let (modality, series_number) = (first.modality.clone(), first.series_number);
    // What refers to an instance refers to it under the UIDs that are used.
    for instance in instances.iter_mut().filter(|i| i.study_uid.is_empty()) {
        instance.study_uid.clone_from(&study_uid);
    }
    for instance in instances.iter_mut().filter(|i| i.series_uid.is_empty()) {
        instance.series_uid.clone_from(&series_uid);
    }
    Series { study_uid, series_uid, modality, series_number, instances, warnings, defects }
}

/// Keeps one of several files that hold the same instance.
fn drop_copies(instances: &mut Vec<Instance>, warnings: &mut Vec<String>, defects: &mut Vec<Reason>) {
    let mut kept: Vec<Instance> = Vec::with_capacity(instances.len());
    let mut place: BTreeMap<String, usize> = BTreeMap::new();
    let (mut copies, mut conflicts) = (0usize, 0usize);
    for instance in instances.drain(..) {
        match place.get(&instance.sop_instance_uid).filter(|_| !instance.sop_instance_uid.is_empty()) {
            // What cannot be compared counts as different.
            Some(&n) if same_content(&kept[n].path, &instance.path).unwrap_or(false) => copies += 1,
            Some(_) => {
                conflicts += 1;
                kept.push(instance);
            }
            None => {
                place.insert(instance.sop_instance_uid.clone(), kept.len());
                kept.push(instance);
            }
        }
    }
    *instances = kept;
    if copies > 0 {
        warnings.push(format!("{copies} files are copies of other instances and were left out"));
    }
    if conflicts > 0 {
        defects.push(Reason::ConflictingCopies { conflicts });
    }
}
