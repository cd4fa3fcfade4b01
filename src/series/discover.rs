//! Files, folders, media directories and archives to series.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use thiserror::Error;

use super::archive::{Unpacked, is_archive, unpack};
use super::dicomdir::{Referenced, referenced_files};
use super::{ArchiveError, Reason, Series};
use crate::codes::{Uid, is_uid, uid_by_name};
use crate::dataset::{DatasetError, Instance, same_content};
use crate::geometry::Coded;
use crate::research::{self, ResearchError, VolumeHeader};

/// The largest number of files below all inputs.
const MAX_FILES: usize = 1_000_000;
/// Folders within folders.
const MAX_LEVELS: usize = 32;

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// By study UID, series number and series UID.
    pub series: Vec<Series>,
    /// Researchers' volumes: NIfTI and NRRD files, by path.
    pub volumes: Vec<VolumeFile>,
    /// What is none of these or cannot be read, by path.
    pub skipped: Vec<Skipped>,
    /// Archives that were unpacked: their files are there as long as this value, or a copy of it, lives.
    _unpacked: Vec<Arc<Unpacked>>,
}

/// A file with one volume.
#[derive(Debug, Clone)]
pub struct VolumeFile {
    /// Where to read it.
    pub path: PathBuf,
    /// How it is named to people: its path, or `archive.zip!entry N`.
    pub shown: PathBuf,
    /// What it says of its volume.
    pub header: VolumeHeader,
}

/// One file or folder that was left out.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The file or folder; a file of an archive as `archive.zip!entry N`.
    pub path: PathBuf,
    /// Why.
    pub error: InputError,
}

/// Why a file or folder was left out.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// As a DICOM file, or as a file at all.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// As an archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// As a NIfTI or NRRD file.
    #[error(transparent)]
    Research(#[from] ResearchError),
    /// An entry of an archive that is no file of interest.
    #[error("{what} ({})", path.display())]
    LeftOut {
        /// What it is.
        what: &'static str,
        /// The entry.
        path: PathBuf,
    },
}

impl Coded for InputError {
    fn code(&self) -> &'static str {
        match self {
            Self::Dataset(error) => error.code(),
            Self::Archive(error) => error.code(),
            Self::Research(error) => error.code(),
            Self::LeftOut { .. } => "series.left-out-of-archive",
        }
    }
}

impl InputError {
    /// Whether the file is simply none of ours to read, such as a text file or a media directory, rather than unreadable.
    pub fn is_foreign(&self) -> bool {
        match self {
            Self::Dataset(error) => error.is_foreign(),
            Self::Archive(_) => false,
            Self::Research(error) => error.is_foreign(),
            Self::LeftOut { .. } => true,
        }
    }
}

impl Discovery {
    /// `message` with `archive.zip!entry N` for what is a path of a temporary folder.
    pub fn shown_in(&self, message: &str) -> String {
        self._unpacked.iter().fold(message.to_owned(), |message, archive| archive.shown_in(&message))
    }
}

/// Finds series and volumes in files, below folders and in zip archives, whatever the names are. The order of `inputs` and of files
/// does not matter.
///
/// A DICOMDIR that is itself an input stands for the files that it refers to; within a folder it is left out, since they lie beside it.
/// One bad file never stops the rest: it is listed. Links are followed, each folder once.
pub fn discover(inputs: &[PathBuf]) -> Discovery {
    let Found { files, skipped, unpacked } = find(inputs, None, |_, file, _| file);
    grouped(files, skipped, unpacked)
}

/// Files that were read, and what was left out on the way to them.
pub(super) struct Found<T> {
    /// By path.
    pub(super) files: Vec<(PathBuf, Result<T, InputError>)>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) unpacked: Vec<Arc<Unpacked>>,
}

/// Reads the header of every file below `inputs`, but for those below the folder `but`; `keep` is what is held of it.
pub(super) fn find<T: Send>(inputs: &[PathBuf], but: Option<&Path>, keep: impl Fn(&Path, File, &[Arc<Unpacked>]) -> T + Sync) -> Found<T> {
    // What was seen is not looked into.
    let mut walk = Walk { seen: but.and_then(|folder| folder.canonicalize().ok()).into_iter().collect(), ..Walk::default() };
    for input in inputs {
        walk.visit(input, 0);
    }
    let all = walk.read(&keep);
    // A media directory that was given stands for its files.
    let is_directory = |result: &Result<T, InputError>| matches!(result, Err(InputError::Dataset(DatasetError::Dicomdir { .. })));
    let (given, mut files): (Vec<_>, Vec<_>) = all.into_iter().partition(|(path, file)| is_directory(file) && walk.given.contains(path));
    for (path, _) in given {
        if let Err(error) = walk.directory(&path) {
            walk.skipped.push(Skipped { path, error });
        }
    }
    let known: HashSet<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
    walk.files.retain(|path| !known.contains(path));
    files.extend(walk.read(&keep));
    let Walk { skipped, unpacked, .. } = walk;
    Found { files, skipped, unpacked }
}

