//! The MQ arithmetic decoder (ISO 15444-1 annex C), without a branch on what it decodes.
//!
//! The stuffing of the code stream is undone beforehand, so that the code register can be filled with many bits at a time.

/// What a context knows: the probability of the less probable symbol, in the upper 16 of 64 bits, and twice the row of table C.2 plus the
/// more probable symbol.
#[derive(Clone, Copy)]
pub(super) struct State {
    qe: u64,
    index: u64,
}

/// Table C.2: Qe, next state after the more and after the less probable symbol, whether the latter switches which is which.
const TABLE_C2: [(u16, u8, u8, bool); 47] = [
    (0x5601, 1, 1, true),
    (0x3401, 2, 6, false),
    (0x1801, 3, 9, false),
    (0x0AC1, 4, 12, false),
    (0x0521, 5, 29, false),
    (0x0221, 38, 33, false),
    (0x5601, 7, 6, true),
    (0x5401, 8, 14, false),
    (0x4801, 9, 14, false),
    (0x3801, 10, 14, false),
    (0x3001, 11, 17, false),
    (0x2401, 12, 18, false),
    (0x1C01, 13, 20, false),
    (0x1601, 29, 21, false),
    (0x5601, 15, 14, true),
    (0x5401, 16, 14, false),
    (0x5101, 17, 15, false),
    (0x4801, 18, 16, false),
    (0x3801, 19, 17, false),
    (0x3401, 20, 18, false),
    (0x3001, 21, 19, false),
    (0x2801, 22, 19, false),
    (0x2401, 23, 20, false),
    (0x2201, 24, 21, false),
    (0x1C01, 25, 22, false),
    (0x1801, 26, 23, false),
    (0x1601, 27, 24, false),
    (0x1401, 28, 25, false),
    (0x1201, 29, 26, false),
    (0x1101, 30, 27, false),
    (0x0AC1, 31, 28, false),
    (0x09C1, 32, 29, false),
    (0x08A1, 33, 30, false),
    (0x0521, 34, 31, false),
    (0x0441, 35, 32, false),
    (0x02A1, 36, 33, false),
    (0x0221, 37, 34, false),
    (0x0141, 38, 35, false),
    (0x0111, 39, 36, false),
    (0x0085, 40, 37, false),
    (0x0049, 41, 38, false),
    (0x0025, 42, 39, false),
    (0x0015, 43, 40, false),
    (0x0009, 44, 41, false),
    (0x0005, 45, 42, false),
    (0x0001, 45, 43, false),
    (0x5601, 46, 46, false),
];

const fn state(row: u8, symbol: u8) -> State {
    State { qe: (TABLE_C2[row as usize].0 as u64) << 48, index: 2 * row as u64 + symbol as u64 }
}

/// What follows each state: the same where the interval need not be doubled, and the states after the more and the less probable symbol.
static NEXT: [[State; 4]; 128] = {
    let mut next = [[state(46, 0); 4]; 128];
    let mut n = 0;
    while n < 2 * TABLE_C2.len() {
        let (row, symbol) = (n as u8 / 2, n as u8 % 2);
        let (_, more, less, switch) = TABLE_C2[n / 2];
        next[n] = [state(row, symbol), state(more, symbol), state(less, symbol ^ switch as u8), state(row, symbol)];
        n += 1;
    }
    next
};

/// Takes the stuffing off MQ-coded `data`: one long binary number, after which come ones for ever.
pub(super) fn unstuffed(pieces: &[&[u8]], out: &mut Vec<u8>) {
    out.clear();
    let (mut held, mut count) = (0u32, 0u32);
    let mut after_ff = false;
    for &byte in pieces.iter().copied().flatten() {
        let byte = u32::from(byte);
        if after_ff && byte > 0x8F {
            break;
        }
        // The top bit of a byte after 0xFF is a carry into what is already there.
        let width = if after_ff { 7 } else { 8 };
        held = (held << width) + byte;
        count += width;
        if held >> count != 0 {
            held &= (1 << count) - 1;
            for earlier in out.iter_mut().rev() {
                *earlier = earlier.wrapping_add(1);
                if *earlier != 0 {
                    break;
                }
            }
        }
        while count >= 8 {
            count -= 8;
            out.push((held >> count) as u8);
            held &= (1 << count) - 1;
        }
        after_ff = byte == 0xFF;
    }
    if count > 0 {
        out.push((held << (8 - count)) as u8 | ((1u32 << (8 - count)) - 1) as u8);
    }
}

/// Contexts by number.
pub(super) const RUN: usize = 17;
pub(super) const UNIFORM: usize = 18;

