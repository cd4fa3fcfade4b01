// Each voxel points at its root, the first voxel of its component in memory order.
// Twin: src/kernels/components.rs.  Needs: shared/components.wgsl
@group(0) @binding(0) var<uniform> params: ComponentsParams;
@group(0) @binding(1) var<storage, read_write> parents: array<atomic<u32>>;

@compute @workgroup_size(64)
fn components_flatten(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    if id.x >= params.threads_a_row || n >= params.dims.x * params.dims.y * params.dims.z { return; }   // dispatch rounds up
    var root = atomicLoad(&parents[n]);
    if root == BACKGROUND { return; }
    var parent = atomicLoad(&parents[root]);
    while parent != root {
        root = parent;
        parent = atomicLoad(&parents[root]);
    }
    atomicStore(&parents[n], root);
}
