//! JPEG 2000 part 1 (ISO 15444-1) for what medical images are: whole-sample components of one size, any progression, tiles, layers and
//! precincts. Whatever else a stream asks for is left to another decoder: [`decode`] then gives `None`.

mod block;
mod header;
mod mq;
mod packet;
mod wavelet;

use block::{Block, Orientation};
use header::Header;
use packet::{Band, CodeBlock, Component, Tile};
use wavelet::{Grid, Level, Transform, inverse};

/// The components of the image, each row by row, decoded from the code stream `stream`; `None` where it is damaged, is no image of
/// `components` of `columns` and `rows`, or asks for something that is not done here.
pub(super) fn decode(stream: &[u8], columns: usize, rows: usize, components: usize) -> Option<Vec<Vec<i32>>> {
    let header = Header::read(stream)?;
    // A second SIZ segment would have slipped by whoever looked at the first.
    if (header.size.columns(), header.size.rows(), header.size.components) != (columns, rows, components) {
        return None;
    }
    let mut image = vec![vec![0i32; columns * rows]; header.size.components];
    let mut block = Block::default();
    let mut data = Vec::new();
    for parts in header.tiles(stream)? {
        let tile = packet::read(&header, &parts, stream)?;
        let planes = match parts.coding.reversible {
            true => {
                let mut planes: Vec<Grid<i32>> =
                    tile.components.iter().map(|c| component(c, stream, &mut block, &mut data, |v, _| v / 2)).collect();
                if parts.coding.colour_transform {
                    undo_rct(&mut planes)?;
                }
                planes
            }
            false => {
                let mut planes: Vec<Grid<f32>> = tile
                    .components
                    .iter()
                    .map(|c| component(c, stream, &mut block, &mut data, |v, step| v as f32 * (step * 0.5)))
                    .collect();
                if parts.coding.colour_transform {
                    undo_ict(&mut planes)?;
                }
                let whole = |g: &Grid<f32>| g.values.iter().map(|v| v.round_ties_even() as i32).collect();
                planes.iter().map(|g| Grid { width: g.width, height: g.height, values: whole(g) }).collect()
            }
        };
        place(&header, &tile, &planes, &mut image);
    }
    Some(image)
}

/// One component of a tile: its blocks, then level by level.
fn component<T: Transform>(
    component: &Component,
    stream: &[u8],
    block: &mut Block,
    data: &mut Vec<u8>,
    value: impl Fn(i32, f32) -> T + Copy,
) -> Grid<T> {
    let mut grid = Grid::default();
    for (n, resolution) in component.resolutions.iter().enumerate() {
        let mut bands = resolution.bands.iter().map(|b| coefficients(b, stream, block, data, value));
        let mut next = || bands.next().unwrap_or_default();
        if n == 0 {
            grid = next();
        } else {
            let level = Level {
                ll: grid,
                hl: next(),
                lh: next(),
                hh: next(),
                odd_x: resolution.area.x0 % 2 == 1,
                odd_y: resolution.area.y0 % 2 == 1,
            };
            grid = inverse(&level);
        }
    }
    grid
}

/// The coefficients of a subband.
fn coefficients<T: Transform>(
    band: &Band,
    stream: &[u8],
    block: &mut Block,
    data: &mut Vec<u8>,
    value: impl Fn(i32, f32) -> T + Copy,
) -> Grid<T> {
    let mut grid = Grid::new(band.area.width(), band.area.height());
    for code_block in band.precincts.iter().flat_map(|p| &p.blocks).filter(|b| b.passes > 0) {
        let CodeBlock { area, planes, passes, pieces, .. } = code_block;
        let pieces: Vec<&[u8]> = pieces.iter().map(|p| &stream[p.clone()]).collect();
        mq::unstuffed(&pieces, data);
        block.decode(area.width(), area.height(), band.orientation, *planes, *passes, data);
        let corner = (area.y0 - band.area.y0) as usize * grid.width + (area.x0 - band.area.x0) as usize;
        for y in 0..area.height() {
            let row = &mut grid.values[corner + y * grid.width..][..area.width()];
            row.iter_mut().zip(block.row(y)).for_each(|(o, v)| *o = value(v, band.step));
        }
    }
    grid
}

/// G.2.
fn undo_rct(planes: &mut [Grid<i32>]) -> Option<()> {
    let [a, b, c, ..] = planes else { return None };
    for ((y, u), v) in a.values.iter_mut().zip(&mut b.values).zip(&mut c.values) {
        let green = *y - ((*u + *v) >> 2);
        (*y, *u, *v) = (*v + green, green, *u + green);
    }
    Some(())
}

/// G.3.
fn undo_ict(planes: &mut [Grid<f32>]) -> Option<()> {
    let [a, b, c, ..] = planes else { return None };
    for ((y, u), v) in a.values.iter_mut().zip(&mut b.values).zip(&mut c.values) {
        (*y, *u, *v) = (*y + 1.402 * *v, *y - 0.344_13 * *u - 0.714_14 * *v, *y + 1.772 * *u);
    }
    Some(())
}

/// Level shift (G.1), limits of the range, and the tile's place in the image.
fn place(header: &Header, tile: &Tile, planes: &[Grid<i32>], image: &mut [Vec<i32>]) {
    let size = &header.size;
    let middle = 1i64 << (size.precision - 1);
    let (shift, low, high) = if size.signed { (0, -middle, middle - 1) } else { (middle, 0, 2 * middle - 1) };
    for ((grid, component), image) in planes.iter().zip(&tile.components).zip(image) {
        let corner = (component.area.y0 - size.area.y0) as usize * size.columns() + (component.area.x0 - size.area.x0) as usize;
        for (y, row) in grid.values.chunks_exact(grid.width.max(1)).enumerate() {
            let out = &mut image[corner + y * size.columns()..][..grid.width];
            out.iter_mut().zip(row).for_each(|(o, &v)| *o = (i64::from(v) + shift).clamp(low, high) as i32);
        }
    }
}
