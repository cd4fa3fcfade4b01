// First and last i, j, k of the voxels that count: those with a label, or with a rank in their slice's range.
// Twin: src/kernels/bounding_box.rs.  Needs: shared/stored_i16.wgsl or shared/stored_f32.wgsl
// Largest slab: 65535 slices and 2^32 voxels a dispatch; stored values and labels must each fit a binding.
struct BoundingBoxParams {
    columns: u32,
    plane: u32,             // voxels of a slice
    first_slice: u32,       // of the bound ones
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: BoundingBoxParams;
@group(0) @binding(1) var<storage, read> stored: array<u32>;             // from slice first_slice on
@group(0) @binding(2) var<storage, read> labels: array<u32>;             // four voxels a word; those of label 0 do not count
@group(0) @binding(3) var<storage, read> ranks: array<vec2<u32>>;        // first and last that count, of the whole volume's slices
@group(0) @binding(4) var<storage, read_write> bounds: array<atomic<u32>, 6>;

override labelled: bool = false;

const THREADS: u32 = 256u;
const VOXELS_A_GROUP: u32 = 16384u;

var<workgroup> of_group: array<atomic<u32>, 4>;                          // least i, j; greatest i, j

@compute @workgroup_size(THREADS)
fn bounding_box(
    @builtin(workgroup_id) group: vec3<u32>,                             // piece, slice
    @builtin(local_invocation_index) thread: u32,
) {
    if thread < 4u { atomicStore(&of_group[thread], select(0u, 0xffffffffu, thread < 2u)); }
    workgroupBarrier();

    let k = params.first_slice + group.y;
    let range = ranks[k];
    let start = group.x * VOXELS_A_GROUP;
    let end = min(start + VOXELS_A_GROUP, params.plane);
    var least = vec2<u32>(0xffffffffu);
    var greatest = vec2<u32>(0u);
    for (var in_slice = start + thread; in_slice < end; in_slice += THREADS) {
        let n = group.y * params.plane + in_slice;
        if labelled && extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u) == 0u { continue; }
        let rank = rank_of(stored[word_of(n)], n);
        if rank - range.x > range.y - range.x { continue; }              // modulo 2^32: a range may go round
        let index = vec2<u32>(in_slice % params.columns, in_slice / params.columns);
        least = min(least, index);
        greatest = max(greatest, index);
    }
    if least.x != 0xffffffffu {
        atomicMin(&of_group[0], least.x);
        atomicMin(&of_group[1], least.y);
        atomicMax(&of_group[2], greatest.x);
        atomicMax(&of_group[3], greatest.y);
    }
    workgroupBarrier();

    if thread == 0u && atomicLoad(&of_group[0]) != 0xffffffffu {
        atomicMin(&bounds[0], atomicLoad(&of_group[0]));
        atomicMin(&bounds[1], atomicLoad(&of_group[1]));
        atomicMin(&bounds[2], k);
        atomicMax(&bounds[3], atomicLoad(&of_group[2]));
        atomicMax(&bounds[4], atomicLoad(&of_group[3]));
        atomicMax(&bounds[5], k);
    }
}
