//! A disk full of studies, without their headers in memory: which files belong to which study.
//!
//! Headers of a thousand CT studies take gigabytes. An [`Inventory`] reads each once and holds some 300 bytes a file; [`Inventory::open`]
//! reads those of one study again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::archive::Unpacked;
use super::discover::{File, Found, derived_uid, ends_with, find, full_name_of, group_of, grouped, left_out, read, sop_uids};
use super::{Discovery, Skipped};
use crate::codes::{Uid, hex, is_uid};
use crate::dataset::Instance;

/// Studies and volumes below files and folders.
#[derive(Debug, Default)]
pub struct Inventory {
    /// By Study Instance UID; then researchers' volumes, each for itself, by path.
    pub studies: Vec<StudyFiles>,
    /// What is neither or cannot be read, by path.
    pub skipped: Vec<Skipped>,
    /// Folders that are inputs or hold some, from the root.
    folders: HashSet<PathBuf>,
    unpacked: Vec<Arc<Unpacked>>,
}

/// The files of one study, or of one researcher's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyFiles {
    /// Names it among others, now and later: 20 hexadecimal digits made of its Study Instance UID, or of the path of a volume.
    pub key: String,
    /// Study Instance UID (0020,000D) as it is stated; empty where none is, and for a volume.
    pub study_uid: Uid,
    /// By which a list names it: the same where it is a UID, and otherwise the one that is derived for it; empty for a volume.
    pub listed_uid: Uid,
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
        let [study_uid, listed_uid] = [study_uid, study_uid].map(str::to_owned);
        Self { key: key_of(format!("study\n{study_uid}").as_bytes()), study_uid, listed_uid, files: Vec::new(), bytes: 0, stamp }
    }

    /// The same study with these files.
    pub fn with(&self, files: Vec<PathBuf>) -> Self {
        Self { files, ..self.clone() }
    }
}

/// What is held of one file.
struct Held {
    /// The same for all instances of a series, and another for each volume.
    group: [u8; 16],
    study_uid: Uid,
    /// SOP Instance UID; empty where there is a Study Instance UID, which needs none.
    sop_uid: Uid,
    /// Of a volume, however it was named; empty for an instance.
    full_name: PathBuf,
    is_volume: bool,
    bytes: u64,
    stamp: [u8; 32],
}

impl Inventory {
    /// Reads the header of every file below `inputs`, which are what [`super::discover`] takes, but for those below the folder `but`.
    pub fn of(inputs: &[PathBuf], but: Option<&Path>) -> Self {
        let Found { files, mut skipped, unpacked } = find(inputs, but, held);
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
        let folder = |input: &PathBuf| {
            let path = std::path::absolute(input).ok()?;
            if path.is_dir() { Some(path) } else { path.parent().map(Path::to_owned) }
        };
        Self { studies: studies(held), skipped, folders: inputs.iter().filter_map(folder).collect(), unpacked }
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

    /// Where people find a study, from the root: for each input the folder that its files lie in, at whatever depth, and each archive. A
    /// single file is itself its place. Never the root, which holds everything; none of a study that is elsewhere.
    pub fn places_of(&self, study: &StudyFiles) -> Vec<PathBuf> {
        let from_root = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut places = BTreeSet::new();
        let mut by_input: BTreeMap<&Path, Vec<PathBuf>> = BTreeMap::new();
        for file in &study.files {
            let source = self.source_of(file);
            let path = from_root(&source);
            let input = path.ancestors().filter_map(|folder| self.folders.get(folder)).last();
            match input.filter(|_| source == *file) {
                Some(input) => by_input.entry(input).or_default().push(path),
                None => {
                    places.insert(path);
                }
            }
        }
        for files in by_input.values() {
            match (common_folder(files), files.as_slice()) {
                (_, [file]) => places.extend([file.clone()]),
                (Some(folder), _) => places.extend([folder.to_owned()]),
                (None, _) => {
                    let folder_of = |file: &PathBuf| file.parent().filter(|folder| folder.parent().is_some()).unwrap_or(file).to_owned();
                    places.extend(files.iter().map(folder_of));
                }
            }
        }
        places.into_iter().collect()
    }

    /// The file that people know: itself, or the archive that it is in.
    pub fn source_of(&self, path: &Path) -> PathBuf {
        self.unpacked.iter().find_map(|archive| archive.archive_of(path)).unwrap_or(path).to_owned()
    }
}

fn held(path: &Path, file: File, unpacked: &[Arc<Unpacked>]) -> Held {
    // What was unpacked just now is as old as its archive.
    let outer = unpacked.iter().find_map(|archive| archive.archive_of(path)).unwrap_or(path);
    let of = |path: &Path| std::fs::metadata(path).map_or((0, 0), |metadata| (metadata.len(), changed_ns(&metadata)));
    let beside = if ends_with(path, ".hdr") { of(&path.with_extension("img")) } else { (0, 0) };
    let mut full_name = PathBuf::new();
    let (identity, group, study_uid, bytes) = match &file {
        File::Instance(instance) => {
            let group = group_of(instance).join("\n").into_bytes();
            (identity(instance).into_bytes(), group, instance.study_uid.clone(), instance.file_bytes())
        }
        File::Volume(_) => {
            full_name = full_name_of(outer);
            if outer != path {
                full_name.push(path.file_name().unwrap_or_default()); // its number in the archive
            }
            let name = full_name.as_os_str().as_encoded_bytes();
            (name.to_owned(), [b"volume\n".as_slice(), name].concat(), String::new(), of(path).0 + beside.0)
        }
    };
    let sop_uid = match &file {
        File::Instance(instance) if !is_uid(&study_uid) => instance.sop_instance_uid.clone(),
        _ => String::new(),
    };
    let stamp = Sha256::digest([identity.as_slice(), format!("\n{bytes}\n{}\n{}", of(outer).1, beside.1).as_bytes()].concat());
    let group = Sha256::digest(group);
    let mut short = [0; 16];
    short.copy_from_slice(&group[..16]);
    Held { group: short, study_uid, sop_uid, full_name, is_volume: matches!(file, File::Volume(_)), bytes, stamp: stamp.into() }
}

fn identity(instance: &Instance) -> String {
    format!("{}\n{}\n{}", instance.sop_class_uid, instance.series_uid, instance.sop_instance_uid)
}

/// Since 1970; 0 where the system does not say.
fn changed_ns(metadata: &Metadata) -> u128 {
    metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_nanos())
}

