//! Each kind of rule on a small series made in code, manifests that say too much or too little, and ranking.

use std::path::{Path, PathBuf};

use dicom::core::value::DataSetSequence;
use dicom::core::{DataElement, Length, Tag, VR};
use dicom::object::InMemDicomObject;
use dicom::object::mem::InMemElement;

use super::*;
use crate::dataset::testing::{Slice, slice};
use crate::geometry::{Affine, Coded, Grid};
use crate::model::{Manifest, Package, PackageId};
use crate::research::{Element, Format, LengthUnit, Transform, VolumeHeader};
use crate::series::{Series, VolumeFile};
use crate::volume::Rescale;

const SHIPPED: &str = include_str!("../../../models/ct-tissue/model.toml");

/// The shipped manifest with other rules: `rules` are lines below `[select]`.
fn parsed(rules: &str) -> Result<Manifest, String> {
    let (before, rest) = SHIPPED.split_once("[select]").expect("the manifest selects");
    let after = rest.split_once("[input]").expect("the manifest has an input").1;
    let text = format!("{before}[select]\n{rules}\n[input]{after}");
    Manifest::parse(&text, Path::new("model.toml")).map_err(|e| e.to_string())
}

fn package(rules: &str) -> Package {
    let manifest = parsed(rules).unwrap_or_else(|e| panic!("{rules}: {e}"));
    let id = PackageId {
        name: manifest.model.name.clone(),
        version: manifest.model.version.clone(),
        sha256: "0".repeat(64),
        manufacturer: String::new(),
        intended_use: String::new(),
        licence: String::new(),
        regulatory_status: String::new(),
        card: None,
    };
    Package { manifest, id, path: "nowhere".into(), graphs: Vec::new(), stage_graphs: Vec::new() }
}

fn element(group: u16, number: u16, vr: VR, text: &str) -> InMemElement {
    let values = text.split('\\').map(str::to_owned).collect();
    DataElement::new(Tag(group, number), vr, dicom::core::PrimitiveValue::Strs(values))
}

/// Ten axial slices 2 mm apart, of 3 x 4 pixels of 0.5 x 0.7 mm, with what real headers have.
fn slices() -> Vec<Slice> {
    let ordinary = |n| {
        let mut slice = slice(n);
        slice.more = vec![
            element(0x0018, 0x0015, VR::CS, "CHEST"),
            element(0x0008, 0x103E, VR::LO, "Thorax for DOE^JOHN"),
            element(0x0018, 0x1210, VR::SH, "Br40d\\3"),
            element(0x0018, 0x0060, VR::DS, "120"),
            element(0x0018, 0x0010, VR::LO, "ULTRAVIST"),
            element(0x0010, 0x0040, VR::CS, "F"),
            element(0x0010, 0x1010, VR::AS, "045Y"),
            element(0x0008, 0x0070, VR::LO, "SIEMENS"),
        ];
        slice
    };
    (0..10).map(ordinary).collect()
}

fn series(change: impl Fn(&mut Vec<Slice>)) -> Series {
    let mut slices = slices();
    change(&mut slices);
    Series::new(slices.iter().map(Slice::instance).collect())
}

fn unchanged(_: &mut Vec<Slice>) {}

/// Puts an element into every slice.
fn put(group: u16, number: u16, vr: VR, text: &str) -> impl Fn(&mut Vec<Slice>) {
    move |slices| slices.iter_mut().for_each(|s| s.more.push(element(group, number, vr, text)))
}

fn eligible(package: &Package, series: &Series) -> Result<Eligible, Vec<Ineligible>> {
    package.eligible(&series.parts(package.manifest.select.geometry)[0])
}

fn assess(package: &Package, series: &Series) -> Assessment {
    package.assess(&series.parts(package.manifest.select.geometry)[0])
}

fn failed(rules: &str, series: &Series) -> Vec<String> {
    eligible(&package(rules), series).err().into_iter().flatten().map(|r| r.code().to_owned()).collect()
}

/// One rule beside `modality`, on the ordinary series with a change, and whether it holds.
fn check_on(change: impl Fn(&mut Vec<Slice>), rule: &str, holds: bool) {
    let codes = failed(&format!("modality = [\"CT\"]\n{rule}"), &series(change));
    assert_eq!(codes.is_empty(), holds, "{rule}: {codes:?}");
    assert!(holds || codes.iter().all(|c| c.starts_with("select.")), "{rule}: {codes:?}");
}

