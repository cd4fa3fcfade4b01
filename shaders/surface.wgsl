// Cubes of eight voxels by label and case: which of the eight have the label. Outside of the grid is label 0.
// Twin: src/kernels/surface.rs.
// Largest grid: 65534 slices; two slices of labels must fit a binding, and a slab has less than 2^32 cubes.
struct SurfaceParams {
    columns: u32,
    rows: u32,
    slices: u32,            // bound
    before: u32,            // layers of cubes before the one on the first bound slice: 1 or 0
}

@group(0) @binding(0) var<uniform> params: SurfaceParams;
@group(0) @binding(1) var<storage, read> labels: array<u32>;             // four voxels a word
@group(0) @binding(2) var<storage, read_write> cubes: array<atomic<u32>>; // 256 cases a label

const THREADS: u32 = 256u;
const CUBES_A_GROUP: u32 = 16384u;

// One below 0 wraps, and is outside as well.
fn label_at(voxel: vec3<u32>) -> u32 {
    if voxel.x >= params.columns || voxel.y >= params.rows || voxel.z >= params.slices { return 0u; }
    let n = voxel.x + params.columns * (voxel.y + params.rows * voxel.z);
    return extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u);
}

@compute @workgroup_size(THREADS)
fn surface(
    @builtin(workgroup_id) group: vec3<u32>,                             // piece, layer
    @builtin(local_invocation_index) thread: u32,
) {
    let across = params.columns + 1u;
    let start = group.x * CUBES_A_GROUP;
    let end = min(start + CUBES_A_GROUP, across * (params.rows + 1u));
    // One addition for each stretch of cubes within one label that a thread meets; those of background are not counted.
    var inside = 0u;
    var stretch = 0u;
    for (var n = start + thread; n < end; n += THREADS) {
        let low = vec3<u32>(n % across - 1u, n / across - 1u, group.y - params.before);
        var its: array<u32, 8>;
        var same = true;
        for (var c = 0u; c < 8u; c++) {
            its[c] = label_at(low + vec3<u32>(c & 1u, c >> 1u & 1u, c >> 2u));
            same = same && its[c] == its[0];
        }
        if same {
            if its[0] != inside {
                if inside != 0u { atomicAdd(&cubes[inside * 256u + 255u], stretch); }
                inside = its[0];
                stretch = 0u;
            }
            stretch += 1u;
            continue;
        }
        for (var c = 0u; c < 8u; c++) {
            let label = its[c];
            var case_of_it = 0u;
            for (var d = 0u; d < 8u; d++) { case_of_it |= select(0u, 1u << d, its[d] == label); }
            if label != 0u && countTrailingZeros(case_of_it) == c { atomicAdd(&cubes[label * 256u + case_of_it], 1u); }
        }
    }
    if inside != 0u { atomicAdd(&cubes[inside * 256u + 255u], stretch); }
}
