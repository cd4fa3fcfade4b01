//! SQL over a cohort: its tables in an SQLite database in memory, one statement that reads.
//!
//! 1. The statement is one SELECT, WITH or VALUES. What opens files in SQLite (ATTACH, VACUUM INTO, extensions) are statements of their own
//!    or switched off, so no text of a question reaches a file.
//! 2. The database takes no change once it is filled (`PRAGMA query_only`).

use std::collections::HashSet;
use std::io;
use std::path::Path;

use csv::{Terminator, WriterBuilder};
use serde_json::{Map, Value};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Executor, Row, SqlSafeStr, SqliteConnection, Statement, TypeInfo, ValueRef};

use super::error::{CohortError, io_at};
use super::report::Report;
use super::table::{Cell, Kind, Table, decimal, findings, series};
use super::{WORK, history};
use crate::results::spreadsheet_text;

/// The answer to a question: columns, and rows that have a value for each.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Their names.
    pub columns: Vec<String>,
    /// Text, numbers or null.
    pub rows: Vec<Vec<Value>>,
}

impl Answer {
    /// Objects by column, for programs.
    pub fn json(&self) -> Value {
        let row = |row: &Vec<Value>| Value::Object(self.columns.iter().cloned().zip(row.iter().cloned()).collect::<Map<_, _>>());
        self.rows.iter().map(row).collect()
    }

    /// CSV with a header row; texts that a spreadsheet would run as formulas get a `'` in front.
    pub fn csv(&self) -> String {
        let safe = |value: &Value, text: String| if value.is_string() { spreadsheet_text(&text) } else { text };
        let texts: Vec<Vec<String>> = self.texts();
        let rows: Vec<Vec<String>> =
            self.rows.iter().zip(texts).map(|(row, texts)| row.iter().zip(texts).map(|(v, t)| safe(v, t)).collect()).collect();
        let header: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        csv_of(&header, rows.iter().map(|row| row.iter().map(String::as_str)))
    }

    /// Each value as text; empty where there is none.
    pub fn texts(&self) -> Vec<Vec<String>> {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Number(number) => number.as_f64().filter(|_| number.is_f64()).map_or_else(|| number.to_string(), decimal),
            other => other.to_string(),
        };
        self.rows.iter().map(|row| row.iter().map(text).collect()).collect()
    }
}

/// The studies of an answer as a list, with their paths.
///
/// # Errors
/// [`CohortError::Question`] where the answer has no column `study_instance_uid`, or one with other texts.
pub fn study_list(output: &Path, answer: &Answer) -> Result<String, CohortError> {
    let column = answer.columns.iter().position(|name| name == "study_instance_uid");
    let lacks = || CohortError::Question { what: "a list of studies needs a column study_instance_uid in the answer".to_owned() };
    let column = column.or(answer.rows.is_empty().then_some(0)).ok_or_else(lacks)?;
    let report = read(output)?;
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut seen = HashSet::new();
    for row in &answer.rows {
        let Value::String(uid) = &row[column] else { continue };
        let what = || format!("`{uid}` is no study of the cohort: the column study_instance_uid is to hold those");
        let places = report.places.get(uid).ok_or_else(|| CohortError::Question { what: what() })?;
        for row in places.iter().map(|place| [place.path.clone(), place.study_uid.clone()]) {
            if seen.insert(row.clone()) {
                rows.push(row);
            }
        }
    }
    Ok(csv_of(&["path", "study_instance_uid"], rows.iter().map(|row| row.iter().map(String::as_str))))
}

/// RFC 4180.
fn csv_of<'a>(header: &[&str], rows: impl Iterator<Item = impl Iterator<Item = &'a str>>) -> String {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(header).expect("memory takes all");
    rows.for_each(|row| writer.write_record(row).expect("memory takes all, and each row has all fields"));
    String::from_utf8(writer.into_inner().expect("memory takes all")).expect("all fields are texts")
}

/// Asks the cohort in an output folder. Its tables are `findings` (as `findings.csv`) and `series` (a row each, however it ended, with its
/// path).
///
/// # Errors
/// [`CohortError::NoCohort`]; [`CohortError::Question`] for SQL that is wrong or does more than read.
pub fn query(output: &Path, sql: &str) -> Result<Answer, CohortError> {
    check(sql)?;
    let report = read(output)?;
    answer(&[("findings", &findings(&report)), ("series", &series(&report))], sql)
}

/// Asks these tables.
fn answer(tables: &[(&str, &Table)], sql: &str) -> Result<Answer, CohortError> {
    let failed = |source: io::Error| CohortError::Question { what: format!("no database can be made: {source}") };
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(failed)?;
    let answer = runtime.block_on(async {
        let mut database = SqliteConnectOptions::new().in_memory(true).connect().await?;
        for (name, table) in tables {
            fill(&mut database, name, table).await?;
        }
        sqlx::raw_sql("PRAGMA query_only = ON").execute(&mut database).await?;
        // An answer without rows has columns, too.
        let statement = database.prepare(AssertSqlSafe(sql).into_sql_str()).await?;
        let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        let rows = statement.query().fetch_all(&mut database).await?;
        Ok::<_, sqlx::Error>(Answer { columns, rows: rows.iter().map(values).collect::<Result<_, _>>()? })
    });
    answer.map_err(|error| CohortError::Question {
        what: match error {
            sqlx::Error::Database(error) => format!("{}; the tables are findings and series", error.message()),
            other => other.to_string(),
        },
    })
}

