// A patch's scores, weighted, to the sums of the volume; one thread a voxel of the patch, so no two write one sum.
// Twin: src/kernels/patches.rs.  Needs: shared/patch.wgsl
// Largest volume: 4 bytes a voxel and channel must fit a binding.
@group(0) @binding(0) var<uniform> params: PatchParams;
@group(0) @binding(1) var<storage, read> scores: array<f32>;             // channel, then voxel of the patch
@group(0) @binding(2) var<storage, read> weights: array<f32>;            // voxel of the patch, never turned round
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;         // channel, then voxel of the volume
@group(0) @binding(4) var<storage, read_write> weight_sums: array<f32>;

@compute @workgroup_size(64)
fn scatter_patch(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = id.y * params.threads_a_row + id.x;
    let patch_voxels = params.dims.x * params.dims.y * params.dims.z;
    if p >= patch_voxels { return; }                                     // dispatch rounds up
    let voxel = unturned(p, params);
    let place = place_of(voxel, params);
    if place == NOWHERE { return; }
    let volume_voxels = params.volume_dims.x * params.volume_dims.y * params.volume_dims.z;
    let weight = weights[(voxel.z * params.dims.y + voxel.y) * params.dims.x + voxel.x];
    for (var c = 0u; c < params.channels; c++) {
        sums[c * volume_voxels + place] += weight * scores[c * patch_voxels + p];
    }
    weight_sums[place] += weight;
}
