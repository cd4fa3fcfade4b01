//! One study as a folder, an archive, a media directory, NIfTI and NRRD: the same findings, or a reason.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::selection::package;
use crate::support::{command, files_below, findings_json, outcomes, python, roentgen, root, run_ct_tissue, small_study};

/// A zip archive of these entries.
fn zipped(folder: &Path, entries: &[(String, Vec<u8>)]) -> PathBuf {
    let path = folder.join("study.zip");
    let mut zip = ZipWriter::new(File::create(&path).expect("writable"));
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).expect("an entry");
        zip.write_all(bytes).expect("writable");
    }
    zip.finish().expect("writable");
    path
}

/// The files of a study as entries in the folder of a patient.
fn entries(study: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |f: &PathBuf| (format!("DOE^JANE/{}", f.file_name().expect("a name").to_string_lossy()), fs::read(f).expect("readable"));
    files_below(study).iter().map(read).collect()
}

/// A DICOMDIR over copies of the study, by DCMTK.
fn media(study: &Path, folder: &Path) -> PathBuf {
    fs::create_dir(folder.join("IMAGES")).expect("made");
    for (n, file) in files_below(study).iter().enumerate() {
        fs::copy(file, folder.join(format!("IMAGES/IM{n}"))).expect("copied");
    }
    let mut dcmmkdir = Command::new("dcmmkdir");
    dcmmkdir.args(["--recurse", "--no-consistency-check", "--invent", "--output-file", "DICOMDIR", "IMAGES"]).current_dir(folder);
    let made = dcmmkdir.output().expect("dcmmkdir (Debian package dcmtk) starts");
    assert!(made.status.success(), "{made:?}");
    folder.join("DICOMDIR")
}

/// The findings of the only series in `input`, without the time; and where they are.
fn findings(input: &Path, output: &Path) -> (Value, PathBuf) {
    let ran = run_ct_tissue(&[input], output);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(!ran.all().contains("DOE"), "{}", ran.all());
    let report = ran.json();
    assert_eq!(outcomes(&report).len(), 1, "{}", ran.all());
    let folder = PathBuf::from(report["series"][0]["folder"].as_str().expect("a folder"));
    let mut findings = findings_json(&folder);
    findings["provenance"]["started"].take();
    (findings, folder)
}

#[test]
fn a_zip_and_a_dicomdir_are_the_folder() {
    let (_, study) = small_study();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| temporary.path().join(name);
    let (expected, _) = findings(study.path(), &at("folder-results"));
    assert!(expected["results"][0]["sop_instance_uid"].as_str().is_some_and(|uid| uid.starts_with("2.25.")), "{expected}");
    let zip = zipped(temporary.path(), &entries(study.path()));
    assert_eq!(findings(&zip, &at("zip-results")).0, expected);
    let medium = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(findings(&media(study.path(), medium.path()), &at("media-results")).0, expected);
}

/// The phantom as other people's libraries write it: the tissues of the DICOM series, and its Segmentation voxel by voxel.
#[test]
fn researchers_files_have_the_findings_of_the_series() {
    let (_, study) = small_study();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let made = temporary.path().join("made");
    fs::create_dir(&made).expect("made");
    let script = root().join("tests/python/check_inputs.py");
    let ran = python(&script, &[Path::new("make"), study.path(), &made]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let (expected, dicom) = findings(study.path(), &temporary.path().join("dicom-results"));

    let output = temporary.path().join("results");
    let ran = run_ct_tissue(&[&made], &output);
    assert_eq!(ran.code, 1, "the sheared one is refused: {}", ran.all());
    let report = ran.json();
    let mut same = Vec::new();
    for volume in report["volumes"].as_array().expect("volumes") {
        let name = Path::new(volume["path"].as_str().expect("a path")).file_name().expect("a name").to_string_lossy();
        let warnings = volume["warnings"].to_string();
        match &*name {
            "sheared.nii.gz" => assert_eq!(volume["reasons"][0]["code"], "series.sheared"),
            "shifted.nii.gz" => assert!(warnings.contains("may be no Hounsfield units"), "{warnings}"),
            _ => {
                assert!(warnings.contains("modality") && warnings.contains("taken as Hounsfield units"), "{warnings}");
                assert!(!warnings.contains("may be no"), "{warnings}");
                same.push((name.into_owned(), PathBuf::from(volume["folder"].as_str().expect("done"))));
            }
        }
    }
    let names: Vec<_> = same.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["pair.hdr", "scaled.nii", "volume.nii.gz", "volume.nrrd"]);

    let mut arguments = vec![Path::new("compare"), study.path(), &dicom];
    arguments.extend(same.iter().map(|(_, folder)| folder.as_path()));
    let compared = python(&script, &arguments);
    assert_eq!(compared.code, 0, "{}", compared.all());
    assert_eq!(compared.json()["compared"], 4);
    for (name, folder) in &same {
        let found = findings_json(folder);
        let sha256 = found["source_file"]["sha256"].as_str().expect("a hash");
        assert!(folder.ends_with(&sha256[..16]) && found["study_instance_uid"].is_null(), "{name}: {found}");
        assert!(!found.to_string().contains(&*made.to_string_lossy()), "{name}: a path in the findings");
        let names: Vec<_> = files_below(folder).iter().map(|f| f.file_name().expect("a name").to_owned()).collect();
        assert_eq!(names, ["findings.json", "labels.nii.gz", "overview.png", "report.html"], "{name}");
        for (found, expected) in measurements(&found).iter().zip(measurements(&expected)) {
            // NIfTI has its affine in 32 bits: volumes agree to 7 digits.
            assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{name}: {found} in place of {expected}");
        }
    }
    // Once more: the same names.
    let again = run_ct_tissue(&[&made.join("volume.nrrd")], &temporary.path().join("again"));
    let folder = PathBuf::from(again.json()["volumes"][0]["folder"].as_str().expect("done"));
    let tracking = |folder: &Path| findings_json(folder)["findings"][0]["tracking_uid"].clone();
    assert_eq!(tracking(&folder), tracking(&same[3].1));
    assert_ne!(tracking(&folder), tracking(&same[2].1), "another file, other UIDs");
}

