//! Lookup tables from stored to physical values (PS3.3 C.11.1.1, C.7.6.16.2.11.1.2).

use std::sync::Arc;

use dicom::core::PrimitiveValue;
use dicom::object::InMemDicomObject;

use super::attributes::{as_stored, integer, texts};
use super::reason::ValueFault;
use crate::dataset::tags;

/// A table from stored to physical values: entry `n` is the value of stored `first + n`. What lies below or above the table takes its
/// first or last entry (PS3.3 C.11.1.1.1).
#[derive(Debug, Clone, PartialEq)]
pub struct ModalityLut {
    first: i64,
    values: Arc<[f64]>,
}

impl ModalityLut {
    /// The stored value of the first entry.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// 1 to 65 536 physical values.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The physical value of a stored one.
    pub fn apply(&self, stored: i64) -> f64 {
        let n = stored.saturating_sub(self.first).clamp(0, self.values.len() as i64 - 1);
        self.values[n as usize]
    }

    /// The same table with every value times `factor`.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self { first: self.first, values: self.values.iter().map(|v| v * factor).collect() }
    }

    /// `self`, sharing its entries with `other` where the two are equal: an image of many frames has one table in most cases.
    pub(super) fn shared_with(self, other: &Self) -> Self {
        if self == *other { other.clone() } else { self }
    }

    /// Item of a Modality LUT Sequence (0028,3000).
    pub(super) fn of_item(item: &InMemDicomObject, signed: bool) -> Result<Self, ValueFault> {
        let descriptor: Option<Vec<i64>> = texts(item, tags::LUT_DESCRIPTOR).iter().map(|v| v.parse().ok()).collect();
        let Some([entries, first, bits]) = descriptor.and_then(|d| <[i64; 3]>::try_from(d).ok()) else {
            return Err(ValueFault::LutDescriptor);
        };
        // A signed descriptor makes 40 000 entries a negative number; 65 536 do not fit and are written as 0.
        let entries = match as_stored(entries, false) {
            0 => 65_536,
            n @ 1..=65_535 => n as usize,
            _ => return Err(ValueFault::LutDescriptor),
        };
        if !(8..=16).contains(&bits) {
            return Err(ValueFault::LutBits { bits });
        }
        let first = as_stored(first, signed);
        let data = item.get(tags::LUT_DATA).and_then(|e| e.value().primitive());
        let words = |words: &[u16]| (words.to_vec(), words.iter().flat_map(|w| w.to_le_bytes()).collect());
        let (words, bytes): (Vec<u16>, Vec<u8>) = match data {
            Some(PrimitiveValue::U16(values)) => words(values),
            Some(PrimitiveValue::I16(values)) => words(&values.iter().map(|&v| v as u16).collect::<Vec<_>>()),
            Some(PrimitiveValue::U8(values)) => {
                (values.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect(), values.to_vec())
            }
            _ => (Vec::new(), Vec::new()),
        };
        let values: Arc<[f64]> = if words.len() == entries {
            words.iter().map(|&v| f64::from(v)).collect()
        } else if bits == 8 && bytes.len() == entries + entries % 2 {
            bytes[..entries].iter().map(|&v| f64::from(v)).collect()
        } else {
            return Err(ValueFault::LutLength { stated: entries, found: words.len() });
        };
        if values.iter().any(|&v| v >= f64::from(1u32 << bits)) {
            return Err(ValueFault::LutEntries { bits });
        }
        Ok(Self { first, values })
    }

    /// The LUT of an item of a Real World Value Mapping Sequence, one value for each stored value from `first` to `last`.
    pub(super) fn of_real_world(item: &InMemDicomObject, first: i64, last: i64) -> Result<Self, ValueFault> {
        let stated = usize::try_from(last - first + 1).ok().filter(|n| (1..=65_536).contains(n)).ok_or(ValueFault::RealWorldRange)?;
        let data = item.get(tags::REAL_WORLD_VALUE_LUT_DATA).and_then(|e| e.value().primitive());
        let Some(PrimitiveValue::F64(values)) = data else { return Err(ValueFault::LutLength { stated, found: 0 }) };
        if values.len() != stated {
            return Err(ValueFault::LutLength { stated, found: values.len() });
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(ValueFault::RealWorldMap);
        }
        Ok(Self { first, values: values.iter().copied().collect() })
    }
}

/// First and last stored value mapped, of an item of a Real World Value Mapping Sequence.
pub(super) fn real_world_range(item: &InMemDicomObject, signed: bool) -> Result<(i64, i64), ValueFault> {
    let read = |tag| integer(item, tag).ok().flatten().map(|v| as_stored(v, signed));
    let stored = read(tags::REAL_WORLD_VALUE_FIRST_VALUE_MAPPED).zip(read(tags::REAL_WORLD_VALUE_LAST_VALUE_MAPPED));
    stored.filter(|(first, last)| first <= last).ok_or(ValueFault::RealWorldRange)
}
