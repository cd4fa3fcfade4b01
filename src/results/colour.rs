//! Colours as DICOM wants them.

/// Recommended Display CIELab Value (0062,000D): L*, a*, b* of the D50 profile connection space, scaled to 16 bits (PS3.3 C.10.7.1.1).
///
/// L* 0..100 becomes 0..65535, a* and b* -128..127 become 0..65535.
pub(super) fn cielab_from_srgb(srgb: [u8; 3]) -> [u32; 3] {
    let linear = srgb.map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    // sRGB to XYZ, adapted to D50 by Bradford (ICC sRGB profile); rows are divided by the white point's X, Y, Z.
    const XYZ_FROM_RGB: [[f64; 3]; 3] =
        [[0.436_074_7, 0.385_064_9, 0.143_080_4], [0.222_504_5, 0.716_878_6, 0.060_616_9], [0.013_932_2, 0.097_104_5, 0.714_173_3]];
    let f = XYZ_FROM_RGB.map(|row| {
        let white: f64 = row.iter().sum();
        let t = row.iter().zip(linear).map(|(m, c)| m * c).sum::<f64>() / white;
        if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 }
    });
    let [l, a, b] = [116.0 * f[1] - 16.0, 500.0 * (f[0] - f[1]), 200.0 * (f[1] - f[2])];
    let scaled = |share: f64| (share.clamp(0.0, 1.0) * 65535.0).round() as u32;
    [scaled(l / 100.0), scaled((a + 128.0) / 255.0), scaled((b + 128.0) / 255.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D50 values by Bruce Lindbloom's calculator: red (54.29, 80.81, 69.89), green (87.82, -79.29, 80.99), blue (29.57, 68.30, -112.03).
    #[test]
    fn primaries_and_greys() {
        check([0, 0, 0], [0.0, 0.0, 0.0]);
        check([255, 255, 255], [100.0, 0.0, 0.0]);
        check([255, 0, 0], [54.29, 80.81, 69.89]);
        check([0, 255, 0], [87.82, -79.29, 80.99]);
        check([0, 0, 255], [29.57, 68.30, -112.03]);
    }

    fn check(srgb: [u8; 3], lab: [f64; 3]) {
        let got = cielab_from_srgb(srgb).map(f64::from);
        let got = [got[0] / 655.35, got[1] / 257.0 - 128.0, got[2] / 257.0 - 128.0];
        // Two digits were quoted.
        assert!(got.iter().zip(lab).all(|(g, w)| (g - w).abs() < 0.02), "{got:?} is not {lab:?}");
    }
}
