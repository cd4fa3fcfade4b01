//! JPEG-LS, lossless and near-lossless (ISO 14495-1): 2 to 16 bits, 1 or 3 components, interleaved by nothing, line or sample.
//! The names of variables are the standard's.

use super::bits::Bits;
use super::jpeg::{FrameHeader, ScanHeader, Segments, marker};
use super::{Fault, FrameFormat};

const SOF55: u8 = 0xF7;
const LSE: u8 = 0xF8;
const APP8: u8 = 0xE8;

/// Orders of run lengths (A.2.1).
const J: [u32; 32] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Samples, interleaved by pixel.
pub(super) fn decode(stream: &[u8], format: &FrameFormat<'_>) -> Result<Vec<u16>, Fault> {
    let unsupported = |what: &str| Err(Fault::Unsupported(format!("JPEG-LS with {what} is")));
    let mut segments = Segments::of(stream)?;
    let mut frame: Option<FrameHeader> = None;
    let mut preset = Preset::default();
    let mut restart_lines = 0;
    let mut samples = Vec::new();
    let mut scanned = vec![false; format.samples.into()];
    while let Some((code, p)) = segments.next()? {
        match code {
            SOF55 if frame.is_none() => {
                let header = FrameHeader::of(p)?;
                header.info().check(format)?;
                if !(2..=16).contains(&header.precision) {
                    return Err(Fault::Damaged);
                }
                if header.components.iter().any(|c| (c.horizontal, c.vertical) != (1, 1)) && header.components.len() > 1 {
                    return unsupported("subsampled components");
                }
                samples = vec![0; format.count()];
                frame = Some(header);
            }
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | SOF55 => return Err(Fault::Damaged),
            LSE => match p {
                [1, rest @ ..] => preset = Preset::of(rest)?,
                _ => return unsupported("mapping tables or sizes beyond 65535"),
            },
            APP8 if p.starts_with(b"mrfx") && p.get(4) != Some(&0) => return unsupported("a colour transform"),
            marker::DRI => restart_lines = p.iter().fold(0usize, |n, &b| n << 8 | usize::from(b)),
            marker::SOS => {
                let frame = frame.as_ref().ok_or(Fault::Damaged)?;
                let header = ScanHeader::of(p, frame)?;
                if header.components.iter().any(|c| (c.1, c.2) != (0, 0)) || (header.ah, header.al) != (0, 0) {
                    return unsupported("mapping tables or a point transform");
                }
                header.components.iter().for_each(|c| scanned[c.0] = true);
                let parameters = Parameters::of(frame.precision, header.ss.into(), &preset).ok_or(Fault::Damaged)?;
                scan(&header, frame, &parameters, restart_lines, &segments.entropy_coded(true), &mut samples)?;
            }
            _ => {}
        }
    }
    if !samples.is_empty() && scanned.iter().all(|&s| s) { Ok(samples) } else { Err(Fault::Damaged) }
}

/// Preset coding parameters (C.2.4.1.1); 0: the default.
#[derive(Default)]
struct Preset {
    maxval: i32,
    t: [i32; 3],
    reset: i32,
}

impl Preset {
    fn of(p: &[u8]) -> Result<Self, Fault> {
        let p: &[u8; 10] = p.first_chunk().ok_or(Fault::Damaged)?;
        let word = |n: usize| i32::from(u16::from_be_bytes([p[2 * n], p[2 * n + 1]]));
        Ok(Self { maxval: word(0), t: [word(1), word(2), word(3)], reset: word(4) })
    }
}

/// What the parameters of a scan make of it (A.2.1).
struct Parameters {
    maxval: i32,
    near: i32,
    /// 2 * NEAR + 1: the step of quantized errors.
    step: i32,
    range: i32,
    qbpp: u32,
    limit: u32,
    reset: i32,
    /// Of a gradient plus `MAXVAL`: its quantized value, -4 to 4.
    quantized: Vec<i8>,
}

