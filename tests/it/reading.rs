//! Real files, through `discover`, the gate and `load`. Other people's data, so it is found outside the project and may be absent.

use std::path::{Path, PathBuf};
use std::process::Command;

use roentgen::dataset::{Instance, Place, StoredAs, read_frames};
use roentgen::geometry::{Coded, norm, sub};
use roentgen::series::{Discovery, GeometryPolicy, Refusal, Series, Stack, discover};
use sha2::{Digest, Sha256};

/// The folder of real data, said aloud when it is absent.
fn data(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let folder = std::env::var_os("ROENTGEN_TEST_DATA").map_or(beside, PathBuf::from).join(name);
    if !folder.exists() {
        println!("skipped: no test data ({name})");
        return None;
    }
    Some(folder)
}

/// A packed folder, unpacked for as long as the guard lives.
fn unpacked(name: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let archive = data(name)?;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let done = Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(folder.path()).status();
    if !done.is_ok_and(|status| status.success()) {
        println!("skipped: no tar with xz ({name})");
        return None;
    }
    let path = folder.path().into();
    Some((folder, path))
}

fn gate(series: &Series) -> Result<Stack, Refusal> {
    series.parts(GeometryPolicy::Refuse)[0].gate()
}

fn codes(series: &Series) -> Vec<&'static str> {
    gate(series).err().map_or_else(Vec::new, |r| r.reasons.iter().map(Coded::code).collect())
}

/// One line a series, for people: what it is and what the gate says.
fn table(found: &Discovery) -> String {
    let line = |s: &Series| {
        let verdict =
            gate(s).map_or_else(|r| format!("refused: {r}"), |k| format!("{:?} {:?} {:?}", k.grid.dims(), k.grid.spacing_mm(), k.notes));
        format!("  {} {} instances: {verdict}\n", s.modality, s.instances.len())
    };
    let skipped = |s: &roentgen::series::Skipped| format!("  skipped {}: {}\n", s.error.code(), s.error);
    found.series.iter().map(line).chain(found.skipped.iter().map(skipped)).collect()
}

/// What an independent reader says of a volume.
struct Expected {
    dims: [u32; 3],
    /// LPS of voxel (0, 0, 0) and of the last voxel, mm.
    corners_mm: [[f64; 3]; 2],
    min: f64,
    max: f64,
    mean: f64,
    /// SHA-256 of the physical values as little endian i16, i fastest.
    sha256: &'static str,
}

fn check(series: &Series, expected: &Expected) {
    let stack = gate(series).expect("an ordinary series");
    let image = stack.load().expect("whole files").image;
    assert_eq!(stack.grid.dims(), expected.dims);
    let last = expected.dims.map(|d| f64::from(d - 1));
    for (voxel, corner) in [[0.0; 3], last].into_iter().zip(expected.corners_mm) {
        let found = stack.grid.lps_from_voxel().apply(voxel);
        assert!(norm(sub(found, corner)) < 1e-4, "{found:?} is not {corner:?}");
    }
    let mut bytes = Vec::with_capacity(stack.grid.voxel_count() * 2);
    let (mut min, mut max, mut sum) = (f64::MAX, f64::MIN, 0.0);
    for (k, rescale) in image.rescale.iter().enumerate() {
        for &stored in image.stored.as_int16().expect("integers").slice(k) {
            let value = rescale.slope * f64::from(stored) + rescale.intercept;
            (min, max, sum) = (min.min(value), max.max(value), sum + value);
            bytes.extend_from_slice(&(value as i16).to_le_bytes());
        }
    }
    assert_eq!((min, max), (expected.min, expected.max));
    let mean = sum / stack.grid.voxel_count() as f64;
    assert!((mean - expected.mean).abs() < 1e-6, "{mean}");
    let sha256: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(sha256, expected.sha256);
}

