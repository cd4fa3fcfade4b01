//! Holes of a label: background that the label encloses, in space or within each slice.
//!
//! Background here is every voxel without the label, across faces (6 neighbours, 4 within a slice): `scipy.ndimage.binary_fill_holes`.
//! Runs on the CPU whatever the backend, as the component filters do. Memory traffic a voxel: 3 bytes read, 2 written.

use rayon::prelude::*;

use super::components::{ComponentRuns, Connectivity, voxel_count};

/// Gives `label` to the voxels of label 0 in its holes: those from which no way across faces leads out of the grid (`each_slice`: out of
/// the slice) without crossing the label. Voxels of other labels stay what they are. How many voxels it filled.
///
/// # Panics
/// Where `labels` has another length than `dims` says, or `label` is 0: broken promises of the caller.
pub fn fill_holes_cpu(labels: &mut [u8], dims: [u32; 3], label: u8, each_slice: bool) -> u64 {
    assert_eq!(labels.len(), voxel_count(dims), "one label a voxel");
    assert!(label != 0, "background has no holes");
    let [nx, ny, _] = dims;
    match each_slice {
        _ if labels.is_empty() => 0,
        false => fill(labels, dims, label, &[0, 1, 2]),
        true => labels.par_chunks_exact_mut(nx as usize * ny as usize).map(|slice| fill(slice, [nx, ny, 1], label, &[0, 1])).sum(),
    }
}

/// `open` are the axes along which a hole must not reach the ends.
fn fill(labels: &mut [u8], dims: [u32; 3], label: u8, open: &[usize]) -> u64 {
    if !labels.contains(&label) {
        return 0;
    }
    let mut others: Vec<u8> = labels.iter().map(|&found| u8::from(found != label)).collect();
    let runs = ComponentRuns::of(&others, dims, Connectivity::Six);
    let encloses: Vec<bool> =
        runs.extents().iter().map(|extent| open.iter().all(|&s| extent.first[s] > 0 && extent.last[s] + 1 < dims[s])).collect();
    if !encloses.contains(&true) {
        return 0;
    }
    runs.retain(&mut others, |number, _| encloses[number as usize - 1]);
    let mut filled = 0;
    for (found, &hole) in labels.iter_mut().zip(&others) {
        if hole != 0 && *found == 0 {
            *found = label;
            filled += 1;
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &str, each_slice: bool, expected: &str) {
        // Slices are separated by a blank, rows by a slash.
        let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect::<Vec<_>>();
        let slices = labels.split(' ').count() as u32;
        let rows = labels.split(' ').next().map_or(0, |slice| slice.split('/').count()) as u32;
        let mut found = digits(labels);
        let dims = [found.len() as u32 / rows / slices, rows, slices];
        let before = found.clone();
        let filled = fill_holes_cpu(&mut found, dims, 1, each_slice);
        assert_eq!(found, digits(expected));
        assert_eq!(filled, found.iter().zip(before).filter(|(a, b)| **a != *b).count() as u64);
    }

    #[test]
    fn only_what_is_enclosed_is_filled() {
        let ring = "0110/1001/0110";
        check(ring, true, "0110/1111/0110");
        // One slice has an open front and back.
        check(ring, false, ring);
        check("000/000/000 010/101/010 000/000/000", false, "000/000/000 010/101/010 000/000/000");
        check("000/010/000 010/101/010 000/010/000", false, "000/010/000 010/111/010 000/010/000");
        // At the edge, another label inside, another label as a part of the wall.
        check("110/001/110", true, "110/001/110");
        check("01110/10201/01110", true, "01110/11211/01110");
        check("010/201/010", true, "010/201/010");
        check("000/020/000", true, "000/020/000");
    }
}
