// One step of dilation on rows of bits: each set voxel and its 6, 18 or 26 neighbours. Erosion is this on the inverted mask.
// Twin: src/kernels/morphology.rs
// Largest grid: one bit a voxel (rows padded to 32) must fit a binding.
struct MorphologyParams {
    dims: vec3<u32>,
    threads_a_row: u32,     // threads along x of the dispatch
    words_a_row: u32,
    most_axes: u32,         // axes along which neighbours may differ: 1, 2, 3 for 6, 18, 26 neighbours
    outside: u32,           // what lies outside of the grid: all bits, or none
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: MorphologyParams;
@group(0) @binding(1) var<storage, read> bits: array<u32>;               // 32 voxels a word, the first one lowest
@group(0) @binding(2) var<storage, read_write> spread: array<u32>;

fn word_at(row: u32, word: i32) -> u32 {
    if word < 0 || word >= i32(params.words_a_row) { return params.outside; }
    return bits[row * params.words_a_row + u32(word)];
}

@compute @workgroup_size(64)
fn morphology(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    let dims = params.dims;
    if n >= params.words_a_row * dims.y * dims.z { return; }             // dispatch rounds up
    let word = i32(n % params.words_a_row);
    let row = vec2<i32>(vec2<u32>(n / params.words_a_row % dims.y, n / params.words_a_row / dims.y));
    var found = 0u;
    for (var dk = -1; dk <= 1; dk++) {
        for (var dj = -1; dj <= 1; dj++) {
            let axes = u32(abs(dj) + abs(dk));
            if axes > params.most_axes { continue; }
            let other = row + vec2<i32>(dj, dk);
            if any(other < vec2<i32>(0)) || any(other >= vec2<i32>(dims.yz)) {
                found |= params.outside;
                continue;
            }
            let at = u32(other.y) * dims.y + u32(other.x);
            let own = word_at(at, word);
            found |= own;
            if axes < params.most_axes {
                found |= (own << 1u) | (word_at(at, word - 1) >> 31u) | (own >> 1u) | (word_at(at, word + 1) << 31u);
            }
        }
    }
    let used = dims.x - u32(word) * 32u;                                 // voxels from this word on
    if used < 32u {
        let beyond_last = 0xffffffffu << used;
        found = (found & ~beyond_last) | (params.outside & beyond_last);
    }
    spread[n] = found;
}
