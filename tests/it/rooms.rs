//! The rooms of `src/` and the direction of their arrows: a room uses only rooms below it.

use std::fs;
use std::path::Path;

/// Top to bottom. `ARCHITECTURE.md` says what each is for.
const ROOMS: [&str; 25] = [
    "cli",
    "cohort",
    "bench",
    "node",
    "jobs",
    "phantom",
    "engine",
    "results",
    "followup",
    "findings",
    "measure",
    "postprocess",
    "infer",
    "preprocess",
    "model",
    "kernels",
    "gpu",
    "series",
    "research",
    "store",
    "dimse",
    "dataset",
    "codes",
    "volume",
    "geometry",
];

fn sources_of(room: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let mut text = String::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("each room is a folder").map(|e| e.expect("readable").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                text += &fs::read_to_string(&entry).expect("sources are UTF-8");
            }
        }
    }
    text
}

#[test]
fn arrows_point_down() {
    for (n, room) in ROOMS.iter().enumerate() {
        let sources = sources_of(room);
        for upstairs in &ROOMS[..n] {
            assert!(!sources.contains(&format!("crate::{upstairs}")), "`{room}` reaches up into `{upstairs}`");
        }
    }
}

#[test]
fn every_room_is_in_the_list_and_in_the_architecture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    for entry in fs::read_dir(root.join("src")).expect("src is there").map(|e| e.expect("readable")) {
        if entry.path().is_dir() {
            let name = entry.file_name().into_string().expect("ASCII");
            assert!(ROOMS.contains(&name.as_str()), "room `{name}` has no place in the order");
            assert!(architecture.contains(&format!("src/{name}/")), "ARCHITECTURE.md does not say what `{name}` is for");
        }
    }
}

#[test]
fn only_rooms_of_dicom_name_raw_tags() {
    for room in ROOMS.iter().filter(|r| !["dataset", "series", "results", "phantom"].contains(r)) {
        assert!(!sources_of(room).contains("tags::"), "`{room}` names a raw DICOM tag");
    }
}
