//! Splats to pixels: the forward pass (METHOD.md section 3).
//!
//! A block draws a slice of a tile's splats: DRAW_SLICES blocks a tile of 16 x 16 pixels, DRAW_WARPS warps a block. It turns
//! the tile's bits into a list by counting and a prefix sum; its warps then take the list in groups of 32 splats. A lane
//! holds eight pixels of the tile, and adds to those that lie within a splat's support. The sums of the warps, and then
//! of the slices, are added in their order.
#include "common.cuh"

#define DRAW_THREADS (DRAW_WARPS * 32)
/// Splats of the list that are at hand at a time.
#define DRAW_CAPACITY 2048
#define TILE_PIXELS (TILE * TILE)

/// A splat in shared memory, as a tile sees it.
struct __align__(16) Staged {
    float p0, q0, w0, w1;
    float w2, weight;
    /// First column and row of the support from those of the tile.
    float left, top;
    /// As of `Splat`.
    float p0_low, w0_low, w1_low;
    unsigned fine;
};

/// Number of `value`s before this thread's, and in `total` the number of all. `sums` holds a word for each warp.
__device__ __forceinline__ int prefix_sum(int value, int *sums, int &total) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = value;
    for (int step = 1; step < 32; step <<= 1) {
        const int below = __shfl_up_sync(ALL_LANES, sum, step);
        sum += lane >= step ? below : 0;
    }
    __syncthreads();
    if (lane == 31) {
        sums[warp] = sum;
    }
    __syncthreads();
    int before = 0;
    total = 0;
    for (int k = 0; k < DRAW_WARPS; k++) {
        before += k < warp ? sums[k] : 0;
        total += sums[k];
    }
    return before + sum - value;
}

/// Columns or rows of a tile that lie in a support of `size` from `start` on, as bits.
__device__ __forceinline__ unsigned covered(int start, int size) {
    const int from = max(start, 0), to = min(start + size, TILE);
    return from < to ? ((1u << (to - from)) - 1u) << from : 0u;
}

/// Adds a splat to a lane's eight pixels: columns `column` (where `left`) and 8 more (where `right`), every fourth row from
/// `row`; `need` are the bits of the first, and `outside` those of what lies outside the support. Which half a splat is in
/// is decided before, once: the rows are then drawn without a further branch, two pixels side by side.
template <bool fine, bool left, bool right>
__device__ __forceinline__ void draw_halves(const Staged &splat, unsigned outside, unsigned need, float column, float row,
                                            float pixels[4][2]) {
    const float i = column - splat.left;
    const float p[2] = {fmaf(splat.w0, i, splat.p0), fmaf(splat.w0, i + 8.0f, splat.p0)};
    const float low[2] = {fine ? fmaf(splat.w0_low, i, splat.p0_low) : 0.0f,
                          fine ? fmaf(splat.w0_low, i + 8.0f, splat.p0_low) : 0.0f};
#pragma unroll
    for (int y = 0; y < 4; y++) {
        // Four rows without a pixel of the support: the same for all lanes.
        if ((~outside & 0xf0000u << 4 * y) == 0) {
            continue;
        }
        const float j = row + (float)(4 * y) - splat.top;
        const float q = fmaf(splat.w2, j, splat.q0);
#pragma unroll
        for (int x = 0; x < 2; x++) {
            if (x == 0 ? !left : !right) {
                continue;
            }
            float t = fmaf(splat.w1, j, p[x]);
            if (fine) {
                t += fmaf(splat.w1_low, j, low[x]);
            }
            const float value = exp2_fast(fmaf(-t, t, -q * q));
            // The row's bit moves by four, the column's by eight.
            const unsigned bit = (need & 0xffffu) << 8 * x | (need & 0xffff0000u) << 4 * y;
            if ((outside & bit) == 0) {
                pixels[y][x] = fmaf(splat.weight, value, pixels[y][x]);
            }
        }
    }
}

/// [`draw_halves`] for the halves of the tile that hold a column of the splat; the same for all lanes.
template <bool fine>
__device__ __forceinline__ void draw_one(const Staged &splat, unsigned outside, unsigned need, float column, float row,
                                         float pixels[4][2]) {
    const bool left = (~outside & 0xffu) != 0, right = (~outside & 0xff00u) != 0;
    if (left && right) {
        draw_halves<fine, true, true>(splat, outside, need, column, row, pixels);
    } else if (left) {
        draw_halves<fine, true, false>(splat, outside, need, column, row, pixels);
    } else {
        draw_halves<fine, false, true>(splat, outside, need, column, row, pixels);
    }
}

