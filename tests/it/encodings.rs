//! Every encoding that docs/encodings.md lists, on files that other people's tools made (tests/python/make_encodings.py), and real ones.

use std::path::{Path, PathBuf};

use proptest::prelude::Rng;
use proptest::test_runner::RngAlgorithm;
use roentgen::dataset::{Instance, Place, StoredAs, read_frames};
use serde_json::Value;

use crate::support::{files_below, python, root, test_data};

/// What a case of cases.json says, read as the library reads it.
fn check(case: &Value) -> Result<(), String> {
    let text = |key: &str| case[key].as_str().expect("a text");
    let expected = std::fs::read(text("raw")).expect("the maker wrote it");
    let instance = Instance::read(Path::new(text("file"))).map_err(|e| e.to_string())?;
    let pixels = instance.rows as usize * instance.columns as usize;
    let (found, expected): (Vec<i64>, Vec<i64>) = match text("kind") {
        "stored" => {
            let words = expected.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect();
            let stored_as = StoredAs::for_series([&instance]);
            if stored_as == StoredAs::Float {
                let mut stored = vec![0f32; pixels];
                read_frames(&instance, &mut [(1, Place::Float32(&mut stored))]).map_err(|e| e.to_string())?;
                (stored.iter().map(|&v| v as i64).collect(), words)
            } else {
                let mut stored = vec![0i16; pixels];
                let place = Place::Int16 { stored: &mut stored, minus_32768: stored_as == StoredAs::Minus32768 };
                read_frames(&instance, &mut [(1, place)]).map_err(|e| e.to_string())?;
                (stored.iter().map(|&v| i64::from(v) + stored_as.offset() as i64).collect(), words)
            }
        }
        _ => {
            let frame = case["frame"].as_u64().expect("a number") as u32;
            let mut rgb = vec![[0u8; 3]; pixels];
            read_frames(&instance, &mut [(frame + 1, Place::Rgb(&mut rgb))]).map_err(|e| e.to_string())?;
            (rgb.iter().flatten().map(|&v| v.into()).collect(), expected.iter().map(|&v| v.into()).collect())
        }
    };
    if found.len() != expected.len() {
        return Err(format!("{} values, not {}", found.len(), expected.len()));
    }
    let bound = case["bound"].as_i64().expect("a number");
    let off = |n: &usize| (found[*n] - expected[*n]).abs() > bound;
    let wrong = (0..found.len()).filter(off).count();
    match (0..found.len()).find(off) {
        None => Ok(()),
        Some(n) => Err(format!("{wrong} values differ by more than {bound}; value {n} is {}, not {}", found[n], expected[n])),
    }
}

/// What the maker wrote.
fn cases_in(folder: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder.join("cases.json")).expect("cases.json")).expect("cases.json is JSON")
}

/// Those of the cases that fail, with their reasons.
fn failures(cases: &[Value]) -> Vec<String> {
    cases.iter().filter_map(|c| check(c).err().map(|why| format!("{} ({}): {why}", c["name"], c["cell"]))).collect()
}

fn make(arguments: &[&Path]) {
    let ran = python(&root().join("tests/python/make_encodings.py"), arguments);
    assert_eq!(ran.code, 0, "{}", ran.all());
}

#[test]
fn files_of_other_tools_are_decoded_right() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make(&[Path::new("made"), folder.path()]);
    let cases = cases_in(folder.path());
    assert!(cases.len() > 150, "only {} cases", cases.len());
    let failed = failures(&cases);
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
    damaged_files_never_panic(&cases);
}

