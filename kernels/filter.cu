//! The CTF, in Fourier space (METHOD.md section 4). A thread a frequency of an image's half spectrum, `[ky][kx]`.
#include "common.cuh"

/// `H` at index (ix, iy) of frequency, in f64 up to the sine's argument.
__device__ __forceinline__ double ctf_at(const Image &image, int ix, int iy, double step) {
    const double kx = ix * step, ky = iy * step;
    const double x2 = kx * kx, y2 = ky * ky, k2 = x2 + y2;
    const double gamma = image.xx * x2 + image.xy * kx * ky + image.yy * y2 - image.quartic * k2 * k2 + image.phase;
    const double turns = gamma / TAU;
    const float sine = sinpif((float)(2.0 * (turns - rint(turns))));
    const double envelope = image.b_factor == 0.0 ? image.scale : image.scale * exp(-0.25 * image.b_factor * k2);
    return envelope * sine;
}

/// `H` of sample (kx, row) of the half spectrum. On the Nyquist lines of an even box, where +k and -k share one sample, it
/// is the mean of both, which keeps the filtered image real.
__device__ __forceinline__ float ctf_sample(const Image &image, int kx, int row, double step) {
    const int ky = 2 * row <= BOX ? row : row - BOX;
    double h = ctf_at(image, kx, ky, step);
    // (N, ky) is also (-N, ky), whose CTF is that of (N, -ky); likewise (kx, N); the corner (N, N) is its own partner.
    if (BOX % 2 == 0 && ((2 * kx == BOX) != (2 * row == BOX))) {
        h = 0.5 * (h + ctf_at(image, kx, -ky, step));
    }
    return (float)h;
}

/// What the spectrum of a sampled projection is multiplied by beside the CTF: with band-limited sampling, the inverse of the
/// blur's up to the Nyquist frequency, and nothing beyond.
__device__ __forceinline__ float transfer(int kx, int row) {
    if (BLUR == 0.0) {
        return 1.0f;
    }
    const int ky = 2 * row <= BOX ? row : row - BOX;
    const int k2 = kx * kx + ky * ky;
    const float exponent = (float)(0.5 * TAU * TAU * BLUR * BLUR / PIXELS);
    return 4 * k2 > PIXELS ? 0.0f : expf(exponent * (float)k2);
}

/// Multiplies the spectra (of images without normalisation) by H^power / D^2, H with what the sampling wants. `step`: 1 /
/// (box x pixel size), in 1/A.
template <int power>
__device__ __forceinline__ void filter(const Pass *pass, float2 *spectra, double step) {
    const unsigned image = blockIdx.y;
    const int at = blockIdx.x * THREADS + threadIdx.x;
    if (image >= pass->images || at >= FREQUENCIES) {
        return;
    }
    const int kx = at % COLUMNS, row = at / COLUMNS;
    const float h = ctf_sample(pass->image[image], kx, row, step) * transfer(kx, row);
    const float factor = (power == 2 ? h * h : h) * (float)(1.0 / PIXELS);
    float2 *const value = spectra + (size_t)image * FREQUENCIES + at;
    *value = make_float2(value->x * factor, value->y * factor);
}

extern "C" __global__ void __launch_bounds__(THREADS) filter_once(const Ring *ring, float2 *spectra, double step) {
    // Before `project` has taken the pass over.
    filter<1>(pass_of(ring, ring->next), spectra, step);
}

extern "C" __global__ void __launch_bounds__(THREADS) filter_twice(const Ring *ring, float2 *spectra, double step) {
    filter<2>(pass_of(ring, ring->current), spectra, step);
}

/// Stores prepared images as halves. A thread a pixel.
extern "C" __global__ void __launch_bounds__(THREADS)
    store_half(const float *images, unsigned short *kept, unsigned long long pixels) {
    const unsigned long long at = (unsigned long long)blockIdx.x * THREADS + threadIdx.x;
    if (at < pixels) {
        kept[at] = float_to_half(images[at]);
    }
}
