//! Spectra of projections to the spectra of their gradients, and the loss (docs/method.md, section 4).
//!
//! A block takes RESIDUAL_FREQUENCIES consecutive frequencies of the grid's half spectrum, a thread every THREADS-th of them;
//! blockIdx.y is the image.
#include "target.cuh"

/// A frequency of the image at contrast 1: Q of its projection (with unitary normalisation), Z of its target (with H and the factor
/// of the sampling T, or T alone if the image is already multiplied by H), H times T, and where the frequency is.
struct Sample {
    float2 q, z;
    float h;
    /// 2, where the half spectrum stands for both k and -k; else 1.
    double count;
    int of_image, shell;
};

/// Sample `at` of the grid's half spectrum; false if the image does not have that frequency.
__device__ __forceinline__ bool sample_of(const ResidualArguments &args, const ImageRecord &image, float2 value, int at,
                                          Sample &sample) {
    const int kx = at % GRID_COLUMNS, grid_row = at / GRID_COLUMNS;
    const int ky = 2 * grid_row < GRID ? grid_row : grid_row - GRID;
    // On a finer grid the image's Nyquist frequency, two separate samples there, is excluded.
    if (GRID > BOX && (2 * kx >= BOX || 2 * max(ky, -ky) >= BOX)) {
        return false;
    }
    const int row = ky < 0 ? ky + BOX : ky;
    sample.of_image = row * COLUMNS + kx;
    const float transfer = args.transfer[sample.of_image];
    sample.h = ctf_sample(image, kx, row, args.frequency_step) * transfer;
    const float factor = image.premultiplied ? transfer : sample.h;
    const float2 target = target_sample(args.resident, args.staged, image.place, kx, row);
    sample.z = make_float2(factor * target.x, factor * target.y);
    // Unitary normalisation, for a spectrum that grows with the grid's points.
    const float unitary = (float)((double)BOX / POINTS);
    sample.q = make_float2(value.x * unitary, value.y * unitary);
    sample.count = opposite(kx) == kx ? 1.0 : 2.0;
    sample.shell = (int)rintf(sqrtf((float)(kx * kx + ky * ky)));
    return true;
}

/// Replaces the spectra of projections Q by those of dL/dQ = 2/D^2 F^-1(w (H^2 F Q - H F Y)), where H includes `transfer` and the
/// contrast, and w is the product of `weights`, the noise weights and the particle's weight. Frequencies beyond the image's become
/// zero. `partial_losses` receives the block's part of the unweighted <Q, F^-1 H^2 F Q> - 2 <Q, F^-1 H F Y>.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    residual(const ResidualArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const ImageRecord &record = images_of(pass)[image];
    float2 *const spectrum = args.spectra + (size_t)image * GRID_FREQUENCIES;
    const float *const noise = args.noise + (size_t)record.noise_group * SHELLS;
    double sum = 0.0;
    for (int k = 0; k < RESIDUAL_FREQUENCIES / THREADS; k++) {
        const int at = blockIdx.x * RESIDUAL_FREQUENCIES + k * THREADS + threadIdx.x;
        if (at < GRID_FREQUENCIES) {
            Sample sample;
            if (!sample_of(args, record, spectrum[at], at, sample)) {
                spectrum[at] = make_float2(0.0f, 0.0f);
                continue;
            }
            const float h = sample.h * record.contrast;
            const float re = sample.z.x * record.contrast, im = sample.z.y * record.contrast;
            const float qx = sample.q.x, qy = sample.q.y, x = h * h * qx, y = h * h * qy;
            sum += sample.count *
                   ((double)qx * ((double)x - 2.0 * (double)re) + (double)qy * ((double)y - 2.0 * (double)im));
            const float scale = args.weights[sample.of_image] * (noise[sample.shell] * record.weight) *
                                (float)(2.0 / ((double)POINTS * BOX));
            spectrum[at] = make_float2(scale * (x - re), scale * (y - im));
        }
    }
    __shared__ double sums[THREADS / 32];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) {
        args.partial_losses[image * RESIDUAL_BLOCKS + blockIdx.x] = sum;
    }
}

/// The block's parts of <X, X>_w and <X, Y>_w, where X = H F Q and w are the noise weights. Spectra stay as they are.
extern "C" __global__ void __launch_bounds__(THREADS, 5)
    compare(const ResidualArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const ImageRecord &record = images_of(pass)[image];
    const float2 *const spectrum = args.spectra + (size_t)image * GRID_FREQUENCIES;
    const float *const noise = args.noise + (size_t)record.noise_group * SHELLS;
    double power = 0.0, overlap = 0.0;
    for (int k = 0; k < RESIDUAL_FREQUENCIES / THREADS; k++) {
        const int at = blockIdx.x * RESIDUAL_FREQUENCIES + k * THREADS + threadIdx.x;
        Sample sample;
        if (at < GRID_FREQUENCIES && sample_of(args, record, spectrum[at], at, sample)) {
            const double weight = sample.count * noise[sample.shell], h = sample.h;
            const double qx = sample.q.x, qy = sample.q.y;
            power += weight * h * h * (qx * qx + qy * qy);
            overlap += weight * (qx * sample.z.x + qy * sample.z.y);
        }
    }
    __shared__ double sums[THREADS / 32];
    double *const out = args.comparisons + ((size_t)image * RESIDUAL_BLOCKS + blockIdx.x) * 2;
    power = block_sum(power, sums);
    __syncthreads();
    overlap = block_sum(overlap, sums);
    if (threadIdx.x == 0) {
        out[0] = power;
        out[1] = overlap;
    }
}
