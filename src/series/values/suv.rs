//! Standardised uptake values of PET.
//!
//! SUV = activity concentration / (dose at the time that the image is corrected to / mass), by the vendor-neutral pseudo-code of QIBA
//! (FDG-PET profile, appendix on SUV computation; D. Clunie), robust variant. Masses are those of PS3.16, (126410 to 126415, DCM):
//!
//! | kind | mass (W: kg, H: cm) |
//! | --- | --- |
//! | bw | W |
//! | lbm | men 1.10 W - 120 (W/H)², women 1.07 W - 148 (W/H)² (James; 120 is what DICOM's SUVlbm has) |
//! | lbm-james128 | men 1.10 W - 128 (W/H)², women as above |
//! | lbm-janma | 9270 W / (6680 + 216 BMI), women 9270 W / (8780 + 244 BMI) (Janmahasatian 2005) |
//! | bsa | 0.007184 W^0.425 H^0.725 m² (Du Bois 1916) |
//! | ibw | men 48.0 + 1.06 (H - 152), women 45.5 + 0.91 (H - 152) (Sugawara 1999) |
//!
//! The dose in the syringe after the injection is not in the header's total dose as a rule and is not taken off.

use dicom::core::Tag;
use dicom::object::InMemDicomObject;

use super::attributes::{number, private_number, private_texts, text, texts};
use super::reason::SuvError;
use super::time::{DAY_S, date, date_time, offset, time};
use crate::dataset::{FrameContext, items, tags};
use crate::volume::{Quantity, SuvKind};

/// A scan may begin this long before the injection: dynamic series do, and clocks differ.
const BEFORE_INJECTION_S: f64 = 300.0;
/// After this many half-lives nothing is left to be seen.
const HALF_LIVES: u32 = 10;
/// The date of an injection is inferred for nuclides up to this half-life; others are imaged on later days.
const INFERRED_DATE_HALF_LIFE_S: f64 = 6.0 * 3600.0;
/// Two statements of one time of injection agree within this.
const SAME_TIME_S: f64 = 60.0;

/// Factors from the values of a PET, as their Modality LUT gives them, to another quantity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SuvScaling {
    /// One for each frame.
    pub(crate) factors: Vec<f64>,
    /// How they came about.
    pub(crate) notes: Vec<String>,
}

/// The factors that turn a PET's values, which are `quantity`, into SUVs of `kind`. `frames` are those of the whole series: the time
/// of the scan may be that of its earliest frame.
///
/// # Errors
/// What is missing, unreadable, implausible or contradictory.
pub(crate) fn suv_scaling(frames: &[FrameContext<'_>], quantity: Quantity, kind: SuvKind) -> Result<SuvScaling, SuvError> {
    if !roots(frames).iter().all(|r| text(r, tags::MODALITY) == "PT") {
        return Err(SuvError::NotPet);
    }
    if quantity == Quantity::Suv(kind) {
        return Ok(SuvScaling { factors: vec![1.0; frames.len()], notes: Vec::new() });
    }
    let counts = is_counts(quantity);
    if !counts && quantity != Quantity::ActivityConcentration {
        return Err(SuvError::Values { found: quantity });
    }
    same(frames, "Corrected Image of the instances", corrected)?;
    if counts
        && kind == SuvKind::Bw
        && let Some(factors) = philips_factors(frames, 0x00)
    {
        return Ok(SuvScaling { factors, notes: vec!["SUV by Philips' SUV Scale Factor".into()] });
    }
    let activity = activity_scaling(frames, quantity).ok_or(SuvError::Uncalibrated)?;
    let mass = same(frames, "weight, size or sex of the instances", |root| mass(kind, root))?;
    let (dose, note) = decayed_dose(frames)?;
    let factors = activity.factors.iter().map(|factor| factor * mass / dose).collect();
    Ok(SuvScaling { factors, notes: activity.notes.into_iter().chain([note]).collect() })
}

/// The factors that turn a PET's values, which are `quantity`, into Bq/ml; `None` where nothing calibrates them.
pub(super) fn activity_scaling(frames: &[FrameContext<'_>], quantity: Quantity) -> Option<SuvScaling> {
    if quantity == Quantity::ActivityConcentration {
        return Some(SuvScaling { factors: vec![1.0; frames.len()], notes: Vec::new() });
    }
    let factors = is_counts(quantity).then(|| philips_factors(frames, 0x09))??;
    Some(SuvScaling { factors, notes: vec!["Bq/ml by Philips' Activity Concentration Scale Factor".into()] })
}

fn is_counts(quantity: Quantity) -> bool {
    matches!(quantity, Quantity::RealWorld { unit, .. } if unit.code() == "{counts}")
}

/// An element of Philips' PET group that all frames have, above 0.
fn philips_factors(frames: &[FrameContext<'_>], element: u8) -> Option<Vec<f64>> {
    let factor = |frame: &FrameContext<'_>| private_number(frame.root, 0x7053, "Philips PET Private Group", element).ok().flatten();
    frames.iter().map(|frame| factor(frame).filter(|&f| f > 0.0)).collect()
}

/// Every data set once.
fn roots<'a>(frames: &[FrameContext<'a>]) -> Vec<&'a InMemDicomObject> {
    let mut roots: Vec<&InMemDicomObject> = frames.iter().map(|f| f.root).collect();
    roots.dedup_by(|a, b| std::ptr::eq(*a, *b));
    roots
}

