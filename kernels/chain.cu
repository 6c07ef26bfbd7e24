//! Moments to gradients (docs/method.md, section 5).
//!
//! CHAIN_PARTS threads share a Gaussian: each sums every CHAIN_PARTS-th view of the images of a pass, then the parts are added in
//! order. One thread per Gaussian would leave few threads, each of which waits for memory at every view.
//!
//! Sums over views and images are in volume coordinates and f64: derivatives of the loss with respect to the mean (3), the covariance (6:
//! xx xy xz yy yz zz) and the amplitude (1). Rotation, scales and softplus are applied once per step, to the sum.
#include "gaussian.cuh"

#define CHAIN_GAUSSIANS (THREADS / CHAIN_PARTS)

/// Gradient of the raw parameters of Gaussian `g`, `gradient[plane][count]`, from its sums over a step, `sums[sum][place]`.
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
    // A small rotation by the vector t adds [t]x R to R: dL = tr([t]x^T dL/dR R^T) with dL/dR R^T = 2 G Sigma, so the torque is
    // the antisymmetric part of that. The quaternion changes by (0, t) q / 2, which is orthogonal to q: the normalisation needs
    // no further term.
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

/// Adds the pass to `sums` and `loss`. The last pass of a step writes the step's gradient, summed over images, and the loss.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    chain(const ChainArguments args) {
    const int count = args.count, padded = args.padded;
    const double *const activated = args.activated;
    double *const sums = args.sums;
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    const int images = pass->images, of_view = splats_of_view(count);
    const int stride = VIEWS > 1 ? splats_of_image(count) : padded;
    const bool first = pass->first, last = pass->last;
    const int part = threadIdx.x / CHAIN_GAUSSIANS, place = threadIdx.x % CHAIN_GAUSSIANS;
    const int g = blockIdx.x * CHAIN_GAUSSIANS + place;
    double total[ACTIVATED] = {};
    if (g < count) {
        const double d = GRID, amplitude = activated[9 * padded + g];
        for (int view = part; view < images * VIEWS; view += CHAIN_PARTS) {
            const int image = view / VIEWS, at = view % VIEWS * of_view + g;
            const double *const p = VIEWS > 1 ? args.views + view * 6 : images_of(pass)[image].view, *const q = p + 3;
            const double *const w = args.whitening + (size_t)image * 3 * stride + at;
            const float *const m = args.moments + (size_t)image * 6 * stride + at;
            const double w0 = w[0], w1 = w[stride], w2 = w[2 * stride];
            // Normalisation 1 / (2 pi |Sigma2|^(1/2)) in box units, with |Sigma2|^(-1/2) = w0 w2.
            const double norm = d * d / TAU * w0 * w2;
            // Products, because a division in f64 takes many instructions.
            const double once = norm * (1.0 / BINARY), twice = norm * (1.0 / (BINARY * BINARY));
            const double s0 = norm * m[0], sp = once * m[stride], sq = once * m[2 * stride];
            const double spp = twice * m[3 * stride], spq = twice * m[4 * stride], sqq = twice * m[5 * stride];
            // With B = [w0, w1; 0, w2] the conic is C = B^T B, and the moments are those of B d.
            // dL/dmu2 = A C S1 = A B^T (B S1); in box units, times D.
            const double gx = amplitude * d * (w0 * sp);
            const double gy = amplitude * d * (w1 * sp + w2 * sq);
            // dL/dSigma2 = A/2 (C S2 C - S0 C) = A/2 B^T (B S2 B^T - S0) B; in box units, times D^2. The term S0 comes from the
            // normalisation.
            const double half = 0.5 * amplitude * d * d;
            const double npp = spp - s0, nqq = sqq - s0;
            const double up = w1 * npp + w2 * spq, uq = w1 * spq + w2 * nqq;
            const double gxx = half * (w0 * w0 * npp), gxy = half * (w0 * up), gyy = half * (w1 * up + w2 * uq);
            for (int axis = 0; axis < 3; axis++) {
                total[axis] += p[axis] * gx + q[axis] * gy;
            }
            // dL/dSigma = P^T dL/dSigma2 P, with P the rows p and q.
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
            finish(args.parameters, activated, parts[0], place, args.gradient, count, padded, g);
        }
    }
    // One warp sums the loss.
    if (blockIdx.x == 0 && threadIdx.x < 32) {
        double total = 0.0;
        for (int k = threadIdx.x; k < images * RESIDUAL_BLOCKS; k += 32) {
            total += args.partial_losses[k];
        }
        for (int image = threadIdx.x; image < images; image += 32) {
            total += images_of(pass)[image].energy;
        }
        total = warp_sum(total) / PIXELS;
        if (threadIdx.x == 0) {
            total += first ? 0.0 : *args.loss;
            *args.loss = total;
            if (last) {
                args.gradient[(size_t)PLANES * count] = (float)total;
            }
        }
    }
}
