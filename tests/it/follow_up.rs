//! Findings over time: two studies of one patient, who lies elsewhere, with a nodule that grew, one that stayed, one that came and one that
//! went; and everyone else's, which are never compared.

use std::f64::consts::PI;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use roentgen::geometry::{Affine, Grid, norm, sub};
use roentgen::phantom::{self, Phantom, Sampling, Visit};
use roentgen::volume::{ImageVolume, Volume};
use serde_json::{Value, json};

use crate::support::{Ran, command, files_below, findings_json, python, root};

const SAMPLING: Sampling = Sampling { dims: [112, 84, 64], spacing_mm: [3.2, 3.2, 4.5], noise_hu: 15.0 };
const FOLLOW_UP: &str = "[follow-up]\ngate_mm = 15.0\nmin_correlation = 0.8\norigin = \"chosen by a test\"\n";
const DAYS: i64 = 181; // from 1 January to 1 July 2026

/// Balls in the lungs of the phantom's body: centre and radius, mm. All are metal: nothing else is as dense.
const GROWS: [f64; 3] = [-82.0, -18.0, 40.0];
const STAYS: ([f64; 3], f64) = ([84.0, -12.0, 56.0], 9.0);
const GOES: ([f64; 3], f64) = ([78.0, 22.0, -14.0], 11.5);
const COMES: ([f64; 3], f64) = ([-66.0, 30.0, -26.0], 9.5);
const BEFORE: &[([f64; 3], f64)] = &[(GROWS, 10.0), STAYS, GOES];
const AFTER: &[([f64; 3], f64)] = &[(GROWS, 13.0), STAYS, COMES];

/// A turn of 5 degrees about z and a shift: where the body lies at the second visit.
fn moved() -> Affine {
    let (sin, cos) = 5f64.to_radians().sin_cos();
    Affine::from_columns([cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0], [9.0, -6.0, 14.0])
}

/// A study of the phantom with these balls; `lps_from_body` says where the body lies.
fn write_study(balls: &[([f64; 3], f64)], lps_from_body: &Affine, visit: &Visit<'_>, folder: &Path) {
    let body_from_lps = lps_from_body.inverse().expect("a turn and a shift");
    let Phantom { image, truth, noise_hu } = phantom::chest_of(&SAMPLING, &[], &body_from_lps);
    let grid: Grid = *image.grid();
    let body_from_voxel = body_from_lps * grid.lps_from_voxel();
    let mut stored = image.stored.as_int16().expect("integers").voxels().to_vec();
    let [columns, rows, _] = grid.dims().map(|n| n as usize);
    for (n, value) in stored.iter_mut().enumerate() {
        let at = body_from_voxel.apply([n % columns, n / columns % rows, n / (columns * rows)].map(|v| v as f64));
        if balls.iter().any(|(centre, radius)| norm(sub(at, *centre)) <= *radius) {
            *value = 1024 + 1000;
        }
    }
    let image = ImageVolume { stored: Volume::new(grid, stored).into(), ..image };
    phantom::write_visit(&Phantom { image, truth, noise_hu }, visit, folder).expect("the study can be written");
}

fn write_package(folder: &Path, follow_up: &str) {
    crate::detection::write_package(folder, &[("[[finding]]\nchannel = 1", &format!("{follow_up}\n[[finding]]\nchannel = 1"))]);
}

fn run(package: &Path, studies: &Path, output: &Path, more: &[&str]) -> std::process::Command {
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--results", "sr,seg,json,html,png", "--model"]).arg(package).arg(studies);
    run.arg("--output").arg(output).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    run
}

fn finished(mut run: std::process::Command) -> Ran {
    let ran = Ran::of(run.output().expect("the binary starts"));
    assert_eq!(ran.code, 0, "{}", ran.all());
    ran
}

/// Findings of each study of an output folder, by Study Instance UID.
fn results(output: &Path) -> Vec<(String, Value)> {
    let folders: Vec<PathBuf> = files_below(output).into_iter().filter(|f| f.ends_with("findings.json")).collect();
    let of = |file: &PathBuf| findings_json(file.parent().expect("in a folder"));
    folders.iter().map(of).map(|findings| (findings["study_instance_uid"].as_str().expect("a UID").to_owned(), findings)).collect()
}

