//! Unique identifiers (PS3.5 chapter 9).

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A DICOM unique identifier in its text form.
pub type Uid = String;

/// SOP Class UIDs.
pub mod sop_class {
    /// CT Image Storage.
    pub const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
    /// Digital X-Ray Image Storage - For Presentation.
    pub const DIGITAL_X_RAY_FOR_PRESENTATION: &str = "1.2.840.10008.5.1.4.1.1.1.1";
    /// Secondary Capture Image Storage.
    pub const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
    /// Encapsulated PDF Storage.
    pub const ENCAPSULATED_PDF: &str = "1.2.840.10008.5.1.4.1.1.104.1";
    /// Segmentation Storage.
    pub const SEGMENTATION: &str = "1.2.840.10008.5.1.4.1.1.66.4";
    /// Label Map Segmentation.
    pub const LABEL_MAP_SEGMENTATION: &str = "1.2.840.10008.5.1.4.1.1.66.7";
    /// Grayscale Softcopy Presentation State Storage.
    pub const GRAYSCALE_PRESENTATION_STATE: &str = "1.2.840.10008.5.1.4.1.1.11.1";
    /// Key Object Selection Document Storage.
    pub const KEY_OBJECT_SELECTION: &str = "1.2.840.10008.5.1.4.1.1.88.59";
    /// RT Structure Set Storage.
    pub const RT_STRUCTURE_SET: &str = "1.2.840.10008.5.1.4.1.1.481.3";
    /// Detached Study Management, retired: the class under which a structure set names its study (PS3.3 C.8.8.5).
    pub const DETACHED_STUDY: &str = "1.2.840.10008.3.1.2.3.1";
    /// Parametric Map Storage.
    pub const PARAMETRIC_MAP: &str = "1.2.840.10008.5.1.4.1.1.30";
    /// Comprehensive 3D SR Storage.
    pub const COMPREHENSIVE_3D_SR: &str = "1.2.840.10008.5.1.4.1.1.88.34";
}

/// Transfer syntax UIDs.
pub mod transfer_syntax {
    /// Implicit VR Little Endian.
    pub const IMPLICIT_LITTLE: &str = "1.2.840.10008.1.2";
    /// Explicit VR Little Endian.
    pub const EXPLICIT_LITTLE: &str = "1.2.840.10008.1.2.1";
    /// RLE Lossless.
    pub const RLE_LOSSLESS: &str = "1.2.840.10008.1.2.5";
}

/// Whether `text` is a UID, as far as safety goes (PS3.5 9.1): 1 to 64 digits and dots, no component empty. Leading zeros, which the
/// standard forbids and archives hold, pass.
pub fn is_uid(text: &str) -> bool {
    text.len() <= 64 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// SHA-256 of `bytes`, lower-case hexadecimal: how instances, packages and libraries are told apart.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All names of this program live under this namespace: UUIDv5 of "roentgen" in the OID namespace.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, b"roentgen")
}

/// The UID that `parts` name: `2.25.` and a UUIDv5 as a decimal (PS3.5 B.2). The same parts give the same UID.
///
/// Parts are kept apart, so `["ab", "c"]` and `["a", "bc"]` differ.
pub fn uid_by_name<P: AsRef<[u8]>>(parts: &[P]) -> Uid {
    format!("2.25.{}", uuid_by_name(parts).as_u128())
}

/// The same as a UUID (`urn:uuid:...`), for formats that have no UIDs.
pub fn urn_by_name<P: AsRef<[u8]>>(parts: &[P]) -> String {
    uuid_by_name(parts).urn().to_string()
}

fn uuid_by_name<P: AsRef<[u8]>>(parts: &[P]) -> Uuid {
    let mut name = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        name.update((part.len() as u64).to_le_bytes());
        name.update(part);
    }
    Uuid::new_v5(&namespace(), &name.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_digits_and_dots() {
        for uid in ["1.2.840.10008.1.2", "2.25.007", "1"] {
            assert!(is_uid(uid), "{uid}");
        }
        for text in ["", ".", "..", "1..2", "1.2.", "../1.2", "/1.2", "1.2 ", "Doe^John", &"1".repeat(65)] {
            assert!(!is_uid(text), "{text}");
        }
    }

    #[test]
    fn names_make_stable_distinct_uids() {
        let uid = uid_by_name(&["ab", "c"]);
        assert_eq!(uid, uid_by_name(&["ab", "c"]));
        assert_ne!(uid, uid_by_name(&["a", "bc"]));
        assert!(uid.len() <= 64 && uid.starts_with("2.25."), "{uid}");
    }
}