/// Files to series and volumes.
pub(super) fn grouped(all: Vec<(PathBuf, Result<File, InputError>)>, mut skipped: Vec<Skipped>, unpacked: Vec<Arc<Unpacked>>) -> Discovery {
    let mut groups: BTreeMap<Vec<String>, Vec<Instance>> = BTreeMap::new();
    let mut volumes = Vec::new();
    for (path, result) in all {
        match result {
            Ok(File::Instance(instance)) => groups.entry(group_of(&instance)).or_default().push(*instance),
            Ok(File::Volume(header)) => volumes.push(VolumeFile { shown: shown(path.clone(), &unpacked), path, header: *header }),
            Err(error) => skipped.push(left_out(path, error, &unpacked)),
        }
    }
    // Header and data of a pair are one volume, under the header's name.
    let headers: HashSet<PathBuf> = volumes.iter().filter(|v| ends_with(&v.path, ".hdr")).map(|v| v.path.clone()).collect();
    volumes.retain(|v| !ends_with(&v.path, ".img") || !headers.contains(&v.path.with_extension("hdr")));
    volumes.sort_by(|a, b| a.shown.cmp(&b.shown));
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    let mut series: Vec<Series> = without_copies(groups).into_par_iter().map(series_of).collect();
    series.sort_by(|a, b| (&a.study_uid, a.series_number, &a.series_uid).cmp(&(&b.study_uid, b.series_number, &b.series_uid)));
    Discovery { series, volumes, skipped, _unpacked: unpacked }
}

/// Series without UID get one that is derived from their instances: where several consist of the same instances they are copies, and one.
fn without_copies(groups: BTreeMap<Vec<String>, Vec<Instance>>) -> Vec<Vec<Instance>> {
    let mut series: Vec<Vec<Instance>> = Vec::with_capacity(groups.len());
    let mut place: BTreeMap<Vec<Uid>, usize> = BTreeMap::new();
    for group in groups.into_values() {
        let uids = sop_uids(group.iter().map(|instance| instance.sop_instance_uid.as_str()));
        let is_known = group[0].series_uid.is_empty() && !uids[0].is_empty();
        match is_known.then(|| place.get(&uids).copied()).flatten() {
            Some(n) => series[n].extend(group),
            None => {
                if is_known {
                    place.insert(uids, series.len());
                }
                series.push(group);
            }
        }
    }
    series
}

/// What UIDs are derived from: each once, ascending; those of instances without one come first, each for itself.
pub(super) fn sop_uids<'a>(uids: impl Iterator<Item = &'a str>) -> Vec<Uid> {
    let mut uids: Vec<Uid> = uids.map(str::to_owned).collect();
    uids.sort_unstable();
    uids.dedup_by(|a, b| a == b && !a.is_empty());
    uids
}

/// A UID for what has none.
pub(super) fn derived_uid(level: &str, sop_uids: &[Uid]) -> Uid {
    let parts: Vec<&str> = [level].into_iter().chain(sop_uids.iter().map(String::as_str)).collect();
    uid_by_name(&parts)
}

/// From the root and without links; a path that leads nowhere from the root as it is.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// The same however the folder of a file is named. A link in it has a name of its own.
pub(super) fn full_name_of(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (full.parent(), full.file_name()) {
        (Some(folder), Some(name)) => real_path(folder).join(name),
        _ => full,
    }
}

/// How a file is named to people.
pub(super) fn shown(path: PathBuf, unpacked: &[Arc<Unpacked>]) -> PathBuf {
    unpacked.iter().fold(path, |path, archive| archive.shown(&path))
}

/// A file that is no input, and why.
pub(super) fn left_out(path: PathBuf, error: InputError, unpacked: &[Arc<Unpacked>]) -> Skipped {
    let path = shown(path, unpacked);
    let error = match error {
        InputError::Dataset(error) => error.at(&path).into(),
        InputError::Research(error) => error.at(&path).into(),
        other => other,
    };
    Skipped { path, error }
}

/// What one file is.
pub(super) enum File {
    Instance(Box<Instance>),
    Volume(Box<VolumeHeader>),
}

/// Reads the header of a file.
pub(super) fn read(path: &Path) -> Result<File, InputError> {
    match Instance::read(path) {
        Ok(instance) => Ok(File::Instance(Box::new(instance))),
        Err(DatasetError::NotDicom { .. }) if is_research(path) => Ok(File::Volume(Box::new(research::read_header(path)?))),
        Err(error) => Err(error.into()),
    }
}

