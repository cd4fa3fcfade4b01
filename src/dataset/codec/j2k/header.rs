//! The main header and tile-part headers (ISO 15444-1 annex A).

use std::ops::Range;

/// A rectangle: the first column and row within, and the first beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Area {
    pub(super) x0: u32,
    pub(super) y0: u32,
    pub(super) x1: u32,
    pub(super) y1: u32,
}

impl Area {
    pub(super) fn width(&self) -> usize {
        self.x1.saturating_sub(self.x0) as usize
    }

    pub(super) fn height(&self) -> usize {
        self.y1.saturating_sub(self.y0) as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.width() == 0 || self.height() == 0
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self { x0: self.x0.max(other.x0), y0: self.y0.max(other.y0), x1: self.x1.min(other.x1), y1: self.y1.min(other.y1) }
    }

    /// Divided by a power of two after taking `by` off, rounded up.
    pub(super) fn reduced(&self, levels: u32, by: (u32, u32)) -> Self {
        let reduce = |v: u32, by: u32| (u64::from(v).saturating_sub(u64::from(by))).div_ceil(1 << levels) as u32;
        Self { x0: reduce(self.x0, by.0), y0: reduce(self.y0, by.1), x1: reduce(self.x1, by.0), y1: reduce(self.y1, by.1) }
    }
}

/// SIZ (A.5.1).
pub(super) struct Size {
    pub(super) area: Area,
    tile_width: u32,
    tile_height: u32,
    tile_x0: u32,
    tile_y0: u32,
    pub(super) components: usize,
    pub(super) precision: u32,
    pub(super) signed: bool,
}

impl Size {
    pub(super) fn columns(&self) -> usize {
        self.area.width()
    }

    pub(super) fn rows(&self) -> usize {
        self.area.height()
    }

    fn tiles_across(&self) -> u32 {
        (self.area.x1 - self.tile_x0).div_ceil(self.tile_width)
    }

    fn tiles_down(&self) -> u32 {
        (self.area.y1 - self.tile_y0).div_ceil(self.tile_height)
    }

    fn tile(&self, index: u32) -> Area {
        let (p, q) = (index % self.tiles_across(), index / self.tiles_across());
        let (x0, y0) = (u64::from(self.tile_x0), u64::from(self.tile_y0));
        let edge = |start: u64, n: u32, size: u32| (start + u64::from(n) * u64::from(size)).min(u32::MAX.into()) as u32;
        let whole = Area {
            x0: edge(x0, p, self.tile_width),
            y0: edge(y0, q, self.tile_height),
            x1: edge(x0, p + 1, self.tile_width),
            y1: edge(y0, q + 1, self.tile_height),
        };
        whole.intersection(&self.area)
    }
}

/// COD (A.6.1).
#[derive(Clone)]
pub(super) struct Coding {
    pub(super) marked_packets: bool,
    pub(super) marked_headers: bool,
    pub(super) progression: u8,
    pub(super) layers: u32,
    pub(super) colour_transform: bool,
    pub(super) levels: u32,
    /// Exponents of the width and height of code blocks.
    pub(super) block: (u32, u32),
    pub(super) reversible: bool,
    /// Exponents of the width and height of precincts, by resolution.
    pub(super) precincts: Vec<(u32, u32)>,
}

/// QCD (A.6.4): exponent and mantissa by subband.
#[derive(Clone)]
pub(super) struct Quantization {
    pub(super) guard_bits: u32,
    style: u8,
    steps: Vec<(u32, u32)>,
}

impl Quantization {
    /// Exponent and mantissa of a band: `orientation` is its number within its resolution.
    pub(super) fn step(&self, resolution: usize, band: usize) -> Option<(u32, u32)> {
        if self.style == 1 {
            let &(exponent, mantissa) = self.steps.first()?;
            return Some((exponent.checked_sub(resolution.saturating_sub(1) as u32)?, mantissa));
        }
        self.steps.get(if resolution == 0 { 0 } else { 3 * resolution - 2 + band }).copied()
    }
}

pub(super) struct Header {
    pub(super) size: Size,
    coding: Coding,
    quantization: Quantization,
    /// Where the first tile-part begins.
    end: usize,
}

/// A tile: what holds for it, and where its packets are.
pub(super) struct TileParts {
    pub(super) area: Area,
    pub(super) coding: Coding,
    pub(super) quantization: Quantization,
    pub(super) data: Vec<Range<usize>>,
}

const SOC: u16 = 0xFF4F;
const SIZ: u16 = 0xFF51;
const COD: u16 = 0xFF52;
const QCD: u16 = 0xFF5C;
const SOT: u16 = 0xFF90;
const SOD: u16 = 0xFF93;
const EOC: u16 = 0xFFD9;
/// Markers without effect on decoding: TLM, PLM, PLT, CRG, COM.
const IGNORED: [u16; 5] = [0xFF55, 0xFF57, 0xFF58, 0xFF63, 0xFF64];

fn word(stream: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*stream.get(at..)?.first_chunk()?))
}

fn long(stream: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*stream.get(at..)?.first_chunk()?))
}

/// A marker segment at `at`: its marker, its parameters and where the next one is.
fn segment(stream: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let (marker, length) = (word(stream, at)?, usize::from(word(stream, at + 2)?));
    Some((marker, stream.get(at + 4..at + 2 + length)?, at + 2 + length))
}

