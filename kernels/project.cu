//! Gaussians to splats, and the tiles that each splat touches (docs/method.md, section 3).
//!
//! A thread takes one Gaussian in one view of an image (blockIdx.y), a warp 32 consecutive Gaussians in one view. Tiles hold bit
//! sets: bit j of word k of a tile is set if splat 32 k + j touches it. A bit set has a fixed size for any mixture and a fixed
//! order, so sums are reproducible to the bit. A thread finds which of 32 tiles its splat touches, and the warp transposes its
//! 32 x 32 bits.
#include "gaussian.cuh"

/// Transposes 32 x 32 bits: bit j of lane i becomes bit i of lane j.
__device__ __forceinline__ unsigned transpose_bits(unsigned value, unsigned lane) {
    unsigned low = 0x0000ffffu;
    for (unsigned k = 16; k > 0; k >>= 1) {
        const unsigned other = __shfl_xor_sync(ALL_LANES, value, k);
        value = (lane & k) ? (value & ~low) | ((other >> k) & low) : (value & low) | ((other & low) << k);
        low ^= low << (k >> 1);
    }
    return value;
}

/// A word with bits `from` to `to` (inclusive) set; 0 if `from` > `to`.
__device__ __forceinline__ unsigned bit_range(int from, int to) {
    from = max(from, 0);
    to = min(to, 31);
    return from > to ? 0u : (ALL_LANES >> (31 - (to - from))) << from;
}

/// With terms of p and q up to this size, rounding of their sums changes a splat by less than 2e-6 of its peak.
#define LARGEST_COARSE 24.0

/// Rounds a number to a multiple of 2^-12; `low` receives the low-order part.
__device__ __forceinline__ float split(double number, float &low) {
    const double high = rint(number * 4096.0) / 4096.0;
    low = (float)(number - high);
    return (float)high;
}