/// The states of all contexts.
pub(super) type States = [State; 32];

/// The states that a code block begins with (table D.7).
pub(super) fn first_states() -> States {
    let mut states = [state(0, 0); 32];
    (states[0], states[RUN], states[UNIFORM]) = (state(4, 0), state(3, 0), state(46, 0));
    states
}

/// The decoder's registers. Passes work on a copy of their own, which the compiler keeps in registers, too.
#[derive(Clone, Copy)]
pub(super) struct Mq<'a> {
    data: &'a [u8],
    at: usize,
    /// The code register: 16 bits at the top, what follows below.
    c: u64,
    /// The interval: 16 bits at the top.
    a: u64,
    /// Bits of `c` that were filled.
    filled: u32,
}

impl<'a> Mq<'a> {
    /// `data` as [`unstuffed`] makes it.
    pub(super) fn new(data: &'a [u8]) -> Self {
        let mut mq = Self { data, at: 0, c: 0, a: 0x8000 << 48, filled: 1 };
        mq.refill();
        mq
    }

    #[inline(always)]
    fn refill(&mut self) {
        let next = match self.data.get(self.at..self.at + 8).and_then(|b| b.try_into().ok()) {
            Some(bytes) => u64::from_be_bytes(bytes),
            None => last_bytes(self.data, self.at),
        };
        self.c |= next >> self.filled;
        self.at += ((63 - self.filled) >> 3) as usize;
        self.filled |= 56;
    }

    /// One decision (figure C.15), for contexts whose decisions nobody can foresee.
    #[inline(always)]
    pub(super) fn decide(&mut self, state: &mut State) -> u32 {
        let State { qe, index } = *state;
        let upper = self.a - qe;
        let low = self.c < qe;
        let less_probable = low ^ (upper < qe);
        let a = if low { qe } else { upper };
        self.c -= if low { 0 } else { qe };
        let shift = a.leading_zeros();
        let doubled = a >> 63 ^ 1;
        *state = NEXT[index as usize & 127][(u64::from(less_probable) + doubled) as usize & 3];
        self.a = a << shift;
        self.c <<= shift;
        self.filled -= shift;
        if self.filled < 32 {
            self.refill();
        }
        index as u32 & 1 ^ u32::from(less_probable)
    }

    /// The same, with a short way out for contexts that nearly always decide alike.
    #[inline(always)]
    pub(super) fn decide_likely(&mut self, state: &mut State) -> u32 {
        let State { qe, index } = *state;
        let upper = self.a - qe;
        if self.c >= qe && upper >> 63 != 0 {
            self.c -= qe;
            self.a = upper;
            return index as u32 & 1;
        }
        self.decide(state)
    }
}

#[cold]
#[inline(never)]
fn last_bytes(data: &[u8], at: usize) -> u64 {
    let mut bytes = [0xFF; 8];
    let left = data.get(at..).unwrap_or(&[]);
    let n = left.len().min(8);
    bytes[..n].copy_from_slice(&left[..n]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_sequence_of_the_standard() {
        // ISO 15444-1 (and 14492 H.2): 256 decisions in one context.
        let coded = [
            0x84, 0xC7, 0x3B, 0xFC, 0xE1, 0xA1, 0x43, 0x04, 0x02, 0x20, 0x00, 0x00, 0x41, 0x0D, 0xBB, 0x86, 0xF4, 0x31, 0x7F, 0xFF, 0x88,
            0xFF, 0x37, 0x47, 0x1A, 0xDB, 0x6A, 0xDF, 0xFF, 0xAC,
        ];
        let expected = [
            0x00, 0x02, 0x00, 0x51, 0x00, 0x00, 0x00, 0xC0, 0x03, 0x52, 0x87, 0x2A, 0xAA, 0xAA, 0xAA, 0xAA, 0x82, 0xC0, 0x20, 0x00, 0xFC,
            0xD7, 0x9E, 0xF6, 0xBF, 0x7F, 0xED, 0x90, 0x4F, 0x46, 0xA3, 0xBF,
        ];
        let mut data = Vec::new();
        unstuffed(&[&coded], &mut data);
        for likely in [false, true] {
            let (mut mq, mut states) = (Mq::new(&data), first_states());
            let mut decision = || if likely { mq.decide_likely(&mut states[1]) } else { mq.decide(&mut states[1]) };
            let found: Vec<u32> = (0..32).map(|_| (0..8).fold(0, |byte, _| byte << 1 | decision())).collect();
            assert_eq!(found, expected);
        }
    }
}
