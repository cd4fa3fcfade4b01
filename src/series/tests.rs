//! Series made in code, through files, the gate and into a volume.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::dataset::DatasetError;
use crate::dataset::testing::{Slice, slice};
use crate::geometry::{Coded, cross, norm, sub};
use crate::volume::{Quantity, Rescale};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn stack_of(slices: &[Slice]) -> Result<Stack, Refusal> {
    let series = Series::new(slices.iter().map(Slice::instance).collect());
    stack_in(&series)
}

/// The first part, which is the slices where there are any.
fn stack_in(series: &Series) -> Result<Stack, Refusal> {
    series.parts(GeometryPolicy::Refuse)[0].gate()
}

fn codes(refusal: &Refusal) -> Vec<&'static str> {
    refusal.reasons.iter().map(Coded::code).collect()
}

/// Changes five ordinary slices, and expects these reasons and no others.
fn check(change: impl Fn(&mut Vec<Slice>), expected: &[&str]) {
    let mut slices: Vec<Slice> = (0..5).map(slice).collect();
    change(&mut slices);
    let found = stack_of(&slices).map(|_| ()).map_err(|r| codes(&r));
    assert_eq!(found.err().unwrap_or_default(), expected);
}

#[test]
fn each_rule_has_its_reason() {
    check(|_| {}, &[]);
    check(|s| s.reverse(), &[]);
    check(|s| drop(s.remove(2)), &["series.missing-slices"]);
    check(|s| s.truncate(1), &["series.too-few-slices"]);
    check(|s| s[3].position_mm = s[2].position_mm, &["series.shared-positions", "series.missing-slices"]);
    check(|s| s[3].orientation = [0., 1., 0., 0., 0., -1.], &["series.mixed-orientations"]);
    check(|s| s[3].orientation = [1.00005, 0., 0., 0., 1., 0.], &[]);
    check(|s| s.iter_mut().for_each(|s| s.orientation = [1., 0., 0., 0.01, 1., 0.]), &["series.bad-orientation"]);
    check(|s| s[3].spacing_mm = [0.7, 0.51], &["series.mixed-pixel-spacing"]);
    check(|s| s.iter_mut().for_each(|s| s.spacing_mm = [0.7, 0.0]), &["series.bad-pixel-spacing"]);
    check(|s| (s[3].rows, s[3].columns) = (3, 4), &["series.mixed-sizes"]);
    check(|s| s[3].pixels = None, &["series.pixels"]);
    check(|s| s[3].intercept = None, &["series.no-rescale"]);
    check(|s| s[4].image_type = "ORIGINAL\\PRIMARY\\LOCALIZER".into(), &[]);
    check(|s| s[3].image_type = "ORIGINAL\\PRIMARY\\LOCALIZER".into(), &["series.missing-slices"]);
    check(|s| s.iter_mut().for_each(|s| s.image_type = "ORIGINAL\\PRIMARY\\LOCALIZER".into()), &["series.localizer"]);
    check(|s| s[3].position_mm[2] += 0.3, &["series.uneven-spacing"]);
    check(|s| s.iter_mut().for_each(|s| s.position_mm[1] += s.position_mm[2] / 3.0), &["series.sheared"]);
    check(|s| s[3].sop_class = "1.2.840.10008.5.1.4.1.1.7".into(), &["series.missing-slices"]);
    check(|s| s.iter_mut().for_each(|s| s.sop_class = "1.2.840.10008.5.1.4.1.1.88.33".into()), &["series.not-a-slice"]);
    check(|s| s[3].patient_id = "P2".into(), &["series.mixed-patients"]);
    check(|s| s[3].patient_id = "P1 ".into(), &[]);
    check(|s| s[3].study_uid = "1.2.9".into(), &["series.mixed-studies"]);
    check(|s| s[3].sop_uid = String::new(), &["series.no-sop-instance-uid"]);
}

#[test]
fn all_reasons_are_given_with_numbers_and_no_patient() {
    let mut slices: Vec<Slice> = (0..6).map(slice).collect();
    slices.remove(2);
    slices.iter_mut().for_each(|s| s.position_mm[1] -= s.position_mm[2] * 0.2f64.tan());
    slices[0].intercept = None;
    let text = stack_of(&slices).expect_err("it is sheared, with a gap").to_string();
    for part in [
        "no Rescale Slope and Intercept, so the physical values of the CT are unknown (1 of 5 frames)",
        "gap of 4.000 mm after slice 1, expected 2.000 mm",
        "11.46 degrees",
        "(series 1.2.3.4)",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("PHANTOM") && !text.contains("P1"), "{text}");
}