/// What all data sets say alike.
fn same<T: PartialEq>(
    frames: &[FrameContext<'_>],
    attribute: &'static str,
    of: impl Fn(&InMemDicomObject) -> Result<T, SuvError>,
) -> Result<T, SuvError> {
    let mut values = roots(frames).into_iter().map(of);
    let first = values.next().ok_or(SuvError::Missing { attribute })??;
    for value in values {
        if value? != first {
            return Err(SuvError::Contradictory { attribute });
        }
    }
    Ok(first)
}

/// A number within a range, both ends included. 0 counts as missing, which is how it is meant.
fn within(object: &InMemDicomObject, tag: Tag, attribute: &'static str, range: [f64; 2], allowed: &'static str) -> Result<f64, SuvError> {
    match number(object, tag) {
        Ok(None | Some(0.0)) => Err(SuvError::Missing { attribute }),
        Ok(Some(n)) if (range[0]..=range[1]).contains(&n) => Ok(n),
        Ok(Some(_)) => Err(SuvError::Implausible { attribute, allowed }),
        Err(_) => Err(SuvError::Unreadable { attribute }),
    }
}

/// Values must be corrected for attenuation and decay (PS3.3 C.8.9.1, Corrected Image; C.8.22.2 for enhanced PET).
fn corrected(root: &InMemDicomObject) -> Result<(), SuvError> {
    let enhanced = !text(root, tags::DECAY_CORRECTED).is_empty();
    let listed = texts(root, tags::CORRECTED_IMAGE);
    let says = |tag, term: &str| if enhanced { text(root, tag) == "YES" } else { listed.iter().any(|v| v == term) };
    for (tag, term, attribute, correction) in [
        (tags::ATTENUATION_CORRECTED, "ATTN", "Attenuation Corrected", "attenuation"),
        (tags::DECAY_CORRECTED, "DECY", "Decay Corrected", "decay"),
    ] {
        if !says(tag, term) {
            return Err(SuvError::NotCorrected { attribute: if enhanced { attribute } else { "Corrected Image" }, correction });
        }
    }
    Ok(())
}

/// g, or cm² for [`SuvKind::Bsa`].
fn mass(kind: SuvKind, root: &InMemDicomObject) -> Result<f64, SuvError> {
    let weight_kg = || within(root, tags::PATIENT_WEIGHT, "Patient's Weight", [0.001, 500.0], "0.001 to 500 kg");
    let height_cm = || within(root, tags::PATIENT_SIZE, "Patient's Size", [0.2, 2.8], "0.2 to 2.8 m").map(|metres| 100.0 * metres);
    let male = || match text(root, tags::PATIENT_SEX).as_str() {
        "M" => Ok(true),
        "F" => Ok(false),
        "" => Err(SuvError::Missing { attribute: "Patient's Sex" }),
        _ => Err(SuvError::Implausible { attribute: "Patient's Sex", allowed: "M and F, which the formula has" }),
    };
    let james = |for_men: f64| {
        let (weight, height, male) = (weight_kg()?, height_cm()?, male()?);
        let (linear, square) = if male { (1.10, for_men) } else { (1.07, 148.0) };
        lean(linear * weight - square * (weight / height).powi(2), weight)
    };
    let kilograms = match kind {
        SuvKind::Bw => weight_kg()?,
        SuvKind::Lbm => james(120.0)?,
        SuvKind::LbmJames128 => james(128.0)?,
        SuvKind::LbmJanma => {
            let (weight, height, male) = (weight_kg()?, height_cm()?, male()?);
            let (constant, slope) = if male { (6680.0, 216.0) } else { (8780.0, 244.0) };
            lean(9270.0 * weight / (constant + slope * weight / (height / 100.0).powi(2)), weight)?
        }
        SuvKind::Bsa => {
            let square_metres = 0.007_184 * weight_kg()?.powf(0.425) * height_cm()?.powf(0.725);
            return Ok(square_metres * 1e4);
        }
        SuvKind::Ibw => {
            let (height, male) = (height_cm()?, male()?);
            let (base, slope) = if male { (48.0, 1.06) } else { (45.5, 0.91) };
            Some(base + slope * (height - 152.0)).filter(|&kg| kg > 0.0).ok_or(SuvError::NoLeanMass)?
        }
    };
    Ok(1000.0 * kilograms)
}

fn lean(kilograms: f64, weight_kg: f64) -> Result<f64, SuvError> {
    if kilograms > 0.0 && kilograms < weight_kg { Ok(kilograms) } else { Err(SuvError::NoLeanMass) }
}

/// Bq at the time that the image is corrected to, and how it came about.
fn decayed_dose(frames: &[FrameContext<'_>]) -> Result<(f64, String), SuvError> {
    let (dose_bq, half_life_s, injection) = same(frames, "Radiopharmaceutical Information of the instances", administration)?;
    let enhanced = same(frames, "Decay Correction DateTime of the instances", |root| Ok(text(root, tags::DECAY_CORRECTION_DATE_TIME)))?;
    let (reference_s, what) = if enhanced.is_empty() {
        match same(frames, "Decay Correction of the instances", |root| Ok(text(root, tags::DECAY_CORRECTION)))?.as_str() {
            "ADMIN" => return Ok((dose_bq, "SUV: values are corrected to the time of administration".into())),
            "START" => scan_start(frames, half_life_s)?,
            _ => return Err(SuvError::DecayCorrection),
        }
    } else {
        let attribute = "Decay Correction DateTime";
        let zone = frames.first().and_then(|f| offset(&text(f.root, tags::TIMEZONE_OFFSET_FROM_UTC)));
        (local(&enhanced, zone).ok_or(SuvError::Unreadable { attribute })?, attribute)
    };
    let decay_s = match injection? {
        Injection::At(seconds) => reference_s - seconds,
        Injection::OnThatDay(_) if half_life_s > INFERRED_DATE_HALF_LIFE_S => {
            return Err(SuvError::NoInjectionDate { allowed_hours: (INFERRED_DATE_HALF_LIFE_S / 3600.0) as u32 });
        }
        Injection::OnThatDay(time_s) => {
            let same_day = reference_s.rem_euclid(DAY_S) - time_s;
            if same_day < -BEFORE_INJECTION_S { same_day + DAY_S } else { same_day }
        }
    };
    if decay_s < -BEFORE_INJECTION_S {
        let allowed_minutes = (BEFORE_INJECTION_S / 60.0) as i64;
        return Err(SuvError::BeforeInjection { minutes: (-decay_s / 60.0) as i64, allowed_minutes });
    }
    if decay_s > f64::from(HALF_LIVES) * half_life_s {
        return Err(SuvError::TooLate { allowed: HALF_LIVES });
    }
    Ok((dose_bq * (-decay_s / half_life_s).exp2(), format!("SUV: decay of the dose is counted to the {what}")))
}

/// When the radiopharmaceutical was given.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Injection {
    /// Seconds from 1970, local clock.
    At(f64),
    /// Seconds from midnight: no date is given.
    OnThatDay(f64),
}

/// Dose (Bq), half-life (s) and time of the one administration. The time is a result of its own, since not all need it.
fn administration(root: &InMemDicomObject) -> Result<(f64, f64, Result<Injection, SuvError>), SuvError> {
    let given = items(root, tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE);
    let [given] = given else { return Err(SuvError::Radiopharmaceuticals { count: given.len() }) };
    // Doses in MBq, which some write, would make SUVs a million times too large.
    let dose = within(given, tags::RADIONUCLIDE_TOTAL_DOSE, "Radionuclide Total Dose", [1e5, 1e11], "0.1 MBq to 100 GBq, in Bq")?;
    let half_life = within(given, tags::RADIONUCLIDE_HALF_LIFE, "Radionuclide Half Life", [1.0, 1e8], "1 to 100 000 000 s")?;
    Ok((dose, half_life, injection(root, given)))
}

fn injection(root: &InMemDicomObject, given: &InMemDicomObject) -> Result<Injection, SuvError> {
    let moment = text(given, tags::RADIOPHARMACEUTICAL_START_DATE_TIME);
    let clock = text(given, tags::RADIOPHARMACEUTICAL_START_TIME);
    let time_s = time(&clock);
    if moment.is_empty() {
        return match time_s {
            Some(seconds) => Ok(Injection::OnThatDay(seconds)),
            None if clock.is_empty() => Err(SuvError::Missing { attribute: "Radiopharmaceutical Start DateTime" }),
            None => Err(SuvError::Unreadable { attribute: "Radiopharmaceutical Start Time" }),
        };
    }
    let unreadable = SuvError::Unreadable { attribute: "Radiopharmaceutical Start DateTime" };
    let (stated_s, _) = date_time(&moment).ok_or(unreadable.clone())?;
    let apart_s = time_s.map_or(0.0, |s| (stated_s.rem_euclid(DAY_S) - s).abs());
    if apart_s.min(DAY_S - apart_s) > SAME_TIME_S {
        return Err(SuvError::Contradictory { attribute: "Radiopharmaceutical Start DateTime and Start Time" });
    }
    local(&moment, offset(&text(root, tags::TIMEZONE_OFFSET_FROM_UTC))).map(Injection::At).ok_or(unreadable)
}

/// A DT on the clock of the data set, whose offset from UTC is `zone_s` where that is known.
fn local(text: &str, zone_s: Option<f64>) -> Option<f64> {
    let (seconds, stated) = date_time(text)?;
    Some(match (stated, zone_s) {
        (Some(stated), Some(zone)) => seconds - stated + zone,
        _ => seconds,
    })
}

/// The time that Decay Correction START means: Series Date and Time, unless they are later than the acquisition, as in series that were
/// made anew. Then GE's own scan time, else what Frame Reference Time leads back to, else the earliest acquisition.
fn scan_start(frames: &[FrameContext<'_>], half_life_s: f64) -> Result<(f64, &'static str), SuvError> {
    let acquired = frames.iter().map(acquisition).collect::<Result<Vec<f64>, _>>()?;
    let earliest = acquired.iter().copied().fold(f64::INFINITY, f64::min);
    let series = same(frames, "Series Date and Time of the instances", |root| {
        joined(root, tags::SERIES_DATE, tags::SERIES_TIME, "Series Date and Time")
    });
    match series {
        Ok(series) if series <= earliest => return Ok((series, "Series Time")),
        // Instances of one series differ, or have none: as unreliable as a time that is too late.
        Ok(_) | Err(SuvError::Missing { .. } | SuvError::Contradictory { .. }) => {}
        Err(error) => return Err(error),
    }
    let ge = |root: &InMemDicomObject| Ok(private_texts(root, 0x0009, "GEMS_PETD_01", 0x0d).into_iter().next().unwrap_or_default());
    let ge = same(frames, "GE's scan times of the instances", ge)?;
    if !ge.is_empty() {
        let zone = frames.first().and_then(|f| offset(&text(f.root, tags::TIMEZONE_OFFSET_FROM_UTC)));
        let scan = local(&ge, zone).ok_or(SuvError::Unreadable { attribute: "GE's scan time" })?;
        return Ok((scan, "GE's scan time, since the Series Time is later than the acquisition"));
    }
    let led_back: Option<Vec<f64>> = frames.iter().zip(&acquired).map(|(f, &s)| reference(f.root, s, half_life_s)).collect();
    if let Some(starts) = led_back {
        let (least, greatest) = starts.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, g), &s| (l.min(s), g.max(s)));
        if greatest - least > SAME_TIME_S {
            return Err(SuvError::Contradictory { attribute: "Acquisition Time and Frame Reference Time of the instances" });
        }
        return Ok((least, "time that Frame Reference Time counts from, since the Series Time is later than the acquisition"));
    }
    Ok((earliest, "earliest Acquisition Time, since the Series Time is later"))
}

