//! Lossy JPEG: baseline, extended and progressive DCT with Huffman codes, 8 or 12 bits (ISO 10918-1 annexes A, F and G).
//!
//! The arithmetic of the inverse transform and of upsampling is that of the Independent JPEG Group's library ("islow" and "fancy"),
//! which DCMTK, GDCM and Pillow have: so the samples are theirs, bit by bit.

use super::bits::Bits;
use super::jpeg::{FrameHeader, Huffman, ScanHeader, Segments, Tables, extend, marker};
use super::{Fault, FrameFormat, Samples, limits, pack};
use crate::dataset::colour::Photometric;

/// Where the coefficients of a block go, in the order of the stream (figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49, 56,
    57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

type Block = [i16; 64];

/// One component: its coefficients, in blocks.
struct Plane {
    /// Blocks across and down that hold samples of the image.
    across: usize,
    down: usize,
    /// Blocks across in memory: whole minimum coded units.
    stride: usize,
    /// Samples across and down, before upsampling.
    columns: usize,
    rows: usize,
    horizontal: usize,
    vertical: usize,
    blocks: Vec<Block>,
    table: [u16; 64],
}

/// What a stream says of its colours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colours {
    Unsaid,
    Rgb,
    YCbCr,
}

pub(super) fn decode(stream: &[u8], format: &FrameFormat<'_>, photometric: Photometric) -> Result<Samples, Fault> {
    let mut segments = Segments::of(stream)?;
    let mut tables = Tables::default();
    let mut quantization: [Option<[u16; 64]>; 4] = [None; 4];
    let mut frame: Option<(FrameHeader, bool)> = None;
    let mut planes: Vec<Plane> = Vec::new();
    let mut restart_interval = 0;
    let mut colours = Colours::Unsaid;
    let mut scanned = vec![false; format.samples.into()];
    while let Some((code, p)) = segments.next()? {
        match code {
            0xC0..=0xC2 if frame.is_none() => {
                let header = FrameHeader::of(p)?;
                header.info().check(format)?;
                if !matches!(header.precision, 8 | 12) {
                    return Err(Fault::Damaged);
                }
                planes = planes_of(&header)?;
                frame = Some((header, code == 0xC2));
            }
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return Err(Fault::Damaged),
            marker::DHT => tables.read(p)?,
            marker::DQT => read_quantization(p, &mut quantization)?,
            marker::DRI => restart_interval = p.first_chunk().map_or(0, |b| usize::from(u16::from_be_bytes(*b))),
            marker::APP0 if p.starts_with(b"JFIF\0") && colours == Colours::Unsaid => colours = Colours::YCbCr,
            marker::APP14 if p.starts_with(b"Adobe") => match p.get(11) {
                Some(0) => colours = Colours::Rgb,
                Some(1) => colours = Colours::YCbCr,
                _ => {}
            },
            marker::SOS => {
                let (frame, progressive) = frame.as_ref().ok_or(Fault::Damaged)?;
                let header = ScanHeader::of(p, frame)?;
                for &(index, ..) in &header.components {
                    // A table may be redefined between scans: what holds when a component is first scanned is its own (B.2.4.1).
                    if !std::mem::replace(&mut scanned[index], true) {
                        let table = quantization.get(usize::from(frame.components[index].quantization)).copied().flatten();
                        planes[index].table = table.ok_or(Fault::Damaged)?;
                    }
                }
                let intervals = segments.entropy_coded(false);
                Scan::new(header, frame, *progressive, &tables, restart_interval)?.run(&intervals, &mut planes)?;
            }
            _ => {}
        }
    }
    let Some((frame, _)) = frame else { return Err(Fault::Damaged) };
    if !scanned.iter().all(|&s| s) {
        return Err(Fault::Damaged);
    }
    let subsampled = planes.iter().any(|p| p.columns < usize::from(frame.columns) || p.rows < usize::from(frame.rows));
    let mut values = assemble(&planes, &frame);
    if let Some((_, most)) = limits(format, false).filter(|&(_, most)| most < (1 << frame.precision) - 1) {
        values.iter_mut().for_each(|v| *v = (*v).min(most as u16));
    }
    let photometric = match (frame.components.len(), colours) {
        (3, Colours::Rgb) => Photometric::Rgb,
        (3, Colours::Unsaid) if frame.components.iter().map(|c| c.id).eq(*b"RGB") => Photometric::Rgb,
        // A header that says RGB of what is YCbCr is a common mistake; nobody subsamples green and blue.
        (3, Colours::YCbCr) if photometric == Photometric::Rgb => Photometric::YbrFull,
        (3, _) if photometric == Photometric::Rgb && subsampled => Photometric::YbrFull,
        (3, _) if matches!(photometric, Photometric::YbrIct | Photometric::YbrRct) => Photometric::YbrFull,
        _ => photometric.in_full_resolution(),
    };
    Ok(pack(&values, format, photometric))
}

