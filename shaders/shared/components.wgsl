// Connected components by union-find on voxel indices: what the three passes (init, merge, flatten) share.
// After Komura (2015) and Playne and Hawick (2018): parents only ever fall, so a root is the first voxel of its component.
struct ComponentsParams {
    dims: vec3<u32>,
    threads_a_row: u32,     // threads along x of the dispatch
    most_axes: u32,         // axes along which neighbours may differ: 1, 2, 3 for 6, 18, 26 neighbours
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

const BACKGROUND: u32 = 0xffffffffu;
const PIECE: u32 = 32u;     // runs are linked at once as far as the next multiple of this
