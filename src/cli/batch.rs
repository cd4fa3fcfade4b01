//! `roentgen run --config FILE`: the arguments of a recurring batch, in TOML.
//!
//! A key is the long name of an option, or `inputs`; a table `[source]` is what `--from` reads. The file becomes arguments before those of
//! the command line, which therefore win. Paths in it count from its own folder, so that it means the same wherever it is called from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::CommandFactory;
use toml::{Table, Value};

use super::Cli;

/// Options whose values are paths.
const PATHS: [&str; 4] = ["output", "only", "from", "ort-lib"];
const INPUTS: &str = "inputs";
/// The table that `--from` reads: of this file, where it has one.
const SOURCE: &str = "source";

/// The command line with what the file of `run --config FILE` says; any other as it is.
pub(super) fn expanded(mut arguments: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    if arguments.get(1).is_none_or(|command| command != "run") {
        return Ok(arguments);
    }
    let options = arguments.iter().position(|a| a == "--").unwrap_or(arguments.len());
    let Some(place) = arguments[..options].iter().position(|a| a == "--config" || a.to_string_lossy().starts_with("--config=")) else {
        return Ok(arguments);
    };
    let path = match arguments[place].to_string_lossy().strip_prefix("--config=") {
        Some(path) => path.into(),
        None if place + 1 < options => PathBuf::from(arguments.remove(place + 1)),
        None => return Ok(arguments), // the parser says what is missing
    };
    arguments.remove(place);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
    let said = said(&text, &path).with_context(|| format!("in the configuration {}", path.display()))?;
    arguments.splice(2..2, said);
    Ok(arguments)
}

/// A file as arguments.
fn said(text: &str, path: &Path) -> anyhow::Result<Vec<OsString>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("there is a command `run`");
    let known: Vec<&str> = run.get_arguments().filter_map(clap::Arg::get_long).filter(|name| *name != "config").collect();
    let mut arguments = Vec::new();
    for (key, value) in text.parse::<Table>()? {
        let name = key.replace('_', "-");
        if name == INPUTS {
            let Value::Array(inputs) = value else { bail!("`inputs` is a list of paths") };
            for input in inputs {
                let Value::String(input) = input else { bail!("`inputs` is a list of paths") };
                arguments.push(folder.join(input).into_os_string());
            }
            continue;
        }
        if name == SOURCE && value.is_table() {
            let mut argument = OsString::from("--from=");
            argument.push(path);
            arguments.push(argument);
            continue;
        }
        if !known.contains(&name.as_str()) {
            bail!("`{key}` is no option of `roentgen run`: there are {INPUTS}, {}", known.join(", "));
        }
        let value = match value {
            Value::Boolean(true) => {
                arguments.push(format!("--{name}").into());
                continue;
            }
            Value::Boolean(false) => continue,
            Value::String(text) if PATHS.contains(&name.as_str()) => folder.join(text).into_os_string(),
            // A package is a folder beside the file, or an installed one.
            Value::String(text) if name == "model" && folder.join(&text).exists() => folder.join(text).into_os_string(),
            Value::String(text) => text.into(),
            Value::Integer(number) => number.to_string().into(),
            Value::Array(list) if list.iter().all(Value::is_str) => {
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
            }
            _ => bail!("`{key}` is a text, a number, a list of texts, true or false"),
        };
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(value);
        arguments.push(argument);
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch.toml");
        std::fs::write(&path, text).unwrap();
        let line = |config: &[&str]| -> Vec<OsString> { ["roentgen", "run"].iter().chain(config).map(Into::into).collect() };
        let path = path.to_str().unwrap();
        let here = |text: &str| OsString::from(text.replace("HERE", folder.path().to_str().unwrap()));
        let mut wanted = line(&[]);
        wanted.extend(expected.iter().map(|text| here(text)));
        wanted.push("more".into());
        assert_eq!(expanded(line(&["--config", path, "more"])).unwrap(), wanted);
        assert_eq!(expanded(line(&[&format!("--config={path}"), "more"])).unwrap(), wanted);
    }

    #[test]
    fn a_file_becomes_arguments() {
        check("model = \"ct-tissue\"\noutput = \"out\"", &["--model=ct-tissue", "--output=HERE/out"]);
        check("inputs = [\"a\", \"/b\"]\nresume = true\njson = false", &["HERE/a", "/b", "--resume"]);
        check("results = [\"sr\", \"seg\"]\nort_lib = \"x.so\"", &["--ort-lib=HERE/x.so", "--results=sr,seg"]);
        check("[source]\nurl = \"http://127.0.0.1/x\"", &["--from=HERE/batch.toml"]);
        assert!(said("colour = 1", Path::new("")).unwrap_err().to_string().contains("no option"));
        assert!(said("inputs = \"a\"", Path::new("")).is_err());
        assert!(said("config = \"again.toml\"", Path::new("")).is_err());
    }
}
