//! Whether an instance is here, whole, as somebody who wants to delete his own copy must know.

use std::fs::File;
use std::io;

use super::{Store, StoreError, seal};

/// How an instance stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It is here, and its bytes have been read again and are what was received.
    Whole,
    /// It is not here.
    Absent,
    /// Its UID is here with another SOP class.
    OtherClass,
    /// What is here is no longer what was received, or the same sender's content under this UID is in quarantine.
    NotAsSent,
}

impl Store {
    /// Looks for an instance that `calling` says it has sent, and reads it. What was acknowledged before is found.
    ///
    /// # Errors
    /// Where the database fails, or the disk otherwise than by having lost the file.
    pub fn held(&self, sop_class_uid: &str, sop_instance_uid: &str, calling: &str) -> Result<Held, StoreError> {
        let query = sqlx::query_as(
            "SELECT content, sop_class_uid, EXISTS (SELECT 1 FROM quarantine
                 WHERE sop_instance_uid = ?1 AND instr('\\' || calling || '\\', '\\' || ?2 || '\\') > 0)
             FROM instance WHERE sop_instance_uid = ?1",
        );
        let query = query.bind(sop_instance_uid).bind(calling).fetch_optional(self.pool());
        let found: Option<(String, String, bool)> = self.shared.runtime.block_on(query)?;
        let Some((content, known_class_uid, contested)) = found else { return Ok(Held::Absent) };
        if known_class_uid != sop_class_uid {
            return Ok(Held::OtherClass);
        }
        Ok(if self.is_whole(&content)? && !contested { Held::Whole } else { Held::NotAsSent })
    }

    /// Reads the file of that content: whether its bytes are what was received.
    ///
    /// # Errors
    /// Where the disk fails otherwise than by having lost the file.
    pub(super) fn is_whole(&self, content: &str) -> Result<bool, StoreError> {
        match File::open(self.path_of(content)) {
            Ok(mut file) => Ok(seal::read(&mut file)?.is_some_and(|found| found.name == content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