// Expected values of pydicom 3.0.2 (pylibjpeg-openjpeg) and SimpleITK 2.5.7, which agreed on every voxel:
//
//   ds = [pydicom.dcmread(f) for f in sorted(Path(folder).rglob("*")) if f.is_file()]
//   n = np.cross(ds[0].ImageOrientationPatient[:3], ds[0].ImageOrientationPatient[3:])
//   ds.sort(key=lambda s: np.dot(n, s.ImagePositionPatient))
//   v = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in ds])
//   r = sitk.ImageSeriesReader(); r.SetFileNames([s.filename for s in ds]); im = r.Execute()
//   assert (sitk.GetArrayFromImage(im) == v).all()
//   print(im.GetSize(), im.TransformIndexToPhysicalPoint((0, 0, 0)), im.TransformIndexToPhysicalPoint([s - 1 for s in im.GetSize()]))
//   print(v.min(), v.max(), v.mean(), hashlib.sha256(v.astype("<i2").tobytes()).hexdigest())

#[test]
fn siemens_abdomen_without_uids() {
    let Some(folder) = data("ct-abdomen-siemens/dicom") else { return };
    let found = discover(&[folder]);
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    let [series] = found.series.as_slice() else { panic!("{}", table(&found)) };
    assert!(series.study_uid.starts_with("2.25.") && series.series_uid.starts_with("2.25."));
    assert_eq!(series.warnings.len(), 2, "{:?}", series.warnings);
    // Slice Thickness says 3 mm.
    check(
        series,
        &Expected {
            dims: [512, 512, 20],
            corners_mm: [[-249.51171875, -437.51171875, -804.5], [249.51171875, 61.51171875, -766.5]],
            min: -1024.0,
            max: 1839.0,
            mean: -624.1259267807006,
            sha256: "0d9f62d8433a424e582d5a4478ba5af0eff3f5c3589fc90af21b0c448fd0ff5e",
        },
    );
}

#[test]
fn philips_study_has_one_volume() {
    let Some((_guard, folder)) = unpacked("ct-phantom-philips/study21570-mixed.tar.xz") else { return };
    let found = discover(&[folder]);
    print!("{}", table(&found));
    assert_eq!(found.series.len(), 3);
    for series in &found.series {
        match series.instances.len() {
            28 => check(
                series,
                &Expected {
                    dims: [512, 512, 28],
                    corners_mm: [[-115.5, -1.85, 696.21], [115.048828125, 228.698828125, 831.21]],
                    min: -1024.0,
                    max: 782.0,
                    mean: -830.6064483097622,
                    sha256: "84d520219d26b899f28881aae841accdbbd021a5bbb6943d6155bb10a7593078",
                },
            ),
            6 => assert_eq!(gate(series).expect("an Exam Summary page").kind, roentgen::series::Kind::Image),
            1 => assert_eq!(codes(series), ["series.localizer", "series.too-few-slices"], "surview"),
            n => panic!("a series of {n} instances"),
        }
    }
}

#[test]
fn philips_tilt_is_refused() {
    let Some((_guard, folder)) = unpacked("ct-phantom-philips/study21610-tilt-minus18.tar.xz") else { return };
    let found = discover(&[folder]);
    print!("{}", table(&found));
    assert_eq!(codes(&found.series[0]), ["series.sheared"]);
    let text = gate(&found.series[0]).expect_err("it is tilted").to_string();
    assert!(text.contains("18.50 degrees"), "{text}");
}

