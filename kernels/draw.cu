//! Splats to pixels: the forward pass (docs/method.md, section 3).
//!
//! DRAW_SLICES blocks of DRAW_WARPS warps share a tile of 16 x 16 pixels; each draws a slice of the tile's splats. blockIdx.y is
//! the image. A block turns the tile's bit set into a list by a prefix sum over set bits. Groups of four warps, one warp per
//! quarter of the tile, share a part of the list: each warp picks the splats that touch its quarter, and adds 32 at a time to
//! the quarter's pixels without branches. 16 lanes take one splat, four pixels per lane, and the other 16 lanes take the next
//! one. The sums of both, of the parts, and then of the slices, are added in a fixed order.
#include "common.cuh"

#define DRAW_THREADS (DRAW_WARPS * 32)
/// Parts of a list, and partial sums per pixel.
#define DRAW_PARTS (DRAW_WARPS / 4)
#define DRAW_SUMS (2 * DRAW_PARTS)
/// Splats of the list in shared memory at a time: three blocks fit into the 100 KiB of consumer GPUs.
#define DRAW_CAPACITY 768
/// Capacity for the picked splats of a warp: fewer than 32 that wait to be drawn, and 32 more.
#define DRAW_PICKED 64
#define TILE_PIXELS (TILE * TILE)
/// Edge of a quarter of a tile.
#define QUARTER (TILE / 2)

/// A splat in shared memory, relative to a quarter of a tile: p0 and q0 are those of the quarter's first pixel. Where it is
/// `fine`, q0 is that of the support's first row, `top` rows from the quarter's: a small number would be lost when added to a
/// large one.
struct __align__(16) Staged {
    float p0, q0, w0, w1;
    float w2, weight;
    /// Columns (low bits) and rows (next bits) of the quarter outside the support; and MARK_FINE.
    unsigned marks;
    /// As in `Splat`.
    float p0_low, w0_low, w1_low;
    float top;
};
#define MARK_FINE (1u << 2 * QUARTER)

/// Exclusive prefix sum of `value` over the block; `total` receives the sum of all. `sums` holds a word per warp.
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

/// Bits of the columns or rows of a quarter outside `from..to`, which at least one lies in.
__device__ __forceinline__ unsigned outside(int from, int to) {
    const unsigned all = (1u << QUARTER) - 1u;
    return all & ~(all << max(from, 0) & all >> max(QUARTER - to, 0));
}

/// Adds every other one of `count` staged splats, from `first` on, to a lane's pixels [row][column] of a quarter: columns
/// `column` and `column` + 4, rows `row` and `row` + 4. `need` has the bits of the first column and row.
template <bool fine>
__device__ __forceinline__ void draw_staged(const Staged *staged, unsigned first, unsigned count, unsigned need,
                                            float column, float row, float pixels[2][2]) {
#pragma unroll 2
    for (unsigned k = first; k < count; k += 2) {
        const Staged splat = staged[k];
        // In this order, so that the sums of a fine splat are exact.
        const float left = fmaf(splat.w1, row, fmaf(splat.w0, column, splat.p0));
        const float left_low = fmaf(splat.w1_low, row, fmaf(splat.w0_low, column, splat.p0_low));
        const float from_top = fine ? row - splat.top : row;
        const float first_q = fmaf(splat.w2, from_top, splat.q0);
#pragma unroll
        for (int y = 0; y < 2; y++) {
            // Outside the support the q of a thin splat may be too large to continue from.
            const float q = y == 0 ? first_q
                            : fine ? fmaf(splat.w2, from_top + 4.0f, splat.q0)
                                   : fmaf(splat.w2, 4.0f, first_q);
#pragma unroll
            for (int x = 0; x < 2; x++) {
                float p = x == 0 ? left : fmaf(splat.w0, 4.0f, left);
                p = y == 0 ? p : fmaf(splat.w1, 4.0f, p);
                if (fine) {
                    const float low = x == 0 ? left_low : fmaf(splat.w0_low, 4.0f, left_low);
                    p += y == 0 ? low : fmaf(splat.w1_low, 4.0f, low);
                }
                const float value = exp2_fast(fmaf(-p, p, -q * q));
                // The bits of columns and rows shift by four each.
                const unsigned bits = (need & 0xffu) << 4 * x | (need & 0xff00u) << 4 * y;
                if ((splat.marks & bits) == 0) {
                    pixels[y][x] = fmaf(splat.weight, value, pixels[y][x]);
                }
            }
        }
    }
}

