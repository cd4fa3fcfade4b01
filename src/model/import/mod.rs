//! Packages out of what other tools have trained. What a package cannot carry over is named, one line each.

mod nnunet;

pub use nnunet::{ImportError, Nnunet, Written, import_nnunet};
