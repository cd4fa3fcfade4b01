//! Segmentations of other people as pydicom, highdicom and the NRRDs that they were made from have them.

use std::path::{Path, PathBuf};

use roentgen::geometry::Coded;
use roentgen::research::read_volume;
use roentgen::series::{GeometryPolicy, LoadedSegmentation, Refusal, Segmentation, SegmentationType, discover};
use roentgen::volume::LabelMap;
use serde_json::{Value, json};

use crate::support::{files_below, python, roentgen, root, test_data};

fn segmentation(file: &Path) -> Result<Segmentation, Refusal> {
    let found = discover(&[file.to_owned()]);
    let parts = found.series[0].parts(GeometryPolicy::Refuse);
    assert_eq!((found.series.len(), parts.len(), parts[0].is_segmentation()), (1, 1, true), "{}", file.display());
    assert_eq!(parts[0].gate().expect_err("no stack of images").code(), "series.not-a-slice");
    parts[0].segmentation()
}

fn loaded(file: &Path) -> (Segmentation, LoadedSegmentation) {
    let segmentation = segmentation(file).unwrap_or_else(|refusal| panic!("{refusal}"));
    let loaded = segmentation.load().unwrap_or_else(|error| panic!("{error}: {}", file.display()));
    (segmentation, loaded)
}

fn volume_of(loaded: &LoadedSegmentation, number: u16) -> LabelMap {
    let volume = match loaded.kind {
        SegmentationType::Fractional { .. } => loaded.fractions(number),
        _ => loaded.mask(number),
    };
    volume.expect("a loaded segment")
}

/// What we make of `file`, for the script; voxels go below `folder`.
fn reading(file: &Path, folder: &Path, n: usize) -> Value {
    let (segmentation, loaded) = loaded(file);
    let raw = |name: String, volume: &LabelMap| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, volume.voxels()).expect("writable");
        path
    };
    let one = |segment: &roentgen::series::Segment| {
        let code = |code: &Option<roentgen::codes::Code>| code.as_ref().map(|c| json!([c.value, c.scheme, c.meaning]));
        json!({
            "number": segment.number,
            "label": segment.label,
            "category": code(&segment.category),
            "property_type": code(&segment.property_type),
            "algorithm_type": segment.algorithm_type.name(),
            "tracking_uid": segment.tracking_uid,
            "raw": raw(format!("{n}-{}.raw", segment.number), &volume_of(&loaded, segment.number)),
        })
    };
    let (maximum, background) = match segmentation.kind {
        SegmentationType::Binary => (None, None),
        SegmentationType::Fractional { maximum, .. } => (Some(maximum), None),
        SegmentationType::LabelMap { background } => (None, Some(background)),
    };
    json!({
        "file": file,
        "sha256": loaded.content_sha256,
        "type": segmentation.kind.name(),
        "maximum": maximum,
        "background": background,
        "dims": segmentation.grid.dims(),
        "lps_from_voxel": segmentation.grid.lps_from_voxel().rows(),
        "labels": loaded.labels().ok().map(|labels| raw(format!("{n}-labels.raw"), &labels)),
        "segments": segmentation.segments.iter().map(one).collect::<Vec<_>>(),
    })
}

/// Compares `files` with pydicom and highdicom; returns how many were compared.
fn check(files: &[PathBuf]) -> u64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let read: Vec<Value> = files.iter().enumerate().map(|(n, file)| reading(file, folder.path(), n)).collect();
    std::fs::write(folder.path().join("read.json"), Value::from(read).to_string()).expect("writable");
    let compared = python(&root().join("tests/python/check_segmentations.py"), &[Path::new("compare"), folder.path()]);
    assert_eq!(compared.code, 0, "{}", compared.all());
    println!("{}", compared.stderr.trim_end());
    compared.json()["compared"].as_u64().expect("a count")
}

