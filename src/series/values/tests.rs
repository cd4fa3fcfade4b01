//! Headers made in code, and real ones, against what pydicom, highdicom and cornerstone make of them.

use std::path::{Path, PathBuf};

use dicom::core::value::DataSetSequence;
use dicom::core::{DataElement, PrimitiveValue, Tag, VR};

use super::*;
use crate::dataset::Instance;
use crate::geometry::Coded;

/// Data sets for tests: each call returns a changed copy.
trait With: Sized {
    fn text(self, tag: Tag, value: &str) -> Self;
    fn words(self, tag: Tag, values: &[u16]) -> Self;
    fn items(self, tag: Tag, items: Vec<InMemDicomObject>) -> Self;
    fn without(self, tag: Tag) -> Self;
}

impl With for InMemDicomObject {
    fn text(mut self, tag: Tag, value: &str) -> Self {
        let values = PrimitiveValue::Strs(value.split('\\').map(str::to_owned).collect());
        self.put(DataElement::new(tag, VR::LO, values));
        self
    }

    fn words(mut self, tag: Tag, values: &[u16]) -> Self {
        self.put(DataElement::new(tag, VR::US, PrimitiveValue::U16(values.iter().copied().collect())));
        self
    }

    fn items(mut self, tag: Tag, items: Vec<InMemDicomObject>) -> Self {
        self.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
        self
    }

    fn without(mut self, tag: Tag) -> Self {
        self.remove_element(tag);
        self
    }
}

fn empty() -> InMemDicomObject {
    InMemDicomObject::new_empty()
}

fn rescaled(modality: &str, slope: &str, intercept: &str) -> InMemDicomObject {
    empty().text(tags::MODALITY, modality).text(tags::RESCALE_SLOPE, slope).text(tags::RESCALE_INTERCEPT, intercept)
}

fn of(object: &InMemDicomObject) -> Result<PhysicalValues, Vec<ValueReason>> {
    physical_values(&[FrameContext::of_single(object)], &text(object, tags::MODALITY))
}

fn wanting(object: &InMemDicomObject, wanted: &str) -> Result<PhysicalValues, Vec<ValueReason>> {
    let wanted = wanted.parse().expect("a quantity");
    physical_values_as(&[FrameContext::of_single(object)], &text(object, tags::MODALITY), wanted)
}

fn codes<T: std::fmt::Debug>(found: Result<T, Vec<ValueReason>>) -> Vec<&'static str> {
    found.expect_err("refused").iter().map(Coded::code).collect()
}

#[track_caller]
fn check(object: &InMemDicomObject, quantity: &str, stored: i64, physical: f64) -> Vec<String> {
    let found = of(object).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    assert_eq!(found.quantity.to_string(), quantity, "{:?}", found.notes);
    assert_eq!(found.mappings[0].apply(stored), physical);
    found.notes
}

#[test]
fn ct_is_in_hounsfield_units_where_nothing_says_otherwise() {
    let ct = || rescaled("CT", "1", "-1024");
    assert!(check(&ct(), "hounsfield", 1000, -24.0).is_empty());
    assert!(check(&ct().text(tags::RESCALE_TYPE, "HU"), "hounsfield", 1000, -24.0).is_empty());
    for (tag, value) in [
        (tags::RESCALE_TYPE, "US"),
        (tags::RESCALE_TYPE, "HU_MOD"),
        (tags::IMAGE_TYPE, "DERIVED\\SECONDARY\\AXIAL\\CBF"),
        (tags::IMAGE_TYPE, "ORIGINAL\\PRIMARY\\LOCALIZER"),
        (tags::MULTIENERGY_CT_ACQUISITION, "YES"),
    ] {
        let notes = check(&ct().text(tag, value), "arbitrary", 1000, -24.0);
        assert!(notes[0].ends_with("values are not taken as Hounsfield units"), "{notes:?}");
        assert_eq!(codes(wanting(&ct().text(tag, value), "hounsfield")), ["series.other-quantity"]);
    }
    let energetic = ct().text(tags::MULTIENERGY_CT_ACQUISITION, "YES");
    check(&energetic.clone().text(tags::RESCALE_TYPE, "HU"), "hounsfield", 0, -1024.0);
    check(&energetic.clone().text(tags::IMAGE_TYPE, "DERIVED\\PRIMARY\\AXIAL\\VMI"), "hounsfield", 0, -1024.0);
    check(&energetic.text(tags::RESCALE_TYPE, "MGML"), "real-world:mg/ml", 0, -1024.0);
    check(&rescaled("CT", " 2.5E-1", "-1.0240000000000000000001 "), "hounsfield", 4, 0.25 * 4.0 - 1.024);
}

