//! Spectra of projections to the spectra of their gradients, and the loss (docs/method.md, section 4).
//!
//! A block takes RESIDUAL_FREQUENCIES consecutive frequencies of the grid's half spectrum, a thread every THREADS-th of them;
//! blockIdx.y is the image.
#include "ctf.cuh"

/// Replaces the spectra of projections Q by those of dL/dQ = 2/D^2 F^-1(w (H^2 F Q - H F Y)), where H includes `transfer` and w
/// is `weights`. Frequencies beyond the image's become zero. `partial_losses` receives the block's part of the unweighted
/// <Q, F^-1 H^2 F Q> - 2 <Q, F^-1 H F Y>.
extern "C" __global__ void __launch_bounds__(THREADS)
    residual(const ResidualArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const ImageRecord &record = images_of(pass)[image];
    const long long place = record.place;
    float2 *const spectrum = args.spectra + (size_t)image * GRID_FREQUENCIES;
    const auto target = [&](int row, int kx) {
        const int at = row * BOX + kx;
        if (place < 0) {
            return args.staged[(size_t)(-1 - place) + at];
        }
        const size_t first = (size_t)place * PIXELS;
        return KEPT_HALF ? half_to_float(((const unsigned short *)args.resident)[first + at])
                         : ((const float *)args.resident)[first + at];
    };
    double sum = 0.0;
    for (int k = 0; k < RESIDUAL_FREQUENCIES / THREADS; k++) {
        const int at = blockIdx.x * RESIDUAL_FREQUENCIES + k * THREADS + threadIdx.x;
        if (at < GRID_FREQUENCIES) {
            const int kx = at % GRID_COLUMNS, grid_row = at / GRID_COLUMNS;
            const int ky = 2 * grid_row < GRID ? grid_row : grid_row - GRID;
            // On a finer grid the image's Nyquist frequency, two separate samples there, is excluded.
            if (GRID > BOX && (2 * kx >= BOX || 2 * max(ky, -ky) >= BOX)) {
                spectrum[at] = make_float2(0.0f, 0.0f);
                continue;
            }
            const int row = ky < 0 ? ky + BOX : ky, of_image = row * COLUMNS + kx;
            const float h = ctf_sample(record, kx, row, args.frequency_step) * args.transfer[of_image];
            const float here = target(row, kx), there = target(opposite(row), opposite(kx));
            const float re = 0.5f * (there + here), im = 0.5f * (there - here);
            const float2 value = spectrum[at];
            // Unitary normalisation, for a spectrum that grows with the grid's points.
            const float unitary = (float)((double)BOX / POINTS);
            const float qx = value.x * unitary, qy = value.y * unitary;
            const float x = h * h * qx, y = h * h * qy;
            // The half spectrum stands for both k and -k.
            const double count = opposite(kx) == kx ? 1.0 : 2.0;
            sum += count * ((double)qx * ((double)x - 2.0 * (double)re) + (double)qy * ((double)y - 2.0 * (double)im));
            const float scale = args.weights[of_image] * (float)(2.0 / ((double)POINTS * BOX));
            spectrum[at] = make_float2(scale * (x - re), scale * (y - im));
        }
    }
    __shared__ double sums[THREADS / 32];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        args.partial_losses[image * RESIDUAL_BLOCKS + blockIdx.x] = sum;
    }
}
