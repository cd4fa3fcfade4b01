//! Values of every element type into 16-bit integers, or into 32-bit floats where they do not fit.

use serde::{Deserialize, Serialize};

use super::{ResearchError, source::Source};
use crate::volume::MAX_MAGNITUDE;

/// How one voxel is stored in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it: signed (I), unsigned (U) or floating point (F), and how many bits")]
pub enum Element {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Element {
    /// Bytes of one voxel.
    pub fn bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// Stored values, one a voxel.
pub(super) enum Voxels {
    Int16(Vec<i16>),
    /// Each finite and of magnitude up to [`MAX_MAGNITUDE`].
    Float32(Vec<f32>),
}

/// Voxels, and how they came out of the file.
pub(super) struct Decoded {
    pub(super) voxels: Voxels,
    /// What has to be added to a stored value to have the file's: 0, or 32768 for unsigned 16-bit values above 32767.
    pub(super) offset: f64,
    pub(super) note: Option<String>,
}

const CHUNK: usize = 64 << 10;

/// Reads `count` values as they lie in memory.
pub(super) fn decode_binary(source: &mut Source, count: usize, element: Element, big_endian: bool) -> Result<Decoded, ResearchError> {
    let bytes = count as u64 * element.bytes();
    source.expect("the voxels", bytes)?;
    macro_rules! values {
        ($type:ty, $out:expr, $push:expr) => {{
            let mut out = $out;
            each(source, count, |b| {
                let value = if big_endian { <$type>::from_be_bytes(b) } else { <$type>::from_le_bytes(b) };
                $push(&mut out, value);
            })?;
            out.done(source)
        }};
    }
    match element {
        Element::U8 => values!(u8, Narrow::with(count, source)?, |out: &mut Narrow, v| out.0.push(i16::from(v))),
        Element::I8 => values!(i8, Narrow::with(count, source)?, |out: &mut Narrow, v| out.0.push(i16::from(v))),
        Element::I16 => values!(i16, Narrow::with(count, source)?, |out: &mut Narrow, v| out.0.push(v)),
        Element::U16 => values!(u16, Unsigned::with(count, source)?, Unsigned::push),
        Element::U32 => values!(u32, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::I32 => values!(i32, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::U64 => values!(u64, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::I64 => values!(i64, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::F32 => values!(f32, Floats::with(count, source)?, |out: &mut Floats, v| out.push(f64::from(v))),
        Element::F64 => values!(f64, Floats::with(count, source)?, Floats::push),
    }
}

/// Reads `count` values as text, separated by white space or commas.
pub(super) fn decode_text(source: &mut Source, count: usize, element: Element) -> Result<Decoded, ResearchError> {
    // The shortest value is one digit and what separates it from the next.
    source.expect("the voxels", (count as u64 * 2).saturating_sub(1))?;
    let path = source.path.clone();
    let wrong = |what| ResearchError::Damaged { what, path: path.clone() };
    macro_rules! values {
        ($type:ty, $out:expr, $push:expr) => {{
            let mut out = $out;
            let mut words = Words::default();
            for _ in 0..count {
                let word = words.next(source)?;
                $push(&mut out, word.parse::<$type>().map_err(|_| wrong("a text value is no number of the element type"))?);
            }
            out.done(source)
        }};
    }
    match element {
        Element::U8 => values!(u8, Narrow::with(count, source)?, |out: &mut Narrow, v| out.0.push(i16::from(v))),
        Element::I8 => values!(i8, Narrow::with(count, source)?, |out: &mut Narrow, v| out.0.push(i16::from(v))),
        Element::I16 => values!(i16, Narrow::with(count, source)?, |out: &mut Narrow, v| out.0.push(v)),
        Element::U16 => values!(u16, Unsigned::with(count, source)?, Unsigned::push),
        Element::U32 => values!(u32, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::I32 => values!(i32, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::U64 => values!(u64, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::I64 => values!(i64, Widening::with(count, source)?, |out: &mut Widening, v| out.integer(i128::from(v))),
        Element::F32 => values!(f32, Floats::with(count, source)?, |out: &mut Floats, v| out.push(f64::from(v))),
        Element::F64 => values!(f64, Floats::with(count, source)?, Floats::push),
    }
}

/// Calls `put` with the bytes of each value.
fn each<const N: usize>(source: &mut Source, count: usize, mut put: impl FnMut([u8; N])) -> Result<(), ResearchError> {
    let mut buffer = vec![0; CHUNK.min(count * N)];
    let mut left = count * N;
    while left > 0 {
        let n = left.min(buffer.len());
        source.exactly("the voxels", &mut buffer[..n])?;
        let (values, rest) = buffer[..n].as_chunks::<N>();
        assert!(rest.is_empty(), "a chunk holds whole values");
        values.iter().for_each(|b| put(*b));
        left -= n;
    }
    Ok(())
}

/// Text cut into words.
#[derive(Default)]
struct Words {
    word: String,
}

impl Words {
    fn next(&mut self, source: &mut Source) -> Result<&str, ResearchError> {
        let mut byte = [0];
        self.word.clear();
        loop {
            let end = source.fill(&mut byte)? == 0;
            let separator = end || byte[0].is_ascii_whitespace() || byte[0] == b',';
            match (separator, self.word.is_empty()) {
                (true, false) => return Ok(&self.word),
                (true, true) if end => {
                    return Err(ResearchError::Damaged { what: "fewer text values than voxels", path: source.path.clone() });
                }
                (true, true) => {}
                // The longest number that anyone writes: `f64` in full is 24 characters, with leading zeros more.
                (false, _) if self.word.len() < 64 && byte[0].is_ascii_graphic() => self.word.push(char::from(byte[0])),
                (false, _) => {
                    return Err(ResearchError::Damaged { what: "a text value is no number", path: source.path.clone() });
                }
            }
        }
    }
}

/// A vector for `count` values, if the machine has as much memory.
fn room_for<T>(count: usize, source: &Source) -> Result<Vec<T>, ResearchError> {
    let mut values = Vec::new();
    let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
    values.try_reserve_exact(count).map_err(|_| ResearchError::Memory { bytes, path: source.path.clone() })?;
    Ok(values)
}

/// Integers that fit.
struct Narrow(Vec<i16>);

impl Narrow {
    fn with(count: usize, source: &Source) -> Result<Self, ResearchError> {
        room_for(count, source).map(Self)
    }

    fn done(self, _: &Source) -> Result<Decoded, ResearchError> {
        Ok(Decoded { voxels: Voxels::Int16(self.0), offset: 0.0, note: None })
    }
}

/// Unsigned 16-bit values, bit by bit; shifted at the end where one needs it.
struct Unsigned(Vec<i16>);

impl Unsigned {
    fn with(count: usize, source: &Source) -> Result<Self, ResearchError> {
        room_for(count, source).map(Self)
    }

    fn push(&mut self, value: u16) {
        self.0.push(value as i16);
    }

    fn done(mut self, _: &Source) -> Result<Decoded, ResearchError> {
        let shifted = self.0.iter().any(|&v| v < 0);
        if shifted {
            self.0.iter_mut().for_each(|v| *v ^= i16::MIN);
        }
        Ok(Decoded { voxels: Voxels::Int16(self.0), offset: if shifted { 32768.0 } else { 0.0 }, note: None })
    }
}

/// Integers as long as they fit 16 bits, then 32-bit floats.
struct Widening {
    integers: Vec<i16>,
    floats: Option<Vec<f32>>,
    count: usize,
    rounding: Rounding,
}

impl Widening {
    fn with(count: usize, source: &Source) -> Result<Self, ResearchError> {
        Ok(Self { integers: room_for(count, source)?, floats: None, count, rounding: Rounding::default() })
    }

    fn integer(&mut self, value: i128) {
        if self.floats.is_none() {
            if let Ok(small) = i16::try_from(value) {
                self.integers.push(small);
                return;
            }
            let mut floats = Vec::with_capacity(self.count);
            floats.extend(self.integers.iter().map(|&v| f32::from(v)));
            self.integers = Vec::new();
            self.floats = Some(floats);
        }
        let rounded = value as f32;
        self.rounding.add((rounded as i128).abs_diff(value) as f64);
        self.floats.as_mut().expect("made above").push(rounded);
    }

    fn done(self, _: &Source) -> Result<Decoded, ResearchError> {
        let note = self.rounding.note();
        let voxels = self.floats.map_or(Voxels::Int16(self.integers), Voxels::Float32);
        Ok(Decoded { voxels, offset: 0.0, note })
    }
}

/// Floating point values, of which every one must be finite and of magnitude up to [`MAX_MAGNITUDE`].
struct Floats {
    values: Vec<f32>,
    rounding: Rounding,
    nan: u64,
    infinite: u64,
    beyond: u64,
}

impl Floats {
    fn with(count: usize, source: &Source) -> Result<Self, ResearchError> {
        Ok(Self { values: room_for(count, source)?, rounding: Rounding::default(), nan: 0, infinite: 0, beyond: 0 })
    }

    fn push(&mut self, value: f64) {
        let rounded = value as f32;
        if rounded.abs() <= MAX_MAGNITUDE {
            self.rounding.add((f64::from(rounded) - value).abs());
        } else if value.is_nan() {
            self.nan += 1;
        } else if value.is_infinite() {
            self.infinite += 1;
        } else {
            self.beyond += 1;
        }
        self.values.push(rounded);
    }

    fn done(self, source: &Source) -> Result<Decoded, ResearchError> {
        let Self { values, rounding, nan, infinite, beyond } = self;
        if nan + infinite + beyond > 0 {
            return Err(ResearchError::NotFinite { nan, infinite, beyond, path: source.path.clone() });
        }
        Ok(Decoded { voxels: Voxels::Float32(values), offset: 0.0, note: rounding.note() })
    }
}

/// What was lost on the way to 32-bit floats.
#[derive(Default)]
struct Rounding {
    count: u64,
    largest: f64,
}

impl Rounding {
    fn add(&mut self, error: f64) {
        if error > 0.0 {
            self.count += 1;
            self.largest = self.largest.max(error);
        }
    }

    fn note(&self) -> Option<String> {
        let Self { count, largest } = self;
        (*count > 0).then(|| format!("{count} stored values were rounded to 32-bit floats, by at most {largest:e}"))
    }
}