/// Splat of Gaussian `g` seen by the rows p and q of `view`, `[2][3]`, with the origin `offset` pixels from pixel floor(BOX / 2); its
/// whitening goes to the places w0, w1 and w2 of
/// `whitening`, `stride` apart.
__device__ Splat splat_of(const double *activated, const double *view, const double *offset, double *whitening, int stride,
                          int padded, int g) {
    const double d = GRID;
    const double *p = view, *q = view + 3;
    const double x = activated[g], y = activated[padded + g], z = activated[2 * padded + g];
    const double u = d * (p[0] * x + p[1] * y + p[2] * z) + (ORIGIN + offset[0] * POINTS_PER_PIXEL);
    const double v = d * (q[0] * x + q[1] * y + q[2] * z) + (ORIGIN + offset[1] * POINTS_PER_PIXEL);
    double c[6];
    for (int k = 0; k < 6; k++) {
        c[k] = activated[(3 + k) * padded + g];
    }
    // Sigma2 = P Sigma P^T, with P the first two rows of W.
    const double px = c[0] * p[0] + c[1] * p[1] + c[2] * p[2];
    const double py = c[1] * p[0] + c[3] * p[1] + c[4] * p[2];
    const double pz = c[2] * p[0] + c[4] * p[1] + c[5] * p[2];
    const double qx = c[0] * q[0] + c[1] * q[1] + c[2] * q[2];
    const double qy = c[1] * q[0] + c[3] * q[1] + c[4] * q[2];
    const double qz = c[2] * q[0] + c[4] * q[1] + c[5] * q[2];
    const double sxx = d * d * (px * p[0] + py * p[1] + pz * p[2]) + BLUR * BLUR;
    const double sxy = d * d * (px * q[0] + py * q[1] + pz * q[2]);
    const double syy = d * d * (qx * q[0] + qy * q[1] + qz * q[2]) + BLUR * BLUR;
    const double root = rsqrt(sxx * syy - sxy * sxy);
    // Whitening [w0, w1; 0, w2] by the distribution of y, and of x given y.
    const double w2 = rsqrt(syy);
    const double deviation_x = sxx * rsqrt(sxx), deviation_y = syy * w2;
    const double w0 = deviation_y * root;
    const double w1 = -(w0 * sxy * w2 * w2);
    whitening[0] = w0;
    whitening[stride] = w1;
    whitening[2 * stride] = w2;

    const double x0 = fmax(ceil(u - CUTOFF * deviation_x), 0.0);
    const double x1 = fmin(floor(u + CUTOFF * deviation_x), d - 1.0);
    const double y0 = fmax(ceil(v - CUTOFF * deviation_y), 0.0);
    const double y1 = fmin(floor(v + CUTOFF * deviation_y), d - 1.0);
    Splat splat = {};
    // False for NaN.
    if (x1 >= x0 && y1 >= y0) {
        const double p0 = BINARY * (w0 * (x0 - u) + w1 * (y0 - v));
        // `draw` evaluates whole quarters of a tile, which begin up to half a tile before the support.
        const double width = x1 - x0 + TILE / 2, height = y1 - y0 + TILE / 2;
        const double largest_p = fabs(p0) + BINARY * (w0 * width + fabs(w1) * height);
        const double largest_q = BINARY * w2 * (fabs(y0 - v) + height);
        if (fmax(largest_p, largest_q) > LARGEST_COARSE) {
            splat.fine = 1;
            splat.p0 = split(p0, splat.p0_low);
            splat.w0 = split(BINARY * w0, splat.w0_low);
            splat.w1 = split(BINARY * w1, splat.w1_low);
        } else {
            splat.p0 = (float)p0;
            splat.w0 = (float)(BINARY * w0);
            splat.w1 = (float)(BINARY * w1);
        }
        splat.q0 = (float)(BINARY * w2 * (y0 - v));
        splat.w2 = (float)(BINARY * w2);
        const double amplitude = activated[9 * padded + g];
        splat.weight = (float)(amplitude * (d * d / TAU) * root);
        splat.corner = (unsigned)x0 | (unsigned)y0 << 16;
        splat.size = (unsigned)(x1 - x0 + 1.0) | (unsigned)(y1 - y0 + 1.0) << 16;
    }
    return splat;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
    project(const ProjectArguments args) {
    const int padded = args.padded;
    const unsigned number = args.ring->next;
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        args.ring->current = number;
    }
    const PassRecord *const pass = pass_of(args.ring, number);
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int at = blockIdx.x * THREADS + threadIdx.x, of_view = splats_of_view(args.count);
    const int view = VIEWS > 1 ? at / of_view : 0, g = at - view * of_view;
    const int total = VIEWS > 1 ? splats_of_image(args.count) : padded;
    const ImageRecord &record = images_of(pass)[image];
    const double *matrix = record.view;
#if VIEWS > 1
    __shared__ double turned[THREADS / 32][6];
    if (lane < 6 && view < VIEWS) {
        const double *const w = matrix + lane / 3 * 3, *const column = args.operators + view * 9 + lane % 3;
        const double value = w[0] * column[0] + w[1] * column[3] + w[2] * column[6];
        turned[warp][lane] = value;
        // The first warp of the view.
        if (g < 32) {
            args.views[((size_t)image * VIEWS + view) * 6 + lane] = value;
        }
    }
    __syncwarp();
    matrix = turned[warp];
#endif
    Splat splat = {};
    if (g < args.count && view < VIEWS) {
        double *const whitening = args.whitening + (size_t)image * 3 * total + at;
        splat = splat_of(args.activated, matrix, record.offset, whitening, total, padded, g);
    }
    args.splats[(size_t)image * total + at] = splat;

    const int columns = splat.size & 0xffff, rows = splat.size >> 16;
    const int x0 = splat.corner & 0xffff, y0 = splat.corner >> 16;
    const int left = x0 / TILE, right = columns > 0 ? (x0 + columns - 1) / TILE : -1;
    const int top = y0 / TILE, bottom = rows > 0 ? (y0 + rows - 1) / TILE : -1;
    const int words = total / 32;
    unsigned *const first = args.bits + (size_t)image * TILES * words + blockIdx.x * (THREADS / 32);
    // Two buffers, so that one barrier per group of tiles is enough.
    __shared__ unsigned touched[2][THREADS / 32][33];
    for (int group = 0; group < TILES; group += 32) {
        unsigned mine = 0;
        for (int ty = max(group / TILES_X, top); ty <= min((group + 31) / TILES_X, bottom); ty++) {
            mine |= bit_range(left + ty * TILES_X - group, right + ty * TILES_X - group);
        }
        unsigned (*const words_of)[33] = touched[group / 32 % 2];
        words_of[warp][lane] = __any_sync(ALL_LANES, mine != 0) ? transpose_bits(mine, lane) : 0u;
        __syncthreads();
        // The block's eight words of a tile are contiguous: eight threads write them.
        const int tile = group + threadIdx.x / 8, word = threadIdx.x % 8;
        if (tile < TILES) {
            first[(size_t)tile * words + word] = words_of[word][tile - group];
        }
    }
}