#[test]
fn bad_rescale_is_refused() {
    let mr = || rescaled("MR", "2", "1");
    assert!(check(&mr(), "arbitrary", 3, 7.0).is_empty());
    assert!(check(&empty().text(tags::MODALITY, "MR"), "arbitrary", 3, 3.0).is_empty());
    assert_eq!(codes(of(&mr().without(tags::RESCALE_SLOPE))), ["series.half-rescale"]);
    assert_eq!(codes(of(&mr().without(tags::RESCALE_INTERCEPT))), ["series.half-rescale"]);
    assert_eq!(codes(of(&mr().text(tags::RESCALE_SLOPE, "0"))), ["series.zero-slope"]);
    for bad in ["NaN", "inf", "1,5", "1\\2", "x"] {
        assert_eq!(codes(of(&mr().text(tags::RESCALE_SLOPE, bad))), ["series.bad-rescale"], "{bad}");
    }
    for modality in ["CT", "PT"] {
        assert_eq!(codes(of(&empty().text(tags::MODALITY, modality))), ["series.no-rescale"]);
    }
    let notes = check(&mr().text(tags::RESCALE_TYPE, "HU"), "arbitrary", 3, 7.0);
    assert!(notes[0].contains("not CT"), "{notes:?}");
    check(&rescaled("CR", "0.684", "0").text(tags::RESCALE_TYPE, "OD"), "optical-density", 1000, 684.0);
}

#[test]
fn frames_have_their_own_mappings() {
    let transformed = |slope: &str, kind: &str| {
        let item = empty().text(tags::RESCALE_SLOPE, slope).text(tags::RESCALE_INTERCEPT, "1").text(tags::RESCALE_TYPE, kind);
        empty().items(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![item])
    };
    let (one, two, shared) = (transformed("2", "US"), transformed("3", "US"), transformed("5", "US"));
    let root = rescaled("MR", "7", "0");
    let none = empty();
    let frame = |per_frame| FrameContext { per_frame: Some(per_frame), shared: Some(&shared), root: &root };
    let found = physical_values(&[frame(&one), frame(&two), frame(&none)], "MR").expect("all are there");
    assert_eq!(found.mappings.iter().map(|m| m.apply(10)).collect::<Vec<_>>(), [21.0, 31.0, 51.0]);

    let (hounsfield, zero) = (transformed("1", "HU"), transformed("0", "HU"));
    let reasons = physical_values(&[frame(&hounsfield), frame(&one), frame(&zero), frame(&zero)], "CT").expect_err("mixed");
    assert_eq!(reasons.iter().map(Coded::code).collect::<Vec<_>>(), ["series.zero-slope", "series.mixed-quantities"]);
    assert_eq!(reasons[0].to_string(), "Rescale Slope is 0 (2 of 4 frames)");
    assert!(reasons[1].to_string().starts_with("frames of 2 quantities in one stack (hounsfield and arbitrary"), "{}", reasons[1]);
}

fn lut(descriptor: &[u16], data: &[u16]) -> InMemDicomObject {
    let item = empty().words(tags::LUT_DESCRIPTOR, descriptor).words(tags::LUT_DATA, data).text(tags::MODALITY_LUT_TYPE, "US");
    empty().text(tags::MODALITY, "CR").items(tags::MODALITY_LUT_SEQUENCE, vec![item])
}

#[test]
fn tables_clamp_at_their_ends() {
    let table = lut(&[4, 2, 16], &[10, 20, 30, 65535]);
    for (stored, physical) in [(-5, 10.0), (0, 10.0), (2, 10.0), (3, 20.0), (5, 65535.0), (6, 65535.0), (i64::MAX, 65535.0)] {
        check(&table, "arbitrary", stored, physical);
    }
    // The first value mapped is signed where pixels are.
    let signed = lut(&[4, 65534, 16], &[10, 20, 30, 40]).words(tags::PIXEL_REPRESENTATION, &[1]);
    check(&signed, "arbitrary", -1, 20.0);
    check(&lut(&[4, 65534, 16], &[10, 20, 30, 40]), "arbitrary", 65535, 20.0);
    // 65 536 entries are written as 0.
    let whole: Vec<u16> = (0..=u16::MAX).rev().collect();
    check(&lut(&[0, 0, 16], &whole), "arbitrary", 1, 65534.0);
    // Beside slope and intercept.
    let both = lut(&[2, 0, 16], &[5, 6]).text(tags::RESCALE_SLOPE, "1").text(tags::RESCALE_INTERCEPT, "0");
    let notes = check(&both, "arbitrary", 1, 6.0);
    assert!(notes[0].contains("the table is used"), "{notes:?}");
}

#[test]
fn entries_of_8_bits_come_packed_or_not() {
    check(&lut(&[3, 0, 8], &[10, 20, 255]), "arbitrary", 2, 255.0);
    // 20 | 10, 0 (padding) | 255 as little endian words.
    check(&lut(&[3, 0, 8], &[0x140a, 0x00ff]), "arbitrary", 1, 20.0);
    check(&lut(&[3, 0, 8], &[0x140a, 0x00ff]), "arbitrary", 2, 255.0);
}

#[test]
fn bad_tables_are_refused() {
    for (descriptor, data, code) in [
        (&[4u16, 0, 16][..], &[1u16, 2, 3][..], "series.lut-length"),
        (&[2, 0, 16], &[1, 2, 3], "series.lut-length"),
        (&[0, 0, 16], &[1, 2, 3], "series.lut-length"),
        (&[2, 0, 16], &[], "series.lut-length"),
        (&[2, 0, 32], &[1, 2], "series.lut-bits"),
        (&[2, 0, 0], &[1, 2], "series.lut-bits"),
        (&[2, 0], &[1, 2], "series.lut-descriptor"),
        (&[], &[1, 2], "series.lut-descriptor"),
        (&[2, 0, 10], &[1, 1024], "series.lut-entries"),
    ] {
        assert_eq!(codes(of(&lut(descriptor, data))), [code], "{descriptor:?} {data:?}");
    }
}