fn check(rule: &str, holds: bool) {
    check_on(unchanged, rule, holds);
}

#[allow(clippy::ptr_arg, reason = "changes of a series take a Vec")]
fn anatomy(slices: &mut Vec<Slice>) {
    let code = [element(0x0008, 0x0100, VR::SH, "51185008"), element(0x0008, 0x0102, VR::SH, "SCT")];
    let item = InMemDicomObject::from_element_iter(code);
    let sequence = DataElement::new(Tag(0x0008, 0x2218), VR::SQ, DataSetSequence::new(vec![item], Length::UNDEFINED));
    slices.iter_mut().for_each(|s| s.more.push(sequence.clone()));
}

#[test]
fn modality_and_body_part() {
    assert!(failed("modality = [\"MR\", \"CT\"]", &series(unchanged)).is_empty());
    assert_eq!(failed("modality = [\"MR\"]", &series(unchanged)), ["select.modality"]);
    check("body_part = [\"HEAD\", \"chest\"]", true);
    check("body_part = [\"HEAD\"]", false);
    check_on(put(0x0018, 0x0015, VR::CS, ""), "body_part = [\"CHEST\"]", false);
    check_on(anatomy, "body_part = [\"SCT:51185008\"]", true);
    check_on(anatomy, "body_part = [\"SCT:69536005\"]", false);
    check("body_part = [\"SCT:51185008\"]", false);
}

#[test]
fn image_type() {
    check("image_type = { all = [\"ORIGINAL\", \"primary\"] }", true);
    check("image_type = { all = [\"DERIVED\"] }", false);
    check("image_type = { any = [\"DERIVED\", \"AXIAL\"], none = [\"MIP\"] }", true);
    check("image_type = { none = [\"AXIAL\"] }", false);
    // One instance of another kind is enough.
    let one_mip = |s: &mut Vec<Slice>| s[4].image_type = "DERIVED\\SECONDARY\\MIP".into();
    check_on(one_mip, "image_type = { none = [\"MIP\"] }", false);
}

/// Turned about the L axis by this many degrees.
fn tilted(angle_deg: f64) -> impl Fn(&mut Vec<Slice>) {
    move |slices| {
        let (s, c) = angle_deg.to_radians().sin_cos();
        for (n, slice) in slices.iter_mut().enumerate() {
            slice.orientation = [1., 0., 0., 0., c, s];
            slice.position_mm = [0., -s * 2.0 * n as f64, c * 2.0 * n as f64];
        }
    }
}

#[test]
fn orientation_is_the_normal_of_the_grid() {
    check("orientation = [\"axial\"]", true);
    check("orientation = [\"sagittal\", \"coronal\", \"oblique\"]", false);
    check_on(tilted(29.0), "orientation = [\"axial\"]", true);
    check_on(tilted(31.0), "orientation = [\"axial\"]", false);
    check_on(tilted(31.0), "orientation = [\"oblique\"]", true);
    check_on(tilted(31.0), "orientation = [\"axial\"]\norientation_tolerance_deg = 40", true);
    check_on(tilted(90.0), "orientation = [\"coronal\"]", true);
    let sagittal = |s: &mut Vec<Slice>| {
        for (n, slice) in s.iter_mut().enumerate() {
            (slice.orientation, slice.position_mm) = ([0., 1., 0., 0., 0., -1.], [-2.0 * n as f64, 0., 0.]);
        }
    };
    check_on(sagittal, "orientation = [\"sagittal\"]", true);
    // Without a grid the orientation still counts: a coronal series with a gap is none that an axial package wants.
    let coronal_with_gap = |s: &mut Vec<Slice>| {
        tilted(90.0)(s);
        s.remove(4);
    };
    let rules = "modality = [\"CT\"]\norientation = [\"axial\"]";
    assert_eq!(failed(rules, &series(coronal_with_gap)), ["select.orientation", "series.missing-slices"]);
}

#[test]
fn counts_and_lengths() {
    for (rule, holds) in [
        ("min_slices = 10", true),
        ("min_slices = 11", false),
        ("max_slices = 10", true),
        ("max_slices = 9", false),
        ("max_slice_spacing_mm = 2.0", true),
        ("max_slice_spacing_mm = 1.9", false),
        ("slice_spacing_mm = [0.5, 2]", true),
        ("slice_spacing_mm = [2.1, inf]", false),
        ("pixel_spacing_mm = [0.5, 0.7]", true),
        ("pixel_spacing_mm = [0.5, 0.6]", false),
        ("pixel_spacing_mm = [0.6, 0.8]", false),
        ("coverage_mm = [20, inf]", true),
        ("coverage_mm = [21, inf]", false),
    ] {
        check(rule, holds);
    }
}

