//! JPEG lossless, process 14 with any predictor (ISO 10918-1 annex H): 2 to 16 bits, 1 or 3 components.

use super::bits::Bits;
use super::jpeg::{FrameHeader, Huffman, ScanHeader, Segments, Tables, extend, marker};
use super::{Fault, FrameFormat};

const SOF3: u8 = 0xC3;

/// Samples, interleaved by pixel.
pub(super) fn decode(stream: &[u8], format: &FrameFormat<'_>) -> Result<Vec<u16>, Fault> {
    let mut segments = Segments::of(stream)?;
    let mut tables = Tables::default();
    let mut frame: Option<FrameHeader> = None;
    let mut restart_interval = 0;
    let mut samples = Vec::new();
    let mut scanned = vec![false; format.samples.into()];
    while let Some((code, p)) = segments.next()? {
        match code {
            SOF3 if frame.is_none() => {
                let header = FrameHeader::of(p)?;
                header.info().check(format)?;
                if !(2..=16).contains(&header.precision) {
                    return Err(Fault::Damaged);
                }
                if header.components.iter().any(|c| (c.horizontal, c.vertical) != (1, 1)) && header.components.len() > 1 {
                    return Err(Fault::Unsupported("JPEG lossless with subsampled components is".into()));
                }
                samples = vec![0; format.count()];
                frame = Some(header);
            }
            0xC0..=0xC2 | 0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return Err(Fault::Damaged),
            marker::DHT => tables.read(p)?,
            marker::DRI => restart_interval = p.first_chunk().map_or(0, |b| usize::from(u16::from_be_bytes(*b))),
            marker::SOS => {
                let frame = frame.as_ref().ok_or(Fault::Damaged)?;
                let header = ScanHeader::of(p, frame)?;
                header.components.iter().for_each(|c| scanned[c.0] = true);
                scan(&header, frame, &tables, restart_interval, &segments.entropy_coded(false), &mut samples)?;
            }
            _ => {}
        }
    }
    if !samples.is_empty() && scanned.iter().all(|&s| s) { Ok(samples) } else { Err(Fault::Damaged) }
}

fn scan(
    header: &ScanHeader,
    frame: &FrameHeader,
    tables: &Tables,
    restart_interval: usize,
    intervals: &[Vec<u8>],
    samples: &mut [u16],
) -> Result<(), Fault> {
    let (columns, all) = (usize::from(frame.columns), frame.components.len());
    let (predictor, point) = (header.ss, header.al);
    if !(1..=7).contains(&predictor) || point >= frame.precision {
        return Err(Fault::Damaged);
    }
    let rows = usize::from(frame.rows);
    // H.1.1: restarts come at line ends only.
    if !restart_interval.is_multiple_of(columns) {
        return Err(Fault::Unsupported("JPEG lossless with restarts within a line is".into()));
    }
    let rows_per_interval = if restart_interval == 0 { rows } else { restart_interval / columns };
    if intervals.len() < rows.div_ceil(rows_per_interval) {
        return Err(Fault::Damaged);
    }
    let huffman: Vec<(usize, &Huffman)> = header
        .components
        .iter()
        .map(|&(index, table, _)| Some((index, tables.dc.get(table)?.as_ref()?)))
        .collect::<Option<_>>()
        .ok_or(Fault::Damaged)?;
    let start = 1u16 << (frame.precision - point - 1);
    let mut lines: Vec<[Vec<u16>; 2]> = vec![[vec![0; columns], vec![0; columns]]; huffman.len()];
    for (interval, data) in samples.chunks_mut(rows_per_interval * columns * all).zip(intervals) {
        let mut bits = Bits::new(data);
        for (y, out) in interval.chunks_exact_mut(columns * all).enumerate() {
            match huffman.as_slice() {
                [(_, table)] => {
                    let line = &mut lines[0][0];
                    line.iter_mut().for_each(|d| *d = difference(table, &mut bits));
                }
                several => {
                    // Interleaved: one pixel's differences after the other's.
                    for x in 0..columns {
                        let of_pixel = several.iter().zip(&mut lines);
                        of_pixel.for_each(|((_, table), [line, _])| line[x] = difference(table, &mut bits));
                    }
                }
            }
            for ((index, _), [line, above]) in huffman.iter().zip(&mut lines) {
                if y == 0 {
                    first_line(line, start)
                } else {
                    undo(predictor, line, above)
                }
                out.iter_mut().skip(*index).step_by(all).zip(line.iter()).for_each(|(o, &v)| *o = v << point);
                std::mem::swap(line, above);
            }
        }
        if bits.overran() {
            return Err(Fault::Damaged);
        }
    }
    Ok(())
}

/// One difference, modulo 65536 (H.1.2.2).
#[inline(always)]
fn difference(table: &Huffman, bits: &mut Bits<'_>) -> u16 {
    if bits.ready() < 32 {
        bits.refill();
    }
    match u32::from(table.decode(bits)) {
        size @ 0..=15 => extend(bits.take(size), size) as u16,
        _ => 0x8000,
    }
}

/// The first line of a scan or restart interval is predicted from the left, its first sample from the middle of the range.
fn first_line(line: &mut [u16], start: u16) {
    let mut left = start;
    for value in line {
        left = left.wrapping_add(*value);
        *value = left;
    }
}

/// Differences to values (table H.1); the first of a line is predicted from above.
fn undo(predictor: u8, line: &mut [u16], above: &[u16]) {
    fn with(line: &mut [u16], above: &[u16], predict: impl Fn(i32, i32, i32) -> i32) {
        let (Some((first, rest)), Some(&b)) = (line.split_first_mut(), above.first()) else { return };
        *first = first.wrapping_add(b);
        let mut left = *first;
        for (value, pair) in rest.iter_mut().zip(above.windows(2)) {
            left = value.wrapping_add(predict(left.into(), pair[1].into(), pair[0].into()) as u16);
            *value = left;
        }
    }
    match predictor {
        1 => with(line, above, |a, _, _| a),
        2 => with(line, above, |_, b, _| b),
        3 => with(line, above, |_, _, c| c),
        4 => with(line, above, |a, b, c| a + b - c),
        5 => with(line, above, |a, b, c| a + ((b - c) >> 1)),
        6 => with(line, above, |a, b, c| b + ((a - c) >> 1)),
        _ => with(line, above, |a, b, _| (a + b) >> 1),
    }
}