fn coded(tag: Tag, value: &str, scheme: &str, object: InMemDicomObject) -> InMemDicomObject {
    let item = empty().text(tags::CODE_VALUE, value).text(tags::CODING_SCHEME_DESIGNATOR, scheme).text(tags::CODE_MEANING, "Doe^Jane");
    object.items(tag, vec![item])
}

/// A Real World Value Mapping of stored 0 to 4095, as highdicom writes it.
fn real_world(unit: &str, slope: f64, intercept: f64) -> InMemDicomObject {
    let item = coded(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, unit, "UCUM", empty());
    let mut item = item.words(tags::REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, &[0]).words(tags::REAL_WORLD_VALUE_LAST_VALUE_MAPPED, &[4095]);
    item.put(DataElement::new(tags::REAL_WORLD_VALUE_SLOPE, VR::FD, PrimitiveValue::from(slope)));
    item.put(DataElement::new(tags::REAL_WORLD_VALUE_INTERCEPT, VR::FD, PrimitiveValue::from(intercept)));
    item
}

fn measuring(property: &str, item: InMemDicomObject) -> InMemDicomObject {
    let content = coded(tags::CONCEPT_NAME_CODE_SEQUENCE, "246205007", "SCT", empty());
    item.items(tags::QUANTITY_DEFINITION_SEQUENCE, vec![coded(tags::CONCEPT_CODE_SEQUENCE, property, "DCM", content)])
}

fn mr_with(items: Vec<InMemDicomObject>) -> InMemDicomObject {
    rescaled("MR", "2", "0").words(tags::BITS_STORED, &[12]).items(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE, items)
}

/// highdicom 0.27, `RealWorldValueMapping(lut_label="x", lut_explanation="x", unit=Code("um2/s", "UCUM", "um2/s"),
/// value_range=(0, 4095), slope=0.25, intercept=-3.5).apply(np.array([0, 100, 4095]))`: `[-3.5, 21.5, 1020.25]`.
/// With `value_range=(2, 5), lut_data=[0.5, 1.25, -3, 7]`, of `[2, 3, 4, 5]`: `[0.5, 1.25, -3.0, 7.0]`.
#[test]
fn real_world_values_count_where_the_rescale_has_no_unit() {
    let adc = mr_with(vec![measuring("113041", real_world("um2/s", 0.25, -3.5))]);
    for (stored, physical) in [(0, -3.5), (100, 21.5), (4095, 1020.25)] {
        let notes = check(&adc, "real-world:um2/s:113041", stored, physical);
        assert_eq!(notes, ["values are real-world values (real-world:um2/s:113041), item 1 of 1 Real World Value Mappings"]);
    }
    let notes = check(&adc.clone().words(tags::BITS_STORED, &[16]), "real-world:um2/s:113041", 0, -3.5);
    assert!(notes[1].contains("does not cover"), "{notes:?}");

    let mut table = measuring("113041", real_world("um2/s", 0.0, 0.0))
        .words(tags::REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, &[2])
        .words(tags::REAL_WORLD_VALUE_LAST_VALUE_MAPPED, &[5]);
    table.put(DataElement::new(tags::REAL_WORLD_VALUE_LUT_DATA, VR::FD, PrimitiveValue::F64(vec![0.5, 1.25, -3.0, 7.0].into())));
    for (stored, physical) in [(2, 0.5), (3, 1.25), (4, -3.0), (5, 7.0), (6, 7.0)] {
        let notes = check(&mr_with(vec![table.clone()]), "real-world:um2/s:113041", stored, physical);
        assert!(notes[1].contains("its ends are used"), "{notes:?}");
    }
}

#[test]
fn real_world_values_without_meaning_are_not_used() {
    let no_unit = || real_world("1", 9.0, 0.0);
    let unknown = || real_world("Doe^Jane", 9.0, 0.0);
    let broken = || real_world("um2/s", 0.0, 0.0);
    for item in [no_unit(), unknown(), broken(), measuring("110852", no_unit())] {
        assert_eq!(check(&mr_with(vec![item]), "arbitrary", 3, 6.0), ["1 Real World Value Mappings are not used"]);
    }
    check(&mr_with(vec![measuring("110808", no_unit())]), "real-world:1:110808", 3, 27.0);
    // The second is the first that can be used; it can also be asked for.
    let several = mr_with(vec![no_unit(), real_world("mm2/s", 0.5, 0.0), real_world("%", 4.0, 0.0)]);
    let notes = check(&several, "real-world:mm2/s", 3, 1.5);
    assert!(!format!("{notes:?}").contains("Doe"), "{notes:?}");
    let found = wanting(&several, "real-world:%").expect("it is there");
    assert_eq!(found.mappings[0].apply(3), 12.0);
    assert_eq!(codes(wanting(&several, "real-world:Cel")), ["series.other-quantity"]);
    // CT's own rescale goes first; without it the mapping is what there is.
    let ct = |item| rescaled("CT", "1", "-1024").items(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE, vec![item]);
    check(&ct(real_world("mg/ml", 2.0, 0.0)), "hounsfield", 24, -1000.0);
    let bare = ct(real_world("[hnsf'U]", 2.0, -1000.0)).without(tags::RESCALE_SLOPE).without(tags::RESCALE_INTERCEPT);
    check(&bare, "hounsfield", 100, -800.0);
    check(&ct(real_world("[hnsf'U]", 2.0, -1000.0)).text(tags::RESCALE_TYPE, "US"), "hounsfield", 100, -800.0);
}

