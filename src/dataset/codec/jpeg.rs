//! What all JPEG processes share: marker segments, Huffman tables, entropy-coded data (ISO 10918-1 annexes B and C).

use super::bits::Bits;
use super::{Fault, StreamInfo};

/// Marker codes that are named in more than one place.
pub(super) mod marker {
    pub(crate) const DHT: u8 = 0xC4;
    pub(crate) const SOI: u8 = 0xD8;
    pub(crate) const EOI: u8 = 0xD9;
    pub(crate) const SOS: u8 = 0xDA;
    pub(crate) const DQT: u8 = 0xDB;
    pub(crate) const DRI: u8 = 0xDD;
    pub(crate) const APP0: u8 = 0xE0;
    pub(crate) const APP14: u8 = 0xEE;
}

/// Walks the marker segments of a stream.
pub(super) struct Segments<'a> {
    stream: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    pub(super) fn of(stream: &'a [u8]) -> Result<Self, Fault> {
        match stream {
            [0xFF, marker::SOI, ..] => Ok(Self { stream, at: 2 }),
            _ => Err(Fault::Damaged),
        }
    }

    /// The next marker and its parameters; `None` at the end of the image. A stream that ends without saying so ends.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Fault> {
        loop {
            let Some(&[first, code]) = self.stream.get(self.at..self.at + 2) else { return Ok(None) };
            match (first, code) {
                (0xFF, 0xFF) => self.at += 1,
                (0xFF, marker::EOI) => return Ok(None),
                (0xFF, 0x01 | 0xD0..=0xD7) => self.at += 2,
                (0xFF, 0xC0..) => {
                    let length = self.stream.get(self.at + 2..self.at + 4).ok_or(Fault::Damaged)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let parameters = self.stream.get(self.at + 4..self.at + 2 + length).ok_or(Fault::Damaged)?;
                    self.at += 2 + length;
                    return Ok(Some((code, parameters)));
                }
                _ => return Err(Fault::Damaged),
            }
        }
    }

    /// The entropy-coded data after a scan header, stuffing taken off, split at restart markers. `stuffed_bits`: JPEG-LS, where a byte
    /// 0xFF is followed by seven bits rather than a zero byte.
    pub(super) fn entropy_coded(&mut self, stuffed_bits: bool) -> Vec<Vec<u8>> {
        let mut intervals = Vec::new();
        let mut data = Vec::with_capacity(self.stream.len() - self.at);
        let mut bits = BitJoiner::default();
        loop {
            let rest = &self.stream[self.at..];
            let run = rest.iter().position(|&b| b == 0xFF).unwrap_or(rest.len());
            if stuffed_bits {
                bits.bytes(&rest[..run], &mut data)
            } else {
                data.extend_from_slice(&rest[..run])
            }
            self.at += run;
            match rest.get(run + 1) {
                Some(&0) if !stuffed_bits => {
                    data.push(0xFF);
                    self.at += 2;
                }
                Some(&next) if stuffed_bits && next < 0x80 => {
                    bits.bytes(&[0xFF], &mut data);
                    bits.seven(next, &mut data);
                    self.at += 2;
                }
                Some(0xFF) => self.at += 1,
                Some(0xD0..=0xD7) => {
                    bits.flush(&mut data);
                    intervals.push(std::mem::take(&mut data));
                    self.at += 2;
                }
                Some(_) => break,
                None => {
                    self.at = self.stream.len();
                    break;
                }
            }
        }
        bits.flush(&mut data);
        intervals.push(data);
        intervals
    }
}

/// Joins bytes of which some have only seven bits.
#[derive(Default)]
struct BitJoiner {
    /// Bits that do not fill a byte yet, at the bottom.
    held: u32,
    count: u32,
}

impl BitJoiner {
    fn bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.count == 0 {
            out.extend_from_slice(bytes);
            return;
        }
        let (mut held, count) = (self.held, self.count);
        out.extend(bytes.iter().map(|&byte| {
            let joined = held << 8 | u32::from(byte);
            held = u32::from(byte);
            (joined >> count) as u8
        }));
        self.held = held & ((1 << count) - 1);
    }

    fn seven(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held = self.held << 7 | u32::from(byte);
        self.count += 7;
        if self.count >= 8 {
            self.count -= 8;
            out.push((self.held >> self.count) as u8);
            self.held &= (1 << self.count) - 1;
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        if self.count > 0 {
            out.push((self.held << (8 - self.count)) as u8);
        }
        *self = Self::default();
    }
}

/// A frame header (B.2.2).
pub(super) struct FrameHeader {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) precision: u8,
    pub(super) components: Vec<Component>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Component {
    pub(super) id: u8,
    pub(super) horizontal: u8,
    pub(super) vertical: u8,
    pub(super) quantization: u8,
}

impl FrameHeader {
    pub(super) fn of(p: &[u8]) -> Result<Self, Fault> {
        let &[precision, r1, r0, c1, c0, count, ref rest @ ..] = p else { return Err(Fault::Damaged) };
        if rest.len() < 3 * usize::from(count) || count == 0 {
            return Err(Fault::Damaged);
        }
        let component = |c: &[u8]| Component { id: c[0], horizontal: c[1] >> 4, vertical: c[1] & 15, quantization: c[2] };
        let components = rest.chunks_exact(3).take(count.into()).map(component).collect();
        Ok(Self { rows: u16::from_be_bytes([r1, r0]), columns: u16::from_be_bytes([c1, c0]), precision, components })
    }

    pub(super) fn info(&self) -> StreamInfo {
        StreamInfo {
            rows: self.rows.into(),
            columns: self.columns.into(),
            components: self.components.len() as u32,
            precision: self.precision.into(),
        }
    }
}

