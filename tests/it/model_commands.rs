//! `roentgen model`: packages begun, checked, packed, signed and verified, with OpenSSL as the other party.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Ran, ct_tissue, roentgen, small_study};

fn text(path: &Path) -> String {
    path.to_str().expect("ASCII").to_owned()
}

fn model(arguments: &[&str]) -> Ran {
    roentgen(&[&["model"], arguments].concat())
}

fn openssl(arguments: &[&str]) -> bool {
    let ran = Command::new("openssl").args(arguments).output().expect("OpenSSL is installed");
    ran.status.success()
}

#[test]
fn the_shipped_package_passes_its_own_check() {
    let ran = model(&["check", &text(&ct_tissue()), "--device", "cpu"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.stdout.contains("lung") && ran.stdout.trim_end().ends_with("passed"), "{}", ran.all());
    let listed = model(&["list"]);
    assert!(listed.stdout.contains("ct-tissue"), "{}", listed.all());
}

#[test]
fn a_reference_case_that_comes_out_otherwise_fails() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["model.toml", "MODEL_CARD.md", "ct-tissue.onnx"] {
        fs::copy(ct_tissue().join(file), folder.path().join(file)).expect("copied");
    }
    let manifest = folder.path().join("model.toml");
    let changed = fs::read_to_string(&manifest).expect("readable").replace("value = 44.1", "value = 45.0");
    fs::write(&manifest, changed).expect("written");
    let ran = model(&["check", &text(folder.path()), "--device", "cpu"]);
    assert_eq!(ran.code, 1, "{}", ran.all());
    assert!(ran.stdout.contains("FAILED") && ran.stdout.trim_end().ends_with("failed"), "{}", ran.all());
}

#[test]
fn a_new_package_is_the_start_of_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let begun = folder.path().join("begun");
    let ran = model(&["new", &text(&begun), "--onnx", &text(&ct_tissue().join("ct-tissue.onnx"))]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    // Nothing runs before people have said what it is.
    let ran = model(&["check", &text(&begun), "--device", "cpu"]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    assert!(ran.stderr.contains("`model.licence`") && ran.stderr.contains("`finding[0].name`"), "{}", ran.all());
    let manifest = begun.join("model.toml");
    let filled_in = fs::read_to_string(&manifest).expect("readable").replace("\"FILL IN", "\"filled in");
    fs::write(&manifest, filled_in).expect("written");
    // Names and channels are those of its graph, so that it runs.
    let ran = model(&["check", &text(&begun), "--device", "cpu"]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(ran.stdout.trim_end().ends_with("passed, not checked against a reference: add [reference]"), "{}", ran.all());
    // No graph, and no name.
    for (name, graph) in [("other", ct_tissue().join("model.toml")), ("my package", ct_tissue().join("ct-tissue.onnx"))] {
        let refused = folder.path().join(name);
        let ran = model(&["new", &text(&refused), "--onnx", &text(&graph)]);
        assert!(ran.code == 2 && !refused.exists(), "{}", ran.all());
    }
}

#[test]
fn packed_signed_and_verified() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| text(&folder.path().join(name));
    let [key, public, other, packed] = ["key.pem", "public.pem", "other.pem", "ct-tissue.zip"].map(path);
    for (private, public) in [(&key, &public), (&path("other-key.pem"), &other)] {
        assert!(openssl(&["genpkey", "-algorithm", "ed25519", "-out", private]));
        assert!(openssl(&["pkey", "-in", private, "-pubout", "-out", public]));
    }
    let ran = model(&["pack", &text(&ct_tissue()), "--output", &packed, "--sign", &key]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    let signature = format!("{packed}.sig");
    assert!(openssl(&["pkeyutl", "-verify", "-pubin", "-inkey", &public, "-rawin", "-in", &packed, "-sigfile", &signature]));
    assert_eq!(model(&["verify", &packed, "--key", &public]).code, 0);
    // The same files, the same bytes.
    let again = path("again.zip");
    assert_eq!(model(&["pack", &text(&ct_tissue()), "--output", &again]).code, 0);
    assert!(verify_error(&again, &public).contains("not signed: no again.zip.sig beside it"));
    assert_eq!(fs::read(&packed).expect("readable"), fs::read(&again).expect("readable"));
    // A packed package runs, with the same results under the same UIDs.
    let (_, study) = small_study();
    let results = |package: &str, name: &str| {
        let ran = roentgen(&["run", "--model", package, "--device", "cpu", "--output", &path(name), &text(study.path())]);
        assert_eq!(ran.code, 0, "{}", ran.all());
        let found = crate::support::files_below(&folder.path().join(name));
        let report = found.iter().find(|file| file.ends_with("sr.dcm")).expect("a report").clone();
        dicom::object::open_file(report).expect("readable").meta().media_storage_sop_instance_uid.clone()
    };
    assert_eq!(results(&packed, "packed"), results(&text(&ct_tissue()), "folder"));
    // Another's key, and a byte that was changed.
    for wrong in [verify_error(&packed, &other), {
        let mut bytes = fs::read(&packed).expect("readable");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&packed, bytes).expect("written");
        verify_error(&packed, &public)
    }] {
        assert!(wrong.contains("wrong signature"), "{wrong}");
    }
    assert!(verify_error(&packed, &key).contains("no public Ed25519 key"));
}

fn verify_error(packed: &str, key: &str) -> String {
    let ran = model(&["verify", packed, "--key", key]);
    assert_eq!(ran.code, 2, "{}", ran.all());
    ran.stderr
}
