//! Activation of a Gaussian in f64: raw parameters to rotation, scales and covariance (docs/method.md, section 2).
#pragma once
#include "common.cuh"

/// Planes of the activated mixture, `[plane][gaussian]`: mean x y z; covariance xx xy xz yy yz zz; amplitude.
#define ACTIVATED 10

/// Normalises the quaternion `q` (w, x, y, z) and fills its rotation matrix; returns 1 over its length.
__device__ __forceinline__ double rotation(double q[4], double r[3][3]) {
    const double inverse = 1.0 / sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (int k = 0; k < 4; k++) {
        q[k] *= inverse;
    }
    const double w = q[0], x = q[1], y = q[2], z = q[3];
    r[0][0] = 1.0 - 2.0 * (y * y + z * z);
    r[0][1] = 2.0 * (x * y - w * z);
    r[0][2] = 2.0 * (x * z + w * y);
    r[1][0] = 2.0 * (x * y + w * z);
    r[1][1] = 1.0 - 2.0 * (x * x + z * z);
    r[1][2] = 2.0 * (y * z - w * x);
    r[2][0] = 2.0 * (x * z - w * y);
    r[2][1] = 2.0 * (y * z + w * x);
    r[2][2] = 1.0 - 2.0 * (x * x + y * y);
    return inverse;
}

/// Scale of a raw value, at least S_MIN, and its derivative, 0 below S_MIN.
__device__ __forceinline__ double scale_of(double raw, double &slope) {
    double value;
    softplus(raw, value, slope);
    if (value < S_MIN) {
        slope = 0.0;
        return S_MIN;
    }
    return value;
}

/// Writes Gaussian `g` of the activated planes from its raw parameters `raw[plane]`.
__device__ __forceinline__ void activate_one(const float raw[PLANES], double *activated, int padded, int g) {
    double variance[3], slope;
    double r[3][3] = {{1.0, 0.0, 0.0}, {0.0, 1.0, 0.0}, {0.0, 0.0, 1.0}};
#if PLANES == 11
    double q[4] = {raw[6], raw[7], raw[8], raw[9]};
    rotation(q, r);
    for (int k = 0; k < 3; k++) {
        const double s = scale_of(raw[3 + k], slope);
        variance[k] = s * s;
    }
#else
    const double s = scale_of(raw[3], slope);
    variance[0] = variance[1] = variance[2] = s * s;
#endif
    for (int axis = 0; axis < 3; axis++) {
        activated[axis * padded + g] = raw[axis];
    }
    int plane = 3;
    for (int i = 0; i < 3; i++) {
        for (int j = i; j < 3; j++) {
            double sum = 0.0;
            for (int k = 0; k < 3; k++) {
                sum += r[i][k] * r[j][k] * variance[k];
            }
            activated[plane++ * padded + g] = sum;
        }
    }
    double amplitude;
    softplus(raw[PLANES - 1], amplitude, slope);
    activated[9 * padded + g] = amplitude;
}
