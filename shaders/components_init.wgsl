// Labels -> parents: each voxel points at the first voxel of its run within a piece of PIECE columns; background is BACKGROUND.
// Twin: src/kernels/components.rs.  Needs: shared/components.wgsl
// Largest grid: 4 bytes a voxel must fit a binding; larger ones go through in slabs of slices.
@group(0) @binding(0) var<uniform> params: ComponentsParams;
@group(0) @binding(1) var<storage, read> labels: array<u32>;             // four voxels a word
@group(0) @binding(2) var<storage, read_write> parents: array<u32>;

fn label_at(n: u32) -> u32 {
    return extractBits(labels[n >> 2u], (n & 3u) * 8u, 8u);
}

@compute @workgroup_size(64)
fn components_init(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    if id.x >= params.threads_a_row || n >= params.dims.x * params.dims.y * params.dims.z { return; }   // dispatch rounds up
    let label = label_at(n);
    if label == 0u {
        parents[n] = BACKGROUND;
        return;
    }
    let left = n % params.dims.x % PIECE;                                // columns of the piece before this one
    var steps = 0u;
    while steps < left && label_at(n - steps - 1u) == label { steps++; }
    parents[n] = n - steps;
}