fn read_quantization(mut p: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Result<(), Fault> {
    while let Some((&head, rest)) = p.split_first() {
        let wide = usize::from(head >> 4 != 0) + 1;
        let (values, rest) = rest.split_at_checked(64 * wide).ok_or(Fault::Damaged)?;
        let mut table = [0; 64];
        for (value, &place) in values.chunks_exact(wide).zip(&ZIGZAG) {
            table[usize::from(place)] = value.iter().fold(0, |v, &b| v << 8 | u16::from(b));
        }
        *tables.get_mut(usize::from(head & 15)).ok_or(Fault::Damaged)? = Some(table);
        p = rest;
    }
    Ok(())
}

fn planes_of(frame: &FrameHeader) -> Result<Vec<Plane>, Fault> {
    let factor_ok = |f: u8| (1..=4).contains(&f);
    if frame.components.iter().any(|c| !factor_ok(c.horizontal) || !factor_ok(c.vertical)) {
        return Err(Fault::Damaged);
    }
    let (most_h, most_v) = most_factors(frame);
    let whole = |most: usize, factor: u8| most.is_multiple_of(factor.into());
    if frame.components.iter().any(|c| !whole(most_h, c.horizontal) || !whole(most_v, c.vertical)) {
        return Err(Fault::Unsupported("JPEG with components of two thirds of the samples is".into()));
    }
    let (columns, rows) = (usize::from(frame.columns), usize::from(frame.rows));
    let (units_across, units_down) = (columns.div_ceil(8 * most_h), rows.div_ceil(8 * most_v));
    Ok(frame
        .components
        .iter()
        .map(|c| {
            let (h, v) = (usize::from(c.horizontal), usize::from(c.vertical));
            let (columns, rows) = ((columns * h).div_ceil(most_h), (rows * v).div_ceil(most_v));
            Plane {
                across: columns.div_ceil(8),
                down: rows.div_ceil(8),
                stride: units_across * h,
                columns,
                rows,
                horizontal: h,
                vertical: v,
                blocks: vec![[0; 64]; units_across * h * units_down * v],
                table: [0; 64],
            }
        })
        .collect())
}

fn most_factors(frame: &FrameHeader) -> (usize, usize) {
    let most = |factor: fn(&super::jpeg::Component) -> u8| frame.components.iter().map(factor).max().unwrap_or(1).into();
    (most(|c| c.horizontal), most(|c| c.vertical))
}

/// One pass over the blocks of some components.
struct Scan<'t> {
    header: ScanHeader,
    progressive: bool,
    restart_interval: usize,
    /// Minimum coded units of an interleaved scan.
    units: (usize, usize),
    dc: Vec<Option<&'t Huffman>>,
    ac: Vec<Option<&'t Huffman>>,
}

impl<'t> Scan<'t> {
    fn new(header: ScanHeader, frame: &FrameHeader, progressive: bool, tables: &'t Tables, restart_interval: usize) -> Result<Self, Fault> {
        let right = match progressive {
            // Sequential scans hold whole blocks; what the numbers say has no meaning, and some writers say nonsense.
            false => true,
            true if header.ss == 0 => header.se == 0,
            true => header.se <= 63 && header.ss <= header.se && header.components.len() == 1,
        };
        let (needs_dc, needs_ac) = match progressive {
            false => (true, true),
            true => (header.ss == 0 && header.ah == 0, header.ss > 0),
        };
        let dc: Vec<_> = header.components.iter().map(|c| tables.dc.get(c.1).and_then(Option::as_ref)).collect();
        let ac: Vec<_> = header.components.iter().map(|c| tables.ac.get(c.2).and_then(Option::as_ref)).collect();
        let missing = |needed: bool, tables: &[Option<&Huffman>]| needed && tables.iter().any(Option::is_none);
        if !right || header.al > 13 || missing(needs_dc, &dc) || missing(needs_ac, &ac) {
            return Err(Fault::Damaged);
        }
        let (h, v) = most_factors(frame);
        let units = (usize::from(frame.columns).div_ceil(8 * h), usize::from(frame.rows).div_ceil(8 * v));
        Ok(Self { header, progressive, restart_interval, units, dc, ac })
    }

