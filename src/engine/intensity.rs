//! How a number measured on an image's values is named: concept and unit.

use crate::codes::{Code, dcm, sct, ucum};
use crate::volume::{Quantity, SuvKind};

/// Concept (PS3.16 CID 218) and unit (UCUM) of the values of an image of this quantity and Modality (0008,0060).
///
/// Arbitrary values are named by what the modality sees, with unit 1; (246205007, SCT, "Quantity") where that is not known either.
pub(super) fn concept_and_unit(quantity: Quantity, modality: &str) -> (Code, Code) {
    match quantity {
        Quantity::Hounsfield => (dcm::ATTENUATION_COEFFICIENT, ucum::HOUNSFIELD),
        Quantity::Suv(SuvKind::Bw) => (dcm::SUV_BW, ucum::SUV_BW),
        Quantity::Suv(SuvKind::Lbm) => (dcm::SUV_LBM, ucum::SUV_LBM),
        Quantity::Suv(SuvKind::LbmJames128) => (dcm::SUV_LBM_JAMES128, ucum::SUV_LBM_JAMES128),
        Quantity::Suv(SuvKind::LbmJanma) => (dcm::SUV_LBM_JANMA, ucum::SUV_LBM_JANMA),
        Quantity::Suv(SuvKind::Bsa) => (dcm::SUV_BSA, ucum::SUV_BSA),
        Quantity::Suv(SuvKind::Ibw) => (dcm::SUV_IBW, ucum::SUV_IBW),
        Quantity::ActivityConcentration => (dcm::NUCLEAR_MEDICINE_TOMOGRAPHIC_ACTIVITY, ucum::BECQUEREL_PER_MILLILITRE),
        Quantity::OpticalDensity => (dcm::X_RAY_ATTENUATION, ucum::THOUSANDTHS),
        Quantity::RealWorld { unit, property } => {
            let concept = property.map_or(sct::QUANTITY, |p| Code::new(p.code(), "DCM", p.meaning()));
            (concept, Code::new(unit.code(), "UCUM", unit.meaning()))
        }
        Quantity::Arbitrary => (seen_by(modality), ucum::ONE),
    }
}

/// What the pixel values of a modality come from.
fn seen_by(modality: &str) -> Code {
    match modality {
        "MR" => dcm::MR_SIGNAL_INTENSITY,
        "CT" | "CR" | "DX" | "MG" | "XA" | "RF" | "PX" | "IO" => dcm::X_RAY_ATTENUATION,
        "PT" => dcm::NUCLEAR_MEDICINE_TOMOGRAPHIC_ACTIVITY,
        "US" => dcm::ECHOGENICITY,
        _ => sct::QUANTITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Property, Unit};

    fn check(quantity: &str, modality: &str, concept: &str, unit: &str) {
        let found = concept_and_unit(quantity.parse().expect("a quantity"), modality);
        assert_eq!((found.0.to_string().as_str(), found.1.to_string().as_str()), (concept, unit), "{quantity} of {modality}");
    }

    /// Codes, meanings: pydicom 3.0.2, `pydicom.sr._concepts_dict.concepts["DCM"]`, `["UCUM"]`.
    #[test]
    fn values_have_names_and_units() {
        check("hounsfield", "CT", r#"(112031, DCM, "Attenuation Coefficient")"#, r#"([hnsf'U], UCUM, "Hounsfield unit")"#);
        check("suv-bw", "PT", r#"(126401, DCM, "SUVbw")"#, r#"(g/ml{SUVbw}, UCUM, "Standardized Uptake Value body weight")"#);
        let lean = r#"(g/ml{SUVlbm(James128)}, UCUM, "Standardized Uptake Value lean body mass (James 128 multiplier)")"#;
        check("suv-lbm-james128", "PT", r#"(126406, DCM, "SUVlbm(James128)")"#, lean);
        check("suv-bsa", "PT", r#"(126403, DCM, "SUVbsa")"#, r#"(cm2/ml{SUVbsa}, UCUM, "Standardized Uptake Value body surface area")"#);
        let activity = r#"(110821, DCM, "Nuclear Medicine Tomographic Activity")"#;
        check("activity-concentration", "PT", activity, r#"(Bq/ml, UCUM, "Becquerels/milliliter")"#);
        check("arbitrary", "PT", activity, r#"(1, UCUM, "no units")"#);
        check("arbitrary", "MR", r#"(110852, DCM, "MR signal intensity")"#, r#"(1, UCUM, "no units")"#);
        check("arbitrary", "OT", r#"(246205007, SCT, "Quantity")"#, r#"(1, UCUM, "no units")"#);
        check("optical-density", "CR", r#"(110850, DCM, "X-Ray Attenuation")"#, r#"(10*-3, UCUM, "per thousand")"#);
        let adc = r#"(113041, DCM, "Apparent Diffusion Coefficient")"#;
        check("real-world:um2/s:113041", "MR", adc, r#"(um2/s, UCUM, "um2/s")"#);
    }

    #[test]
    fn what_has_a_name_of_its_own_has_the_same_unit_in_the_list() {
        for kind in SuvKind::ALL {
            let (_, unit) = concept_and_unit(Quantity::Suv(kind), "PT");
            assert_eq!(Unit::of(&unit.value).map(Unit::meaning), Some(&*unit.meaning), "{kind}");
        }
        assert_eq!(Property::of("126401").map(Property::meaning), Some(&*dcm::SUV_BW.meaning));
    }
}
