//! Arbitrary bytes as a NIfTI or NRRD file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roentgen::research::{read_header, read_volume};

#[allow(dead_code)]
mod shared;

fuzz_target!(|data: &[u8]| {
    for name in ["volume.nii", "volume.nrrd"] {
        let path = shared::file(name, data);
        if read_header(&path).is_ok_and(|header| header.grid.voxel_count() <= 1 << 22) {
            let _ = read_volume(&path);
        }
    }
});
