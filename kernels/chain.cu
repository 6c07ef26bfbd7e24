//! Moments to gradients (METHOD.md section 5). CHAIN_PARTS threads a Gaussian, each of which adds up every so many images of
//! a pass; then one of them adds up the parts, in order. With one thread a Gaussian, a pass over many images would be a
//! long walk of few threads, which wait for memory at every image.
//!
//! What the images say adds up in the volume's own coordinates, in f64: the derivatives of the loss with respect to the
//! mean (3), the covariance (6: xx xy xz yy yz zz) and the amplitude (1). Only the sum of the step goes through rotation,
//! scales and softplus.
#include "gaussian.cuh"

#define CHAIN_GAUSSIANS (THREADS / CHAIN_PARTS)

/// The gradient of the raw parameters, `gradient[plane][count]`, from Gaussian `g`'s sums over a step, which lie
/// in the block's place `place`.
__device__ void finish(const float *parameters, const double *activated,
                       const double sums[ACTIVATED][CHAIN_GAUSSIANS], int place, float *gradient, int count, int padded,
                       int g) {
    for (int axis = 0; axis < 3; axis++) {
        gradient[(size_t)axis * count + g] = (float)sums[axis][place];
    }
    double value, slope;
    softplus(parameters[(size_t)(PLANES - 1) * count + g], value, slope);
    gradient[(size_t)(PLANES - 1) * count + g] = (float)(sums[9][place] * slope);
    const double xx = sums[3][place], yy = sums[6][place], zz = sums[8][place];
#if PLANES == 11
    const double xy = sums[4][place], xz = sums[5][place], yz = sums[7][place];
    // With M = R S and G = dL/dSigma, symmetric: dL/ds_j = sum_i (2 G M)_ij R_ij.
    double q[4], r[3][3];
    for (int k = 0; k < 4; k++) {
        q[k] = parameters[(size_t)(6 + k) * count + g];
    }
    const double inverse = rotation(q, r);
    for (int j = 0; j < 3; j++) {
        const double x = r[0][j], y = r[1][j], z = r[2][j];
        const double along = x * (xx * x + 2.0 * (xy * y + xz * z)) + y * (yy * y + 2.0 * yz * z) + zz * z * z;
        const double s = scale_of(parameters[(size_t)(3 + j) * count + g], slope);
        gradient[(size_t)(3 + j) * count + g] = (float)(2.0 * s * along * slope);
    }
    // A small turn by the vector t adds [t]x R to R, and with it dL = tr([t]x^T dL/dR R^T), where dL/dR R^T = 2 G Sigma: so
    // the torque is what is antisymmetric of that. The quaternion follows the turn by (0, t) q / 2, which has no part along
    // q: nothing is left to be taken off for the normalisation.
    double c[6];
    for (int k = 0; k < 6; k++) {
        c[k] = activated[(3 + k) * padded + g];
    }
    const double tx = xz * c[1] + yz * c[3] + zz * c[4] - (xy * c[2] + yy * c[4] + yz * c[5]);
    const double ty = xx * c[2] + xy * c[4] + xz * c[5] - (xz * c[0] + yz * c[1] + zz * c[2]);
    const double tz = xy * c[0] + yy * c[1] + yz * c[2] - (xx * c[1] + xy * c[3] + xz * c[4]);
    const double w = q[0], x = q[1], y = q[2], z = q[3];
    const double dq[4] = {-tx * x - ty * y - tz * z, w * tx + ty * z - tz * y, w * ty + tz * x - tx * z,
                          w * tz + tx * y - ty * x};
    for (int k = 0; k < 4; k++) {
        gradient[(size_t)(6 + k) * count + g] = (float)(4.0 * inverse * dq[k]);
    }
#else
    const double s = scale_of(parameters[(size_t)3 * count + g], slope);
    gradient[(size_t)3 * count + g] = (float)(2.0 * s * (xx + yy + zz) * slope);
#endif
}