extern "C" __global__ void __launch_bounds__(DRAW_THREADS, 1024 / DRAW_THREADS)
    draw(Ring *ring, const Splat *splats, const unsigned *bits, float *projection, float *slices,
         unsigned *tickets, int padded) {
    const Pass *const pass = pass_of(ring, ring->current);
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        ring->next = ring->current + 1;
    }
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const int tile = blockIdx.x / DRAW_SLICES, slice = blockIdx.x % DRAW_SLICES;
    const int tile_x = tile % TILES_X * TILE, tile_y = tile / TILES_X * TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int words = padded / 32;
    bits += ((size_t)image * TILES + tile) * words;
    splats += (size_t)image * padded;

    __shared__ int indices[DRAW_CAPACITY];
    __shared__ Staged staged[DRAW_WARPS][32];
    __shared__ unsigned masks[DRAW_WARPS][32];
    __shared__ int counts[DRAW_WARPS];
    __shared__ unsigned last;

    // This lane's pixels: columns lane % 8 and 8 more, every fourth row from lane / 8.
    const float column = lane % 8, row = lane / 8;
    const unsigned need = 1u << (lane % 8) | 1u << (16 + lane / 8);
    float pixels[4][2] = {};

    const int share = (words + DRAW_SLICES - 1) / DRAW_SLICES;
    const int begin = slice * share, end = min(begin + share, words);
    for (int first = begin; first < end; first += DRAW_THREADS) {
        const int word = first + threadIdx.x;
        const unsigned set = word < end ? bits[word] : 0u;
        int total;
        const int place = prefix_sum(__popc(set), counts, total);
        for (int base = 0; base < total; base += DRAW_CAPACITY) {
            int at = place - base;
            for (unsigned rest = set; rest != 0; rest &= rest - 1, at++) {
                if (at >= 0 && at < DRAW_CAPACITY) {
                    indices[at] = word * 32 + __ffs(rest) - 1;
                }
            }
            __syncthreads();
            const int listed = min(total - base, DRAW_CAPACITY);
            for (int group = warp * 32; group < listed; group += DRAW_THREADS) {
                const int here = min(listed - group, 32);
                if (lane < here) {
                    const Splat splat = splats[indices[group + lane]];
                    const int left = (int)(splat.corner & 0xffff) - tile_x, top = (int)(splat.corner >> 16) - tile_y;
                    staged[warp][lane] = {splat.p0,     splat.q0,     splat.w0,     splat.w1,
                                          splat.w2,     splat.weight, (float)left,  (float)top,
                                          splat.p0_low, splat.w0_low, splat.w1_low, splat.fine};
                    // What lies outside is marked.
                    masks[warp][lane] =
                        ~(covered(left, splat.size & 0xffff) | covered(top, splat.size >> 16) << 16);
                }
                __syncwarp();
                for (int k = 0; k < here; k++) {
                    const Staged splat = staged[warp][k];
                    const unsigned outside = masks[warp][k];
                    if (splat.fine) {
                        draw_one<true>(splat, outside, need, column, row, pixels);
                    } else {
                        draw_one<false>(splat, outside, need, column, row, pixels);
                    }
                }
                __syncwarp();
            }
            __syncthreads();
        }
    }

    // The warps' sums, in order; then the slices'.
    __shared__ float sums[DRAW_WARPS][TILE_PIXELS];
#pragma unroll
    for (int y = 0; y < 4; y++) {
#pragma unroll
        for (int x = 0; x < 2; x++) {
            sums[warp][(lane / 8 + 4 * y) * TILE + lane % 8 + 8 * x] = pixels[y][x];
        }
    }
    __syncthreads();
    float *const parts = slices + ((size_t)image * TILES + tile) * DRAW_SLICES * TILE_PIXELS;
    for (int k = threadIdx.x; k < TILE_PIXELS; k += DRAW_THREADS) {
        float sum = 0.0f;
        for (int w = 0; w < DRAW_WARPS; w++) {
            sum += sums[w][k];
        }
        sums[0][k] = sum;
        if (DRAW_SLICES > 1) {
            parts[slice * TILE_PIXELS + k] = sum;
        }
    }
    if (DRAW_SLICES > 1) {
        // Whichever block of the tile comes last adds up; what it adds, and in which order, is always the same.
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            const unsigned before = atomicAdd(&tickets[image * TILES + tile], 1u);
            last = before == DRAW_SLICES - 1;
            if (last) {
                tickets[image * TILES + tile] = 0;
            }
        }
        __syncthreads();
        if (!last) {
            return;
        }
        __threadfence();
    }
    for (int k = threadIdx.x; k < TILE_PIXELS; k += DRAW_THREADS) {
        float sum = sums[0][k];
        if (DRAW_SLICES > 1) {
            sum = 0.0f;
            for (int s = 0; s < DRAW_SLICES; s++) {
                // Not from this multiprocessor's own cache: other blocks have written it.
                sum += *(volatile float *)&parts[s * TILE_PIXELS + k];
            }
        }
        const int x = tile_x + k % TILE, y = tile_y + k / TILE;
        if (x < BOX && y < BOX) {
            projection[(size_t)image * PIXELS + y * BOX + x] = sum;
        }
    }
}