/// Draws the projections of a pass.
extern "C" __global__ void __launch_bounds__(DRAW_THREADS, 1024 / DRAW_THREADS)
    draw(const DrawArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->current);
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        args.ring->next = args.ring->current + 1;
    }
    const unsigned image = blockIdx.y;
    if (image >= pass->images) {
        return;
    }
    const int tile = blockIdx.x / DRAW_SLICES, slice = blockIdx.x % DRAW_SLICES;
    const int tile_x = tile % TILES_X * TILE, tile_y = tile / TILES_X * TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int words = args.splats_per_image / 32;
    const unsigned *const bits = args.bits + ((size_t)image * TILES + tile) * words;
    const Splat *const splats = args.splats + (size_t)image * args.splats_per_image;

    __shared__ int indices[DRAW_CAPACITY];
    __shared__ Staged staged[DRAW_WARPS][DRAW_PICKED];
    __shared__ int counts[DRAW_WARPS];
    __shared__ unsigned last;

    // The warp's part of the list and quarter of the tile; the lane's parity of splats, and its first pixel of four.
    const int part = warp / 4, quarter_x = warp % 2 * QUARTER, quarter_y = warp / 2 % 2 * QUARTER;
    const unsigned parity = lane / 16;
    const float column = lane % 4, row = lane / 4 % 4;
    const unsigned need = 1u << (lane % 4) | 1u << (QUARTER + lane / 4 % 4);
    const unsigned before = (1u << lane) - 1u;
    float pixels[2][2] = {};
    // Splats that the warp has picked and drawn; `staged` is used as a ring.
    unsigned picked = 0, drawn = 0;
    Staged *const places = staged[warp];
    const auto draw_some = [&](unsigned count) {
        const Staged *const from = places + drawn % DRAW_PICKED;
        if (__any_sync(ALL_LANES, lane < count && (from[lane].marks & MARK_FINE) != 0)) {
            draw_staged<true>(from, parity, count, need, column, row, pixels);
        } else {
            draw_staged<false>(from, parity, count, need, column, row, pixels);
        }
        drawn += count;
        __syncwarp();
    };

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
            for (int group = part * 32; group < listed; group += DRAW_PARTS * 32) {
                const Splat *const splat = splats + indices[min(group + lane, listed - 1)];
                const unsigned corner = splat->corner, size = splat->size;
                const int left = (int)(corner & 0xffff) - tile_x - quarter_x;
                const int top = (int)(corner >> 16) - tile_y - quarter_y;
                const int right = left + (int)(size & 0xffff), bottom = top + (int)(size >> 16);
                const bool touched =
                    group + lane < listed && left < QUARTER && right > 0 && top < QUARTER && bottom > 0;
                const unsigned picks = __ballot_sync(ALL_LANES, touched);
                if (touched) {
                    const float x = (float)-left, y = (float)-top;
                    Staged &place = places[(picked + __popc(picks & before)) % DRAW_PICKED];
                    place = {fmaf(splat->w1, y, fmaf(splat->w0, x, splat->p0)),
                             splat->fine ? splat->q0 : fmaf(splat->w2, y, splat->q0),
                             splat->w0,
                             splat->w1,
                             splat->w2,
                             splat->weight,
                             outside(left, right) | outside(top, bottom) << QUARTER | (splat->fine ? MARK_FINE : 0u),
                             fmaf(splat->w1_low, y, fmaf(splat->w0_low, x, splat->p0_low)),
                             splat->w0_low,
                             splat->w1_low,
                             splat->fine ? -y : 0.0f};
                }
                picked += __popc(picks);
                __syncwarp();
                if (picked - drawn >= 32) {
                    draw_some(32);
                }
            }
            __syncthreads();
        }
    }
    draw_some(picked - drawn);

    // Sums of the parts, then of the slices.
    __shared__ float sums[DRAW_SUMS][TILE_PIXELS];
#pragma unroll
    for (int y = 0; y < 2; y++) {
#pragma unroll
        for (int x = 0; x < 2; x++) {
            sums[2 * part + parity][(quarter_y + lane / 4 % 4 + 4 * y) * TILE + quarter_x + lane % 4 + 4 * x] = pixels[y][x];
        }
    }
    __syncthreads();
    float *const parts = args.slices + ((size_t)image * TILES + tile) * DRAW_SLICES * TILE_PIXELS;
    for (int k = threadIdx.x; k < TILE_PIXELS; k += DRAW_THREADS) {
        float sum = 0.0f;
        for (int s = 0; s < DRAW_SUMS; s++) {
            sum += sums[s][k];
        }
        sums[0][k] = sum;
        if (DRAW_SLICES > 1) {
            parts[slice * TILE_PIXELS + k] = sum;
        }
    }
    if (DRAW_SLICES > 1) {
        // The block of the tile that ends last sums the slices, always in the same order.
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            const unsigned before = atomicAdd(&args.tickets[image * TILES + tile], 1u);
            last = before == DRAW_SLICES - 1;
            if (last) {
                args.tickets[image * TILES + tile] = 0;
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
                // Volatile, to bypass this multiprocessor's L1 cache: other blocks have written it.
                sum += *(volatile float *)&parts[s * TILE_PIXELS + k];
            }
        }
        const int x = tile_x + k % TILE, y = tile_y + k / TILE;
        if (x < GRID && y < GRID) {
            args.projections[(size_t)image * POINTS + y * GRID + x] = sum;
        }
    }
}