/// Whether a name ends as those of NIfTI and NRRD files do.
fn is_research(path: &Path) -> bool {
    let beside = |extension| path.with_extension(extension).is_file();
    [".nii", ".nii.gz", ".nrrd", ".nhdr"].iter().any(|end| ends_with(path, end))
        || (ends_with(path, ".hdr") && beside("img"))
        || (ends_with(path, ".img") && beside("hdr"))
}

/// Whether the name ends so, whatever the case.
pub(super) fn ends_with(path: &Path, end: &str) -> bool {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase().ends_with(end)
}

#[derive(Default)]
struct Walk {
    /// To be read.
    files: Vec<PathBuf>,
    /// Files that are inputs themselves.
    given: HashSet<PathBuf>,
    /// Folders and archives.
    seen: HashSet<PathBuf>,
    skipped: Vec<Skipped>,
    unpacked: Vec<Arc<Unpacked>>,
}

impl Walk {
    /// Reads the headers of the files that were found, each once and in order, and forgets them.
    fn read<T: Send>(&mut self, keep: &(impl Fn(&Path, File, &[Arc<Unpacked>]) -> T + Sync)) -> Vec<(PathBuf, Result<T, InputError>)> {
        let mut files = std::mem::take(&mut self.files);
        files.sort();
        files.dedup();
        // One volume under two names is one; copies of instances are found by what they hold.
        let mut volumes = HashSet::new();
        files.retain(|path| !is_research(path) || volumes.insert(full_name_of(path)));
        let unpacked = self.unpacked.as_slice();
        let read: Vec<_> = files.par_iter().map(|path| Ok(keep(path, read(path)?, unpacked))).collect();
        files.into_iter().zip(read).collect()
    }

    fn visit(&mut self, path: &Path, level: usize) {
        if let Err(error) = self.try_visit(path, level) {
            self.skipped.push(Skipped { path: path.into(), error });
        }
    }

    fn try_visit(&mut self, path: &Path, level: usize) -> Result<(), InputError> {
        let refused = |what: &'static str| move |e: std::io::Error| DatasetError::Io { what, kind: e.kind(), path: path.into() };
        let metadata = std::fs::metadata(path).map_err(refused("file"))?;
        if !metadata.is_dir() {
            if (level == 0 || ends_with(path, ".zip")) && metadata.is_file() && starts_as_archive(path) {
                let first = self.seen.insert(path.canonicalize().map_err(refused("file"))?);
                return if first { self.archive(path) } else { Ok(()) };
            }
            if level == 0 {
                self.given.insert(path.into());
            }
            return self.file(path);
        }
        if level == MAX_LEVELS {
            return Err(DatasetError::TooMany { what: "levels of folders", limit: MAX_LEVELS, path: path.into() }.into());
        }
        // A link back up, or an input inside another, leads to a folder that was seen.
        if !self.seen.insert(path.canonicalize().map_err(refused("folder"))?) {
            return Ok(());
        }
        let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(refused("folder"))?.map(|e| e.map(|e| e.path())).collect();
        let mut entries = entries.map_err(refused("folder"))?;
        entries.sort();
        entries.iter().for_each(|entry| self.visit(entry, level + 1));
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), InputError> {
        if self.files.len() == MAX_FILES {
            return Err(DatasetError::TooMany { what: "files", limit: MAX_FILES, path: path.into() }.into());
        }
        self.files.push(path.into());
        Ok(())
    }

    fn directory(&mut self, path: &Path) -> Result<(), InputError> {
        let Referenced { files, missing } = referenced_files(path)?;
        self.skipped.extend(missing.into_iter().map(|(path, error)| Skipped { path, error: error.into() }));
        files.iter().try_for_each(|file| self.file(file))
    }

    fn archive(&mut self, path: &Path) -> Result<(), InputError> {
        let unpacked = Arc::new(unpack(path)?);
        for &(number, what) in &unpacked.left_out {
            let path = unpacked.entry(number);
            self.skipped.push(Skipped { path: path.clone(), error: InputError::LeftOut { what, path } });
        }
        self.unpacked.push(Arc::clone(&unpacked));
        unpacked.files.iter().try_for_each(|file| self.file(file))
    }
}

fn starts_as_archive(path: &Path) -> bool {
    let mut start = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok_and(|()| is_archive(&start))
}

/// What instances of one series have in common. A series UID is enough; without one, what an ordinary export keeps together.
pub(super) fn group_of(instance: &Instance) -> Vec<String> {
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
    let sop_uids = sop_uids(instances.iter().map(|i| i.sop_instance_uid.as_str()));
    let mut uid = |stated: &str, level: &'static str| {
        if is_uid(stated) {
            return stated.to_owned();
        }
        if stated.is_empty() {
            warnings.push(format!("{level} Instance UID is missing in the instances; one derived from their SOP Instance UIDs is used"));
        }
        derived_uid(level, &sop_uids)
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
    let instances = instances.into_iter().map(Arc::new).collect();
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
