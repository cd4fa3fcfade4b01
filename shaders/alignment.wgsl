// Sums of a step of a rigid registration: over fixed voxels x within the moving volume, u = (a x g, g, M, 1, F) and
// sum of w u u^T, w = 1 / (1 + (F - gain M - offset)^2 per_scale); and of 1, F, M, F F, M M, F M.  A row of sums a workgroup.
// Twin: src/kernels/alignment.rs
// Largest grid: 4 bytes a voxel must fit a binding.
struct AlignmentParams {
    position: array<vec4<f32>, 3>,  // rows: moving voxel from fixed voxel
    arm: array<vec4<f32>, 3>,       // rows: arm of a turn from fixed voxel
    gradient: array<vec4<f32>, 3>,  // rows: gradient in the patient from that along i, j, k
    fixed_dims: vec3<u32>,
    gain: f32,
    moving_dims: vec3<u32>,
    offset: f32,
    per_scale: f32,
    threads: u32,                   // of the dispatch
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: AlignmentParams;
@group(0) @binding(1) var<storage, read> fixed_volume: array<f32>;
@group(0) @binding(2) var<storage, read> moving_volume: array<f32>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;     // workgroup, sum

const THREADS: u32 = 64u;
const TERMS: u32 = 9u;
const PRODUCTS: u32 = 45u;
const SUMS: u32 = 51u;

var<workgroup> shared_sums: array<f32, SUMS * THREADS>;                  // sum, thread

fn moving_at(voxel: vec3<u32>) -> f32 {
    return moving_volume[(voxel.z * params.moving_dims.y + voxel.y) * params.moving_dims.x + voxel.x];
}

fn lerp(a: f32, b: f32, weight: f32) -> f32 { return a + weight * (b - a); }

@compute @workgroup_size(THREADS)
fn alignment(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var sums = array<f32, SUMS>();
    let dims = params.fixed_dims;
    let voxels = dims.x * dims.y * dims.z;
    let last = vec3<f32>(params.moving_dims - 1u);
    for (var n = id.x; n < voxels; n += params.threads) {
        let voxel = vec4<f32>(f32(n % dims.x), f32(n / dims.x % dims.y), f32(n / (dims.x * dims.y)), 1.0);
        let at = vec3<f32>(dot(params.position[0], voxel), dot(params.position[1], voxel), dot(params.position[2], voxel));
        if any(at < vec3<f32>(0.0)) || any(at > last) || any(params.moving_dims < vec3<u32>(2u)) { continue; }
        let lower = min(vec3<u32>(at), params.moving_dims - 2u);
        let weight = at - vec3<f32>(lower);
        // Corners by k, j, i.
        let a = moving_at(lower);
        let b = moving_at(lower + vec3<u32>(1u, 0u, 0u));
        let c = moving_at(lower + vec3<u32>(0u, 1u, 0u));
        let d = moving_at(lower + vec3<u32>(1u, 1u, 0u));
        let e = moving_at(lower + vec3<u32>(0u, 0u, 1u));
        let f = moving_at(lower + vec3<u32>(1u, 0u, 1u));
        let g = moving_at(lower + vec3<u32>(0u, 1u, 1u));
        let h = moving_at(lower + vec3<u32>(1u, 1u, 1u));
        let near = vec2<f32>(lerp(a, b, weight.x), lerp(c, d, weight.x));
        let far = vec2<f32>(lerp(e, f, weight.x), lerp(g, h, weight.x));
        let front = lerp(near.x, near.y, weight.y);
        let back = lerp(far.x, far.y, weight.y);
        let moving = lerp(front, back, weight.z);
        let along = vec3<f32>(
            lerp(lerp(b - a, d - c, weight.y), lerp(f - e, h - g, weight.y), weight.z),
            lerp(near.y - near.x, far.y - far.x, weight.z),
            back - front,
        );
        let slope = vec3<f32>(
            dot(params.gradient[0].xyz, along), dot(params.gradient[1].xyz, along), dot(params.gradient[2].xyz, along),
        );
        let arm = vec3<f32>(dot(params.arm[0], voxel), dot(params.arm[1], voxel), dot(params.arm[2], voxel));
        let turned = cross(arm, slope);
        let fixed = fixed_volume[n];
        var u = array<f32, TERMS>(turned.x, turned.y, turned.z, slope.x, slope.y, slope.z, moving, 1.0, fixed);
        let difference = fixed - params.gain * moving - params.offset;
        let counts = 1.0 / (1.0 + difference * difference * params.per_scale);
        var place = 0u;
        for (var r = 0u; r < TERMS; r++) {
            let weighted = counts * u[r];
            for (var q = r; q < TERMS; q++) {
                sums[place] += weighted * u[q];
                place++;
            }
        }
        sums[PRODUCTS] += 1.0;
        sums[PRODUCTS + 1u] += fixed;
        sums[PRODUCTS + 2u] += moving;
        sums[PRODUCTS + 3u] += fixed * fixed;
        sums[PRODUCTS + 4u] += moving * moving;
        sums[PRODUCTS + 5u] += fixed * moving;
    }
    for (var n = 0u; n < SUMS; n++) { shared_sums[n * THREADS + thread] = sums[n]; }
    workgroupBarrier();
    if thread >= SUMS { return; }
    var sum = 0.0;
    for (var n = 0u; n < THREADS; n++) { sum += shared_sums[thread * THREADS + n]; }
    partials[group.x * SUMS + thread] = sum;
}
