//! Constants and small helpers of all kernels. Formulas name their section of docs/method.md.
//!
//! The host defines when it compiles (src/render/cuda/compile.rs):
//! - BOX: box size in pixels.
//! - GRID: points along an edge of the grid on which splats are sampled; BOX, or more.
//! - CUTOFF: half width of a splat's support in standard deviations.
//! - BLUR: standard deviation, in grid spacings, by which splats are widened before they are sampled, and which the filter of
//!   the CTF divides out; or 0.
//! - PLANES: parameters of a Gaussian: 11, or 5 for isotropic ones.
//! - VIEWS: views whose sum is an image: operators of the point group (docs/method.md, section 3); or 1.
//! - DRAW_WARPS, DRAW_SLICES: warps of a block of `draw`, and blocks that share a tile.
//! - MOMENT_LANES: lanes that share a splat in `moments`.
//! - CHAIN_PARTS: threads that share a Gaussian in `chain`.
//! - KEPT_HALF: 1 if resident particles are stored in half precision.
#pragma once

#include "interface.cuh"

#define TAU 6.283185307179586
/// Smallest standard deviation of a Gaussian, in box units (docs/method.md, section 2).
#define S_MIN 1e-3
/// Edge of a tile in points of the grid.
#define TILE 16
/// Tiles along an axis, and of a projection.
#define TILES_X ((GRID + TILE - 1) / TILE)
#define TILES (TILES_X * TILES_X)
/// Pixels of an image, and frequencies of its half spectrum, `[ky][kx]`.
#define PIXELS (BOX * BOX)
#define COLUMNS (BOX / 2 + 1)
#define FREQUENCIES (BOX * COLUMNS)
/// Points of the grid, frequencies of its half spectrum, and the image's pixel floor(BOX / 2) in grid coordinates.
#define POINTS (GRID * GRID)
#define GRID_COLUMNS (GRID / 2 + 1)
#define GRID_FREQUENCIES (GRID * GRID_COLUMNS)
#define ORIGIN ((double)(BOX / 2) * GRID / BOX)
#define POINTS_PER_PIXEL ((double)GRID / BOX)
/// Shells of the noise weights: more than an image has, up to the corners of its spectrum.
#define SHELLS BOX
/// Threads of a block, unless a kernel says otherwise.
#define THREADS 256
/// Gaussians per plane are padded to a multiple of this.
#define PADDING 256
/// Places of the ring of passes: the host is at most that many passes ahead.
#define PASSES 32
/// Frequencies per block of `residual`, and blocks (and partial losses) per image.
#define RESIDUAL_FREQUENCIES 1024
#define RESIDUAL_BLOCKS ((GRID_FREQUENCIES + RESIDUAL_FREQUENCIES - 1) / RESIDUAL_FREQUENCIES)
/// sqrt(log2(e) / 2): exp(-t^2 / 2) = 2^-(BINARY t)^2.
#define BINARY 0.8493218002880191
#define ALL_LANES 0xffffffffu

/// Splats of a view: the `count` Gaussians, and no visible ones up to a whole number of warps.
__device__ __forceinline__ int splats_of_view(int count) {
    return (count + 31) / 32 * 32;
}

/// Splats of an image, of all views, up to a whole number of blocks of `project`.
__device__ __forceinline__ int splats_of_image(int count) {
    return (VIEWS * splats_of_view(count) + PADDING - 1) / PADDING * PADDING;
}

/// Pass number `number` of the ring.
__device__ __forceinline__ const PassRecord *pass_of(const RingRecord *ring, unsigned number) {
    return (const PassRecord *)((const char *)(ring + 1) + (size_t)(number % PASSES) * ring->pitch);
}

/// The images of a pass.
__device__ __forceinline__ const ImageRecord *images_of(const PassRecord *pass) {
    return (const ImageRecord *)(pass + 1);
}

/// 2^x for x <= 0.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/// log(1 + e^x) and its slope 1 / (1 + e^-x).
__device__ __forceinline__ void softplus(double x, double &value, double &slope) {
    const double small = exp(-fabs(x));
    value = fmax(x, 0.0) + log1p(small);
    slope = (x >= 0.0 ? 1.0 : small) / (1.0 + small);
}

/// Sum over the lanes of a warp, on every lane, in a fixed order.
__device__ __forceinline__ double warp_sum(double value) {
    for (int step = 16; step > 0; step >>= 1) {
        value += __shfl_xor_sync(ALL_LANES, value, step);
    }
    return value;
}

/// Sum over the threads of a block, on its first thread, in a fixed order; `sums` is in shared memory. All threads call it, and
/// pass a barrier before `sums` is used again.
__device__ __forceinline__ double block_sum(double value, double sums[THREADS / 32]) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = value;
    }
    __syncthreads();
    double total = 0.0;
    if (threadIdx.x == 0) {
        for (int warp = 0; warp < THREADS / 32; warp++) {
            total += sums[warp];
        }
    }
    return total;
}

/// IEEE half precision to single.
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    const unsigned sign = (unsigned)(bits & 0x8000u) << 16;
    const unsigned rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) {
        return __uint_as_float(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
    }
    // 2^112 moves the exponent's bias from 15 to 127, also for denormals.
    const float value = __uint_as_float(rest << 13) * __uint_as_float(0x77800000u);
    return __uint_as_float(__float_as_uint(value) | sign);
}

/// Single to IEEE half precision, ties to even.
__device__ __forceinline__ unsigned short float_to_half(float number) {
    const unsigned bits = __float_as_uint(number);
    const unsigned sign = (bits >> 16) & 0x8000u;
    const unsigned rest = bits & 0x7fffffffu;
    if (rest >= 0x7f800000u) {
        return (unsigned short)(sign | 0x7c00u | (rest > 0x7f800000u ? 0x200u : 0u));
    }
    if (rest >= 0x477ff000u) {
        return (unsigned short)(sign | 0x7c00u);
    }
    if (rest < 0x38800000u) {
        // Below the smallest normal half: the spacing of floats at 0.5 is 2^-24, that of denormal halves.
        const float shifted = __uint_as_float(rest) + 0.5f;
        return (unsigned short)(sign | (__float_as_uint(shifted) - 0x3f000000u));
    }
    const unsigned odd = (rest >> 13) & 1u;
    return (unsigned short)(sign | ((rest + 0xc8000fffu + odd) >> 13));
}
