//! Which bits of a sample count, and what they say (PS3.5 8.1.1).

use super::Instance;

/// `bytes` with each group of `size` turned round; what is left over stays.
pub(super) fn swapped(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    out
}

/// Little endian numbers of 4 or 8 bytes; of those of 8 the nearest `f32`.
pub(super) fn floats(bytes: &[u8], bytes_per_value: usize, stored: &mut [f32]) {
    if bytes_per_value == 4 {
        let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        stored.iter_mut().zip(values).for_each(|(out, value)| *out = value);
    } else {
        let values = bytes.chunks_exact(8).map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        stored.iter_mut().zip(values).for_each(|(out, value)| *out = value as f32);
    }
}

/// Which bits of a sample count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits {
    high_bit: u32,
    bits_stored: u32,
    signed: bool,
    minus_32768: bool,
}

impl Bits {
    pub(super) fn of(instance: &Instance, minus_32768: bool) -> Self {
        let p = &instance.pixels;
        Self { high_bit: p.high_bit.into(), bits_stored: p.bits_stored.into(), signed: p.signed, minus_32768 }
    }

    /// A 16-bit sample: bits above the High Bit fall out on the left, bits below Bits Stored on the right.
    fn value(self, sample: u16) -> i16 {
        let top = sample << (15 - self.high_bit);
        let right = 16 - self.bits_stored;
        let minus = if self.minus_32768 { 0x8000 } else { 0 };
        if self.signed { (top as i16) >> right } else { ((top >> right) ^ minus) as i16 }
    }

    /// Whether [`Bits::put_right`] would change nothing in little endian samples.
    pub(super) fn is_right(self, stored: &[i16]) -> bool {
        // Without branches within a run, so that the compiler can vectorise it.
        stored.chunks(4096).all(|run| run.iter().fold(0, |changed, &v| changed | (self.value(v as u16) ^ v)) == 0)
    }

    /// 16-bit samples where they are.
    pub(super) fn put_right(self, stored: &mut [i16], big: bool) {
        let whole = self.high_bit == 15 && self.bits_stored == 16 && self.signed;
        if big != cfg!(target_endian = "big") {
            stored.iter_mut().for_each(|v| *v = self.value((*v as u16).swap_bytes()));
        } else if !whole {
            stored.iter_mut().for_each(|v| *v = self.value(*v as u16));
        }
    }

    /// Little endian samples of 8 or 16 bits.
    pub(super) fn place(self, bytes: &[u8], bytes_per_sample: usize, stored: &mut [i16]) {
        if bytes_per_sample == 1 {
            stored.iter_mut().zip(bytes).for_each(|(out, &b)| *out = self.value(u16::from(b)));
        } else {
            stored.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(out, b)| *out = self.value(u16::from_le_bytes([b[0], b[1]])));
        }
    }

    /// Little endian samples of 8, 16 or 32 bits; beyond 2^24 the nearest `f32`.
    pub(super) fn place_float(self, bytes: &[u8], bytes_per_sample: usize, stored: &mut [f32]) {
        let value = |sample: u32| {
            let top = sample << (31 - self.high_bit);
            let right = 32 - self.bits_stored;
            if self.signed { ((top as i32) >> right) as f32 } else { (top >> right) as f32 }
        };
        let sample = |b: &[u8]| b.iter().rev().fold(0u32, |word, &byte| word << 8 | u32::from(byte));
        stored.iter_mut().zip(bytes.chunks_exact(bytes_per_sample)).for_each(|(out, b)| *out = value(sample(b)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::PixelFormat;
    use crate::dataset::testing::instance;

    fn bits(format: (u16, u16, bool), minus_32768: bool) -> Bits {
        let (bits_stored, high_bit, signed) = format;
        let mut i = instance();
        i.pixels = PixelFormat { bits_stored, high_bit, signed, ..i.pixels };
        Bits::of(&i, minus_32768)
    }

    fn check(format: (u16, u16, bool), minus_32768: bool, samples: &[u16], expected: &[i16]) {
        let bits = bits(format, minus_32768);
        let mut out = vec![0; samples.len()];
        let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        bits.place(&bytes, 2, &mut out);
        assert_eq!(out, expected, "{format:?}");
        for (big, bytes) in [(false, bytes), (true, samples.iter().flat_map(|s| s.to_be_bytes()).collect())] {
            out.copy_from_slice(bytemuck::cast_slice(&bytemuck::pod_collect_to_vec::<u8, i16>(&bytes)));
            bits.put_right(&mut out, big);
            assert_eq!(out, expected, "{format:?}, in place, big endian: {big}");
        }
        if !minus_32768 {
            let wide: Vec<u8> = samples.iter().flat_map(|s| u32::from(*s).to_le_bytes()).collect();
            let mut floats = vec![0.0; samples.len()];
            bits.place_float(&wide, 4, &mut floats);
            assert_eq!(floats, expected.iter().map(|&v| f32::from(v)).collect::<Vec<_>>(), "{format:?}, as floats");
        }
    }

    #[test]
    fn dirt_is_masked_and_signs_are_extended() {
        check((12, 11, false), false, &[0xF0F0, 0xFFFF, 0x0001], &[0x00F0, 4095, 1]);
        check((12, 11, true), false, &[0x0F0F, 0xFFFF, 0x07FF, 0xF800], &[-241, -1, 2047, -2048]);
        check((16, 15, true), false, &[0x8000, 0x7FFF], &[i16::MIN, i16::MAX]);
        check((12, 15, false), false, &[0xFFF7, 0x0010], &[4095, 1]);
    }

    #[test]
    fn sixteen_unsigned_bits_keep_every_value() {
        check((16, 15, false), true, &[0, 32768, 65535], &[i16::MIN, 0, i16::MAX]);
    }

    #[test]
    fn thirty_two_bits_become_floats() {
        let mut out = [0.0; 3];
        let bytes: Vec<u8> = [0x0001_0000u32, 0xFFFF_FFFF, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
        bits((32, 31, true), false).place_float(&bytes, 4, &mut out);
        assert_eq!(out, [65536.0, -1.0, 7.0]);
        bits((32, 31, false), false).place_float(&bytes, 4, &mut out);
        assert_eq!(out, [65536.0, 4_294_967_296.0, 7.0], "the nearest float of 4294967295");
    }

    #[test]
    fn bytes_in_big_endian_words_are_swapped_back() {
        assert_eq!(swapped(&[2, 1, 4, 3, 5], 2), [1, 2, 3, 4, 5]);
        assert_eq!(swapped(&[4, 3, 2, 1], 4), [1, 2, 3, 4]);
    }
}
