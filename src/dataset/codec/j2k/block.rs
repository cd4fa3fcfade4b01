//! Coefficients of one code block (ISO 15444-1 annex D).
//!
//! One word of flags holds a column of four coefficients with its neighbourhood, as in OpenJPEG: 18 bits say which of 3 x 6 coefficients
//! are significant (row by row, bit 4 the first of the four), and from bit 18 on come the signs of the column and of those above and
//! below, and what was refined and visited.

use super::mq::{Mq, RUN, States, UNIFORM, first_states};

/// Significance of the first of the four; of the next ones 3, 6 and 9 bits further.
const SIGNIFICANT: u32 = 1 << 4;
/// Significance of its eight neighbours.
const NEIGHBOURS: u32 = 0b111_101_111;
/// Sign of the coefficient above the four, of the first one, and of the one below.
const SIGN_ABOVE: u32 = 18;
const SIGN: u32 = 19;
const SIGN_BELOW: u32 = 31;
/// Refined before; visited in this bit plane.
const REFINED: u32 = 1 << 20;
const VISITED: u32 = 1 << 21;
const ALL_VISITED: u32 = VISITED | VISITED << 3 | VISITED << 6 | VISITED << 9;

/// One bit for each of the four.
const EACH: u32 = 1 | 1 << 3 | 1 << 6 | 1 << 9;

/// Which of the four are neither significant nor visited.
#[inline(always)]
fn open(f: u32) -> u32 {
    !(f >> 4 | f >> 21) & EACH
}

/// Which of the four have a significant neighbour.
#[inline(always)]
fn near(f: u32) -> u32 {
    let any = f | f >> 1 | f >> 2;
    any | f >> 3 | f >> 5 | any >> 6
}

/// Which subband: of low or high frequencies along x, along y.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orientation {
    Ll,
    Hl,
    Lh,
    Hh,
}

/// Contexts of significance by neighbourhood (table D.1): LL and LH, HL, HH.
static SIGNIFICANCE: [[u8; 512]; 3] = {
    let mut tables = [[0; 512]; 3];
    let mut kind = 0;
    while kind < 3 {
        let mut f = 0;
        while f < 512 {
            tables[kind][f] = significance_context(kind, f);
            f += 1;
        }
        kind += 1;
    }
    tables
};

const fn significance_context(kind: usize, f: usize) -> u8 {
    const fn bit(f: usize, n: usize) -> usize {
        f >> n & 1
    }
    let across = bit(f, 3) + bit(f, 5);
    let down = bit(f, 1) + bit(f, 7);
    let diagonal = bit(f, 0) + bit(f, 2) + bit(f, 6) + bit(f, 8);
    let (h, v) = if kind == 1 { (down, across) } else { (across, down) };
    if kind < 2 {
        match (h, v, diagonal) {
            (2, ..) => 8,
            (1, 1.., _) => 7,
            (1, 0, 1..) => 6,
            (1, 0, 0) => 5,
            (_, 2, _) => 4,
            (_, 1, _) => 3,
            (_, _, 2..) => 2,
            (_, _, 1) => 1,
            _ => 0,
        }
    } else {
        match (diagonal, h + v) {
            (3.., _) => 8,
            (2, 1..) => 7,
            (2, 0) => 6,
            (1, 2..) => 5,
            (1, 1) => 4,
            (1, 0) => 3,
            (0, 2..) => 2,
            (0, 1) => 1,
            _ => 0,
        }
    }
}

/// Contexts of signs, and whether they predict the other sign (tables D.2 and D.3): bits 1, 3, 5, 7 say whether the coefficients above,
/// left, right and below are significant; bits 4, 0, 2, 6 whether they are negative.
static SIGNS: [(u8, u8); 256] = {
    let mut table = [(0, 0); 256];
    let mut f = 0;
    while f < 256 {
        const fn of(f: usize, significant: usize, negative: usize) -> i32 {
            (f >> significant & 1) as i32 * (1 - 2 * (f >> negative & 1) as i32)
        }
        let h = of(f, 3, 0) + of(f, 5, 2);
        let v = of(f, 1, 4) + of(f, 7, 6);
        let (h, v) = (h.signum(), v.signum());
        table[f] = match (h, v) {
            (1, 1) => (13, 0),
            (1, 0) => (12, 0),
            (1, -1) => (11, 0),
            (0, 1) => (10, 0),
            (0, -1) => (10, 1),
            (-1, 1) => (11, 1),
            (-1, 0) => (12, 1),
            (-1, -1) => (13, 1),
            _ => (9, 0),
        };
        f += 1;
    }
    table
};