/// Adds the pass to `sums[sum][padded]` and `loss`; the last pass of a step leaves the step's gradient in
/// `gradient[plane][count]` and, behind it, the sum of its images' losses.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    chain(const Ring *ring, const double *activated, const double *whitening, const float *moments,
          const float *parameters, double *sums, const double *partial, double *loss, float *gradient, int count,
          int padded) {
    const Pass *const pass = pass_of(ring, ring->current);
    const int images = pass->images;
    const bool first = pass->first, last = pass->last;
    const int part = threadIdx.x / CHAIN_GAUSSIANS, place = threadIdx.x % CHAIN_GAUSSIANS;
    const int g = blockIdx.x * CHAIN_GAUSSIANS + place;
    double total[ACTIVATED] = {};
    if (g < count) {
        const double d = GRID, amplitude = activated[9 * padded + g];
        for (int image = part; image < images; image += CHAIN_PARTS) {
            const double *const p = pass->image[image].view, *const q = p + 3;
            const double *const w = whitening + (size_t)image * 3 * padded;
            const float *const m = moments + (size_t)image * 6 * padded;
            const double w0 = w[g], w1 = w[padded + g], w2 = w[2 * padded + g];
            // The normalisation 1 / (2 pi |Sigma2|^(1/2)), in box units; |Sigma2|^(-1/2) = w0 w2.
            const double norm = d * d / TAU * w0 * w2;
            // Products: a division in f64 is many instructions.
            const double once = norm * (1.0 / BINARY), twice = norm * (1.0 / (BINARY * BINARY));
            const double s0 = norm * m[g], sp = once * m[padded + g], sq = once * m[2 * padded + g];
            const double spp = twice * m[3 * padded + g], spq = twice * m[4 * padded + g],
                         sqq = twice * m[5 * padded + g];
            // With B = [w0, w1; 0, w2] the conic is C = B^T B, and the moments are those of B d.
            // dL/dmu2 = A C S1 = A B^T (B S1); in box units, times D.
            const double gx = amplitude * d * (w0 * sp);
            const double gy = amplitude * d * (w1 * sp + w2 * sq);
            // dL/dSigma2 = A/2 (C S2 C - S0 C) = A/2 B^T (B S2 B^T - S0) B; in box units, times D^2. The S0 is the
            // normalisation's.
            const double half = 0.5 * amplitude * d * d;
            const double npp = spp - s0, nqq = sqq - s0;
            const double up = w1 * npp + w2 * spq, uq = w1 * spq + w2 * nqq;
            const double gxx = half * (w0 * w0 * npp), gxy = half * (w0 * up), gyy = half * (w1 * up + w2 * uq);
            for (int axis = 0; axis < 3; axis++) {
                total[axis] += p[axis] * gx + q[axis] * gy;
            }
            // dL/dSigma = P^T dL/dSigma2 P, with P the first two rows of W.
            double to_x[3], to_y[3];
#pragma unroll
            for (int i = 0; i < 3; i++) {
                to_x[i] = p[i] * gxx + q[i] * gxy;
                to_y[i] = p[i] * gxy + q[i] * gyy;
            }
            int k = 3;
#pragma unroll
            for (int i = 0; i < 3; i++) {
#pragma unroll
                for (int j = i; j < 3; j++) {
                    total[k++] += p[j] * to_x[i] + q[j] * to_y[i];
                }
            }
            total[9] += s0;
        }
    }
    __shared__ double parts[CHAIN_PARTS][ACTIVATED][CHAIN_GAUSSIANS];
    for (int k = 0; k < ACTIVATED; k++) {
        parts[part][k][place] = total[k];
    }
    __syncthreads();
    for (int k = part; k < ACTIVATED; k += CHAIN_PARTS) {
        double sum = first ? 0.0 : sums[k * padded + g];
        for (int each = 0; each < CHAIN_PARTS; each++) {
            sum += parts[each][k][place];
        }
        if (last) {
            parts[0][k][place] = sum;
        } else {
            sums[k * padded + g] = sum;
        }
    }
    if (last) {
        __syncthreads();
        if (part == 0 && g < count) {
            finish(parameters, activated, parts[0], place, gradient, count, padded, g);
        }
    }
    // One warp adds up the loss.
    if (blockIdx.x == 0 && threadIdx.x < 32) {
        double total = 0.0;
        for (int k = threadIdx.x; k < images * RESIDUAL_BLOCKS; k += 32) {
            total += partial[k];
        }
        for (int image = threadIdx.x; image < images; image += 32) {
            total += pass->image[image].energy;
        }
        total = warp_sum(total) / PIXELS;
        if (threadIdx.x == 0) {
            total += first ? 0.0 : *loss;
            *loss = total;
            if (last) {
                gradient[(size_t)PLANES * count] = (float)total;
            }
        }
    }
}
