//! The data sets of Storage Commitment: what is asked for, and what is answered (PS3.4 tables J.3-1 and J.3-2).

use std::path::Path;

use dicom::dictionary_std::{tags, uids};
use dicom::encoding::TransferSyntaxIndex;
use dicom::object::InMemDicomObject;
use dicom::transfer_syntax::TransferSyntaxRegistry;

use super::layout::{Layout, Source};
use super::{Attributes, DatasetError, Header, Item, WriteError, items};
use crate::codes::{Uid, is_uid};

/// An instance by class and UID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Referenced SOP Class UID (0008,1150).
    pub sop_class_uid: Uid,
    /// Referenced SOP Instance UID (0008,1155).
    pub sop_instance_uid: Uid,
}

/// A request for commitment, with nothing failed, or the answer to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Transaction UID (0008,1195).
    pub transaction_uid: Uid,
    /// Referenced SOP Sequence (0008,1199).
    pub instances: Vec<Reference>,
    /// Failed SOP Sequence (0008,1198), each with its Failure Reason (0008,1197).
    pub failed: Vec<(Reference, u16)>,
}

impl Commitment {
    /// Reads a data set in either native transfer syntax; the first element tells them apart.
    ///
    /// # Errors
    /// Where it is no data set, or names no transaction or an instance without UIDs.
    pub fn read(bytes: Vec<u8>) -> Result<Self, DatasetError> {
        let nowhere = Path::new(""); // it has no file
        let object = Header::of(&Layout::of(Source::of_bytes(bytes), nowhere)?).to_object(nowhere)?;
        let uid = |object: &InMemDicomObject, tag| {
            let found = object.text(tag);
            let wrong = DatasetError::Malformed {
                what: "no valid UID where a transaction or a reference needs one",
                offset: 0,
                path: nowhere.into(),
            };
            if is_uid(&found) { Ok(found) } else { Err(wrong) }
        };
        let reference = |item: &InMemDicomObject| {
            Ok::<_, DatasetError>(Reference {
                sop_class_uid: uid(item, tags::REFERENCED_SOP_CLASS_UID)?,
                sop_instance_uid: uid(item, tags::REFERENCED_SOP_INSTANCE_UID)?,
            })
        };
        let failed = |item: &InMemDicomObject| {
            let reason = item.integer(tags::FAILURE_REASON).and_then(|n| u16::try_from(n).ok());
            Ok::<_, DatasetError>((reference(item)?, reason.unwrap_or(PROCESSING_FAILURE)))
        };
        Ok(Self {
            transaction_uid: uid(&object, tags::TRANSACTION_UID)?,
            instances: items(&object, tags::REFERENCED_SOP_SEQUENCE).iter().map(reference).collect::<Result<_, _>>()?,
            failed: items(&object, tags::FAILED_SOP_SEQUENCE).iter().map(failed).collect::<Result<_, _>>()?,
        })
    }

    /// As a data set in a native transfer syntax. A sequence without items is left out (PS3.4 J.3.3.1.1).
    ///
    /// # Errors
    /// Where it is another transfer syntax.
    pub fn bytes(&self, transfer_syntax_uid: &str) -> Result<Vec<u8>, WriteError> {
        let wrong = || WriteError::Encode(format!("references are not written in {transfer_syntax_uid}"));
        let native = [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].contains(&transfer_syntax_uid);
        let syntax = TransferSyntaxRegistry.get(transfer_syntax_uid).filter(|_| native).ok_or_else(wrong)?;
        let item = |reference: &Reference| {
            Item::new()
                .text(tags::REFERENCED_SOP_CLASS_UID, &reference.sop_class_uid)
                .text(tags::REFERENCED_SOP_INSTANCE_UID, &reference.sop_instance_uid)
        };
        let mut data_set = Item::new().text(tags::TRANSACTION_UID, &self.transaction_uid);
        if !self.failed.is_empty() {
            let failed = self.failed.iter().map(|(reference, reason)| item(reference).integer(tags::FAILURE_REASON, (*reason).into()));
            data_set = data_set.sequence(tags::FAILED_SOP_SEQUENCE, failed);
        }
        if !self.instances.is_empty() {
            data_set = data_set.sequence(tags::REFERENCED_SOP_SEQUENCE, self.instances.iter().map(item));
        }
        let mut bytes = Vec::new();
        data_set.into_inner().write_dataset_with_ts(&mut bytes, syntax).map_err(|error| WriteError::Encode(error.to_string()))?;
        Ok(bytes)
    }
}

/// Failure Reason where none is given (PS3.3 C.14.1.1).
const PROCESSING_FAILURE: u16 = 0x0110;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Commitment {
        let reference = |n: u8| Reference { sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(), sop_instance_uid: format!("1.2.3.{n}") };
        Commitment {
            transaction_uid: "2.25.7".into(),
            instances: (1..4).map(reference).collect(),
            failed: vec![(reference(4), 0x0112), (reference(5), 0x0119)],
        }
    }

    #[test]
    fn it_comes_back_in_both_transfer_syntaxes() {
        let all = answer();
        for answer in [Commitment { failed: Vec::new(), ..all.clone() }, Commitment { instances: Vec::new(), ..all.clone() }, all] {
            for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
                let bytes = answer.bytes(syntax).expect("native");
                assert_eq!(Commitment::read(bytes).expect("what we write"), answer, "{syntax}");
            }
        }
        assert!(answer().bytes("1.2.840.10008.1.2.4.50").is_err());
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let bytes = |commitment: &Commitment| commitment.bytes(uids::EXPLICIT_VR_LITTLE_ENDIAN).expect("native");
        let nameless = Commitment { transaction_uid: "no UID".into(), ..answer() };
        let mut vague = answer();
        vague.instances[1].sop_instance_uid.clear();
        let cut = bytes(&answer())[..200].to_vec();
        for wrong in [bytes(&nameless), bytes(&vague), cut, Vec::new(), vec![0xFF; 100]] {
            Commitment::read(wrong).expect_err("refused");
        }
        // An item in an item, ten thousand times: a bound of the walk, not the stack, ends that.
        let mut deep = bytes(&Commitment { instances: Vec::new(), failed: Vec::new(), ..answer() });
        for _ in 0..10_000 {
            deep.extend([0x08, 0x00, 0x99, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
        }
        Commitment::read(deep).expect_err("too deep");
    }
}
