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

/// `moments[image][moment][padded]`: sums over the support of g 2^-(p^2 + q^2) times 1, p, q, p^2, p q, q^2 (p and q in
/// units of BINARY standard deviations, without the normalisation of the splat).
extern "C" __global__ void __launch_bounds__(THREADS)
    moments(const Pass *pass, const Splat *splats, const float *gradient, float *moments, int padded) {
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const int g = (blockIdx.x * THREADS + threadIdx.x) / MOMENT_LANES;
    const int lane = threadIdx.x % MOMENT_LANES;
    const Splat splat = splats[(size_t)image * padded + g];
    const int columns = splat.size & 0xffff, rows = splat.size >> 16;
    const float *const corner =
        gradient + (size_t)image * PIXELS + (splat.corner >> 16) * BOX + (splat.corner & 0xffff);
    float s = 0.0f, sp = 0.0f, sq = 0.0f, spp = 0.0f, spq = 0.0f, sqq = 0.0f;
    for (int x = lane % 8; x < columns; x += 8) {
        const float start = fmaf(splat.w0, (float)x, splat.p0);
        for (int y = lane / 8; y < rows; y += MOMENT_ROWS) {
            const float p = fmaf(splat.w1, (float)y, start), q = fmaf(splat.w2, (float)y, splat.q0);
            const float w = corner[y * BOX + x] * exp2_fast(fmaf(-p, p, -q * q));
            const float wp = w * p, wq = w * q;
            s += w;
            sp += wp;
            sq += wq;
            spp = fmaf(wp, p, spp);
            spq = fmaf(wp, q, spq);
            sqq = fmaf(wq, q, sqq);
        }
    }
    const float sums[6] = {lanes_sum(s), lanes_sum(sp), lanes_sum(sq), lanes_sum(spp), lanes_sum(spq), lanes_sum(sqq)};
    if (lane == 0) {
        for (int k = 0; k < 6; k++) {
            moments[((size_t)image * 6 + k) * padded + g] = sums[k];
        }
    }
}