/// Start of the scan by a frame's Acquisition Time and Frame Reference Time (0054,1300): the latter is when the mean count rate of the
/// frame occurred, from the start of the scan.
fn reference(root: &InMemDicomObject, acquired_s: f64, half_life_s: f64) -> Option<f64> {
    let positive = |tag| number(root, tag).ok().flatten().filter(|&n| n > 0.0).map(|ms| ms / 1000.0);
    let (reference_s, duration_s) = (positive(tags::FRAME_REFERENCE_TIME)?, positive(tags::ACTUAL_FRAME_DURATION)?);
    let constant = std::f64::consts::LN_2 / half_life_s;
    let decay = constant * duration_s;
    let mean_rate_s = (decay / -(-decay).exp_m1()).ln() / constant;
    Some(acquired_s + mean_rate_s - reference_s)
}

/// When a frame's acquisition began.
fn acquisition(frame: &FrameContext<'_>) -> Result<f64, SuvError> {
    let attribute = "Acquisition Date and Time";
    let stated = frame.within(tags::FRAME_CONTENT_SEQUENCE).map(|d| text(d, tags::FRAME_ACQUISITION_DATE_TIME)).find(|t| !t.is_empty());
    let stated = stated.or_else(|| Some(text(frame.root, tags::ACQUISITION_DATE_TIME)).filter(|t| !t.is_empty()));
    let parts = joined(frame.root, tags::ACQUISITION_DATE, tags::ACQUISITION_TIME, attribute);
    match (parts, stated) {
        (Err(SuvError::Missing { .. }), Some(stated)) => {
            local(&stated, offset(&text(frame.root, tags::TIMEZONE_OFFSET_FROM_UTC))).ok_or(SuvError::Unreadable { attribute })
        }
        (parts, _) => parts,
    }
}

fn joined(root: &InMemDicomObject, date_tag: Tag, time_tag: Tag, attribute: &'static str) -> Result<f64, SuvError> {
    match (text(root, date_tag), text(root, time_tag)) {
        (d, t) if d.is_empty() || t.is_empty() => Err(SuvError::Missing { attribute }),
        (d, t) => date(&d).zip(time(&t)).map(|(d, t)| d + t).ok_or(SuvError::Unreadable { attribute }),
    }
}