/// The cohort in an output folder, from its journal.
fn read(output: &Path) -> Result<Report, CohortError> {
    let work = output.join(WORK);
    let settings = super::settings::Settings::read(&work)?.ok_or_else(|| CohortError::NoCohort { path: output.to_owned() })?;
    Ok(Report::past(&settings, &history(output).map_err(io_at("read the journal in", work))?, output))
}

/// One statement that reads: refused before SQLite sees it, so that no order of a question matters.
fn check(sql: &str) -> Result<(), CohortError> {
    let refused = |what: &str| Err(CohortError::Question { what: what.to_owned() });
    let bare = bare(sql);
    let first = bare.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty()).unwrap_or_default().to_ascii_lowercase();
    if !["select", "with", "values"].contains(&first.as_str()) {
        return refused("a question begins with SELECT, WITH or VALUES: it reads, and nothing else");
    }
    if bare.trim_end().trim_end_matches(';').contains(';') {
        return refused("one question at a time: there is a `;` before the end");
    }
    Ok(())
}

/// Without comments, and without what stands in quotes.
fn bare(sql: &str) -> String {
    let mut bare = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let (end, from) = match c {
            '\'' | '"' | '`' => (rest.get(..1), 1),
            '[' => (Some("]"), 1),
            '-' if rest.starts_with("--") => (Some("\n"), 2),
            '/' if rest.starts_with("/*") => (Some("*/"), 2),
            _ => {
                bare.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        // A doubled quote ends one text and begins another: to this end that is the same.
        let end = end.unwrap_or_default();
        rest = rest[from..].find(end).map_or("", |at| &rest[from + at + end.len()..]);
        bare.push(' ');
    }
    bare
}

async fn fill(database: &mut SqliteConnection, name: &str, table: &Table) -> Result<(), sqlx::Error> {
    let column = |(name, kind): &(String, Kind)| {
        let affinity = match kind {
            Kind::Text => "TEXT",
            Kind::Integer | Kind::Truth => "INTEGER",
            Kind::Number => "REAL",
        };
        format!("\"{name}\" {affinity}")
    };
    let columns: Vec<String> = table.columns.iter().map(column).collect();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE TABLE {name} ({})", columns.join(", ")))).execute(&mut *database).await?;
    let places = vec!["?"; columns.len()].join(", ");
    let insert = format!("INSERT INTO {name} VALUES ({places})");
    sqlx::raw_sql("BEGIN").execute(&mut *database).await?;
    for row in &table.rows {
        let mut query = sqlx::query(AssertSqlSafe(insert.as_str()));
        for cell in row {
            query = match cell {
                Cell::None => query.bind(None::<String>),
                Cell::Text(text) => query.bind(text.as_str()),
                Cell::Integer(value) => query.bind(*value),
                Cell::Number(value) => query.bind(*value),
                Cell::Truth(value) => query.bind(*value),
            };
        }
        query.execute(&mut *database).await?;
    }
    sqlx::raw_sql("COMMIT").execute(&mut *database).await?;
    Ok(())
}

/// By the type that each value has, not the column.
fn values(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    let value = |n: usize| {
        let raw = row.try_get_raw(n)?;
        if raw.is_null() {
            return Ok(Value::Null);
        }
        Ok(match raw.type_info().name() {
            "INTEGER" | "BOOLEAN" => row.try_get_unchecked::<i64, _>(n)?.into(),
            "REAL" => row.try_get_unchecked::<f64, _>(n)?.into(),
            _ => row.try_get_unchecked::<String, _>(n)?.into(),
        })
    };
    (0..row.len()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_rows_has_columns() {
        let table = Table { columns: vec![("volume_ml".to_owned(), Kind::Number)], rows: vec![vec![Cell::Number(1.5)]] };
        let ask = |sql: &str| answer(&[("findings", &table)], sql).unwrap();
        assert_eq!(ask("select volume_ml, 1 as one from findings where volume_ml > 2").columns, ["volume_ml", "one"]);
        assert_eq!(ask("select * from findings").rows, [[Value::from(1.5)]]);
    }

    #[test]
    fn a_question_reads() {
        for sql in [
            "select 1",
            "  -- which?\n SELECT ';' ;",
            "with a as (select 1) select * from a;",
            "values (1), (2)",
            "select '--', \"a;b\", [c;d], 'it''s; so' /* ; */ from findings",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
        for sql in [
            "",
            "attach 'x.db' as x",
            "select 1; attach 'x.db' as x",
            "/* select */ vacuum into 'x.db'",
            "pragma query_only = off",
            "select 'a' -- '\n; drop table findings",
            "explain select 1",
            "select \"a\"\"b\"; delete from findings",
        ] {
            assert!(check(sql).is_err(), "{sql}");
        }
    }
}
