//! Affine maps of 3-space and the few vector operations they need.

use std::ops::Mul;

use serde::{Deserialize, Serialize};

use super::GeometryError;

/// The affine map `p -> L p + t`, three rows of `[L | t]`.
///
/// Named target-from-source at every use, so that neighbours match when composed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Affine {
    rows: [[f64; 4]; 3],
}

impl Affine {
    /// The identity.
    pub const IDENTITY: Self = Self { rows: [[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.]] };

    /// From the images of the three unit vectors and of zero.
    pub fn from_columns(x: [f64; 3], y: [f64; 3], z: [f64; 3], zero: [f64; 3]) -> Self {
        Self { rows: std::array::from_fn(|r| [x[r], y[r], z[r], zero[r]]) }
    }

    /// Scaling along the axes, then a shift.
    pub fn scale_then_shift(scale: [f64; 3], shift: [f64; 3]) -> Self {
        Self::from_columns([scale[0], 0., 0.], [0., scale[1], 0.], [0., 0., scale[2]], shift)
    }

    /// The three rows of `[L | t]`.
    pub fn rows(&self) -> [[f64; 4]; 3] {
        self.rows
    }

    /// Column `n` of the linear part (0 to 2), or the translation (3).
    pub fn column(&self, n: usize) -> [f64; 3] {
        std::array::from_fn(|r| self.rows[r][n])
    }

    /// The image of point `p`.
    pub fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|r| dot([self.rows[r][0], self.rows[r][1], self.rows[r][2]], p) + self.rows[r][3])
    }

    /// Determinant of the linear part: signed volume of the unit cube's image.
    pub fn determinant(&self) -> f64 {
        dot(self.column(0), cross(self.column(1), self.column(2)))
    }

    /// The inverse map.
    ///
    /// # Errors
    /// [`GeometryError::Singular`] where the linear part has no inverse.
    pub fn inverse(&self) -> Result<Self, GeometryError> {
        let determinant = self.determinant();
        if !determinant.is_normal() || !self.rows.iter().flatten().all(|v| v.is_finite()) {
            return Err(GeometryError::Singular { determinant });
        }
        let [x, y, z, t] = std::array::from_fn(|n| self.column(n));
        let linear_rows = [cross(y, z), cross(z, x), cross(x, y)].map(|r| r.map(|v| v / determinant));
        let rows = linear_rows.map(|r| [r[0], r[1], r[2], -dot(r, t)]);
        Ok(Self { rows })
    }
}

impl Mul for Affine {
    type Output = Self;

    /// `(c_from_b * b_from_a)` is `c_from_a`.
    fn mul(self, b: Self) -> Self {
        let rows = std::array::from_fn(|r| {
            std::array::from_fn(|c| {
                let sum: f64 = (0..3).map(|k| self.rows[r][k] * b.rows[k][c]).sum();
                if c == 3 { sum + self.rows[r][3] } else { sum }
            })
        });
        Self { rows }
    }
}

/// Scalar product.
pub fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Vector product.
pub fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// `a - b`.
pub fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|n| a[n] - b[n])
}

/// Euclidean length.
pub fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn inverse_undoes(v in prop::array::uniform12(-50.0..50.0f64), p in prop::array::uniform3(-400.0..400.0f64)) {
            let map = Affine::from_columns([v[0], v[1], v[2]], [v[3], v[4], v[5]], [v[6], v[7], v[8]], [v[9], v[10], v[11]]);
            prop_assume!(map.determinant().abs() > 1.0);
            let back = map.inverse().expect("determinant is above 1").apply(map.apply(p));
            // Condition numbers here stay below 1e6: nine digits are left.
            prop_assert!(norm(sub(back, p)) < 1e-6, "{back:?} is not {p:?}");
        }

        #[test]
        fn product_is_composition(v in prop::array::uniform12(-5.0..5.0f64), p in prop::array::uniform3(-40.0..40.0f64)) {
            let a = Affine::from_columns([v[0], v[1], v[2]], [v[3], v[4], v[5]], [v[6], v[7], v[8]], [v[9], v[10], v[11]]);
            let b = Affine::from_columns([v[8], v[1], v[3]], [v[2], v[4], v[7]], [v[6], v[5], v[0]], [v[11], v[10], v[9]]);
            prop_assert!(norm(sub((a * b).apply(p), a.apply(b.apply(p)))) < 1e-9);
        }
    }

    #[test]
    fn flat_axes_have_no_inverse() {
        let flat = Affine::from_columns([1., 0., 0.], [0., 1., 0.], [1., 1., 0.], [0.; 3]);
        assert!(matches!(flat.inverse(), Err(GeometryError::Singular { .. })));
    }
}
