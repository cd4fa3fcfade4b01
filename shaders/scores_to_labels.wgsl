// Class scores on the network's grid -> label map: label_of_channel[argmax over c of interpolated(scores[c])].
// Ties go to the lower channel. Of regions: label_of_channel[last c with interpolated(scores[c]) > above], 0 where there is none.  Twin: src/kernels/scores_to_labels.rs.  Needs: shared/lattice.wgsl
// Largest grid: two network slices of all channels, and one target slice, must each fit a binding.
struct ScoresToLabelsParams {
    network_dims: vec3<u32>,
    first_owned: u32,       // this pass writes target voxels whose lower corner lies in network slices [first_owned, end_owned)
    target_dims: vec3<u32>,
    end_owned: u32,
    first_slice: u32,       // target slice that the output starts with
    slices: u32,            // target slices in the output
    loaded_slices: u32,     // network slices of each channel in `scores`
    channels: u32,
    words_a_row: u32,       // threads along x of the dispatch
    nearest: u32,           // axes along which the nearest scores are taken: a bit each, that of x the lowest
    above: f32,             // what a score must be above, if regions
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: ScoresToLabelsParams;
@group(0) @binding(1) var<storage, read> scores: array<f32>;            // channel, slice from first_owned on, row, column
@group(0) @binding(2) var<storage, read> label_of_channel: array<u32>;   // and 0 for none
@group(0) @binding(3) var<storage, read> steps: array<Step>;            // i, then j, then k
@group(0) @binding(4) var<storage, read_write> labels: array<u32>;      // four voxels a word

override regions: bool = false;

// Along y, then z, at column i, slices counted from the first loaded one: the order of the twin.
fn score(c: u32, i: u32, cell: Cell) -> f32 {
    let a = cell.lower.z - params.first_owned;
    let b = cell.upper.z - params.first_owned;
    let dims = params.network_dims;
    let front = (c * params.loaded_slices + a) * dims.y;
    let back = (c * params.loaded_slices + b) * dims.y;
    return lerp(
        lerp(scores[(front + cell.lower.y) * dims.x + i], scores[(front + cell.upper.y) * dims.x + i], cell.weight.y),
        lerp(scores[(back + cell.lower.y) * dims.x + i], scores[(back + cell.upper.y) * dims.x + i], cell.weight.y),
        cell.weight.z,
    );
}

@compute @workgroup_size(64)
fn scores_to_labels(@builtin(global_invocation_id) id: vec3<u32>) {
    let word = id.y * params.words_a_row + id.x;
    let row_length = params.target_dims.x;
    let rows = params.target_dims.y;
    let voxels = row_length * rows * params.slices;
    if word * 4u >= voxels { return; }                                   // dispatch rounds up
    let nearest = (vec3<u32>(params.nearest) & vec3<u32>(1u, 2u, 4u)) != vec3<u32>(0u);
    var packed = labels[word];                                           // other passes own some of its bytes
    for (var byte = 0u; byte < 4u; byte++) {
        let n = word * 4u + byte;
        if n >= voxels { break; }
        let j = n / row_length;
        let slice = row_length + rows + params.first_slice + j / rows;
        var cell = cell_at(steps[n % row_length], steps[row_length + j % rows], steps[slice], params.network_dims);
        cell.weight = select(cell.weight, vec3<f32>(0.0), nearest);
        if cell.lower.z < params.first_owned || cell.lower.z >= params.end_owned { continue; }
        var best = params.above;
        var channel = params.channels;
        for (var c = 0u; c < params.channels; c++) {
            let value = lerp(score(c, cell.lower.x, cell), score(c, cell.upper.x, cell), cell.weight.x);
            if value > best || (!regions && c == 0u) {
                if !regions { best = value; }
                channel = c;
            }
        }
        packed = insertBits(packed, label_of_channel[channel], byte * 8u, 8u);
    }
    labels[word] = packed;
}
