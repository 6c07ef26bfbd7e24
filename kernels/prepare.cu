//! Observed images to targets. The target of an image is its Hartley transform (real minus imaginary part of the Fourier
//! transform), divided by the box size: one real number per pixel, `[ky][kx]`, with the image's sum of squares.
//!
//! `prepare` maps a thread to a frequency of the half spectrum, and blockIdx.y to an image. `store_half` maps a thread to a
//! value.
#include "ctf.cuh"

/// Spectra of images to targets.
extern "C" __global__ void __launch_bounds__(THREADS)
    prepare(const PrepareArguments args) {
    // `project` has not yet made this pass the current one.
    const PassRecord *const pass = pass_of(args.ring, args.ring->next);
    const unsigned image = blockIdx.y;
    const int at = blockIdx.x * THREADS + threadIdx.x;
    if (image >= pass->images || at >= FREQUENCIES) {
        return;
    }
    const int kx = at % COLUMNS, row = at / COLUMNS;
    const int here = row * BOX + kx, there = opposite(row) * BOX + opposite(kx);
    const float2 value = args.spectra[(size_t)image * FREQUENCIES + at];
    const float re = value.x * (1.0f / BOX), im = value.y * (1.0f / BOX);
    float *const target = args.targets + (size_t)image * PIXELS;
    target[here] = re - im;
    // The image is real: its spectrum at -k is the conjugate of that at k.
    if (opposite(kx) != kx) {
        target[there] = re + im;
    }
}

/// Stores targets in half precision.
extern "C" __global__ void __launch_bounds__(THREADS)
    store_half(const StoreHalfArguments args) {
    const unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x;
    if (at < args.length) {
        args.resident[at] = float_to_half(args.targets[at]);
    }
}
