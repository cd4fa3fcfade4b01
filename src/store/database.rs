//! The database file: opened, made, and brought up to date.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// Each step of the schema, in order. A step is never changed once it was released.
const STEPS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema_2.sql")];
/// What `user_version` is after the first step. Databases with lower numbers were never released.
const FIRST: usize = 4;
/// Readers beside the one writer that SQLite allows.
const CONNECTIONS: u32 = 4;

/// Opens the database at `path`, which is made where it is not there.
pub(super) async fn open(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(30));
    // A file does not hang up: asking a connection before each use whether it is still there only takes time.
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false).connect_with(options).await?;
    let (taken,): (i64,) = sqlx::query_as("PRAGMA user_version").fetch_one(&pool).await?;
    let last = FIRST + STEPS.len() - 1;
    let done = match usize::try_from(taken).unwrap_or(usize::MAX) {
        0 => 0,
        taken if taken > last => {
            return Err(sqlx::Error::Protocol(format!("the database is of a newer roentgen: schema {taken}, this one knows {last}")));
        }
        taken if taken < FIRST => {
            return Err(sqlx::Error::Protocol(format!(
                "the database is of a roentgen before the first release (schema {taken}): take another folder"
            )));
        }
        taken => taken - FIRST + 1,
    };
    for (n, step) in STEPS.iter().enumerate().skip(done) {
        let mut step_and_number = pool.begin().await?;
        sqlx::raw_sql(*step).execute(&mut *step_and_number).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", FIRST + n))).execute(&mut *step_and_number).await?;
        step_and_number.commit().await?;
    }
    Ok(pool)
}
