//! From the spectra of projections to that of the gradient of their pixels, and the loss (METHOD.md section 4).
#include "ctf.cuh"

/// `spectra`, of projections Q on their grid (without normalisation), become those of dL/dQ = 2/D^2 F^-1(w (H^2 F Q - H F Y)), with
/// H times `transfer`, what the sampling wants, and w of `weights`; both of the image, `[ky][kx]`. Frequencies that the image does
/// not have become zero. `partial[image][block]` receives the block's part of <Q, F^-1 H^2 F Q> - 2 <Q, F^-1 H F Y>, in which all
/// frequencies count alike. A block takes a run of the grid's frequencies.
extern "C" __global__ void __launch_bounds__(THREADS)
    residual(const Ring *ring, float2 *spectra, const float *transfer, const float *weights, const void *kept,
             const float *staged, double *partial, double step) {
    const Pass *const pass = pass_of(ring, ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const long long place = pass->image[image].place;
    float2 *const spectrum = spectra + (size_t)image * GRID_FREQUENCIES;
    const auto target = [&](int row, int kx) {
        const int at = row * BOX + kx;
        if (place < 0) {
            return staged[(size_t)(-1 - place) + at];
        }
        const size_t first = (size_t)place * PIXELS;
        return KEPT_HALF ? half_to_float(((const unsigned short *)kept)[first + at]) : ((const float *)kept)[first + at];
    };
    double sum = 0.0;
    for (int k = 0; k < RESIDUAL_FREQUENCIES / THREADS; k++) {
        const int at = blockIdx.x * RESIDUAL_FREQUENCIES + k * THREADS + threadIdx.x;
        if (at < GRID_FREQUENCIES) {
            const int kx = at % GRID_COLUMNS, grid_row = at / GRID_COLUMNS;
            const int ky = 2 * grid_row < GRID ? grid_row : grid_row - GRID;
            // On a finer grid the image's Nyquist frequency does not count: it is two there.
            if (GRID > BOX && (2 * kx >= BOX || 2 * max(ky, -ky) >= BOX)) {
                spectrum[at] = make_float2(0.0f, 0.0f);
                continue;
            }
            const int row = ky < 0 ? ky + BOX : ky, of_image = row * COLUMNS + kx;
            const float h = ctf_sample(pass->image[image], kx, row, step) * transfer[of_image];
            const float here = target(row, kx), there = target(opposite(row), opposite(kx));
            const float re = 0.5f * (there + here), im = 0.5f * (there - here);
            const float2 value = spectrum[at];
            // What the grid has more points makes its spectrum larger.
            const float unitary = (float)((double)BOX / POINTS);
            const float qx = value.x * unitary, qy = value.y * unitary;
            const float x = h * h * qx, y = h * h * qy;
            // Half of the plane stands for all of it.
            const double count = opposite(kx) == kx ? 1.0 : 2.0;
            sum += count * ((double)qx * ((double)x - 2.0 * (double)re) + (double)qy * ((double)y - 2.0 * (double)im));
            const float scale = weights[of_image] * (float)(2.0 / ((double)POINTS * BOX));
            spectrum[at] = make_float2(scale * (x - re), scale * (y - im));
        }
    }
    __shared__ double sums[THREADS / 32];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        partial[image * RESIDUAL_BLOCKS + blockIdx.x] = sum;
    }
}