impl Parameters {
    fn of(precision: u8, near: i32, preset: &Preset) -> Option<Self> {
        let or = |given: i32, other: i32| if given == 0 { other } else { given };
        let most = (1 << precision) - 1;
        let maxval = or(preset.maxval, most);
        if maxval > most || near > 255.min(maxval / 2) {
            return None;
        }
        let clamp = |value: i32, least: i32| if value > maxval || value < least { least } else { value };
        let default = |factor_of: [i32; 3], near_times: i32| {
            let [wide, low, narrow] = factor_of;
            if maxval >= 128 {
                (maxval.min(4095) + 128) / 256 * (wide - low) + low + near_times * near
            } else {
                low.max(narrow / (256 / (maxval + 1)) + near_times * near)
            }
        };
        let t1 = or(preset.t[0], clamp(default([3, 2, 3], 3), near + 1));
        let t2 = or(preset.t[1], clamp(default([7, 3, 7], 5), t1));
        let t3 = or(preset.t[2], clamp(default([21, 4, 21], 7), t2));
        if !(near < t1 && t1 <= t2 && t2 <= t3 && t3 <= maxval) {
            return None;
        }
        let step = 2 * near + 1;
        let range = (maxval + 2 * near) / step + 1;
        let bits = |n: i32| 32 - (n - 1).leading_zeros();
        let bpp = bits(maxval + 1).max(2);
        let quantize = |d: i32| -> i8 {
            let size = d.abs();
            let level = i8::from(size > near) + i8::from(size >= t1) + i8::from(size >= t2) + i8::from(size >= t3);
            if d < 0 { -level } else { level }
        };
        let reset = or(preset.reset, 64);
        // Sums of errors stay within 32 bits. The default is 64; a stream that is nothing but noise for 4096 samples is none.
        if reset < 3 || i64::from(reset) * i64::from(range) > 1 << 28 {
            return None;
        }
        Some(Self {
            maxval,
            near,
            step,
            range,
            qbpp: bits(range),
            limit: 2 * (bpp + bpp.max(8)),
            reset,
            quantized: (-maxval..=maxval).map(quantize).collect(),
        })
    }

    /// Prediction plus error, brought back into the range (A.4.4, A.4.5).
    #[inline(always)]
    fn reconstruct(&self, px: i32, error: i32) -> i32 {
        let mut rx = px + error * self.step;
        if rx < -self.near {
            rx += self.range * self.step;
        } else if rx > self.maxval + self.near {
            rx -= self.range * self.step;
        }
        rx.clamp(0, self.maxval)
    }
}

/// Bits that a mapped error of 16-bit samples may have.
const MAPPED: i32 = (1 << 17) - 1;

/// Statistics of one context of the regular mode.
#[derive(Clone, Copy)]
struct Context {
    a: i32,
    b: i32,
    c: i32,
    n: i32,
}

/// Statistics of one context of run interruptions.
#[derive(Clone, Copy)]
struct RunContext {
    a: i32,
    n: i32,
    nn: i32,
}

/// The state of a scan or restart interval.
struct State<'a> {
    bits: Bits<'a>,
    /// All bits of all mapped errors: no error is larger than the range of samples.
    mapped: i32,
    contexts: [Context; 365],
    run_contexts: [RunContext; 2],
}

fn scan(
    header: &ScanHeader,
    frame: &FrameHeader,
    parameters: &Parameters,
    restart_lines: usize,
    intervals: &[Vec<u8>],
    samples: &mut [u16],
) -> Result<(), Fault> {
    let (columns, rows, all) = (usize::from(frame.columns), usize::from(frame.rows), frame.components.len());
    let by_sample = match (header.se, header.components.len()) {
        (0, 1) | (1, _) => false,
        (2, _) => true,
        _ => return Err(Fault::Damaged),
    };
    let rows_per_interval = if restart_lines == 0 { rows } else { restart_lines };
    if intervals.len() < rows.div_ceil(rows_per_interval) {
        return Err(Fault::Damaged);
    }
    for (interval, data) in samples.chunks_mut(rows_per_interval * columns * all).zip(intervals) {
        let mut state = State::new(parameters, data);
        // One sample to the left and one to the right, as A.2.1 has them.
        let mut lines: Vec<[Vec<i32>; 2]> = vec![[vec![0; columns + 2], vec![0; columns + 2]]; header.components.len()];
        let mut run_indices = vec![0; header.components.len()];
        for out in interval.chunks_exact_mut(columns * all) {
            for [line, above] in &mut lines {
                above[columns + 1] = above[columns];
                line[0] = above[1];
            }
            match (by_sample, lines.as_mut_slice()) {
                (true, [a, b, c]) => state.line_by_sample(parameters, [a, b, c], &mut run_indices[0]),
                (true, [one]) => state.line(parameters, one, &mut run_indices[0]),
                (true, _) => return Err(Fault::Unsupported("JPEG-LS with two interleaved components is".into())),
                (false, lines) => lines.iter_mut().zip(&mut run_indices).for_each(|(l, r)| state.line(parameters, l, r)),
            }
            for ((index, ..), [line, above]) in header.components.iter().zip(&mut lines) {
                out.iter_mut().skip(*index).step_by(all).zip(&line[1..]).for_each(|(o, &v)| *o = v as u16);
                std::mem::swap(line, above);
            }
        }
        if state.bits.overran() || state.mapped & !MAPPED != 0 {
            return Err(Fault::Damaged);
        }
    }
    Ok(())
}

