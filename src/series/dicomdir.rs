//! A DICOMDIR that a person gives as input: the files that it refers to.
//!
//! File IDs are at most 8 components of at most 8 characters (PS3.10 8.2), below the folder of the DICOMDIR. Media and copies of them
//! write the same names in lower case, or with the version that ISO 9660 adds (`IM1.;1`), so those are looked for too.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::dataset::{DatasetError, referenced_file_ids};

/// What a DICOMDIR refers to.
#[derive(Debug, Default)]
pub(super) struct Referenced {
    /// Files that are there, by their order in the directory, each once.
    pub(super) files: Vec<PathBuf>,
    /// One entry for each reference that leads to no file, with the place where it should be; references that lead out of the
    /// DICOMDIR's folder or are no file IDs are named by their number among those in use instead, since they may say anything.
    pub(super) missing: Vec<(PathBuf, DatasetError)>,
}

/// The most references that are followed.
const MAX_REFERENCES: usize = 1_000_000;
/// PS3.10 8.2 allows 8 components of 8 characters; writers that ignore this get some room, but no more than a name on a disk has.
const MAX_COMPONENTS: usize = 16;
const MAX_COMPONENT_BYTES: usize = 128;

/// The files to which the DICOMDIR at `path` refers, below its own folder only.
///
/// # Errors
/// The DICOMDIR cannot be read, is none, or has more than a million references.
pub(super) fn referenced_files(path: &Path) -> Result<Referenced, DatasetError> {
    let references = referenced_file_ids(path)?;
    if references.len() > MAX_REFERENCES {
        return Err(DatasetError::TooMany { what: "references", limit: MAX_REFERENCES, path: path.into() });
    }
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Referenced::default();
    let mut folders = Folders::default();
    for (n, components) in references.iter().enumerate() {
        if !is_file_id(components) {
            let mut place = path.as_os_str().to_owned();
            place.push(format!("!reference {}", n + 1));
            let error = DatasetError::Malformed { what: "a reference that is no file ID", offset: 0, path: place.clone().into() };
            found.missing.push((place.into(), error));
            continue;
        }
        match resolve(folder, components, &mut folders) {
            Ok(file) => found.files.push(file),
            Err((place, kind)) => {
                let error = DatasetError::Io { what: "file", kind, path: place.clone() };
                found.missing.push((place, error));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.files.retain(|file| seen.insert(file.clone()));
    Ok(found)
}

/// Whether the components name something below a folder on every system: no way up, no root, no drive, no separator.
fn is_file_id(components: &[String]) -> bool {
    let fits = |c: &String| {
        !c.is_empty()
            && c.len() <= MAX_COMPONENT_BYTES
            && !c.bytes().all(|b| b == b'.')
            && c.chars().all(|ch| !ch.is_control() && !matches!(ch, '/' | '\\' | ':'))
    };
    (1..=MAX_COMPONENTS).contains(&components.len()) && components.iter().all(fits)
}

/// Names of folders by how they compare, read once each.
#[derive(Default)]
struct Folders(HashMap<PathBuf, HashMap<String, PathBuf>>);

impl Folders {
    /// The entry of `folder` whose name is `name` but for case and version.
    fn find(&mut self, folder: &Path, name: &str) -> Option<PathBuf> {
        let names = self.0.entry(folder.into()).or_insert_with(|| {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
            entries.sort();
            let mut names = HashMap::new();
            for entry in entries {
                if let Some(name) = entry.file_name().and_then(|n| n.to_str()) {
                    names.entry(comparable(name)).or_insert(entry);
                }
            }
            names
        });
        names.get(&comparable(name)).cloned()
    }
}

/// Upper case, without a version `;1` and the dot that ISO 9660 leaves before it.
fn comparable(name: &str) -> String {
    let name = match name.rsplit_once(';') {
        Some((name, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    };
    name.trim_end_matches('.').to_ascii_uppercase()
}

/// The file, or where it should be and what is wrong there.
fn resolve(folder: &Path, components: &[String], folders: &mut Folders) -> Result<PathBuf, (PathBuf, io::ErrorKind)> {
    let exact = components.iter().fold(folder.to_owned(), |path, component| path.join(component));
    let found = if exact.is_file() {
        exact.clone()
    } else {
        let step = |place: PathBuf, component: &String| folders.find(&place, component);
        let Some(found) = components.iter().try_fold(folder.to_owned(), step).filter(|f| f.is_file()) else {
            return Err((exact, io::ErrorKind::NotFound));
        };
        found
    };
    // A link on the medium may lead anywhere: what it leads to must lie below the folder too.
    let below = |path: &Path| Some(path.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?));
    if below(&found) != Some(true) {
        return Err((exact, io::ErrorKind::PermissionDenied));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Vec<String> {
        text.split('\\').map(str::to_owned).collect()
    }

    #[test]
    fn only_what_lies_below_the_folder_is_a_file_id() {
        for good in ["IM1", "DICOM\\ST1\\SE1\\IM.1", "a\\b"] {
            assert!(is_file_id(&id(good)), "{good}");
        }
        for bad in ["..\\secret", "A\\..\\..\\B", ".", "", "A\\\\B", "/etc/passwd", "C:\\x", "A\0B", "a/../../b"] {
            assert!(!is_file_id(&id(bad)), "{bad}");
        }
        assert!(!is_file_id(&vec!["A".to_owned(); 17]));
    }

    #[test]
    fn case_and_versions_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("dicom")).unwrap();
        for name in ["im1", "IM2.;1", "IM3;1", "Im4.dcm"] {
            std::fs::write(folder.path().join("dicom").join(name), name).unwrap();
        }
        let mut folders = Folders::default();
        for (asked, expected) in [("IM1", "im1"), ("IM2", "IM2.;1"), ("im3", "IM3;1"), ("IM4.DCM", "Im4.dcm"), ("IM3;1", "IM3;1")] {
            let found = resolve(folder.path(), &id(&format!("DICOM\\{asked}")), &mut folders).unwrap();
            assert_eq!(found, folder.path().join("dicom").join(expected));
        }
        assert!(resolve(folder.path(), &id("DICOM\\IM5"), &mut folders).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_folder_are_not_followed() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("other"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path().join("other"), folder.path().join("IM1")).unwrap();
        let found = resolve(folder.path(), &id("IM1"), &mut Folders::default());
        assert_eq!(found, Err((folder.path().join("IM1"), io::ErrorKind::PermissionDenied)));
    }

    /// A DICOMDIR with these references, in Explicit VR Little Endian.
    fn written(folder: &Path, references: &[(&str, u16)]) -> PathBuf {
        let element = |tag: [u16; 2], vr: &str, value: &[u8]| {
            let mut bytes = [tag[0].to_le_bytes(), tag[1].to_le_bytes()].concat();
            bytes.extend(vr.bytes());
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(value);
            bytes
        };
        let even = |text: &str| if text.len() % 2 == 1 { format!("{text} ") } else { text.to_owned() };
        let mut sequence = Vec::new();
        for (reference, in_use) in references {
            let mut item = element([4, 0x1410], "US", &in_use.to_le_bytes());
            item.extend(element([4, 0x1500], "CS", even(reference).as_bytes()));
            sequence.extend([0xFE, 0xFF, 0x00, 0xE0]);
            sequence.extend((item.len() as u32).to_le_bytes());
            sequence.extend(item);
        }
        let meta = [
            element([2, 2], "UI", b"1.2.840.10008.1.3.10"),
            element([2, 3], "UI", b"1.2.3\0"),
            element([2, 0x10], "UI", b"1.2.840.10008.1.2.1\0"),
        ]
        .concat();
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        bytes.extend(element([2, 0], "UL", &(meta.len() as u32).to_le_bytes()));
        bytes.extend(meta);
        bytes.extend([4, 0, 0x20, 0x12, b'S', b'Q', 0, 0]);
        bytes.extend((sequence.len() as u32).to_le_bytes());
        bytes.extend(sequence);
        let path = folder.join("DICOMDIR");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn references_are_followed_or_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["IM1", "IM2"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let references = [("IM2", 0xFFFF), ("IM1", 0xFFFF), ("IM1", 0xFFFF), ("IM3", 0xFFFF), ("IM9", 0), ("..\\SECRET", 0xFFFF)];
        let path = written(folder.path(), &references);
        let found = referenced_files(&path).unwrap();
        assert_eq!(found.files, ["IM2", "IM1"].map(|f| folder.path().join(f)));
        let missing: Vec<_> = found.missing.iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("IM3") && missing[1].contains("!reference 5") && !missing[1].contains("SECRET"), "{missing:?}");
        std::fs::write(&path, b"no DICOM").unwrap();
        assert!(matches!(referenced_files(&path), Err(DatasetError::NotDicom { .. })));
    }

    /// The folder of real test data, or one line that says it is absent.
    fn mixed_folder() -> Option<PathBuf> {
        let shared =
            std::env::var_os("ROENTGEN_TEST_DATA").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
        let found = [shared.join("data"), shared].into_iter().map(|f| f.join("mixed-folder")).find(|f| f.is_dir());
        if found.is_none() {
            println!("skipped: no test data");
        }
        found
    }

    /// One of other people: 31 files in three patients' folders, all there.
    #[test]
    fn mixed_folder_is_found_in_full() {
        let Some(folder) = mixed_folder() else { return };
        let found = referenced_files(&folder.join("DICOMDIR")).unwrap();
        assert_eq!((found.files.len(), found.missing.len()), (31, 0), "{:?}", found.missing);
    }

    /// One made by DCMTK over the same files, then with the names in lower case as some media have them, and one file gone.
    #[test]
    fn made_by_dcmtk() {
        let Some(source) = mixed_folder() else { return };
        let folder = tempfile::tempdir().unwrap();
        let copied = std::process::Command::new("cp").arg("-r").arg(source.join("98892001")).arg(folder.path().join("PAT1")).status();
        assert!(copied.expect("cp starts").success());
        let mut dcmmkdir = std::process::Command::new("dcmmkdir");
        dcmmkdir.args(["--recurse", "--no-consistency-check", "--invent", "--output-file", "DICOMDIR", "PAT1"]).current_dir(folder.path());
        let made = dcmmkdir.output().expect("dcmmkdir (Debian package dcmtk) starts");
        assert!(made.status.success(), "{made:?}");
        let dicomdir = folder.path().join("DICOMDIR");
        let found = referenced_files(&dicomdir).unwrap();
        assert_eq!((found.files.len(), found.missing.len()), (7, 0), "{:?}", found.missing);
        std::fs::rename(folder.path().join("PAT1"), folder.path().join("pat1")).unwrap();
        std::fs::remove_file(folder.path().join("pat1/CT2N/6293")).unwrap();
        let found = referenced_files(&dicomdir).unwrap();
        assert_eq!(found.files.len(), 6);
        assert!(found.missing.len() == 1 && found.missing[0].0.ends_with("PAT1/CT2N/6293"), "{:?}", found.missing);
    }
}
