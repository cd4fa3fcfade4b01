//! The append-only audit table: who did what to what, and when, each row tied to the one before by its hash.
//!
//! Whoever changes or takes out a row must compute all later ones anew; [`verify`] finds where that was not done. Rows hold no patient text.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::{StoreError, now_ms};
use crate::codes::sha256_hex;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// When, ms since 1970, UTC.
    pub at_ms: i64,
    /// Event ID: a code of PS3.16 CID 400 (`110104`, "DICOM Instances Transferred").
    pub event: &'static str,
    /// C, R, U, D or E: create, read, update, delete, execute.
    pub action: &'static str,
    /// 0: success, 4: minor failure, 8: serious failure, 12: major failure.
    pub outcome: u8,
    /// The AE title or address on the other side; ours where there is none.
    pub peer: String,
    /// What it is about: a Study Instance UID, a job, a configuration.
    pub subject: String,
    /// In words.
    pub detail: String,
}

impl AuditRecord {
    /// Somebody was turned away (110113, Security Alert).
    pub fn security_alert(peer: &str, detail: &str) -> Self {
        Self { at_ms: now_ms(), event: "110113", action: "E", outcome: 4, peer: peer.into(), subject: String::new(), detail: detail.into() }
    }

    /// Instances came or went (110104, DICOM Instances Transferred).
    pub fn transferred(action: &'static str, peer: &str, study_uid: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110104", action, outcome: 0, peer: peer.into(), subject: study_uid.into(), detail }
    }

    /// Somebody took responsibility for instances, or did not (110103, DICOM Instances Accessed).
    pub fn commitment(outcome: u8, peer: &str, subject: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110103", action: "R", outcome, peer: peer.into(), subject: subject.into(), detail }
    }

    /// What was old was taken away (110105, DICOM Study Deleted).
    pub fn removed(study_uid: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110105", action: "D", outcome: 0, peer: String::new(), subject: study_uid.into(), detail }
    }

    /// The node started or stopped (110100, Application Activity).
    pub fn activity(detail: &str) -> Self {
        Self {
            at_ms: now_ms(),
            event: "110100",
            action: "E",
            outcome: 0,
            peer: String::new(),
            subject: String::new(),
            detail: detail.into(),
        }
    }

    /// The configuration was replaced, or another one refused with that code (110131, Software Configuration). `sha256` names the one
    /// that is gone by now.
    pub fn configuration(sha256: &str, refused: Option<&str>) -> Self {
        let detail = refused.map_or_else(|| "configuration replaced".into(), |code| format!("configuration refused: {code}"));
        let outcome = if refused.is_some() { 4 } else { 0 };
        Self { at_ms: now_ms(), event: "110131", action: "U", outcome, peer: String::new(), subject: sha256.into(), detail }
    }

    /// A job read a study and made something of it (110103, DICOM Instances Accessed).
    pub fn job(outcome: u8, study_uid: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110103", action: "E", outcome, peer: String::new(), subject: study_uid.into(), detail }
    }

    /// Somebody gave an order by HTTP about a study, or about a result (110100, Application Activity).
    pub fn order(peer: &str, subject: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110100", action: "E", outcome: 0, peer: peer.into(), subject: subject.into(), detail }
    }

    /// Somebody retrieved objects of a study (110103, DICOM Instances Accessed).
    pub fn retrieved(peer: &str, study_uid: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110103", action: "R", outcome: 0, peer: peer.into(), subject: study_uid.into(), detail }
    }

    /// Somebody searched here, or an archive was asked (110112, Query); in a study, or everywhere.
    pub fn query(outcome: u8, peer: &str, study_uid: &str, detail: String) -> Self {
        Self { at_ms: now_ms(), event: "110112", action: "E", outcome, peer: peer.into(), subject: study_uid.into(), detail }
    }

    fn sha256(&self, previous: &str) -> String {
        let fields = [
            previous,
            &self.at_ms.to_string(),
            self.event,
            self.action,
            &self.outcome.to_string(),
            &self.peer,
            &self.subject,
            &self.detail,
        ];
        chained(&fields)
    }
}

/// The hash of fields, each with its length.
fn chained(fields: &[&str]) -> String {
    let text: Vec<String> = fields.iter().map(|field| format!("{}:{field}", field.len())).collect();
    sha256_hex(text.concat().as_bytes())
}

/// The hash before the first row.
const BEGINNING: &str = "";

async fn last(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    let last: Option<(String,)> = sqlx::query_as("SELECT sha256 FROM audit ORDER BY id DESC LIMIT 1").fetch_optional(connection).await?;
    Ok(last.map_or_else(|| BEGINNING.to_owned(), |(sha256,)| sha256))
}

pub(super) async fn append(transaction: &mut Transaction<'_, Sqlite>, record: &AuditRecord) -> Result<(), StoreError> {
    let previous = last(transaction).await?;
    let query =
        sqlx::query("INSERT INTO audit (at_ms, event, action, outcome, peer, subject, detail, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    query
        .bind(record.at_ms)
        .bind(record.event)
        .bind(record.action)
        .bind(record.outcome)
        .bind(&record.peer)
        .bind(&record.subject)
        .bind(&record.detail)
        .bind(record.sha256(&previous))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// The first row that does not follow from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Its number.
    pub row: i64,
}

/// Holds every row against the one before; the number of rows where all is well.
///
/// # Errors
/// Where the database fails.
pub async fn verify(pool: &SqlitePool) -> Result<Result<i64, Broken>, StoreError> {
    let (mut previous, mut row) = (BEGINNING.to_owned(), 0);
    loop {
        type Row = (i64, i64, String, String, i64, String, String, String, String);
        let query = sqlx::query_as(
            "SELECT id, at_ms, event, action, outcome, peer, subject, detail, sha256 FROM audit WHERE id > ? ORDER BY id LIMIT 1000",
        );
        let rows: Vec<Row> = query.bind(row).fetch_all(pool).await?;
        if rows.is_empty() {
            return Ok(Ok(row));
        }
        for (id, at_ms, event, action, outcome, peer, subject, detail, sha256) in rows {
            let fields = [&previous, &at_ms.to_string(), &event, &action, &outcome.to_string(), &peer, &subject, &detail];
            if id != row + 1 || chained(&fields.map(String::as_str)) != sha256 {
                return Ok(Err(Broken { row: id }));
            }
            (previous, row) = (sha256, id);
        }
    }
}
