//! Tiles that answer for each voxel once. They see a halo around them, which is cut off again: no seams.

use std::ops::Range;

use super::InferError;
use super::asked::Asked;
use crate::model::{Beyond, Slices, Tiles};
use crate::volume::Volume;

/// Scores of the whole of `input`, a volume for each channel, channel by channel.
pub(super) fn run(network: &mut Asked<'_>, tiles: &Tiles, input: &[Volume<f32>]) -> Result<Vec<f32>, InferError> {
    let dims = input[0].grid().dims();
    let volume = input[0].voxels().len();
    let mut values = vec![0.0; network.contract.channels * volume];
    let [xs, ys, zs]: [Vec<Span>; 3] = std::array::from_fn(|axis| spans(dims[axis], tiles.tile[axis], tiles.halo));
    let mut tile_input = Vec::new();
    for z in &zs {
        for y in &ys {
            for x in &xs {
                let outer = [&x.outer, &y.outer, &z.outer];
                let shape = outer.map(|r| r.len());
                tile_input.clear();
                for channel in input {
                    for slice in slices_seen(&z.outer, dims[2], network.contract.slices) {
                        match slice {
                            Some(k) => for_rows(dims, [&x.outer, &y.outer, &(k..k + 1)], |row| {
                                tile_input.extend_from_slice(&channel.voxels()[row]);
                            }),
                            None => tile_input.resize(tile_input.len() + shape[0] * shape[1], 0.0),
                        }
                    }
                }
                let scores = network.answer(&tile_input, 1, shape)?;
                let inner = [&x.inner, &y.inner, &z.inner];
                let voxels = shape.iter().product::<usize>();
                for (from, to) in scores.chunks_exact(voxels).zip(values.chunks_exact_mut(volume)) {
                    for_rows(dims, inner, |row| {
                        let row_of_tile = row_within(dims, shape, outer, &row);
                        to[row].copy_from_slice(&from[row_of_tile]);
                    });
                }
            }
        }
    }
    Ok(values)
}

/// Along one axis: the voxels that a tile answers for, and those that it sees.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    inner: Range<usize>,
    outer: Range<usize>,
}

fn spans(length: u32, tile: u32, halo: u32) -> Vec<Span> {
    let (length, tile, halo) = (length as usize, tile as usize, halo as usize);
    // Equal parts rather than full tiles and a sliver.
    let count = length.div_ceil(tile);
    (0..count)
        .map(|n| {
            let inner = n * length / count..(n + 1) * length / count;
            let outer = inner.start.saturating_sub(halo)..(inner.end + halo).min(length);
            Span { inner, outer }
        })
        .collect()
}

/// The slices of the volume that a tile of slices `outer` sees, neighbours among them; `None` where it sees zeros beyond the volume.
fn slices_seen(outer: &Range<usize>, length: u32, slices: Option<Slices>) -> impl Iterator<Item = Option<usize>> {
    let reach = slices.map_or(0, |slices| slices.reach()) as i64;
    let continues = slices.is_some_and(|slices| slices.beyond == Beyond::Edge);
    let last = i64::from(length) - 1;
    (outer.start as i64 - reach..outer.end as i64 + reach).map(move |k| {
        let nearest = k.clamp(0, last);
        (k == nearest || continues).then_some(nearest as usize)
    })
}

/// Calls `f` with the index range of each row of a box within a volume of `dims`.
fn for_rows(dims: [u32; 3], of_box: [&Range<usize>; 3], mut f: impl FnMut(Range<usize>)) {
    let [i, j, _] = dims.map(|d| d as usize);
    for z in of_box[2].clone() {
        for y in of_box[1].clone() {
            let start = (z * j + y) * i;
            f(start + of_box[0].start..start + of_box[0].end);
        }
    }
}

/// Where a row of the volume lies within the tile that sees `outer`.
fn row_within(dims: [u32; 3], shape: [usize; 3], outer: [&Range<usize>; 3], row: &Range<usize>) -> Range<usize> {
    let [i, j, _] = dims.map(|d| d as usize);
    let [x, y, z] = [row.start % i, row.start / i % j, row.start / (i * j)];
    let start = ((z - outer[2].start) * shape[1] + (y - outer[1].start)) * shape[0] + (x - outer[0].start);
    start..start + row.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: u32, tile: u32, halo: u32, expected: &[(Range<usize>, Range<usize>)]) {
        let expected: Vec<_> = expected.iter().map(|(inner, outer)| Span { inner: inner.clone(), outer: outer.clone() }).collect();
        assert_eq!(spans(length, tile, halo), expected);
    }

    #[test]
    fn spans_cover_an_axis_once_and_see_the_halo() {
        check(10, 16, 2, &[(0..10, 0..10)]);
        check(10, 5, 2, &[(0..5, 0..7), (5..10, 3..10)]);
        check(10, 4, 1, &[(0..3, 0..4), (3..6, 2..7), (6..10, 5..10)]);
    }

    #[test]
    fn neighbours_beyond_the_ends_are_the_last_slice_or_zeros() {
        let slices = |beyond| Some(Slices { count: 5, beyond, order: Default::default() });
        let seen = |outer, slices| slices_seen(&outer, 4, slices).collect::<Vec<_>>();
        assert_eq!(seen(1..3, None), [Some(1), Some(2)]);
        assert_eq!(seen(0..2, slices(Beyond::Edge)), [Some(0), Some(0), Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(seen(3..4, slices(Beyond::Zero)), [Some(1), Some(2), Some(3), None, None]);
        assert_eq!(seen(0..1, slices(Beyond::Zero)), [None, None, Some(0), Some(1), Some(2)]);
    }
}
