//! What is here: instances that were received, and results that were made.

use std::path::PathBuf;

use super::{Store, StoreError};
use crate::codes::Uid;

/// A DICOM object with its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// Study Instance UID.
    pub study_uid: Uid,
    /// Where it lies.
    pub path: PathBuf,
}

impl Store {
    /// The studies that something is here of, the newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn studies(&self, most: u32) -> Result<Vec<Uid>, StoreError> {
        let query = sqlx::query_scalar(
            "SELECT study_uid FROM study WHERE kept = 1
             OR EXISTS (SELECT 1 FROM job JOIN result ON result.job = job.id WHERE job.study_uid = study.study_uid AND job.kept = 1)
             ORDER BY last_arrival_ms DESC, study_uid LIMIT ?",
        );
        Ok(query.bind(most).fetch_all(self.pool()).await?)
    }

    /// An instance of each series of a study, with the title of its sender.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn one_of_each_series(&self, study_uid: &str, most: u32) -> Result<Vec<(PathBuf, String)>, StoreError> {
        // With min() the other columns are those of its row.
        let query =
            sqlx::query_as("SELECT content, calling, min(sop_instance_uid) FROM instance WHERE study_uid = ? GROUP BY series_uid LIMIT ?");
        let found: Vec<(String, String, Uid)> = query.bind(study_uid).bind(most).fetch_all(self.pool()).await?;
        Ok(found.into_iter().map(|(content, calling, _)| (self.path_of(&content), calling)).collect())
    }

    /// How many instances went to quarantine since then.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn quarantined_since(&self, since_ms: i64) -> Result<i64, StoreError> {
        let query = sqlx::query_scalar("SELECT count(*) FROM quarantine WHERE received_ms >= ?");
        Ok(query.bind(since_ms).fetch_one(self.pool()).await?)
    }

    /// Study and series of an instance that was received.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn place_of(&self, sop_instance_uid: &str) -> Result<Option<(Uid, Uid)>, StoreError> {
        let query = sqlx::query_as("SELECT study_uid, series_uid FROM instance WHERE sop_instance_uid = ?");
        Ok(query.bind(sop_instance_uid).fetch_optional(self.pool()).await?)
    }

    /// The objects of a study, of one series, or the one object: what came, then what was made, by series and instance.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn objects(
        &self,
        study_uid: &str,
        series_uid: Option<&str>,
        sop_instance_uid: Option<&str>,
    ) -> Result<Vec<Object>, StoreError> {
        // A result that came back is the same object.
        let query = sqlx::query_as(
            "SELECT 0 AS made, sop_instance_uid, series_uid, content, NULL FROM instance
             WHERE study_uid = ?1 AND series_uid = coalesce(?2, series_uid) AND sop_instance_uid = coalesce(?3, sop_instance_uid)
             UNION ALL
             SELECT 1, sop_instance_uid, series_uid, NULL, path FROM result JOIN job ON job.id = result.job
             WHERE study_uid = ?1 AND series_uid = coalesce(?2, series_uid) AND sop_instance_uid = coalesce(?3, sop_instance_uid)
             AND job.kept = 1 AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.sop_instance_uid = result.sop_instance_uid)
             ORDER BY made, series_uid, sop_instance_uid",
        );
        type Row = (i64, Uid, Uid, Option<String>, Option<String>);
        let rows: Vec<Row> = query.bind(study_uid).bind(series_uid).bind(sop_instance_uid).fetch_all(self.pool()).await?;
        let object = |(_, sop_instance_uid, series_uid, content, path): (_, _, _, Option<String>, Option<String>)| {
            let path = content.map_or_else(|| self.folder().join(path.unwrap_or_default()), |content| self.path_of(&content));
            Object { sop_instance_uid, series_uid, study_uid: study_uid.to_owned(), path }
        };
        Ok(rows.into_iter().map(object).collect())
    }
}
