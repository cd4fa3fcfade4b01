//! Arrays of a manifest, neither shorter nor longer than they are meant to be: TOML's reader takes longer ones and forgets the rest.

use serde::de::{Deserialize, Deserializer, Error};

/// `N` values.
pub(super) fn exactly<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(from: D) -> Result<[T; N], D::Error> {
    let values = Vec::deserialize(from)?;
    values.try_into().map_err(|values: Vec<T>| D::Error::invalid_length(values.len(), &format!("{N} values").as_str()))
}

/// The same of what need not be there.
pub(super) fn exactly_some<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(from: D) -> Result<Option<[T; N]>, D::Error> {
    exactly(from).map(Some)
}
