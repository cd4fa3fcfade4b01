//! A disk full of studies, without their headers in memory: which files belong to which study.
//!
//! Headers of a thousand CT studies take gigabytes. An [`Inventory`] reads each once and holds some 300 bytes a file; [`Inventory::open`]
//! reads those of one study again.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::archive::Unpacked;
use super::discover::{File, Found, ends_with, find, group_of, grouped, left_out, read, shown};
use super::{Discovery, Skipped};
use crate::codes::{Uid, hex};
use crate::dataset::Instance;

/// Studies and volumes below files and folders.
#[derive(Debug, Default)]
pub struct Inventory {
    /// By Study Instance UID; then researchers' volumes, each for itself, by path.
    pub studies: Vec<StudyFiles>,
    /// What is neither or cannot be read, by path.
    pub skipped: Vec<Skipped>,
    unpacked: Vec<Arc<Unpacked>>,
}

/// The files of one study, or of one researcher's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyFiles {
    /// Names it among others, now and later: 20 hexadecimal digits made of its Study Instance UID, or of the path of a volume.
    pub key: String,
    /// Study Instance UID (0020,000D) as it is stated; empty where none is, and for a volume.
    pub study_uid: Uid,
    /// At least one, by path; none as long as it is elsewhere.
    pub files: Vec<PathBuf>,
    /// Of all files.
    pub bytes: u64,
    /// Changes whenever an instance comes, goes or changes: SHA-256 over SOP Instance UID, size and time of change of each file, wherever
    /// it lies. Contents are not hashed: results have that hash.
    pub stamp: String,
}

impl StudyFiles {
    /// A study whose files are not here yet; `stamp` is by which it is known whether it has changed.
    pub fn elsewhere(study_uid: &str, stamp: String) -> Self {
        Self { key: key_of(&format!("study\n{study_uid}")), study_uid: study_uid.to_owned(), files: Vec::new(), bytes: 0, stamp }
    }

    /// The same study with these files.
    pub fn with(&self, files: Vec<PathBuf>) -> Self {
        Self { files, ..self.clone() }
    }

    /// The folder that all its files lie in, at whatever depth; of a single file that file.
    fn place(&self) -> PathBuf {
        let [first, rest @ ..] = self.files.as_slice() else { return PathBuf::new() };
        let mut place = if rest.is_empty() { first.as_path() } else { first.parent().unwrap_or(first) };
        while !rest.iter().all(|file| file.starts_with(place)) {
            let Some(parent) = place.parent() else { break };
            place = parent;
        }
        place.to_owned()
    }
}

/// What is held of one file.
struct Held {
    /// The same for all instances of a series, and another for each volume.
    group: [u8; 16],
    study_uid: Uid,
    is_volume: bool,
    bytes: u64,
    stamp: [u8; 32],
}

impl Inventory {
    /// Reads the header of every file below `inputs`, which are what [`super::discover`] takes.
    pub fn of(inputs: &[PathBuf]) -> Self {
        let Found { files, mut skipped, unpacked } = find(inputs, held);
        let mut held = Vec::with_capacity(files.len());
        for (path, file) in files {
            match file {
                Ok(file) => held.push((path, file)),
                Err(error) => skipped.push(left_out(path, error, &unpacked)),
            }
        }
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        // Header and data of a pair are one volume, under the header's name.
        let is_header = |(path, file): &&(PathBuf, Held)| file.is_volume && ends_with(path, ".hdr");
        let headers: HashSet<PathBuf> = held.iter().filter(is_header).map(|(path, _)| path.clone()).collect();
        held.retain(|(path, _)| !ends_with(path, ".img") || !headers.contains(&path.with_extension("hdr")));
        Self { studies: studies(held, &unpacked), skipped, unpacked }
    }

    /// Reads the headers of one study again.
    pub fn open(&self, study: &StudyFiles) -> Discovery {
        let files = study.files.par_iter().map(|path| (path.clone(), read(path))).collect();
        grouped(files, Vec::new(), self.unpacked.clone())
    }

