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
        // Most of an image is another label; without a branch a voxel, the compiler looks at many at once.
        if run.iter().fold(false, |any, &voxel| any | (voxel == label)) {
            run.as_chunks::<8>().0.iter().for_each(|eight| writer.push(equal_bytes(u64::from_le_bytes(*eight), label), 8));
        } else {
            (0..8).for_each(|_| writer.push(0, 8));
        }
    }
    for eight in rest.chunks(8) {
        let bits = eight.iter().enumerate().fold(0, |bits, (n, &voxel)| bits | u32::from(voxel == label) << n);
        writer.push(bits, eight.len() as u32);
    }
}

/// Bit n is set where byte n of `eight` equals `label`.
fn equal_bytes(eight: u64, label: u8) -> u32 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differing = eight ^ (LOW * u64::from(label));
    let zeros = !(((differing & LOW_SEVEN) + LOW_SEVEN) | differing | LOW_SEVEN); // 0x80 in each zero byte
    ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// Appends bits, lowest first.
struct BitWriter<'a> {
    bytes: &'a mut [u8],
    at: usize,
    pending: u32,
    bits: u32,
}

impl BitWriter<'_> {
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
