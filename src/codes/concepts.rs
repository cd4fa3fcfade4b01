//! The concepts that this program itself writes. Those of a finding come from its model package.

/// DICOM Controlled Terminology (PS3.16 annex D).
pub mod dcm {
    use crate::codes::Code;

    macro_rules! concepts {
        ($($name:ident = $value:literal $meaning:literal)*) => {
            $(#[doc = concat!("(", $value, ", DCM, \"", $meaning, "\")")] pub const $name: Code = Code::new($value, "DCM", $meaning);)*
        };
    }

    concepts! {
        ALGORITHM_FAMILY = "111000" "Algorithm Family"
        ALGORITHM_NAME = "111001" "Algorithm Name"
        ALGORITHM_PARAMETERS = "111002" "Algorithm Parameters"
        ALGORITHM_VERSION = "111003" "Algorithm Version"
        IMAGE_LIBRARY = "111028" "Image Library"
        HORIZONTAL_PIXEL_SPACING = "111026" "Horizontal Pixel Spacing"
        VERTICAL_PIXEL_SPACING = "111066" "Vertical Pixel Spacing"
        PIXEL_DATA_ROWS = "110910" "Pixel Data Rows"
        PIXEL_DATA_COLUMNS = "110911" "Pixel Data Columns"
        SLICE_THICKNESS = "112225" "Slice Thickness"
        SPACING_BETWEEN_SLICES = "112226" "Spacing between slices"
        FRAME_OF_REFERENCE_UID = "112227" "Frame of Reference UID"
        MEASUREMENT_FAILURE = "114006" "Measurement failure"
        COMPUTED_TOMOGRAPHY = "CT" "Computed Tomography"
        MAGNETIC_RESONANCE = "MR" "Magnetic Resonance"
        POSITRON_EMISSION_TOMOGRAPHY = "PT" "Positron emission tomography"
        COMPUTED_RADIOGRAPHY = "CR" "Computed Radiography"
        DIGITAL_RADIOGRAPHY = "DX" "Digital Radiography"
        MAMMOGRAPHY = "MG" "Mammography"
        ULTRASOUND = "US" "Ultrasound"
        ATTENUATION_COEFFICIENT = "112031" "Attenuation Coefficient"
        X_RAY_ATTENUATION = "110850" "X-Ray Attenuation"
        ECHOGENICITY = "110849" "Echogenicity"
        NUCLEAR_MEDICINE_TOMOGRAPHIC_ACTIVITY = "110821" "Nuclear Medicine Tomographic Activity"
        SUV_BW = "126401" "SUVbw"
        SUV_LBM = "126402" "SUVlbm"
        SUV_BSA = "126403" "SUVbsa"
        SUV_IBW = "126404" "SUVibw"
        SUV_LBM_JANMA = "126405" "SUVlbm(Janma)"
        SUV_LBM_JAMES128 = "126406" "SUVlbm(James128)"
        CERTAINTY_OF_FINDING = "111012" "Certainty of Finding"
        IMAGE_REGION = "111030" "Image Region"
        CENTER = "111010" "Center"
        OUTLINE = "111041" "Outline"
        GEOMETRIC_PURPOSE_OF_REGION = "130400" "Geometric purpose of region"
        SUM_OF_VOXELS = "126030" "Sum of segmented voxel method for volume"
        TRACKING_IDENTIFIER = "112039" "Tracking Identifier"
        TRACKING_UNIQUE_IDENTIFIER = "112040" "Tracking Unique Identifier"
        OF_INTEREST = "113000" "Of Interest"
        KEY_OBJECT_DESCRIPTION = "113012" "Key Object Description"
        SEGMENTATION = "113076" "Segmentation"
        UNSPECIFIED_METHOD = "112187" "Unspecified method of calculation"
        PROBABILITY = "122157" "Probability"
        PROCESSING_EQUIPMENT = "109102" "Processing Equipment"
        OBSERVER_TYPE = "121005" "Observer Type"
        DEVICE = "121007" "Device"
        DEVICE_OBSERVER_UID = "121012" "Device Observer UID"
        DEVICE_OBSERVER_NAME = "121013" "Device Observer Name"
        DEVICE_OBSERVER_MANUFACTURER = "121014" "Device Observer Manufacturer"
        DEVICE_OBSERVER_MODEL_NAME = "121015" "Device Observer Model Name"
        DEVICE_OBSERVER_SERIAL_NUMBER = "121016" "Device Observer Serial Number"
        LANGUAGE_OF_CONTENT = "121049" "Language of Content Item and Descendants"
        PRESENCE_OF_PROPERTY = "121052" "Presence of property"
        PROCEDURE_REPORTED = "121058" "Procedure reported"
        FINDING = "121071" "Finding"
        MR_SIGNAL_INTENSITY = "110852" "MR signal intensity"
        MODALITY = "121139" "Modality"
        REFERENCED_SEGMENT = "121191" "Referenced Segment"
        VOLUME_SURFACE = "121231" "Volume Surface"
        SOURCE_SERIES_FOR_SEGMENTATION = "121232" "Source Series for Segmentation"
        SOURCE_IMAGE_FOR_PROCESSING = "121322" "Source Image for Image Processing Operation"
        DERIVATION = "121401" "Derivation"
        ARTIFICIAL_INTELLIGENCE = "123110" "Artificial Intelligence"
        MEASUREMENT_GROUP = "125007" "Measurement Group"
        IMAGING_MEASUREMENT_REPORT = "126000" "Imaging Measurement Report"
        IMAGING_MEASUREMENTS = "126010" "Imaging Measurements"
        IMAGE_LIBRARY_GROUP = "126200" "Image Library Group"
    }

    /// The concept of a Modality (0008,0060) that reports may name (CID 29).
    pub fn modality(code: &str) -> Option<Code> {
        match code {
            "CT" => Some(COMPUTED_TOMOGRAPHY),
            "MR" => Some(MAGNETIC_RESONANCE),
            "PT" => Some(POSITRON_EMISSION_TOMOGRAPHY),
            "CR" => Some(COMPUTED_RADIOGRAPHY),
            "DX" => Some(DIGITAL_RADIOGRAPHY),
            "MG" => Some(MAMMOGRAPHY),
            "US" => Some(ULTRASOUND),
            _ => None,
        }
    }
}

/// SNOMED CT concepts within the subset that PS3.16 licenses.
pub mod sct {
    use crate::codes::Code;

