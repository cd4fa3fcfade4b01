//! Many studies: stopped and resumed, shared and divided, asked and looked at; always the table of one undisturbed run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use roentgen::phantom::{self, Sampling};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, command, ct_tissue, files_below, python, roentgen, root};

const STUDIES: usize = 12;

/// Twelve studies, of which one lacks a slice and one has a file that is cut off; and the results of an undisturbed run.
struct Cohort {
    folder: TempDir,
}

static COHORT: LazyLock<Cohort> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let studies = folder.path().join("studies");
    for n in 0..STUDIES {
        let sampling = Sampling { dims: [40, 30, 16], spacing_mm: [6.0, 6.0, 9.6], noise_hu: 10.0 + n as f64 };
        let study = studies.join(format!("{n:02}"));
        phantom::write_series(&phantom::chest(&sampling), &study).expect("the study can be written");
        match n {
            4 => fs::remove_file(study.join("0012.dcm")).expect("there"),
            9 => {
                let whole = fs::read(study.join("0003.dcm")).expect("there");
                fs::write(study.join("0003.dcm"), &whole[..whole.len() / 2]).expect("writable");
            }
            _ => {}
        }
    }
    let cohort = Cohort { folder };
    let ran = Ran::of(cohort.run(&cohort.folder.path().join("undisturbed"), &[]).output().expect("the binary starts"));
    assert_eq!(ran.code, 1, "two studies are broken: {}", ran.all());
    cohort
});

impl Cohort {
    fn studies(&self) -> PathBuf {
        self.folder.path().join("studies")
    }

    /// `roentgen run` over all of it.
    fn run(&self, output: &Path, more: &[&str]) -> Command {
        let mut run = command();
        run.args(["run", "--device", "cpu", "--results", "json,html,png", "--model"]).arg(ct_tissue()).arg(self.studies());
        run.arg("--output").arg(output).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        run
    }

    /// The table and the list of failures of an output folder are those of the undisturbed run.
    fn check(&self, output: &Path) {
        for name in ["findings.csv", "failures.csv"] {
            let read = |folder: &Path| fs::read_to_string(folder.join(name)).expect("written");
            assert_eq!(read(output), read(&self.folder.path().join("undisturbed")), "{name}");
        }
    }
}

/// Series that each journal says are done, by journal.
fn done(output: &Path) -> Vec<Vec<String>> {
    let mut journals: Vec<PathBuf> = files_below(&output.join("work"));
    journals.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let lines = |path: &PathBuf| -> Vec<String> {
        let text = fs::read_to_string(path).expect("readable");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let done = lines.filter(|line| line["outcome"] == "done");
        done.map(|line| line["series_instance_uid"].as_str().expect("a UID").to_owned()).collect()
    };
    journals.iter().map(lines).collect()
}

