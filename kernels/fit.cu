//! Images against slices of the reference: the sums of which the host makes normal equations (docs/method.md, section 15).
//!
//! A block takes FIT_FREQUENCIES consecutive frequencies of the list, a thread every THREADS-th of them; blockIdx.y is the image.
#include "slice.cuh"

/// Frequencies per block.
#define FIT_FREQUENCIES 1024
/// Complex numbers of a frequency: the slice S, its derivatives with respect to the rotation vector and to the offset.
#define FIT_VECTORS 6
/// First sums of the vectors with the image and with the derivative of H, and the last two (src/render/fit_sums.rs).
#define FIT_WITH_IMAGE (FIT_VECTORS * (FIT_VECTORS + 1) / 2)
#define FIT_WITH_SLOPE (FIT_WITH_IMAGE + FIT_VECTORS)
#define FIT_SLOPE_POWER (FIT_WITH_SLOPE + FIT_VECTORS)
#define FIT_SLOPE_IMAGE (FIT_SLOPE_POWER + 1)
#define FIT_SUMS (FIT_SLOPE_IMAGE + 1)

/// The real part of conj(a) b.
__device__ __forceinline__ float dot(float2 a, float2 b) {
    return a.x * b.x + a.y * b.y;
}

/// Adds a frequency (kx, ky) in cycles per box to `sums`.
__device__ __forceinline__ void add_frequency(const Observed &seen, const Slice &slice, int kx, int ky, bool premultiplied,
                                              float sums[FIT_SUMS]) {
    // From cycles per box to radians per pixel.
    const float step = (float)(TAU / BOX), x = step * (float)kx, y = step * (float)ky;
    const float2 s = slice.value;
    // The derivative with respect to the offset is -i k S.
    const float2 vectors[FIT_VECTORS] = {
        s,
        slice.turned[0],
        slice.turned[1],
        slice.turned[2],
        make_float2(x * s.y, -(x * s.x)),
        make_float2(y * s.y, -(y * s.x)),
    };
    const float hw = seen.h * seen.weight, slope = premultiplied ? 0.0f : seen.slope;
    const float of_image = premultiplied ? seen.weight : hw, square = hw * seen.h, mixed = hw * slope;
    int entry = 0;
#pragma unroll
    for (int p = 0; p < FIT_VECTORS; p++) {
#pragma unroll
        for (int q = 0; q <= p; q++) {
            sums[entry] += square * dot(vectors[p], vectors[q]);
            entry++;
        }
        sums[FIT_WITH_IMAGE + p] += of_image * dot(vectors[p], seen.y);
        sums[FIT_WITH_SLOPE + p] += mixed * dot(vectors[p], s);
    }
    const float weighted = slope * seen.weight;
    sums[FIT_SLOPE_POWER] += weighted * slope * dot(s, s);
    sums[FIT_SLOPE_IMAGE] += weighted * dot(s, seen.y);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    fit(const FitArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->next);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const ImageRecord &record = images_of(pass)[image];
    float rows[2][3];
#pragma unroll
    for (int k = 0; k < 6; k++) {
        rows[k / 3][k % 3] = (float)(REFERENCE_PADDING * record.view[k]);
    }
    float sums[FIT_SUMS] = {};
    for (int k = 0; k < FIT_FREQUENCIES / THREADS; k++) {
        const int at = blockIdx.x * FIT_FREQUENCIES + k * THREADS + threadIdx.x;
        if (at < args.frequencies) {
            const int kx = args.places[2 * at], ky = args.places[2 * at + 1];
            const float x = (float)kx, y = (float)ky;
            const float place[3] = {x * rows[0][0] + y * rows[1][0], x * rows[0][1] + y * rows[1][1],
                                    x * rows[0][2] + y * rows[1][2]};
            Slice slice;
            slice_at<true>(args.reference, args.limit, place, slice);
            const Observed seen = observed_at(record, args.resident, args.staged, args.noise, kx, ky, args.frequency_step);
            add_frequency(seen, slice, kx, ky, record.premultiplied != 0, sums);
        }
    }
    __shared__ double parts[FIT_SUMS][THREADS / 32];
#pragma unroll
    for (int k = 0; k < FIT_SUMS; k++) {
        const double sum = warp_sum((double)sums[k]);
        if (threadIdx.x % 32 == 0) {
            parts[k][threadIdx.x / 32] = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x < FIT_SUMS) {
        double total = 0.0;
        for (int warp = 0; warp < THREADS / 32; warp++) {
            total += parts[threadIdx.x][warp];
        }
        args.sums[((size_t)image * gridDim.x + blockIdx.x) * FIT_SUMS + threadIdx.x] = total;
    }
}
