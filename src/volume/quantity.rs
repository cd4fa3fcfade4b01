//! What the physical values of an image are, and their units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::terms::{PROPERTIES, UNITS};

/// What the physical values of an image are.
///
/// As text, for manifests and reports: `hounsfield`, `suv-bw` and the other [`SuvKind`]s, `activity-concentration`, `optical-density`,
/// `real-world:mm2/s` (a unit of UCUM), `real-world:mm2/s:113041` (with a property of DCM), `arbitrary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum Quantity {
    /// CT number, Hounsfield units.
    Hounsfield,
    /// Standardized uptake value, g/ml, or cm²/ml for [`SuvKind::Bsa`].
    Suv(SuvKind),
    /// Activity concentration, Bq/ml.
    ActivityConcentration,
    /// Optical density, thousandths (PS3.3 C.11.1.1.2: a value of 2140 is an optical density of 2.140).
    OpticalDensity,
    /// Something else with a unit that the header states.
    RealWorld {
        /// Its unit.
        unit: Unit,
        /// What is measured, where the header says so.
        property: Option<Property>,
    },
    /// Numbers without a unit that holds across scanners (MR signal, for one).
    Arbitrary,
}

impl Quantity {
    /// Whether values of this quantity are what `wanted` asks for: the same, or, where `wanted` names no property, the same unit.
    pub fn is(self, wanted: Self) -> bool {
        match (self, wanted) {
            (Self::RealWorld { unit, .. }, Self::RealWorld { unit: asked, property: None }) => unit == asked,
            _ => self == wanted,
        }
    }
}

/// By what an uptake is standardised (PS3.3 C.8.9.1, SUV Type; PS3.16 CID 85).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SuvKind {
    /// Body weight.
    Bw,
    /// Lean body mass by James with the multiplier 120 for men, which is DICOM's SUVlbm.
    Lbm,
    /// Lean body mass by James with his own multiplier, 128.
    LbmJames128,
    /// Lean body mass by Janmahasatian.
    LbmJanma,
    /// Body surface area by Du Bois.
    Bsa,
    /// Ideal body weight.
    Ibw,
}

impl SuvKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Bw, Self::Lbm, Self::LbmJames128, Self::LbmJanma, Self::Bsa, Self::Ibw];

    /// Its name in manifests and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bw => "suv-bw",
            Self::Lbm => "suv-lbm",
            Self::LbmJames128 => "suv-lbm-james128",
            Self::LbmJanma => "suv-lbm-janma",
            Self::Bsa => "suv-bsa",
            Self::Ibw => "suv-ibw",
        }
    }

    /// SUV Type (0054,1006).
    pub fn dicom_term(self) -> &'static str {
        match self {
            Self::Bw => "BW",
            Self::Lbm => "LBM",
            Self::LbmJames128 => "LBMJAMES128",
            Self::LbmJanma => "LBMJANMA",
            Self::Bsa => "BSA",
            Self::Ibw => "IBW",
        }
    }

    /// The kind with this SUV Type (0054,1006).
    pub fn of_dicom_term(term: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.dicom_term() == term)
    }
}

impl fmt::Display for SuvKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A unit of UCUM out of a closed list: PS3.16 CID 7181 and 84, and those of the Rescale Types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit(&'static (&'static str, &'static str));

impl Unit {
    /// The unit with this code of UCUM; `None` where the list lacks it.
    pub fn of(code: &str) -> Option<Self> {
        UNITS.iter().find(|unit| unit.0 == code).map(Self)
    }

    /// Its code in UCUM.
    pub fn code(self) -> &'static str {
        self.0.0
    }

    /// Its name in PS3.16.
    pub fn meaning(self) -> &'static str {
        self.0.1
    }
}

/// What pixel values measure, out of a closed list: PS3.16 CID 7180 without colour components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Property(&'static (&'static str, &'static str));

impl Property {
    /// The property with this code of DCM; `None` where the list lacks it.
    pub fn of(code: &str) -> Option<Self> {
        PROPERTIES.iter().find(|property| property.0 == code).map(Self)
    }