/// Studies with their follow-up, of the last study of each of these folders.
fn study_uid(folder: &Path) -> String {
    let object = dicom::object::open_file(folder.join("0001.dcm")).expect("written");
    object.element_by_name("StudyInstanceUID").expect("there").to_str().expect("a UID").trim_end_matches('\0').to_owned()
}

fn ball_ml(radius: f64) -> f64 {
    4.0 / 3.0 * PI * radius.powi(3) / 1000.0
}

#[test]
fn a_nodule_that_grew_is_followed_and_nobody_elses() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let studies = path("studies");
    let now = Visit { name: "now", date: "20260701", ..Visit::default() };
    let stranger = Visit { patient_id: "ANOTHER", ..now };
    // The same Patient ID, born on another day: another hospital's, or a mistake.
    let namesake = Visit { name: "namesake", birth_date: "19500101", date: "20260301", ..now };
    write_study(BEFORE, &Affine::IDENTITY, &Visit { birth_date: "19700101", ..Visit::default() }, &studies.join("z-before"));
    write_study(AFTER, &moved(), &Visit { birth_date: "19700101", ..now }, &studies.join("a-after"));
    write_study(BEFORE, &Affine::IDENTITY, &stranger, &studies.join("stranger"));
    write_study(BEFORE, &Affine::IDENTITY, &namesake, &studies.join("namesake"));
    write_package(&path("package"), FOLLOW_UP);

    finished(run(&path("package"), &studies, &path("out"), &[]));
    let all = results(&path("out"));
    let of = |name: &str| {
        let uid = study_uid(&studies.join(name));
        &all.iter().find(|(study, _)| *study == uid).expect("it was analysed").1
    };
    let (before, after) = (of("z-before"), of("a-after"));
    for alone in [before, of("stranger"), of("namesake")] {
        assert!(alone.get("follow_up").is_none() && alone["priors"]["instances"] == json!([]), "{alone}");
    }
    let warned = |findings: &Value| findings["warnings"].to_string().contains("not beyond doubt of the same patient");
    assert!(warned(after) && warned(of("namesake")) && !warned(of("stranger")) && !warned(before), "{}", after["warnings"]);
    let tracking = |findings: &Value| -> Vec<String> {
        findings["findings"].as_array().expect("findings").iter().map(|f| f["tracking_uid"].as_str().expect("a UID").to_owned()).collect()
    };
    let ours: Vec<String> = tracking(before).into_iter().chain(tracking(after)).collect();
    for other in ["stranger", "namesake"] {
        assert!(!tracking(of(other)).iter().any(|uid| ours.contains(uid)), "{other} shares a Tracking UID");
    }

    let followed = &after["follow_up"];
    assert_eq!((&followed["study_instance_uid"], followed["days"].as_i64()), (&before["study_instance_uid"], Some(DAYS)));
    // Where the registration puts the balls: within 1 mm of where they were.
    let rows: Vec<Vec<f64>> = serde_json::from_value(followed["registration"]["earlier_mm_from_mm"].clone()).expect("three rows");
    for (centre, _) in BEFORE.iter().chain(AFTER) {
        let at = moved().apply(*centre);
        let back: [f64; 3] = std::array::from_fn(|r| (0..3).map(|c| rows[r][c] * at[c]).sum::<f64>() + rows[r][3]);
        let off_mm = norm(sub(back, *centre));
        assert!(off_mm < 1.0, "{off_mm} mm off at {centre:?}: {followed}");
    }

    // What the objects, the table and the page say of it, read by others.
    let truth = json!({
        "before": before["study_instance_uid"], "after": after["study_instance_uid"], "days": DAYS,
        "grows_ml": [ball_ml(10.0), ball_ml(13.0)], "stays_ml": ball_ml(STAYS.1), "goes_ml": ball_ml(GOES.1), "comes_ml": ball_ml(COMES.1),
    });
    fs::write(path("truth.json"), truth.to_string()).expect("writable");
    let checked = python(
        &root().join("tests/python/check_follow_up.py"),
        &[&path("out"), &path("truth.json"), &root().join("docs/findings.schema.json")],
    );
    assert_eq!(checked.code, 0, "{}", checked.all());
    println!("{}", checked.stdout);

    // Stopped in the middle and resumed, and by two at once: the same UIDs, the same table.
    let table = |output: &str| fs::read_to_string(path(output).join("findings.csv")).expect("written");
    let mut child = run(&path("package"), &studies, &path("killed"), &[]).spawn().expect("the binary starts");
    let until = Instant::now() + Duration::from_secs(300);
    let journal = path("killed").join("work/journal-0001.jsonl");
    while !fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"done\"")) {
        assert!(Instant::now() < until && child.try_wait().expect("a child").is_none(), "it ended or hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    finished(run(&path("package"), &studies, &path("killed"), &["--resume"]));
    assert_eq!(table("killed"), table("out"));
    let both = [0, 1].map(|_| run(&path("package"), &studies, &path("shared"), &["--resume"]).spawn().expect("the binary starts"));
    for child in both {
        let ran = Ran::of(child.wait_with_output().expect("it ends"));
        assert_eq!(ran.code, 0, "{}", ran.all());
    }
    assert_eq!(table("shared"), table("out"));

    // A study of before that comes later is done, and what was compared with another one is done again.
    let between = Visit { name: "between", birth_date: "19700101", date: "20260402", ..Visit::default() };
    write_study(BEFORE, &Affine::IDENTITY, &between, &studies.join("between"));
    let ran = finished(run(&path("package"), &studies, &path("out"), &["--resume"]));
    assert!(ran.stderr.contains("have changed"), "{}", ran.stderr);
    let all = results(&path("out"));
    let now_after = &all.iter().find(|(study, _)| *study == study_uid(&studies.join("a-after"))).expect("there").1;
    assert_eq!(now_after["follow_up"]["study_instance_uid"].as_str(), Some(study_uid(&studies.join("between")).as_str()));
    // Through both: still the UID of the first study.
    let matched = |findings: &Value| -> Vec<String> {
        let all = findings["follow_up"]["findings"].as_array().expect("findings");
        all.iter().filter(|f| f["status"] == "matched").map(|f| f["tracking_uid"].as_str().expect("a UID").to_owned()).collect()
    };
    assert_eq!(matched(now_after).len(), 2);
    assert!(matched(now_after).iter().all(|uid| tracking(before).contains(uid)), "{now_after}");
}

/// Images that do not lie on each other are not compared, and that is said; without `[follow-up]` nothing is.
#[test]
fn what_cannot_be_compared_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let visit = |name: &'static str, date: &'static str| Visit { name, date, ..Visit::default() };
    write_study(BEFORE, &Affine::IDENTITY, &visit("", "20260101"), &path("studies/one"));
    write_study(AFTER, &moved(), &visit("now", "20260701"), &path("studies/two"));
    write_package(&path("strict"), &FOLLOW_UP.replace("min_correlation = 0.8", "min_correlation = 0.9999"));
    finished(run(&path("strict"), &path("studies"), &path("out"), &[]));
    let all = results(&path("out"));
    let refused: Vec<&Value> = all.iter().filter_map(|(_, findings)| findings.get("follow_up")).collect();
    assert!(refused.len() == 1 && refused[0]["refused"].as_str().is_some_and(|why| why.contains("follow-up.unlike")), "{refused:?}");
    assert!(refused[0]["findings"] == json!([]) && refused[0]["registration"].is_null(), "{refused:?}");
    assert!(all.iter().any(|(_, findings)| findings["warnings"].to_string().contains("were not matched")), "it is said");
    let uids =
        |n: usize| all[n].1["findings"].as_array().expect("findings").iter().map(|f| f["tracking_uid"].to_string()).collect::<Vec<_>>();
    assert!(!uids(0).iter().any(|uid| uids(1).contains(uid)));

    write_package(&path("plain"), "");
    finished(run(&path("plain"), &path("studies"), &path("apart"), &[]));
    assert!(results(&path("apart")).iter().all(|(_, findings)| findings.get("follow_up").is_none()));
    let header = fs::read_to_string(path("apart").join("findings.csv")).expect("written");
    assert!(!header.contains("tracking_uid"), "{header}");
}