    /// Title of a finding's category in TID 1411 and 1501.
    pub const FINDING_CATEGORY: Code = Code::new("276214006", "SCT", "Finding category");
    /// Where a finding is.
    pub const FINDING_SITE: Code = Code::new("363698007", "SCT", "Finding Site");
    /// Side of the body.
    pub const LATERALITY: Code = Code::new("272741003", "SCT", "Laterality");
    /// The finding is there.
    pub const PRESENT: Code = Code::new("52101004", "SCT", "Present");
    /// The finding is not there.
    pub const ABSENT: Code = Code::new("272519000", "SCT", "Absent");
    /// Arithmetic mean, as a derivation.
    pub const MEAN: Code = Code::new("373098007", "SCT", "Mean");
    /// Standard deviation, as a derivation.
    pub const STANDARD_DEVIATION: Code = Code::new("386136009", "SCT", "Standard Deviation");
    /// Least value, as a derivation.
    pub const MINIMUM: Code = Code::new("255605001", "SCT", "Minimum");
    /// Greatest value, as a derivation.
    pub const MAXIMUM: Code = Code::new("56851009", "SCT", "Maximum");
    /// Median, as a derivation.
    pub const MEDIAN: Code = Code::new("373099004", "SCT", "Median");
    /// 5th percentile of the voxels, as a derivation (CID 226).
    pub const PERCENTILE_5: Code = Code::new("371888009", "SCT", "5th Percentile Value of population");
    /// 10th percentile of the voxels, as a derivation (CID 226).
    pub const PERCENTILE_10: Code = Code::new("371890005", "SCT", "10th Percentile Value of population");
    /// 90th percentile of the voxels, as a derivation (CID 226).
    pub const PERCENTILE_90: Code = Code::new("371887004", "SCT", "90th Percentile Value of population");
    /// 95th percentile of the voxels, as a derivation (CID 226).
    pub const PERCENTILE_95: Code = Code::new("371889001", "SCT", "95th Percentile Value of population");
    /// Category of segments that are parts of the body (CID 7150).
    pub const ANATOMICAL_STRUCTURE: Code = Code::new("91723000", "SCT", "Anatomical Structure");
    /// Volume of a region.
    pub const VOLUME: Code = Code::new("118565006", "SCT", "Volume");
    /// Area of a region in an image.
    pub const AREA: Code = Code::new("42798000", "SCT", "Area");
    /// Some diameter of a region.
    pub const DIAMETER: Code = Code::new("81827009", "SCT", "Diameter");
    /// Longest diameter of a region in an image.
    pub const LONG_AXIS: Code = Code::new("103339001", "SCT", "Long axis");
    /// Longest diameter across the long axis.
    pub const SHORT_AXIS: Code = Code::new("103340004", "SCT", "Short axis");
    /// By which method a number was measured.
    pub const MEASUREMENT_METHOD: Code = Code::new("370129005", "SCT", "Measurement Method");
    /// A region is the box around what it is about.
    pub const BOUNDED_BY: Code = Code::new("75958009", "SCT", "Bounded by");
    /// Some quantity, where nothing says which.
    pub const QUANTITY: Code = Code::new("246205007", "SCT", "Quantity");
}

/// Shape of regions (Imaging Biomarker Standardisation Initiative; CID 7477).
pub mod ibsi {
    use crate::codes::Code;