impl<'a> State<'a> {
    fn new(parameters: &Parameters, data: &'a [u8]) -> Self {
        let a = ((parameters.range + 32) / 64).max(2);
        Self {
            bits: Bits::new(data),
            mapped: 0,
            contexts: [Context { a, b: 0, c: 0, n: 1 }; 365],
            run_contexts: [RunContext { a, n: 1, nn: 0 }; 2],
        }
    }

    fn line(&mut self, p: &Parameters, lines: &mut [Vec<i32>; 2], run_index: &mut usize) {
        if p.near == 0 { self.line_of::<true>(p, lines, run_index) } else { self.line_of::<false>(p, lines, run_index) }
    }

    /// One line of one component.
    fn line_of<const LOSSLESS: bool>(&mut self, p: &Parameters, [line, above]: &mut [Vec<i32>; 2], run_index: &mut usize) {
        let columns = line.len() - 2;
        let (line, above) = (&mut line[..columns + 2], &above[..columns + 2]);
        let mut x = 1;
        let (mut ra, mut rb, mut rc) = (line[0], above[1], above[0]);
        while x <= columns {
            let rd = above[x + 1];
            let q = gradients(p, ra, rb, rc, rd);
            if q != 0 {
                ra = self.regular::<LOSSLESS>(p, q, ra, rb, rc);
                line[x] = ra;
                x += 1;
                rc = rb;
                rb = rd;
                continue;
            }
            let run = self.run(columns + 1 - x, run_index);
            line[x..x + run.length].fill(ra);
            x += run.length;
            if run.interrupted {
                rb = above[x];
                let same = (ra - rb).abs() <= p.near;
                let error = self.run_interruption(p, usize::from(same), *run_index);
                ra = if same { p.reconstruct(ra, error) } else { p.reconstruct(rb, if ra > rb { -error } else { error }) };
                line[x] = ra;
                x += 1;
                *run_index = run_index.saturating_sub(1);
            }
            if x <= columns {
                rc = above[x - 1];
                rb = above[x];
            }
        }
    }

    /// One line of three components, pixel by pixel (A.7.2 and B.2).
    fn line_by_sample(&mut self, p: &Parameters, mut lines: [&mut [Vec<i32>; 2]; 3], run_index: &mut usize) {
        let columns = lines[0][0].len() - 2;
        let mut x = 1;
        while x <= columns {
            let neighbours = |n: usize| {
                let [line, above]: &[Vec<i32>; 2] = lines[n];
                (line[x - 1], above[x], above[x - 1], above[x + 1])
            };
            let q = [0, 1, 2].map(|n| {
                let (ra, rb, rc, rd) = neighbours(n);
                gradients(p, ra, rb, rc, rd)
            });
            if q != [0; 3] {
                let values = [0, 1, 2].map(|n| {
                    let (ra, rb, rc, _) = neighbours(n);
                    if p.near == 0 { self.regular::<true>(p, q[n], ra, rb, rc) } else { self.regular::<false>(p, q[n], ra, rb, rc) }
                });
                lines.iter_mut().zip(values).for_each(|(l, v)| l[0][x] = v);
                x += 1;
                continue;
            }
            let run = self.run(columns + 1 - x, run_index);
            for l in lines.iter_mut() {
                let ra = l[0][x - 1];
                l[0][x..x + run.length].fill(ra);
            }
            x += run.length;
            if run.interrupted {
                for l in lines.iter_mut() {
                    let (ra, rb) = (l[0][x - 1], l[1][x]);
                    let error = self.run_interruption(p, 0, *run_index);
                    l[0][x] = p.reconstruct(rb, if ra > rb { -error } else { error });
                }
                x += 1;
                *run_index = run_index.saturating_sub(1);
            }
        }
    }

