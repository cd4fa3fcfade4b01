//! `roentgen query`: questions to a cohort.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Outcome, show, text};
use crate::cohort::{self, Answer};

/// Characters of a cell; a UID has 64.
const WIDEST: usize = 64;

/// Ask a cohort with SQL: which cases, how many, how large.
///
/// DIR is an output folder of `roentgen run`. The question is one SELECT in SQLite's dialect,
/// over a copy in memory: it changes nothing and reaches no other file. The tables are
///
///   findings   a row for each finding, as in DIR/findings.csv
///   series     a row for each series, however it ended: path, study_instance_uid,
///              series_instance_uid, part, modality, instances, outcome, code, message
///
/// `roentgen query DIR "select * from findings limit 1" --json` shows the columns.
///
/// Text has numbers of 6 significant digits and long cells cut, with `..`; --csv and --json
/// have all.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES, verbatim_doc_comment)]
pub(super) struct Query {
    /// The output folder of a run.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// The question.
    #[arg(value_name = "SQL")]
    sql: String,

    /// Print JSON, an object for each row.
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV.
    #[arg(long)]
    csv: bool,

    /// Write the studies of the answer, which has a column study_instance_uid, to this file: a list that `roentgen run` takes as input.
    #[arg(long, value_name = "FILE")]
    studies: Option<PathBuf>,
}

impl Query {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let answer = cohort::query(&self.folder, &self.sql)?;
        if let Some(path) = &self.studies {
            let list = cohort::study_list(&self.folder, &answer)?;
            show::write(path, &list)?;
        }
        if self.json {
            text::print(&(serde_json::to_string_pretty(&answer.json())? + "\n"));
        } else if self.csv {
            text::print(&answer.csv());
        } else {
            text::print(&table(&answer));
        }
        Ok(Outcome::AllDone)
    }
}

fn table(answer: &Answer) -> String {
    if answer.rows.is_empty() {
        return "no rows\n".to_owned();
    }
    let header: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> =
        answer.rows.iter().zip(answer.texts()).map(|(row, texts)| row.iter().zip(texts).map(shortened).collect()).collect();
    text::table(&header, &rows)
}

/// For people: a number of 6 significant digits, a text that leaves room for others.
fn shortened((value, text): (&Value, String)) -> String {
    if let Some(number) = value.as_f64().filter(|_| value.is_f64()) {
        let rounded: f64 = format!("{number:.5e}").parse().unwrap_or(number);
        return serde_json::Number::from_f64(rounded).map_or(text, |number| number.to_string());
    }
    if text.chars().count() <= WIDEST { text } else { text.chars().take(WIDEST - 2).chain("..".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_few_digits() {
        let shown = |value: Value, text: &str| shortened((&value, text.to_owned()));
        assert_eq!(shown(2597.012345678.into(), "2597.012345678"), "2597.01");
        assert_eq!(shown(1831.0.into(), "1831.0"), "1831.0");
        assert_eq!(shown(123_456_789.into(), "123456789"), "123456789");
        let uid = format!("1.{}", "2".repeat(62));
        assert_eq!(shown(uid.clone().into(), &uid), uid);
        let text = "é".repeat(65);
        assert_eq!(shown(text.clone().into(), &text), format!("{}..", "é".repeat(62)));
    }

    #[test]
    fn an_answer_without_rows_has_a_header() {
        let answer = Answer { columns: vec!["a".to_owned(), "b".to_owned()], rows: Vec::new() };
        assert_eq!((answer.csv().as_str(), table(&answer).as_str()), ("a,b\r\n", "no rows\n"));
    }
}
