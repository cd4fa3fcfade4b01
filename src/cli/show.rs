//! `roentgen show`: what a result says, for a person.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{Outcome, text};
use crate::cohort::Problem;
use crate::dataset::write_atomically;
use crate::results::JSON_FILE;
use crate::results::show::{self, Page};

/// Files of one call.
const MAX_FILES: usize = 2000;

/// Show what result objects say: ours, and those of other programs.
///
/// Structured reports and key objects as a tree, segmentations with each segment's voxels and
/// volume, parametric maps with their range, presentation states, RT structure sets,
/// findings.json; of any other DICOM object what its header says. Several files are shown one
/// after the other, and a reference to one of them by its name.
///
///   roentgen show out/1.2.3/sr.dcm out/1.2.3/seg.dcm
///   roentgen show out/1.2.3/ --html --output result.html
///
/// Names of persons, dates and free text are hidden; --patient shows them.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES, verbatim_doc_comment)]
pub(super) struct Show {
    /// DICOM objects and findings.json; of a folder all of them that lie in it.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Show names, dates and free text, too: for your eyes, not for a log.
    #[arg(long)]
    patient: bool,

    /// A self-contained HTML page instead of text.
    #[arg(long, conflicts_with = "json")]
    html: bool,

    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,

    /// Write to this file instead of stdout.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shown {
    objects: Vec<Page>,
    failed: Vec<Problem>,
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let files = files(&self.files)?;
        let mut shown = Shown { objects: Vec::new(), failed: Vec::new() };
        for page in show::show(&files, self.patient) {
            match page {
                Ok(page) => shown.objects.push(page),
                Err(error) => shown.failed.push(Problem::of(&error, str::to_owned)),
            }
        }
        let printed = if self.html {
            show::html(&shown.objects)
        } else if self.json {
            serde_json::to_string_pretty(&shown)? + "\n"
        } else {
            let colour = self.output.is_none() && std::io::stdout().is_terminal();
            shown.objects.iter().map(|page| show::text(page, colour)).collect::<Vec<_>>().join("\n")
        };
        match &self.output {
            Some(path) => write(path, &printed)?,
            None => text::print(&printed),
        }
        shown.failed.iter().for_each(|problem| eprintln!("error: {problem}"));
        Ok(if shown.failed.is_empty() { Outcome::AllDone } else { Outcome::SomeFailed })
    }
}

/// The files themselves, and of folders `*.dcm` and `findings.json`.
fn files(inputs: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        let unreadable = || format!("cannot read the input {}", input.display());
        if !std::fs::metadata(input).with_context(unreadable)?.is_dir() {
            files.push(input.clone());
            continue;
        }
        let entries = std::fs::read_dir(input).with_context(unreadable)?.map(|entry| entry.map(|e| e.path()));
        let mut inside: Vec<PathBuf> = entries.collect::<Result<_, _>>().with_context(unreadable)?;
        let is_result = |path: &Path| path.extension().is_some_and(|e| e == "dcm") || path.file_name().is_some_and(|n| n == JSON_FILE);
        inside.retain(|path| path.is_file() && is_result(path));
        inside.sort();
        files.append(&mut inside);
    }
    match files.len() {
        0 => bail!("no DICOM object and no findings.json in the input: name files, or a folder with *.dcm"),
        count if count > MAX_FILES => bail!("{count} files are more than the {MAX_FILES} that are shown at once"),
        _ => Ok(files),
    }
}

/// Into place as a whole.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let fill = |writer: &mut std::io::BufWriter<&mut std::fs::File>| {
        writer.write_all(text.as_bytes()).map_err(|source| crate::dataset::WriteError::Io { file: name.clone(), source })
    };
    write_atomically(path, fill).with_context(|| format!("cannot write {name}"))
}
