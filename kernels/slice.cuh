//! Observed images and slices of the reference at a frequency (docs/method.md, section 15).
#pragma once

#include "target.cuh"

/// Points of the reference per cycle per box, and beyond the highest frequency.
#define REFERENCE_PADDING 2
#define REFERENCE_MARGIN 3

/// The largest coordinate of the reference for frequencies below `limit`, in points.
__device__ __forceinline__ int reference_reach(int limit) {
    return REFERENCE_PADDING * limit + REFERENCE_MARGIN;
}

/// An observed image at a frequency: Y about the place of the specimen's origin, H, its derivative with respect to the defocus, and
/// the noise weight.
struct Observed {
    float2 y;
    float h, slope, weight;
};

/// The image of `record` at the frequency (kx, ky) below Nyquist, in cycles per box. `step`: 1 / (box x pixel size), in 1/A.
__device__ __forceinline__ Observed observed_at(const ImageRecord &record, const void *resident, const float *staged,
                                                const float *noise, int kx, int ky, double step) {
    const float2 value = target_sample(resident, staged, record.place, kx, ky < 0 ? ky + BOX : ky);
    const double turns = (kx * (BOX / 2 + record.offset[0]) + ky * (BOX / 2 + record.offset[1])) / BOX;
    float s, c;
    sincospif((float)(2.0 * (turns - rint(turns))), &s, &c);
    Observed seen;
    seen.y = make_float2(value.x * c - value.y * s, value.x * s + value.y * c);
    const float2 ctf = ctf_with_slope(record, kx, ky, step);
    const double x = kx * step, y = ky * step;
    seen.h = ctf.x;
    seen.slope = ctf.y * (float)(record.slope[0] * x * x + record.slope[1] * x * y + record.slope[2] * y * y);
    const int shell = (int)rintf(sqrtf((float)(kx * kx + ky * ky)));
    seen.weight = noise[(size_t)record.noise_group * SHELLS + shell];
    return seen;
}

/// Weights of the four taps of a cubic B-spline at `t` behind the second tap, and their derivatives.
__device__ __forceinline__ void spline(float t, float weights[4], float slopes[4]) {
    const float sixth = 1.0f / 6.0f, u = 1.0f - t, t2 = t * t, t3 = t2 * t;
    weights[0] = u * u * u * sixth;
    weights[1] = (3.0f * t3 - 6.0f * t2 + 4.0f) * sixth;
    weights[2] = (3.0f * (t2 + t - t3) + 1.0f) * sixth;
    weights[3] = t3 * sixth;
    slopes[0] = -0.5f * u * u;
    slopes[1] = 1.5f * t2 - 2.0f * t;
    slopes[2] = t - 1.5f * t2 + 0.5f;
    slopes[3] = 0.5f * t2;
}

/// The reference at a point, and its derivatives with respect to the rotation vector in volume coordinates.
struct Slice {
    float2 value;
    float2 turned[3];
};

/// The reference at `place`, in points; 0 beyond its grid, which a magnification can reach. `slice.turned` is filled if TURNED.
template <bool TURNED>
__device__ __forceinline__ void slice_at(const float2 *reference, int limit, const float place[3], Slice &slice) {
    const int reach = reference_reach(limit), width = reach + REFERENCE_MARGIN + 1, side = 2 * reach + 1;
    slice = {};
    const float last = (float)(reach - REFERENCE_MARGIN) + 0.5f;
    if (fmaxf(fabsf(place[0]), fmaxf(fabsf(place[1]), fabsf(place[2]))) > last) {
        return;
    }
    // Of a pair of opposite points, that with x >= 0 is on the grid, with the conjugate value and the opposite gradient.
    const float sign = place[0] < 0.0f ? -1.0f : 1.0f;
    int first[3];
    float weights[3][4], slopes[3][4];
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        const float at = sign * place[axis] + (float)(axis == 0 ? REFERENCE_MARGIN : reach);
        const int cell = (int)at;
        first[axis] = cell - 1;
        spline(at - (float)cell, weights[axis], slopes[axis]);
    }
    float2 value = {}, gradient[3] = {};
    const auto add = [](float2 &sum, float weight, float2 more) {
        sum.x += weight * more.x;
        sum.y += weight * more.y;
    };
#pragma unroll
    for (int z = 0; z < 4; z++) {
#pragma unroll
        for (int y = 0; y < 4; y++) {
            const float2 *const row = reference + ((size_t)(first[2] + z) * side + first[1] + y) * width + first[0];
            float2 along = {}, slope = {};
#pragma unroll
            for (int x = 0; x < 4; x++) {
                const float2 tap = row[x];
                add(along, weights[0][x], tap);
                if (TURNED) {
                    add(slope, slopes[0][x], tap);
                }
            }
            add(value, weights[2][z] * weights[1][y], along);
            if (TURNED) {
                add(gradient[0], weights[2][z] * weights[1][y], slope);
                add(gradient[1], weights[2][z] * slopes[1][y], along);
                add(gradient[2], slopes[2][z] * weights[1][y], along);
            }
        }
    }
    slice.value = make_float2(value.x, sign * value.y);
    if (TURNED) {
        // -(k x gradient), which both change sign.
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            const int next = (axis + 1) % 3, after = (axis + 2) % 3;
            const float k = sign * place[after], l = sign * place[next];
            slice.turned[axis] = make_float2(k * gradient[next].x - l * gradient[after].x,
                                             sign * (k * gradient[next].y - l * gradient[after].y));
        }
    }
}
