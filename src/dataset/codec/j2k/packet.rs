//! Packets: which code blocks get how many bytes and passes (ISO 15444-1 annex B).

use std::ops::Range;

use super::Orientation;
use super::header::{Area, Header, TileParts};

pub(super) struct Tile {
    pub(super) components: Vec<Component>,
}

pub(super) struct Component {
    pub(super) area: Area,
    pub(super) resolutions: Vec<Resolution>,
}

pub(super) struct Resolution {
    pub(super) area: Area,
    /// Exponents of the size of precincts.
    precinct: (u32, u32),
    /// Precincts across and down.
    across: u32,
    down: u32,
    pub(super) bands: Vec<Band>,
}

pub(super) struct Band {
    pub(super) orientation: Orientation,
    pub(super) area: Area,
    /// Size of a quantization step; 1 for reversible coding.
    pub(super) step: f32,
    /// Magnitude bit planes (E-2).
    planes: u32,
    pub(super) precincts: Vec<Precinct>,
}

pub(super) struct Precinct {
    pub(super) blocks: Vec<CodeBlock>,
    inclusion: TagTree,
    zero_planes: TagTree,
    across: usize,
}

pub(super) struct CodeBlock {
    pub(super) area: Area,
    /// Bit planes that are coded.
    pub(super) planes: u32,
    pub(super) passes: u32,
    /// Where its bytes are in the stream.
    pub(super) pieces: Vec<Range<usize>>,
    length_bits: u32,
}

/// The structure of a tile, filled from its packets.
pub(super) fn read(header: &Header, parts: &TileParts, stream: &[u8]) -> Option<Tile> {
    let mut budget = Budget(1 << 20);
    let mut tile = Tile { components: (0..header.size.components).map(|_| component(header, parts, &mut budget)).collect::<Option<_>>()? };
    let mut source = Source { stream, parts: &parts.data, part: 0, at: parts.data.first()?.start };
    for_each_packet(&mut tile, parts, |precincts, layer| packet(precincts, layer, parts, &mut source))?;
    Some(tile)
}

/// How many precincts and code blocks a tile may have: more are not plausible for any image, and each takes memory.
struct Budget(usize);

impl Budget {
    fn take(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.checked_sub(count)?;
        Some(())
    }
}

fn component(header: &Header, parts: &TileParts, budget: &mut Budget) -> Option<Component> {
    let coding = &parts.coding;
    let resolutions = (0..=coding.levels).map(|r| resolution(header, parts, r, budget)).collect::<Option<_>>()?;
    Some(Component { area: parts.area, resolutions })
}

fn resolution(header: &Header, parts: &TileParts, r: u32, budget: &mut Budget) -> Option<Resolution> {
    let coding = &parts.coding;
    let area = parts.area.reduced(coding.levels - r, (0, 0));
    let precinct = *coding.precincts.get(r as usize)?;
    let spans = |from: u32, to: u32, exponent: u32| {
        if to > from { (u64::from(to).div_ceil(1 << exponent) - u64::from(from >> exponent)) as u32 } else { 0 }
    };
    let (across, down) = (spans(area.x0, area.x1, precinct.0), spans(area.y0, area.y1, precinct.1));
    let (across, down) = if area.is_empty() { (0, 0) } else { (across, down) };
    let orientations: &[Orientation] = if r == 0 { &[Orientation::Ll] } else { &[Orientation::Hl, Orientation::Lh, Orientation::Hh] };
    let mut bands = Vec::with_capacity(orientations.len());
    for (n, &orientation) in orientations.iter().enumerate() {
        let levels = if r == 0 { coding.levels } else { coding.levels - r + 1 };
        let half = if levels == 0 { 0 } else { 1u32.checked_shl(levels - 1)? };
        let by = match orientation {
            Orientation::Ll => (0, 0),
            Orientation::Hl => (half, 0),
            Orientation::Lh => (0, half),
            Orientation::Hh => (half, half),
        };
        let band_area = parts.area.reduced(levels, by);
        let (exponent, mantissa) = parts.quantization.step(r as usize, n)?;
        let planes = (parts.quantization.guard_bits + exponent).checked_sub(1)?;
        // One bit of sign and one of fraction beside them.
        if planes > 30 {
            return None;
        }
        let gain = match orientation {
            Orientation::Ll => 0,
            Orientation::Hl | Orientation::Lh => 1,
            Orientation::Hh => 2,
        };
        let step = if coding.reversible {
            1.0
        } else {
            2f32.powi(header.size.precision as i32 + gain - exponent as i32) * (1.0 + mantissa as f32 / 2048.0)
        };
        // Precincts and code blocks are laid out in the coordinates of the band, which has half the samples (B.7).
        let halved = u32::from(r > 0);
        let size = (precinct.0 - halved.min(precinct.0), precinct.1 - halved.min(precinct.1));
        let block = (coding.block.0.min(size.0), coding.block.1.min(size.1));
        let first = ((area.x0 >> precinct.0), (area.y0 >> precinct.1));
        budget.take(across as usize * down as usize)?;
        let mut precincts = Vec::with_capacity(across as usize * down as usize);
        for (py, px) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
            let edge = |n: u32, exponent: u32| (u64::from(n) << exponent).min(u32::MAX.into()) as u32;
            let whole = Area {
                x0: edge(first.0 + px, size.0),
                y0: edge(first.1 + py, size.1),
                x1: edge(first.0 + px + 1, size.0),
                y1: edge(first.1 + py + 1, size.1),
            };
            precincts.push(lay_out(whole.intersection(&band_area), block, planes, budget)?);
        }
        bands.push(Band { orientation, area: band_area, step, planes, precincts });
    }
    Some(Resolution { area, precinct, across, down, bands })
}

