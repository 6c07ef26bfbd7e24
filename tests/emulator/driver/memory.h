// Device memory: host memory in an address range of its own, each allocation between inaccessible pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <map>
#include <string>

#include "../common/cuda_types.h"

namespace emulator {

/// An f32, an f64 or (every second) an f16 NaN, and an index far out of bounds: nothing computed from it looks right.
constexpr uint32_t POISON = 0xFFFFCDCDu;
void poison(void *from, size_t bytes);

struct Allocation {
    char *base;
    size_t bytes;
    char *slack_before, *slack_after;  // the rest of the pages on both sides, filled with a pattern
    char *pages;
    size_t page_bytes;
    bool of_module;  // a __constant__ or __device__ variable: not the program's to free
};

/// The memory of one device.
class Memory {
  public:
    Memory(int device, size_t total);
    Result allocate(size_t bytes, DevicePointer *result);
    Result release(DevicePointer pointer);
    void add_module_variable(void *base, size_t bytes);
    void remove_module_variable(void *base);

    /// Whether [pointer, pointer + bytes) lies within one live allocation.
    bool holds(const void *pointer, size_t bytes);
    bool find(const void *pointer, Allocation *found);
    /// Whether the address belongs to this device's range at all, live or not.
    bool in_range(const void *pointer) const { return pointer >= range_ && pointer < range_ + range_bytes_; }
    /// What is at or nearest to an address, in words.
    std::string describe(const void *pointer);
    /// Checks the pattern around the allocation that holds `pointer`; false, with a line on stderr, if it was overwritten.
    bool intact(const void *pointer, const char *blame);

    size_t total() const { return total_; }
    size_t free_bytes();
    size_t live_count();
    size_t live_bytes();

  private:
    bool intact(const Allocation &allocation, const char *blame);
    int device_;
    size_t total_, used_ = 0;
    char *range_ = nullptr, *next_ = nullptr;
    size_t range_bytes_ = 0;
    std::mutex mutex_;
    std::map<const char *, Allocation> live_;
    std::map<const char *, Allocation> freed_;  // to name a use after free
};

/// Pinned host memory: allocated here, or the program's own and registered.
class HostMemory {
  public:
    Result allocate(size_t bytes, unsigned flags, void **result);
    Result release(void *pointer);
    Result add(void *pointer, size_t bytes);
    Result remove(void *pointer);
    bool holds(const void *pointer, size_t bytes);
    size_t allocated_count();
    size_t registered_count();
    bool flags(const void *pointer, unsigned *flags);

  private:
    struct Range {
        size_t bytes;
        bool allocated;
        unsigned flags;
    };
    std::mutex mutex_;
    std::map<const char *, Range> ranges_;
};

}  // namespace emulator
