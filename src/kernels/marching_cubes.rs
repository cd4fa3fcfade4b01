//! The surface of a mask within the cube between eight voxel centres, for each of the 256 ways in which they can be set: marching cubes
//! (Lorensen and Cline 1987) with the topology of Lewiner et al. (2003), at half way between set and unset voxels.
//!
//! Where set voxels of a face are diagonal neighbours, the surface joins them; so the surfaces of neighbouring cubes fit, and the whole is
//! closed, which Lorensen's own table does not see to.

use crate::geometry::{Affine, cross, dot, norm};

/// Triangles by case, three corners each. Bit n of a case stands for voxel (n & 1, n >> 1 & 1, n >> 2). Corner 4 axis + u + 2 v is the
/// middle of the edge along that axis at u and v of the other two axes, the lower one first; corner 12 is the middle of the cube. Seen
/// from outside in voxel indices, triangles turn counterclockwise.
///
/// Made with scikit-image 0.26.0, for each case:
///     mask = np.array([case >> n & 1 for n in range(8)], np.float32).reshape(2, 2, 2)
///     corners, triangles, _, _ = skimage.measure.marching_cubes(mask, 0.5, method='lewiner', allow_degenerate=True)
#[rustfmt::skip]
const TRIANGLES: [&str; 256] = [
    "", "480", "950", "485589", "1a4", "1a00a8", "40a09a51a5a9", "1a5a95a89", "b15", "14b48b05b0b8", "b19910", "4818b189b", "5b44ba",
    "5b0b80ba8", "0949a49ba", "b89a8b", "862", "042246", "296956086065", "952562546", "a61621841812", "62a21a201",
    "a6828682989050905414541a4a8", "a62a291a9519", "b15628", "052b252b616b614", "08161816b2b6b29", "9b1691461296", "584852b252b6a6b",
    "ba5a252052a6", "84062a9a2a9b", "a629a2ba9", "279", "824274904947", "270075", "278748754", "279a41", "190917a717a282a",
    "517a717a242a240", "751871a81782", "7b2b12592521", "82979297b9b515b510401048089", "b17127102", "7b1714274824", "59424942a7a2a7b",
    "905278b878ba", "027a07ba740a", "827b87a8b", "869967", "049479467", "860650675", "475674", "7a6a71917194849", "679169019a61",
    "4081a565a567", "51a65a756", "7b616b618581859", "9054b1b47674", "10871867817b", "7b1471674", "7b6a6b859584",
    "7c6c9606960a5a0a5ccba7bcc59", "7c678c870b070b4c4bbacca684c", "7ba7a6", "a36", "6838034a3430", "95036a", "4a535a539693968", "416613",
    "806036013", "406960693539351", "135385895368", "a16156b36b65", "b3a6a3a68a8404840151015b1ba", "0a1a06960693b39", "a1436b8b6b89",
    "36b65b645", "36bb65685805", "640b609b06b3", "b368b69b8", "28338a", "a34304320", "29353935a0a5a08", "32943954934a", "418128132",
    "120132", "840195912321", "295125321", "2b3b25852581a18", "14a5b030b032", "a080a1293b39", "2c32aca24942491c199bccb3a1c",
    "4585383285b3", "05b30b203", "2c3c8343834b0b4b0cc9b29cc08", "29b2b3", "37a79a26a2a9", "84a480908298927672763a368a6",
    "53735a0a5a06260", "8267a3a74547", "426249194917371", "268793039301", "517371240426", "3c1c6181618525852cc7537cc26",
    "b595b1a1b3aba36763672927b97", "82614a905b37", "37b6a212a210", "14a26837b", "b37692965456", "05937b268",
    "2c0c70b070b434b43cc6426cc37", "7b3268", "7939a398a", "a34430370790", "8a0a70750a37", "4a3743547", "987817137184", "379039130",
    "3c134c438783870c0775cc5140c", "375351", "37b91519a8a9", "b37a14905", "0c10bcb07870783c388acca1b3c", "14ab37",
    "5c4cb434b43878387cc9859cc7b", "9057b3", "0847b3", "37b", "73b", "4803b7", "b53503309739", "4b5b43834387978", "3a7a471b7174",
    "1b070b07838783a", "97b3b7b3aba141a14505450959b", "b51739a939a8", "735531", "143834387078705", "739309310", "897187317814",
    "a43473457", "a807a05703a7", "3a4340730970", "973a9389a", "6383b872878b", "07270b4b0b43634", "908095b597b9b73237326862982",
    "7293b656b654", "a1b1a484a68a862326237b73ab3", "a632b7b21012", "a6351b840972", "51b63a729", "163618581852725", "614163052725",
    "972386830103", "6c4c2494249171917cc3163cc72", "63a287478745", "7c5c35a535a060a06cc2072cc63", "40872963a", "29763a", "92bb23",
    "382834b434b090b", "50b03b023", "548358238b53", "3a242a24919491b", "90b1b038283a", "b510a4a03230", "3c2cb252b25818581cca83acc1b",
    "925215231", "059481218123", "210312", "148218312", "23934945943a", "3c239c935a535a0c0aa8cc8290c", "3a4034230", "82383a", "3b6b86b98",
    "4606b0b90b63", "63b6b5865085", "63b56b465", "63ab414b898b", "1c0ca060a06939693ccb91bcc3a", "a63840b51", "b513a6", "315835985638",
    "6c460c069396935c5331cc1405c", "086306103", "146163", "5c45aca53935396c6998cc84a6c", "059a63", "408a63", "3a6", "b7aa76",
    "68707870b4b0b4a", "697960a060a5b5a", "697968b5a4a5", "b71741764", "01817876871b", "51b094749476", "6c76bcb61816185c5889cc97b5c",
    "15a56a576", "a14580856765", "7696191096a1", "6c7ca717a71949194cc8968cc4a", "745764", "680560765", "409749647", "689697", "2878b78ab",
    "2070a7ab704a", "72985058bab8", "4c549c942a242a7c7aabccb597c", "b71174724284", "1b7217012", "972b51840", "51b972", "5717818a1872",
    "7c571c17a2a7a24c4220cc0514c", "0c1c9171917a2a7a2cc8a08cc29", "97214a", "728478574", "720705", "972084", "729", "6a2a92ab9",
    "268a040a9b9a", "ab52a5025a26", "4c5c8525852b6b2b6ccab4acc68", "b91961641926", "1c018c816b616b2c2bb9cc9082c",
    "2c025c52b6b2b61c1664cc4051c", "51b826", "6a22a9a19159", "826905a14", "26a12a021", "8264a1", "592652456", "059826", "402426", "682",
    "8b98ab", "904a94b9a", "b508b0ab8", "b54b4a", "841b8198b", "1b9190", "08451b", "1b5", "a159a58a9", "59014a", "a10a08", "a14",
    "845859", "590", "840", "",
];

