// A patch of a volume, as the network sees it.  Twin: src/kernels/patches.rs.  Needs: shared/patch.wgsl
// Largest volume: 4 bytes a voxel must fit a binding.
@group(0) @binding(0) var<uniform> params: PatchParams;
@group(0) @binding(1) var<storage, read> volume: array<f32>;
@group(0) @binding(2) var<storage, read_write> gathered: array<f32>;

@compute @workgroup_size(64)
fn gather_patch(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * params.threads_a_row + id.x;
    if p >= params.dims.x * params.dims.y * params.dims.z { return; }    // dispatch rounds up
    let place = place_of(unturned(p, params), params);
    var value = params.outside;
    if place != NOWHERE { value = volume[place]; }
    gathered[p] = value;
}
