//! The integrator's guide does what it says: its commands are run in their order, and what they print is held against what it shows.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::support::{root, small_study};

/// A command of the guide, and what it shows of its output.
struct Step {
    line: usize,
    command: String,
    shown: Vec<String>,
}

/// The commands of all `console` blocks: `$ ` begins one, `> ` goes on with it, all else is output.
fn steps(guide: &str) -> Vec<Step> {
    let (mut steps, mut within) = (Vec::<Step>::new(), false);
    for (n, line) in guide.lines().enumerate() {
        if line.starts_with("```") {
            within = line == "```console";
        } else if within {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { line: n + 1, command: command.to_owned(), shown: Vec::new() });
                continue;
            }
            let step = steps.last_mut().expect("a block begins with a command");
            match line.strip_prefix("> ").or_else(|| (line == ">").then_some("")) {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Whether a line is what the guide shows of it, where `...` stands for anything.
fn is_shown(line: &str, shown: &str) -> bool {
    let mut rest = line;
    for (n, piece) in shown.split("...").enumerate() {
        match rest.find(piece) {
            Some(at) if n > 0 || at == 0 => rest = &rest[at + piece.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || shown.ends_with("...")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

#[test]
fn the_integrators_guide_does_what_it_says() {
    let mut guide = std::fs::read_to_string(root().join("docs/integrator.md")).expect("the guide");
    for port in ["11112", "11180", "4242", "8042", "2762"] {
        guide = guide.replace(port, &free_port().to_string());
    }
    let steps = steps(&guide);
    assert!(steps.len() > 40, "{} commands", steps.len());
    let (_, study) = small_study();
    let folder = tempfile::tempdir().expect("a folder");
    let begun = Command::new("cp").arg("-r").arg(study.path()).arg(folder.path().join("study")).status();
    assert!(begun.expect("cp").success());
    std::os::unix::fs::symlink(root().join("models"), folder.path().join("models")).expect("a link");
    let mut script = String::from("exec 2>&1\ntrap 'kill -9 $(jobs -p)' EXIT\n");
    for (n, step) in steps.iter().enumerate() {
        script += &format!("echo '@@{n}'\n{}\n", step.command);
    }
    std::fs::write(folder.path().join("guide.sh"), script + "echo '@@end'\n").expect("written");
    let binaries = Path::new(env!("CARGO_BIN_EXE_roentgen")).parent().expect("a folder");
    let path = format!("{}:{}:/usr/sbin", binaries.display(), std::env::var("PATH").expect("a PATH"));
    let mut bash = Command::new("timeout");
    bash.args(["--kill-after=5", "400", "bash", "guide.sh"]).current_dir(folder.path()).env("PATH", path);
    let output = String::from_utf8_lossy(&bash.output().expect("bash").stdout).into_owned();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let logs = || format!("{output}\n--- node.log\n{}\n--- orthanc.log\n{}", read("node.log"), read("orthanc.log"));
    assert!(output.ends_with("@@end\n"), "the guide does not come to its end\n{}", logs());
    for (n, step) in steps.iter().enumerate() {
        let (_, rest) = output.split_once(&format!("@@{n}\n")).expect("every step has begun");
        let printed: Vec<&str> = rest.split("@@").next().unwrap_or_default().lines().collect();
        let same = printed.len() == step.shown.len() && printed.iter().zip(&step.shown).all(|(line, shown)| is_shown(line, shown));
        let Step { line, command, shown } = step;
        assert!(same, "docs/integrator.md:{line}: `{command}` prints\n{}\nand not\n{}\n{}", printed.join("\n"), shown.join("\n"), logs());
    }
}

#[test]
fn what_is_shown_is_compared_as_a_whole() {
    for (line, shown, expected) in [
        ("total_s=1.5 quiet_s=1.0", "total_s=... quiet_s=...", true),
        ("total_s=1.5", "total_s=... quiet_s=...", false),
        ("ready", "read", false),
        ("already", "ready", false),
        ("a b", "...b", true),
    ] {
        assert_eq!(is_shown(line, shown), expected, "{line} | {shown}");
    }
    let read = steps("```console\n$ cat <<X\n> a\n>\n> X\na\n\n$ true\n```\n```toml\n$ no\n```\n");
    let read: Vec<_> = read.iter().map(|s| (s.command.as_str(), s.shown.len())).collect();
    assert_eq!(read, [("cat <<X\na\n\nX", 2), ("true", 0)]);
}