/// Room for one code block, used again and again.
#[derive(Default)]
pub(super) struct Block {
    width: usize,
    height: usize,
    /// Words of flags a stripe of four rows: a column of its own on both sides.
    stride: usize,
    /// Stripes, with one above and one below.
    flags: Vec<u32>,
    /// Twice the magnitude, plus the half of the bits not decoded: stripe by stripe, column by column, four rows each.
    magnitudes: Vec<u32>,
}

impl Block {
    /// Decodes `passes` coding passes of `planes` bit planes from MQ-coded data without stuffing.
    pub(super) fn decode(&mut self, width: usize, height: usize, orientation: Orientation, planes: u32, passes: u32, data: &[u8]) {
        let stripes = height.div_ceil(4);
        (self.width, self.height, self.stride) = (width, height, width + 2);
        self.flags.clear();
        self.flags.resize(self.stride * (stripes + 2), 0);
        self.magnitudes.clear();
        self.magnitudes.resize(width * stripes * 4, 0);
        let contexts = match orientation {
            Orientation::Ll | Orientation::Lh => &SIGNIFICANCE[0],
            Orientation::Hl => &SIGNIFICANCE[1],
            Orientation::Hh => &SIGNIFICANCE[2],
        };
        let (mut mq, mut states) = (Mq::new(data), first_states());
        // The first plane has only a cleanup pass.
        for pass in 2..passes + 2 {
            let Some(plane) = planes.checked_sub(1 + pass / 3) else { return };
            match pass % 3 {
                0 => self.propagate(&mut mq, &mut states, contexts, plane),
                1 => self.refine(&mut mq, &mut states, plane),
                _ => self.clean_up(&mut mq, &mut states, contexts, plane),
            }
        }
    }

    /// The coefficients of row `y`: twice their values, and half of what was not decoded.
    pub(super) fn row(&self, y: usize) -> impl Iterator<Item = i32> {
        let (stripe, row) = (y / 4, y % 4);
        let flags = &self.flags[self.stride * (stripe + 1) + 1..][..self.width];
        let magnitudes = &self.magnitudes[stripe * self.width * 4..][..self.width * 4];
        flags.iter().zip(magnitudes.chunks_exact(4)).map(move |(f, m)| {
            let sign = -((f >> (SIGN + 3 * row as u32) & 1) as i32);
            (m[row] as i32 ^ sign) - sign
        })
    }

    /// Bits 0, 3, 6 and 9, one for each row that the stripe has.
    fn rows(&self, stripe: usize) -> u32 {
        EACH & ((1 << (3 * (self.height - 4 * stripe).min(4))) - 1)
    }

    /// The sign of a coefficient that has become significant, and all that follows from it (D.3.2).
    #[inline(always)]
    fn become_significant(flags: &mut [u32], at: usize, stride: usize, shift: u32, f: &mut u32, mq: &mut Mq<'_>, states: &mut States) {
        let (left, right) = (flags[at - 1], flags[at + 1]);
        let mut index = (*f >> shift) & 0b1010_1010;
        index |= left >> (SIGN + shift) & 1;
        index |= (right >> (SIGN + shift) & 1) << 2;
        let above = if shift == 0 { *f >> SIGN_ABOVE } else { *f >> (SIGN + shift - 3) };
        let below = if shift == 9 { *f >> SIGN_BELOW } else { *f >> (SIGN + shift + 3) };
        index |= (above & 1) << 4 | (below & 1) << 6;
        let (context, flip) = SIGNS[(index & 255) as usize];
        let sign = mq.decide(&mut states[usize::from(context & 31)]) ^ u32::from(flip);
        *f |= (SIGNIFICANT | sign << SIGN) << shift;
        flags[at - 1] = left | 1 << 5 << shift;
        flags[at + 1] = right | 1 << 3 << shift;
        if shift == 0 {
            let above = &mut flags[at - stride - 1..at - stride + 2];
            above[0] |= 1 << 17;
            above[1] |= 1 << 16 | sign << SIGN_BELOW;
            above[2] |= 1 << 15;
        }
        if shift == 9 {
            let below = &mut flags[at + stride - 1..at + stride + 2];
            below[0] |= 1 << 2;
            below[1] |= 1 << 1 | sign << SIGN_ABOVE;
            below[2] |= 1;
        }
    }

