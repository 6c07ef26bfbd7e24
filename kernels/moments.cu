//! Pixels to the six moments of each splat: the backward pass (METHOD.md section 5).
//!
//! MOMENT_LANES lanes a splat, eight columns wide, walk over its support and gather; nothing is added from elsewhere, so
//! that sums repeat to the bit. The moments are those of the whitened distances p and q, in which a thin splat loses
//! nothing by cancellation.
#include "common.cuh"

#define MOMENT_ROWS (MOMENT_LANES / 8)

/// Sum over the lanes of a splat, on each of them.
__device__ __forceinline__ float lanes_sum(float value) {
    for (int step = MOMENT_LANES / 2; step > 0; step >>= 1) {
        value += __shfl_xor_sync(ALL_LANES, value, step);
    }
    return value;
}

/// A lane's part of the sums over a splat's support; `corner` is the support's first pixel in the gradient.
template <bool fine>
__device__ __forceinline__ void gather(const Splat &splat, const float *corner, int lane, float sums[6]) {
    const int columns = splat.size & 0xffff, rows = splat.size >> 16;
    for (int x = lane % 8; x < columns; x += 8) {
        const float start = fmaf(splat.w0, (float)x, splat.p0);
        const float start_low = fine ? fmaf(splat.w0_low, (float)x, splat.p0_low) : 0.0f;
        for (int y = lane / 8; y < rows; y += MOMENT_ROWS) {
            float p = fmaf(splat.w1, (float)y, start);
            if (fine) {
                p += fmaf(splat.w1_low, (float)y, start_low);
            }
            const float q = fmaf(splat.w2, (float)y, splat.q0);
            const float w = corner[y * BOX + x] * exp2_fast(fmaf(-p, p, -q * q));
            const float wp = w * p, wq = w * q;
            sums[0] += w;
            sums[1] += wp;
            sums[2] += wq;
            sums[3] = fmaf(wp, p, sums[3]);
            sums[4] = fmaf(wp, q, sums[4]);
            sums[5] = fmaf(wq, q, sums[5]);
        }
    }
}

/// `moments[image][moment][padded]`: sums over the support of g 2^-(p^2 + q^2) times 1, p, q, p^2, p q, q^2 (p and q in
/// units of BINARY standard deviations, without the normalisation of the splat).
extern "C" __global__ void __launch_bounds__(THREADS)
    moments(const Ring *ring, const Splat *splats, const float *gradient, float *moments, int padded) {
    const Pass *const pass = pass_of(ring, ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const int g = (blockIdx.x * THREADS + threadIdx.x) / MOMENT_LANES;
    const int lane = threadIdx.x % MOMENT_LANES;
    const Splat splat = splats[(size_t)image * padded + g];
    const float *const corner =
        gradient + (size_t)image * PIXELS + (splat.corner >> 16) * BOX + (splat.corner & 0xffff);
    float sums[6] = {};
    if (splat.fine) {
        gather<true>(splat, corner, lane, sums);
    } else {
        gather<false>(splat, corner, lane, sums);
    }
    for (int k = 0; k < 6; k++) {
        sums[k] = lanes_sum(sums[k]);
    }
    if (lane == 0) {
        for (int k = 0; k < 6; k++) {
            moments[((size_t)image * 6 + k) * padded + g] = sums[k];
        }
    }
}