    fn run(&self, intervals: &[Vec<u8>], planes: &mut [Plane]) -> Result<(), Fault> {
        let (across, down) = match self.header.components.as_slice() {
            [(only, ..)] => (planes[*only].across, planes[*only].down),
            _ => self.units,
        };
        let units = across * down;
        let per_interval = if self.restart_interval == 0 { units } else { self.restart_interval };
        if intervals.len() < units.div_ceil(per_interval) {
            return Err(Fault::Damaged);
        }
        let mut unit = 0;
        for data in intervals {
            let mut bits = Bits::new(data);
            let mut predictions = [0i32; 4];
            let mut skip = 0u32;
            for _ in 0..per_interval.min(units - unit) {
                let (x, y) = (unit % across, unit / across);
                if let [(only, ..)] = self.header.components.as_slice() {
                    let plane = &mut planes[*only];
                    let block = y * plane.stride + x;
                    self.block(0, &mut bits, &mut predictions, &mut skip, &mut plane.blocks[block]);
                } else {
                    for (n, (index, ..)) in self.header.components.iter().enumerate() {
                        let plane = &mut planes[*index];
                        for (v, h) in (0..plane.vertical).flat_map(|v| (0..plane.horizontal).map(move |h| (v, h))) {
                            let block = (y * plane.vertical + v) * plane.stride + x * plane.horizontal + h;
                            self.block(n, &mut bits, &mut predictions, &mut skip, &mut plane.blocks[block]);
                        }
                    }
                }
                unit += 1;
            }
            if bits.overran() {
                return Err(Fault::Damaged);
            }
        }
        Ok(())
    }

    /// Decodes one block's part of this scan. Missing tables were refused before.
    #[inline(always)]
    fn block(&self, n: usize, bits: &mut Bits<'_>, predictions: &mut [i32; 4], skip: &mut u32, block: &mut Block) {
        let h = &self.header;
        match (self.progressive, h.ss, h.ah) {
            (false, ..) => {
                if let (Some(dc), Some(ac)) = (self.dc[n], self.ac[n]) {
                    sequential(dc, ac, bits, &mut predictions[n], block);
                }
            }
            (true, 0, 0) => {
                if let Some(dc) = self.dc[n] {
                    bits.refill();
                    let size = u32::from(dc.decode(bits)).min(16);
                    predictions[n] = predictions[n].wrapping_add(extend(bits.take(size), size));
                    block[0] = (predictions[n] << h.al) as i16;
                }
            }
            (true, 0, _) => {
                bits.refill();
                block[0] |= (bits.take(1) << h.al) as i16;
            }
            (true, _, 0) => {
                if let Some(ac) = self.ac[n] {
                    first_pass(ac, h, bits, skip, block);
                }
            }
            (true, ..) => {
                if let Some(ac) = self.ac[n] {
                    refine(ac, h, bits, skip, block);
                }
            }
        }
    }
}

/// F.2.2: a whole block.
#[inline(always)]
fn sequential(dc: &Huffman, ac: &Huffman, bits: &mut Bits<'_>, prediction: &mut i32, block: &mut Block) {
    bits.refill();
    let size = u32::from(dc.decode(bits)).min(16);
    *prediction = prediction.wrapping_add(extend(bits.take(size), size));
    block[0] = *prediction as i16;
    let mut k = 1;
    while k < 64 {
        if bits.ready() < 32 {
            bits.refill();
        }
        let symbol = ac.decode(bits);
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let value = extend(bits.take(size), size);
        if k < 64 {
            block[usize::from(ZIGZAG[k])] = value as i16;
        }
        k += 1;
    }
}

/// G.1.2.2: the upper bits of the coefficients of a band.
fn first_pass(ac: &Huffman, h: &ScanHeader, bits: &mut Bits<'_>, skip: &mut u32, block: &mut Block) {
    if *skip > 0 {
        *skip -= 1;
        return;
    }
    let mut k = usize::from(h.ss);
    while k <= usize::from(h.se) {
        bits.refill();
        let symbol = ac.decode(bits);
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                *skip = (1 << run) - 1 + bits.take(run);
                return;
            }
            k += 16;
            continue;
        }
        k += run as usize;
        let value = extend(bits.take(size), size) << h.al;
        if k < 64 {
            block[usize::from(ZIGZAG[k])] = value as i16;
        }
        k += 1;
    }
}

