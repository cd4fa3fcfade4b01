//! Why stored values have no known physical meaning.

use thiserror::Error;

use crate::geometry::Coded;
use crate::volume::{Quantity, SuvKind};

/// One reason why the meaning of a stack's values is unknown or contradictory, and how many frames it holds for.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{fault} ({count} of {total} frames)")]
pub struct ValueReason {
    /// What is wrong.
    pub fault: ValueFault,
    /// Frames that it holds for.
    pub count: usize,
    /// All frames of the stack.
    pub total: usize,
}

/// What is wrong with the mapping of stored values.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ValueFault {
    /// CT or PET without Rescale Slope and Intercept.
    #[error("no Rescale Slope and Intercept, so the physical values of the {modality} are unknown")]
    NoRescale {
        /// `CT` or `PET`.
        modality: &'static str,
    },
    /// Only one of slope and intercept.
    #[error("Rescale Slope and Rescale Intercept belong together, and only one of them is there")]
    HalfRescale,
    /// Slope or intercept is no finite number, or several.
    #[error("Rescale Slope or Rescale Intercept is not one finite number")]
    BadRescale,
    /// A slope of zero.
    #[error("Rescale Slope is 0")]
    ZeroSlope,
    /// LUT Descriptor is missing or is not three numbers.
    #[error("LUT Descriptor of the Modality LUT is missing or is not three whole numbers in range")]
    LutDescriptor,
    /// Bits for each entry.
    #[error("LUT Descriptor of the Modality LUT says {bits} bits an entry, not 8 to 16")]
    LutBits {
        /// What it says.
        bits: i64,
    },
    /// Fewer or more entries than stated.
    #[error("lookup table of {found} entries where {stated} are stated")]
    LutLength {
        /// Entries stated.
        stated: usize,
        /// Entries (16 bits each for a Modality LUT) found.
        found: usize,
    },
    /// Entries above the stated number of bits.
    #[error("Modality LUT has entries above its {bits} bits")]
    LutEntries {
        /// Bits stated.
        bits: i64,
    },
    /// First and last value mapped are missing or contradictory.
    #[error("first and last value mapped of the Real World Value Mapping are missing, unreadable or no range of at most 65536 values")]
    RealWorldRange,
    /// Neither slope and intercept nor a usable LUT.
    #[error("Real World Value Mapping has no usable slope and intercept, and no lookup table of finite numbers")]
    RealWorldMap,
    /// Units and SUV Type of a PET contradict each other.
    #[error("Units and SUV Type of the PET contradict each other or are unknown")]
    SuvType,
    /// Frames of several quantities.
    #[error("frames of {quantities} quantities in one stack ({first} and {other}, for two)")]
    MixedQuantities {
        /// How many.
        quantities: usize,
        /// That of the first frame.
        first: Quantity,
        /// The next other one.
        other: Quantity,
    },
    /// The values are something else than was asked for.
    #[error("the values are {found}, not {wanted}")]
    OtherQuantity {
        /// What they are.
        found: Quantity,
        /// What was asked for.
        wanted: Quantity,
    },
    /// No standardised uptake values.
    #[error("no {kind}: {error}")]
    Suv {
        /// What was asked for.
        kind: SuvKind,
        /// Why not.
        error: SuvError,
    },
}

impl Coded for ValueReason {
    fn code(&self) -> &'static str {
        self.fault.code()
    }
}

impl Coded for ValueFault {
    fn code(&self) -> &'static str {
        match self {
            Self::NoRescale { .. } => "series.no-rescale",
            Self::HalfRescale => "series.half-rescale",
            Self::BadRescale => "series.bad-rescale",
            Self::ZeroSlope => "series.zero-slope",
            Self::LutDescriptor => "series.lut-descriptor",
            Self::LutBits { .. } => "series.lut-bits",
            Self::LutLength { .. } => "series.lut-length",
            Self::LutEntries { .. } => "series.lut-entries",
            Self::RealWorldRange => "series.real-world-range",
            Self::RealWorldMap => "series.real-world-map",
            Self::SuvType => "series.suv-type",
            Self::MixedQuantities { .. } => "series.mixed-quantities",
            Self::OtherQuantity { .. } => "series.other-quantity",
            Self::Suv { error, .. } => error.code(),
        }
    }
}

