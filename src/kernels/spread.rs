//! Rows of bytes stretched by a table: `out[n] = row[places[n]]`.
//!
//! Where 16 neighbours of `out` come from 16 neighbours of `row`, as on every grid that is at least as fine, one shuffle makes them.

use std::ops::Range;

/// Bytes that one shuffle makes.
const WIDTH: usize = 16;

/// Bytes that a row needs behind its last one.
pub(super) const PADDING: usize = WIDTH;

/// How a part of a table stretches rows.
#[derive(Default)]
pub(super) struct Spread {
    range: Range<usize>,
    /// Empty where bytes come one by one.
    groups: Vec<Group>,
}

/// Where 16 bytes go, and where they come from.
struct Group {
    out: usize,
    row: usize,
    /// Each from `row` on.
    places: [u8; WIDTH],
}

impl Spread {
    /// Takes on `range` of a table of `places`, if it has another one.
    pub(super) fn prepare(&mut self, places: &[u32], range: &Range<usize>) {
        if self.range == *range {
            return;
        }
        self.range = range.clone();
        let places = &places[range.clone()];
        self.groups.clear();
        for start in (0..places.len()).step_by(WIDTH) {
            let Some(out) = (start + WIDTH).min(places.len()).checked_sub(WIDTH) else { return };
            let part = &places[out..out + WIDTH];
            let (least, most) = part.iter().fold((u32::MAX, 0), |(least, most), &place| (least.min(place), most.max(place)));
            if most - least >= WIDTH as u32 {
                self.groups.clear();
                return;
            }
            let places = std::array::from_fn(|n| (part[n] - least) as u8);
            self.groups.push(Group { out, row: least as usize, places });
        }
    }

    /// Fills `out`, the part of a stretched row that has been prepared; `row` has [`PADDING`] behind its last byte.
    pub(super) fn fill(&self, out: &mut [u8], row: &[u8], places: &[u32]) {
        if self.groups.is_empty() {
            out.iter_mut().zip(&places[self.range.clone()]).for_each(|(out, &place)| *out = row[place as usize]);
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("ssse3") {
            // SAFETY: the processor has SSSE3, the only requirement of this function.
            #[allow(unsafe_code, reason = "calling a function compiled for more instructions")]
            return unsafe { shuffle_groups(&self.groups, out, row) };
        }
        for group in &self.groups {
            let (out, row) = (&mut out[group.out..][..WIDTH], &row[group.row..][..WIDTH]);
            out.iter_mut().zip(group.places).for_each(|(out, place)| *out = row[usize::from(place)]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "ssse3")]
fn shuffle_groups(groups: &[Group], out: &mut [u8], row: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_shuffle_epi8};
    for group in groups {
        let row: [u8; WIDTH] = row[group.row..][..WIDTH].try_into().expect("as many");
        let stretched = _mm_shuffle_epi8(bytemuck::cast::<_, __m128i>(row), bytemuck::cast(group.places));
        out[group.out..][..WIDTH].copy_from_slice(bytemuck::bytes_of(&stretched));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(places: impl Iterator<Item = u32>) {
        let places: Vec<u32> = places.collect();
        let row: Vec<u8> = (0..=255).chain([0; PADDING]).collect();
        let mut spread = Spread::default();
        for range in [0..places.len(), 0..places.len() / 2, 1..places.len(), 3..4, 7..places.len() / 2 + 17] {
            let range = range.start.min(places.len() - 1)..range.end.clamp(1, places.len());
            spread.prepare(&places, &range);
            let mut out = vec![0; range.len()];
            spread.fill(&mut out, &row, &places);
            assert!(out.iter().zip(&places[range.clone()]).all(|(&out, &place)| u32::from(out) == place), "{range:?}");
        }
    }

    #[test]
    fn bytes_come_from_their_places() {
        for length in [1, 15, 16, 17, 100] {
            check((0..length).map(|n| n * 4 / 9)); // finer
            check((0..length).map(|n| 255 - n)); // turned round
            check((0..length).map(|n| n * 5 / 2)); // coarser: byte by byte
            check((0..length).map(|_| 255));
        }
    }
}
