//! Which way the voxel axes of a grid run through the patient.

use std::fmt;
use std::str::FromStr;

use super::{Affine, GeometryError};

/// The patient direction (L, R, P, A, S or I) nearest to each voxel axis i, j, k: the direction of increasing index.
///
/// `LPS` is an axial series as most scanners store it. S is towards the head (superior), I towards the feet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation(pub [char; 3]);

impl Orientation {
    /// Towards the left, the back and the head: the axes of the world.
    pub const LPS: Self = Self(['L', 'P', 'S']);

    /// Reads an affine; each patient axis is used once, the strongest pairing first.
    pub fn of(lps_from_voxel: &Affine) -> Self {
        let mut letters = ['?'; 3];
        let mut free_axes = [true; 3];
        for _ in 0..3 {
            let mut best = (-1.0, 0, 0);
            for (voxel_axis, letter) in letters.iter().enumerate() {
                let column = lps_from_voxel.column(voxel_axis);
                let length = super::norm(column);
                for (patient_axis, free) in free_axes.iter().enumerate() {
                    let cosine = column[patient_axis].abs() / length;
                    if *letter == '?' && *free && cosine > best.0 {
                        best = (cosine, voxel_axis, patient_axis);
                    }
                }
            }
            let (_, voxel_axis, patient_axis) = best;
            free_axes[patient_axis] = false;
            let positive = lps_from_voxel.column(voxel_axis)[patient_axis] >= 0.0;
            letters[voxel_axis] = [['R', 'L'], ['A', 'P'], ['I', 'S']][patient_axis][usize::from(positive)];
        }
        Self(letters)
    }

    /// For each patient axis (L, P, S): the voxel axis that follows it, and whether it runs the same way.
    pub fn voxel_axis_of_lps(&self) -> [(usize, bool); 3] {
        self.voxel_axes_of(Self::LPS)
    }

    /// For each axis of `other`: the voxel axis that follows it, and whether it runs the same way.
    pub fn voxel_axes_of(&self, other: Self) -> [(usize, bool); 3] {
        other.0.map(|direction| {
            let follows = |&c: &char| c == direction || c == opposite(direction);
            let axis = self.0.iter().position(follows).expect("each patient axis is used once");
            (axis, self.0[axis] == direction)
        })
    }
}

fn opposite(direction: char) -> char {
    match direction {
        'L' => 'R',
        'R' => 'L',
        'P' => 'A',
        'A' => 'P',
        'S' => 'I',
        _ => 'S',
    }
}

/// One of the 48: `LPS`, `RAS`, `PIR`.
impl FromStr for Orientation {
    type Err = GeometryError;

    fn from_str(text: &str) -> Result<Self, GeometryError> {
        let letters: Vec<char> = text.chars().collect();
        let once = |pair: [char; 2]| letters.iter().filter(|c| pair.contains(c)).count() == 1;
        match letters[..] {
            [i, j, k] if [['L', 'R'], ['P', 'A'], ['S', 'I']].into_iter().all(once) => Ok(Self([i, j, k])),
            _ => Err(GeometryError::Orientation { text: text.chars().take(16).collect() }),
        }
    }
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|c| write!(f, "{c}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: [f64; 3], y: [f64; 3], z: [f64; 3], expected: &str) {
        let orientation = Orientation::of(&Affine::from_columns(x, y, z, [0.; 3]));
        assert_eq!(orientation.to_string(), expected);
    }

    #[test]
    fn letters_name_the_direction_of_increasing_index() {
        check([0.7, 0., 0.], [0., 0.7, 0.], [0., 0., 5.], "LPS");
        check([0.7, 0., 0.], [0., 0.7, 0.], [0., 0., -5.], "LPI");
        check([0., 1., 0.], [0., 0., -1.], [-1., 0., 0.], "PIR");
        check([0.8, 0.6, 0.], [-0.6, 0.8, 0.], [0., 0., 1.], "LPS");
    }

    #[test]
    fn patient_axes_find_their_voxel_axes() {
        assert_eq!(Orientation(['P', 'I', 'R']).voxel_axis_of_lps(), [(2, false), (0, true), (1, false)]);
        assert_eq!(Orientation::LPS.voxel_axes_of(Orientation(['S', 'A', 'R'])), [(2, true), (1, false), (0, false)]);
    }

    #[test]
    fn there_are_48() {
        let letters = ['L', 'R', 'P', 'A', 'S', 'I'];
        let all = letters.into_iter().flat_map(|a| letters.into_iter().flat_map(move |b| letters.map(|c| format!("{a}{b}{c}"))));
        let known: Vec<String> = all.filter(|text| text.parse::<Orientation>().is_ok_and(|found| found.to_string() == *text)).collect();
        assert_eq!(known.len(), 48);
        for text in ["", "LP", "LPSI", "LPP", "LRS", "lps"] {
            assert!(text.parse::<Orientation>().is_err(), "{text}");
        }
    }
}
