//! From F^-1(H^2 F Q) to dL/dQ and the loss (METHOD.md section 4). A block takes a run of an image's pixels.
#include "common.cuh"

/// `filtered` becomes the gradient 2/D^2 (F^-1 H^2 F Q - F^-1 H F Y); `partial[image][block]` receives the block's part of
/// <Q, F^-1 H^2 F Q> - 2 <Q, F^-1 H F Y>.
extern "C" __global__ void __launch_bounds__(THREADS)
    residual(const Ring *ring, const float *projection, float *filtered, const void *kept, const float *staged,
             double *partial) {
    const Pass *const pass = pass_of(ring, ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const long long place = pass->image[image].place;
    const float scale = (float)(2.0 / PIXELS);
    const size_t offset = (size_t)image * PIXELS;
    double sum = 0.0;
#pragma unroll
    for (int k = 0; k < RESIDUAL_PIXELS / THREADS; k++) {
        const int pixel = blockIdx.x * RESIDUAL_PIXELS + k * THREADS + threadIdx.x;
        if (pixel < PIXELS) {
            float target;
            if (place < 0) {
                target = staged[(size_t)(-1 - place) + pixel];
            } else if (KEPT_HALF) {
                target = half_to_float(((const unsigned short *)kept)[(size_t)place * PIXELS + pixel]);
            } else {
                target = ((const float *)kept)[(size_t)place * PIXELS + pixel];
            }
            const float value = filtered[offset + pixel];
            sum += (double)projection[offset + pixel] * ((double)value - 2.0 * (double)target);
            filtered[offset + pixel] = scale * (value - target);
        }
    }
    __shared__ double sums[THREADS / 32];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        partial[image * RESIDUAL_BLOCKS + blockIdx.x] = sum;
    }
}
