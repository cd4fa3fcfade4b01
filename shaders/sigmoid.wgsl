// Scores to probabilities in place, each by itself: 1 / (1 + exp(-score)).  Twin: src/kernels/probabilities.rs
// Largest grid: scores of all channels must fit a binding.
@group(0) @binding(1) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(64)
fn sigmoid(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.y * params.threads_a_row + id.x;
    if n >= params.voxels { return; }                                    // dispatch rounds up
    let score = scores[n];
    let e = exp(-abs(score));                                            // at most 1: nothing overflows
    scores[n] = select(1.0, e, score < 0.0) / (1.0 + e);
}