#[test]
fn the_grid_comes_from_positions_not_thickness() {
    let slices: Vec<Slice> = (0..5).map(slice).collect();
    let stack = stack_of(&slices).expect("it is regular");
    assert_eq!(stack.grid.dims(), [3, 4, 5], "columns, rows, slices");
    // Pixel Spacing is (between rows, between columns) = (0.7, 0.5); Slice Thickness says 99.
    assert_eq!(stack.grid.spacing_mm(), [0.5, 0.7, 2.0]);
    assert_eq!(stack.grid.lps_from_voxel().column(3), [-10., -20., 0.]);
    assert_eq!(stack.quantity, Quantity::Hounsfield);
}

/// A rotation from Euler angles, as its columns.
fn rotation([a, b, c]: [f64; 3]) -> [[f64; 3]; 2] {
    let (sa, ca, sb, cb, sc, cc) = (a.sin(), a.cos(), b.sin(), b.cos(), c.sin(), c.cos());
    [[ca * cb, sa * cb, -sb], [ca * sb * sc - sa * cc, sa * sb * sc + ca * cc, cb * sc]]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_oblique_stack_in_any_order_lands_where_it_was(
        angles in prop::array::uniform3(-3.1..3.1f64),
        origin in prop::array::uniform3(-300.0..300.0f64),
        spacing in prop::array::uniform3(0.2..8.0f64),
        order in Just((0..7usize).collect::<Vec<_>>()).prop_shuffle(),
        voxel in prop::array::uniform3(0..3u32),
    ) {
        let [row, column] = rotation(angles);
        let normal = cross(row, column);
        let along = |d: [f64; 3], by: f64| d.map(|v| v * by);
        let add = |a: [f64; 3], b: [f64; 3]| std::array::from_fn::<f64, 3, _>(|n| a[n] + b[n]);
        let slices: Vec<Slice> = order.iter().enumerate().map(|(number, &k)| {
            let mut s = slice(number as u32);
            s.orientation = [row[0], row[1], row[2], column[0], column[1], column[2]];
            s.position_mm = add(origin, along(normal, k as f64 * spacing[2]));
            s.spacing_mm = [spacing[1], spacing[0]];
            s
        }).collect();
        let stack = stack_of(&slices).expect("it is regular");
        let [i, j, k] = voxel.map(f64::from);
        let known = add(add(origin, along(row, i * spacing[0])), add(along(column, j * spacing[1]), along(normal, k * spacing[2])));
        let found = stack.grid.lps_from_voxel().apply([i, j, k]);
        prop_assert!(norm(sub(found, known)) < 1e-9, "{found:?} is not {known:?}");
        prop_assert!(stack.grid.lps_from_voxel().determinant() > 0.0, "k follows the normal");
        for (k, frame) in stack.frames.iter().enumerate() {
            prop_assert_eq!(order[frame.instance.instance_number.expect("it has one") as usize], k);
        }
    }

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<Option<prop::sample::Index>>()) {
        let folder = folder();
        let mut bytes = slice(3).bytes();
        for (at, value) in changes {
            // The first bytes are a preamble, which nothing reads.
            let at = 128 + at.index(bytes.len() - 128);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        std::fs::write(folder.path().join("a"), bytes).expect("temporary folder takes a file");
        slice(4).write(folder.path(), "b");
        for series in discover(&[folder.path().into()]).series {
            for part in series.parts(GeometryPolicy::Resample) {
                if let Ok(stack) = part.gate() {
                    let _ = stack.load();
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), preamble in any::<bool>()) {
        let folder = folder();
        let start = if preamble { [vec![0; 128], b"DICM".to_vec()].concat() } else { Vec::new() };
        std::fs::write(folder.path().join("a"), [start, bytes].concat()).expect("temporary folder takes a file");
        let found = discover(&[folder.path().into()]);
        prop_assert_eq!(found.series.len() + found.skipped.len(), 1);
    }
}

#[test]
fn a_folder_becomes_a_volume() {
    let folder = folder();
    for n in [2, 0, 3, 1] {
        slice(n).write(folder.path(), &format!("some name {}", 9 - n));
    }
    let found = discover(&[folder.path().into(), folder.path().join("some name 9")]);
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    let [series] = found.series.as_slice() else { panic!("one series, not {}", found.series.len()) };
    assert!(series.warnings.is_empty(), "{:?}", series.warnings);
    let stack = stack_in(series).expect("it is regular");
    let loaded = stack.load().expect("files are whole");
    for k in 0..4 {
        assert!(loaded.image.stored.as_int16().expect("integers").slice(k).iter().all(|&v| v == k as i16), "slice {k}");
    }
    assert_eq!(loaded.image.rescale, [Rescale { slope: 1.0, intercept: -1024.0 }; 4]);
    let files = stack.frames.iter().map(|f| std::fs::read(&f.instance.path).expect("it is there"));
    assert_eq!(loaded.content_sha256(), files.map(|bytes| crate::codes::sha256_hex(&bytes)).collect::<Vec<_>>());
}

#[test]
fn sixteen_unsigned_bits_come_back_through_the_intercept() {
    let folder = folder();
    for n in 0..2 {
        let mut s = slice(n);
        s.bits_stored = 16;
        s.pixels = Some([0u16, 1, 32767, 32768, 65535, 7, 8, 9, 10, 11, 12, 13].iter().flat_map(|v| v.to_le_bytes()).collect());
        s.write(folder.path(), &n.to_string());
    }
    let found = discover(&[folder.path().into()]);
    let loaded = stack_in(&found.series[0]).expect("it is regular").load().expect("files are whole");
    let physical = |i: usize| loaded.image.physical([i % 3, i / 3, 0]);
    assert_eq!([physical(0), physical(2), physical(3), physical(4)], [-1024., 31743., 31744., 64511.]);
}

#[test]
fn fractional_slopes_are_kept() {
    let folder = folder();
    for n in 0..2 {
        let mut s = slice(n);
        s.more = vec![
            dicom::core::DataElement::new(crate::dataset::tags::RESCALE_SLOPE, dicom::core::VR::DS, "0.003"),
            dicom::core::DataElement::new(crate::dataset::tags::RESCALE_INTERCEPT, dicom::core::VR::DS, "-1.5"),
        ];
        s.pixels = Some((0u16..12).flat_map(|v| (v * 300).to_le_bytes()).collect());
        s.write(folder.path(), &n.to_string());
    }
    let found = discover(&[folder.path().into()]);
    let loaded = stack_in(&found.series[0]).expect("it is regular").load().expect("files are whole");
    // 300 * 0.003 - 1.5 and 3300 * 0.003 - 1.5.
    assert!((loaded.image.physical([1, 0, 0]) + 0.6).abs() < 1e-12 && (loaded.image.physical([2, 3, 1]) - 8.4).abs() < 1e-12);
}

fn load_error(change: impl FnOnce(&Path)) -> SeriesError {
    let folder = folder();
    (0..3).for_each(|n| drop(slice(n).write(folder.path(), &n.to_string())));
    let found = discover(&[folder.path().into()]);
    let stack = stack_in(&found.series[0]).expect("it is regular");
    change(&folder.path().join("1"));
    stack.load().expect_err("one file is bad")
}

#[test]
fn damage_to_pixels_is_found_when_they_are_loaded() {
    let cut = |path: &Path| std::fs::write(path, &slice(1).bytes()[..slice(1).bytes().len() - 5]).expect("writable");
    let SeriesError::Slice { index: 1, error: DatasetError::PixelLength { expected: 24, found: 19, .. }, .. } = load_error(cut) else {
        panic!("not the truncation of slice 1")
    };
    let longer = |path: &Path| {
        let mut s = slice(1);
        s.pixels = s.pixels.map(|p| [p, vec![0; 6]].concat());
        s.write(path.parent().expect("in a folder"), "1");
    };
    assert_eq!(load_error(longer).code(), "dataset.changed");
    let moved = |path: &Path| {
        let mut s = slice(1);
        s.position_mm[0] += 1.0;
        s.write(path.parent().expect("in a folder"), "1");
    };
    assert_eq!(load_error(moved).code(), "dataset.changed");
    assert_eq!(load_error(|path| std::fs::remove_file(path).expect("it is there")).code(), "dataset.io");
}

#[test]
fn what_is_no_instance_is_listed_and_the_rest_goes_on() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("deep")).expect("writable");
    slice(0).write(&folder.path().join("deep"), "whole");
    std::fs::write(folder.path().join("notes.txt"), "no image").expect("writable");
    std::fs::write(folder.path().join("empty"), "").expect("writable");
    std::fs::write(folder.path().join("short"), &slice(1).bytes()[..400]).expect("writable");
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("deep/loop")).expect("writable");
    let absent = PathBuf::from("no/such/folder");
    let found = discover(&[folder.path().into(), absent]);
    assert_eq!(found.series.len(), 1);
    let listed: Vec<_> =
        found.skipped.iter().map(|s| (s.path.file_name().and_then(|n| n.to_str()).unwrap_or(""), s.error.code())).collect();
    let expected =
        [("empty", "dataset.not-dicom"), ("notes.txt", "dataset.not-dicom"), ("short", "dataset.truncated"), ("folder", "dataset.io")];
    assert_eq!(listed.len(), expected.len(), "{listed:?}");
    assert!(expected.iter().all(|e| listed.contains(e)), "{listed:?}");
}

