//! Orientations (docs/method.md, section 1): `W` in SO(3) takes volume coordinates to view coordinates.

/// A rotation matrix, row by row: `r_view = W r_volume`.
pub type Rotation = [[f64; 3]; 3];

/// `W` from RELION's Euler angles (rot, tilt, psi) in degrees.
pub fn rotation_from_relion(rot: f64, tilt: f64, psi: f64) -> Rotation {
    let (sf, cf) = rot.to_radians().sin_cos();
    let (st, ct) = tilt.to_radians().sin_cos();
    let (sp, cp) = psi.to_radians().sin_cos();
    [
        [cp * ct * cf - sp * sf, cp * ct * sf + sp * cf, -cp * st],
        [-sp * ct * cf - cp * sf, -sp * ct * sf + cp * cf, sp * st],
        [st * cf, st * sf, ct],
    ]
}

/// RELION's Euler angles (rot, tilt, psi) in degrees of `W`; the inverse of [`rotation_from_relion`].
///
/// At tilt 0 or 180 only the sum or difference of rot and psi is defined; rot is then 0.
pub fn relion_from_rotation(w: &Rotation) -> [f64; 3] {
    let sin_tilt = w[2][0].hypot(w[2][1]);
    if sin_tilt > 1e-9 {
        [
            w[2][1].atan2(w[2][0]).to_degrees(),
            sin_tilt.atan2(w[2][2]).to_degrees(),
            w[1][2].atan2(-w[0][2]).to_degrees(),
        ]
    } else {
        // W is then a rotation about z (combined with a flip of x for tilt 180).
        let tilt = if w[2][2] > 0.0 { 0.0 } else { 180.0 };
        let psi = w[0][1].atan2(w[1][1]).to_degrees();
        [0.0, tilt, psi]
    }
}

/// Rotation matrix of the quaternion (w, x, y, z), which need not be normalised. A zero quaternion gives NaN.
pub fn rotation_from_quaternion(q: [f64; 4]) -> Rotation {
    let norm = (q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]).sqrt();
    let [w, x, y, z] = q.map(|c| c / norm);
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]
}

/// Rotation matrix of the rotation vector `v`: counter-clockwise about its direction, by its length in radians.
pub fn rotation_from_vector(v: [f64; 3]) -> Rotation {
    let angle = norm(v);
    if angle == 0.0 {
        return rotation_from_quaternion([1.0, 0.0, 0.0, 0.0]);
    }
    let (sin, cos) = (0.5 * angle).sin_cos();
    let [x, y, z] = v.map(|c| c / angle * sin);
    rotation_from_quaternion([cos, x, y, z])
}

/// The rotation vector of `w`, in radians, of length 0 to pi; the inverse of [`rotation_from_vector`].
pub fn vector_from_rotation(w: &Rotation) -> [f64; 3] {
    // Twice the axis times the sine of the angle.
    let axis = [w[2][1] - w[1][2], w[0][2] - w[2][0], w[1][0] - w[0][1]];
    let (sine, cosine) = (norm(axis), w[0][0] + w[1][1] + w[2][2] - 1.0);
    let angle = sine.atan2(cosine);
    if sine > 1e-7 {
        return axis.map(|v| v / sine * angle);
    }
    if cosine > 0.0 {
        return axis.map(|v| 0.5 * v);
    }
    // Half a turn: W = 2 a a^T - I. The column of the largest diagonal entry is along the axis a.
    let k = [0, 1, 2].into_iter().max_by(|&i, &j| w[i][i].total_cmp(&w[j][j])).unwrap_or(0);
    let column: [f64; 3] = std::array::from_fn(|i| w[i][k] + if i == k { 1.0 } else { 0.0 });
    let length = norm(column);
    column.map(|v| v / length * angle)
}

fn norm([x, y, z]: [f64; 3]) -> f64 {
    x.hypot(y).hypot(z)
}

