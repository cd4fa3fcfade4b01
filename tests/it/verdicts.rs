//! Every file and series of the test data: loaded like the reference readers load it, or refused for the right reason.
//!
//! `verdicts.tsv` is the table, one row a case and part of a series. It comes from pydicom, SimpleITK, highdicom, dcm2niix and stored ground
//! truths (`tests/python/reference_volumes.py`) and from an engineer's rules (`tests/python/verdict_table.py`), never from our program:
//!
//!     python tests/python/reference_volumes.py > facts.jsonl && python tests/python/verdict_table.py facts.jsonl > tests/it/verdicts.tsv

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roentgen::dataset::{Instance, Place, StoredAs, read_frames};
use roentgen::geometry::{Coded, Grid, norm, sub};
use roentgen::research;
use roentgen::series::{GeometryPolicy, Kind, Loaded, Part, Stack, discover};
use roentgen::volume::{Quantity, Rescale, Stored};
use sha2::{Digest, Sha256};

use crate::support::{test_data, unpacked};

/// Values of the physical extremes and means agree to this part: sums of millions of `f64` in another order.
const RELATIVE: f64 = 1e-7;
/// Lossy decoders may round each value apart by one or two; a mean over a block by less than this.
const NEAR: f64 = 0.75;
/// Least size of the table, so that a damaged one does not pass for a small one.
const ROWS: usize = 300;

/// One row of the table.
#[derive(Debug)]
struct Row<'t> {
    case: &'t str,
    policy: &'t str,
    modality: &'t str,
    instances: usize,
    frames: usize,
    verdict: &'t str,
    /// Each must be among the codes found, or one of its alternatives.
    codes: Vec<Vec<&'t str>>,
    dims: &'t str,
    corners_mm: Option<[[f64; 3]; 2]>,
    tolerance_mm: f64,
    quantity: &'t str,
    /// Minimum, maximum, mean.
    physical: Option<[f64; 3]>,
    voxels: &'t str,
}

fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let values: Vec<f64> = text.split_whitespace().map(|v| v.parse().expect("a number in the table")).collect();
    values.try_into().ok()
}

impl<'t> Row<'t> {
    fn of(line: &'t str) -> Self {
        let cells: Vec<&str> = line.split('\t').collect();
        let [
            case,
            policy,
            modality,
            instances,
            frames,
            verdict,
            codes,
            dims,
            first,
            last,
            tolerance,
            quantity,
            min,
            max,
            mean,
            voxels,
            _,
            _,
        ] = cells[..]
        else {
            panic!("{} cells in `{line}`", cells.len())
        };
        let count = |text: &str| text.parse().expect("a count in the table");
        Self {
            case,
            policy,
            modality,
            instances: count(instances),
            frames: count(frames),
            verdict,
            codes: codes.split_whitespace().map(|alternatives| alternatives.split('|').collect()).collect(),
            dims,
            corners_mm: numbers(first).zip(numbers(last)).map(|(first, last)| [first, last]),
            tolerance_mm: tolerance.parse().unwrap_or(0.0),
            quantity,
            physical: numbers(&format!("{min} {max} {mean}")),
            voxels,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self.verdict, "refused" | "skipped")
    }

    fn allows(&self, codes: &[String]) -> bool {
        self.codes.iter().all(|alternatives| alternatives.iter().any(|a| codes.iter().any(|c| c == a)))
    }
}

/// What our reader made of one part.
#[derive(Debug, Default)]
struct Found {
    series: usize,
    modality: String,
    instances: usize,
    frames: usize,
    verdict: &'static str,
    codes: Vec<String>,
    text: String,
    grid: Option<Grid>,
    quantity: &'static str,
    voxels: Option<Voxels>,
    physical: Option<[f64; 3]>,
}

/// Stored values, slice by slice.
#[derive(Debug)]
enum Voxels {
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    Rgb(Vec<[u8; 3]>),
}