/// Waits until so many series are done.
fn wait_for(count: usize, output: &Path, child: &mut Child) {
    let until = Instant::now() + Duration::from_secs(300);
    while !output.join("work").is_dir() || done(output).concat().len() < count {
        assert!(Instant::now() < until && child.try_wait().expect("a child").is_none(), "it ended or hangs before {count} are done");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ended(child: Child) -> Ran {
    Ran::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let output = tempfile::tempdir().expect("a temporary folder");
    let mut child = COHORT.run(output.path(), &[]).spawn().expect("the binary starts");
    wait_for(3, output.path(), &mut child);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let before = done(output.path()).concat();
    let ran = Ran::of(COHORT.run(output.path(), &["--resume"]).output().expect("the binary starts"));
    assert_eq!(ran.code, 1, "{}", ran.all());
    COHORT.check(output.path());
    let journals = done(output.path());
    assert_eq!(journals.len(), 2);
    assert!(before.len() >= 3 && journals[0] == before && journals[1].len() == STUDIES - 2 - before.len(), "{journals:?}");
    assert!(!files_below(output.path()).iter().any(|f| f.to_string_lossy().contains(".roentgen-")), "what was begun is removed");
    // Once more there is nothing to do.
    let ran = Ran::of(COHORT.run(output.path(), &["--resume"]).output().expect("the binary starts"));
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert_eq!(done(output.path()).concat().len(), STUDIES - 2);
    COHORT.check(output.path());
}

#[cfg(unix)]
#[test]
fn being_asked_to_stop_ends_after_the_series_at_hand() {
    let output = tempfile::tempdir().expect("a temporary folder");
    let mut child = COHORT.run(output.path(), &["--json"]).spawn().expect("the binary starts");
    wait_for(1, output.path(), &mut child);
    let asked = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill starts");
    assert!(asked.success());
    let ran = ended(child);
    assert_eq!(ran.code, 3, "{}", ran.all());
    let studies = &ran.json()["studies"];
    assert!(studies["complete"].as_u64() < studies["chosen"].as_u64(), "{studies}");
    assert!(ran.stderr.contains("--resume"), "{}", ran.stderr);
    assert_eq!(Ran::of(COHORT.run(output.path(), &["--resume"]).output().expect("the binary starts")).code, 1);
    COHORT.check(output.path());
    assert_eq!(done(output.path()).concat().len(), STUDIES - 2, "nothing twice");
}

#[test]
fn processes_divide_the_studies() {
    let output = tempfile::tempdir().expect("a temporary folder");
    let children: Vec<Child> = (0..3).map(|_| COHORT.run(output.path(), &["--resume"]).spawn().expect("the binary starts")).collect();
    for child in children {
        let ran = ended(child);
        assert_eq!(ran.code, 1, "{}", ran.all());
    }
    COHORT.check(output.path());
    assert_eq!(done(output.path()).concat().len(), STUDIES - 2, "nothing twice");

    let output = tempfile::tempdir().expect("a temporary folder");
    let mut counts = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let ran = Ran::of(COHORT.run(output.path(), &["--shard", shard, "--json"]).output().expect("the binary starts"));
        counts.push(ran.json()["studies"]["chosen"].as_u64().expect("a number"));
    }
    assert_eq!(counts.iter().sum::<u64>(), STUDIES as u64);
    COHORT.check(output.path());
}

#[test]
fn other_settings_are_not_mixed_in() {
    let undisturbed = COHORT.folder.path().join("undisturbed");
    let ran = Ran::of(COHORT.run(&undisturbed, &["--resume", "--results", "json"]).output().expect("the binary starts"));
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("--results differs"), "{}", ran.stderr);
    COHORT.check(&undisturbed);
}

#[test]
fn changed_files_are_done_again() {
    let (_, study) = crate::support::small_study();
    let output = tempfile::tempdir().expect("a temporary folder");
    let run = |more: &[&str]| {
        let mut run = command();
        run.args(["run", "--device", "cpu", "--json", "--results", "json", "--model"]).arg(ct_tissue()).arg(study.path());
        Ran::of(run.arg("--output").arg(output.path()).args(more).output().expect("the binary starts"))
    };
    assert_eq!(run(&[]).code, 0);
    assert_eq!(run(&["--resume"]).code, 0);
    assert_eq!(done(output.path()).concat().len(), 1);
    fs::remove_file(study.path().join("0012.dcm")).expect("there");
    let ran = run(&["--resume"]);
    assert_eq!(ran.code, 1, "a slice is missing now: {}", ran.all());
    assert!(ran.stderr.contains("have changed"), "{}", ran.stderr);
    assert_eq!(ran.json()["series"].as_array().expect("series").len(), 1);
    assert_eq!(ran.json()["series"][0]["outcome"], "refused");
    assert!(ran.stderr.contains("1 earlier results are removed"), "{}", ran.stderr);
    assert!(!files_below(output.path()).iter().any(|file| file.ends_with("findings.json") || file.extension().is_some_and(|e| e == "jpg")));
}

