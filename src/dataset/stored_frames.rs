//! Frames as a file holds them: samples of native ones, code streams of compressed ones. For those who decode for themselves.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::layout::{Encoding, PixelData, io_error};
use super::pixels::{Native, read_whole, same_layout};
use super::{DatasetError, Instance, fragments};

/// The bytes of these frames, numbered from 1, each as it is stored: little endian samples, or a whole code stream.
///
/// # Errors
/// No pixel data, a number that there is not, what has no frames of whole bytes in little endian, fragments that cannot be assigned, a
/// file that changed since its header was read.
pub fn stored_frames(instance: &Instance, numbers: &[u32]) -> Result<Vec<Vec<u8>>, DatasetError> {
    let path = instance.path.as_path();
    let unsupported = |what: &str| DatasetError::Unsupported { what: what.into(), path: path.into() };
    if !numbers.iter().all(|number| (1..=instance.frames).contains(number)) {
        return Err(DatasetError::FrameCount { frames: instance.frames, groups: 0, path: path.into() });
    }
    match instance.place.pixels {
        PixelData::None => Err(DatasetError::NoPixelData { path: path.into() }),
        PixelData::Encapsulated { offset } => {
            let mut layout = same_layout(instance, read_whole(instance)?.0)?;
            let items = layout.items(offset, path)?;
            let bytes = layout.source.bytes();
            let frames = fragments::frames(bytes, &items, instance)?;
            let stream =
                |number: &u32| items[frames[*number as usize - 1].clone()].iter().flat_map(|one| &bytes[one.clone()]).copied().collect();
            Ok(numbers.iter().map(stream).collect())
        }
        PixelData::Native { .. } | PixelData::Float { .. } => {
            let native = Native::of(instance)?;
            if instance.place.deflated || instance.place.encoding == Encoding::ExplicitBig || native.frame_bits % 8 != 0 {
                return Err(unsupported("a frame by itself of big endian, deflated or single-bit pixel data is"));
            }
            let bytes = native.frame_bits / 8;
            let mut file = File::open(path).map_err(|error| io_error(&error, path))?;
            let mut frame = |number: &u32| {
                let mut frame = vec![0; bytes];
                file.seek(SeekFrom::Start(native.offset as u64 + (u64::from(*number) - 1) * bytes as u64))?;
                file.read_exact(&mut frame).map(|()| frame)
            };
            numbers.iter().map(|number| frame(number).map_err(|error| io_error(&error, path))).collect()
        }
    }
}
