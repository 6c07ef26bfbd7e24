//! Moments to gradients (METHOD.md section 5). A thread a Gaussian, which adds up the images of a pass in their order.
//!
//! What the images say adds up in the volume's own coordinates, in f64: the derivatives of the loss with respect to the
//! mean (3), the covariance (6: xx xy xz yy yz zz) and the amplitude (1). Only the sum of the step goes through rotation,
//! scales and softplus.
#include "gaussian.cuh"

/// The gradient of the raw parameters, `gradient[plane][count]`, from Gaussian `g`'s sums over a step.
__device__ void finish(const float *parameters, const double sums[ACTIVATED], float *gradient, int count, int g) {
    for (int axis = 0; axis < 3; axis++) {
        gradient[(size_t)axis * count + g] = (float)sums[axis];
    }
    double value, slope;
    softplus(parameters[(size_t)(PLANES - 1) * count + g], value, slope);
    gradient[(size_t)(PLANES - 1) * count + g] = (float)(sums[9] * slope);
    const double xx = sums[3], yy = sums[6], zz = sums[8];
#if PLANES == 11
    const double xy = sums[4], xz = sums[5], yz = sums[7];
    // With M = R S and G = dL/dSigma, symmetric: dL/ds_j = sum_i (2 G M)_ij R_ij, dL/dR = 2 G R S^2.
    double q[4], r[3][3], dr[3][3];
    for (int k = 0; k < 4; k++) {
        q[k] = parameters[(size_t)(6 + k) * count + g];
    }
    const double inverse = rotation(q, r);
    for (int j = 0; j < 3; j++) {
        const double column[3] = {xx * r[0][j] + xy * r[1][j] + xz * r[2][j], xy * r[0][j] + yy * r[1][j] + yz * r[2][j],
                                  xz * r[0][j] + yz * r[1][j] + zz * r[2][j]};
        const double s = scale_of(parameters[(size_t)(3 + j) * count + g], slope);
        const double along = column[0] * r[0][j] + column[1] * r[1][j] + column[2] * r[2][j];
        gradient[(size_t)(3 + j) * count + g] = (float)(2.0 * s * along * slope);
        for (int i = 0; i < 3; i++) {
            dr[i][j] = 2.0 * s * s * column[i];
        }
    }
    const double w = q[0], x = q[1], y = q[2], z = q[3];
    const double rx = dr[2][1] - dr[1][2], ry = dr[0][2] - dr[2][0], rz = dr[1][0] - dr[0][1];
    const double pxy = dr[0][1] + dr[1][0], pxz = dr[0][2] + dr[2][0], pyz = dr[1][2] + dr[2][1];
    const double dq[4] = {2.0 * (x * rx + y * ry + z * rz),
                          2.0 * (w * rx + y * pxy + z * pxz - 2.0 * x * (dr[1][1] + dr[2][2])),
                          2.0 * (w * ry + x * pxy + z * pyz - 2.0 * y * (dr[0][0] + dr[2][2])),
                          2.0 * (w * rz + x * pxz + y * pyz - 2.0 * z * (dr[0][0] + dr[1][1]))};
    // Through the normalisation: what points along q does nothing.
    const double along = w * dq[0] + x * dq[1] + y * dq[2] + z * dq[3];
    for (int k = 0; k < 4; k++) {
        gradient[(size_t)(6 + k) * count + g] = (float)((dq[k] - q[k] * along) * inverse);
    }
#else
    const double s = scale_of(parameters[(size_t)3 * count + g], slope);
    gradient[(size_t)3 * count + g] = (float)(2.0 * s * (xx + yy + zz) * slope);
#endif
}

/// Adds the pass to `sums[sum][padded]` and `loss`; the last pass of a step leaves the step's gradient in
/// `gradient[plane][count]` and, behind it, the sum of its images' losses.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    chain(const Ring *ring, const double *activated, const double *whitening, const float *moments,
          const float *parameters, double *sums, const double *partial, double *loss, float *gradient, int count,
          int padded) {
    const Pass *const pass = pass_of(ring, ring->current);
    const int images = pass->images;
    const bool first = pass->first, last = pass->last;
    const int g = blockIdx.x * THREADS + threadIdx.x;
    if (g < count) {
        const double d = BOX, amplitude = activated[9 * padded + g];
        double total[ACTIVATED];
        for (int k = 0; k < ACTIVATED; k++) {
            total[k] = first ? 0.0 : sums[k * padded + g];
        }
        for (int image = 0; image < images; image++) {
            const double *const p = pass->image[image].view, *const q = p + 3;
            const double *const w = whitening + (size_t)image * 3 * padded;
            const float *const m = moments + (size_t)image * 6 * padded;
            const double w0 = w[g], w1 = w[padded + g], w2 = w[2 * padded + g];
            // The normalisation 1 / (2 pi |Sigma2|^(1/2)), in box units; |Sigma2|^(-1/2) = w0 w2. Or what takes its place.
            const double norm = HEIGHT > 0.0 ? HEIGHT : d * d / TAU * w0 * w2;
            const double once = norm / BINARY, twice = norm / (BINARY * BINARY);
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
            const double of_norm = HEIGHT > 0.0 ? 0.0 : s0;
            const double npp = spp - of_norm, nqq = sqq - of_norm;
            const double up = w1 * npp + w2 * spq, uq = w1 * spq + w2 * nqq;
            const double gxx = half * (w0 * w0 * npp), gxy = half * (w0 * up), gyy = half * (w1 * up + w2 * uq);
            for (int axis = 0; axis < 3; axis++) {
                total[axis] += p[axis] * gx + q[axis] * gy;
            }
            // dL/dSigma_ij = P_0i P_0j gxx + (P_0i P_1j + P_1i P_0j) gxy + P_1i P_1j gyy.
            int k = 3;
#pragma unroll
            for (int i = 0; i < 3; i++) {
#pragma unroll
                for (int j = i; j < 3; j++) {
                    total[k++] += p[i] * p[j] * gxx + (p[i] * q[j] + q[i] * p[j]) * gxy + q[i] * q[j] * gyy;
                }
            }
            total[9] += s0;
        }
        if (last) {
            finish(parameters, total, gradient, count, g);
        } else {
            for (int k = 0; k < ACTIVATED; k++) {
                sums[k * padded + g] = total[k];
            }
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