#[test]
fn ge_head_is_refused_for_both_reasons() {
    let Some((_guard, folder)) = unpacked("ct-head-ge-tilt-uneven/ge-head.tar.xz") else { return };
    let found = discover(&[folder]);
    print!("{}", table(&found));
    assert_eq!(codes(&found.series[0]), ["series.uneven-spacing", "series.sheared"]);
    let text = gate(&found.series[0]).expect_err("it is tilted and uneven").to_string();
    for part in ["from 1.081 to 6.999 mm, median 4.002 mm", "18.50 degrees"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn rounded_positions_are_accepted_with_a_note() {
    let Some((_guard, folder)) = unpacked("mr-volume-ge-oblique/brain.tar.xz") else { return };
    let found = discover(&[folder]);
    print!("{}", table(&found));
    let stack = gate(&found.series[0]).expect("positions are rounded, not uneven");
    let [_, _, step_mm] = stack.grid.spacing_mm();
    assert!((step_mm - 6.9993).abs() < 1e-3, "{step_mm}");
    assert!(stack.notes.iter().any(|n| n.contains("6.958 to 7.071 mm")), "{:?}", stack.notes);
    for (k, frame) in stack.frames.iter().enumerate() {
        let place = stack.grid.lps_from_voxel().apply([0.0, 0.0, k as f64]);
        let stated = frame.position_mm.expect("it passed the gate");
        assert!(norm(sub(place, stated)) < 0.1, "slice {k}: {place:?} is not {stated:?}");
    }
    stack.load().expect("zeros after the pixel data do no harm");
}

#[test]
fn odd_geometries_say_what_is_odd() {
    let refused = |archive: &str, expected: &[&str]| {
        let Some((_guard, folder)) = unpacked(archive) else { return };
        let found = discover(&[folder]);
        print!("{}", table(&found));
        assert_eq!(codes(&found.series[0]), expected, "{archive}");
    };
    refused("ct-odd-geometry/gap-5-5-10mm-ge.tar.xz", &["series.missing-slices"]);
    refused("ct-odd-geometry/same-position-4x-siemens.tar.xz", &["series.shared-positions"]);
    let Some(folder) = data("ct-odd-geometry") else { return };
    let found = discover(&[folder.join("two-orientations-mr-philips")]);
    print!("{}", table(&found));
    assert_eq!(codes(&found.series[0]), ["series.mixed-orientations", "series.mixed-pixel-spacing"]);
    let found = discover(&[folder.join("two-slices-mr")]);
    assert_eq!(gate(&found.series[0]).expect("two slices are a volume").grid.dims(), [256, 256, 2]);

    // SimpleITK's own corners, as above. Its Rescale Type is `US`, so these are no Hounsfield units.
    let found = discover(&[folder.join("oblique-3-slices-simpleitk")]);
    assert_eq!(codes(&found.series[0]), ["series.mixed-studies"], "SimpleITK gave each file its own study");
    let mut instances: Vec<Instance> = found.series[0].instances.iter().map(|i| Instance::clone(i)).collect();
    instances.iter_mut().for_each(|i| i.study_uid = "1.2.3".into());
    let stack = gate(&Series::new(instances)).expect("oblique and regular");
    assert_eq!(stack.grid.dims(), [100, 50, 3]);
    assert_eq!(stack.quantity, roentgen::volume::Quantity::Arbitrary);
    let last = stack.grid.lps_from_voxel().apply([99., 49., 2.]);
    assert!(norm(sub(last, [405.9501461920853, -328.7164114849041, 25.394014074992548])) < 1e-4, "{last:?}");
}

#[test]
fn positions_decide_not_the_name_of_the_position() {
    for archive in ["mr-positions-siemens/HFS.tar.xz", "mr-positions-siemens/HFDL.tar.xz"] {
        let Some((_guard, folder)) = unpacked(archive) else { return };
        let found = discover(&[folder]);
        let stack = gate(&found.series[0]).expect("an ordinary series");
        assert_eq!((stack.grid.dims(), stack.grid.orientation().to_string()), ([256, 256, 35], "PIR".into()));
    }
}

#[test]
fn uih_series_of_sagittal_slices() {
    let Some((_guard, folder)) = unpacked_first("mr-t1-uih") else { return };
    let found = discover(&[folder]);
    print!("{}", table(&found));
    let stack = gate(&found.series[0]).expect("an ordinary series");
    assert_eq!(stack.grid.dims(), [460, 512, 160]);
    stack.load().expect("whole files");
}

/// The one archive in a folder.
fn unpacked_first(name: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let archive = std::fs::read_dir(data(name)?)
        .ok()?
        .filter_map(Result::ok)
        .map(|e| e.file_name())
        .find(|n| n.to_string_lossy().ends_with(".tar.xz"))?;
    unpacked(&format!("{name}/{}", archive.to_string_lossy()))
}

#[test]
fn mixed_folder_is_grouped_and_its_directory_left_out() {
    let Some(folder) = data("mixed-folder") else { return };
    let found = discover(&[folder]);
    print!("{}", table(&found));
    let skipped: Vec<_> = found.skipped.iter().map(|s| s.error.code()).collect();
    assert_eq!(skipped, ["dataset.dicomdir", "dataset.not-dicom"], "DICOMDIR and PROVENANCE.md");
    assert_eq!(found.series.iter().map(|s| s.instances.len()).sum::<usize>(), 31);
    let accepted: Vec<_> = found.series.iter().filter(|s| gate(s).is_ok()).map(|s| (s.modality.as_str(), s.instances.len())).collect();
    assert_eq!(accepted, [("CT", 5), ("CR", 1), ("CR", 1), ("CR", 1)]);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("test data can be listed").filter_map(Result::ok) {
        if entry.path().is_dir() { files.extend(files_below(&entry.path())) } else { files.push(entry.path()) }
    }
    files.sort();
    files
}

/// Stored values of one instance, or the code of the error.
fn stored(path: &Path) -> Result<Vec<i16>, &'static str> {
    let instance = Instance::read(path).map_err(|e| e.code())?;
    roentgen::dataset::check_decodable(&instance).map_err(|e| e.code())?;
    let mut values = vec![0; instance.rows as usize * instance.columns as usize];
    let minus_32768 = StoredAs::for_series([&instance]) == StoredAs::Minus32768;
    read_frames(&instance, &mut [(1, Place::Int16 { stored: &mut values, minus_32768 })]).map_err(|e| e.code())?;
    Ok(values)
}

/// First 16 digits of the SHA-256 of stored values as little endian i16; pydicom's, masked to Bits Stored and sign-extended:
/// `a = s.pixel_array.astype(int) & (2**b - 1); a = np.where(a >= 2**(b-1), a - 2**b, a)` (the latter when signed)
fn check_stored(path: &Path, expected: Result<&str, &str>) {
    let hash = stored(path).map(|values| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Sha256::digest(&bytes).iter().take(8).map(|b| format!("{b:02x}")).collect::<String>()
    });
    assert_eq!(hash.as_deref().map_err(|e| *e), expected, "{:?}", path.file_name());
}