#[test]
fn texts_by_pattern() {
    check("description = { any = [\"(?i)chest|thorax\"] }", true);
    check("description = { any = [\"(?i)^head\", \"^Thorax\"], none = [\"(?i)scout\"] }", true);
    check("description = { any = [\"thorax\"] }", false);
    check("description = { none = [\"(?i)thorax\"] }", false);
    check("protocol_name = { any = [\".\"] }", false);
    check("protocol_name = { none = [\".\"] }", true);
    check("study_description = { none = [\".\"] }", true);
    check("kernel = { any = [\"^Br[34]\"], none = [\"^Bl\"] }", true);
    check("kernel = { none = [\"^3$\"] }", false);
}

#[test]
fn contrast() {
    check("contrast = \"required\"", true);
    check("contrast = \"forbidden\"", false);
    check("contrast = \"any\"", true);
    for none in ["", "NONE", "no", "Without"] {
        check_on(put(0x0018, 0x0010, VR::LO, none), "contrast = \"required\"", false);
        check_on(put(0x0018, 0x0010, VR::LO, none), "contrast = \"forbidden\"", true);
    }
    let half = |s: &mut Vec<Slice>| s.iter_mut().take(5).for_each(|s| s.more.push(element(0x0018, 0x0010, VR::LO, "")));
    check_on(half, "contrast = \"required\"", false);
    check_on(half, "contrast = \"forbidden\"", false);
}

#[test]
fn quantity() {
    let other = put(0x0028, 0x1054, VR::LO, "US");
    check("quantity = \"hounsfield\"", true);
    check_on(&other, "", false);
    check_on(&other, "quantity = \"any\"", true);
    check("quantity = \"arbitrary\"", false);
    assert_eq!(failed("modality = [\"CT\"]", &series(&other)), ["select.not-hounsfield"]);
}

#[test]
fn any_attribute() {
    let rule = |text: &str, holds| check(&format!("[[select.rule]]\n{text}"), holds);
    rule("tag = \"KVP\"\nequals = [100, 120.0]", true);
    rule("tag = \"(0018,0060)\"\nequals = [\"120.00\"]", true);
    rule("tag = \"KVP\"\nequals = [100]", false);
    rule("tag = \"KVP\"\nnot_equals = [100]", true);
    rule("tag = \"KVP\"\nrange = [100, 140]", true);
    rule("tag = \"KVP\"\nrange = [130, inf]", false);
    rule("tag = \"KVP\"\npresent = true", true);
    rule("tag = \"KVP\"\npresent = false", false);
    rule("tag = \"MagneticFieldStrength\"\nrange = [1, 3]", false);
    rule("tag = \"MagneticFieldStrength\"\npresent = false", true);
    rule("tag = \"MagneticFieldStrength\"\nequals = [3]", false);
    rule("tag = \"MagneticFieldStrength\"\nnot_equals = [3]", true);
    rule("tag = \"Manufacturer\"\nmatches = \"(?i)siemens|philips\"", true);
    rule("tag = \"Manufacturer\"\nnot_matches = \"(?i)siemens\"", false);
    rule("tag = \"PatientAge\"\nrange = [18, inf]", true);
    rule("tag = \"PatientAge\"\nrange = [0, 17]", false);
    rule("tag = \"PatientSex\"\nequals = [\"F\"]", true);
    check_on(anatomy, "[[select.rule]]\ntag = \"AnatomicRegionSequence\"\nequals = [\"SCT:51185008\"]", true);
    check_on(anatomy, "[[select.rule]]\ntag = \"AnatomicRegionSequence.CodeValue\"\nmatches = \"^5\"", true);
}

