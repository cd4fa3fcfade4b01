//! Detached signatures of packed packages: Ed25519 (RFC 8032) over the file's bytes, 64 bytes in `FILE.sig`.
//!
//! Keys are PEM files as OpenSSL makes them (RFC 8410), and OpenSSL verifies the same:
//! `openssl pkeyutl -verify -pubin -inkey PUBLIC.pem -rawin -in FILE -sigfile FILE.sig`.

use std::fs;
use std::path::{Path, PathBuf};

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use super::ModelError;

/// What comes before the 32 bytes of an Ed25519 public key in its DER form.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs `packed` with the private key in `key`; where the signature is.
///
/// # Errors
/// [`ModelError::Key`] for a file that holds none, [`ModelError::Read`] and [`ModelError::Write`].
pub fn sign(packed: &Path, key: &Path) -> Result<PathBuf, ModelError> {
    let wrong = || ModelError::Key {
        what: "no private Ed25519 key in PEM form: `openssl genpkey -algorithm ed25519 -out KEY.pem` makes one",
        path: key.to_owned(),
    };
    let der = PrivatePkcs8KeyDer::from_pem_slice(&read(key)?).map_err(|_| wrong())?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| wrong())?;
    let path = path_of(packed);
    fs::write(&path, pair.sign(&read(packed)?)).map_err(|source| ModelError::Write { source })?;
    Ok(path)
}

/// Holds the signature beside `packed` against the public key in `key`.
///
/// # Errors
/// [`ModelError::Signature`] where it is another's or the package was changed; [`ModelError::Key`] and [`ModelError::Read`].
pub fn verify(packed: &Path, key: &Path) -> Result<(), ModelError> {
    let wrong = || ModelError::Key {
        what: "no public Ed25519 key in PEM form: `openssl pkey -in KEY.pem -pubout -out PUBLIC.pem` makes it",
        path: key.to_owned(),
    };
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&read(key)?).map_err(|_| wrong())?;
    let public = der.strip_prefix(&PUBLIC_PREFIX[..]).filter(|public| public.len() == 32).ok_or_else(wrong)?;
    let signature = read(&path_of(packed))?;
    let verified = UnparsedPublicKey::new(&ED25519, public).verify(&read(packed)?, &signature);
    verified.map_err(|_| ModelError::Signature { path: packed.to_owned() })
}

/// Where the signature of `packed` lies: beside it.
pub fn path_of(packed: &Path) -> PathBuf {
    let mut path = packed.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    fs::read(path).map_err(|source| ModelError::Read { path: path.to_owned(), source })
}