#[test]
fn unused_bits_are_masked_and_signs_extended() {
    let Some(folder) = data("mr-12bit-dirty-bits/dicom") else { return };
    check_stored(&folder.join("12bitUnsigned.dcm"), Ok("b86eb8a82f74d9d9"));
    check_stored(&folder.join("12bitUnsigned_0x0F0F.dcm"), Ok("69b1c6a4fdc57707"));
    check_stored(&folder.join("12bitSigned_0x0F0F.dcm"), Ok("51aa1a1f9d60466a"));
    let Some(folder) = data("malformed/pydicom") else { return };
    check_stored(&folder.join("J2K_pixelrep_mismatch.dcm"), Ok("1296350a0006ef69"));
}

#[test]
fn a_data_set_without_file_header_is_read() {
    let Some(folder) = data("malformed") else { return };
    let headerless = Instance::read(&folder.join("dcm4che/no_preamble_dicm_in_data")).expect("`DICM` at byte 128 is text of a description");
    assert_eq!(headerless.modality, "MG");
    for name in ["ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm"] {
        assert_eq!(Instance::read(&folder.join("pydicom").join(name)).expect(name).modality, "RTPLAN");
    }
}

#[test]
fn nothing_real_or_broken_panics() {
    for name in ["malformed", "transfer-syntaxes", "mr-enhanced", "ultrasound-colour", "xray-2d", "seg-sr", "charsets", "mr-small-series"] {
        let Some(folder) = data(name) else { return };
        for path in files_below(&folder) {
            let verdict = match Instance::read(&path).map(|i| i.pixels) {
                Err(e) => e.to_string(),
                Ok(_) => stored(&path).map_or_else(str::to_owned, |v| format!("{} values", v.len())),
            };
            println!("{}: {verdict}", path.strip_prefix(&folder).unwrap_or(&path).display());
        }
        let found = discover(&[folder]);
        println!("{name}\n{}", table(&found));
    }
}
