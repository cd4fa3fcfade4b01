//! Which series of a study a package takes, and what is said about the others.

use std::fs;
use std::path::Path;

use dicom::core::{DataElement, VR};
use dicom::dictionary_std::tags;
use dicom::object::open_file;
use roentgen::phantom::{self, Sampling};
use serde_json::Value;

use crate::support::{Ran, ct_tissue, outcomes, roentgen};

/// A study of four series: thick, thin, a short one, and the thick one again with another kernel. Returns their UIDs.
fn study(folder: &Path) -> [String; 4] {
    let series = |name: &str, slices: u32, slice_mm: f64, kernel: &str, number: u32, noise_hu: f64| {
        let sampling = Sampling { dims: [45, 34, slices], spacing_mm: [8.0, 8.0, slice_mm], noise_hu };
        let folder = folder.join(name);
        let uid = phantom::write_series(&phantom::chest(&sampling), &folder).expect("the series can be written");
        for entry in fs::read_dir(&folder).expect("readable").map(|e| e.expect("readable")) {
            let mut object = open_file(entry.path()).expect("it was just written");
            let texts = [
                (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3.4".to_owned()),
                (tags::SERIES_NUMBER, VR::IS, number.to_string()),
                (tags::SERIES_DESCRIPTION, VR::LO, format!("Thorax {name} for Doe^John")),
                (tags::CONVOLUTION_KERNEL, VR::SH, kernel.to_owned()),
            ];
            for (tag, vr, text) in texts {
                object.put(DataElement::new(tag, vr, text));
            }
            object.write_to_file(entry.path()).expect("writable");
        }
        uid
    };
    [
        series("thick", 12, 20.0, "Br40", 2, 15.0),
        series("thin", 24, 10.0, "Br40", 3, 15.0),
        series("short", 4, 10.0, "Br40", 4, 15.0),
        series("sharp", 12, 20.0, "Bl57", 5, 14.0),
    ]
}

/// The shipped package with these lines below `[select]`.
pub(crate) fn package(select: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(ct_tissue()).expect("readable").map(|e| e.expect("readable")) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    let manifest = folder.path().join("model.toml");
    let text = fs::read_to_string(&manifest).expect("readable");
    let (before, rest) = text.split_once("[select]").expect("it selects");
    let after = rest.split_once("[input]").expect("it has an input").1;
    fs::write(&manifest, format!("{before}[select]\n{select}\n[input]{after}")).expect("written");
    folder
}

const RULES: &str = r#"
modality = ["CT"]
body_part = ["CHEST"]
min_slices = 8
description = { any = ["^Thorax"], none = ["scout"] }
take = "best"
[[select.rank]]
prefer = "kernel"
patterns = ["^Br"]
[[select.rank]]
prefer = "thinnest"
"#;

fn text(path: &Path) -> String {
    path.to_str().expect("ASCII").to_owned()
}

fn run(package: &Path, input: &Path, output: &Path) -> Ran {
    roentgen(&["run", "--device", "cpu", "--json", "--model", &text(package), "--output", &text(output), &text(input)])
}

/// Outcome, codes and first message of each series, in the order of series numbers.
fn check(select: &str, expected: [(&str, &[&str], &str); 4]) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = folder.path().join("study");
    let uids = study(&input);
    let ran = run(package(select).path(), &input, &folder.path().join("out"));
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(!ran.all().contains("Doe"), "text of a header in the output: {}", ran.all());
    let report = ran.json();
    let codes = |codes: &[&str]| codes.iter().map(|&c| c.to_owned()).collect::<Vec<_>>();
    let outcomes_expected: Vec<_> = expected.iter().map(|(o, c, _)| ((*o).to_owned(), codes(c))).collect();
    assert_eq!(outcomes(&report), outcomes_expected, "{report}");
    for (n, (_, _, message)) in expected.iter().enumerate() {
        let message = message.replace("THIN", &format!("series 3 ({})", uids[1]));
        let found = report["series"][n]["reasons"][0]["message"].as_str().unwrap_or_default();
        assert_eq!(found, message);
    }
    report
}

