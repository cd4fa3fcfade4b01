// What arithmetic can do at most: four sums a thread that do not wait for each other, each of four lanes, 4096 multiply-adds.

@group(0) @binding(0) var<storage, read_write> sums: array<vec4<f32>>;

@compute @workgroup_size(256)
fn multiply_add(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = vec4<f32>(f32(id.x));
    var b = a + 1.0;
    var c = a + 2.0;
    var d = a + 3.0;
    let factor = vec4<f32>(0.999);
    let summand = vec4<f32>(0.001);
    for (var n = 0u; n < 4096u; n++) {
        a = fma(a, factor, summand);
        b = fma(b, factor, summand);
        c = fma(c, factor, summand);
        d = fma(d, factor, summand);
    }
    if id.x < arrayLength(&sums) { sums[id.x] = a + b + c + d; }
}