/// Each of the files of all codecs with bytes changed, taken out, repeated, and cut off: an error or values, no panic.
fn damaged_files_never_panic(cases: &[Value]) {
    let read = |path: &Path| -> Result<(), String> {
        let instance = Instance::read(path).map_err(|e| e.to_string())?;
        let pixels = instance.rows as usize * instance.columns as usize;
        if pixels > 1 << 20 {
            return Err("more than a small image".to_owned());
        }
        let (mut stored, mut real, mut rgb) = (vec![0i16; pixels], vec![0f32; pixels], vec![[0u8; 3]; pixels]);
        let place = match StoredAs::for_series([&instance]) {
            StoredAs::Same => Place::Int16 { stored: &mut stored, minus_32768: false },
            StoredAs::Minus32768 => Place::Int16 { stored: &mut stored, minus_32768: true },
            StoredAs::Float => Place::Float32(&mut real),
            StoredAs::Rgb => Place::Rgb(&mut rgb),
        };
        read_frames(&instance, &mut [(1, place)]).map(drop).map_err(|e| e.to_string())
    };
    let outcome = |(n, case): (usize, &Value)| {
        let whole = std::fs::read(case["file"].as_str().expect("a path")).expect("the maker wrote it");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("damaged");
        let mut chance = proptest::test_runner::TestRng::from_seed(RngAlgorithm::ChaCha, &[n as u8; 32]);
        // Most of the damage goes to the pixel data, which is what comes last.
        let mut below = |bound: usize| chance.next_u64() as usize % bound.max(1);
        let refused = (0..24).filter(|round| {
            let mut bytes = whole.clone();
            let from = bytes.len() * [1, 5, 9][below(3)] / 10;
            for _ in 0..=below(4) {
                let at = from + below(bytes.len() - from);
                let length = below(64).min(bytes.len() - at);
                match round % 6 {
                    0..3 => bytes[at] = below(256) as u8,
                    3 => drop(bytes.drain(at..at + length)),
                    4 => bytes.extend_from_within(at..at + length),
                    _ => bytes.truncate(at.max(from + 1)),
                }
            }
            std::fs::write(&path, bytes).expect("the temporary folder takes a file");
            read(&path).is_err()
        });
        refused.count()
    };
    let refused: usize = cases.iter().enumerate().map(outcome).sum();
    println!("{refused} of {} damaged files are refused", 24 * cases.len());
    assert!(refused > 2 * cases.len(), "only {refused} of {} damaged files are refused: the damage does not arrive", 24 * cases.len());
}

#[test]
fn real_files_are_decoded_as_pydicom_does() {
    let Some(data) = test_data() else { return };
    let transfer_syntaxes = data.join("transfer-syntaxes");
    let mut files: Vec<PathBuf> = ["colour-test-pattern", "htj2k", "deflated", "one-ct-image", "one-tiny-mr-image"]
        .iter()
        .flat_map(|f| files_below(&transfer_syntaxes.join(f)))
        .collect();
    for name in ["more/JLSL_08_07_0_1F.dcm", "more/JLSL_16_15_1_1F.dcm", "more/JPGLosslessP14SV1_1s_1f_8b.dcm"] {
        files.push(transfer_syntaxes.join(name));
    }
    files.extend(files_below(&data.join("ultrasound-colour")).into_iter().filter(|f| !f.ends_with("PROVENANCE.md")));
    for name in ["RG3_J2KI", "dx_image.dcm", "gdcm-CR-MONO1-10-chest.dcm"] {
        files.push(data.join("xray-2d").join(name));
    }
    // 128 bytes beyond the pixels: refused, since more than a byte of padding says that Rows or Columns are wrong. And frames in fragments
    // of no said number.
    files.retain(|f| !["MR_small_padded.dcm", "IM00001.fragmented_no_bot_jpeg_baseline.50.dcm"].iter().any(|name| f.ends_with(name)));
    // Its code stream is unsigned where the attributes say signed: the sign is the attributes' (as GDCM and pydicom have it).
    files.push(data.join("malformed/pydicom/J2K_pixelrep_mismatch.dcm"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut arguments = vec![Path::new("real"), folder.path()];
    arguments.extend(files.iter().map(PathBuf::as_path));
    make(&arguments);
    let cases = cases_in(folder.path());
    assert!(cases.len() >= files.len(), "{} cases of {} files", cases.len(), files.len());
    let failed = failures(&cases);
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), cases.len(), failed.join("\n"));
}