#[test]
fn what_is_absent_is_refused_taken_or_warned_of() {
    let rules = |absent: &str| format!("modality = [\"CT\"]\n[[select.rule]]\ntag = \"ViewPosition\"\nequals = [\"PA\"]\n{absent}");
    let warnings = |absent: &str, series: &Series| eligible(&package(&rules(absent)), series).map(|taken| taken.stack.warnings);
    let (without, pa) = (series(unchanged), series(put(0x0018, 0x5101, VR::CS, "PA")));
    assert!(warnings("", &without).is_err() && warnings("absent = \"refuse\"", &without).is_err());
    assert_eq!(warnings("absent = \"take\"", &without).ok(), Some(Vec::new()));
    let warned = warnings("absent = \"warn\"", &without).expect("it is taken");
    assert_eq!(warned, ["ViewPosition (0018,5101) is absent: not checked"]);
    assert_eq!(warnings("absent = \"warn\"", &pa).ok(), Some(Vec::new()));
    let lateral = series(put(0x0018, 0x5101, VR::CS, "LL"));
    for absent in ["warn", "take"] {
        assert!(warnings(&format!("absent = \"{absent}\""), &lateral).is_err(), "{absent} is of values that are not there");
    }
    let one_without = series(|slices| slices[1..].iter_mut().for_each(|s| s.more.push(element(0x0018, 0x5101, VR::CS, "PA"))));
    assert_eq!(warnings("absent = \"warn\"", &one_without).map(|all| all.len()).ok(), Some(1));
    let twice = parsed("modality = [\"CT\"]\n[[select.rule]]\ntag = \"KVP\"\npresent = true\nabsent = \"warn\"");
    assert!(twice.is_err_and(|e| e.contains("says already")));
}

const CHESTS: &str = include_str!("../../../models/cxr-screen/model.toml");

/// Attributes whose rules of the shipped package of chests do not hold, and warnings.
fn of_chests(series: &Series) -> (Vec<String>, usize) {
    let package =
        Package { manifest: Manifest::parse(CHESTS, Path::new("model.toml")).expect("it ships"), ..package("modality = [\"CT\"]") };
    let checks = assess(&package, series).checks;
    let failed = checks.iter().filter(|c| c.code == "select.rule" && c.passed != Some(true));
    let names = failed.map(|c| c.rule.split(' ').next().unwrap_or_default().to_owned());
    (names.collect(), checks.iter().filter_map(Check::warning).count())
}

#[test]
fn the_shipped_package_of_chests_takes_frontal_chests_of_people() {
    let with = |elements: &[(u16, u16, &str)]| {
        let of_element = |&(group, number, text): &(u16, u16, &str)| element(group, number, VR::CS, text);
        series(|slices| slices.iter_mut().for_each(|slice| slice.more = elements.iter().map(of_element).collect()))
    };
    let (part, view, side, species) = ((0x0018, 0x0015), (0x0018, 0x5101), (0x0020, 0x0062), (0x0010, 0x2201));
    let check = |part_is: &str, view_is: &str, side_is: &str, species_is: &str, failed: &[&str], warnings: usize| {
        let given = [(part, part_is), (view, view_is), (side, side_is), (species, species_is)];
        let given: Vec<_> =
            given.iter().filter(|(_, text)| !text.is_empty()).map(|&((group, number), text)| (group, number, text)).collect();
        let failed: Vec<String> = failed.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(of_chests(&with(&given)), (failed, warnings), "{given:?}");
    };
    check("CHEST", "PA", "U", "", &[], 0);
    check("PORT CHEST", "AP", "", "Homo sapiens", &[], 0);
    check("", "", "", "", &[], 2);
    check("EXTREMITY", "AP", "", "", &["BodyPartExamined"], 0);
    check("JAW", "", "", "", &["BodyPartExamined"], 1);
    check("CHEST", "LL", "", "", &["ViewPosition"], 0);
    check("THORAX", "", "L", "", &["ImageLaterality"], 1);
    check("THORAX", "PA", "U", "Canis lupus familiaris", &["PatientSpeciesDescription"], 0);
}

#[test]
fn real_radiographs_of_other_things_are_refused_or_warned_of() {
    let shared =
        std::env::var_os("ROENTGEN_TEST_DATA").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let Some(data) = [shared.join("data"), shared].into_iter().map(|f| f.join("xray-2d")).find(|f| f.is_dir()) else {
        println!("skipped: no test data");
        return;
    };
    let of = |file: &str| of_chests(&crate::series::discover(&[data.join(file)]).series[0]);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(of("RG3_J2KI"), (names(&["BodyPartExamined"]), 0), "a tibia");
    assert_eq!(of("dx_image.dcm"), (names(&["ImageLaterality"]), 1), "an animal, from the side");
    assert_eq!(of("CR-ModalitySequenceLUT.dcm"), (Vec::new(), 2), "teeth, of which the header says nothing");
    assert_eq!(of("gdcm-CR-MONO1-10-chest.dcm"), (Vec::new(), 0));
}

