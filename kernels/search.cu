//! The best offset of each image at many rotations (docs/method.md, section 15).
//!
//! `observe` maps a thread to a frequency of the list, and blockIdx.y to an image. In `search` a block takes a rotation (blockIdx.x) of
//! an image (blockIdx.y): its threads first take frequencies, then lines of constant kx at a step of the offset along y, then offsets.
//! So a sum over frequencies is made for each step along y, and only sums over kx for each offset.
#include "slice.cuh"

/// Frequencies and lines of constant kx in shared memory at a time. A line has fewer frequencies than SEARCH_FREQUENCIES.
#define SEARCH_FREQUENCIES 1024
#define SEARCH_LINES 64
/// Steps of the offset along each axis that a block takes at a time, a thread for each pair.
#define SEARCH_EDGE 16
/// Below every gain.
#define NO_GAIN (-1.7976931348623157e308)

static_assert(SEARCH_EDGE * SEARCH_EDGE == THREADS, "a thread for each offset");
static_assert(2 * (BOX / 2) <= SEARCH_FREQUENCIES, "a line fits");

/// Observed images to what a search needs of them: w H Y, or w Y if the image is already multiplied by H, and w H^2.
extern "C" __global__ void __launch_bounds__(THREADS)
    observe(const SearchArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->next);
    const unsigned image = blockIdx.y;
    const int at = blockIdx.x * THREADS + threadIdx.x;
    if (image >= pass->images || at >= args.frequencies) {
        return;
    }
    const ImageRecord &record = images_of(pass)[image];
    const int kx = args.places[2 * at], ky = args.places[2 * at + 1];
    const Observed seen = observed_at(record, args.resident, args.staged, args.noise, kx, ky, args.frequency_step);
    const float factor = record.premultiplied ? seen.weight : seen.h * seen.weight;
    args.images[(size_t)image * args.frequencies + at] =
        make_float4(factor * seen.y.x, factor * seen.y.y, seen.h * seen.h * seen.weight, 0.0f);
}

/// Whether a candidate is better than another, or equal and earlier.
__device__ __forceinline__ bool is_better(double gain, int offset, double other_gain, int other_offset) {
    return gain > other_gain || (gain == other_gain && offset < other_offset);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3)
    search(const SearchArguments args) {
    const PassRecord *const pass = pass_of(args.ring, args.ring->next);
    const unsigned image = blockIdx.y, rotation = blockIdx.x;
    if (image >= pass->images) {
        return;
    }
    const ImageRecord &record = images_of(pass)[image];
    const int limit = args.limit, side = 2 * args.radius + 1;
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __shared__ float rows[2][3];
    __shared__ float2 products[SEARCH_FREQUENCIES];
    __shared__ float2 of_lines[SEARCH_LINES][SEARCH_EDGE];
    __shared__ double sums[THREADS / 32], power_of_all, gains[THREADS / 32];
    __shared__ int offsets[THREADS / 32];
    if (threadIdx.x < 6) {
        const double *const row = args.rotations + (size_t)rotation * 9 + threadIdx.x / 3 * 3;
        const double *const column = record.view + threadIdx.x % 3;
        rows[threadIdx.x / 3][threadIdx.x % 3] =
            (float)(REFERENCE_PADDING * (row[0] * column[0] + row[1] * column[3] + row[2] * column[6]));
    }
    __syncthreads();
    const float4 *const of_image = args.images + (size_t)image * args.frequencies;
    // Phase of step `s` at frequency k: phases[s * (2 limit - 1) + k].
    const float2 *const phases = args.phases + (limit - 1);
    const int pitch = 2 * limit - 1;
    double best = NO_GAIN;
    int best_offset = 0;
    for (int top = 0; top < side; top += SEARCH_EDGE) {
        for (int left = 0; left < side; left += SEARCH_EDGE) {
            const int x = left + threadIdx.x % SEARCH_EDGE, y = top + threadIdx.x / SEARCH_EDGE;
            const bool is_offset = x < side && y < side;
            double overlap = 0.0, power = 0.0;
            for (int line = 0, end; line < limit; line = end) {
                const int first = args.lines[line];
                end = line + 1;
                while (end < limit && end - line < SEARCH_LINES && args.lines[end + 1] - first <= SEARCH_FREQUENCIES) {
                    end++;
                }
                for (int at = first + threadIdx.x; at < args.lines[end]; at += THREADS) {
                    const float kx = (float)args.places[2 * at], ky = (float)args.places[2 * at + 1];
                    const float place[3] = {kx * rows[0][0] + ky * rows[1][0], kx * rows[0][1] + ky * rows[1][1],
                                            kx * rows[0][2] + ky * rows[1][2]};
                    Slice slice;
                    slice_at<false>(args.reference, args.reference_limit, place, slice);
                    const float2 s = slice.value;
                    const float4 seen = of_image[at];
                    products[at - first] = make_float2(seen.x * s.x + seen.y * s.y, seen.y * s.x - seen.x * s.y);
                    power += (double)(seen.z * (s.x * s.x + s.y * s.y));
                }
                __syncthreads();
                for (int task = threadIdx.x; task < (end - line) * SEARCH_EDGE; task += THREADS) {
                    const int number = task / SEARCH_EDGE, step = top + task % SEARCH_EDGE;
                    float2 sum = {};
                    for (int at = args.lines[line + number]; step < side && at < args.lines[line + number + 1]; at++) {
                        const float2 product = products[at - first], phase = phases[step * pitch + args.places[2 * at + 1]];
                        sum.x += product.x * phase.x - product.y * phase.y;
                        sum.y += product.x * phase.y + product.y * phase.x;
                    }
                    of_lines[number][task % SEARCH_EDGE] = sum;
                }
                __syncthreads();
                float sum = 0.0f;
                for (int number = 0; is_offset && number < end - line; number++) {
                    const float2 product = of_lines[number][y - top], phase = phases[x * pitch + line + number];
                    sum += product.x * phase.x - product.y * phase.y;
                }
                overlap += (double)sum;
            }
            power = block_sum(power, sums);
            if (threadIdx.x == 0) {
                power_of_all = power;
            }
            __syncthreads();
            // Both frequencies of a Friedel pair count; slices are unnormalised, targets unitary.
            const double scale = 2.0 / BOX * record.contrast;
            const double dx = x - args.radius, dy = y - args.radius;
            double gain = scale * overlap - 0.5 * scale * record.contrast / BOX * power_of_all -
                          args.offset_penalty * (dx * dx + dy * dy);
            int offset = y * side + x;
            // False for NaN.
            gain = is_offset && gain >= NO_GAIN ? gain : NO_GAIN;
            for (int step = 16; step > 0; step >>= 1) {
                const double other_gain = __shfl_xor_sync(ALL_LANES, gain, step);
                const int other_offset = __shfl_xor_sync(ALL_LANES, offset, step);
                if (is_better(other_gain, other_offset, gain, offset)) {
                    gain = other_gain;
                    offset = other_offset;
                }
            }
            if (lane == 0) {
                gains[warp] = gain;
                offsets[warp] = offset;
            }
            __syncthreads();
            for (int k = 0; threadIdx.x == 0 && k < THREADS / 32; k++) {
                if (is_better(gains[k], offsets[k], best, best_offset)) {
                    best = gains[k];
                    best_offset = offsets[k];
                }
            }
        }
    }
    if (threadIdx.x == 0) {
        FoundRecord found;
        found.gain = best;
        found.x = best_offset % side - args.radius;
        found.y = best_offset / side - args.radius;
        args.found[(size_t)image * gridDim.x + rotation] = found;
    }
}