/// A scan header (B.2.3): which components, with which tables, and three numbers whose meaning depends on the process.
pub(super) struct ScanHeader {
    /// Index into the frame's components; table selectors (DC, AC).
    pub(super) components: Vec<(usize, usize, usize)>,
    pub(super) ss: u8,
    pub(super) se: u8,
    pub(super) ah: u8,
    pub(super) al: u8,
}

impl ScanHeader {
    pub(super) fn of(p: &[u8], frame: &FrameHeader) -> Result<Self, Fault> {
        let (&count, rest) = p.split_first().ok_or(Fault::Damaged)?;
        let count = usize::from(count);
        let (selectors, &[ss, se, a, ..]) = rest.split_at_checked(2 * count).ok_or(Fault::Damaged)? else {
            return Err(Fault::Damaged);
        };
        let mut components: Vec<(usize, usize, usize)> = Vec::with_capacity(count);
        for s in selectors.chunks_exact(2) {
            let index = frame.components.iter().position(|c| c.id == s[0]).ok_or(Fault::Damaged)?;
            if components.iter().any(|c| c.0 == index) {
                return Err(Fault::Damaged);
            }
            components.push((index, usize::from(s[1] >> 4), usize::from(s[1] & 15)));
        }
        if components.is_empty() { Err(Fault::Damaged) } else { Ok(Self { components, ss, se, ah: a >> 4, al: a & 15 }) }
    }
}

/// How many bits one look-up decodes.
const LOOK_UP: u32 = 10;

/// A Huffman table, ready to decode (C.2, F.2.2.3).
pub(super) struct Huffman {
    /// By the next [`LOOK_UP`] bits: length of the code (0: a longer one) and its value.
    short: Vec<(u8, u8)>,
    /// By length: the first code after the codes of this length, aligned to 16 bits, and what to add to a code to get its value's index.
    after: [u32; 17],
    offset: [i32; 17],
    values: Vec<u8>,
}

impl Huffman {
    fn of(counts: &[u8], values: &[u8]) -> Result<Self, Fault> {
        let mut short = vec![(0, 0); 1 << LOOK_UP];
        let (mut after, mut offset) = ([0; 17], [0; 17]);
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            offset[length as usize] = index as i32 - code as i32;
            if code as usize + count > 1 << length {
                return Err(Fault::Damaged);
            }
            for &value in &values[index..index + count] {
                if length <= LOOK_UP {
                    let first = (code << (LOOK_UP - length)) as usize;
                    short[first..first + (1 << (LOOK_UP - length))].fill((length as u8, value));
                }
                code += 1;
            }
            index += count;
            after[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(Self { short, after, offset, values: values.to_vec() })
    }

    /// The next value. At least 16 bits must be ready. A code that is none comes out as a value all the same, 0: such a stream fails
    /// or gives a wrong picture, as any damaged one.
    #[inline(always)]
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> u8 {
        let (length, value) = self.short[bits.peek(LOOK_UP) as usize];
        if length > 0 {
            bits.consume(length.into());
            return value;
        }
        self.decode_long(bits)
    }

    #[inline(never)]
    fn decode_long(&self, bits: &mut Bits<'_>) -> u8 {
        let next = bits.peek(16);
        for length in LOOK_UP as usize + 1..=16 {
            if next < self.after[length] {
                let index = (next >> (16 - length)) as i32 + self.offset[length];
                bits.consume(length as u32);
                return usize::try_from(index).ok().and_then(|i| self.values.get(i)).copied().unwrap_or(0);
            }
        }
        bits.consume(16);
        0
    }
}

/// The Huffman tables of a stream so far: DC or lossless, and AC.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) dc: [Option<Huffman>; 4],
    pub(super) ac: [Option<Huffman>; 4],
}

impl Tables {
    /// Takes in a DHT segment (B.2.4.2).
    pub(super) fn read(&mut self, mut p: &[u8]) -> Result<(), Fault> {
        while !p.is_empty() {
            let (head, rest) = p.split_at_checked(17).ok_or(Fault::Damaged)?;
            let (class, id) = (head[0] >> 4, usize::from(head[0] & 15));
            let count = head[1..].iter().map(|&c| usize::from(c)).sum();
            let (values, rest) = rest.split_at_checked(count).ok_or(Fault::Damaged)?;
            let tables = match class {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(Fault::Damaged),
            };
            *tables.get_mut(id).ok_or(Fault::Damaged)? = Some(Huffman::of(&head[1..], values)?);
            p = rest;
        }
        Ok(())
    }
}

/// The value of `size` extra bits (F.2.2.1): the upper half of their range is positive, the lower negative.
#[inline(always)]
pub(super) fn extend(extra: u32, size: u32) -> i32 {
    let negative = (extra >> (size.max(1) - 1)) ^ 1;
    extra as i32 - (negative as i32 * ((1 << size) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_bits_have_signs() {
        assert_eq!([extend(0, 1), extend(1, 1), extend(0, 2), extend(3, 2), extend(0, 0)], [-1, 1, -3, 3, 0]);
    }

    #[test]
    fn stuffing_is_taken_off() {
        let stream = [0xFF, 0xD8, 1, 0xFF, 0, 2, 0xFF, 0xD0, 3, 0xFF, 0xD9];
        let mut segments = Segments { stream: &stream, at: 2 };
        assert_eq!(segments.entropy_coded(false), [vec![1, 0xFF, 2], vec![3]]);
        // JPEG-LS: 0xFF, then seven bits of 0x7F, then eight: 23 ones.
        let stream = [0xFF, 0x7F, 0xFF, 0x00, 0xFF, 0xD9];
        let mut segments = Segments { stream: &stream, at: 0 };
        assert_eq!(segments.entropy_coded(true), [vec![0xFF, 0xFF, 0xFE, 0x00]]);
    }
}