#[test]
fn an_empty_folder_has_nothing() {
    let folder = folder();
    let found = discover(&[folder.path().into()]);
    assert!(found.series.is_empty() && found.skipped.is_empty());
}

#[test]
fn copies_are_dropped_and_conflicts_refused() {
    let folder = folder();
    (0..3).for_each(|n| drop(slice(n).write(folder.path(), &n.to_string())));
    slice(1).write(folder.path(), "copy");
    let found = discover(&[folder.path().into()]);
    assert_eq!(found.series[0].warnings, ["1 files are copies of other instances and were left out"]);
    assert!(stack_in(&found.series[0]).is_ok());

    let mut other = slice(1);
    other.pixels = other.pixels.map(|p| vec![9; p.len()]);
    other.write(folder.path(), "copy");
    let found = discover(&[folder.path().into()]);
    let refusal = stack_in(&found.series[0]).expect_err("two contents of one instance");
    assert_eq!(codes(&refusal)[0], "series.conflicting-copies");
}

#[test]
fn missing_uids_are_derived_from_the_instances() {
    let folder = folder();
    for name in ["a", "b"] {
        std::fs::create_dir(folder.path().join(name)).expect("writable");
        for n in 0..3 {
            let mut s = slice(n);
            (s.study_uid, s.series_uid) = (String::new(), String::new());
            s.sop_uid = format!("{}.{}", s.sop_uid, name.len() + usize::from(name == "b"));
            s.write(&folder.path().join(name), &n.to_string());
        }
    }
    let found = discover(&[folder.path().into()]);
    assert_eq!(found.series.len(), 2, "one a folder");
    assert_ne!(found.series[0].series_uid, found.series[1].series_uid);
    for series in &found.series {
        assert!(series.series_uid.starts_with("2.25.") && series.study_uid.starts_with("2.25."));
        assert_ne!(series.series_uid, series.study_uid);
        assert_eq!(series.warnings.len(), 2, "{:?}", series.warnings);
    }
}