/// Area of the surface in a cube of each case, and volume of the cube's part within it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cube {
    pub(super) area_mm2: f64,
    pub(super) volume_mm3: f64,
}

/// Those of all cases for cubes of a grid.
pub(super) fn cubes(lps_from_voxel: &Affine) -> [Cube; 256] {
    let axes = [0, 1, 2].map(|n| lps_from_voxel.column(n));
    let in_mm = |p: [f64; 3]| std::array::from_fn(|n| axes[0][n] * p[0] + axes[1][n] * p[1] + axes[2][n] * p[2]);
    std::array::from_fn(|case| Cube {
        area_mm2: triangles(case).map(|corners| norm(twice_area(corners.map(in_mm))) / 2.0).sum(),
        volume_mm3: share(case) * lps_from_voxel.determinant().abs(),
    })
}

/// Triangles of a case in a cube of side 1.
fn triangles(case: usize) -> impl Iterator<Item = [[f64; 3]; 3]> {
    let corners = TRIANGLES[case].as_bytes().as_chunks::<3>().0;
    corners.iter().map(|digits| digits.map(corner))
}

fn corner(digit: u8) -> [f64; 3] {
    let edge = (digit as char).to_digit(16).expect("the table has digits") as usize;
    let mut middle = [0.5; 3];
    if edge < 12 {
        let [first, second] = [[1, 2], [0, 2], [0, 1]][edge / 4];
        middle[first] = (edge & 1) as f64;
        middle[second] = (edge >> 1 & 1) as f64;
    }
    middle
}

