//! Pixels to the six moments of each splat: the backward pass (docs/method.md, section 5).
//!
//! MOMENT_LANES consecutive lanes share a splat, and blockIdx.y is the image. They gather over its support without atomics, so
//! sums are reproducible to the bit. Groups of four lanes take neighbouring columns, MOMENT_COLUMNS per lane, and further groups
//! take further rows.
//!
//! The moments are those of the whitened distances p and q. q is constant along a row, and along a column p is a linear function
//! of q: so a column is summed over its rows times 1, q and q^2 only, and p enters once per column. For a thin (`fine`) splat
//! that would lose digits by cancellation: there all six moments are summed pixel by pixel.
#include "common.cuh"

#define MOMENT_ROWS (MOMENT_LANES / 4)
/// Columns per lane, read by one load: four lanes with two columns cover the support of a small splat.
#define MOMENT_COLUMNS (GRID % 2 == 0 ? 2 : 1)

/// Loads a lane's columns of a row; the first column is a multiple of their number.
__device__ __forceinline__ void load_columns(const float *row, float pixels[MOMENT_COLUMNS]) {
#if MOMENT_COLUMNS == 2
    const float2 values = *(const float2 *)row;
    pixels[0] = values.x, pixels[1] = values.y;
#else
    pixels[0] = *row;
#endif
}

/// Sum over the lanes of a splat, on each of these lanes.
__device__ __forceinline__ float lanes_sum(float value) {
    for (int step = MOMENT_LANES / 2; step > 0; step >>= 1) {
        value += __shfl_xor_sync(ALL_LANES, value, step);
    }
    return value;
}

/// Adds a lane's part of a splat's moments to `sums`; `gradient` is that of the image's points.
__device__ __forceinline__ void gather(const Splat &splat, const float *gradient, int lane, float sums[6]) {
    const int left = splat.corner & 0xffff, right = left + (splat.size & 0xffff);
    const int top = splat.corner >> 16, rows = splat.size >> 16;
    // p = along + slant q, with `along` constant in a column. No division for an invisible splat.
    const float slant = rows > 0 ? __fdividef(splat.w1, splat.w2) : 0.0f;
    for (int x = left - left % MOMENT_COLUMNS + lane % 4 * MOMENT_COLUMNS; x < right; x += 4 * MOMENT_COLUMNS) {
        float start[MOMENT_COLUMNS], one[MOMENT_COLUMNS] = {}, of_q[MOMENT_COLUMNS] = {}, of_qq[MOMENT_COLUMNS] = {};
#pragma unroll
        for (int c = 0; c < MOMENT_COLUMNS; c++) {
            start[c] = fmaf(splat.w0, (float)(x + c - left), splat.p0);
        }
        const float *row = gradient + (top + lane / 4) * GRID + x;
        float j = (float)(lane / 4);
#pragma unroll 4
        for (int y = lane / 4; y < rows; y += MOMENT_ROWS) {
            float pixels[MOMENT_COLUMNS];
            load_columns(row, pixels);
            const float q = fmaf(splat.w2, j, splat.q0);
            const float qq = q * q;
#pragma unroll
            for (int c = 0; c < MOMENT_COLUMNS; c++) {
                const float p = fmaf(splat.w1, j, start[c]);
                const float w = pixels[c] * exp2_fast(fmaf(-p, p, -qq));
                one[c] += w;
                of_q[c] = fmaf(w, q, of_q[c]);
                of_qq[c] = fmaf(w, qq, of_qq[c]);
            }
            row += MOMENT_ROWS * GRID;
            j += (float)MOMENT_ROWS;
        }
#pragma unroll
        for (int c = 0; c < MOMENT_COLUMNS; c++) {
            // A load may begin before the support, or end after it.
            if (x + c < left || x + c >= right) {
                continue;
            }
            const float along = fmaf(-slant, splat.q0, start[c]);
            const float p = fmaf(slant, of_q[c], along * one[c]);
            const float pq = fmaf(slant, of_qq[c], along * of_q[c]);
            sums[0] += one[c];
            sums[1] += p;
            sums[2] += of_q[c];
            sums[3] = fmaf(along, p, fmaf(slant, pq, sums[3]));
            sums[4] += pq;
            sums[5] += of_qq[c];
        }
    }
}

/// [`gather`] for a thin splat, one column per lane.
__device__ __forceinline__ void gather_fine(const Splat &splat, const float *gradient, int lane, float sums[6]) {
    const int columns = splat.size & 0xffff, rows = splat.size >> 16;
    const float *const corner = gradient + (splat.corner >> 16) * GRID + (splat.corner & 0xffff);
    for (int x = lane % 4; x < columns; x += 4) {
        const float start = fmaf(splat.w0, (float)x, splat.p0);
        const float start_low = fmaf(splat.w0_low, (float)x, splat.p0_low);
#pragma unroll 1
        for (int y = lane / 4; y < rows; y += MOMENT_ROWS) {
            const float p = fmaf(splat.w1, (float)y, start) + fmaf(splat.w1_low, (float)y, start_low);
            const float q = fmaf(splat.w2, (float)y, splat.q0);
            const float w = corner[y * GRID + x] * exp2_fast(fmaf(-p, p, -q * q));
            const float wp = w * p, wq = w * q;
            sums[0] += w;
            sums[1] += wp;
            sums[2] += wq;
            sums[3] = fmaf(wp, p, sums[3]);
            sums[4] = fmaf(wp, q, sums[4]);
            sums[5] = fmaf(wq, q, sums[5]);
        }
    }
}

/// Moments of each splat: sums over its support of g 2^-(p^2 + q^2) times 1, p, q, p^2, p q, q^2, with g the gradient of the
/// points (p and q in units of BINARY standard deviations, without the normalisation of the splat).
extern "C" __global__ void __launch_bounds__(THREADS)
    moments(const MomentsArguments args) {
    const int total = args.splats_per_image;
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const int at = (blockIdx.x * THREADS + threadIdx.x) / MOMENT_LANES;
    const int lane = threadIdx.x % MOMENT_LANES;
    const Splat splat = args.splats[(size_t)image * total + at];
    const float *const gradient = args.gradient + (size_t)image * POINTS;
    float sums[6] = {};
    if (splat.fine) {
        gather_fine(splat, gradient, lane, sums);
    } else {
        gather(splat, gradient, lane, sums);
    }
    for (int k = 0; k < 6; k++) {
        sums[k] = lanes_sum(sums[k]);
    }
    if (lane == 0) {
        for (int k = 0; k < 6; k++) {
            args.moments[((size_t)image * 6 + k) * total + at] = sums[k];
        }
    }
}
