//! Arbitrary bytes as a DICOM file.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod shared;

fuzz_target!(|data: &[u8]| shared::read(&shared::file("instance", data)));