/// A PET as cornerstone's `calculate-suv` 1.1.0 has it in its examples. 374 MBq an hour before the scan, 75 kg, 1.75 m, a man.
fn pet() -> InMemDicomObject {
    let given = empty()
        .text(tags::RADIONUCLIDE_TOTAL_DOSE, "374000000")
        .text(tags::RADIONUCLIDE_HALF_LIFE, "6586.2")
        .text(tags::RADIOPHARMACEUTICAL_START_DATE_TIME, "20140618083045.00");
    rescaled("PT", "2", "0")
        .text(tags::UNITS, "BQML")
        .text(tags::CORRECTED_IMAGE, "DECY\\ATTN\\SCAT")
        .text(tags::DECAY_CORRECTION, "START")
        .text(tags::PATIENT_WEIGHT, "75")
        .text(tags::PATIENT_SIZE, "1.75")
        .text(tags::PATIENT_SEX, "M")
        .text(tags::SERIES_DATE, "20140618")
        .text(tags::SERIES_TIME, "093045")
        .text(tags::ACQUISITION_DATE, "20140618")
        .text(tags::ACQUISITION_TIME, "093045")
        .items(tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE, vec![given])
}

/// `pet` with its administration changed.
fn given(change: impl FnOnce(InMemDicomObject) -> InMemDicomObject) -> InMemDicomObject {
    let item = items(&pet(), tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE)[0].clone();
    pet().items(tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE, vec![change(item)])
}

#[track_caller]
fn check_suv(object: &InMemDicomObject, kind: &str, factor: f64) -> Vec<String> {
    let found = wanting(object, kind).unwrap_or_else(|reasons| panic!("{reasons:?}"));
    assert_eq!(found.quantity.to_string(), kind);
    let (at_zero, at_one) = (found.mappings[0].apply(0), found.mappings[0].apply(1));
    assert_eq!(at_zero, 0.0);
    assert!((at_one / (2.0 * factor) - 1.0).abs() < 1e-12, "{} is not {factor}", at_one / 2.0);
    found.notes
}

/// ```js
/// const { calculateSUVScalingFactors: f } = require("@cornerstonejs/calculate-suv"); // 1.1.0
/// const base = { CorrectedImage: ["DECY", "ATTN"], Units: "BQML", PatientWeight: 75, PatientSize: 1.75, PatientSex: "M",
///   RadionuclideTotalDose: 374000000, RadionuclideHalfLife: 6586.2, RadiopharmaceuticalStartDateTime: "20140618083045.00",
///   SeriesDate: "20140618", SeriesTime: "093045", AcquisitionDate: "20140618", AcquisitionTime: "093045" };
/// for (const change of [{}, { PatientSex: "F", PatientWeight: 62.5, PatientSize: 1.62 },
///   { SeriesDate: "20140619", SeriesTime: "120000", GEPrivatePostInjectionDateTime: "20140618093000.00" },
///   { SeriesDate: "20140619", SeriesTime: "120000", AcquisitionTime: "093545.5" }])
///   console.log(JSON.stringify(f([{ ...base, ...change }])[0]));
/// ```
#[test]
fn uptake_is_what_cornerstone_computes() {
    let man = pet();
    let notes = check_suv(&man, "suv-bw", 0.000_292_908_438_413_467_3);
    assert_eq!(notes, ["SUV: decay of the dose is counted to the Series Time"]);
    check_suv(&man, "suv-bsa", 0.000_074_325_966_620_465_82);
    check_suv(&man, "suv-lbm", 0.000_236_120_067_700_653_04);
    check_suv(&man, "suv-lbm-janma", 0.000_226_842_733_377_463_2);
    let woman = pet().text(tags::PATIENT_SEX, "F").text(tags::PATIENT_WEIGHT, "62.5").text(tags::PATIENT_SIZE, "1.62");
    check_suv(&woman, "suv-bw", 0.000_244_090_365_344_556_9);
    check_suv(&woman, "suv-bsa", 0.000_065_040_569_700_362_38);
    check_suv(&woman, "suv-lbm", 0.000_175_144_230_949_267_62);
    check_suv(&woman, "suv-lbm-janma", 0.000_155_077_831_375_592_5);

    let remade = pet().text(tags::SERIES_DATE, "20140619").text(tags::SERIES_TIME, "120000");
    let ge = remade.clone().text(Tag(0x0009, 0x0010), "GEMS_PETD_01").text(Tag(0x0009, 0x100d), "20140618093000.00");
    let notes = check_suv(&ge, "suv-bw", 0.000_291_524_531_239_419_9);
    assert!(notes[0].contains("GE's scan time"), "{notes:?}");
    let notes = check_suv(&remade.text(tags::ACQUISITION_TIME, "093545.5"), "suv-bw", 0.000_302_319_797_782_776_96);
    assert!(notes[0].contains("earliest Acquisition Time"), "{notes:?}");
}

