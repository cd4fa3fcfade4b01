//! RLE Lossless (PS3.5 annex G): PackBits segments, one for each byte of each sample of a pixel, the most significant first.

use super::{Fault, FrameFormat};

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
    let header = stream.get(..64)?;
    let words: Vec<usize> = header.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]) as usize).collect();
    if words[0] != count || count > 15 {
        return None;
    }
    (1..=count).map(|n| stream.get(words[n]..if n < count { words[n + 1] } else { stream.len() })).collect()
}

/// PackBits to at least `size` bytes; what is beyond them pads the segment.
fn unpack(mut packed: &[u8], size: usize) -> Option<Vec<u8>> {
    // The longest run, 128 bytes, is copied whole wherever it begins.
    let mut out = vec![0; size + 128];
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

#[cfg(test)]
mod tests {
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
}
