//! What has become of a number: the earlier one, the difference, its share, and the time in which a volume doubles.

use crate::codes::{Code, dcm, other, sct, ucum};
use crate::findings::{Measurement, Seen};

/// Numbers that are followed, with what the earlier one and the difference are called.
const FOLLOWED: [(Code, Option<Code>, Code, Code); 3] = [
    (sct::VOLUME, None, other::EARLIER_VOLUME, other::VOLUME_CHANGE),
    (sct::DIAMETER, Some(sct::MAXIMUM), other::EARLIER_DIAMETER, other::DIAMETER_CHANGE),
    (sct::LONG_AXIS, None, other::EARLIER_LONG_AXIS, other::LONG_AXIS_CHANGE),
];

/// Those of `measurements` that are followed.
pub(super) fn followed(measurements: &[Measurement]) -> Vec<Measurement> {
    FOLLOWED.iter().filter_map(|(concept, derivation, ..)| measured(measurements, concept, derivation.as_ref())).cloned().collect()
}

fn measured<'a>(measurements: &'a [Measurement], concept: &Code, derivation: Option<&Code>) -> Option<&'a Measurement> {
    measurements.iter().find(|m| m.concept == *concept && m.derivation.as_ref() == derivation)
}

fn number(concept: Code, method: Option<&Code>, value: f64, unit: Code) -> Measurement {
    Measurement { concept, derivation: None, method: method.cloned(), value: Some(value), unit }
}

/// The numbers of before, and how long ago they were measured.
pub(super) fn earlier(seen: &Seen, days: i64) -> Vec<Measurement> {
    let of = |(concept, derivation, name, _): &(Code, Option<Code>, Code, Code)| {
        let then = measured(&seen.measurements, concept, derivation.as_ref())?;
        Some(number(name.clone(), then.method.as_ref(), then.value?, then.unit.clone()))
    };
    let mut numbers: Vec<Measurement> = FOLLOWED.iter().filter_map(of).collect();
    numbers.push(number(other::EARLIER_BY, None, (days + seen.days_before) as f64, ucum::DAY));
    numbers
}

/// How the numbers in `now` differ from those of before.
pub(super) fn change(seen: &Seen, now: &[Measurement], days: i64) -> Vec<Measurement> {
    let mut numbers = Vec::new();
    for (concept, derivation, _, name) in &FOLLOWED {
        let both = measured(&seen.measurements, concept, derivation.as_ref()).zip(measured(now, concept, derivation.as_ref()));
        let Some((then, now)) = both.filter(|(then, now)| then.unit == now.unit) else { continue };
        let Some((before, after)) = then.value.zip(now.value) else { continue };
        numbers.push(number(name.clone(), now.method.as_ref(), after - before, now.unit.clone()));
        if before > 0.0 {
            numbers.push(number(name.clone(), now.method.as_ref(), (after / before - 1.0) * 100.0, ucum::PERCENT));
        }
        if *concept == sct::VOLUME
            && let Some(doubling) = doubling_time_days(before, after, days + seen.days_before)
        {
            numbers.push(number(other::VOLUME_DOUBLING_TIME, Some(&dcm::SUM_OF_VOXELS), doubling, ucum::DAY));
        }
    }
    numbers
}

/// `days * ln 2 / ln(after / before)`, growth as an exponential (Schwartz, Cancer 1961;14:1272-1294); none of what has not grown, or on
/// one day.
pub fn doubling_time_days(before_ml: f64, after_ml: f64, days: i64) -> Option<f64> {
    let has_grown = before_ml > 0.0 && after_ml > before_ml && days > 0;
    has_grown.then(|| days as f64 * std::f64::consts::LN_2 / (after_ml / before_ml).ln()).filter(|days| days.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(ml: f64) -> Measurement {
        number(sct::VOLUME, Some(&dcm::SUM_OF_VOXELS), ml, ucum::MILLILITRE)
    }

    fn seen(measurements: Vec<Measurement>, days_before: i64) -> Seen {
        let name = "nodule 1".to_owned();
        Seen { class: "nodule".into(), tracking_uid: "1.2".into(), centre_lps_mm: [0.0; 3], name, measurements, days_before }
    }

    #[test]
    fn volumes_double() {
        let near = |found: Option<f64>, expected: f64| assert!((found.expect("it grew") - expected).abs() < 1e-9, "{found:?}");
        near(doubling_time_days(1.0, 2.0, 90), 90.0);
        near(doubling_time_days(0.25, 4.0, 400), 100.0);
        // Python: 180 * math.log(2) / math.log(0.62 / 0.5).
        near(doubling_time_days(0.5, 0.62, 180), 580.008_796_944_936_8);
        for (before, after, days) in [(1.0, 1.0, 90), (2.0, 1.0, 90), (0.0, 1.0, 90), (1.0, 2.0, 0), (1.0, f64::NAN, 9)] {
            assert_eq!(doubling_time_days(before, after, days), None);
        }
    }

    #[test]
    fn numbers_say_what_has_changed() {
        let axis = |mm: f64| number(sct::LONG_AXIS, None, mm, ucum::MILLIMETRE);
        let mean = number(sct::MEAN, None, 40.0, ucum::HOUNSFIELD);
        let then = seen(followed(&[volume(0.5), mean.clone(), axis(10.0)]), 30);
        assert_eq!(then.measurements, [volume(0.5), axis(10.0)]);
        let told = |numbers: Vec<Measurement>| -> Vec<(String, f64, String)> {
            numbers.into_iter().map(|m| (m.concept.value.into_owned(), m.value.expect("known"), m.unit.value.into_owned())).collect()
        };
        let expected = |rows: &[(&str, f64, &str)]| -> Vec<(String, f64, String)> {
            rows.iter().map(|&(name, value, unit)| (name.to_owned(), value, unit.to_owned())).collect()
        };
        let before = [("EARLIER-VOLUME", 0.5, "ml"), ("EARLIER-AXIS", 10.0, "mm"), ("EARLIER-BY", 90.0, "d")];
        assert_eq!(told(earlier(&then, 60)), expected(&before));
        let now = [
            ("VOLUME-CHANGE", 0.5, "ml"),
            ("VOLUME-CHANGE", 100.0, "%"),
            ("DOUBLING-TIME", 90.0, "d"),
            ("LONG-AXIS-CHANGE", -2.0, "mm"),
            ("LONG-AXIS-CHANGE", -20.0, "%"),
        ];
        let found = told(change(&then, &[mean, axis(8.0), volume(1.0)], 60));
        assert_eq!(found.len(), now.len());
        for (found, expected) in found.iter().zip(expected(&now)) {
            assert!(found.0 == expected.0 && found.2 == expected.2 && (found.1 - expected.1).abs() < 1e-9, "{found:?} for {expected:?}");
        }
    }
}