/// By hand. Of the man: James with 128 is 1.10 x 75 - 128 x (75 / 175)² = 58.98979592 kg, ideal 48.0 + 1.06 x 23 = 72.38 kg; the dose
/// of 374 MBq is 374e6 x 2^(-3600 / 6586.2) = 256052711.91992882 Bq after an hour.
#[test]
fn uptake_by_hand() {
    let dose = 256_052_711.919_928_8;
    check_suv(&pet(), "suv-lbm-james128", (82.5 - 128.0 * 9.0 / 49.0) * 1000.0 / dose);
    check_suv(&pet(), "suv-ibw", 72_380.0 / dose);
    // Corrected to the administration: nothing of the dose has decayed, and no times are needed.
    let admin = pet().text(tags::DECAY_CORRECTION, "ADMIN").without(tags::SERIES_TIME).without(tags::ACQUISITION_TIME);
    check_suv(&admin, "suv-bw", 75_000.0 / 374e6);
    // A frame of 120 s has its mean count rate after 59.9368546725962 s, ln(x / (1 - exp(-x))) / λ with x = 120 λ, λ = ln 2 / 6586.2.
    // With Frame Reference Time 359.9368546725962 s, the scan began 300 s before the acquisition.
    let led_back = pet()
        .text(tags::SERIES_DATE, "20140619")
        .text(tags::ACQUISITION_TIME, "093545")
        .text(tags::FRAME_REFERENCE_TIME, "359936.8546725962")
        .text(tags::ACTUAL_FRAME_DURATION, "120000");
    let notes = check_suv(&led_back, "suv-bw", 75_000.0 / dose);
    assert!(notes[0].contains("Frame Reference Time"), "{notes:?}");
}

#[test]
fn injections_before_midnight_and_in_other_zones() {
    let timed =
        |time: &str| given(|g| g.without(tags::RADIOPHARMACEUTICAL_START_DATE_TIME).text(tags::RADIOPHARMACEUTICAL_START_TIME, time));
    let factor = |decay_s: f64| 75_000.0 / (374e6 * (-decay_s / 6586.2).exp2());
    check_suv(&timed("083045"), "suv-bw", factor(3600.0));
    let early = timed("234500").text(tags::SERIES_TIME, "001500").text(tags::ACQUISITION_TIME, "001500");
    check_suv(&early, "suv-bw", factor(1800.0));
    // A scan that begins two minutes before the injection is a dynamic one.
    check_suv(&timed("093245"), "suv-bw", factor(-120.0));
    // Half an hour before is the day before, and then nothing would be left.
    assert_eq!(codes(wanting(&timed("100045"), "suv-bw")), ["suv.too-late"]);
    let zoned = given(|g| g.text(tags::RADIOPHARMACEUTICAL_START_DATE_TIME, "20140618063045+0000"));
    check_suv(&zoned.clone().text(tags::TIMEZONE_OFFSET_FROM_UTC, "+0200"), "suv-bw", factor(3600.0));
    check_suv(&zoned, "suv-bw", factor(10_800.0));
    let late = given(|g| g.text(tags::RADIOPHARMACEUTICAL_START_DATE_TIME, "20140618103045"));
    let reasons = wanting(&late, "suv-bw").expect_err("an hour before the injection");
    let said = "no suv-bw: the acquisition begins 60 minutes before the injection, 5 are allowed (1 of 1 frames)";
    assert_eq!(reasons[0].to_string(), said);
}

