// The device code of the self-test.
#pragma once

static const char SHARED_HEADER[] = R"(
#pragma once
struct Settings { const float *from; float factor; int count; };
__device__ __forceinline__ float scaled(float v) { return v * SCALE; }
template <int N> __device__ float block_sum(float v) {
    __shared__ float part[N];
    part[threadIdx.x] = v;
    __syncthreads();
    #pragma unroll
    for (int step = N / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
        __syncthreads();
    }
    return part[0];
}
)";

static const char KERNELS[] = R"(
#include "shared.cuh"
#define KERNEL extern "C" __global__ void
__constant__ float offsets[4];

KERNEL __launch_bounds__(256) scale(float *to, const float *__restrict__ from, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = scaled(from[i]);
}
KERNEL by_struct(float *to, const __grid_constant__ Settings settings) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < settings.count) to[i] = settings.from[i] * settings.factor;
}
KERNEL sums(float *to, const float *from) { 
    float s = block_sum<256>(from[blockIdx.x * 256 + threadIdx.x]);
    if (threadIdx.x == 0) to[blockIdx.x] = s;
}
KERNEL reversed(unsigned *to) {
    extern __shared__ __align__(16) unsigned char raw[];
    unsigned *words = reinterpret_cast<unsigned *>(raw);
    words[threadIdx.x] = threadIdx.x;
    __syncthreads();
    to[blockIdx.x * blockDim.x + threadIdx.x] = words[blockDim.x - 1 - threadIdx.x];
}
KERNEL warp_things(unsigned *to, double *doubles) {
    unsigned lane = threadIdx.x % 32, v = threadIdx.x;
    for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    unsigned up = __shfl_up_sync(0xffffffffu, threadIdx.x, 1), down = __shfl_down_sync(0xffffffffu, threadIdx.x, 2, 8);
    unsigned odd = __ballot_sync(0xffffffffu, lane & 1);
    unsigned low = 0;
    if (lane < 16) low = __popc(__ballot_sync(0x0000ffffu, lane < 3));
    __syncwarp();
    bool any = __any_sync(0xffffffffu, lane == 5), all = __all_sync(0xffffffffu, lane < 31);
    double d = __shfl_sync(0xffffffffu, double(threadIdx.x) * 0.5, 3);
    unsigned *mine = to + threadIdx.x * 6;
    mine[0] = v, mine[1] = up, mine[2] = down, mine[3] = odd, mine[4] = low, mine[5] = any * 2 + all;
    doubles[threadIdx.x] = d;
}
KERNEL atomics(unsigned *u, int *i, float *f, double *d, unsigned long long *l) {
    atomicAdd(u, 1u); atomicMax(i, int(threadIdx.x)); atomicAdd(f, 0.5f); atomicAdd(d, 0.25);
    atomicAdd(l, 1ull << 33); atomicMin(i + 1, -int(threadIdx.x)); atomicOr(u + 1, 1u << threadIdx.x % 32); atomicInc(u + 2, 9u);
}
KERNEL votes(int *to) {
    int any = __syncthreads_or(threadIdx.x == 7), all = __syncthreads_and(threadIdx.x < 64), n = __syncthreads_count(threadIdx.x % 3 == 0);
    if (threadIdx.x == 0) to[0] = any, to[1] = all, to[2] = n;
}
KERNEL early_exit(int *to) {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    if (threadIdx.x == 0) to[0] = 1;
}
KERNEL divergent(int *to) {
    if (threadIdx.x < 32) __syncthreads();
    else __syncthreads_or(1);
    to[threadIdx.x] = 1;
}
KERNEL missing_lane(int *to) {
    if (threadIdx.x != 9) to[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
    else __syncthreads();
}
KERNEL wrong_source(int *to) {
    if (threadIdx.x < 8) to[threadIdx.x] = __shfl_sync(0x000000ffu, 1, 20);
}
KERNEL uninitialised(float *to) {
    __shared__ float shared[64];
    to[threadIdx.x] = shared[threadIdx.x];
    shared[threadIdx.x] = 1.0f;
}
KERNEL order(unsigned *to, unsigned *next) { to[atomicAdd(next, 1u)] = blockIdx.x; }
KERNEL write_at(float *to, int at) { to[at] = 1.0f; }
struct Target { float *to; int at; };
KERNEL write_at_target(Target target) { target.to[target.at] = 1.0f; }
KERNEL overrun_shared(unsigned *to) {
    extern __shared__ unsigned some[];
    some[blockDim.x + 16 + threadIdx.x] = 1;
    to[0] = some[0];
}
KERNEL recurse(float *to, int depth) {
    volatile float big[4096];
    big[depth % 4096] = depth;
    if (depth > 0) { struct Deeper { static float go(int d) { volatile float more[4096]; more[d % 4096] = d; return d > 0 ? go(d - 1) + more[d % 4096] : 0.0f; } }; to[0] = Deeper::go(depth); }
    to[1] = big[0];
}
KERNEL outside_array(float *to, int at) {
    __shared__ float shared[16];
    shared[at] = 1.0f;
    to[0] = shared[0];
}
KERNEL constants(float *to) { to[threadIdx.x] = offsets[threadIdx.x]; }
KERNEL add_one(float *to, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] += 1.0f;
}
KERNEL barriers(float *to, int count) {
    __shared__ float shared[1024];
    shared[threadIdx.x] = 0.0f;
    for (int i = 0; i < count; ++i) {
        __syncthreads();
        shared[(threadIdx.x + i) % blockDim.x] += 1.0f;
    }
    __syncthreads();
    to[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x];
}
KERNEL mathematics(float *to) {
    float s, c;
    sincospif(0.5f, &s, &c);
    to[0] = s, to[1] = c, to[2] = exp2f(3.0f), to[3] = rsqrtf(4.0f), to[4] = __fmaf_rn(2.0f, 3.0f, 1.0f), to[5] = sinpif(1.0f);
    to[6] = float(__clz(1)), to[7] = float(__ffs(8)), to[8] = __uint_as_float(__float_as_uint(1.5f)), to[9] = float(__brev(1u) == 0x80000000u);
    to[10] = float(max(-1, 3)), to[11] = fminf(1.0f, 2.0f), to[12] = float(isfinite(1.0f / 0.0f)), to[13] = cospif(1.0f);
}
KERNEL asserts(int *to) { assert(to == nullptr); }
)";