    /// Significance propagation (D.3.1).
    fn propagate(&mut self, registers: &mut Mq<'_>, states: &mut States, contexts: &[u8; 512], plane: u32) {
        let mut mq = *registers;
        let value = 3 << plane;
        for stripe in 0..self.height.div_ceil(4) {
            let rows = self.rows(stripe);
            let first = self.stride * (stripe + 1) + 1;
            for x in 0..self.width {
                let at = first + x;
                let mut f = self.flags[at];
                let mut left = open(f) & near(f) & rows;
                if left == 0 {
                    continue;
                }
                let magnitudes = &mut self.magnitudes[(stripe * self.width + x) * 4..][..4];
                while left != 0 {
                    let shift = left.trailing_zeros();
                    left &= left - 1;
                    if mq.decide(&mut states[usize::from(contexts[(f >> shift & 0x1EF) as usize] & 31)]) == 1 {
                        Self::become_significant(&mut self.flags, at, self.stride, shift, &mut f, &mut mq, states);
                        magnitudes[(shift / 3) as usize & 3] = value;
                        // The next one has a neighbour now.
                        left |= 1 << (shift + 3) & open(f) & rows;
                    }
                    f |= VISITED << shift;
                }
                self.flags[at] = f;
            }
        }
        *registers = mq;
    }

    /// Magnitude refinement (D.3.3).
    fn refine(&mut self, registers: &mut Mq<'_>, states: &mut States, plane: u32) {
        let mut mq = *registers;
        let half = 1u32 << plane;
        for stripe in 0..self.height.div_ceil(4) {
            let rows = self.rows(stripe);
            let first = self.stride * (stripe + 1) + 1;
            let flags = &mut self.flags[first..first + self.width];
            let magnitudes = &mut self.magnitudes[stripe * self.width * 4..][..self.width * 4];
            for (flags, magnitudes) in flags.iter_mut().zip(magnitudes.chunks_exact_mut(4)) {
                let f = *flags;
                let all = f >> 4 & !(f >> 21) & rows;
                let mut left = all;
                while left != 0 {
                    let shift = left.trailing_zeros();
                    left &= left - 1;
                    let g = f >> shift;
                    let context = if g & REFINED != 0 { 16 } else { 14 + usize::from(g & NEIGHBOURS != 0) };
                    let bit = mq.decide(&mut states[context & 31]);
                    let magnitude = &mut magnitudes[(shift / 3) as usize & 3];
                    *magnitude = (*magnitude + (bit << (plane + 1))).wrapping_sub(half);
                }
                *flags = f | (all * REFINED);
            }
        }
        *registers = mq;
    }

    /// Cleanup (D.3.4).
    fn clean_up(&mut self, registers: &mut Mq<'_>, states: &mut States, contexts: &[u8; 512], plane: u32) {
        let mut mq = *registers;
        let value = 3 << plane;
        for stripe in 0..self.height.div_ceil(4) {
            let rows = self.rows(stripe);
            let first = self.stride * (stripe + 1) + 1;
            for x in 0..self.width {
                let at = first + x;
                let mut f = self.flags[at];
                let mut left = open(f) & rows;
                if f == 0 && rows == EACH {
                    if mq.decide_likely(&mut states[RUN]) == 0 {
                        continue;
                    }
                    let row = mq.decide(&mut states[UNIFORM]) << 1;
                    let row = row | mq.decide(&mut states[UNIFORM]);
                    Self::become_significant(&mut self.flags, at, self.stride, 3 * row, &mut f, &mut mq, states);
                    self.magnitudes[(stripe * self.width + x) * 4 + row as usize] = value;
                    left &= !0 << (3 * row + 1);
                }
                let magnitudes = &mut self.magnitudes[(stripe * self.width + x) * 4..][..4];
                while left != 0 {
                    let shift = left.trailing_zeros();
                    left &= left - 1;
                    if mq.decide(&mut states[usize::from(contexts[(f >> shift & 0x1EF) as usize] & 31)]) == 1 {
                        Self::become_significant(&mut self.flags, at, self.stride, shift, &mut f, &mut mq, states);
                        magnitudes[(shift / 3) as usize & 3] = value;
                    }
                }
                self.flags[at] = f & !ALL_VISITED;
            }
        }
        *registers = mq;
    }
}