#[test]
fn what_is_missing_or_contradictory_is_named_without_its_value() {
    let start = tags::RADIOPHARMACEUTICAL_START_DATE_TIME;
    let clock = tags::RADIOPHARMACEUTICAL_START_TIME;
    let sequence = tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE;
    let secret = "6543.21";
    for (object, code, named) in [
        (pet().without(tags::PATIENT_WEIGHT), "suv.missing", "Patient's Weight"),
        (pet().text(tags::PATIENT_WEIGHT, "0"), "suv.missing", "Patient's Weight"),
        (pet().text(tags::PATIENT_WEIGHT, secret), "suv.implausible", "Patient's Weight"),
        (pet().text(tags::PATIENT_WEIGHT, "6543.21 kg"), "suv.unreadable", "Patient's Weight"),
        (pet().without(tags::CORRECTED_IMAGE), "suv.not-corrected", "attenuation"),
        (pet().text(tags::CORRECTED_IMAGE, "DECY"), "suv.not-corrected", "attenuation"),
        (pet().text(tags::CORRECTED_IMAGE, "ATTN"), "suv.not-corrected", "decay"),
        (pet().text(tags::DECAY_CORRECTION, "NONE"), "suv.decay-correction", "Decay Correction"),
        (pet().without(tags::DECAY_CORRECTION), "suv.decay-correction", "Decay Correction"),
        (pet().without(tags::ACQUISITION_TIME), "suv.missing", "Acquisition Date and Time"),
        (pet().text(tags::SERIES_TIME, "***"), "suv.unreadable", "Series Date and Time"),
        (pet().without(sequence), "suv.radiopharmaceuticals", "0 items"),
        (pet().items(sequence, vec![empty(), empty()]), "suv.radiopharmaceuticals", "2 items"),
        (given(|g| g.text(tags::RADIONUCLIDE_TOTAL_DOSE, "0")), "suv.missing", "Total Dose"),
        (given(|g| g.text(tags::RADIONUCLIDE_TOTAL_DOSE, "374")), "suv.implausible", "Total Dose"),
        (given(|g| g.without(tags::RADIONUCLIDE_HALF_LIFE)), "suv.missing", "Half Life"),
        (given(|g| g.without(start)), "suv.missing", "Start DateTime"),
        (given(|g| g.text(start, "20140618")), "suv.unreadable", "Start DateTime"),
        (given(|g| g.text(clock, "090000")), "suv.contradictory", "Start DateTime and Start Time"),
        (given(|g| g.text(start, "20130618083045")), "suv.too-late", "10 half-lives"),
        (
            given(|g| g.without(start).text(clock, "083045").text(tags::RADIONUCLIDE_HALF_LIFE, "282276")),
            "suv.no-injection-date",
            "6 hours",
        ),
        (pet().text(tags::UNITS, "CNTS"), "suv.uncalibrated", "scale factor"),
        (pet().text(tags::UNITS, "CPS"), "suv.values", "real-world:{counts}/s"),
        (pet().text(tags::UNITS, "GML").text(tags::SUV_TYPE, "LBM"), "suv.values", "suv-lbm"),
    ] {
        let reasons = wanting(&object, "suv-bw").expect_err(named);
        let said = reasons[0].to_string();
        assert_eq!((reasons[0].code(), said.contains(named), said.contains(secret)), (code, true, false), "{said}");
        // Without a wish for SUVs it is loaded as it is.
        of(&object).expect("its own quantity is known");
    }
    let notes = check(&pet().without(tags::PATIENT_WEIGHT), "activity-concentration", 1, 2.0);
    assert_eq!(notes, ["no suv-bw can be computed: Patient's Weight is missing"]);
    for (object, kind, code) in [
        (pet().without(tags::PATIENT_SIZE), "suv-lbm", "suv.missing"),
        (pet().text(tags::PATIENT_SIZE, "175"), "suv-bsa", "suv.implausible"),
        (pet().text(tags::PATIENT_SEX, "O"), "suv-lbm-janma", "suv.implausible"),
        (pet().text(tags::PATIENT_WEIGHT, "290"), "suv-lbm", "suv.no-lean-mass"),
        (rescaled("NM", "1", "0"), "suv-bw", "suv.not-pet"),
    ] {
        assert_eq!(codes(wanting(&object, kind)), [code]);
    }
}

#[test]
fn frames_of_a_series_must_agree_on_the_patient_and_share_one_start() {
    let first = pet().text(tags::ACQUISITION_TIME, "094000");
    let second = pet().text(tags::RESCALE_SLOPE, "3");
    let frames = [FrameContext::of_single(&first), FrameContext::of_single(&second)];
    let bw = Quantity::Suv(SuvKind::Bw);
    let found = physical_values_as(&frames, "PT", bw).expect("they agree");
    let factor = 0.000_292_908_438_413_467_3;
    for (mapping, slope) in found.mappings.iter().zip([2.0, 3.0]) {
        assert!((mapping.apply(1) / (slope * factor) - 1.0).abs() < 1e-12);
    }
    let heavier = pet().text(tags::PATIENT_WEIGHT, "76");
    let frames = [FrameContext::of_single(&first), FrameContext::of_single(&heavier)];
    assert_eq!(codes(physical_values_as(&frames, "PT", bw)), ["suv.contradictory"]);
}

#[test]
fn counts_of_philips_are_calibrated_by_philips() {
    let philips = |element: u16, factor: &str| {
        pet().text(tags::UNITS, "CNTS").text(Tag(0x7053, 0x0010), "Philips PET Private Group").text(Tag(0x7053, 0x1000 | element), factor)
    };
    check(&philips(0x00, "0.000551"), "real-world:{counts}", 1, 2.0);
    check_suv(&philips(0x00, "0.000551"), "suv-bw", 0.000_551);
    assert_eq!(codes(wanting(&philips(0x00, "0.000551"), "suv-lbm")), ["suv.uncalibrated"]);
    assert_eq!(codes(wanting(&philips(0x00, "0"), "suv-bw")), ["suv.uncalibrated"]);
    check_suv(&philips(0x09, "1.5"), "suv-bw", 1.5 * 0.000_292_908_438_413_467_3);
    check_suv(&philips(0x09, "1.5"), "activity-concentration", 1.5);
    assert_eq!(codes(wanting(&philips(0x00, "0.000551"), "activity-concentration")), ["series.other-quantity"]);
    // The same elements of another owner are something else.
    let other = philips(0x00, "0.000551").text(Tag(0x7053, 0x0010), "SOMEBODY");
    assert_eq!(codes(wanting(&other, "suv-bw")), ["suv.uncalibrated"]);
}

