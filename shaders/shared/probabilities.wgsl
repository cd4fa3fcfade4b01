// What softmax, sigmoid and threshold are told.  Twin: src/kernels/probabilities.rs
struct ProbabilityParams {
    voxels: u32,            // of a channel
    channels: u32,
    threads_a_row: u32,     // threads along x of the dispatch
    threshold: f32,
}

@group(0) @binding(0) var<uniform> params: ProbabilityParams;