/// The folder that all these files lie in, at whatever depth; none where that is the root.
fn common_folder(files: &[PathBuf]) -> Option<&Path> {
    let within = |folder: &&Path| files.iter().all(|file| file.starts_with(folder));
    files.first()?.ancestors().skip(1).find(within).filter(|folder| folder.parent().is_some())
}

fn key_of(name: &[u8]) -> String {
    hex(&Sha256::digest(name)[..10])
}

/// A series is never torn apart: where one names several studies, it belongs to the first by UID, and the gate then refuses it. A series
/// without Study Instance UID is a study of its own, and its copies belong to it.
fn studies(held: Vec<(PathBuf, Held)>) -> Vec<StudyFiles> {
    let mut study_of: BTreeMap<[u8; 16], &Uid> = BTreeMap::new();
    for (_, file) in &held {
        let study = study_of.entry(file.group).or_insert(&file.study_uid);
        *study = (*study).min(&file.study_uid);
    }
    let mut instances: HashMap<[u8; 16], Vec<&str>> = HashMap::new();
    for (_, file) in held.iter().filter(|(_, file)| !file.is_volume && study_of[&file.group].is_empty()) {
        instances.entry(file.group).or_default().push(&file.sop_uid);
    }
    // As `series_of` derives them.
    let derived: HashMap<[u8; 16], (bool, Uid)> = instances
        .into_iter()
        .map(|(group, uids)| {
            let uids = sop_uids(uids.into_iter());
            (group, (uids[0].is_empty(), derived_uid("Study", &uids)))
        })
        .collect();
    let name = |file: &Held| -> (bool, Vec<u8>) {
        match (study_of[&file.group].as_str(), derived.get(&file.group)) {
            _ if file.is_volume => (true, [b"volume\n".as_slice(), file.full_name.as_os_str().as_encoded_bytes()].concat()),
            // Of instances without UID nobody knows whether they are copies.
            (_, Some((true, _))) => (false, format!("series\n{}", hex(&file.group)).into_bytes()),
            (_, Some((false, uid))) => (false, format!("study\n{uid}").into_bytes()),
            (uid, None) => (false, format!("study\n{uid}").into_bytes()),
        }
    };
    let mut studies: BTreeMap<(bool, Vec<u8>), Vec<usize>> = BTreeMap::new();
    for (n, (_, file)) in held.iter().enumerate() {
        studies.entry(name(file)).or_default().push(n);
    }
    let study = |((_, name), places): ((bool, Vec<u8>), Vec<usize>)| {
        let first = &held[places[0]].1;
        let study_uid = study_of[&first.group].clone();
        let listed_uid = match derived.get(&first.group) {
            Some((_, uid)) => uid.clone(),
            None if first.is_volume || is_uid(&study_uid) => study_uid.clone(),
            None => derived_uid("Study", std::slice::from_ref(&study_uid)),
        };
        let mut stamps: Vec<[u8; 32]> = places.iter().map(|&n| held[n].1.stamp).collect();
        stamps.sort_unstable();
        StudyFiles {
            key: key_of(&name),
            study_uid,
            listed_uid,
            files: places.iter().map(|&n| held[n].0.clone()).collect(),
            bytes: places.iter().map(|&n| held[n].1.bytes).sum(),
            stamp: hex(&Sha256::digest(stamps.concat())),
        }
    };
    studies.into_iter().map(study).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::testing::slice;

    /// One small series below each of these folders of a new one, the same in each.
    fn copies(folders: &[&str], has_uids: bool) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in folders.iter().map(|folder| root.path().join(folder)) {
            std::fs::create_dir_all(&folder).unwrap();
            for n in 0..4 {
                let mut slice = slice(n);
                if !has_uids {
                    (slice.study_uid, slice.series_uid) = (String::new(), String::new());
                }
                slice.write(&folder, &n.to_string());
            }
        }
        root
    }

    #[test]
    fn a_study_has_a_place_in_each_input() {
        let root = copies(&["a/x", "b/y", "b/z"], true);
        let [a, b] = ["a", "b"].map(|name| root.path().join(name));
        let inventory = Inventory::of(&[a.clone(), b.clone()], None);
        assert_eq!(inventory.places_of(&inventory.studies[0]), [a.join("x"), b.clone()]);
        let inventory = Inventory::of(std::slice::from_ref(&b), None);
        assert_eq!(inventory.places_of(&inventory.studies[0]), [b]);
        assert_eq!(common_folder(&["/a/1".into(), "/b/1".into()]), None, "everything is below the root");
    }

    #[test]
    fn copies_of_what_has_no_uid_are_one_study_under_the_derived_uid() {
        let root = copies(&["a", "b"], false);
        let inventory = Inventory::of(&[root.path().to_owned()], None);
        let [study] = inventory.studies.as_slice() else { panic!("{:?}", inventory.studies) };
        let found = inventory.open(study);
        let [series] = found.series.as_slice() else { panic!("{} series", found.series.len()) };
        assert_eq!((series.instances.len(), study.files.len()), (4, 8));
        assert_eq!((study.study_uid.as_str(), &study.listed_uid), ("", &series.study_uid));
    }

    #[test]
    fn a_volume_under_two_names_is_one() {
        let root = tempfile::tempdir().unwrap();
        let mut header = vec![0; 352];
        header[0..4].copy_from_slice(&348i32.to_le_bytes());
        for (n, dim) in [3i16, 1, 1, 1, 1, 1, 1, 1].into_iter().enumerate() {
            header[40 + 2 * n..][..2].copy_from_slice(&dim.to_le_bytes());
        }
        (header[70], header[72], header[254]) = (4, 16, 1);
        for place in [76, 80, 84, 88] {
            header[place..place + 4].copy_from_slice(&1f32.to_le_bytes());
        }
        header[108..112].copy_from_slice(&352f32.to_le_bytes());
        header[344..348].copy_from_slice(b"n+1\0");
        for axis in 0..3 {
            header[280 + 20 * axis..][..4].copy_from_slice(&1f32.to_le_bytes());
        }
        header.extend([0; 2]);
        std::fs::create_dir(root.path().join("vol")).unwrap();
        let path = root.path().join("vol/x.nii");
        std::fs::write(&path, header).unwrap();
        let other = root.path().join("vol/../vol/x.nii");
        let [once, twice, otherwise] =
            [vec![path.clone()], vec![path, other.clone()], vec![other]].map(|inputs| Inventory::of(&inputs, None));
        assert_eq!(once.studies.len(), 1, "{:?}", once.skipped);
        let name =
            |inventory: &Inventory| inventory.studies.iter().map(|s| (s.key.clone(), s.stamp.clone(), s.files.len())).collect::<Vec<_>>();
        assert_eq!((name(&once), name(&once)), (name(&twice), name(&otherwise)));
    }

    #[test]
    fn an_instance_without_id_and_name_is_of_nobody() {
        use dicom::dictionary_std::tags;
        let root = copies(&["a"], true);
        let path = root.path().join("a/0");
        assert!(Instance::read(&path).unwrap().names_patient());
        let mut object = dicom::object::open_file(&path).unwrap();
        object.remove_element(tags::PATIENT_ID);
        object.remove_element(tags::PATIENT_NAME);
        object.write_to_file(&path).unwrap();
        assert!(!Instance::read(&path).unwrap().names_patient());
    }
}
