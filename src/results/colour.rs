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

/// The other way, clipped to what sRGB has.
pub(super) fn srgb_from_cielab(lab: [u32; 3]) -> [u8; 3] {
    // The inverse of XYZ_FROM_RGB for D50 (same source); columns are multiplied by the white point's X, Y, Z.
    const RGB_FROM_XYZ: [[f64; 3]; 3] =
        [[3.133_856_1, -1.616_866_7, -0.490_614_6], [-0.978_768_4, 1.916_141_5, 0.033_454_0], [0.071_945_3, -0.228_991_4, 1.405_242_7]];
    const WHITE: [f64; 3] = [0.964_22, 1.0, 0.825_21];
    let [l, a, b] = lab.map(f64::from);
    let (l, a, b) = (l / 655.35, a / 257.0 - 128.0, b / 257.0 - 128.0);
    let f = [(l + 16.0) / 116.0 + a / 500.0, (l + 16.0) / 116.0, (l + 16.0) / 116.0 - b / 200.0];
    let t = f.map(|f| if f.powi(3) > 216.0 / 24389.0 { f.powi(3) } else { (116.0 * f - 16.0) * 27.0 / 24389.0 });
    RGB_FROM_XYZ.map(|row| {
        let linear: f64 = row.iter().zip(t).zip(WHITE).map(|((m, t), white)| m * t * white).sum();
        let encoded = if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
        (encoded.clamp(0.0, 1.0) * 255.0).round() as u8
    })
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

    #[test]
    fn there_and_back() {
        for srgb in [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [230, 120, 90], [12, 34, 56]] {
            assert_eq!(srgb_from_cielab(cielab_from_srgb(srgb)), srgb);
        }
    }

    fn check(srgb: [u8; 3], lab: [f64; 3]) {
        let got = cielab_from_srgb(srgb).map(f64::from);
        let got = [got[0] / 655.35, got[1] / 257.0 - 128.0, got[2] / 257.0 - 128.0];
        // Two digits were quoted.
        assert!(got.iter().zip(lab).all(|(g, w)| (g - w).abs() < 0.02), "{got:?} is not {lab:?}");
    }
}
