//! `roentgen query`: questions to a cohort.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, show, text};
use crate::cohort::{self, Answer};

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
    text::table(&header, &answer.texts())
}
