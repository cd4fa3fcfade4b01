//! Headers made byte by byte, and what becomes of them.

use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::geometry::{Coded, sub};
use crate::volume::{LabelMap, Volume};

/// A NIfTI-1 file of 3 x 2 x 2 unsigned bytes at 2 x 3 x 4 mm, sform set.
fn nifti() -> Vec<u8> {
    let mut bytes = vec![0; 352 + 12];
    put(&mut bytes, 0, &348i32.to_le_bytes());
    for (n, dim) in [3i16, 3, 2, 2, 1, 1, 1, 1].iter().enumerate() {
        put(&mut bytes, 40 + 2 * n, &dim.to_le_bytes());
    }
    put(&mut bytes, 70, &2i16.to_le_bytes());
    put(&mut bytes, 72, &8i16.to_le_bytes());
    floats(&mut bytes, 76, &[1.0, 2.0, 3.0, 4.0]);
    floats(&mut bytes, 108, &[352.0, 0.0, 0.0]);
    bytes[123] = 2;
    put(&mut bytes, 254, &1i16.to_le_bytes());
    floats(&mut bytes, 280, &[2.0, 0.0, 0.0, 10.0, 0.0, 3.0, 0.0, 20.0, 0.0, 0.0, 4.0, 30.0]);
    put(&mut bytes, 344, b"n+1\0");
    (0..12).for_each(|n| bytes[352 + n] = n as u8);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn floats(bytes: &mut [u8], at: usize, values: &[f32]) {
    values.iter().enumerate().for_each(|(n, v)| put(bytes, at + 4 * n, &v.to_le_bytes()));
}

fn nrrd(change: impl Fn(&str) -> String) -> Vec<u8> {
    let header = "NRRD0004\n# no comment\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 3 2 2\n\
                  space directions: (2,0,0) (0,3,0) (0,0,4)\nkinds: domain domain domain\nendian: little\nencoding: raw\n\
                  space origin: (10,20,30)\nspace units: \"mm\" \"mm\" \"mm\"\nkey:=value: with a colon\n\n";
    let mut bytes = change(header).into_bytes();
    bytes.extend((0..12i16).flat_map(|n| (n * 1000 - 5000).to_le_bytes()));
    bytes
}

fn written(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn read(name: &str, bytes: &[u8]) -> Result<ResearchVolume, ResearchError> {
    let (_folder, path) = written(name, bytes);
    read_volume(&path)
}

fn int16(volume: &ResearchVolume) -> &[i16] {
    volume.stored.as_int16().expect("integers").voxels()
}

/// A NIfTI header with `change`, and the code of the refusal.
fn refused(code: &str, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = nifti();
    change(&mut bytes);
    match read("a.nii", &bytes) {
        Err(error) => assert_eq!(error.code(), code, "{error}"),
        Ok(volume) => panic!("expected {code}, read {volume:?}"),
    }
}

#[test]
fn nifti_is_read_into_lps() {
    let volume = read("a.nii", &nifti()).unwrap();
    assert_eq!(int16(&volume), (0..12).collect::<Vec<_>>());
    assert_eq!(volume.grid().dims(), [3, 2, 2]);
    assert_eq!(volume.grid().lps_from_voxel().rows(), [[-2., 0., 0., -10.], [0., -3., 0., -20.], [0., 0., 4., 30.]]);
    assert_eq!(volume.grid().orientation().to_string(), "RAS");
    assert_eq!(volume.rescale, Rescale { slope: 1.0, intercept: 0.0 });
    assert_eq!(volume.sha256, crate::codes::sha256_hex(&nifti()));
    assert!(volume.notes.is_empty(), "{:?}", volume.notes);
}

#[test]
fn nifti_refusals() {
    refused("research.no-orientation", |b| put(b, 254, &[0, 0]));
    refused("research.volumes", |b| put(b, 40, &[4, 0, 3, 0, 2, 0, 1, 0, 2, 0]));
    refused("research.unsupported", |b| put(b, 40, &[5, 0, 3, 0, 2, 0, 1, 0, 1, 0, 2, 0]));
    refused("research.unsupported", |b| put(b, 70, &128i16.to_le_bytes()));
    refused("research.unsupported", |b| put(b, 70, &32i16.to_le_bytes()));
    refused("research.unsupported", |b| put(b, 344, &[0; 4]));
    refused("research.header", |b| put(b, 70, &77i16.to_le_bytes()));
    refused("research.header", |b| put(b, 42, &(-3i16).to_le_bytes()));
    refused("research.header", |b| floats(b, 112, &[f32::INFINITY]));
    refused("research.header", |b| floats(b, 112, &[2.0, f32::NAN]));
    refused("research.header", |b| floats(b, 108, &[350.0]));
    refused("research.header", |b| floats(b, 108, &[f32::NAN]));
    refused("research.header", |b| b[123] = 5);
    refused("research.geometry", |b| floats(b, 280, &[0.0; 4]));
    refused("research.geometry", |b| floats(b, 280, &[f32::NAN]));
    refused("research.truncated", |b| b.truncate(363));
    refused("research.truncated", |b| b.truncate(300));
    refused("research.foreign", |b| b[0] = 7);
    refused("research.too-large", |b| [42, 44, 46].iter().for_each(|&at| put(b, at, &i16::MAX.to_le_bytes())));
    refused("research.truncated", |b| [42, 44].iter().for_each(|&at| put(b, at, &i16::MAX.to_le_bytes())));
    refused("research.surplus", |b| b.extend(vec![0; 70_000]));
}

#[test]
fn trailing_bytes_and_unknown_units_are_noted() {
    let mut bytes = nifti();
    bytes.push(0);
    bytes[123] = 0;
    let notes = read("a.nii", &bytes).unwrap().notes;
    assert!(notes.iter().any(|n| n.contains("no unit of length")) && notes.iter().any(|n| n.starts_with("1 bytes after")), "{notes:?}");
}

/// Sets the qform to half a turn about z and a shift from the sform's place, in mm; `half_turn` makes it the sform's own directions.
fn with_qform(bytes: &mut [u8], sform_code: i16, turned: bool, shift: f32) {
    put(bytes, 252, &1i16.to_le_bytes());
    put(bytes, 254, &sform_code.to_le_bytes());
    floats(bytes, 256, &[0.0, 0.0, if turned { 1.0 } else { 0.0 }]);
    floats(bytes, 268, &[10.0 + shift, 20.0, 30.0]);
}

#[test]
fn two_transforms_must_agree_where_programs_differ() {
    let check = |sform_code, turned, shift, expected: Result<usize, &str>| {
        let mut bytes = nifti();
        with_qform(&mut bytes, sform_code, turned, shift);
        match (read("a.nii", &bytes), expected) {
            (Ok(volume), Ok(notes)) => {
                assert_eq!(volume.notes.len(), notes, "{:?}", volume.notes);
                assert_eq!(volume.grid().lps_from_voxel().column(3), [-10., -20., 30.], "the sform counts");
            }
            (Err(error), Err(code)) => assert_eq!(error.code(), code),
            (got, _) => panic!("sform code {sform_code}, turned {turned}, shift {shift}: {got:?}"),
        }
    };
    check(1, false, 0.0, Ok(0));
    check(1, false, 0.005, Ok(0));
    check(1, false, 5.0, Ok(1)); // both nibabel and ITK take the sform
    check(2, false, 0.015, Ok(1)); // below 1 % of the spacing
    check(2, false, 5.0, Err("research.transforms-disagree")); // ITK takes the qform
    check(1, true, 0.0, Err("research.transforms-disagree")); // another side of the patient
}

#[test]
fn qfac_turns_the_third_axis_round() {
    let mut bytes = nifti();
    with_qform(&mut bytes, 0, false, 0.0);
    floats(&mut bytes, 76, &[-1.0]);
    let grid = read("a.nii", &bytes).unwrap().grid().to_owned();
    assert_eq!(grid.lps_from_voxel().rows(), [[-2., 0., 0., -10.], [0., -3., 0., -20.], [0., 0., -4., 30.]]);
    floats(&mut bytes, 76, &[0.5]);
    assert_eq!(read("a.nii", &bytes).unwrap_err().code(), "research.header");
}

#[test]
fn metres_and_micrometres() {
    for (unit, mm) in [(1, 1e3), (3, 1e-3)] {
        let mut bytes = nifti();
        bytes[123] = unit;
        let spacing_mm = read("a.nii", &bytes).unwrap().grid().spacing_mm();
        assert!(norm_of(sub(spacing_mm, [2.0 * mm, 3.0 * mm, 4.0 * mm])) < 1e-9, "{spacing_mm:?}");
    }
}

fn norm_of(v: [f64; 3]) -> f64 {
    crate::geometry::norm(v)
}

#[test]
fn unsigned_values_above_32767_are_shifted_and_scaled_back() {
    let mut bytes = nifti();
    put(&mut bytes, 70, &512i16.to_le_bytes());
    put(&mut bytes, 72, &16i16.to_le_bytes());
    floats(&mut bytes, 112, &[2.0, -10.0]);
    bytes.truncate(352);
    bytes.extend([0u16, 1, 65535, 32768, 5, 6, 7, 8, 9, 10, 11, 12].iter().flat_map(|v| v.to_le_bytes()));
    let volume = read("a.nii", &bytes).unwrap();
    let Rescale { slope, intercept } = volume.rescale;
    let physical: Vec<f64> = int16(&volume).iter().map(|&v| slope * f64::from(v) + intercept).collect();
    assert_eq!(physical[..4], [-10.0, -8.0, 131_060.0, 65_526.0]);
}

#[test]
fn wide_values_become_floats_and_say_what_was_lost() {
    let wide = |datatype: i16, bits: i16, values: Vec<u8>| {
        let mut bytes = nifti();
        put(&mut bytes, 70, &datatype.to_le_bytes());
        put(&mut bytes, 72, &bits.to_le_bytes());
        bytes.truncate(352);
        bytes.extend(values);
        read("a.nii", &bytes)
    };
    let i32s = |last: i32| (0..11).chain([last]).flat_map(|v: i32| v.to_le_bytes()).collect();
    assert_eq!(int16(&wide(8, 32, i32s(-32768)).unwrap())[11], -32768);
    let exact = wide(8, 32, i32s(1 << 24)).unwrap();
    let floats: Vec<f32> = (0..11u16).map(f32::from).chain([16_777_216.0]).collect();
    assert_eq!(exact.stored.as_float32().expect("floats").voxels(), floats);
    assert!(exact.notes.is_empty(), "{:?}", exact.notes);
    let rounded = wide(8, 32, i32s((1 << 24) + 1)).unwrap();
    assert_eq!(rounded.notes, ["1 stored values were rounded to 32-bit floats, by at most 1e0"]);
    let doubles = |last: f64| (0..11).map(f64::from).chain([last]).flat_map(|v: f64| v.to_le_bytes()).collect();
    for (value, counts) in [(f64::NAN, [1, 0, 0]), (f64::INFINITY, [0, 1, 0]), (1e300, [0, 0, 1])] {
        match wide(64, 64, doubles(value)) {
            Err(ResearchError::NotFinite { nan, infinite, beyond, .. }) => assert_eq!([nan, infinite, beyond], counts),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nrrd_is_read_into_lps() {
    let volume = read("a.nrrd", &nrrd(str::to_owned)).unwrap();
    assert_eq!(int16(&volume), (0..12).map(|n| n * 1000 - 5000).collect::<Vec<_>>());
    assert_eq!(volume.grid().lps_from_voxel().rows(), [[-2., 0., 0., -10.], [0., -3., 0., -20.], [0., 0., 4., 30.]]);
    assert!(volume.notes.is_empty(), "{:?}", volume.notes);
    let las = read("a.nrrd", &nrrd(|h| h.replace("right-anterior-superior", "LAS").replace('\n', "\r\n"))).unwrap();
    assert_eq!(las.grid().lps_from_voxel().rows(), [[2., 0., 0., 10.], [0., -3., 0., -20.], [0., 0., 4., 30.]]);
}

#[test]
fn nrrd_refusals() {
    let check = |code: &str, from: &str, to: &str| {
        assert!(nrrd(str::to_owned) != nrrd(|h| h.replace(from, to)), "{from} is not there");
        match read("a.nrrd", &nrrd(|h| h.replace(from, to))) {
            Err(error) => assert_eq!(error.code(), code, "{to}: {error}"),
            Ok(volume) => panic!("{to}: expected {code}, read {volume:?}"),
        }
    };
    check("research.no-orientation", "space: right-anterior-superior\n", "");
    check("research.no-orientation", "right-anterior-superior", "scanner-xyz");
    check("research.no-orientation", "space directions", "spacings");
    check("research.header", "right-anterior-superior", "somewhere");
    check("research.header", "sizes: 3 2 2", "sizes: 3 2 2 2");
    check("research.header", "endian: little\n", "");
    check("research.header", "type: short\n", "type: short\ntype: short\n");
    check("research.header", "(2,0,0)", "(2,0)");
    check("research.header", "(2,0,0)", "(2,0,nan)");
    check("research.geometry", "(2,0,0)", "(0,3,0)");
    check("research.unsupported", "encoding: raw", "encoding: bzip2");
    check("research.unsupported", "encoding: raw", "encoding: raw\ndata file: ../a.raw");
    check("research.unsupported", "encoding: raw", "encoding: raw\ndata file: /etc/passwd");
    check("research.unsupported", "encoding: raw", "encoding: raw\ndata file: a%03d.raw 1 9 1");
    check("research.io", "encoding: raw", "encoding: raw\ndata file: none.raw");
    check("research.damaged", "encoding: raw", "encoding: gzip");
    check("research.damaged", "encoding: raw", "encoding: ascii");
    check("research.truncated", "sizes: 3 2 2", "sizes: 3 2 3");
    check("research.too-large", "sizes: 3 2 2", "sizes: 3 2000000000 2000000000");
    check("research.header", "\"mm\" \"mm\" \"mm\"", "\"mm\" \"m\" \"mm\"");
    let list =
        |h: &str| h.replace("dimension: 3", "dimension: 4").replace("sizes: ", "sizes: 1 ").replace("directions: ", "directions: none ");
    assert_eq!(read("a.nrrd", &nrrd(list)).unwrap_err().code(), "research.header", "kinds are of 3 axes");
    let one = |h: &str| list(h).replace("kinds: ", "kinds: list ");
    assert_eq!(int16(&read("a.nrrd", &nrrd(one)).unwrap())[0], -5000);
    let two = |h: &str| one(h).replace("sizes: 1 ", "sizes: 2 ");
    assert_eq!(read("a.nrrd", &nrrd(two)).unwrap_err().code(), "research.volumes");
    let vector = |h: &str| two(h).replace("list", "vector");
    assert_eq!(read("a.nrrd", &nrrd(vector)).unwrap_err().code(), "research.unsupported");
}

#[test]
fn gzip_bombs_and_broken_streams() {
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, bytes).unwrap();
        gzip.finish().unwrap()
    };
    assert_eq!(int16(&read("a.nii.gz", &gzip(&nifti())).unwrap()).len(), 12);
    let mut bomb = nifti();
    bomb.extend(vec![0; 64 << 20]);
    assert_eq!(read("a.nii.gz", &gzip(&bomb)).unwrap_err().code(), "research.surplus");
    let mut promised = nifti();
    [42, 44].iter().for_each(|&at| put(&mut promised, at, &i16::MAX.to_le_bytes()));
    assert_eq!(read("a.nii.gz", &gzip(&promised)).unwrap_err().code(), "research.truncated");
    let mut wrong = gzip(&nifti());
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    assert_eq!(read("a.nii.gz", &wrong).unwrap_err().code(), "research.damaged");
    let whole = gzip(&nifti());
    assert_eq!(read("a.nii.gz", &whole[..whole.len() - 30]).unwrap_err().code(), "research.damaged");
}

#[test]
fn label_maps_come_back_as_they_were() {
    let oblique = Affine::from_columns([0.48, 0.64, 0.0], [0.0, 0.0, -0.8], [-1.2, 0.9, 0.0], [-100.5, 33.25, 812.0]);
    let sheared = Affine::from_columns([0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 1.0, 3.0], [1.0, 2.0, 3.0]);
    for (axes, transforms) in [(oblique, 2), (sheared, 1)] {
        let grid = Grid::new([7, 5, 3], axes).unwrap();
        let labels: LabelMap = Volume::new(grid, (0..105).collect());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.nii.gz");
        write_label_nifti(&path, &labels).unwrap();
        let first = std::fs::read(&path).unwrap();
        let header = header_of_file(&path);
        assert_eq!([252, 254].iter().filter(|&&at| header[at] == 1).count(), transforms);
        let volume = read_volume(&path).unwrap();
        assert_eq!(int16(&volume), (0..105).collect::<Vec<i16>>());
        assert!(volume.grid().matches(&grid, 1e-4), "{:?}", volume.grid());
        assert!(volume.notes.is_empty(), "{:?}", volume.notes);
        write_label_nifti(&path, &labels).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first, "the same bytes each time");
    }
}

fn header_of_file(path: &Path) -> Vec<u8> {
    let mut header = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut header).unwrap();
    header.truncate(352);
    header
}

proptest! {
    /// Whatever stands in a header: no panic, and never more voxels than the file has bytes for.
    #[test]
    fn mutated_nifti_headers(
        changes in prop::collection::vec((0usize..364, any::<u8>()), 1..12),
        big in any::<bool>(),
        length in 0usize..=364,
        cut in any::<bool>(),
    ) {
        let mut bytes = nifti();
        if big {
            bytes[..4].reverse();
        }
        changes.iter().for_each(|&(at, value)| bytes[at] = value);
        if cut {
            bytes.truncate(length);
        }
        if let Ok(volume) = read("a.nii", &bytes) {
            prop_assert!(volume.grid().voxel_count() <= bytes.len());
        }
    }

    #[test]
    fn mutated_nrrd_headers(changes in prop::collection::vec((0usize..400, prop::sample::select(b"\n :(),-0123456789nabe\"\x00\xFF".to_vec())), 1..6)) {
        let mut bytes = nrrd(str::to_owned);
        for &(at, value) in &changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(volume) = read("a.nrrd", &bytes) {
            prop_assert!(volume.grid().voxel_count() <= bytes.len());
        }
    }

    #[test]
    fn any_bytes_after_a_magic(bytes in prop::collection::vec(any::<u8>(), 0..700), kind in 0usize..4) {
        let start: [&[u8]; 4] = [&[0x5C, 1, 0, 0], &[0x1C, 2, 0, 0, b'n', b'+', b'2', 0], b"NRRD0005\n", &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3]];
        let _ = read("a", &[start[kind], &bytes].concat());
    }
}
