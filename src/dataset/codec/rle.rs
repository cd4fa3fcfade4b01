//! RLE Lossless (PS3.5 annex G): PackBits segments, one for each byte of each sample of a pixel, the most significant first.

use super::{Fault, FrameFormat};

/// Bytes before the first segment.
const HEADER_BYTES: usize = 64;
/// Bytes that one control byte stands for at most.
const LONGEST_RUN: usize = 128;

/// Samples, little endian, interleaved by pixel.
pub(super) fn decode(stream: &[u8], format: &FrameFormat<'_>) -> Result<Vec<u8>, Fault> {
    if format.bits_allocated < 8 {
        return Err(Fault::Unsupported("RLE with 1 bit allocated is".into()));
    }
    let (pixels, width, samples) = (format.pixels(), format.bytes_per_sample(), usize::from(format.samples));
    let segments = segments(stream, width * samples).ok_or(Fault::Damaged)?;
    let mut planes = Vec::with_capacity(segments.len());
    for segment in segments {
        planes.push(unpack(segment, pixels).ok_or(Fault::Damaged)?);
    }
    // Plane of byte `b` (0 the least significant) of sample `s`.
    let plane = |s: usize, b: usize| &planes[s * width + width - 1 - b][..pixels];
    if samples == 1 && width == 1 {
        planes[0].truncate(pixels);
        return Ok(planes.swap_remove(0));
    }
    let mut out = vec![0; pixels * width * samples];
    match (samples, width) {
        (1, 2) => {
            let (low, high) = (plane(0, 0), plane(0, 1));
            out.chunks_exact_mut(2).zip(low.iter().zip(high)).for_each(|(o, (&l, &h))| o.copy_from_slice(&[l, h]));
        }
        (3, 1) => {
            let (r, g, b) = (plane(0, 0), plane(1, 0), plane(2, 0));
            out.chunks_exact_mut(3).zip(r.iter().zip(g).zip(b)).for_each(|(o, ((&r, &g), &b))| o.copy_from_slice(&[r, g, b]));
        }
        _ => {
            let size = width * samples;
            for (s, b) in (0..samples).flat_map(|s| (0..width).map(move |b| (s, b))) {
                out.iter_mut().skip(s * width + b).step_by(size).zip(plane(s, b)).for_each(|(o, &v)| *o = v);
            }
        }
    }
    Ok(out)
}

/// The segments by the header, which must name `count` of them.
fn segments(stream: &[u8], count: usize) -> Option<Vec<&[u8]>> {
    let header = stream.get(..HEADER_BYTES)?;
    let words: Vec<usize> = header.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]) as usize).collect();
    if words[0] != count || count > 15 {
        return None;
    }
    (1..=count).map(|n| stream.get(words[n]..if n < count { words[n + 1] } else { stream.len() })).collect()
}

/// PackBits to at least `size` bytes; what is beyond them pads the segment.
fn unpack(mut packed: &[u8], size: usize) -> Option<Vec<u8>> {
    // The longest run, 128 bytes, is copied whole wherever it begins.
    let mut out = vec![0; size + LONGEST_RUN];
    let mut at = 0;
    while at < size {
        let (&control, rest) = packed.split_first()?;
        packed = match control {
            0..=127 => {
                let count = usize::from(control) + 1;
                let (run, rest) = rest.split_at_checked(count)?;
                out[at..at + count].copy_from_slice(run);
                at += count;
                rest
            }
            128 => rest,
            129.. => {
                let (&byte, rest) = rest.split_first()?;
                let count = 257 - usize::from(control);
                out[at..at + count].fill(byte);
                at += count;
                rest
            }
        };
    }
    Some(out)
}

/// One frame of 8-bit samples, rows of `columns`, in RLE Lossless; of an even number of bytes, as a fragment must be.
///
/// # Panics
/// Where `columns` is 0: a broken promise of the caller.
pub fn rle_frame(samples: &[u8], columns: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + samples.len() / 16);
    out.extend([1u32, HEADER_BYTES as u32].map(u32::to_le_bytes).as_flattened()); // one segment, right after the header
    out.resize(HEADER_BYTES, 0);
    // No run crosses the end of a row (PS3.5 G.3.1).
    samples.chunks(columns).for_each(|row| pack(row, &mut out));
    if !out.len().is_multiple_of(2) {
        out.push(0);
    }
    out
}

/// A row in PackBits: runs of 3 and more as such, all else as it is.
fn pack(row: &[u8], out: &mut Vec<u8>) {
    let literal = |bytes: &[u8], out: &mut Vec<u8>| {
        for bytes in bytes.chunks(LONGEST_RUN) {
            out.push(bytes.len() as u8 - 1);
            out.extend_from_slice(bytes);
        }
    };
    let (mut from, mut at) = (0, 0);
    while at < row.len() {
        let run = run_length(&row[at..]);
        if run > 2 {
            literal(&row[from..at], out);
            out.extend([(257 - run) as u8, row[at]]);
            from = at + run;
        }
        at += run;
    }
    literal(&row[from..], out);
}