    /// A sample of the regular mode (A.4 to A.6); `q` is the context with its sign.
    #[inline(always)]
    fn regular<const LOSSLESS: bool>(&mut self, p: &Parameters, q: i32, ra: i32, rb: i32, rc: i32) -> i32 {
        let sign = q >> 31;
        let context = &mut self.contexts[((q ^ sign) - sign) as usize];
        let Context { a, b, c, n } = *context;
        // The median of left, above and the plane through the three.
        let (low, high) = (ra.min(rb), ra.max(rb));
        let px = (ra + rb - rc).clamp(low, high);
        let px = (px + ((c ^ sign) - sign)).clamp(0, p.maxval);
        let k = order(a, n);
        let mapped = mapped_error(&mut self.bits, &mut self.mapped, k, p.limit, p.qbpp);
        let mut error = unmapped(mapped);
        if LOSSLESS && k == 0 && 2 * b <= -n {
            error = -error - 1;
        }
        // A.6: update.
        let (mut a, mut b, mut c, mut n) = (a + error.abs(), b + if LOSSLESS { error } else { error * p.step }, c, n);
        if n == p.reset {
            a >>= 1;
            b >>= 1;
            n >>= 1;
        }
        n += 1;
        if b <= -n {
            b = (b + n).max(1 - n);
            c = (c - 1).max(-128);
        } else if b > 0 {
            b = (b - n).min(0);
            c = (c + 1).min(127);
        }
        *context = Context { a, b, c, n };
        let signed = (error ^ sign) - sign;
        if LOSSLESS && p.maxval & (p.maxval + 1) == 0 { (px + signed) & p.maxval } else { p.reconstruct(px, signed) }
    }

    /// The length of a run (A.7.1), at most `left`.
    fn run(&mut self, left: usize, run_index: &mut usize) -> Run {
        let mut length = 0;
        loop {
            self.bits.refill();
            let order = J[*run_index];
            if self.bits.take(1) == 0 {
                let more = self.bits.take(order) as usize;
                // A damaged stream may say more than there is.
                return Run { length: (length + more).min(left - 1), interrupted: true };
            }
            let whole = 1 << order;
            if length + whole > left {
                return Run { length: left, interrupted: false };
            }
            length += whole;
            *run_index = (*run_index + 1).min(31);
            if length == left {
                return Run { length, interrupted: false };
            }
        }
    }

    /// The error of the sample that ends a run (A.7.2), its sign as coded.
    fn run_interruption(&mut self, p: &Parameters, kind: usize, run_index: usize) -> i32 {
        let context = &mut self.run_contexts[kind];
        let RunContext { a, n, nn } = *context;
        let k = order(a + if kind == 1 { n >> 1 } else { 0 }, n);
        let mapped = mapped_error(&mut self.bits, &mut self.mapped, k, p.limit - J[run_index] - 1, p.qbpp);
        let with_kind = mapped + kind as i32;
        let odd = with_kind & 1;
        let size = (with_kind + odd) / 2;
        let error = if (k != 0 || 2 * nn >= n) == (odd == 1) { -size } else { size };
        let (mut a, mut n, mut nn) = (a + ((mapped + 1 - kind as i32) >> 1), n, nn + i32::from(error < 0));
        if n == p.reset {
            a >>= 1;
            n >>= 1;
            nn >>= 1;
        }
        *context = RunContext { a, n: n + 1, nn };
        error
    }
}

/// A run of equal samples, and whether another one ends it rather than the line.
struct Run {
    length: usize,
    interrupted: bool,
}

/// The context with its sign (A.3): 0 when all gradients are small, which starts a run.
#[inline(always)]
fn gradients(p: &Parameters, ra: i32, rb: i32, rc: i32, rd: i32) -> i32 {
    let quantized = |d: i32| i32::from(p.quantized[(d + p.maxval) as usize]);
    81 * quantized(rd - rb) + 9 * quantized(rb - rc) + quantized(rc - ra)
}

