//! Bits of entropy-coded data, most significant first.

/// Reads bits from bytes without stuffing. Beyond the end come zeros; [`Bits::overran`] says whether any were used.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    ahead: u64,
    /// How many bits of `ahead` count.
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, ahead: 0, count: 0 }
    }

    /// Afterwards at least 56 bits can be peeked at and consumed.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let next = match self.data.get(self.at..self.at + 8).and_then(|b| b.try_into().ok()) {
            Some(bytes) => u64::from_be_bytes(bytes),
            None => self.last_bytes(),
        };
        self.ahead |= next >> self.count;
        self.at += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
    }

    #[cold]
    fn last_bytes(&self) -> u64 {
        let mut bytes = [0; 8];
        let left = self.data.get(self.at..).unwrap_or(&[]);
        let n = left.len().min(8);
        bytes[..n].copy_from_slice(&left[..n]);
        u64::from_be_bytes(bytes)
    }

    /// The next `n` bits, 1 to 32, which stay.
    #[inline(always)]
    pub(super) fn peek(&self, n: u32) -> u32 {
        (self.ahead >> (64 - n)) as u32
    }

    #[inline(always)]
    pub(super) fn consume(&mut self, n: u32) {
        self.ahead <<= n;
        self.count -= n;
    }

    /// The next `n` bits, 0 to 32.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u32) -> u32 {
        let bits = ((self.ahead >> 1) >> (63 - n)) as u32;
        self.consume(n);
        bits
    }

    /// The next bits from the top, for counting zeros.
    #[inline(always)]
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// How many bits can be consumed before the next refill.
    #[inline(always)]
    pub(super) fn ready(&self) -> u32 {
        self.count
    }

    /// Whether bits beyond the end were consumed.
    pub(super) fn overran(&self) -> bool {
        self.at * 8 - self.count as usize > self.data.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order_and_the_end_is_noticed() {
        let data: Vec<u8> = (1..=20).collect();
        let mut bits = Bits::new(&data);
        for byte in 1..=20 {
            bits.refill();
            assert_eq!((bits.take(3) << 5) | bits.take(5), byte);
        }
        assert!(!bits.overran());
        bits.refill();
        assert_eq!(bits.take(1), 0);
        assert!(bits.overran());
    }
}