#[test]
fn units_of_pet() {
    check(&pet(), "activity-concentration", 1, 2.0);
    let gml = |kind: &str| pet().text(tags::UNITS, "GML").text(tags::SUV_TYPE, kind);
    for (kind, quantity) in [("", "suv-bw"), ("BW", "suv-bw"), ("LBM", "suv-lbm"), ("LBMJAMES128", "suv-lbm-james128"), ("IBW", "suv-ibw")]
    {
        check(&gml(kind), quantity, 1, 2.0);
        check_suv(&gml(kind), quantity, 1.0);
    }
    assert_eq!(codes(of(&gml("BSA"))), ["series.suv-type"]);
    assert_eq!(codes(of(&gml("Doe"))), ["series.suv-type"]);
    check(&pet().text(tags::UNITS, "CM2ML"), "suv-bsa", 1, 2.0);
    assert_eq!(codes(of(&pet().text(tags::UNITS, "CM2ML").text(tags::SUV_TYPE, "BW"))), ["series.suv-type"]);
    check(&pet().text(tags::UNITS, "PROPCPS"), "real-world:{propcounts}/s", 1, 2.0);
    check(&pet().without(tags::UNITS), "arbitrary", 1, 2.0);
    check(&pet().text(tags::UNITS, "STDDEV"), "arbitrary", 1, 2.0);
}

#[test]
fn enhanced_pet_says_what_it_was_corrected_to() {
    let sequence = tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE;
    let enhanced = pet()
        .without(tags::UNITS)
        .without(tags::CORRECTED_IMAGE)
        .without(tags::DECAY_CORRECTION)
        .text(tags::DECAY_CORRECTED, "YES")
        .text(tags::ATTENUATION_CORRECTED, "YES")
        .text(tags::DECAY_CORRECTION_DATE_TIME, "20140618093045")
        .items(sequence, vec![real_world("Bq/ml", 2.0, 0.0)]);
    check(&enhanced, "activity-concentration", 1, 2.0);
    check_suv(&enhanced, "suv-bw", 0.000_292_908_438_413_467_3);
    assert_eq!(codes(wanting(&enhanced.clone().text(tags::DECAY_CORRECTED, "NO"), "suv-bw")), ["suv.not-corrected"]);
    // A mapping of the maker is better than our computation; both spellings of the unit are read.
    for unit in ["g/ml{SUVbw}", "{SUVbw}g/ml"] {
        let mapped = enhanced.clone().items(sequence, vec![real_world("Bq/ml", 2.0, 0.0), real_world(unit, 0.5, 0.0)]);
        check_suv(&mapped, "suv-bw", 0.25);
        check_suv(&pet().items(sequence, vec![real_world(unit, 0.5, 0.0)]), "suv-bw", 0.25);
    }
}

