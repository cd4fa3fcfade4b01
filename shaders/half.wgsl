// Values to half precision (IEEE 754), two a word; beyond 65504 they become that.  Twin: src/kernels/half.rs
// Largest: 4 bytes a value must fit a binding.
struct HalfParams {
    count: u32,
    threads_a_row: u32,     // threads along x of the dispatch
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: HalfParams;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> halves: array<u32>;

const HALF_MAX: f32 = 65504.0;

@compute @workgroup_size(64)
fn half(@builtin(global_invocation_id) id: vec3<u32>) {
    let word = id.y * params.threads_a_row + id.x;
    let n = word * 2u;
    if n >= params.count { return; }                                     // dispatch rounds up
    var pair = vec2<f32>(values[n], 0.0);
    if n + 1u < params.count { pair.y = values[n + 1u]; }
    halves[word] = pack2x16float(clamp(pair, vec2<f32>(-HALF_MAX), vec2<f32>(HALF_MAX)));
}