    /// `message` with `archive.zip!entry N` for what is a path of a temporary folder.
    pub fn shown_in(&self, message: &str) -> String {
        self.unpacked.iter().fold(message.to_owned(), |message, archive| archive.shown_in(&message))
    }

    /// Where people find a study, from the root: the folder that its files lie in, or the archive.
    pub fn place_of(&self, study: &StudyFiles) -> PathBuf {
        let place = self.source_of(&study.place());
        std::path::absolute(&place).unwrap_or(place)
    }

    /// The file that people know: itself, or the archive that it is in.
    pub fn source_of(&self, path: &Path) -> PathBuf {
        self.unpacked.iter().find_map(|archive| archive.archive_of(path)).unwrap_or(path).to_owned()
    }
}

fn held(path: &Path, file: File, unpacked: &[Arc<Unpacked>]) -> Held {
    let shown = shown(path.to_owned(), unpacked);
    // What was unpacked just now is as old as its archive.
    let outer = unpacked.iter().find_map(|archive| archive.archive_of(path)).unwrap_or(path);
    let of = |path: &Path| std::fs::metadata(path).map_or((0, 0), |metadata| (metadata.len(), changed_ns(&metadata)));
    let beside = if ends_with(path, ".hdr") { of(&path.with_extension("img")) } else { (0, 0) };
    let (identity, group, study_uid, bytes) = match &file {
        File::Instance(instance) => (identity(instance), group_of(instance).join("\n"), instance.study_uid.clone(), instance.file_bytes()),
        File::Volume(_) => {
            let name = shown.to_string_lossy().into_owned();
            (name.clone(), format!("volume\n{name}"), String::new(), of(path).0 + beside.0)
        }
    };
    let stamp = Sha256::digest(format!("{identity}\n{bytes}\n{}\n{}", of(outer).1, beside.1));
    let group = Sha256::digest(group);
    let mut short = [0; 16];
    short.copy_from_slice(&group[..16]);
    Held { group: short, study_uid, is_volume: matches!(file, File::Volume(_)), bytes, stamp: stamp.into() }
}

fn identity(instance: &Instance) -> String {
    format!("{}\n{}\n{}", instance.sop_class_uid, instance.series_uid, instance.sop_instance_uid)
}

/// Since 1970; 0 where the system does not say.
fn changed_ns(metadata: &Metadata) -> u128 {
    metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos())
}

fn key_of(name: &str) -> String {
    hex(&Sha256::digest(name)[..10])
}

/// A series is never torn apart: where one names several studies, it belongs to the first by UID, and the gate then refuses it.
fn studies(held: Vec<(PathBuf, Held)>, unpacked: &[Arc<Unpacked>]) -> Vec<StudyFiles> {
    let mut study_of: BTreeMap<[u8; 16], &Uid> = BTreeMap::new();
    for (_, file) in &held {
        let study = study_of.entry(file.group).or_insert(&file.study_uid);
        *study = (*study).min(&file.study_uid);
    }
    let name = |path: &Path, file: &Held| -> (bool, String) {
        match study_of[&file.group].as_str() {
            _ if file.is_volume => (true, format!("volume\n{}", shown(path.to_owned(), unpacked).display())),
            "" => (false, format!("series\n{}", hex(&file.group))),
            uid => (false, format!("study\n{uid}")),
        }
    };
    let mut studies: BTreeMap<(bool, String), Vec<usize>> = BTreeMap::new();
    for (n, (path, file)) in held.iter().enumerate() {
        studies.entry(name(path, file)).or_default().push(n);
    }
    let study = |((_, name), places): ((bool, String), Vec<usize>)| {
        let mut stamps: Vec<[u8; 32]> = places.iter().map(|&n| held[n].1.stamp).collect();
        stamps.sort_unstable();
        StudyFiles {
            key: key_of(&name),
            study_uid: study_of[&held[places[0]].1.group].clone(),
            files: places.iter().map(|&n| held[n].0.clone()).collect(),
            bytes: places.iter().map(|&n| held[n].1.bytes).sum(),
            stamp: hex(&Sha256::digest(stamps.concat())),
        }
    };
    studies.into_iter().map(study).collect()
}
