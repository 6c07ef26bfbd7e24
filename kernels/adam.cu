//! The end of a step: its outcome, which decides whether it is applied; the optimiser (Adam; Kingma and Ba, 2015) with the
//! activation of the new parameters; and a checksum of the parameters.
//!
//! `activate` and `adam` map a thread to a Gaussian. `outcome` and `checksum` run grid-stride loops over values.
#include "gaussian.cuh"

/// Activates all Gaussians. Those of the padding lie far outside the box and have amplitude 0.
extern "C" __global__ void __launch_bounds__(THREADS)
    activate(const ActivateArguments args) {
    const int count = args.count, padded = args.padded;
    const int g = blockIdx.x * THREADS + threadIdx.x;
    if (g < count) {
        float raw[PLANES];
        for (int k = 0; k < PLANES; k++) {
            raw[k] = args.parameters[(size_t)k * count + g];
        }
        activate_one(raw, args.activated, padded, g);
    } else if (g < padded) {
        for (int k = 0; k < ACTIVATED; k++) {
            args.activated[k * padded + g] = k < 3 ? 1e3 : (k == 3 || k == 6 || k == 8) ? 1e-4 : 0.0;
        }
    }
}

/// Outcome of a step from its gradient and loss, summed over the ranks; sets `stopped` if a value of them is not finite. Squares
/// of f32 are summed in f64 and cannot overflow.
extern "C" __global__ void __launch_bounds__(THREADS)
    outcome(const OutcomeArguments args) {
    __shared__ double sums[THREADS / 32];
    __shared__ unsigned last;
    double sum = 0.0;
    for (unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; at < args.length;
         at += (unsigned long long)gridDim.x * THREADS) {
        const double value = args.gradient[at];
        sum += value * value;
    }
    sum = block_sum(sum, sums);
    // The block that ends last sums the parts, always in the same order.
    if (threadIdx.x == 0) {
        args.partial_norms[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(args.ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) {
        return;
    }
    __threadfence();
    sum = 0.0;
    for (unsigned block = threadIdx.x; block < gridDim.x; block += THREADS) {
        // Volatile, to bypass this multiprocessor's L1 cache: other blocks have written it.
        sum += *(volatile double *)&args.partial_norms[block];
    }
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        *args.ticket = 0;
        const float loss = args.gradient[args.length];
        const bool applied = *args.stopped == 0 && isfinite(sum) && isfinite(loss);
        if (!applied) {
            // Never cleared: the steps that are enqueued already must not be applied either.
            *args.stopped = 1;
        }
        OutcomeRecord *const record = &args.outcomes[pass_of(args.ring, args.ring->current)->outcome];
        record->norm = sqrt(sum);
        record->loss = loss;
        record->applied = applied;
    }
}

/// Index in `PassRecord::factors` of a plane of parameters.
__device__ __forceinline__ constexpr int kind_of(int plane) {
    return plane < 3 ? 0 : plane == PLANES - 1 ? 3 : PLANES == 5 || plane < 6 ? 1 : 2;
}

/// One Adam step on the mean gradient, unless `stopped`.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam(const AdamArguments args) {
    if (*args.stopped != 0) {
        return;
    }
    const int count = args.count;
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    const int g = blockIdx.x * THREADS + threadIdx.x;
    if (g < count) {
        const float rate = pass->rate, beta1 = pass->beta1, beta2 = pass->beta2;
        const float fresh1 = pass->fresh1, fresh2 = pass->fresh2, epsilon = pass->epsilon, scale = pass->scale;
        float raw[PLANES];
        for (int k = 0; k < PLANES; k++) {
            const size_t at = (size_t)k * count + g;
            const float slope = args.gradient[at] * scale;
            const float m = fmaf(beta1, args.first[at], fresh1 * slope);
            const float v = fmaf(beta2, args.second[at], fresh2 * slope * slope);
            raw[k] = args.parameters[at] - rate * pass->factors[kind_of(k)] * m / (sqrtf(v) + epsilon);
            args.first[at] = m;
            args.second[at] = v;
            args.parameters[at] = raw[k];
        }
        activate_one(raw, args.activated, args.padded, g);
    }
}

/// Adds to `sum` an integer that depends on every bit of `values` and its position; exact in any order.
extern "C" __global__ void __launch_bounds__(THREADS)
    checksum(const ChecksumArguments args) {
    unsigned long long total = 0;
    for (unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; at < args.length;
         at += (unsigned long long)gridDim.x * THREADS) {
        unsigned long long mixed = (at << 32 | __float_as_uint(args.values[at])) * 0x9e3779b97f4a7c15ull;
        mixed = (mixed ^ mixed >> 29) * 0xbf58476d1ce4e5b9ull;
        total += mixed ^ mixed >> 32;
    }
    for (int step = 16; step > 0; step >>= 1) {
        total += __shfl_xor_sync(ALL_LANES, total, step);
    }
    if (threadIdx.x % 32 == 0) {
        atomicAdd(args.sum, total);
    }
}
