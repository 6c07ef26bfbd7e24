//! Observed images to targets. The target of an image Y is the Hartley transform (real part less imaginary part of the Fourier
//! transform) of F^-1(H F Y), `[ky][kx]`, over the box size: as many numbers as pixels, and their sum of squares that of an image.
#include "ctf.cuh"

/// Spectra of images (without normalisation) to targets `[image][ky][kx]`. `transfer`: what the sampling wants beside H. `step`: 1
/// / (box x pixel size), in 1/A. A thread a frequency of the half spectrum.
extern "C" __global__ void __launch_bounds__(THREADS)
    prepare(const Ring *ring, const float2 *spectra, const float *transfer, float *targets, double step) {
    // Before `project` has taken the pass over.
    const Pass *const pass = pass_of(ring, ring->next);
    const unsigned image = blockIdx.y;
    const int at = blockIdx.x * THREADS + threadIdx.x;
    if (image >= pass->images || at >= FREQUENCIES) {
        return;
    }
    const int kx = at % COLUMNS, row = at / COLUMNS;
    const int here = row * BOX + kx, there = opposite(row) * BOX + opposite(kx);
    const float h = ctf_sample(pass->image[image], kx, row, step) * transfer[at] * (1.0f / BOX);
    const float2 value = spectra[(size_t)image * FREQUENCIES + at];
    const float re = h * value.x, im = h * value.y;
    float *const target = targets + (size_t)image * PIXELS;
    target[here] = re - im;
    // Of a real image the value at -k is the conjugate of that at k.
    if (opposite(kx) != kx) {
        target[there] = re + im;
    }
}

/// Stores targets as halves. A thread a number.
extern "C" __global__ void __launch_bounds__(THREADS)
    store_half(const float *targets, unsigned short *kept, unsigned long long count) {
    const unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x;
    if (at < count) {
        kept[at] = float_to_half(targets[at]);
    }
}
