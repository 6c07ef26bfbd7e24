//! The optimiser (Adam; Kingma and Ba, 2015), and what the next step needs of the new parameters. A thread a Gaussian.
#include "gaussian.cuh"

/// The activated planes of all Gaussians; the padding lies far outside, with no amplitude.
extern "C" __global__ void __launch_bounds__(THREADS)
    activate(const float *parameters, double *activated, int count, int padded) {
    const int g = blockIdx.x * THREADS + threadIdx.x;
    if (g < count) {
        float raw[PLANES];
        for (int k = 0; k < PLANES; k++) {
            raw[k] = parameters[(size_t)k * count + g];
        }
        activate_one(raw, activated, padded, g);
    } else if (g < padded) {
        for (int k = 0; k < ACTIVATED; k++) {
            activated[k * padded + g] = k < 3 ? 1e3 : (k == 3 || k == 6 || k == 8) ? 1e-4 : 0.0;
        }
    }
}

/// One step from the sum of the gradients, `gradient[plane][count]` and the loss behind it.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam(const Ring *ring, const float *gradient, float *parameters, float *first, float *second, double *activated,
         Outcome *outcomes, unsigned *broken, int count, int padded) {
    const Pass *const pass = pass_of(ring, ring->current);
    const int g = blockIdx.x * THREADS + threadIdx.x;
    if (g < count) {
        const float rate = pass->rate, beta1 = pass->beta1, beta2 = pass->beta2;
        const float fresh1 = pass->fresh1, fresh2 = pass->fresh2, epsilon = pass->epsilon, scale = pass->scale;
        float raw[PLANES];
        bool sound = true;
        for (int k = 0; k < PLANES; k++) {
            const size_t at = (size_t)k * count + g;
            const float slope = gradient[at] * scale;
            sound = sound && isfinite(slope);
            const float m = fmaf(beta1, first[at], fresh1 * slope);
            const float v = fmaf(beta2, second[at], fresh2 * slope * slope);
            raw[k] = parameters[at] - rate * m / (sqrtf(v) + epsilon);
            first[at] = m;
            second[at] = v;
            parameters[at] = raw[k];
        }
        activate_one(raw, activated, padded, g);
        if (!sound) {
            // Stays for good: the run ends with the step that the host finds it in.
            atomicOr(broken, 1u);
        }
    }
    if (g == 0) {
        Outcome *const outcome = &outcomes[pass->outcome];
        outcome->loss = gradient[(size_t)PLANES * count];
        // Of the steps before this one; this one's own shows in the next.
        outcome->broken = *(volatile unsigned *)broken;
    }
}

/// Adds to `sum` a number that depends on every bit of `values` and on its place, in any order.
extern "C" __global__ void __launch_bounds__(THREADS)
    checksum(const float *values, unsigned long long *sum, unsigned long long length) {
    unsigned long long total = 0;
    for (unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; at < length;
         at += (unsigned long long)gridDim.x * THREADS) {
        unsigned long long mixed = (at << 32 | __float_as_uint(values[at])) * 0x9e3779b97f4a7c15ull;
        mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9ull;
        total += mixed ^ mixed >> 32;
    }
    for (int step = 16; step > 0; step >>= 1) {
        total += __shfl_xor_sync(ALL_LANES, total, step);
    }
    if (threadIdx.x % 32 == 0) {
        atomicAdd(sum, total);
    }
}