#[test]
fn all_rules_are_there_whether_they_hold_or_not() {
    let rules = "modality = [\"MR\"]\nbody_part = [\"CHEST\"]\nmin_slices = 20\nmax_slice_spacing_mm = 1.0";
    let assessment = assess(&package(rules), &series(unchanged));
    let passed: Vec<_> = assessment.checks.iter().map(|c| (c.code, c.passed)).collect();
    let expected = [
        ("select.modality", Some(false)),
        ("select.body-part", Some(true)),
        ("select.slices", Some(false)),
        ("select.spacing", Some(false)),
        ("select.kind", Some(true)),
        ("select.not-hounsfield", Some(true)),
    ];
    assert_eq!(passed, expected);
    let messages: Vec<_> = assessment.answer().expect_err("three rules fail").iter().map(ToString::to_string).collect();
    let expected = [
        "Modality is CT, the package takes MR",
        "number of slices is 10, the package takes 20 or more",
        "distance between slices is 2.00 mm, the package takes up to 1 mm",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn a_series_that_is_wanted_and_unsafe_is_a_refusal() {
    let rules = "modality = [\"CT\"]\nmin_slices = 5\nmax_slice_spacing_mm = 5.0\ncoverage_mm = [10, inf]";
    let answer = |change: &dyn Fn(&mut Vec<Slice>)| eligible(&package(rules), &series(change)).expect_err("it is not taken");
    let gap = answer(&|s: &mut Vec<Slice>| drop(s.remove(4)));
    assert!(gap.iter().all(Ineligible::is_refusal), "what geometry leaves open is no reason of its own: {gap:?}");
    let localizer = answer(&|s: &mut Vec<Slice>| s.iter_mut().for_each(|s| s.image_type = "ORIGINAL\\PRIMARY\\LOCALIZER".into()));
    assert!(!localizer.iter().all(Ineligible::is_refusal), "{localizer:?}");
    let one_localizer = answer(&|s: &mut Vec<Slice>| s[3].image_type = "ORIGINAL\\PRIMARY\\LOCALIZER".into());
    assert!(one_localizer.iter().all(Ineligible::is_refusal), "{one_localizer:?}");
}

#[test]
fn free_text_and_patient_data_stay_where_they_are() {
    let rules = r#"
modality = ["CT"]
description = { any = ["scout"] }
contrast = "forbidden"
kernel = { any = ["B70"] }
[[select.rule]]
tag = "PatientSex"
equals = ["M"]
because = "trained on men"
[[select.rule]]
tag = "PatientAge"
range = [0, 17]
"#;
    let assessment = assess(&package(rules), &series(unchanged));
    let everything = format!("{assessment:?}{}", serde_json::to_string(&assessment.checks).expect("JSON"));
    // The stack of an assessment holds the instances and so their texts: only the checks are meant for readers.
    let checks = format!("{:?}{}", assessment.checks, serde_json::to_string(&assessment.checks).expect("JSON"));
    assert!(everything.len() > checks.len());
    for hidden in ["DOE", "Thorax", "ULTRAVIST", "045Y", "45", "\"F\""] {
        assert!(!checks.contains(hidden), "{hidden} in {checks}");
    }
    let message = |n: usize, show| assessment.checks[n].message(show);
    assert_eq!(message(1, false), "SeriesDescription (0008,103E) is a value that is not shown, the package takes what matches `scout`");
    assert_eq!(message(1, true), "SeriesDescription (0008,103E) is \"Thorax for DOE^JOHN\", the package takes what matches `scout`");
    assert_eq!(message(2, false), "ConvolutionKernel (0018,1210) is Br40d\\3, the package takes what matches `B70`");
    assert!(message(3, true).contains("\"ULTRAVIST\""), "{}", message(3, true));
    let sex = "PatientSex (0010,0040) is a value that is not shown, the package takes M (trained on men)";
    assert_eq!((message(6, false).as_str(), message(6, true).as_str()), (sex, sex));
}

#[test]
fn manifests_that_say_too_much_or_too_little() {
    let check = |rules: &str, parts: &[&str]| {
        let with_modality = if rules.contains("modality =") { rules.to_owned() } else { format!("modality = [\"CT\"]\n{rules}") };
        let error = parsed(&with_modality).expect_err(rules);
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
    };
    check("modality = []", &["modality", "name at least one"]);
    check("modality = [\"XA\"]", &["select.modality", "CT or MR"]);
    check("bodypart = [\"CHEST\"]", &["bodypart", "body_part"]);
    check("body_part = [\"A BODY PART OF MANY WORDS\"]", &["body_part", "SCT:51185008"]);
    check("image_type = {}", &["select.image_type", "`none`"]);
    check("image_type = { every = [\"ORIGINAL\"] }", &["every", "all"]);
    check("orientation = [\"transverse\"]", &["transverse", "axial"]);
    check("orientation = [\"axial\"]\norientation_tolerance_deg = 50", &["orientation_tolerance_deg", "45"]);
    check("min_slices = 9\nmax_slices = 8", &["min_slices", "max_slices"]);
    check("slice_spacing_mm = [5, 1]", &["slice_spacing_mm", "lowest first"]);
    check("slice_spacing_mm = [1, 5]\nmax_slice_spacing_mm = 5", &["slice_spacing_mm", "max_slice_spacing_mm"]);
    check("coverage_mm = [-inf, inf]", &["coverage_mm", "no range"]);
    check("max_slice_spacing_mm = 0", &["max_slice_spacing_mm"]);
    check("description = {}", &["select.description", "`any`"]);
    check("description = { any = [\"(\"] }", &["description", "no regular expression", "unclosed group"]);
    check("description = { any = [\"(?=x)\"] }", &["description", "look-around"]);
    check("kernel = { any = [\"(a{1000}){1000}\"] }", &["kernel", "1048576 bytes"]);
    check("kernel = { any = [\"\"] }", &["kernel", "1 to 512"]);
    check("contrast = \"yes\"", &["contrast", "required", "forbidden"]);
    check("kind = \"cine\"", &["select.kind", "\"volume\""]);
    check("kind = \"image\"", &["select.modality", "radiographs"]);
    check("quantity = \"HU\"", &["quantity", "hounsfield", "any"]);
    check("take = \"best\"", &["select.take", "select.rank"]);
    check("[[select.rank]]\nprefer = \"thinnest\"", &["select.rank", "take = \"best\""]);
    check("take = \"best\"\n[[select.rank]]\nprefer = \"prettiest\"", &["prettiest", "thinnest"]);
    check("take = \"best\"\n[[select.rank]]\nprefer = \"thinnest\"\nby = 2", &["by"]);
    check("take = \"best\"\n[[select.rank]]\nprefer = \"kernel\"\npatterns = []", &["select.rank", "patterns"]);
    check("take = \"best\"\n[[select.rank]]\nprefer = \"lowest\"\ntag = \"PatientAge\"", &["PatientAge"]);
    check("[[select.rule]]\ntag = \"KVP\"", &["KVP", "exactly one of", "present"]);
    check("[[select.rule]]\ntag = \"KVP\"\npresent = true\nrange = [1, 2]", &["KVP", "exactly one of"]);
    check("[[select.rule]]\ntag = \"KVP\"\nequals = []", &["KVP", "empty list"]);
    check("[[select.rule]]\ntag = \"PatientName\"\nmatches = \"Doe\"", &["PatientName", "identify a person"]);
    check("[[select.rule]]\ntag = \"KiloVolt\"\nequals = [1]", &["KiloVolt", "keyword"]);
    check("[[select.rule]]\ntag = \"KVP\"\nmaximum = 3", &["maximum", "range"]);
}

/// What a test changes in a series.
type Change<'c> = &'c dyn Fn(&mut Vec<Slice>);

/// Candidates in any order, with the answers that the package gives when it takes one of a study.
fn taken(rank: &str, changes: &[Change<'_>]) -> Vec<Result<Vec<String>, String>> {
    let package = package(&format!("modality = [\"CT\"]\ntake = \"best\"\n{rank}"));
    let answers = changes.iter().enumerate().map(|(n, change)| {
        let series = series(|slices| {
            change(slices);
            for (k, slice) in slices.iter_mut().enumerate() {
                (slice.series_uid, slice.sop_uid) = (format!("1.2.3.{n}"), format!("1.2.3.{n}.{k}"));
                slice.more.push(element(0x0020, 0x0011, VR::IS, &(n + 1).to_string()));
            }
        });
        eligible(&package, &series)
    });
    let text = |reasons: Vec<Ineligible>| reasons.iter().map(|r| format!("{r} [{}]", r.code())).collect::<Vec<_>>().join("; ");
    package.best_of_each_study(answers.collect()).into_iter().map(|a| a.map(|e| e.preferred).map_err(text)).collect()
}

/// Of an ordinary series (number 1) and a changed one (number 2), the one that is taken, and why.
fn check_rank(rank: &str, change: impl Fn(&mut Vec<Slice>), best: usize, why: &str) {
    let answers = taken(&format!("[[select.rank]]\n{rank}"), &[&unchanged, &change]);
    let (best, other) = (best - 1, 2 - best);
    assert_eq!(answers[best], Ok(vec![format!("before series {} (1.2.3.{other}): {why}", other + 1)]), "{rank}");
    assert_eq!(answers[other], Err(format!("series {} (1.2.3.{best}) fits better: {why} [select.outranked]", best + 1)), "{rank}");
}

fn spaced(mm: f64) -> impl Fn(&mut Vec<Slice>) {
    move |slices| slices.iter_mut().enumerate().for_each(|(n, s)| s.position_mm[2] = mm * n as f64)
}

#[test]
fn the_first_rule_of_ranking_that_differs_decides() {
    check_rank("prefer = \"thinnest\"", spaced(1.0), 2, "thinner slices, 1.00 mm against 2.00 mm");
    check_rank("prefer = \"thinnest\"", spaced(5.0), 1, "thinner slices, 2.00 mm against 5.00 mm");
    check_rank("prefer = \"largest-coverage\"", spaced(5.0), 2, "larger extent, 50.0 mm against 20.0 mm");
    check_rank("prefer = \"most-slices\"", |s| s.truncate(6), 1, "more slices, 10 against 6");
    let finer = |s: &mut Vec<Slice>| s.iter_mut().for_each(|s| s.spacing_mm = [0.4, 0.4]);
    check_rank("prefer = \"finest-pixels\"", finer, 2, "finer pixels, 0.400 mm against 0.700 mm");
    let sharp = put(0x0018, 0x1210, VR::SH, "Bl57");
    check_rank("prefer = \"kernel\"\npatterns = [\"^Bl\", \"^Br\"]", &sharp, 2, "Convolution Kernel matches `^Bl` against `^Br`");
    check_rank("prefer = \"kernel\"\npatterns = [\"^Br\"]", &sharp, 1, "Convolution Kernel matches `^Br` against no pattern");
    let lung = put(0x0008, 0x103E, VR::LO, "Lung");
    check_rank("prefer = \"description\"\npatterns = [\"Lung\"]", lung, 2, "Series Description matches `Lung` against no pattern");
    let derived = |s: &mut Vec<Slice>| s.iter_mut().for_each(|s| s.image_type = "DERIVED\\PRIMARY\\AXIAL".into());
    let rank = "prefer = \"matching\"\ntag = \"ImageType\"\npatterns = [\"ORIGINAL\"]";
    check_rank(rank, derived, 1, "ImageType (0008,0008) matches `ORIGINAL` against no pattern");
    let low = put(0x0018, 0x0060, VR::DS, "80");
    check_rank("prefer = \"lowest\"\ntag = \"KVP\"", &low, 2, "lower KVP (0018,0060): 80 against 120");
    check_rank("prefer = \"highest\"\ntag = \"KVP\"", &low, 1, "higher KVP (0018,0060): 120 against 80");
    let dated = put(0x0008, 0x002A, VR::DT, "20260102030405");
    check_rank("prefer = \"newest\"", &dated, 2, "its time of acquisition is known");
    let equal = "equal by every rule of ranking, it has the lower series number or UID";
    check_rank("prefer = \"thinnest\"", unchanged, 1, equal);
    check_rank("prefer = \"thinnest\"", spaced(1.9999), 1, equal);
    check_rank("prefer = \"thinnest\"\n[[select.rank]]\nprefer = \"most-slices\"", |s| s.truncate(6), 1, "more slices, 10 against 6");
}

#[test]
fn what_does_not_fit_or_is_of_another_study_is_not_compared() {
    let other_study = |s: &mut Vec<Slice>| s.iter_mut().for_each(|s| s.study_uid = "1.2.9".into());
    let answers = taken("max_slice_spacing_mm = 3\n[[select.rank]]\nprefer = \"thinnest\"", &[&spaced(5.0), &unchanged, &other_study]);
    assert!(answers[0].as_ref().is_err_and(|e| e.contains("[select.spacing]")), "{answers:?}");
    assert_eq!(&answers[1..], [Ok(Vec::new()), Ok(Vec::new())]);
    let mut three = taken("[[select.rank]]\nprefer = \"thinnest\"", &[&unchanged, &spaced(1.0), &spaced(5.0)]);
    assert_eq!(three.remove(1).map(|p| p.len()), Ok(2));
    assert!(three.iter().all(Result::is_err));
}

/// A volume of 1 x 1.5 mm pixels, `slices` of them 3 mm apart, straight or with slices moved along their rows.
fn volume(slices: u32, shift_mm: f64) -> VolumeFile {
    let grid = Grid::new([4, 5, slices], Affine::from_columns([1., 0., 0.], [0., 1.5, 0.], [shift_mm, 0., 3.], [0.; 3])).expect("a grid");
    let header = VolumeHeader {
        format: Format::Nifti1,
        element: Element::I16,
        grid,
        unit: LengthUnit::Millimetre,
        rescale: Rescale { slope: 1.0, intercept: 0.0 },
        transform: Transform::Sform,
        notes: Vec::new(),
    };
    VolumeFile { path: "v.nii".into(), shown: "v.nii".into(), header }
}

/// Codes of the reasons against a volume, or what its values are taken as and how many warnings come with it.
fn check_volume(rules: &str, volume: &VolumeFile, expected: Result<(&str, usize), &[&str]>) {
    let found = package(rules).assess_volume(volume).answer();
    let found = match &found {
        Ok(taken) => Ok((taken.quantity.to_string(), taken.warnings.len())),
        Err(reasons) => Err(reasons.iter().map(|r| r.code()).collect::<Vec<_>>()),
    };
    assert_eq!(found, expected.map(|(q, n)| (q.to_owned(), n)).map_err(<[_]>::to_vec), "{rules}");
}

#[test]
fn a_volume_is_held_against_what_its_header_says() {
    let straight = volume(10, 0.0);
    let ct = "modality = [\"CT\"]\n";
    let with = |rule: &str| format!("{ct}{rule}");
    check_volume(ct, &straight, Ok(("hounsfield", 2)));
    check_volume("modality = [\"MR\"]", &straight, Ok(("arbitrary", 2)));
    check_volume("modality = [\"CT\", \"MR\"]", &straight, Ok(("arbitrary", 2)));
    check_volume(&with("quantity = \"any\""), &straight, Ok(("arbitrary", 2)));
    for silent in ["suv-bw", "activity-concentration", "optical-density", "real-world:mm2/s"] {
        check_volume(&with(&format!("quantity = \"{silent}\"")), &straight, Err(&["select.quantity"]));
    }
    check_volume(&with("min_slices = 11"), &straight, Err(&["select.slices"]));
    check_volume(&with("slice_spacing_mm = [0.1, 2.0]"), &straight, Err(&["select.spacing"]));
    check_volume(&with("pixel_spacing_mm = [0.1, 1.2]"), &straight, Err(&["select.pixel-spacing"]));
    check_volume(&with("coverage_mm = [31.0, inf]"), &straight, Err(&["select.coverage"]));
    check_volume(&with("orientation = [\"coronal\"]"), &straight, Err(&["select.orientation"]));
    check_volume(&with("orientation = [\"axial\"]\ncoverage_mm = [30.0, 30.0]"), &straight, Ok(("hounsfield", 2)));
    check_volume(ct, &volume(1, 0.0), Err(&["select.kind"]));
    check_volume(ct, &volume(10, 1.0), Err(&["series.sheared"]));
    check_volume(&with("geometry = \"split\""), &volume(10, 1.0), Err(&["series.sheared"]));
    check_volume(&with("geometry = \"resample\""), &volume(10, 1.0), Ok(("hounsfield", 2)));
}

#[test]
fn rules_that_no_file_can_answer_are_named() {
    let rules = "modality = [\"CT\"]\nbody_part = [\"CHEST\"]\nkernel = { any = [\"B\"] }\ncontrast = \"required\"\n\
        [[select.rule]]\ntag = \"KVP\"\nequals = [120]";
    let taken = package(rules).assess_volume(&volume(10, 0.0)).answer().expect("it is taken");
    assert!(taken.warnings[0].starts_with("not checked, since no NIfTI-1 file has: modality, body part, kernel, contrast, "), "{taken:?}");
    assert!(taken.warnings[0].ends_with("contrast, KVP (0018,0060)"), "{:?}", taken.warnings);
}
