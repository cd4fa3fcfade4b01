//! What the database knows of an instance that comes.
//!
//! That is asked once for each, so it is asked by a connection that answers in the thread that asks: 0.02 ms. The pool's connections have
//! threads of their own, and an answer takes seven changes of thread, 0.1 ms of processor time, a tenth of all that an instance takes.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

const QUERY: &str = "SELECT (SELECT content FROM instance WHERE sop_instance_uid = ?1),
    (SELECT patient_key FROM study WHERE study_uid = ?2), (SELECT state FROM study WHERE study_uid = ?2),
    EXISTS (SELECT 1 FROM prior WHERE study_uid = ?2 AND title = ?3)";

/// What the database says of an instance.
#[derive(Debug)]
pub(super) struct Known {
    /// Of the instance of that UID.
    pub(super) content: Option<String>,
    /// Hash of the patient of its study.
    pub(super) patient: Option<String>,
    /// Of its study.
    pub(super) state: Option<String>,
    /// Whether its sender was asked for its study.
    pub(super) prior: bool,
}

/// A connection that reads.
#[derive(Debug)]
pub(super) struct Reader(Mutex<Connection>);

impl Reader {
    /// To the database at `path`, which is there.
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        Ok(Self(Mutex::new(connection)))
    }

    /// What it knows of an instance of this study that `calling` sends.
    pub(super) fn known(&self, sop_instance_uid: &str, study_uid: &str, calling: &str) -> rusqlite::Result<Known> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner); // a statement that was given up is reset
        connection.prepare_cached(QUERY)?.query_row([sop_instance_uid, study_uid, calling], |row| {
            Ok(Known { content: row.get(0)?, patient: row.get(1)?, state: row.get(2)?, prior: row.get(3)? })
        })
    }
}
