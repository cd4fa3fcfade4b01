//! SOP classes and transfer syntaxes that are taken.

pub(super) const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Storage Commitment Push Model and its well-known instance (PS3.4 J.3.5).
pub(super) const COMMITMENT: &str = "1.2.840.10008.1.20.1";
pub(super) const COMMITMENT_INSTANCE: &str = "1.2.840.10008.1.20.1.1";
pub(super) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(super) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// What the UIDs of all standard storage SOP classes begin with (PS3.4 B.5).
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
/// Storage SOP classes of images and of what lies on images, by what follows [`STORAGE`].
#[rustfmt::skip]
const USABLE: [&str; 41] = [
    "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", // computed and digital radiography, mammography, intra-oral
    "2", "2.1", "2.2", // CT, enhanced, legacy converted
    "3.1", "6.1", "6.2", "6.3", // ultrasound
    "4", "4.1", "4.3", "4.4", // MR, enhanced, colour, legacy converted
    "7", "7.1", "7.2", "7.3", "7.4", // secondary capture
    "12.1", "12.1.1", "12.2", "12.2.1", "13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5", // angiography, 3D X-ray, tomosynthesis
    "20", "128", "128.1", "130", // nuclear medicine, PET
    "30", "66.4", "66.7", // parametric map, segmentation, label map
    "88.22", "88.34", // reports that results refer to
];

/// Whether a storage SOP class is taken: of images and what lies on them, or `any`.
pub(super) fn is_storage(sop_class_uid: &str, any: bool) -> bool {
    sop_class_uid.strip_prefix(STORAGE).is_some_and(|class| any || USABLE.contains(&class))
}

/// Whether data sets without pixels may be in it.
pub(super) fn is_native(transfer_syntax_uid: &str) -> bool {
    [IMPLICIT, EXPLICIT].contains(&transfer_syntax_uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken() {
        assert!(is_storage("1.2.840.10008.5.1.4.1.1.2", false));
        assert!(!is_storage("1.2.840.10008.5.1.4.1.1.66", false), "raw data");
        assert!(is_storage("1.2.840.10008.5.1.4.1.1.66", true));
        assert!(!is_storage("1.2.840.10008.5.1.4.1.2.2.1", true), "a query");
    }
}