fn twice_area([a, b, c]: [[f64; 3]; 3]) -> [f64; 3] {
    cross(std::array::from_fn(|n| b[n] - a[n]), std::array::from_fn(|n| c[n] - a[n]))
}

/// Share of the cube within the surface, by the divergence theorem: triangles, and the parts within of the faces that do not meet voxel 0.
fn share(case: usize) -> f64 {
    let of_triangles: f64 = triangles(case).map(|corners| dot(corners[0], twice_area(corners)) / 2.0).sum();
    let of_faces: f64 = [0xaa, 0xcc, 0xf0].map(|face| face_share(case & face)).iter().sum();
    (of_triangles + of_faces) / 3.0
}

/// Share of a face within the surface, by its set voxels: of corners that differ from both neighbours a triangle is cut off, but that of
/// set diagonal neighbours is of the unset ones.
fn face_share(set: usize) -> f64 {
    match set.count_ones() {
        0 => 0.0,
        1 => 0.125,
        2 if (set.trailing_zeros() ^ set.ilog2()).count_ones() == 2 => 0.75, // diagonal: the numbers differ in two bits
        2 => 0.5,
        3 => 0.875,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::components::tests::noise;
    use super::*;

    /// All surfaces of a mask are closed: each edge of a triangle is met by another one the other way round; and what is within them is what
    /// the cubes have.
    #[test]
    fn surfaces_are_closed_and_hold_their_volume() {
        for (seed, above) in [(1, 128), (2, 25), (3, 230)] {
            let side = 14;
            let set = |[i, j, k]: [usize; 3], noise: &[u8]| {
                let inside = [i, j, k].iter().all(|n| (1..=side).contains(n));
                inside && noise[i - 1 + side * (j - 1 + side * (k - 1))] < above
            };
            let noise = noise(side * side * side, seed);
            let (mut edges, mut volume, mut shares) = (HashMap::new(), 0.0, 0.0);
            for n in 0..(side + 1).pow(3) {
                let low = [n % (side + 1), n / (side + 1) % (side + 1), n / (side + 1) / (side + 1)];
                let case =
                    (0..8).map(|c| usize::from(set([low[0] + (c & 1), low[1] + (c >> 1 & 1), low[2] + (c >> 2)], &noise)) << c).sum();
                shares += share(case);
                for corners in triangles(case).map(|corners| corners.map(|p| std::array::from_fn(|n| p[n] + low[n] as f64))) {
                    volume += dot(corners[0], twice_area(corners)) / 6.0;
                    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                        let [from, to] = [from, to].map(|n| corners[n].map(|x: f64| (2.0 * x) as i32));
                        *edges.entry((from.min(to), from.max(to))).or_insert(0) += if from < to { 1 } else { -1 };
                    }
                }
            }
            assert!(edges.len() > 1000 && edges.values().all(|&both| both == 0), "an edge is open");
            assert!((volume - shares).abs() < 1e-9, "{volume} is not {shares}");
        }
    }

    #[test]
    fn shares_of_simple_cases() {
        assert_eq!((share(0), share(255)), (0.0, 1.0));
        assert!((share(1) - 1.0 / 48.0).abs() < 1e-15 && (share(254) - 47.0 / 48.0).abs() < 1e-15);
        assert!((share(0b1111) - 0.5).abs() < 1e-15);
    }
}