/// The code blocks of a precinct of a band.
fn lay_out(area: Area, block: (u32, u32), planes: u32, budget: &mut Budget) -> Option<Precinct> {
    if area.is_empty() {
        return Some(Precinct { blocks: Vec::new(), inclusion: TagTree::new(0, 0), zero_planes: TagTree::new(0, 0), across: 0 });
    }
    let (x0, y0) = (area.x0 >> block.0, area.y0 >> block.1);
    let (x1, y1) = (((area.x1 - 1) >> block.0) + 1, ((area.y1 - 1) >> block.1) + 1);
    let (across, down) = ((x1 - x0) as usize, (y1 - y0) as usize);
    budget.take(across.checked_mul(down)?)?;
    let blocks = (y0..y1)
        .flat_map(|y| (x0..x1).map(move |x| (x, y)))
        .map(|(x, y)| {
            let whole = Area { x0: x << block.0, y0: y << block.1, x1: (x + 1) << block.0, y1: (y + 1) << block.1 };
            CodeBlock { area: whole.intersection(&area), planes, passes: 0, pieces: Vec::new(), length_bits: 3 }
        })
        .collect();
    Some(Precinct { blocks, inclusion: TagTree::new(across, down), zero_planes: TagTree::new(across, down), across })
}

/// Goes through the packets in the order of the progression (B.12). `visit` gets the resolution, the precinct's index and the layer.
fn for_each_packet(tile: &mut Tile, parts: &TileParts, mut visit: impl FnMut((&mut Resolution, usize), u32) -> Option<()>) -> Option<()> {
    let (components, levels, layers) = (tile.components.len(), parts.coding.levels as usize, parts.coding.layers);
    let count = |tile: &Tile, c: usize, r: usize| {
        let resolution = &tile.components[c].resolutions[r];
        resolution.across as usize * resolution.down as usize
    };
    match parts.coding.progression {
        0 => {
            for (layer, r, c) in (0..layers).flat_map(|l| (0..=levels).flat_map(move |r| (0..components).map(move |c| (l, r, c)))) {
                for p in 0..count(tile, c, r) {
                    visit((&mut tile.components[c].resolutions[r], p), layer)?;
                }
            }
        }
        1 => {
            for (r, layer, c) in (0..=levels).flat_map(|r| (0..layers).flat_map(move |l| (0..components).map(move |c| (r, l, c)))) {
                for p in 0..count(tile, c, r) {
                    visit((&mut tile.components[c].resolutions[r], p), layer)?;
                }
            }
        }
        order => {
            // By position: every precinct has the place of its upper left corner in the coordinates of the image.
            let mut packets = Vec::new();
            for (c, r) in (0..components).flat_map(|c| (0..=levels).map(move |r| (c, r))) {
                let resolution = &tile.components[c].resolutions[r];
                for p in 0..count(tile, c, r) {
                    let (x, y) = resolution.corner(p, (levels - r) as u32, &parts.area);
                    let key = match order {
                        2 => (r as u64, y, x, c as u64),
                        3 => (y, x, c as u64, r as u64),
                        _ => (c as u64, y, x, r as u64),
                    };
                    packets.push((key, p, c, r));
                }
            }
            packets.sort_unstable();
            for (_, p, c, r) in packets {
                for layer in 0..layers {
                    visit((&mut tile.components[c].resolutions[r], p), layer)?;
                }
            }
        }
    }
    Some(())
}

impl Resolution {
    /// Where precinct `p` begins in the image; what lies before the tile begins with it.
    fn corner(&self, p: usize, levels: u32, tile: &Area) -> (u64, u64) {
        let (px, py) = (p as u32 % self.across, p as u32 / self.across);
        let at = |first: u32, n: u32, exponent: u32, least: u32| {
            ((u64::from(first >> exponent) + u64::from(n)) << (exponent + levels)).max(least.into())
        };
        (at(self.area.x0, px, self.precinct.0, tile.x0), at(self.area.y0, py, self.precinct.1, tile.y0))
    }
}

/// The bytes of a tile, part after part.
struct Source<'a> {
    stream: &'a [u8],
    parts: &'a [Range<usize>],
    part: usize,
    at: usize,
}

impl Source<'_> {
    /// Packets do not straddle tile-parts.
    fn next_part(&mut self) -> Option<()> {
        while self.at >= self.parts.get(self.part)?.end {
            self.part += 1;
            self.at = self.parts.get(self.part)?.start;
        }
        Some(())
    }

    fn rest(&self) -> &[u8] {
        self.parts.get(self.part).and_then(|p| self.stream.get(self.at..p.end)).unwrap_or(&[])
    }
}

