//! Colour and grey frames as 8-bit RGB: from the file to pixels.

use super::codec::{Codec, FrameFormat, decode, native};
use super::colour::{Palette, Photometric, native_bytes, to_rgb};
use super::layout::{PixelData, Source, io_error};
use super::pixels::read_file;
use super::{DatasetError, Instance};

/// Reads frame `frame`, counted from 0, of `instance` as 8-bit RGB, row by row: RGB, every YBR, PALETTE COLOR and, as grey, MONOCHROME1
/// (inverted) and MONOCHROME2. Samples of more bits keep their upper 8; no window and no rescale is applied.
///
/// # Errors
/// No such frame, no pixel data, what is not supported, by name, pixel data that is missing, cut off, of another size than Rows and
/// Columns, or damaged.
pub fn read_rgb(instance: &Instance, frame: u32) -> Result<Vec<[u8; 3]>, DatasetError> {
    let path = instance.path.as_path();
    let unsupported = |what: String| DatasetError::Unsupported { what, path: path.into() };
    let (_, mut layout) = Instance::parse(Source::of_bytes(read_file(path)?), path)?;
    let codec = Codec::of(&instance.transfer_syntax_uid).map_err(|what| unsupported(format!("{what} is")))?;
    let p = &instance.pixels;
    let (Ok(rows @ 1..), Ok(columns @ 1..)) = (u16::try_from(instance.rows), u16::try_from(instance.columns)) else {
        return Err(DatasetError::PixelDescription {
            rows: instance.rows,
            columns: instance.columns,
            bits_allocated: p.bits_allocated,
            bits_stored: p.bits_stored,
            high_bit: p.high_bit,
            path: path.into(),
        });
    };
    let planar = instance.header.get(super::tags::PLANAR_CONFIGURATION).and_then(|e| e.to_int::<u16>().ok()) == Some(1);
    let format = FrameFormat {
        rows,
        columns,
        samples: p.samples,
        bits_allocated: p.bits_allocated,
        bits_stored: p.bits_stored,
        signed: p.signed,
        planar,
        photometric: &p.photometric,
        transfer_syntax_uid: &instance.transfer_syntax_uid,
        path,
    };
    if frame >= instance.frames {
        return Err(unsupported(format!("frame {frame} of {} is", instance.frames)));
    }
    let palette = match Palette::of(&instance.header) {
        Some(Err(what)) => return Err(DatasetError::Malformed { what, offset: 0, path: path.into() }),
        Some(Ok(palette)) => Some(palette),
        None => None,
    };
    let samples = match layout.pixels {
        PixelData::Native { offset, length, word } => {
            let photometric = Photometric::of(&p.photometric).unwrap_or(Photometric::Monochrome2);
            let frame_bytes = native_bytes(&format, photometric) as u64;
            let (start, all) = (u64::from(frame) * frame_bytes, u64::from(instance.frames) * frame_bytes);
            let length = u64::from(length);
            let cut = |found| DatasetError::PixelLength {
                expected: all,
                found,
                rows: instance.rows,
                columns: instance.columns,
                frames: instance.frames,
                path: path.into(),
            };
            if length != all && length != all + all % 2 {
                return Err(cut(length));
            }
            let (from, to) = (offset + start as usize, offset + (start + frame_bytes) as usize);
            if !layout.source.fill_to(to + 1).map_err(|e| io_error(&e, path))? && layout.source.bytes().len() < to {
                return Err(cut(layout.source.bytes().len().saturating_sub(offset) as u64));
            }
            let bytes = layout.source.bytes();
            let big = layout.encoding.native_uid() == "1.2.840.10008.1.2.2";
            match (big, p.bits_allocated) {
                (true, 8) if word => {
                    // Words of two bytes, counted from the start of all frames.
                    let whole: Vec<u8> = bytes[offset..].chunks_exact(2).flat_map(|w| [w[1], w[0]]).take(to - offset).collect();
                    native(&whole[start as usize..], &format)?
                }
                (true, bits @ (16 | 32)) => {
                    let size = usize::from(bits / 8);
                    let little: Vec<u8> = bytes[from..to].chunks_exact(size).flat_map(|w| w.iter().rev().copied()).collect();
                    native(&little, &format)?
                }
                _ => native(&bytes[from..to], &format)?,
            }
        }
        PixelData::Encapsulated { offset } => {
            let fragments = layout.fragments(offset, path)?;
            let bytes = layout.source.bytes();
            let stream: Vec<u8> = match fragments.len() {
                n if n == instance.frames as usize => bytes[fragments[frame as usize].clone()].to_vec(),
                _ if instance.frames == 1 => fragments.iter().flat_map(|f| &bytes[f.clone()]).copied().collect(),
                n => return Err(unsupported(format!("{n} fragments for {} frames are", instance.frames))),
            };
            decode(codec, &stream, &format)?
        }
        PixelData::Float => return Err(unsupported("floating point pixel data is".into())),
        PixelData::None => return Err(DatasetError::NoPixelData { path: path.into() }),
    };
    to_rgb(&samples, &format, palette.as_ref())
}
