//! What the kernels share: the constants that they are compiled with, the records that the host fills, and small
//! helpers. METHOD.md sections are named where a formula is used.
//!
//! Constants given by the host when it compiles: BOX (pixels), GRID (points along an edge of the grid that splats are sampled
//! on: BOX, or more), CUTOFF (standard deviations), BLUR (distances of points by which splats are widened before they are
//! sampled, which the filter takes back; or 0), PLANES (parameters of a Gaussian: 11, or 5 if round), DRAW_WARPS, DRAW_SLICES,
//! MOMENT_LANES, CHAIN_PARTS, KEPT_HALF (particles are kept as f16).
#pragma once

#define TAU 6.283185307179586
/// Smallest standard deviation of a Gaussian, in box units (section 2).
#define S_MIN 1e-3
/// Edge of a tile in points of the grid.
#define TILE 16
/// Tiles along an axis, and in all.
#define TILES_X ((GRID + TILE - 1) / TILE)
#define TILES (TILES_X * TILES_X)
/// Pixels of an image, and frequencies of its half spectrum, `[ky][kx]`.
#define PIXELS (BOX * BOX)
#define COLUMNS (BOX / 2 + 1)
#define FREQUENCIES (BOX * COLUMNS)
/// Points of the grid, frequencies of its half spectrum, and where the image's pixel floor(BOX / 2) lies on it, along each axis.
#define POINTS (GRID * GRID)
#define GRID_COLUMNS (GRID / 2 + 1)
#define GRID_FREQUENCIES (GRID * GRID_COLUMNS)
#define ORIGIN ((double)(BOX / 2) * GRID / BOX)
/// Threads of a block, unless a kernel says otherwise.
#define THREADS 256
/// Gaussians' planes are padded to a multiple of this.
#define PADDING 256
/// Frequencies that one block of `residual` takes, and the partial sums of an image that makes.
#define RESIDUAL_FREQUENCIES 1024
#define RESIDUAL_BLOCKS ((GRID_FREQUENCIES + RESIDUAL_FREQUENCIES - 1) / RESIDUAL_FREQUENCIES)
/// sqrt(log2(e) / 2): exp(-t^2 / 2) = 2^-(BINARY t)^2.
#define BINARY 0.8493218002880191
#define ALL_LANES 0xffffffffu

/// One image of a pass. The host's `ImageRecord`.
struct Image {
    /// First two rows of W.
    double view[6];
    /// The CTF: gamma = xx kx^2 + xy kx ky + yy ky^2 - quartic k^4 + phase, H = scale exp(-B k^2/4) sin(gamma).
    double xx, xy, yy, quartic, phase, b_factor, scale;
    /// The sum of Y^2.
    double energy;
    /// Its place among the kept particles, or -1 - its first number among the staged ones.
    long long place;
};

/// A pass over some images, and the step that it may end. The host's `PassRecord`; the images follow it.
struct Pass {
    /// Images that take part; 0 in none.
    unsigned images;
    /// 1 where the pass is the first, and the last, of its step.
    unsigned first, last;
    /// Where the step's outcome goes.
    unsigned outcome;
    /// Adam's numbers of the step, bias corrections folded into rate and epsilon.
    float rate, beta1, beta2, fresh1, fresh2, epsilon;
    /// 1 over the images of the step, over all ranks.
    float scale;
    /// What the rate is multiplied by: of means, scales, quaternions, amplitudes.
    float factors[4];
    unsigned reserved;
    Image image[1];
};

/// Passes that the host may be ahead.
#define PASSES 32

/// The passes that are on their way, one behind the other after this. The host fills a place long before it is used; the
/// kernels go on from one to the next by themselves: `project` takes `next` over as `current`, `draw` moves `next` on, and
/// neither is read by the kernel that writes it.
struct Ring {
    unsigned next, current;
    /// Bytes from one pass to the next.
    unsigned pitch;
    unsigned reserved;
};

/// Pass number `number` of the ring.
__device__ __forceinline__ const Pass *pass_of(const Ring *ring, unsigned number) {
    return (const Pass *)((const char *)(ring + 1) + (size_t)(number % PASSES) * ring->pitch);
}

/// One Gaussian seen in one image; lengths in distances of the grid's points. With column i and row j of the support,
/// p = p0 + w0 i + w1 j and q = q0 + w2 j, its value is weight 2^-(p^2 + q^2).
struct __align__(16) Splat {
    float p0, q0, w0, w1;
    float w2, weight;
    /// First column | first row << 16, and columns | rows << 16 of the support; no columns: nothing is seen.
    unsigned corner, size;
    /// Where `fine`, p0, w0 and w1 are multiples of 2^-12, and these are what is missing of them: a thin splat that lies
    /// across the axes has large terms that cancel, and sums of such multiples are exact.
    float p0_low, w0_low, w1_low;
    unsigned fine;
};


/// What a step came to. The host's `OutcomeRecord`.
struct Outcome {
    /// Euclidean norm of the sum of the gradients of all ranks' images.
    double norm;
    /// Sum of the images' losses, over all ranks.
    float loss;
    /// 1 where the optimiser has taken the step.
    unsigned applied;
};

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

/// Sum over the lanes of a warp, on every lane, in an order that is always the same.
__device__ __forceinline__ double warp_sum(double value) {
    for (int step = 16; step > 0; step >>= 1) {
        value += __shfl_xor_sync(ALL_LANES, value, step);
    }
    return value;
}

/// Sum over the threads of a block, on its first thread, in an order that is always the same; `sums` is the block's. All
/// threads call it, and meet at a barrier before `sums` is used again.
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

/// The number that 16 bits of IEEE half precision stand for.
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    const unsigned sign = (unsigned)(bits & 0x8000u) << 16;
    const unsigned rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) {
        return __uint_as_float(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
    }
    // 2^112 moves the exponent's bias from 15 to 127, and makes denormal numbers right too.
    const float value = __uint_as_float(rest << 13) * __uint_as_float(0x77800000u);
    return __uint_as_float(__float_as_uint(value) | sign);
}

/// The nearest half to a number, ties to even.
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
        // Below the smallest normal half: 0.5 has steps of 2^-24, as denormal halves have.
        const float shifted = __uint_as_float(rest) + 0.5f;
        return (unsigned short)(sign | (__float_as_uint(shifted) - 0x3f000000u));
    }
    const unsigned odd = (rest >> 13) & 1u;
    return (unsigned short)(sign | ((rest + 0xc8000fffu + odd) >> 13));
}