/// One packet (B.9 and B.10).
fn packet((resolution, p): (&mut Resolution, usize), layer: u32, parts: &TileParts, source: &mut Source<'_>) -> Option<()> {
    source.next_part()?;
    if parts.coding.marked_packets && source.rest().starts_with(&[0xFF, 0x91]) {
        source.at += 6;
    }
    let mut bits = HeaderBits { data: source.rest(), at: 0, held: 0, count: 0 };
    // Code blocks with new bytes: band, block, bytes.
    let mut added: Vec<(usize, usize, usize)> = Vec::new();
    if bits.bit()? == 1 {
        for (b, band) in resolution.bands.iter_mut().enumerate() {
            let precinct = band.precincts.get_mut(p)?;
            for n in 0..precinct.blocks.len() {
                let (x, y) = (n % precinct.across, n / precinct.across);
                let block = &mut precinct.blocks[n];
                if block.passes == 0 {
                    if !precinct.inclusion.reaches(x, y, layer + 1, &mut bits)? {
                        continue;
                    }
                    let mut zeros = 0;
                    while !precinct.zero_planes.reaches(x, y, zeros + 1, &mut bits)? {
                        zeros += 1;
                        if zeros > band.planes {
                            return None;
                        }
                    }
                    block.planes = band.planes.checked_sub(zeros)?;
                } else if bits.bit()? == 0 {
                    continue;
                }
                let passes = bits.passes()?;
                while bits.bit()? == 1 {
                    block.length_bits += 1;
                }
                let length = bits.bits(block.length_bits + passes.ilog2())?;
                block.passes += passes;
                if block.passes > 3 * block.planes.max(1) - 2 {
                    return None;
                }
                added.push((b, n, length as usize));
            }
        }
    }
    let header = bits.finish();
    source.at += header;
    if parts.coding.marked_headers && source.rest().starts_with(&[0xFF, 0x92]) {
        source.at += 2;
    }
    for (b, n, length) in added {
        if length > source.rest().len() {
            return None;
        }
        if length > 0 {
            resolution.bands[b].precincts[p].blocks[n].pieces.push(source.at..source.at + length);
        }
        source.at += length;
    }
    Some(())
}

/// Bits of a packet header: after a byte 0xFF come seven (B.10.1).
struct HeaderBits<'a> {
    data: &'a [u8],
    at: usize,
    held: u8,
    count: u32,
}

impl HeaderBits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.count == 0 {
            let after_ff = self.at > 0 && self.held == 0xFF;
            self.held = *self.data.get(self.at)?;
            self.at += 1;
            self.count = if after_ff { 7 } else { 8 };
        }
        self.count -= 1;
        Some(u32::from(self.held >> self.count & 1))
    }

    fn bits(&mut self, n: u32) -> Option<u32> {
        if n > 31 {
            return None;
        }
        (0..n).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    /// Table B.4.
    fn passes(&mut self) -> Option<u32> {
        if self.bit()? == 0 {
            return Some(1);
        }
        if self.bit()? == 0 {
            return Some(2);
        }
        match self.bits(2)? {
            3 => {}
            n => return Some(3 + n),
        }
        match self.bits(5)? {
            31 => Some(37 + self.bits(7)?),
            n => Some(6 + n),
        }
    }

    /// Bytes used; a header that ends in 0xFF has a byte more.
    fn finish(&self) -> usize {
        self.at + usize::from(self.at > 0 && self.held == 0xFF)
    }
}

/// A tag tree (B.10.2).
struct TagTree {
    /// Levels from the leaves up: how many across, and the index of the first node.
    levels: Vec<(usize, usize)>,
    /// Lower bound of each node's value, and whether it is the value.
    nodes: Vec<(u32, bool)>,
}

impl TagTree {
    fn new(across: usize, down: usize) -> Self {
        let (mut across, mut down) = (across, down);
        let mut levels = Vec::new();
        let mut count = 0;
        while across * down > 0 {
            levels.push((across, count));
            count += across * down;
            if across * down == 1 {
                break;
            }
            (across, down) = (across.div_ceil(2), down.div_ceil(2));
        }
        Self { levels, nodes: vec![(0, false); count] }
    }

    /// Whether the leaf's value is known to be less than `threshold`, reading as many bits as that takes.
    fn reaches(&mut self, x: usize, y: usize, threshold: u32, bits: &mut HeaderBits<'_>) -> Option<bool> {
        let mut least = 0;
        let mut known = false;
        for (depth, &(across, first)) in self.levels.iter().enumerate().rev() {
            let (value, done) = &mut self.nodes[first + (y >> depth) * across + (x >> depth)];
            *value = (*value).max(least);
            while !*done && *value < threshold {
                if bits.bit()? == 1 { *done = true } else { *value += 1 }
            }
            least = *value;
            known = *done;
        }
        Some(known && least < threshold)
    }
}