/// The transpose, which is the inverse of a rotation.
pub fn transposed(w: &Rotation) -> Rotation {
    std::array::from_fn(|i| std::array::from_fn(|j| w[j][i]))
}

/// `a b`: first b, then a.
pub fn product(a: &Rotation, b: &Rotation) -> Rotation {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Distance of `w` from a proper rotation: the largest entry of `|W W^T - I|`, or infinity if det W < 0 or an entry is not
/// finite.
pub fn distance_from_rotation(w: &Rotation) -> f64 {
    if w.iter().flatten().any(|v| !v.is_finite()) {
        return f64::INFINITY;
    }
    let det = w[0][0] * (w[1][1] * w[2][2] - w[1][2] * w[2][1])
        - w[0][1] * (w[1][0] * w[2][2] - w[1][2] * w[2][0])
        + w[0][2] * (w[1][0] * w[2][1] - w[1][1] * w[2][0]);
    if det < 0.0 {
        return f64::INFINITY;
    }
    let mut worst = 0.0f64;
    for i in 0..3 {
        for j in 0..3 {
            let dot: f64 = (0..3).map(|k| w[i][k] * w[j][k]).sum();
            worst = worst.max((dot - f64::from(u8::from(i == j))).abs());
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn euler_angles_survive_the_round_trip() {
        for (rot, tilt, psi) in [(10.0, 20.0, 30.0), (-170.0, 120.0, 95.0), (0.0, 90.0, -45.0)] {
            let back = relion_from_rotation(&rotation_from_relion(rot, tilt, psi));
            for (a, b) in back.iter().zip([rot, tilt, psi]) {
                assert!((a - b).abs() < 1e-9, "{back:?}");
            }
        }
    }

    #[test]
    fn angles_at_the_poles_give_the_same_matrix() {
        for (rot, tilt, psi) in [(25.0, 0.0, 30.0), (25.0, 180.0, 30.0)] {
            let w = rotation_from_relion(rot, tilt, psi);
            let [r, t, p] = relion_from_rotation(&w);
            let again = rotation_from_relion(r, t, p);
            for (a, b) in w.iter().flatten().zip(again.iter().flatten()) {
                assert!((a - b).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_rotation_vector_rotates_about_its_direction() {
        let w = rotation_from_vector([0.0, 0.0, std::f64::consts::FRAC_PI_2]);
        // The images of x and y.
        for (row, expected) in w.iter().zip([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) {
            assert!(row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{w:?}");
        }
        assert_eq!(rotation_from_vector([0.0; 3])[1], [0.0, 1.0, 0.0]);
        let (v, w) = ([0.4, -2.0, 3.1], rotation_from_vector([0.4, -2.0, 3.1]));
        for (row, along) in w.iter().zip(v) {
            assert!((row.iter().zip(v).map(|(a, b)| a * b).sum::<f64>() - along).abs() < 1e-14);
        }
    }

    #[test]
    fn vectors_survive_the_round_trip() {
        let pi = std::f64::consts::PI;
        for v in [[0.0; 3], [1e-9, 0.0, -2e-9], [0.3, -0.2, 0.9], [0.0, pi, 0.0], [0.6 * pi, 0.0, -0.8 * pi]]
        {
            let w = rotation_from_vector(v);
            let again = rotation_from_vector(vector_from_rotation(&w));
            for (a, b) in w.iter().flatten().zip(again.iter().flatten()) {
                assert!((a - b).abs() < 1e-9, "{v:?}");
            }
        }
        let back = vector_from_rotation(&rotation_from_vector([0.3, -0.2, 0.9]));
        assert!(back.iter().zip([0.3, -0.2, 0.9]).all(|(a, b)| (a - b).abs() < 1e-14), "{back:?}");
    }

    #[test]
    fn a_mirror_is_not_a_rotation() {
        let mut w = rotation_from_relion(10.0, 20.0, 30.0);
        assert!(distance_from_rotation(&w) < 1e-12);
        w[2] = w[2].map(|v| -v);
        assert!(distance_from_rotation(&w).is_infinite());
    }
}