/// Why a PET has no standardised uptake values of the asked kind. Attributes are named, their values are not: they are patient data.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SuvError {
    /// Not a PET.
    #[error("the modality is not PET")]
    NotPet,
    /// An attribute is missing, empty or 0.
    #[error("{attribute} is missing")]
    Missing {
        /// Its name.
        attribute: &'static str,
    },
    /// An attribute cannot be read.
    #[error("{attribute} cannot be read")]
    Unreadable {
        /// Its name.
        attribute: &'static str,
    },
    /// An attribute whose value is out of any range that could be meant.
    #[error("{attribute} is outside {allowed}")]
    Implausible {
        /// Its name.
        attribute: &'static str,
        /// The range.
        allowed: &'static str,
    },
    /// Instances differ, or two attributes do.
    #[error("{attribute} contradict each other")]
    Contradictory {
        /// Their names.
        attribute: &'static str,
    },
    /// Not corrected.
    #[error("{attribute} does not say that the image is corrected for {correction}")]
    NotCorrected {
        /// Corrected Image, or that of enhanced PET.
        attribute: &'static str,
        /// `attenuation` or `decay`.
        correction: &'static str,
    },
    /// Decay Correction is NONE, absent, or something unknown.
    #[error("Decay Correction is neither START nor ADMIN, so the time that values are corrected to is unknown")]
    DecayCorrection,
    /// Values that uptake cannot be computed from.
    #[error("the values are {found}, from which it cannot be computed")]
    Values {
        /// What they are.
        found: Quantity,
    },
    /// Counts that nothing calibrates.
    #[error("the values are counts, and no scale factor of the manufacturer calibrates them")]
    Uncalibrated,
    /// No, or several, administrations.
    #[error("{count} items in the Radiopharmaceutical Information Sequence, not 1")]
    Radiopharmaceuticals {
        /// Items.
        count: usize,
    },
    /// Acquired before the injection.
    #[error("the acquisition begins {minutes} minutes before the injection, {allowed_minutes} are allowed")]
    BeforeInjection {
        /// Whole minutes.
        minutes: i64,
        /// What is allowed.
        allowed_minutes: i64,
    },
    /// Too long after the injection for anything to be left.
    #[error("the acquisition begins more than {allowed} half-lives after the injection; one of the times must be wrong")]
    TooLate {
        /// Half-lives.
        allowed: u32,
    },
    /// A time of injection without a date, of a nuclide that is imaged on later days.
    #[error("the injection has a time but no date, and a half-life of more than {allowed_hours} hours allows for several days")]
    NoInjectionDate {
        /// Up to this half-life the date is inferred.
        allowed_hours: u32,
    },
    /// The formula gives no mass for this body.
    #[error("the formula gives no positive lean mass below the weight for this weight, size and sex")]
    NoLeanMass,
}

impl Coded for SuvError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotPet => "suv.not-pet",
            Self::Missing { .. } => "suv.missing",
            Self::Unreadable { .. } => "suv.unreadable",
            Self::Implausible { .. } => "suv.implausible",
            Self::Contradictory { .. } => "suv.contradictory",
            Self::NotCorrected { .. } => "suv.not-corrected",
            Self::DecayCorrection => "suv.decay-correction",
            Self::Values { .. } => "suv.values",
            Self::Uncalibrated => "suv.uncalibrated",
            Self::Radiopharmaceuticals { .. } => "suv.radiopharmaceuticals",
            Self::BeforeInjection { .. } => "suv.before-injection",
            Self::TooLate { .. } => "suv.too-late",
            Self::NoInjectionDate { .. } => "suv.no-injection-date",
            Self::NoLeanMass => "suv.no-lean-mass",
        }
    }
}