#[test]
fn a_plan_writes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("out");
    let ran = Ran::of(COHORT.run(&output, &["--dry-run", "--json"]).output().expect("the binary starts"));
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(!output.exists());
    let plan = ran.json();
    let studies = plan["studies"].as_array().expect("studies");
    assert_eq!((studies.len(), plan["unreadable"].as_u64()), (STUDIES, Some(0)));
    let refused = |study: &&Value| study["series"][0]["is_refused"] == true;
    assert_eq!(studies.iter().filter(refused).count(), 1, "one lacks a slice; what is cut off shows when it is read: {plan}");
    let text = Ran::of(COHORT.run(&output, &["--dry-run"]).output().expect("the binary starts"));
    assert!(text.stdout.contains("12 studies") && text.stdout.contains("11 series would be analysed"), "{}", text.all());
    // Of a folder where some are done it knows how long the others take.
    let undisturbed = COHORT.folder.path().join("undisturbed");
    let plan = Ran::of(COHORT.run(&undisturbed, &["--dry-run", "--json", "--resume"]).output().expect("the binary starts"));
    assert_eq!(plan.json()["estimate"]["from"], 10);
    assert!(plan.json()["studies"].as_array().expect("studies").iter().all(|study| study["is_done"] == true));
}

/// A question, the studies of its answer as the input of another run, and what failed once more.
#[test]
fn questions_and_lists() {
    let undisturbed = COHORT.folder.path().join("undisturbed");
    let ask = |sql: &str, more: &[&str]| {
        let mut query = command();
        Ran::of(query.arg("query").arg(&undisturbed).arg(sql).args(more).output().expect("the binary starts"))
    };
    let answer = ask("select finding, count(*) as n, min(volume_ml) > 0 as some from findings group by finding order by 1", &["--json"]);
    assert_eq!(answer.code, 0, "{}", answer.all());
    let air = serde_json::json!({"finding": "air", "n": 10, "some": 1});
    assert_eq!((answer.json().as_array().expect("rows").len(), &answer.json()[0]), (5, &air));
    let exact = ask("select volume_ml from findings where finding = 'lung' order by series_instance_uid limit 1", &["--csv"]);
    let table = fs::read_to_string(undisturbed.join("findings.csv")).expect("written");
    let volume = exact.stdout.lines().nth(1).expect("a row");
    assert!(volume.contains('.') && table.contains(&format!(",{volume},")), "{volume}");
    for refused in [
        "attach 'x' as x",
        "select 1; select 2",
        "delete from findings",
        "select * from nowhere",
        "with x as (select 1) delete from findings",
    ] {
        let ran = ask(refused, &[]);
        assert_eq!(ran.code, 2, "{refused}: {}", ran.all());
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = folder.path().join("studies.csv");
    let sql = "select study_instance_uid from findings where finding = 'lung' order by volume_ml desc, study_instance_uid limit 3";
    assert_eq!(ask(sql, &["--studies", list.to_str().expect("ASCII")]).code, 0);
    let output = folder.path().join("few");
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", "json", "--model"]).arg(ct_tissue()).arg(&list).arg("--output").arg(&output);
    let ran = Ran::of(run.output().expect("the binary starts"));
    assert_eq!((ran.code, done(&output).concat().len()), (0, 3), "{}", ran.all());

    // A copy, because it is worked in.
    let again = folder.path().join("again");
    let copied = Command::new("cp").arg("-r").arg(&undisturbed).arg(&again).status().expect("cp starts");
    assert!(copied.success());
    let failures = again.join("failures.csv");
    let ran = Ran::of(COHORT.run(&again, &["--only", failures.to_str().expect("ASCII"), "--json"]).output().expect("the binary starts"));
    assert_eq!((ran.code, &ran.json()["studies"]["chosen"]), (1, &Value::from(2)), "{}", ran.all());
    COHORT.check(&again);
}

#[test]
fn people_see_the_cohort() {
    let undisturbed = COHORT.folder.path().join("undisturbed");
    let checked = python(&root().join("tests/python/check_cohort.py"), &[&undisturbed]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

#[test]
fn the_table_is_there_with_types() {
    let undisturbed = COHORT.folder.path().join("undisturbed");
    let checked = python(&root().join("tests/python/check_parquet.py"), &[&undisturbed]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

#[test]
fn how_certain_a_classifier_is_can_be_seen() {
    let made = tempfile::tempdir().expect("a temporary folder");
    let ran = python(&root().join("tests/python/make_radiographs.py"), &[made.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let output = made.path().join("out");
    let mut run = command();
    run.args(["run", "--device", "cpu", "--results", "json", "--model"])
        .arg(made.path().join("packages/quadrants"))
        .arg(made.path().join("studies"));
    let ran = Ran::of(run.arg("--output").arg(&output).output().expect("the binary starts"));
    assert!(output.join("report.html").is_file(), "{}", ran.all());
    let checked = python(&root().join("tests/python/check_certainty.py"), &[&output]);
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);
}

/// A list and a PACS (`tests/python/check_pacs.py`), by scenarios.
fn check_pacs(scenarios: &str) {
    let (_, study) = crate::support::small_study();
    let script = root().join("tests/python/check_pacs.py");
    let ran = python(&script, &[Path::new(env!("CARGO_BIN_EXE_roentgen")), &ct_tissue(), study.path(), Path::new(scenarios)]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    println!("{}", ran.stdout);
}

#[test]
fn studies_of_a_list_come_from_orthanc_by_c_get() {
    check_pacs("get");
}

#[test]
fn studies_of_a_list_come_from_orthanc_by_c_move_and_dicomweb() {
    check_pacs("move,web");
}

#[test]
fn what_a_pacs_does_wrong_is_told_and_never_analysed() {
    check_pacs("broken,down");
}

#[test]
fn a_run_that_fetches_can_be_stopped() {
    check_pacs("stopped");
}

#[test]
fn a_batch_is_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::os::unix::fs::symlink(COHORT.studies().join("00"), folder.path().join("incoming")).expect("linked");
    let batch = folder.path().join("batch.toml");
    let text = "model = \"ct-tissue\"\ninputs = [\"incoming\"]\noutput = \"out\"\ndevice = \"cpu\"\nresults = [\"json\"]\nresume = true\n";
    fs::write(&batch, text).expect("writable");
    let ran = roentgen(&["run", "--config", batch.to_str().expect("ASCII"), "--results", "json,png"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let names: Vec<_> = files_below(&folder.path().join("out")).iter().map(|f| f.file_name().expect("a name").to_owned()).collect();
    assert!(names.iter().any(|name| name == "overview.png") && !names.iter().any(|name| name == "sr.dcm"), "the command line wins");
    fs::write(&batch, "modle = \"ct-tissue\"\n").expect("writable");
    let ran = roentgen(&["run", "--config", batch.to_str().expect("ASCII")]);
    assert!(ran.code == 2 && ran.stderr.contains("`modle` is no option"), "{}", ran.all());
}

#[test]
fn shells_and_manuals_know_the_options() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = roentgen(&["completions", shell]);
        assert!(ran.code == 0 && ran.stdout.contains("dry-run"), "{shell}: {}", ran.stderr);
    }
    let bash = Command::new("bash").args(["-n", "-c", &roentgen(&["completions", "bash"]).stdout]).status().expect("bash starts");
    assert!(bash.success(), "bash reads its completions");
    let page = roentgen(&["man"]).stdout;
    assert!(page.starts_with(".ie") && page.contains("asked to stop"), "{page}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(roentgen(&["man", "--output", folder.path().to_str().expect("ASCII")]).code, 0);
    let run = fs::read_to_string(folder.path().join("roentgen-run.1")).expect("written");
    assert!(run.contains("\\-\\-resume"), "{run}");
}
