//! The optimiser (Adam; Kingma and Ba, 2015), and what the next step needs of the new parameters: a thread a Gaussian. Before
//! it, what the step came to, which decides whether it counts.
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

/// The step's outcome, of `length` values of the gradient and the loss behind them, summed over the ranks; sets `broken` if
/// one of them is not finite. Squares of f32 add up in f64, where they cannot overflow. `partial[block]` and `ticket` are the
/// kernel's own.
extern "C" __global__ void __launch_bounds__(THREADS)
    outcome(const Ring *ring, const float *gradient, double *partial, unsigned *ticket, Outcome *outcomes,
            unsigned *broken, unsigned long long length) {
    __shared__ double sums[THREADS / 32];
    __shared__ unsigned last;
    double sum = 0.0;
    for (unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; at < length;
         at += (unsigned long long)gridDim.x * THREADS) {
        const double value = gradient[at];
        sum += value * value;
    }
    sum = block_sum(sum, sums);
    // Whichever block comes last adds up; what it adds, and in which order, is always the same.
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) {
        return;
    }
    __threadfence();
    sum = 0.0;
    for (unsigned block = threadIdx.x; block < gridDim.x; block += THREADS) {
        // Not from this multiprocessor's own cache: other blocks have written it.
        sum += *(volatile double *)&partial[block];
    }
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        *ticket = 0;
        const float loss = gradient[length];
        const bool applied = *broken == 0 && isfinite(sum) && isfinite(loss);
        if (!applied) {
            // Never cleared: the steps that are already enqueued must not be applied either.
            *broken = 1;
        }
        Outcome *const told = &outcomes[pass_of(ring, ring->current)->outcome];
        told->norm = sqrt(sum);
        told->loss = loss;
        told->applied = applied;
    }
}

/// The kind of a plane of parameters, as the pass's factors are sorted.
__device__ __forceinline__ constexpr int kind_of(int plane) {
    return plane < 3 ? 0 : plane == PLANES - 1 ? 3 : PLANES == 5 || plane < 6 ? 1 : 2;
}

/// One step from the sum of the gradients, `gradient[plane][count]`; none where `broken`.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam(const Ring *ring, const float *gradient, float *parameters, float *first, float *second, double *activated,
         const unsigned *broken, int count, int padded) {
    if (*broken != 0) {
        return;
    }
    const Pass *const pass = pass_of(ring, ring->current);
    const int g = blockIdx.x * THREADS + threadIdx.x;
    if (g < count) {
        const float rate = pass->rate, beta1 = pass->beta1, beta2 = pass->beta2;
        const float fresh1 = pass->fresh1, fresh2 = pass->fresh2, epsilon = pass->epsilon, scale = pass->scale;
        float raw[PLANES];
        for (int k = 0; k < PLANES; k++) {
            const size_t at = (size_t)k * count + g;
            const float slope = gradient[at] * scale;
            const float m = fmaf(beta1, first[at], fresh1 * slope);
            const float v = fmaf(beta2, second[at], fresh2 * slope * slope);
            raw[k] = parameters[at] - rate * pass->factors[kind_of(k)] * m / (sqrtf(v) + epsilon);
            first[at] = m;
            second[at] = v;
            parameters[at] = raw[k];
        }
        activate_one(raw, activated, padded, g);
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
