//! The body: analytic shapes in patient LPS millimetres, the last word first.

/// What the phantom is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tissue {
    /// Around the body and in the trachea.
    Air,
    /// Both lungs without nodules.
    Lung,
    /// Under the skin.
    Fat,
    /// Muscle, heart, liver, nodules.
    Soft,
    /// Spine, ribs, sternum.
    Bone,
}

impl Tissue {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Air, Self::Lung, Self::Fat, Self::Soft, Self::Bone];

    /// As `models/ct-tissue` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Air => "air",
            Self::Lung => "lung",
            Self::Fat => "fat",
            Self::Soft => "soft tissue",
            Self::Bone => "bone",
        }
    }

    /// Its CT number, HU.
    pub fn hu(self) -> f64 {
        match self {
            Self::Air => -1000.0,
            Self::Lung => -850.0,
            Self::Fat => -100.0,
            Self::Soft => 45.0,
            Self::Bone => 400.0,
        }
    }
}

/// Nodules in the lungs: centre and radius, mm.
pub const NODULES: [([f64; 3], f64); 4] =
    [([-82.0, -18.0, 40.0], 9.0), ([-66.0, 30.0, -6.0], 6.0), ([78.0, 22.0, 24.0], 12.0), ([84.0, -22.0, 66.0], 5.0)];

const RIB_PAIRS: i32 = 8;
const RIB_DISTANCE_MM: f64 = 30.0;
const RIB_RADIUS_MM: f64 = 6.5;

/// The tissue at a point, LPS mm from the centre of the chest, with these nodules.
pub(super) fn tissue_at(p: [f64; 3], nodules: &[([f64; 3], f64)]) -> Tissue {
    let [x, y, z] = p;
    if !ellipse(x, y, [0.0, 0.0], [165.0, 116.0]) {
        return Tissue::Air;
    }
    if !ellipse(x, y, [0.0, 0.0], [147.0, 99.0]) {
        return Tissue::Fat;
    }
    let sternum = ellipse(x, y, [0.0, -86.0], [22.0, 7.5]) && (-70.0..90.0).contains(&z);
    if ellipse(x, y, [0.0, 70.0], [23.0, 20.0]) || sternum || rib(p) {
        return Tissue::Bone;
    }
    if ellipse(x, y, [4.0, -18.0], [9.0, 9.0]) && z > 30.0 {
        return Tissue::Air; // trachea
    }
    let heart = ellipsoid(p, [26.0, -28.0, -40.0], [50.0, 44.0, 54.0]);
    let liver = ellipsoid(p, [-58.0, 0.0, -160.0], [92.0, 92.0, 84.0]);
    let nodule = nodules.iter().any(|(centre, radius)| ellipsoid(p, *centre, [*radius; 3]));
    let lungs = ellipsoid(p, [72.0, -2.0, 4.0], [50.0, 72.0, 124.0]) || ellipsoid(p, [-74.0, -2.0, 0.0], [53.0, 74.0, 126.0]);
    let within_ribs = ellipse(x, y, [0.0, 0.0], [128.0, 80.0]);
    if lungs && within_ribs && !heart && !liver && !nodule { Tissue::Lung } else { Tissue::Soft }
}

/// Tubes around the chest wall that fall towards the front, open at the sternum.
fn rib([x, y, z]: [f64; 3]) -> bool {
    let around = ((x / 137.0).powi(2) + (y / 89.0).powi(2)).sqrt();
    let from_wall = (around - 1.0) * 110.0;
    let height = z - 0.25 * y;
    let nearest = (height / RIB_DISTANCE_MM).round().clamp(f64::from(-RIB_PAIRS / 2), f64::from(RIB_PAIRS / 2 - 1));
    let open_in_front = x.abs() < 34.0 && y < 0.0;
    !open_in_front && from_wall.hypot(height - nearest * RIB_DISTANCE_MM) < RIB_RADIUS_MM
}

fn ellipse(x: f64, y: f64, centre: [f64; 2], radii: [f64; 2]) -> bool {
    ((x - centre[0]) / radii[0]).powi(2) + ((y - centre[1]) / radii[1]).powi(2) < 1.0
}

fn ellipsoid(p: [f64; 3], centre: [f64; 3], radii: [f64; 3]) -> bool {
    (0..3).map(|n| ((p[n] - centre[n]) / radii[n]).powi(2)).sum::<f64>() < 1.0
}