/// The Golomb parameter: the least k with N * 2^k >= A (A.5.1).
#[inline(always)]
fn order(a: i32, n: i32) -> u32 {
    let k = n.leading_zeros().saturating_sub(a.leading_zeros());
    k + u32::from((n << k) < a)
}

/// A mapped error; what no error can have is left out and kept in `all`.
#[inline(always)]
fn mapped_error(bits: &mut Bits<'_>, all: &mut i32, k: u32, limit: u32, qbpp: u32) -> i32 {
    let mapped = golomb(bits, k, limit, qbpp);
    *all |= mapped;
    mapped & MAPPED
}

/// A limited-length Golomb code (A.5.3).
#[inline(always)]
fn golomb(bits: &mut Bits<'_>, k: u32, limit: u32, qbpp: u32) -> i32 {
    if bits.ready() < 40 {
        bits.refill();
    }
    let zeros = bits.ahead().leading_zeros();
    if zeros + 1 + k <= 40 && zeros < limit - qbpp - 1 {
        bits.consume(zeros + 1);
        return ((zeros << k) | bits.take(k)) as i32;
    }
    golomb_long(bits, k, limit, qbpp)
}

#[cold]
#[inline(never)]
fn golomb_long(bits: &mut Bits<'_>, k: u32, limit: u32, qbpp: u32) -> i32 {
    let most = limit - qbpp - 1;
    let mut zeros = 0;
    loop {
        bits.refill();
        let now = bits.ahead().leading_zeros().min(32).min(most - zeros);
        bits.consume(now);
        zeros += now;
        if zeros == most || now < 32 {
            break;
        }
    }
    bits.refill();
    bits.consume(1);
    if zeros < most { ((zeros << k) | bits.take(k)) as i32 } else { bits.take(qbpp) as i32 + 1 }
}

/// A.5.2, the ordinary mapping: 0, -1, 1, -2, 2 and so on.
#[inline(always)]
fn unmapped(mapped: i32) -> i32 {
    (mapped >> 1) ^ -(mapped & 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_thresholds() {
        // ISO 14495-1 table C.3 (8 bits), and C.2.4.1.1.1 worked by hand for 12 and 16 bits.
        let thresholds = |precision, near| {
            let p = Parameters::of(precision, near, &Preset::default()).expect("defaults are right");
            let first = |level: i8| (0..=p.maxval).find(|d| p.quantized[(d + p.maxval) as usize] == level);
            [first(2), first(3), first(4)].map(|t| t.expect("each level occurs"))
        };
        assert_eq!(thresholds(8, 0), [3, 7, 21]);
        assert_eq!(thresholds(12, 0), [18, 67, 276]);
        assert_eq!(thresholds(16, 0), [18, 67, 276]);
        assert_eq!(thresholds(8, 2), [9, 17, 35]);
    }

    #[test]
    fn golomb_order() {
        for (a, n) in [(1, 1), (2, 1), (3, 1), (4, 1), (64, 64), (65, 64), (1000, 7), (0, 5)] {
            let expected = (0..).find(|k| (n << k) >= a).expect("some k is enough");
            assert_eq!(order(a, n), expected, "{a} {n}");
        }
    }

    /// Found by the fuzzer: errors beyond any sample added up until the sum had no place.
    #[test]
    fn noise_is_no_image() {
        let head = [
            0xFF, 0xD8, 0xFF, 0xF7, 0, 11, 16, 0, 64, 0, 64, 1, 1, 0x11, 0, // 16 bits, 64 x 64, one component
            0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0,
        ];
        let mut stream = head.to_vec();
        let mut state = 1u32;
        for _ in 0..1 << 17 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            stream.push((state >> 24) as u8 & 0x7F);
        }
        stream.extend([0xFF, 0xD9]);
        let format = FrameFormat {
            rows: 64,
            columns: 64,
            samples: 1,
            bits_allocated: 16,
            bits_stored: 16,
            signed: false,
            planar: false,
            photometric: "MONOCHROME2",
            transfer_syntax_uid: "1.2.840.10008.1.2.4.80",
            path: "noise.dcm".as_ref(),
        };
        assert!(matches!(decode(&stream, &format), Err(Fault::Damaged)));
    }
}
