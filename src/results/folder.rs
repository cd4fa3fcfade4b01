//! A result folder that is there in full or not at all.

use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use super::{ResultsError, is_result_file};

/// A folder beside the one that is to be written; removed with what it holds unless it takes the other's place.
pub(super) struct Staging(TempDir);

impl Staging {
    /// Makes the folder, and those above `dir`.
    ///
    /// # Errors
    /// Where `dir` holds something that is no earlier result, or no folder can be made.
    pub(super) fn beside(dir: &Path) -> Result<Self, ResultsError> {
        refuse_foreign(dir)?;
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(failed("create"))?;
        new_folder(parent).map(Self).map_err(failed("create"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the place of `dir`; what stood there is removed afterwards, or put back where that fails.
    pub(super) fn replace(self, dir: &Path) -> Result<(), ResultsError> {
        refuse_foreign(dir)?;
        sync_folder(self.path()).map_err(failed("sync"))?;
        let parent = self.path().parent().map(Path::to_owned).unwrap_or_default();
        if dir.exists() {
            let aside = new_folder(&parent).map_err(failed("replace"))?;
            let old = aside.path().join("old");
            fs::rename(dir, &old).map_err(failed("replace"))?;
            if let Err(err) = fs::rename(self.path(), dir) {
                fs::rename(&old, dir).map_err(failed("put back"))?;
                return Err(failed("rename")(err));
            }
        } else {
            fs::rename(self.path(), dir).map_err(failed("rename"))?;
        }
        let _ = self.0.keep(); // it has another name now: nothing to remove
        sync_folder(&parent).map_err(failed("sync"))
    }
}

/// Removes a folder of earlier results as a whole; false where there is none.
///
/// # Errors
/// Where it holds something that is no result, or cannot be removed.
pub(super) fn remove(dir: &Path) -> Result<bool, ResultsError> {
    refuse_foreign(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let aside = new_folder(parent).map_err(failed("remove"))?;
    match fs::rename(dir, aside.path().join("old")) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed.map_err(failed("remove"))?,
    }
    sync_folder(parent).map_err(failed("sync"))?;
    aside.close().map_err(failed("remove"))?;
    Ok(true)
}

fn new_folder(parent: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".roentgen-");
    #[cfg(unix)]
    {
        // As any new folder: the process's umask decides who may read.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(parent)
}

/// Replacing a folder removes what it holds, so it must hold results only.
fn refuse_foreign(dir: &Path) -> Result<(), ResultsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(failed("read")(err)),
    };
    for entry in entries {
        let name = entry.map_err(failed("read"))?.file_name();
        if !name.to_str().is_some_and(is_result_file) {
            return Err(ResultsError::Occupied { found: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

/// Makes names in a folder durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> ResultsError {
    move |source| ResultsError::Folder { action, source }
}