    /// Its code in DCM.
    pub fn code(self) -> &'static str {
        self.0.0
    }

    /// Its name in PS3.16.
    pub fn meaning(self) -> &'static str {
        self.0.1
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hounsfield => f.write_str("hounsfield"),
            Self::Suv(kind) => f.write_str(kind.name()),
            Self::ActivityConcentration => f.write_str("activity-concentration"),
            Self::OpticalDensity => f.write_str("optical-density"),
            Self::RealWorld { unit, property: None } => write!(f, "real-world:{}", unit.code()),
            Self::RealWorld { unit, property: Some(property) } => write!(f, "real-world:{}:{}", unit.code(), property.code()),
            Self::Arbitrary => f.write_str("arbitrary"),
        }
    }
}

/// A text that names no [`Quantity`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is no quantity: it is one of hounsfield, suv-bw, suv-lbm, suv-lbm-james128, suv-lbm-janma, suv-bsa, suv-ibw, \
         activity-concentration, optical-density, arbitrary, real-world:UNIT and real-world:UNIT:PROPERTY (units of PS3.16 CID 7181 and 84, \
         properties of CID 7180)"
)]
pub struct UnknownQuantity {
    /// The text.
    pub text: String,
}

impl FromStr for Quantity {
    type Err = UnknownQuantity;

    fn from_str(text: &str) -> Result<Self, UnknownQuantity> {
        let plain = [Self::Hounsfield, Self::ActivityConcentration, Self::OpticalDensity, Self::Arbitrary];
        let named = plain.into_iter().chain(SuvKind::ALL.map(Self::Suv)).find(|quantity| quantity.to_string() == text);
        let real_world = || {
            let stated = text.strip_prefix("real-world:")?;
            let (unit, property) = stated.split_once(':').map_or((stated, None), |(unit, property)| (unit, Some(property)));
            let property = property.map(|code| Property::of(code).ok_or(())).transpose().ok()?;
            Some(Self::RealWorld { unit: Unit::of(unit)?, property })
        };
        named.or_else(real_world).ok_or_else(|| UnknownQuantity { text: text.to_owned() })
    }
}

impl TryFrom<String> for Quantity {
    type Error = UnknownQuantity;

    fn try_from(text: String) -> Result<Self, UnknownQuantity> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for text in [
            "hounsfield",
            "suv-bw",
            "suv-lbm",
            "suv-lbm-james128",
            "suv-lbm-janma",
            "suv-bsa",
            "suv-ibw",
            "activity-concentration",
            "optical-density",
            "arbitrary",
            "real-world:mm2/s",
            "real-world:mm2/s:113041",
            "real-world:g/ml{SUVlbm(Janma)}",
        ] {
            let quantity: Quantity = text.parse().expect(text);
            assert_eq!(quantity.to_string(), text);
            let json = serde_json::to_string(&quantity).expect("a text");
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Quantity>(&json).expect(text), quantity);
        }
        for text in ["", "HU", "suv", "suv-BW", "real-world", "real-world:", "real-world:Doe", "real-world:mm2/s:", "real-world:mm2/s:1"] {
            let error = text.parse::<Quantity>().expect_err(text);
            assert_eq!(error.text, text);
        }
    }

    #[test]
    fn a_unit_alone_asks_for_any_property() {
        let of = |text: &str| text.parse::<Quantity>().expect(text);
        let adc = of("real-world:mm2/s:113041");
        assert!(adc.is(adc) && adc.is(of("real-world:mm2/s")));
        assert!(!adc.is(of("real-world:mm2/s:110808")) && !adc.is(of("real-world:um2/s")) && !of("real-world:mm2/s").is(adc));
        assert!(!of("suv-bw").is(of("suv-lbm")) && of("arbitrary").is(of("arbitrary")));
    }

    #[test]
    fn terms_fit_where_they_are_written() {
        for (code, meaning) in UNITS.iter().chain(PROPERTIES) {
            assert!(code.is_ascii() && !meaning.is_empty() && meaning.len() <= 64, "{code}");
        }
    }
}
