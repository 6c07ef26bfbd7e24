//! The spectrum of an observed image, read from its target (kernels/prepare.cu).
#pragma once

#include "ctf.cuh"

/// Value (row, column) of the target at `place`, of the `resident` particles or the `staged` images.
__device__ __forceinline__ float target_value(const void *resident, const float *staged, long long place, int row,
                                              int column) {
    const int pixel = row * BOX + column;
    if (place < 0) {
        return staged[(size_t)(-1 - place) + pixel];
    }
    const size_t at = (size_t)place * PIXELS + pixel;
    return KEPT_HALF ? half_to_float(((const unsigned short *)resident)[at]) : ((const float *)resident)[at];
}

/// Sample (kx, row) of the image's spectrum, with unitary normalisation.
__device__ __forceinline__ float2 target_sample(const void *resident, const float *staged, long long place, int kx,
                                                int row) {
    const float here = target_value(resident, staged, place, row, kx);
    const float there = target_value(resident, staged, place, opposite(row), opposite(kx));
    return make_float2(0.5f * (there + here), 0.5f * (there - here));
}