impl Header {
    pub(super) fn read(stream: &[u8]) -> Option<Self> {
        if word(stream, 0)? != SOC {
            return None;
        }
        let (mut size, mut coding, mut quantization) = (None, None, None);
        let mut at = 2;
        loop {
            if word(stream, at)? == SOT {
                return Some(Self { size: size?, coding: coding?, quantization: quantization?, end: at });
            }
            let (marker, p, next) = segment(stream, at)?;
            match marker {
                SIZ => size = Some(read_size(p)?),
                COD => coding = Some(read_coding(p)?),
                QCD => quantization = Some(read_quantization(p)?),
                m if IGNORED.contains(&m) => {}
                // COC, QCC, RGN, POC, PPM, CAP and others are left to the other decoder.
                _ => return None,
            }
            at = next;
        }
    }

    /// The tiles, their parts put together.
    pub(super) fn tiles(&self, stream: &[u8]) -> Option<Vec<TileParts>> {
        let count = self.size.tiles_across().checked_mul(self.size.tiles_down()).filter(|&n| n <= 4096)?;
        let mut tiles: Vec<TileParts> = (0..count)
            .map(|n| TileParts {
                area: self.size.tile(n),
                coding: self.coding.clone(),
                quantization: self.quantization.clone(),
                data: Vec::new(),
            })
            .collect();
        let mut at = self.end;
        while at < stream.len() {
            match word(stream, at)? {
                EOC => break,
                SOT => {}
                // Padding after a stream without end.
                _ => return None,
            }
            let (_, p, mut next) = segment(stream, at)?;
            let tile = tiles.get_mut(usize::from(word(p, 0)?))?;
            let length = long(p, 2)? as usize;
            let end = if length == 0 { stream.len() } else { at + length };
            if end > stream.len() {
                return None;
            }
            while word(stream, next)? != SOD {
                let (marker, p, after) = segment(stream, next)?;
                match marker {
                    COD => tile.coding = read_coding(p)?,
                    QCD => tile.quantization = read_quantization(p)?,
                    m if IGNORED.contains(&m) => {}
                    _ => return None,
                }
                next = after;
            }
            tile.data.push(next + 2..end.max(next + 2));
            at = end;
        }
        tiles.iter().all(|t| !t.data.is_empty()).then_some(tiles)
    }
}

fn read_size(p: &[u8]) -> Option<Size> {
    let v = |n: usize| long(p, 2 + 4 * n);
    let area = Area { x0: v(2)?, y0: v(3)?, x1: v(0)?, y1: v(1)? };
    let (tile_width, tile_height, tile_x0, tile_y0) = (v(4)?, v(5)?, v(6)?, v(7)?);
    let components = usize::from(word(p, 34)?);
    let each = p.get(36..36 + 3 * components)?;
    let (&first, rest) = each.split_first()?;
    let same = each.chunks_exact(3).all(|c| c == [first, 1, 1]);
    let precision = u32::from(first & 0x7F) + 1;
    let inside = tile_x0 <= area.x0 && tile_y0 <= area.y0;
    let first_tile =
        u64::from(tile_x0) + u64::from(tile_width) > area.x0.into() && u64::from(tile_y0) + u64::from(tile_height) > area.y0.into();
    let right = same && !rest.is_empty() && !area.is_empty() && tile_width > 0 && tile_height > 0 && inside && first_tile;
    // More bits than 16 and guard bits would not fit the words of a code block.
    (right && precision <= 16 && area.x1 < 1 << 30 && area.y1 < 1 << 30).then_some(Size {
        area,
        tile_width,
        tile_height,
        tile_x0,
        tile_y0,
        components,
        precision,
        signed: first & 0x80 != 0,
    })
}

fn read_coding(p: &[u8]) -> Option<Coding> {
    let &[style, progression, l1, l0, transform, levels, xcb, ycb, block_style, wavelet, ref precincts @ ..] = p else { return None };
    let levels = u32::from(levels);
    let block = (u32::from(xcb & 15) + 2, u32::from(ycb & 15) + 2);
    let precincts = match style & 1 {
        0 => vec![(15, 15); levels as usize + 1],
        _ => precincts.get(..levels as usize + 1)?.iter().map(|b| (u32::from(b & 15), u32::from(b >> 4))).collect(),
    };
    let layers = u32::from(u16::from_be_bytes([l1, l0]));
    // Precincts of one sample at the lowest resolution alone are possible; of none at others, not.
    let right = precincts.iter().skip(1).all(|&(x, y)| x > 0 && y > 0);
    let fits = block.0 <= 10 && block.1 <= 10 && block.0 + block.1 <= 12 && levels <= 32 && layers > 0;
    // Code blocks with bypass, resets, restarts or terminations are left to the other decoder.
    (right && fits && block_style == 0 && wavelet <= 1 && progression <= 4 && transform <= 1 && style & 0xF8 == 0).then_some(Coding {
        marked_packets: style & 2 != 0,
        marked_headers: style & 4 != 0,
        progression,
        layers,
        colour_transform: transform == 1,
        levels,
        block,
        reversible: wavelet == 1,
        precincts,
    })
}

fn read_quantization(p: &[u8]) -> Option<Quantization> {
    let (&style, rest) = p.split_first()?;
    let steps = match style & 31 {
        0 => rest.iter().map(|&b| (u32::from(b >> 3), 0)).collect(),
        1 | 2 => rest.chunks_exact(2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]]))).map(|v| (v >> 11, v & 0x7FF)).collect(),
        _ => return None,
    };
    Some(Quantization { guard_bits: u32::from(style >> 5), style: style & 31, steps })
}
