// Where target voxels fall between source voxels.  Twin: src/kernels/lattice.rs
//
// position(i, j, k) = steps_x[i] + (steps_y[j] + steps_z[k]) along each source axis, made on the host in f64 and split into whole
// and fraction, so that a coordinate is good to 3e-7 voxels on a grid of any size. Outside the source the edge voxel continues,
// where the kernel does not say otherwise.
struct Step { cell: vec3<i32>, fraction: vec3<f32> }

// Of the 8 voxels around a position: the lower and upper index along each axis, and the weight of the upper one.
struct Cell { lower: vec3<u32>, upper: vec3<u32>, weight: vec3<f32> }

fn cell_at(x: Step, y: Step, z: Step, source_dims: vec3<u32>) -> Cell {
    let fraction = x.fraction + (y.fraction + z.fraction);
    let whole = floor(fraction);
    let at = x.cell + y.cell + z.cell + vec3<i32>(whole);
    let last = vec3<i32>(source_dims) - 1;
    let inside = (at >= vec3<i32>(0)) & (at < last);
    let lower = clamp(at, vec3<i32>(0), last);
    return Cell(vec3<u32>(lower), vec3<u32>(min(lower + 1, last)), select(vec3<f32>(0.0), fraction - whole, inside));
}

// Whether the voxel nearest to a position (halfway, the one of higher index) is outside the source; `half` is what rounds it there.
fn nearest_is_outside(x: Step, y: Step, z: Step, half: f32, source_dims: vec3<u32>) -> bool {
    let fraction = x.fraction + (y.fraction + z.fraction);
    let at = x.cell + y.cell + z.cell + vec3<i32>(floor(fraction + half));
    return any((at < vec3<i32>(0)) | (at >= vec3<i32>(source_dims)));
}

// Not mix(): a and b come out exactly where the weight is 0 or they are equal.
fn lerp(a: f32, b: f32, weight: f32) -> f32 { return a + weight * (b - a); }