fn measurements(findings: &Value) -> Vec<f64> {
    let of = |finding: &Value| finding["measurements"].as_array().expect("measurements").clone();
    let all: Vec<f64> =
        findings["findings"].as_array().expect("findings").iter().flat_map(of).map(|m| m["value"].as_f64().expect("a number")).collect();
    assert_eq!(all.len(), 15, "three numbers of five tissues");
    all
}

/// Text, a cut slice, a cut volume and an archive among good slices: each is named by its number, by no name of the archive and no
/// temporary path. A slice that cannot be read stops its series.
#[test]
fn broken_files_in_a_zip_are_listed() {
    let (_, study) = small_study();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut all = entries(study.path());
    let last = all.last_mut().expect("slices");
    last.1.truncate(last.1.len() - 1000);
    let header_only = all[0].1[..300].to_vec();
    all.extend([("DOE^JANE/DOE".to_owned(), header_only), ("DOE.txt".to_owned(), b"text".to_vec())]);
    all.extend([("DOE.zip".to_owned(), b"PK\x03\x04".to_vec()), ("DOE.nii.gz".to_owned(), b"no gzip".to_vec())]);
    let zip = zipped(temporary.path(), &all);
    let ran = run_ct_tissue(&[&zip], &temporary.path().join("results"));
    assert_eq!(ran.code, 1, "{}", ran.all());
    let everything = ran.all();
    assert!(!everything.contains("DOE") && !everything.contains("/roentgen-"), "{everything}");
    let report = ran.json();
    let reason = &report["series"][0]["reasons"][0];
    let place = |n: usize| format!("{}!entry {n}", zip.display());
    assert!(reason["message"].as_str().is_some_and(|m| m.contains(&place(24))), "{report}");
    let files: Vec<_> = report["files"].as_array().expect("files").iter().map(|f| (f["path"].clone(), f["code"].clone())).collect();
    let expected = [(25, "dataset.truncated"), (26, "dataset.not-dicom"), (27, "series.left-out-of-archive"), (28, "research.foreign")];
    assert_eq!(files, expected.map(|(n, code)| (Value::from(place(n)), Value::from(code))));

    let bytes = fs::read(&zip).expect("readable");
    fs::write(&zip, &bytes[..bytes.len() / 2]).expect("writable");
    let ran = run_ct_tissue(&[&zip], &temporary.path().join("none"));
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert_eq!(ran.json()["files"][0]["code"], "series.archive-damaged", "{}", ran.all());
}

#[test]
fn a_package_for_uptakes_takes_no_file_that_is_silent_on_them() {
    let (_, study) = small_study();
    let made = tempfile::tempdir().expect("a temporary folder");
    let ran = python(&root().join("tests/python/check_inputs.py"), &[Path::new("make"), study.path(), made.path()]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let package = package("modality = [\"CT\"]\nquantity = \"suv-bw\"\ndescription = { any = [\"x\"] }");
    let file = made.path().join("volume.nii.gz");
    let output = made.path().join("results");
    let mut run = command();
    run.args(["run", "--device", "cpu", "--json", "--model"]).arg(package.path()).arg(&file).arg("--output").arg(&output);
    let ran = run.output().expect("the binary starts");
    assert_eq!(ran.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let volume = &report["volumes"][0];
    assert_eq!((&volume["outcome"], &volume["reasons"][0]["code"]), (&"refused".into(), &"select.quantity".into()), "{report}");

    let mut inspect = command();
    let ran = inspect.args(["inspect", "--model"]).arg(package.path()).arg(&file).output().expect("the binary starts");
    let text = String::from_utf8(ran.stdout).expect("UTF-8");
    for line in ["NIfTI-1 volume", "90 x 68 x 24 voxels", "would not run", "select.quantity", "has: modality, description"] {
        assert!(text.contains(line), "no `{line}` in:\n{text}");
    }
}

#[test]
fn help_names_the_inputs() {
    let help = roentgen(&["run", "--help"]).stdout;
    for word in ["DICOMDIR", "zip", ".nii.gz", ".nrrd", "labels.nii.gz"] {
        assert!(help.contains(word), "no `{word}` in:\n{help}");
    }
}
