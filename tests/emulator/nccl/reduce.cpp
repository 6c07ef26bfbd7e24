// The arithmetic of reductions.
#include "communicator.h"

namespace emulator {
namespace {

enum Operation { SUM = 0, PRODUCT = 1, MAX = 2, MIN = 3, AVERAGE = 4 };

template <class T>
void reduce_as(T *to, const void *const *from, int ranks, size_t count, int operation) {
    for (size_t i = 0; i < count; ++i) {
        T value = static_cast<const T *>(from[0])[i];
        for (int rank = 1; rank < ranks; ++rank) {
            T next = static_cast<const T *>(from[rank])[i];
            switch (operation) {
            case PRODUCT: value = T(value * next); break;
            case MAX: value = next > value ? next : value; break;
            case MIN: value = next < value ? next : value; break;
            default: value = T(value + next);
            }
        }
        to[i] = operation == AVERAGE ? T(value / T(ranks)) : value;
    }
}

}  // namespace

size_t type_bytes(int type) {
    switch (type) {
    case 0: case 1: return 1;
    case 2: case 3: case 7: return 4;
    case 4: case 5: case 8: return 8;
    default: return 0;  // the half-precision types
    }
}

bool reducible(int type, int operation) { return type_bytes(type) > 0 && operation >= SUM && operation <= AVERAGE; }

void reduce(void *to, const void *const *from, int ranks, size_t count, int type, int operation) {
    switch (type) {
    case 0: return reduce_as(static_cast<int8_t *>(to), from, ranks, count, operation);
    case 1: return reduce_as(static_cast<uint8_t *>(to), from, ranks, count, operation);
    case 2: return reduce_as(static_cast<int32_t *>(to), from, ranks, count, operation);
    case 3: return reduce_as(static_cast<uint32_t *>(to), from, ranks, count, operation);
    case 4: return reduce_as(static_cast<int64_t *>(to), from, ranks, count, operation);
    case 5: return reduce_as(static_cast<uint64_t *>(to), from, ranks, count, operation);
    case 7: return reduce_as(static_cast<float *>(to), from, ranks, count, operation);
    case 8: return reduce_as(static_cast<double *>(to), from, ranks, count, operation);
    }
}

}  // namespace emulator