/// How many bytes equal the first, [`LONGEST_RUN`] at most.
fn run_length(row: &[u8]) -> usize {
    let row = &row[..row.len().min(LONGEST_RUN)];
    let all_first = u64::from_le_bytes([row[0]; 8]);
    let (eights, rest) = row.as_chunks::<8>();
    for (n, eight) in eights.iter().enumerate() {
        let differing = u64::from_le_bytes(*eight) ^ all_first;
        if differing != 0 {
            return 8 * n + differing.trailing_zeros() as usize / 8;
        }
    }
    8 * eights.len() + rest.iter().take_while(|&&byte| byte == row[0]).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use std::path::Path;

    fn packed(segments: &[&[u8]]) -> Vec<u8> {
        let mut words = vec![segments.len() as u32];
        let mut at = 64;
        for s in segments {
            words.push(at);
            at += s.len() as u32;
        }
        words.resize(16, 0);
        words.iter().flat_map(|w| w.to_le_bytes()).chain(segments.iter().flat_map(|s| s.iter().copied())).collect()
    }

    fn rle(stream: &[u8], columns: u16, samples: u16, bits_allocated: u16) -> Option<Vec<u8>> {
        let format = FrameFormat {
            rows: 1,
            columns,
            samples,
            bits_allocated,
            bits_stored: bits_allocated,
            signed: false,
            planar: false,
            photometric: "",
            transfer_syntax_uid: "",
            path: Path::new(""),
        };
        decode(stream, &format).ok()
    }

    #[test]
    fn most_significant_bytes_come_first() {
        // PS3.5 G.3.1: 0xFE 0x01 is three times 1; 0x02 a b c three literals; 0x80 nothing.
        assert_eq!(rle(&packed(&[&[0xFE, 1], &[0x80, 2, 7, 8, 9]]), 3, 1, 16), Some(vec![7, 1, 8, 1, 9, 1]));
        assert_eq!(rle(&packed(&[&[0, 1], &[0, 2], &[0, 3]]), 1, 3, 8), Some(vec![1, 2, 3]));
        assert_eq!(rle(&packed(&[&[0, 1], &[0, 2], &[0, 3], &[0, 4]]), 1, 1, 32), Some(vec![4, 3, 2, 1]));
        let segments: [&[u8]; 6] = [&[0, 1], &[0, 2], &[0, 3], &[0, 4], &[0, 5], &[0, 6]];
        assert_eq!(rle(&packed(&segments), 1, 3, 16), Some(vec![2, 1, 4, 3, 6, 5]));
    }

    #[test]
    fn what_is_short_or_lies_is_refused() {
        assert_eq!(rle(&packed(&[&[0xFE, 1], &[1, 7, 8]]), 3, 1, 16), None, "one sample is missing");
        assert_eq!(rle(&packed(&[&[0xFE, 1]]), 3, 1, 16), None, "one segment is missing");
        let mut far = packed(&[&[0xFE, 1], &[0xFE, 1]]);
        far[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(rle(&far, 3, 1, 16), None, "an offset beyond the end");
        far[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(rle(&far, 3, 1, 16), None, "4 G segments");
    }

    proptest! {
        /// Runs of every length beside what does not repeat; each row by itself.
        #[test]
        fn what_is_packed_is_unpacked(rows in prop::collection::vec(prop::collection::vec((0u8..4, 1usize..300), 1..12), 1..6)) {
            let rows: Vec<Vec<u8>> = rows.iter().map(|row| row.iter().flat_map(|&(v, n)| vec![v; n]).collect()).collect();
            let columns = rows.iter().map(Vec::len).min().expect("a row");
            let samples: Vec<u8> = rows.iter().flat_map(|row| row[..columns].iter().copied()).collect();
            let stream = rle_frame(&samples, columns);
            prop_assert!(stream.len().is_multiple_of(2));
            prop_assert_eq!(unpack(&stream[HEADER_BYTES..], samples.len()).map(|mut out| { out.truncate(samples.len()); out }), Some(samples.clone()));
            // Row by row: no control byte spans two.
            let mut packed = Vec::new();
            samples.chunks(columns).for_each(|row| pack(row, &mut packed));
            prop_assert_eq!(&stream[HEADER_BYTES..][..packed.len()], packed.as_slice());
        }
    }

    #[test]
    fn a_blank_row_is_short() {
        assert_eq!(rle_frame(&[0; 512], 512).len(), HEADER_BYTES + 8);
    }
}
