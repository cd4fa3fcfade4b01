//! One bit a voxel: label map slices packed as frames of a BINARY Segmentation (PS3.5 annex D.1, PS3.3 C.8.20.2).

/// The fewest frames of `plane` voxels that fill whole bytes: such groups are packed independently.
pub(super) fn frames_a_group(plane: usize) -> usize {
    (1..=8).find(|n| (plane * n).is_multiple_of(8)).expect("8 frames fill whole bytes")
}

/// The frames `(slice, label)` one after the other, a bit for each voxel that has the label: a group, or what is left of one at the end.
///
/// The first voxel is the lowest bit of the first byte. Frames follow each other without padding, so a frame of a size that is no
/// multiple of 8 begins within a byte; only the end of the last byte is padded with zeros.
///
/// `slice_of(k)` gives the voxels of slice k; all have `plane` voxels.
pub(super) fn pack_group<'a>(
    plane: usize,
    frames: impl ExactSizeIterator<Item = (u32, u8)>,
    slice_of: impl Fn(u32) -> &'a [u8],
) -> Vec<u8> {
    let mut bytes = vec![0; (plane * frames.len()).div_ceil(8)];
    let mut writer = BitWriter { bytes: &mut bytes, at: 0, pending: 0, bits: 0 };
    for (k, label) in frames {
        pack_slice(slice_of(k), label, &mut writer);
    }
    writer.finish();
    bytes
}

fn pack_slice(voxels: &[u8], label: u8, writer: &mut BitWriter) {
    let (runs, rest) = voxels.as_chunks::<64>();
    for run in runs {
        writer.push_64(where_equal(run, label));
    }
    for eight in rest.chunks(8) {
        let bits = eight.iter().enumerate().fold(0, |bits, (n, &voxel)| bits | u32::from(voxel == label) << n);
        writer.push(bits, eight.len() as u32);
    }
}

/// Bit n is set where byte n of `run` equals `label`.
#[cfg(target_arch = "x86_64")]
pub(super) fn where_equal(run: &[u8; 64], label: u8) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};

    #[target_feature(enable = "sse2")]
    fn sse2(run: &[u8; 64], label: u8) -> u64 {
        let wanted = _mm_set1_epi8(label.cast_signed());
        let (sixteens, half) = (run.as_chunks::<16>().0, |bytes: &[u8]| bytes.iter().rfold(0i64, |half, &b| half << 8 | i64::from(b)));
        sixteens.iter().enumerate().fold(0, |bits, (n, sixteen)| {
            let equal = _mm_cmpeq_epi8(_mm_set_epi64x(half(&sixteen[8..]), half(&sixteen[..8])), wanted);
            bits | u64::from(_mm_movemask_epi8(equal).cast_unsigned()) << (16 * n)
        })
    }

    // SAFETY: every x86-64 has SSE2, the only requirement of this function.
    #[allow(unsafe_code, reason = "there is no portable way to gather the bits of a comparison")]
    unsafe {
        sse2(run, label)
    }
}

/// Bit n is set where byte n of `run` equals `label`.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn where_equal(run: &[u8; 64], label: u8) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    run.as_chunks::<8>().0.iter().enumerate().fold(0, |bits, (n, eight)| {
        let differing = u64::from_le_bytes(*eight) ^ (LOW * u64::from(label));
        let zeros = !(((differing & LOW_SEVEN) + LOW_SEVEN) | differing | LOW_SEVEN); // 0x80 in each zero byte
        bits | ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * n)
    })
}

/// Appends bits, lowest first.
struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
    pending: u32,
    bits: u32,
}

impl BitWriter<'_> {
    fn push_64(&mut self, value: u64) {
        let bits = self.bits;
        self.bytes[self.at..self.at + 8].copy_from_slice(&(value << bits | u64::from(self.pending)).to_le_bytes());
        self.at += 8;
        self.pending = if bits == 0 { 0 } else { (value >> (64 - bits)) as u32 };
    }

    fn push(&mut self, value: u32, bits: u32) {
        self.pending |= value << self.bits;
        self.bits += bits;
        if self.bits >= 8 {
            self.bytes[self.at] = self.pending as u8;
            self.at += 1;
            self.pending >>= 8;
            self.bits -= 8;
        }
    }

    fn finish(self) {
        if self.bits > 0 {
            self.bytes[self.at] = self.pending as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_bytes_have_a_bit(run in prop::array::uniform32(0u8..4), other in prop::array::uniform32(any::<u8>()), label in 0u8..4) {
            let run: [u8; 64] = [run, other].concat().try_into().expect("twice 32");
            let bits = where_equal(&run, label);
            prop_assert!((0..64).all(|n| (bits >> n & 1 == 1) == (run[n] == label)));
        }

        /// Against a bit at a time.
        #[test]
        fn packed_bits_are_the_voxels(plane in 1usize..200, slices in prop::collection::vec(0u32..5, 1..20), seed in any::<u64>()) {
            let voxels: Vec<u8> = (0..plane * 5).map(|n| (seed.rotate_left(n as u32 % 64) ^ n as u64) as u8 % 3).collect();
            let frames: Vec<(u32, u8)> = slices.iter().map(|&k| (k, (k % 3) as u8)).collect();
            let slice_of = |k: u32| &voxels[k as usize * plane..][..plane];
            let groups = frames.chunks(frames_a_group(plane));
            let packed: Vec<u8> = groups.flat_map(|group| pack_group(plane, group.iter().copied(), slice_of)).collect();
            prop_assert_eq!(packed.len(), (plane * frames.len()).div_ceil(8));
            for (f, &(k, label)) in frames.iter().enumerate() {
                for n in 0..plane {
                    let bit = f * plane + n;
                    let expected = voxels[k as usize * plane + n] == label;
                    prop_assert_eq!(packed[bit / 8] >> (bit % 8) & 1 == 1, expected, "frame {}, voxel {}", f, n);
                }
            }
        }
    }
}
