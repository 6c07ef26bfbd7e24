//! The CTF on an image's half spectrum, `[ky][kx]` (docs/method.md, section 4).
#pragma once

#include "common.cuh"

/// An angle in half turns, less its multiple of 2, which is removed in f64.
__device__ __forceinline__ float half_turns(double angle) {
    const double turns = angle / TAU;
    return (float)(2.0 * (turns - rint(turns)));
}

/// scale exp(-B/4).
__device__ __forceinline__ double envelope(double scale, double b) {
    return b == 0.0 ? scale : scale * exp(-0.25 * b);
}

/// The parts of gamma and of B that are even and odd in ky.
struct CtfParts {
    double even, odd, b_even, b_odd;
};

/// gamma and B at the frequency (x, y) in 1/A.
__device__ __forceinline__ CtfParts ctf_parts(const ImageRecord &image, double x, double y) {
    const double x2 = x * x, y2 = y * y, xy = x * y, k2 = x2 + y2;
    CtfParts parts;
    parts.even = image.xx * x2 + image.yy * y2 + image.quartic * k2 * k2 + image.phase +
                 (image.x2y2 * x2 + image.y4 * y2) * y2;
    parts.odd = (image.xy + image.x3y * x2 + image.xy3 * y2) * xy;
    parts.b_even = image.b_factor * k2 + image.b_yy * y2;
    parts.b_odd = image.b_xy * xy;
    return parts;
}

/// H of sample (kx, row) of the half spectrum, in f64 up to the argument of the sine. `step`: 1 / (box x pixel size), in 1/A.
///
/// On the Nyquist lines of an even box +k and -k share one sample: the mean of both keeps the filtered image real.
__device__ __forceinline__ float ctf_sample(const ImageRecord &image, int kx, int row, double step) {
    const double x = kx * step, y = (2 * row <= BOX ? row : row - BOX) * step;
    if (image.limit2 * (x * x + y * y) > 1.0) {
        return 0.0f;
    }
    const CtfParts parts = ctf_parts(image, x, y);
    double h = envelope(image.scale, parts.b_even + parts.b_odd) * sinpif(half_turns(parts.even + parts.odd));
    // (N, ky) is also (-N, ky), whose CTF is that of (N, -ky); likewise (kx, N); the corner (N, N) is its own partner.
    if (BOX % 2 == 0 && ((2 * kx == BOX) != (2 * row == BOX))) {
        h = 0.5 * (h + envelope(image.scale, parts.b_even - parts.b_odd) * sinpif(half_turns(parts.even - parts.odd)));
    }
    return (float)h;
}

/// H and its derivative with respect to gamma at the frequency (kx, ky) below Nyquist, in cycles per box.
__device__ __forceinline__ float2 ctf_with_slope(const ImageRecord &image, int kx, int ky, double step) {
    const double x = kx * step, y = ky * step;
    if (image.limit2 * (x * x + y * y) > 1.0) {
        return make_float2(0.0f, 0.0f);
    }
    const CtfParts parts = ctf_parts(image, x, y);
    const double scale = envelope(image.scale, parts.b_even + parts.b_odd);
    float s, c;
    sincospif(half_turns(parts.even + parts.odd), &s, &c);
    return make_float2((float)(scale * s), (float)(scale * c));
}

/// Index of -k, for the index of k along an axis of a spectrum.
__device__ __forceinline__ int opposite(int index) {
    return index == 0 ? 0 : BOX - index;
}
