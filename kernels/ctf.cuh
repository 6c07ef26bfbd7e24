//! The CTF on an image's half spectrum, `[ky][kx]` (docs/method.md, section 4).
#pragma once

#include "common.cuh"

/// Sine of an angle whose multiple of 2 pi is removed in f64.
__device__ __forceinline__ float sine(double angle) {
    const double turns = angle / TAU;
    return sinpif((float)(2.0 * (turns - rint(turns))));
}

/// scale exp(-B/4).
__device__ __forceinline__ double envelope(double scale, double b) {
    return b == 0.0 ? scale : scale * exp(-0.25 * b);
}

/// H of sample (kx, row) of the half spectrum, in f64 up to the argument of the sine. `step`: 1 / (box x pixel size), in 1/A.
///
/// On the Nyquist lines of an even box +k and -k share one sample: the mean of both keeps the filtered image real.
__device__ __forceinline__ float ctf_sample(const ImageRecord &image, int kx, int row, double step) {
    const double x = kx * step, y = (2 * row <= BOX ? row : row - BOX) * step;
    const double x2 = x * x, y2 = y * y, xy = x * y, k2 = x2 + y2;
    if (image.limit2 * k2 > 1.0) {
        return 0.0f;
    }
    // The parts of gamma and of B that are even and odd in ky.
    const double even = image.xx * x2 + image.yy * y2 + image.quartic * k2 * k2 + image.phase +
                        (image.x2y2 * x2 + image.y4 * y2) * y2;
    const double odd = (image.xy + image.x3y * x2 + image.xy3 * y2) * xy;
    const double b_even = image.b_factor * k2 + image.b_yy * y2, b_odd = image.b_xy * xy;
    double h = envelope(image.scale, b_even + b_odd) * sine(even + odd);
    // (N, ky) is also (-N, ky), whose CTF is that of (N, -ky); likewise (kx, N); the corner (N, N) is its own partner.
    if (BOX % 2 == 0 && ((2 * kx == BOX) != (2 * row == BOX))) {
        h = 0.5 * (h + envelope(image.scale, b_even - b_odd) * sine(even - odd));
    }
    return (float)h;
}

/// Index of -k, for the index of k along an axis of a spectrum.
__device__ __forceinline__ int opposite(int index) {
    return index == 0 ? 0 : BOX - index;
}