    /// Area of the surface, by triangles.
    pub const SURFACE_AREA_OF_MESH: Code = Code::new("C0JK", "IBSI", "Surface Area of Mesh");
    /// How close to a ball: surface of a ball of the mesh's volume, as a share of the mesh's.
    pub const SPHERICITY: Code = Code::new("QCFX", "IBSI", "Sphericity");
}

/// Units (UCUM).
pub mod ucum {
    use crate::codes::Code;

    /// Millilitre.
    pub const MILLILITRE: Code = Code::new("ml", "UCUM", "ml");
    /// Hounsfield unit.
    pub const HOUNSFIELD: Code = Code::new("[hnsf'U]", "UCUM", "Hounsfield unit");
    /// Becquerel a millilitre.
    pub const BECQUEREL_PER_MILLILITRE: Code = Code::new("Bq/ml", "UCUM", "Becquerels/milliliter");
    /// SUV by body weight (CID 85, as all SUVs here; in older editions the annotation came first, `{SUVbw}g/ml`).
    pub const SUV_BW: Code = Code::new("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight");
    /// SUV by lean body mass (James, multiplier 120).
    pub const SUV_LBM: Code = Code::new("g/ml{SUVlbm}", "UCUM", "Standardized Uptake Value lean body mass (James)");
    /// SUV by lean body mass (James, multiplier 128).
    pub const SUV_LBM_JAMES128: Code =
        Code::new("g/ml{SUVlbm(James128)}", "UCUM", "Standardized Uptake Value lean body mass (James 128 multiplier)");
    /// SUV by lean body mass (Janmahasatian).
    pub const SUV_LBM_JANMA: Code = Code::new("g/ml{SUVlbm(Janma)}", "UCUM", "Standardized Uptake Value lean body mass (Janma)");
    /// SUV by body surface area.
    pub const SUV_BSA: Code = Code::new("cm2/ml{SUVbsa}", "UCUM", "Standardized Uptake Value body surface area");
    /// SUV by ideal body weight.
    pub const SUV_IBW: Code = Code::new("g/ml{SUVibw}", "UCUM", "Standardized Uptake Value ideal body weight");
    /// Thousandths, of optical density.
    pub const THOUSANDTHS: Code = Code::new("10*-3", "UCUM", "per thousand");
    /// Millimetre.
    pub const MILLIMETRE: Code = Code::new("mm", "UCUM", "mm");
    /// Day.
    pub const DAY: Code = Code::new("d", "UCUM", "day");
    /// Square millimetre.
    pub const SQUARE_MILLIMETRE: Code = Code::new("mm2", "UCUM", "mm2");
    /// Hundredths.
    pub const PERCENT: Code = Code::new("%", "UCUM", "Percent");
    /// Number of pixels.
    pub const PIXELS: Code = Code::new("{pixels}", "UCUM", "pixels");
    /// No unit.
    pub const ONE: Code = Code::new("1", "UCUM", "no units");
}

/// Imaging procedures in general (LOINC, CID 100), and the language of our text.
pub mod other {
    use crate::codes::Code;

