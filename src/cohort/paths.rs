//! Paths as text. What is no Unicode stands as a `file:` URI (RFC 8089), byte for byte: one folder with such a name must not end a cohort,
//! and a list that names it must find it again.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SCHEME: &str = "file://";
/// All but what stands as it is in a path (RFC 3986 2.3, 3.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As it is, or from the root as a URI.
pub(super) fn text_of(path: &Path) -> String {
    if let Some(text) = path.to_str().filter(|text| !text.starts_with(SCHEME)) {
        return text.to_owned();
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    format!("{SCHEME}{}", percent_encode(path.as_os_str().as_encoded_bytes(), ENCODED))
}

/// What [`text_of`] was made of; a URI that is not well formed is a path like any other.
pub(super) fn path_of(text: &str) -> PathBuf {
    text.strip_prefix(SCHEME).and_then(decoded).map_or_else(|| text.into(), from_bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend(part[2..].bytes());
    }
    Some(bytes)
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// For `#[serde(with = ..)]`.
pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    text_of(path).serialize(serializer)
}

/// For `#[serde(with = ..)]`.
pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<PathBuf, D::Error> {
    String::deserialize(deserializer).map(|text| path_of(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &Path, text: &str) {
        assert_eq!(text_of(path), text);
        assert_eq!(path_of(text), path);
    }

    #[test]
    fn every_path_has_a_text_and_every_text_its_path() {
        check(Path::new("in 8/Müller%FC"), "in 8/Müller%FC");
        assert_eq!(path_of("file:///a%zz"), Path::new("file:///a%zz"));
        assert_eq!(path_of("file:///a%é"), Path::new("file:///a%é"));
        #[cfg(unix)]
        check(&from_bytes(b"/in 8/M\xfcller%".to_vec()), "file:///in%208/M%FCller%25");
    }
}