#[test]
fn the_best_series_of_a_study() {
    let outranked: &[&str] = &["select.outranked"];
    let report = check(
        RULES,
        [
            ("not-eligible", outranked, "THIN fits better: thinner slices, 10.00 mm against 20.00 mm"),
            ("done", &[], ""),
            ("not-eligible", &["select.slices"], "number of slices is 4, the package takes 8 or more"),
            ("not-eligible", outranked, "THIN fits better: Convolution Kernel matches `^Br` against no pattern"),
        ],
    );
    let done = &report["series"][1];
    let because: Vec<&str> = done["selected_because"].as_array().expect("reasons").iter().filter_map(Value::as_str).collect();
    assert!(because.contains(&"Body Part Examined: CHEST"), "{because:?}");
    assert!(because.contains(&"number of slices: 24"), "{because:?}");
    assert!(because.contains(&"SeriesDescription (0008,103E): a value that is not shown"), "{because:?}");
    assert_eq!(done["preferred"].as_array().expect("others").len(), 2, "{done}");
}

#[test]
fn every_series_that_fits() {
    let all = &RULES[..RULES.find("take").expect("it is there")];
    let slices: &[&str] = &["select.slices"];
    check(
        all,
        [
            ("done", &[], ""),
            ("done", &[], ""),
            ("not-eligible", slices, "number of slices is 4, the package takes 8 or more"),
            ("done", &[], ""),
        ],
    );
}

#[test]
fn inspect_says_why_and_why_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    study(folder.path());
    let package = package(&RULES.replace("^Thorax", "thin"));
    let inspect = |more: &[&str]| {
        let arguments: Vec<String> = ["inspect", "--model", &text(package.path()), &text(folder.path())].map(String::from).into();
        let ran = roentgen(&arguments.into_iter().chain(more.iter().map(|&m| m.to_owned())).collect::<Vec<_>>());
        assert_eq!(ran.code, 0, "{}", ran.all());
        ran
    };
    let plain = inspect(&[]).stdout;
    let refused =
        "SeriesDescription (0008,103E) is a value that is not shown, the package takes what matches `thin` and what does not match `scout`";
    assert_eq!(plain.matches(&format!("because {refused} [select.description]")).count(), 3, "{plain}");
    assert!(plain.contains("because number of slices is 4, the package takes 8 or more [select.slices]"), "{plain}");
    assert!(!plain.contains("holds:") && !plain.contains("Doe"), "{plain}");

    let why = inspect(&["--why"]).stdout;
    assert!(why.contains("holds: Body Part Examined is CHEST, the package takes CHEST [select.body-part]"), "{why}");
    assert!(!why.contains("Doe"), "{why}");

    let shown = inspect(&["--show-text"]).stdout;
    assert!(shown.contains("SeriesDescription (0008,103E) is \"Thorax thick for Doe^John\""), "{shown}");

    let json = inspect(&["--json"]);
    assert!(!json.stdout.contains("Doe"), "{}", json.stdout);
    let patients = json.json();
    let series = &patients["patients"][0]["studies"]["1.2.3.4"];
    let packages = series[2]["packages"].as_array().expect("packages");
    let checks = packages.last().expect("the one that was named")["checks"].as_array().expect("checks");
    let passed: Vec<_> = checks.iter().map(|c| (c["code"].as_str().expect("a code"), c["passed"].as_bool())).collect();
    let expected = [
        ("select.modality", Some(true)),
        ("select.body-part", Some(true)),
        ("select.slices", Some(false)),
        ("select.description", Some(false)),
        ("select.kind", Some(true)),
        ("select.not-hounsfield", Some(true)),
    ];
    assert_eq!(passed, expected);

    let both = roentgen(&["inspect", "--json", "--show-text", &text(folder.path())]);
    assert_eq!(both.code, 2, "text has no place in JSON: {}", both.all());
}