/// G.1.2.3: one more bit of the coefficients of a band.
fn refine(ac: &Huffman, h: &ScanHeader, bits: &mut Bits<'_>, skip: &mut u32, block: &mut Block) {
    let bit = 1i16 << h.al;
    let correct = |value: &mut i16, bits: &mut Bits<'_>| {
        bits.refill();
        if bits.take(1) == 1 && *value & bit == 0 {
            *value = value.wrapping_add(if *value > 0 { bit } else { -bit });
        }
    };
    let mut k = usize::from(h.ss);
    let end = usize::from(h.se);
    if *skip == 0 {
        while k <= end {
            bits.refill();
            let symbol = ac.decode(bits);
            let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
            let mut new = 0;
            if size == 0 {
                if run < 15 {
                    *skip = (1 << run) + bits.take(run);
                    break;
                }
            } else {
                new = if bits.take(1) == 1 { bit } else { -bit };
            }
            while k <= end {
                let value = &mut block[usize::from(ZIGZAG[k])];
                k += 1;
                if *value != 0 {
                    correct(value, bits);
                } else if run == 0 {
                    *value = new;
                    break;
                } else {
                    run -= 1;
                }
            }
        }
    }
    if *skip > 0 {
        for &place in &ZIGZAG[k.min(64)..=end] {
            let value = &mut block[usize::from(place)];
            if *value != 0 {
                correct(value, bits);
            }
        }
        *skip -= 1;
    }
}

/// Blocks to samples in full resolution, interleaved.
fn assemble(planes: &[Plane], frame: &FrameHeader) -> Vec<u16> {
    let (columns, rows, all) = (usize::from(frame.columns), usize::from(frame.rows), planes.len());
    let (most_h, most_v) = most_factors(frame);
    let mut out = vec![0; columns * rows * all];
    for (n, plane) in planes.iter().enumerate() {
        let samples = plane.samples(frame.precision);
        let mut line = vec![0; plane.columns * most_h / plane.horizontal + most_h];
        for (y, out) in out.chunks_exact_mut(columns * all).enumerate() {
            upsample_line(&samples, plane, y, most_h / plane.horizontal, most_v / plane.vertical, &mut line);
            out.iter_mut().skip(n).step_by(all).zip(&line).for_each(|(o, &v)| *o = v);
        }
    }
    out
}

/// Line `y` of the image from a component of fewer columns or rows.
fn upsample_line(samples: &[u16], plane: &Plane, y: usize, across: usize, down: usize, line: &mut [u16]) {
    let width = plane.columns;
    let row = |y: usize| &samples[y.min(plane.rows - 1) * width..][..width];
    let near = row(y / down);
    // The other of two rows that a line between them is made from; beyond the edges the same one.
    let other = if y.is_multiple_of(2) { row((y / 2).saturating_sub(1)) } else { row(y / 2 + 1) };
    match (across, down) {
        (1, 1) => line[..width].copy_from_slice(near),
        (2, 1) if width > 2 => {
            for (x, &v) in near.iter().enumerate() {
                let v3 = 3 * u32::from(v);
                line[2 * x] = if x == 0 { v } else { ((v3 + u32::from(near[x - 1]) + 1) >> 2) as u16 };
                line[2 * x + 1] = if x + 1 == width { v } else { ((v3 + u32::from(near[x + 1]) + 2) >> 2) as u16 };
            }
        }
        (2, 2) if width > 2 => {
            let sum = |x: usize| 3 * u32::from(near[x]) + u32::from(other[x]);
            for x in 0..width {
                let this = sum(x);
                let left = if x == 0 { this } else { sum(x - 1) };
                let right = if x + 1 == width { this } else { sum(x + 1) };
                line[2 * x] = ((3 * this + left + 8) >> 4) as u16;
                line[2 * x + 1] = ((3 * this + right + 7) >> 4) as u16;
            }
        }
        (1, 2) => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            for ((o, &n), &m) in line.iter_mut().zip(near).zip(other) {
                *o = ((3 * u32::from(n) + u32::from(m) + bias) >> 2) as u16;
            }
        }
        _ => line.iter_mut().enumerate().for_each(|(x, o)| *o = near[(x / across).min(width - 1)]),
    }
}