    /// Some CT.
    pub const CT_PROCEDURE: Code = Code::new("25045-6", "LN", "CT unspecified body region");
    /// Some MRI.
    pub const MRI_PROCEDURE: Code = Code::new("25056-3", "LN", "MRI unspecified body region");
    /// Some PET.
    pub const PET_PROCEDURE: Code = Code::new("44136-0", "LN", "PET unspecified body region");
    /// Some imaging procedure.
    pub const IMAGING_PROCEDURE: Code = Code::new("363679005", "SCT", "Imaging procedure");
    /// Entropy of class probabilities as a part of the greatest possible: 0 certain, 1 every class as likely.
    pub const CLASS_ENTROPY: Code = Code::new("CLASS-ENTROPY", "99ROENTGEN", "Normalized entropy of class probabilities");
    /// Standard deviation of the probability of a finding over the members of an ensemble: 0 all say the same, 0.5 half say no and half yes.
    pub const ENSEMBLE_SPREAD: Code = Code::new("ENSEMBLE-SPREAD", "99ROENTGEN", "Standard deviation of probability over an ensemble");
    /// The model's output for the presence of a finding that is absent, in percent: never the certainty of its absence.
    pub const PROBABILITY_OF_PRESENCE: Code = Code::new("PRESENCE-PROB", "99ROENTGEN", "Probability of presence");
    /// How far the probability of a finding falls where a place of the image is covered: -1 to 1.
    pub const OCCLUSION_DROP: Code = Code::new("OCCLUSION-DROP", "99ROENTGEN", "Drop of probability where covered");
    /// The longest side of the box around a finding.
    pub const BOX_LONGEST_SIDE: Code = Code::new("BOX-LONGEST-SIDE", "99ROENTGEN", "Longest side of the box");
    /// Its side along i of the network's grid.
    pub const BOX_EXTENT_I: Code = Code::new("BOX-EXTENT-I", "99ROENTGEN", "Extent of the box along i");
    /// Its side along j.
    pub const BOX_EXTENT_J: Code = Code::new("BOX-EXTENT-J", "99ROENTGEN", "Extent of the box along j");
    /// Its side along k.
    pub const BOX_EXTENT_K: Code = Code::new("BOX-EXTENT-K", "99ROENTGEN", "Extent of the box along k");
    /// Left of the patient's zero: a coordinate of the centre of a finding, as the two below.
    pub const CENTRE_LEFT: Code = Code::new("CENTRE-L", "99ROENTGEN", "Centre, coordinate towards the left");
    /// Behind it.
    pub const CENTRE_POSTERIOR: Code = Code::new("CENTRE-P", "99ROENTGEN", "Centre, coordinate towards the back");
    /// Above it.
    pub const CENTRE_SUPERIOR: Code = Code::new("CENTRE-S", "99ROENTGEN", "Centre, coordinate towards the head");
    /// What became of a finding since an earlier study of the patient: a question.
    pub const FOLLOW_UP: Code = Code::new("FOLLOW-UP", "99ROENTGEN", "Compared with the earlier study");
    /// An answer to [`FOLLOW_UP`], as all below.
    pub const FOLLOW_UP_MATCHED: Code = Code::new("MATCHED", "99ROENTGEN", "The same finding");
    /// It was not found there.
    pub const FOLLOW_UP_NEW: Code = Code::new("NEW", "99ROENTGEN", "Not found there");
    /// It was found there and is not found now.
    pub const FOLLOW_UP_NOT_FOUND: Code = Code::new("NOT-FOUND", "99ROENTGEN", "Found there, not found now");
    /// Several may be the same.
    pub const FOLLOW_UP_AMBIGUOUS: Code = Code::new("AMBIGUOUS", "99ROENTGEN", "Cannot be told apart from another finding");
    /// The images of the other study do not show the place.
    pub const FOLLOW_UP_NOT_COVERED: Code = Code::new("NOT-COVERED", "99ROENTGEN", "Outside of the other images");
    /// The volume that a finding had in the earlier study.
    pub const EARLIER_VOLUME: Code = Code::new("EARLIER-VOLUME", "99ROENTGEN", "Earlier volume");
    /// The largest diameter that it had.
    pub const EARLIER_DIAMETER: Code = Code::new("EARLIER-DIAMETER", "99ROENTGEN", "Earlier maximum diameter");
    /// The long axis that it had.
    pub const EARLIER_LONG_AXIS: Code = Code::new("EARLIER-AXIS", "99ROENTGEN", "Earlier long axis");
    /// Volume now less volume then, or that as a share of then.
    pub const VOLUME_CHANGE: Code = Code::new("VOLUME-CHANGE", "99ROENTGEN", "Volume change");
    /// The same of the largest diameter.
    pub const DIAMETER_CHANGE: Code = Code::new("DIAMETER-CHANGE", "99ROENTGEN", "Maximum diameter change");
    /// The same of the long axis.
    pub const LONG_AXIS_CHANGE: Code = Code::new("LONG-AXIS-CHANGE", "99ROENTGEN", "Long axis change");
    /// From the earlier measurement to this one.
    pub const EARLIER_BY: Code = Code::new("EARLIER-BY", "99ROENTGEN", "Time since earlier measurement");
    /// The time in which a volume doubles that grows as it did.
    pub const VOLUME_DOUBLING_TIME: Code = Code::new("DOUBLING-TIME", "99ROENTGEN", "Volume doubling time");
    /// English.
    pub const ENGLISH: Code = Code::new("en-US", "RFC5646", "English (United States)");
}
