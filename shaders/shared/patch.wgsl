// Where a voxel of a patch lies in the volume.  Twin: src/kernels/patches.rs
struct PatchParams {
    volume_dims: vec3<u32>,
    threads_a_row: u32,     // threads along x of the dispatch
    dims: vec3<u32>,        // of the patch
    channels: u32,
    start: vec3<i32>,       // first voxel of the patch in the volume
    outside: f32,           // what voxels beyond the volume become
    mirror: vec3<u32>,      // 1 along axes that are turned round
    pad0: u32,
}

const NOWHERE: u32 = 0xffffffffu;

// Where voxel `p` of the patch, as the network sees it, lies in the patch as the volume has it.
fn unturned(p: u32, its: PatchParams) -> vec3<u32> {
    let seen = vec3<u32>(p % its.dims.x, p / its.dims.x % its.dims.y, p / (its.dims.x * its.dims.y));
    return select(seen, its.dims - 1u - seen, its.mirror == vec3<u32>(1u));
}

// The voxel of the volume that a voxel of the patch lies on.
fn place_of(unturned: vec3<u32>, its: PatchParams) -> u32 {
    let at = its.start + vec3<i32>(unturned);
    if any(at < vec3<i32>(0)) || any(at >= vec3<i32>(its.volume_dims)) { return NOWHERE; }
    return (u32(at.z) * its.volume_dims.y + u32(at.y)) * its.volume_dims.x + u32(at.x);
}