impl Voxels {
    fn sha256(&self) -> String {
        let bytes: Vec<u8> = match self {
            Self::Integers(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Floats(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Rgb(values) => values.as_flattened().to_vec(),
        };
        Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Values of voxel `n`: one, or red, green and blue.
    fn at(&self, n: usize) -> [f64; 3] {
        match self {
            Self::Integers(values) => [f64::from(values[n]); 3],
            Self::Floats(values) => [f64::from(values[n]); 3],
            Self::Rgb(values) => values[n].map(f64::from),
        }
    }

    /// Means over 4 x 4 blocks of the first and the last slice, as `numpy.array_split` cuts them.
    fn blocks(&self, [columns, rows, slices]: [usize; 3]) -> Vec<f64> {
        let cut = |length: usize| {
            let parts = length.min(4);
            let start = move |n: usize| n * (length / parts) + n.min(length % parts);
            (0..parts).map(move |n| start(n)..start(n + 1))
        };
        let channels = if matches!(self, Self::Rgb(_)) { 3 } else { 1 };
        let mut means = Vec::new();
        for k in [0, slices - 1] {
            for block_rows in cut(rows) {
                for block_columns in cut(columns) {
                    let mut sums = [0.0; 3];
                    for j in block_rows.clone() {
                        for i in block_columns.clone() {
                            let value = self.at(i + columns * (j + rows * k));
                            (0..3).for_each(|c| sums[c] += value[c]);
                        }
                    }
                    let count = (block_rows.len() * block_columns.len()) as f64;
                    means.extend(sums[..channels].iter().map(|sum| sum / count));
                }
            }
        }
        means
    }
}

fn stored_voxels(stored: &Stored, offset: f64, whole_numbers: bool) -> Voxels {
    match (stored.as_int16(), stored.as_float32()) {
        (Some(volume), _) => Voxels::Integers(volume.voxels().iter().map(|&v| i32::from(v) + offset as i32).collect()),
        (_, Some(volume)) if whole_numbers => Voxels::Integers(volume.voxels().iter().map(|&v| v as i32).collect()),
        (_, Some(volume)) => Voxels::Floats(volume.voxels().to_vec()),
        _ => panic!("another kind of stored values"),
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let (mut min, mut max, mut sum, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0usize);
    for value in values {
        (min, max, sum, count) = (min.min(value), max.max(value), sum + value, count + 1);
    }
    [min, max, sum / count as f64]
}

fn quantity_name(quantity: &Quantity) -> &'static str {
    match quantity {
        Quantity::Hounsfield => "hounsfield",
        Quantity::Arbitrary => "arbitrary",
        _ => "measured",
    }
}

fn physical_of(stack: &Stack, loaded: &Loaded) -> [f64; 3] {
    let [columns, rows, slices] = stack.grid.dims().map(|d| d as usize);
    let place = |n: usize| [n % columns, n / columns % rows, n / (columns * rows)];
    extremes((0..columns * rows * slices).map(|n| loaded.image.physical(place(n))))
}

/// Gate and load of one part.
fn part_found(part: &Part<'_>, series: usize) -> Found {
    let modality = if part.series.modality.is_empty() { "-".into() } else { part.series.modality.clone() };
    let mut found = Found { series, modality, instances: part.instances().len(), frames: part.frames.len(), ..Found::default() };
    let refused = |found: Found, codes: Vec<String>, text: String| Found { verdict: "refused", codes, text, ..found };
    let stack = match part.gate() {
        Ok(stack) => stack,
        Err(refusal) => {
            let codes = refusal.reasons.iter().map(|r| r.code().to_owned()).collect();
            found.voxels = if part.instances().len() == 1 { single_instance(part.first()) } else { None };
            return refused(found, codes, refusal.to_string());
        }
    };
    let stored_as = StoredAs::for_series(stack.frames.iter().map(|f| &*f.instance));
    if stack.is_colour() {
        found.verdict = if stack.kind == Kind::Cine { "rgb-cine" } else { "rgb-image" };
        match stack.load_rgb() {
            Ok(rgb) => found.voxels = Some(Voxels::Rgb(rgb)),
            Err(error) => return refused(found, vec![error.code().to_owned()], error.to_string()),
        }
    } else {
        found.verdict = match stack.kind {
            Kind::Volume => "volume",
            Kind::Image => "image",
            Kind::Cine => "cine",
        };
        let loaded = match stack.load() {
            Ok(loaded) => loaded,
            Err(error) => return refused(found, vec![error.code().to_owned()], error.to_string()),
        };
        let whole_numbers = !stack.frames.iter().any(|f| f.instance.pixels.float);
        found.voxels = Some(stored_voxels(&loaded.image.stored, stored_as.offset(), whole_numbers));
        found.physical = Some(physical_of(&stack, &loaded));
        found.quantity = quantity_name(&stack.quantity);
    }
    found.grid = Some(stack.grid);
    found
}

/// The pixels of an instance that is refused as a volume: what its frames decode to, in the order of the file.
fn single_instance(instance: &Instance) -> Option<Voxels> {
    // Objects that promise more than their file could hold are not decoded here.
    let pixels = (instance.rows as usize).checked_mul(instance.columns as usize).filter(|p| (1..1 << 24).contains(p))?;
    let frames = (1..=instance.frames.min(64)).collect::<Vec<u32>>();
    match StoredAs::for_series([instance]) {
        StoredAs::Rgb => {
            let mut rgb = vec![[0u8; 3]; pixels * frames.len()];
            let mut places: Vec<_> = frames.iter().copied().zip(rgb.chunks_exact_mut(pixels).map(Place::Rgb)).collect();
            read_frames(instance, &mut places).ok()?;
            Some(Voxels::Rgb(rgb))
        }
        StoredAs::Float => None,
        stored_as => {
            let minus_32768 = stored_as == StoredAs::Minus32768;
            let mut values = vec![0i16; pixels * frames.len()];
            let place = |stored| Place::Int16 { stored, minus_32768 };
            let mut places: Vec<_> = frames.iter().copied().zip(values.chunks_exact_mut(pixels).map(place)).collect();
            read_frames(instance, &mut places).ok()?;
            Some(Voxels::Integers(values.iter().map(|&v| i32::from(v) + stored_as.offset() as i32).collect()))
        }
    }
}

/// A researcher's volume, which has no series.
fn research_found(path: &Path, modality: &str) -> Found {
    let found = Found { modality: modality.into(), instances: 1, quantity: "arbitrary", ..Found::default() };
    match research::read_header(path).and_then(|header| Ok((header, research::read_volume(path)?))) {
        Ok((header, volume)) => {
            let Rescale { slope, intercept } = volume.rescale;
            let offset = (intercept - header.rescale.intercept) / header.rescale.slope;
            let whole_numbers = !matches!(header.element, research::Element::F32 | research::Element::F64);
            let voxels = stored_voxels(&volume.stored, offset.round(), whole_numbers);
            let physical = extremes((0..volume.grid().voxel_count()).map(|n| slope * volume.stored.value(n) + intercept));
            let frames = volume.grid().dims()[2] as usize;
            Found { verdict: "volume", frames, grid: Some(*volume.grid()), voxels: Some(voxels), physical: Some(physical), ..found }
        }
        Err(error) => Found { verdict: "refused", codes: vec![error.code().to_owned()], text: error.to_string(), ..found },
    }
}

fn found_in(path: &Path, policy: GeometryPolicy) -> Vec<Found> {
    let discovery = discover(&[path.into()]);
    let mut found = Vec::new();
    for (n, series) in discovery.series.iter().enumerate() {
        found.extend(series.parts(policy).iter().map(|part| part_found(part, n + 1)));
    }
    // A researcher's volume beside DICOM files is no part of their series, and judged by itself elsewhere.
    found.extend(discovery.volumes.iter().map(|_| Found {
        modality: "-".into(),
        verdict: "skipped",
        codes: vec!["dataset.not-dicom".to_owned()],
        ..Found::default()
    }));
    found.extend(discovery.skipped.iter().map(|s| Found {
        modality: "-".into(),
        verdict: "skipped",
        codes: vec![s.error.code().to_owned()],
        text: s.error.to_string(),
        ..Found::default()
    }));
    found
}

/// Everything in which `found` is not what `row` says.
fn differences(row: &Row<'_>, found: &Found) -> Vec<String> {
    let mut out = Vec::new();
    // A file that is passed over and one whose series is refused are refused alike.
    let alike = row.is_refusal() && matches!(found.verdict, "refused" | "skipped");
    if row.verdict != found.verdict && !alike {
        out.push(format!("{}, not {}: {}", found.verdict, row.verdict, found.text));
    }
    if row.is_refusal() && !row.allows(&found.codes) {
        out.push(format!("codes {:?}, not {:?}: {}", found.codes, row.codes, found.text));
    }
    if let (Some(grid), false) = (&found.grid, row.is_refusal()) {
        let dims = grid.dims().map(|d| d.to_string()).join("x");
        if dims != row.dims {
            out.push(format!("dims {dims}, not {}", row.dims));
        }
        if let Some(corners_mm) = row.corners_mm {
            let last = grid.dims().map(|d| f64::from(d - 1));
            for (voxel, corner) in [[0.0; 3], last].into_iter().zip(corners_mm) {
                let off_mm = norm(sub(grid.lps_from_voxel().apply(voxel), corner));
                if off_mm.is_nan() || off_mm > row.tolerance_mm {
                    out.push(format!("voxel {voxel:?} lies {off_mm:.5} mm off, allowed are {}", row.tolerance_mm));
                }
            }
        }
        if !row.quantity.is_empty() && row.quantity != found.quantity {
            out.push(format!("values are {}, not {}", found.quantity, row.quantity));
        }
    }
    if let (Some(expected), Some(physical), true) = (row.physical, found.physical, row.verdict == found.verdict) {
        let lossy = if row.voxels.starts_with("near:") { f64::INFINITY } else { 0.0 };
        let close = |a: f64, b: f64| (a - b).abs() <= RELATIVE * expected.iter().fold(1.0, |m: f64, e| m.max(e.abs())) + lossy.min(NEAR);
        // Extremes of a lossy image are single values, which may round apart.
        if !close(physical[2], expected[2]) || (lossy == 0.0 && !(close(physical[0], expected[0]) && close(physical[1], expected[1]))) {
            out.push(format!("physical values {physical:?}, not {expected:?}"));
        }
    }
    out.extend(voxel_difference(row, found));
    out
}

fn voxel_difference(row: &Row<'_>, found: &Found) -> Option<String> {
    if row.voxels == "-" || (found.verdict != row.verdict && !row.is_refusal()) {
        return None;
    }
    let Some(voxels) = &found.voxels else { return Some("its pixels cannot be decoded, by the reference they can".into()) };
    if let Some(expected) = row.voxels.strip_prefix("sha256:") {
        return (voxels.sha256() != expected).then(|| "stored values differ".into());
    }
    let expected: Vec<f64> = row.voxels.strip_prefix("near:")?.split(',').map(|v| v.parse().expect("a number in the table")).collect();
    let dims: Vec<usize> = row.dims.split('x').map(|d| d.parse().expect("a size in the table")).collect();
    let blocks = voxels.blocks([dims[0], dims[1], dims[2]]);
    let worst = blocks.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    (blocks.len() != expected.len() || worst > NEAR).then(|| format!("means of blocks differ by up to {worst:.3}"))
}

/// Pairs rows with what was found, the best fit first, and says what is left over on either side.
fn compare(rows: &[&Row<'_>], mut found: Vec<Found>) -> Vec<String> {
    let mut out = Vec::new();
    let mut open: Vec<&Row<'_>> = Vec::new();
    for &row in rows {
        let same = |f: &Found| (f.modality.as_str(), f.instances, f.frames) == (row.modality, row.instances, row.frames);
        // Of a broken file readers may disagree even about what it is.
        let passed_over = |f: &Found| row.is_refusal() && matches!(f.verdict, "skipped" | "refused") && rows.len() == 1;
        let candidates = found.iter().enumerate().filter(|(_, f)| same(f) || passed_over(f));
        match candidates.map(|(n, f)| (differences(row, f), n)).min_by_key(|(d, _)| d.len()) {
            Some((found_differences, n)) => {
                found.remove(n);
                out.extend(found_differences.into_iter().map(|d| format!("{} {}x{}: {d}", row.modality, row.instances, row.frames)));
            }
            None => open.push(row),
        }
    }
    // A series may be refused in pieces: each with a reason that the table accepts.
    for row in open {
        let pieces = |f: &&Found| f.modality == row.modality && f.verdict == "refused" && row.allows(&f.codes);
        let mut frames_of: BTreeMap<usize, usize> = BTreeMap::new();
        found.iter().filter(pieces).for_each(|f| *frames_of.entry(f.series).or_default() += f.frames);
        match frames_of.into_iter().find(|&(_, frames)| row.is_refusal() && frames == row.frames) {
            Some((series, _)) => found.retain(|f| f.series != series),
            None => {
                out.push(format!("{} {}x{}: expected {}, nothing like it was found", row.modality, row.instances, row.frames, row.verdict))
            }
        }
    }
    let extra = |f: Found| {
        format!("{} {}x{}: {} {:?}, which the table does not know: {}", f.modality, f.instances, f.frames, f.verdict, f.codes, f.text)
    };
    out.extend(found.into_iter().map(extra));
    out
}

/// The path of a case, and what keeps an unpacked archive alive.
fn opened(data: &Path, case: &str) -> (PathBuf, Option<tempfile::TempDir>) {
    let (name, inner) = case.rsplit_once(".tar.xz:").map_or((case.to_owned(), None), |(n, inner)| (format!("{n}.tar.xz"), Some(inner)));
    if !name.ends_with(".tar.xz") {
        return (data.join(name), None);
    }
    let folder = unpacked(&data.join(name));
    let mut path = folder.path().to_owned();
    if let Some(inner) = inner {
        let top = std::fs::read_dir(&path).expect("readable").next().expect("one folder in the archive").expect("readable").path();
        path = top.join(inner);
    }
    (path, Some(folder))
}

fn check_case(data: &Path, case: &str, rows: &[&Row<'_>]) -> Vec<String> {
    let (path, _guard) = opened(data, case);
    let mut out = Vec::new();
    let by_research = |row: &&Row<'_>| matches!(row.modality, "NIfTI" | "NRRD");
    let files: Vec<&&Row<'_>> = rows.iter().filter(|r| by_research(r)).collect();
    if !files.is_empty() {
        let mut paths = if path.is_dir() { crate::support::files_below(&path) } else { vec![path.clone()] };
        paths.retain(|p| [".nii", ".nii.gz", ".nrrd"].iter().any(|end| p.to_string_lossy().ends_with(end)));
        assert_eq!(paths.len(), files.len(), "{case}");
        for (row, path) in files.iter().zip(&paths) {
            out.extend(differences(row, &research_found(path, row.modality)));
        }
        return out;
    }
    for (name, policy) in [("split", GeometryPolicy::Split), ("resample", GeometryPolicy::Resample)] {
        let rows: Vec<&Row<'_>> = rows.iter().copied().filter(|r| r.policy == name).collect();
        if !rows.is_empty() {
            out.extend(compare(&rows, found_in(&path, policy)));
        }
    }
    out
}

#[test]
fn every_file_is_read_as_by_others_or_refused() {
    let Some(data) = test_data() else { return };
    let table = include_str!("verdicts.tsv");
    let rows: Vec<Row<'_>> = table.lines().skip(1).map(Row::of).collect();
    assert!(rows.len() >= ROWS, "the table has {} rows", rows.len());
    let mut cases: BTreeMap<&str, Vec<&Row<'_>>> = BTreeMap::new();
    rows.iter().for_each(|row| cases.entry(row.case).or_default().push(row));
    let mut wrong = Vec::new();
    for (case, rows) in &cases {
        wrong.extend(check_case(&data, case, rows).into_iter().map(|d| format!("{case}: {d}")));
    }
    println!("{} cases, {} rows, {} differences", cases.len(), rows.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No file of the test data is without a verdict.
#[test]
fn every_file_has_a_verdict() {
    let Some(data) = test_data() else { return };
    let cases: Vec<&str> = include_str!("verdicts.tsv").lines().skip(1).filter_map(|l| l.split('\t').next()).collect();
    let named = |file: &Path| {
        let name = file.strip_prefix(&data).expect("below the data").to_string_lossy().replace('\\', "/");
        cases.iter().any(|case| name == *case || name.starts_with(&format!("{case}/")) || case.starts_with(&format!("{name}:")))
    };
    let without: Vec<_> = crate::support::files_below(&data).into_iter().filter(|f| !named(f)).collect();
    assert!(without.is_empty(), "{without:?}");
}