impl Plane {
    /// The component's samples, `columns` by `rows`.
    fn samples(&self, precision: u8) -> Vec<u16> {
        let mut out = vec![0; self.columns * self.rows];
        for (v, h) in (0..self.down).flat_map(|v| (0..self.across).map(move |h| (v, h))) {
            let block = inverse_dct(&self.blocks[v * self.stride + h], &self.table, precision);
            let width = (self.columns - 8 * h).min(8);
            for (y, line) in block.chunks_exact(8).take(self.rows - 8 * v).enumerate() {
                out[(8 * v + y) * self.columns + 8 * h..][..width].copy_from_slice(&line[..width]);
            }
        }
        out
    }
}

/// Loeffler, Ligtenberg and Moschytz with 13-bit constants, as in the Independent JPEG Group's jidctint.c.
fn inverse_dct(block: &Block, table: &[u16; 64], precision: u8) -> [u16; 64] {
    /// Bits kept between the passes.
    fn kept(precision: u8) -> u32 {
        if precision == 8 { 2 } else { 1 }
    }
    fn pass(input: [i64; 8], shift: u32) -> [i64; 8] {
        let [i0, i1, i2, i3, i4, i5, i6, i7] = input;
        let z1 = (i2 + i6) * 4433;
        let (even2, even3) = (z1 - i6 * 15137, z1 + i2 * 6270);
        let (even0, even1) = ((i0 + i4) << 13, (i0 - i4) << 13);
        let (t10, t13, t11, t12) = (even0 + even3, even0 - even3, even1 + even2, even1 - even2);
        let (z1, z2, z3, z4) = (i7 + i1, i5 + i3, i7 + i3, i5 + i1);
        let z5 = (z3 + z4) * 9633;
        let (z1, z2, z3, z4) = (-z1 * 7373, -z2 * 20995, -z3 * 16069 + z5, -z4 * 3196 + z5);
        let t0 = i7 * 2446 + z1 + z3;
        let t1 = i5 * 16819 + z2 + z4;
        let t2 = i3 * 25172 + z2 + z3;
        let t3 = i1 * 12299 + z1 + z4;
        let half = 1i64 << (shift - 1);
        [t10 + t3, t11 + t2, t12 + t1, t13 + t0, t13 - t0, t12 - t1, t11 - t2, t10 - t3].map(|v| (v + half) >> shift)
    }
    let kept = kept(precision);
    let mut work = [0i64; 64];
    for x in 0..8 {
        let column: [i64; 8] = std::array::from_fn(|y| i64::from(block[8 * y + x]) * i64::from(table[8 * y + x]));
        let done = if column[1..] == [0; 7] { [column[0] << kept; 8] } else { pass(column, 13 - kept) };
        done.iter().enumerate().for_each(|(y, &v)| work[8 * y + x] = v);
    }
    let (middle, most) = (1i64 << (precision - 1), (1i64 << precision) - 1);
    let mut out = [0; 64];
    for (row, out) in work.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
        let row: [i64; 8] = std::array::from_fn(|x| row[x]);
        let done = pass(row, 13 + kept + 3);
        out.iter_mut().zip(done).for_each(|(o, v)| *o = (v + middle).clamp(0, most) as u16);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_transform_is_the_formula() {
        // A.3.3 in f64.
        let mut block = [0i16; 64];
        [(0, 40), (1, -31), (8, 17), (10, 9), (27, -12), (63, 5)].iter().for_each(|&(n, v)| block[n] = v);
        let table = [3u16; 64];
        for precision in [8u8, 12] {
            let found = inverse_dct(&block, &table, precision);
            for (n, &value) in found.iter().enumerate() {
                let (x, y) = ((n % 8) as f64, (n / 8) as f64);
                let mut sum = 0.0;
                for (m, &coefficient) in block.iter().enumerate() {
                    let (u, v) = ((m % 8) as f64, (m / 8) as f64);
                    let scale = |k: f64| if k == 0.0 { std::f64::consts::FRAC_1_SQRT_2 } else { 1.0 };
                    let cosine = |p: f64, k: f64| ((2.0 * p + 1.0) * k * std::f64::consts::PI / 16.0).cos();
                    sum += scale(u) * scale(v) / 4.0 * f64::from(coefficient) * 3.0 * cosine(x, u) * cosine(y, v);
                }
                let expected = sum + f64::from(1u32 << (precision - 1));
                // Rounding to whole numbers, and 13-bit constants.
                assert!((f64::from(value) - expected).abs() < 0.6, "{n}: {value}, not {expected}");
            }
        }
    }
}