#[test]
fn windows_are_kept() {
    let object = empty().text(tags::WINDOW_CENTER, "40\\-600\\x\\0").text(tags::WINDOW_WIDTH, "400\\1500\\1\\0.5");
    let context = FrameContext::of_single(&object);
    let found = windows(&context);
    let pairs: Vec<_> = found.iter().map(|w| (w.centre, w.width, w.function)).collect();
    assert_eq!(pairs, [(40.0, 400.0, WindowFunction::Linear), (-600.0, 1500.0, WindowFunction::Linear)]);
    // pydicom 3.0.2: PS3.3 C.11.2.1.2, `apply_windowing`.
    assert_eq!((found[0].grey(-160.0), found[0].grey(239.0), found[0].grey(39.5)), (0.0, 1.0, 0.5));
    let exact = VoiWindow { function: WindowFunction::LinearExact, ..found[0] };
    assert_eq!((exact.grey(-160.0), exact.grey(240.0), exact.grey(140.0)), (0.0, 1.0, 0.75));
    let sigmoid = VoiWindow { function: WindowFunction::Sigmoid, ..found[0] };
    assert_eq!(sigmoid.grey(40.0), 0.5);
    assert!((sigmoid.grey(140.0) - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-15);
    for value in [-200.0, -160.0, 0.0, 39.5, 100.0, 239.0, 300.0] {
        for window in [found[0], exact, sigmoid] {
            assert!((window.grey(value) - window.times(0.003).grey(0.003 * value)).abs() < 1e-9, "{value} {window:?}");
        }
    }
    let frame = empty().items(
        tags::FRAME_VOILUT_SEQUENCE,
        vec![empty().text(tags::WINDOW_CENTER, "1").text(tags::WINDOW_WIDTH, "0.5").text(tags::VOILUT_FUNCTION, "SIGMOID")],
    );
    let found = windows(&FrameContext { per_frame: Some(&frame), shared: None, root: &object });
    assert_eq!(found, [VoiWindow { centre: 1.0, width: 0.5, function: WindowFunction::Sigmoid }]);
    assert!(!has_voi_lut(&context));
    let with_lut = empty().items(tags::VOILUT_SEQUENCE, vec![empty()]);
    assert!(has_voi_lut(&FrameContext::of_single(&with_lut)));
}

#[test]
fn padding_is_told() {
    let padded = |value: u16, signed: u16| {
        rescaled("CT", "1", "0").words(tags::PIXEL_PADDING_VALUE, &[value]).words(tags::PIXEL_REPRESENTATION, &[signed])
    };
    let of_single = |o: &InMemDicomObject| padding(&FrameContext::of_single(o));
    assert_eq!(of_single(&padded(63536, 1)), Some(-2000..=-2000));
    assert_eq!(of_single(&padded(63536, 0)), Some(63536..=63536));
    let range = padded(63536, 1).words(tags::PIXEL_PADDING_RANGE_LIMIT, &[64536]);
    assert_eq!(of_single(&range), Some(-2000..=-1000));
    assert_eq!(of_single(&padded(5, 0).words(tags::PIXEL_PADDING_RANGE_LIMIT, &[2])), Some(2..=5));
    assert_eq!(of_single(&empty()), None);
    let notes = check(&padded(63536, 1), "hounsfield", -2000, -2000.0);
    assert_eq!(notes, ["Pixel Padding Value marks pixels without image; they stay as stored"]);
}

/// A file of the shared test data, or nothing, which is said.
fn real(path: &str) -> Option<Instance> {
    let shared =
        std::env::var_os("ROENTGEN_TEST_DATA").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let found = [shared.join("data"), shared].into_iter().map(|f| f.join(path)).find(|f| f.is_file());
    if found.is_none() {
        println!("skipped: no test data");
    }
    found.map(|path| Instance::read(&path).expect("its header is sound"))
}

/// pydicom 3.0.2:
/// `apply_modality_lut(np.array([-3000, -2048, -1, 0, 100, 2047, 5000], "int32"), pydicom.dcmread("xray-2d/mlut_18.dcm"))` and
/// `apply_modality_lut(np.array([0, 1, 500, 1023, 4000], "uint16"), pydicom.dcmread("xray-2d/CR-ModalitySequenceLUT.dcm"))`.
#[test]
fn tables_of_real_radiographs_are_pydicoms() {
    let Some(instance) = real("xray-2d/mlut_18.dcm") else { return };
    let expected = [(-3000, 0.0), (-2048, 0.0), (-1, 32759.0), (0, 32776.0), (100, 34376.0), (2047, 65535.0), (5000, 65535.0)];
    for (stored, physical) in expected {
        assert!(check(instance.header().expect("parsed"), "arbitrary", stored, physical).is_empty());
    }
    let Some(instance) = real("xray-2d/CR-ModalitySequenceLUT.dcm") else { return };
    for (stored, physical) in [(0, 0.0), (1, 0.0), (500, 535.0), (1023, 1023.0), (4000, 1023.0)] {
        let notes = check(instance.header().expect("parsed"), "arbitrary", stored, physical);
        assert_eq!(notes, ["Rescale Slope and Intercept stand beside a Modality LUT Sequence; the table is used"]);
    }
}

/// Slopes as pydicom reads them, `ds.PerFrameFunctionalGroupsSequence[n].PixelValueTransformationSequence[0].RescaleSlope`.
#[test]
fn frames_of_real_enhanced_objects() {
    for (path, modality, frames, slope) in [
        ("mr-enhanced/philips-8frames/IM-0001-0170-0001.dcm", "MR", 8, 4.258_852_258_852_25),
        ("mr-enhanced/siemens-8frames/IM-0001-0001-0001.dcm", "MR", 8, 1.0),
        ("transfer-syntaxes/fragments-and-offset-tables/CT0012.explicit_little_endian.dcm", "CT", 2, 1.0),
    ] {
        let Some(instance) = real(path) else { return };
        let root = instance.header().expect("parsed");
        let shared = items(root, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
        let groups = items(root, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let contexts: Vec<_> = groups.iter().map(|g| FrameContext { per_frame: Some(g), shared, root }).collect();
        let found = physical_values(&contexts, modality).expect("it is an ordinary one");
        println!("{path}: {} {:?}", found.quantity, found.notes);
        assert_eq!((found.quantity, found.mappings.len()), (Quantity::Arbitrary, frames), "{path}");
        assert!(found.mappings.iter().all(|m| m.apply(1) - m.apply(0) == slope), "{path}: {:?}", found.mappings);
        assert_eq!(contexts.iter().filter(|c| windows(c).len() == 1).count(), frames, "{path}");
    }
}

/// dcmqi's SUV factors of a real PET: slope 0.000375125 in `{SUVbw}g/ml`.
#[test]
fn a_real_mapping_of_uptake() {
    let Some(instance) = real("seg-sr/dcmqi/tid1500-pet/rwvm.dcm") else { return };
    let referenced = &items(instance.header().expect("parsed"), tags::REFERENCED_IMAGE_REAL_WORLD_VALUE_MAPPING_SEQUENCE)[0];
    let mappings = items(referenced, tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE).to_vec();
    let object = rescaled("PT", "1.5", "0").text(tags::UNITS, "BQML").items(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE, mappings);
    check(&object, "activity-concentration", 1000, 1500.0);
    let found = wanting(&object, "suv-bw").expect("the mapping has it");
    assert_eq!(found.mappings[0].apply(1000), 0.000_375_125 * 1000.0);
}
