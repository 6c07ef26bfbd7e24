// The mathematical functions and intrinsics of CUDA that the C library does not have under that name.
// They round as in IEEE 754; the fast intrinsics of a GPU (__expf and the like) are less exact than these.
#pragma once

template <class To, class From>
static inline To emulator_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "bits are only seen as a type of the same size");
    To result;
    memcpy(&result, &value, sizeof(To));
    return result;
}
static inline unsigned __float_as_uint(float v) { return emulator_bits<unsigned>(v); }
static inline int __float_as_int(float v) { return emulator_bits<int>(v); }
static inline float __uint_as_float(unsigned v) { return emulator_bits<float>(v); }
static inline float __int_as_float(int v) { return emulator_bits<float>(v); }
static inline long long __double_as_longlong(double v) { return emulator_bits<long long>(v); }
static inline double __longlong_as_double(long long v) { return emulator_bits<double>(v); }
static inline int __double2hiint(double v) { return int(emulator_bits<uint64_t>(v) >> 32); }
static inline int __double2loint(double v) { return int(emulator_bits<uint64_t>(v)); }
static inline double __hiloint2double(int high, int low) {
    return emulator_bits<double>(uint64_t(unsigned(high)) << 32 | unsigned(low));
}

static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
static inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll((unsigned long long)v); }
static inline unsigned __brev(unsigned v) {
    unsigned result = 0;
    for (int bit = 0; bit < 32; ++bit) result |= (v >> bit & 1u) << (31 - bit);
    return result;
}
static inline unsigned long long __brevll(unsigned long long v) {
    return (unsigned long long)__brev(unsigned(v)) << 32 | __brev(unsigned(v >> 32));
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
static inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __mul24(int a, int b) { return ((a << 8) >> 8) * ((b << 8) >> 8); }
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((uint64_t(high) << 32 | low) << (shift & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline void __stcs(T *p, T v) { *p = v; }
template <class T> static inline void __stcg(T *p, T v) { *p = v; }
template <class T> static inline void __stwt(T *p, T v) { *p = v; }

#define EMULATOR_MIN_MAX(T)                                       \
    static inline T min(T a, T b) { return b < a ? b : a; }       \
    static inline T max(T a, T b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
// CUDA's min and max of mixed signs compare as unsigned.
static inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
static inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
static inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
static inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

constexpr double EMULATOR_PI = 3.14159265358979323846;
static inline double sinpi(double v) {
    double turned = fmod(fabs(v), 2.0);  // exact, so that whole and half turns give exact results
    double result = turned <= 0.25   ? sin(EMULATOR_PI * turned)
                    : turned <= 0.75 ? cos(EMULATOR_PI * (0.5 - turned))
                    : turned <= 1.25 ? sin(EMULATOR_PI * (1.0 - turned))
                    : turned <= 1.75 ? -cos(EMULATOR_PI * (1.5 - turned))
                                     : sin(EMULATOR_PI * (turned - 2.0));
    return copysign(1.0, v) * result;
}
static inline double cospi(double v) { return sinpi(fmod(fabs(v), 2.0) + 0.5); }
static inline float sinpif(float v) { return float(sinpi(double(v))); }
static inline float cospif(float v) { return float(cospi(double(v))); }
static inline void sincospi(double v, double *s, double *c) { *s = sinpi(v), *c = cospi(v); }
static inline void sincospif(float v, float *s, float *c) { *s = sinpif(v), *c = cospif(v); }
static inline float rsqrtf(float v) { return float(1.0 / sqrt(double(v))); }
static inline double rsqrt(double v) { return 1.0 / sqrt(v); }
static inline float rcbrtf(float v) { return float(1.0 / cbrt(double(v))); }
static inline float norm3df(float a, float b, float c) { return float(sqrt(double(a) * a + double(b) * b + double(c) * c)); }
static inline float saturate(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
static inline float __saturatef(float v) { return saturate(v); }
static inline float fdividef(float a, float b) { return a / b; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float v) { return 1.0f / v; }
static inline float __frsqrt_rn(float v) { return rsqrtf(v); }
static inline float __fsqrt_rn(float v) { return sqrtf(v); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double v) { return sqrt(v); }
// The C library declares these very names for itself, so they are given other ones here.
#define __expf emulator_fast_expf
#define __exp10f emulator_fast_exp10f
#define __logf emulator_fast_logf
#define __log2f emulator_fast_log2f
#define __log10f emulator_fast_log10f
#define __powf emulator_fast_powf
#define __sinf emulator_fast_sinf
#define __cosf emulator_fast_cosf
#define __tanf emulator_fast_tanf
#define __sincosf emulator_fast_sincosf
static inline float emulator_fast_expf(float v) { return expf(v); }
static inline float emulator_fast_exp10f(float v) { return float(pow(10.0, double(v))); }
static inline float emulator_fast_logf(float v) { return logf(v); }
static inline float emulator_fast_log2f(float v) { return log2f(v); }
static inline float emulator_fast_log10f(float v) { return log10f(v); }
static inline float emulator_fast_powf(float a, float b) { return powf(a, b); }
static inline float emulator_fast_sinf(float v) { return sinf(v); }
static inline float emulator_fast_cosf(float v) { return cosf(v); }
static inline float emulator_fast_tanf(float v) { return tanf(v); }
static inline void emulator_fast_sincosf(float v, float *s, float *c) { *s = sinf(v), *c = cosf(v); }

// Conversions saturate, and take NaN to zero, as CUDA's do; a plain C++ cast would be undefined.
template <class I>
static inline I emulator_to_integer(double v) {
    if (v != v) return 0;
    if (v <= double(std::is_signed<I>::value ? -(I(1) << (sizeof(I) * 8 - 2)) * 2.0 : 0.0))
        return std::is_signed<I>::value ? I(I(1) << (sizeof(I) * 8 - 1)) : I(0);
    const I largest = std::is_signed<I>::value ? I(~(I(1) << (sizeof(I) * 8 - 1))) : I(~I(0));
    return v >= double(largest) ? largest : I(v);
}
static inline int __float2int_rn(float v) { return emulator_to_integer<int>(rint(v)); }
static inline int __float2int_rz(float v) { return emulator_to_integer<int>(trunc(v)); }
static inline int __float2int_rd(float v) { return emulator_to_integer<int>(floor(v)); }
static inline int __float2int_ru(float v) { return emulator_to_integer<int>(ceil(v)); }
static inline unsigned __float2uint_rn(float v) { return emulator_to_integer<unsigned>(rint(v)); }
static inline unsigned __float2uint_rz(float v) { return emulator_to_integer<unsigned>(trunc(v)); }
static inline int __double2int_rn(double v) { return emulator_to_integer<int>(rint(v)); }
static inline long long __float2ll_rn(float v) { return emulator_to_integer<long long>(rint(v)); }
static inline long long __double2ll_rn(double v) { return emulator_to_integer<long long>(rint(v)); }
static inline float __int2float_rn(int v) { return float(v); }
static inline float __uint2float_rn(unsigned v) { return float(v); }
static inline float __double2float_rn(double v) { return float(v); }
