// CUDA's short vector types and their make_ functions, with CUDA's sizes and alignments.
#pragma once

typedef emulator::Index3 uint3;

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define EMULATOR_VECTOR2(TYPE, SCALAR, ALIGNMENT)                     \
    struct __attribute__((aligned(ALIGNMENT))) TYPE {                 \
        SCALAR x, y;                                                  \
    };                                                                \
    static inline TYPE make_##TYPE(SCALAR x, SCALAR y) { return TYPE{x, y}; }
#define EMULATOR_VECTOR3(TYPE, SCALAR)                                \
    struct TYPE {                                                     \
        SCALAR x, y, z;                                               \
    };                                                                \
    static inline TYPE make_##TYPE(SCALAR x, SCALAR y, SCALAR z) { return TYPE{x, y, z}; }
#define EMULATOR_VECTOR4(TYPE, SCALAR, ALIGNMENT)                     \
    struct __attribute__((aligned(ALIGNMENT))) TYPE {                 \
        SCALAR x, y, z, w;                                            \
    };                                                                \
    static inline TYPE make_##TYPE(SCALAR x, SCALAR y, SCALAR z, SCALAR w) { return TYPE{x, y, z, w}; }

EMULATOR_VECTOR2(char2, signed char, 2)
EMULATOR_VECTOR2(uchar2, unsigned char, 2)
EMULATOR_VECTOR2(short2, short, 4)
EMULATOR_VECTOR2(ushort2, unsigned short, 4)
EMULATOR_VECTOR2(int2, int, 8)
EMULATOR_VECTOR2(uint2, unsigned, 8)
EMULATOR_VECTOR2(float2, float, 8)
EMULATOR_VECTOR2(double2, double, 16)
EMULATOR_VECTOR2(longlong2, long long, 16)
EMULATOR_VECTOR2(ulonglong2, unsigned long long, 16)
EMULATOR_VECTOR3(int3, int)
EMULATOR_VECTOR3(float3, float)
EMULATOR_VECTOR3(double3, double)
EMULATOR_VECTOR4(char4, signed char, 4)
EMULATOR_VECTOR4(uchar4, unsigned char, 4)
EMULATOR_VECTOR4(short4, short, 8)
EMULATOR_VECTOR4(ushort4, unsigned short, 8)
EMULATOR_VECTOR4(int4, int, 16)
EMULATOR_VECTOR4(uint4, unsigned, 16)
EMULATOR_VECTOR4(float4, float, 16)
EMULATOR_VECTOR4(double4, double, 16)

static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }
