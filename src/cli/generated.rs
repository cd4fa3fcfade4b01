//! `roentgen completions` and `roentgen man`: made from the command line's own definition.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Outcome, text};

/// Print completions for a shell: `roentgen completions bash > /etc/bash_completion.d/roentgen`.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "roentgen", &mut script);
        text::print(&String::from_utf8(script)?);
        Ok(Outcome::AllDone)
    }
}

/// Print the manual page, or write one for each command: `roentgen man | man -l -`.
#[derive(Args)]
#[command(after_help = super::EXIT_CODES)]
pub(super) struct Man {
    /// Write roentgen.1, roentgen-run.1 and so on into this folder instead.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<Outcome> {
        let command = Cli::command().disable_help_subcommand(true);
        match &self.output {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
                clap_mangen::generate_to(command, folder).with_context(|| format!("cannot write to {}", folder.display()))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                text::print(&String::from_utf8(page)?);
            }
        }
        Ok(Outcome::AllDone)
    }
}