/// A zip of a series, a text and a damaged file.
fn zipped(folder: &Path) -> PathBuf {
    use std::io::Write;
    let path = folder.join("study.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("writable"));
    let options = zip::write::SimpleFileOptions::default();
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(name, options).expect("an entry");
        zip.write_all(bytes).expect("writable");
    };
    (0..3).for_each(|n| add(&format!("DOE^JOHN/{n}"), &slice(n).bytes()));
    add("DOE^JOHN/notes.txt", b"no image");
    add("DOE^JOHN/short", &slice(3).bytes()[..400]);
    zip.finish().expect("writable");
    path
}

#[test]
fn archives_are_read_like_folders_and_name_no_patient() {
    let folder = folder();
    let path = zipped(folder.path());
    for input in [path.clone(), folder.path().into()] {
        let found = discover(&[input]);
        let [series] = found.series.as_slice() else { panic!("one series, not {}", found.series.len()) };
        let loaded = stack_in(series).expect("it is regular").load().expect("the files are there as long as what was found");
        assert_eq!(loaded.image.grid().dims()[2], 3);
        let listed: Vec<_> = found.skipped.iter().map(|s| (s.path.clone(), s.error.code())).collect();
        let entry = |n: usize| PathBuf::from(format!("{}!entry {n}", path.display()));
        assert_eq!(listed, [(entry(4), "dataset.not-dicom"), (entry(5), "dataset.truncated")]);
        assert!(found.skipped.iter().all(|s| !s.error.to_string().contains("DOE")), "{:?}", found.skipped);
    }
}

#[test]
fn researchers_volumes_are_found_beside_series() {
    let folder = folder();
    (0..3).for_each(|n| drop(slice(n).write(folder.path(), &n.to_string())));
    let grid = crate::geometry::Grid::new([4, 3, 2], crate::geometry::Affine::IDENTITY).expect("a grid");
    crate::research::write_label_nifti(&folder.path().join("labels.nii.gz"), &crate::volume::Volume::new(grid, vec![1; 24]))
        .expect("writable");
    std::fs::write(folder.path().join("broken.nrrd"), "NRRD0005\ntype: nonsense\n\n").expect("writable");
    let found = discover(&[folder.path().into()]);
    assert_eq!((found.series.len(), found.volumes.len()), (1, 1));
    assert!(found.volumes[0].header.grid.matches(&grid, 1e-6));
    assert_eq!(found.skipped.len(), 1, "{:?}", found.skipped);
}