/// All that lie in the patient, voxel by voxel.
#[test]
fn as_pydicom_and_highdicom_read_them() {
    let Some(data) = test_data() else { return };
    let placed = [
        "reference_results/seg_binary.dcm",
        "reference_results/seg_labelmap.dcm",
        "seg-sr/dcmqi/24x38x3/seg/label.seg",
        "seg-sr/dcmqi/liver.dcm",
        "seg-sr/dcmqi/partial_overlaps.dcm",
        "seg-sr/dcmqi/sparse-labelmap-noppv.dcm",
        "seg-sr/dcmqi/sparse-labelmap-ppv5.dcm",
        "seg-sr/dcmqi/tid1500-pet/seg.dcm",
        "seg-sr/highdicom/seg_image_ct_binary.dcm",
        "seg-sr/highdicom/seg_image_ct_binary_fractional.dcm",
        "seg-sr/highdicom/seg_image_ct_binary_overlap.dcm",
        "seg-sr/highdicom/seg_image_ct_binary_single_frame.dcm",
        "seg-sr/highdicom/seg_image_ct_true_fractional.dcm",
    ];
    assert_eq!(check(&placed.map(|file| data.join(file))), placed.len() as u64);
}

/// Made by the script: bits that straddle bytes, numbers beyond 255, backgrounds, occupancy, gaps, every order of frames.
#[test]
fn made_by_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = python(&root().join("tests/python/check_segmentations.py"), &[Path::new("make"), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    let made = made.json();
    let good: Vec<PathBuf> =
        made["good"].as_array().expect("names").iter().map(|f| folder.path().join(f.as_str().expect("a name"))).collect();
    assert!(good.len() >= 5, "{made}");
    assert_eq!(check(&good), good.len() as u64);
    let bad = made["bad"].as_object().expect("names with codes");
    assert!(bad.len() >= 8, "{made}");
    for (file, expected) in bad {
        let code = match segmentation(&folder.path().join(file)) {
            Err(refusal) => refusal.code(),
            Ok(segmentation) => segmentation.load().map_or_else(|e| e.code(), |_| "no error"),
        };
        assert_eq!(Some(code), expected.as_str(), "{file}");
    }
}

/// What lies nowhere in the patient: a radiograph's, and tiles of a microscopy slide.
#[test]
fn without_a_place_in_the_patient() {
    let Some(data) = test_data() else { return };
    for file in ["seg_image_cr_binary.dcm", "seg_image_sm_control_labelmap_palette_color.dcm"] {
        let refusal = segmentation(&data.join("seg-sr/highdicom").join(file)).expect_err("no place");
        assert_eq!(refusal.code(), "series.no-geometry", "{refusal}");
    }
}

/// The label maps that dcmqi wrote the objects from; on their grids, so that slices without frames count, too.
#[test]
fn as_the_nrrds_they_were_made_from() {
    let Some(data) = test_data() else { return };
    let folder = data.join("seg-sr/dcmqi");
    // File, NRRD, and for each segment its value there.
    #[allow(clippy::type_complexity, reason = "a table")]
    let cases: [(&str, &str, &[(u16, i16)]); 5] = [
        ("liver.dcm", "liver_seg.nrrd", &[(1, 1)]),
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd", &[(1, 1)]),
        ("partial_overlaps.dcm", "partial_overlaps-1.nrrd", PARTIAL[0]),
        ("partial_overlaps.dcm", "partial_overlaps-2.nrrd", PARTIAL[1]),
        ("partial_overlaps.dcm", "partial_overlaps-3.nrrd", PARTIAL[2]),
    ];
    for (file, nrrd, values) in cases {
        let truth = read_volume(&folder.join(nrrd)).expect("a volume");
        let truth_voxels = truth.stored.as_int16().expect("integers").voxels();
        let (_, loaded) = loaded(&folder.join(file));
        for &(number, value) in values {
            let mask = loaded.mask_on(number, truth.grid()).unwrap_or_else(|error| panic!("{error}: {file}"));
            let differ = mask.voxels().iter().zip(truth_voxels).filter(|&(&m, &t)| (m == 1) != (t == value)).count();
            let set = mask.voxels().iter().filter(|&&m| m == 1).count();
            assert!(differ == 0 && set > 0, "{file}, segment {number}: {differ} voxels differ, {set} set");
        }
    }
    for (file, nrrd) in
        [("sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd"), ("sparse-labelmap-ppv5.dcm", "sparse_labelmap_ppv5_seg.nrrd")]
    {
        let truth = read_volume(&folder.join(nrrd)).expect("a volume");
        let (_, loaded) = loaded(&folder.join(file));
        let labels = loaded.labels_on(truth.grid()).expect("on the grid of the truth");
        let stored = truth.stored.as_int16().expect("integers").voxels();
        assert!(labels.voxels().iter().zip(stored).all(|(&l, &t)| i16::from(l) == t), "{file}");
    }
}

/// Segments of `partial_overlaps.dcm` and their values in the three label maps, which hold what does not overlap.
const PARTIAL: [&[(u16, i16)]; 3] = [&[(1, 1), (4, 4), (5, 5)], &[(2, 2)], &[(3, 3)]];

/// `inspect` says what is there, and no package takes it.
#[test]
fn inspected_and_never_run() {
    let Some(data) = test_data() else { return };
    let file = data.join("reference_results/seg_binary.dcm");
    let file = file.to_string_lossy();
    let model = crate::support::ct_tissue();
    let model = model.to_string_lossy();
    let text = roentgen(&["inspect", &file, "--model", &model]);
    assert!(text.stdout.contains("segmentation: BINARY, 3 segments on 80 x 64 x 22 voxels of 2.000 x 2.500 x 4.000 mm"), "{}", text.all());
    assert!(text.stdout.contains("would not run") && !text.stdout.contains("refused"), "{}", text.all());
    assert!(!text.stdout.contains("Right lung"), "labels are free text: {}", text.all());
    let found = roentgen(&["inspect", "--json", &file]).json();
    let study = found["patients"][0]["studies"].as_object().expect("studies").values().next().expect("one").clone();
    let geometry = &study[0]["parts"][0]["geometry"];
    assert_eq!((&geometry["verdict"], &geometry["segments"][2]["number"]), (&json!("segmentation"), &json!(3)), "{geometry}");
    let output = tempfile::tempdir().expect("a temporary folder");
    let ran = crate::support::run_ct_tissue(&[Path::new(&*file)], &output.path().join("out"));
    assert_eq!(crate::support::outcomes(&ran.json())[0].0, "not-eligible", "{}", ran.all());
    assert!(files_below(output.path()).iter().all(|f| f.extension().is_none_or(|e| e != "dcm")));
}

/// Parametric maps are images: floats, doubles and integers, with one real world value mapping or one a frame.
#[test]
fn parametric_maps_are_volumes_of_real_world_values() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = python(&root().join("tests/python/check_segmentations.py"), &[Path::new("maps"), folder.path()]);
    assert_eq!(made.code, 0, "{}", made.all());
    let maps = made.json();
    assert_eq!(maps.as_object().expect("files").len(), 5);
    for (file, raw) in maps.as_object().expect("files") {
        let truth = std::fs::read(folder.path().join(raw.as_str().expect("a name"))).expect("readable");
        let truth: Vec<f64> = truth.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes"))).collect();
        let found = discover(&[folder.path().join(file)]);
        let parts = found.series[0].parts(GeometryPolicy::Refuse);
        assert_eq!(parts[0].segmentation().expect_err("an image").code(), "segmentation.not-a-segmentation");
        let image = parts[0].gate().unwrap_or_else(|refusal| panic!("{refusal}: {file}")).load().expect("decodes").image;
        assert_eq!(image.grid().dims(), [7, 5, 4]);
        for (n, truth) in truth.into_iter().enumerate() {
            let ours = image.physical([n % 7, n / 7 % 5, n / 35]);
            // Stored values are kept as f32: half a unit in the last place of values up to 16 times a slope of 3.5, and of what is read.
            let off = (ours - truth).abs();
            assert!(off <= 4e-6, "{file}, voxel {n}: {ours} for {truth}");
        }
    }
}
