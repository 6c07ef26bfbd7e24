// Device and pinned host memory. A device allocation ends (to its 256-byte alignment) at an inaccessible page, and freed
// addresses stay inaccessible for good, so that most stray accesses of a kernel fault at once.
#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "../common/injection.h"
#include "sanitizer.h"

namespace emulator {
namespace {

constexpr size_t ALIGNMENT = 256;  // what CUDA promises
constexpr unsigned char SLACK = 0xFB;
constexpr size_t PAGE = 4096;
size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

void poison(void *from, size_t bytes) {
    char *to = static_cast<char *>(from);
    uint32_t pattern[64];
    for (uint32_t &word : pattern) word = POISON;
    for (; bytes >= sizeof pattern; to += sizeof pattern, bytes -= sizeof pattern) memcpy(to, pattern, sizeof pattern);
    memcpy(to, pattern, bytes);
}

Memory::Memory(int device, size_t total) : device_(device), total_(total) {
    // Addresses are never given out twice; where the system grants less address space, try less.
    for (range_bytes_ = size_t(1) << 40; range_bytes_ >= total; range_bytes_ /= 4) {
        void *found = mmap(nullptr, range_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (found == MAP_FAILED) continue;
        range_ = next_ = static_cast<char *>(found);
        return;
    }
    report("cannot reserve address space for device %d", device);
    abort();
}

Result Memory::allocate(size_t bytes, DevicePointer *result) {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t rounded = round_up(bytes, ALIGNMENT), page_bytes = round_up(bytes, PAGE);
    if (bytes > total_ || used_ + rounded > total_) return OUT_OF_MEMORY;
    if (page_bytes + 2 * PAGE > size_t(range_ + range_bytes_ - next_)) {
        report("device %d: the emulator's address space is used up", device_);
        return OUT_OF_MEMORY;
    }
    Allocation allocation;
    allocation.pages = next_ + PAGE;
    allocation.page_bytes = page_bytes;
    if (mprotect(allocation.pages, page_bytes, PROT_READ | PROT_WRITE) != 0) return OUT_OF_MEMORY;
    allocation.base = allocation.pages + page_bytes - rounded;
    allocation.bytes = bytes;
    allocation.slack_before = allocation.pages;
    allocation.slack_after = allocation.base + bytes;
    allocation.of_module = false;
    next_ = allocation.pages + page_bytes;
    memset(allocation.slack_before, SLACK, size_t(allocation.base - allocation.slack_before));
    poison(allocation.base, bytes);
    memset(allocation.slack_after, SLACK, rounded - bytes);
    sanitizer_poison(allocation.slack_before, size_t(allocation.base - allocation.slack_before));
    sanitizer_poison(allocation.slack_after, rounded - bytes);
    used_ += rounded;
    live_[allocation.base] = allocation;
    *result = DevicePointer(uintptr_t(allocation.base));
    return SUCCESS;
}

Result Memory::release(DevicePointer pointer) {
    if (pointer == 0) return SUCCESS;
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = live_.find(reinterpret_cast<char *>(uintptr_t(pointer)));
    if (found == live_.end() || found->second.of_module) {
        bool twice = freed_.count(reinterpret_cast<char *>(uintptr_t(pointer))) != 0;
        report("free of 0x%llx on device %d: %s", pointer, device_,
            twice ? "it has been freed before" : "no allocation of this device starts there");
        return INVALID_VALUE;
    }
    Allocation allocation = found->second;
    bool good = intact(allocation, "before it was freed");
    // Dropping the pages gives the memory back; the addresses stay reserved.
    sanitizer_unpoison(allocation.pages, allocation.page_bytes);
    mmap(allocation.pages, allocation.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    used_ -= round_up(allocation.bytes, ALIGNMENT);
    live_.erase(found);
    freed_[allocation.base] = allocation;
    return good ? SUCCESS : ILLEGAL_ADDRESS;
}

void Memory::add_module_variable(void *base, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    char *from = static_cast<char *>(base);
    live_[from] = Allocation{from, bytes, from, from + bytes, from, 0, true};
}

void Memory::remove_module_variable(void *base) {
    std::lock_guard<std::mutex> lock(mutex_);
    live_.erase(static_cast<char *>(base));
}

bool Memory::find(const void *pointer, Allocation *result) {
    std::lock_guard<std::mutex> lock(mutex_);
    const char *address = static_cast<const char *>(pointer);
    auto after = live_.upper_bound(address);
    if (after == live_.begin()) return false;
    const Allocation &allocation = std::prev(after)->second;
    if (address > allocation.base + allocation.bytes) return false;
    *result = allocation;
    return true;
}

bool Memory::holds(const void *pointer, size_t bytes) {
    Allocation allocation;
    return find(pointer, &allocation) &&
           bytes <= size_t(allocation.base + allocation.bytes - static_cast<const char *>(pointer));
}

std::string Memory::describe(const void *pointer) {
    // Called from a signal handler too: then the lock may be held by the faulting thread, and a guess is better than a hang.
    std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return "in the device's address range";
    const char *address = static_cast<const char *>(pointer);
    char text[200];
    auto nearest = [&](const std::map<const char *, Allocation> &among, const char *state) {
        auto after = among.upper_bound(address);
        const Allocation *best = nullptr;
        long long best_distance = 1 << 30;
        if (after != among.end()) {
            best = &after->second, best_distance = best->base - address;
            snprintf(text, sizeof text, "%lld bytes before %s of %zu bytes at %p", best_distance, state, best->bytes, (void *)best->base);
        }
        if (after != among.begin()) {
            const Allocation &before = std::prev(after)->second;
            long long past = address - (before.base + before.bytes);
            if (past < 0) {
                snprintf(text, sizeof text, "%lld bytes into %s of %zu bytes at %p", (long long)(address - before.base), state,
                         before.bytes, (void *)before.base);
                return 0LL;
            }
            if (past < best_distance) {
                best_distance = past;
                snprintf(text, sizeof text, "%lld bytes past the end of %s of %zu bytes at %p", past, state, before.bytes,
                         (void *)before.base);
            }
        }
        return best_distance;
    };
    if (nearest(freed_, "a freed allocation") == 0) return text;
    if (nearest(live_, "an allocation") < (1 << 30)) return text;
    return "far from any allocation";
}

bool Memory::intact(const Allocation &allocation, const char *blame) {
    if (allocation.of_module || sanitizing()) return true;  // the sanitizer watches those bytes itself
    const char *end = allocation.pages + allocation.page_bytes;
    auto changed = [](const char *from, const char *to) {
        for (const char *at = from; at < to; ++at)
            if (static_cast<unsigned char>(*at) != SLACK) return true;
        return false;
    };
    // Far from the edge a stray write is unlikely, and looking there each time is slow.
    const char *before = allocation.base - allocation.slack_before > 256 ? allocation.base - 256 : allocation.slack_before;
    bool low = changed(before, allocation.base), high = changed(allocation.slack_after, end);
    if (!low && !high) return true;
    report("memory %s an allocation of %zu bytes at %p was written to %s", low ? "before" : "past the end of", allocation.bytes,
        (void *)allocation.base, blame);
    return false;
}

bool Memory::intact(const void *pointer, const char *blame) {
    Allocation allocation;
    return !find(pointer, &allocation) || intact(allocation, blame);
}

size_t Memory::free_bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    return total_ - used_;
}

size_t Memory::live_count() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t count = 0;
    for (auto &entry : live_) count += !entry.second.of_module;
    return count;
}

size_t Memory::live_bytes() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t bytes = 0;
    for (auto &entry : live_) bytes += entry.second.of_module ? 0 : entry.second.bytes;
    return bytes;
}

Result HostMemory::allocate(size_t bytes, unsigned flags, void **result) {
    if (bytes == 0) return INVALID_VALUE;
    size_t rounded = round_up(bytes, PAGE);
    char *pages = static_cast<char *>(
        mmap(nullptr, rounded + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(pages + rounded, PAGE, PROT_NONE);
    poison(pages, rounded);
    std::lock_guard<std::mutex> lock(mutex_);
    ranges_[pages] = Range{bytes, true, flags};
    *result = pages;
    return SUCCESS;
}

Result HostMemory::release(void *pointer) {
    if (!pointer) return SUCCESS;
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = ranges_.find(static_cast<char *>(pointer));
    if (found == ranges_.end() || !found->second.allocated) {
        report("free of pinned host memory %p: not allocated by cuMemHostAlloc, or freed before", pointer);
        return INVALID_VALUE;
    }
    munmap(pointer, round_up(found->second.bytes, PAGE) + PAGE);
    ranges_.erase(found);
    return SUCCESS;
}

Result HostMemory::add(void *pointer, size_t bytes) {
    if (!pointer || bytes == 0) return INVALID_VALUE;
    std::lock_guard<std::mutex> lock(mutex_);
    const char *from = static_cast<char *>(pointer);
    auto after = ranges_.lower_bound(from + bytes);
    if (after != ranges_.begin() && std::prev(after)->first + std::prev(after)->second.bytes > from)
        return HOST_MEMORY_ALREADY_REGISTERED;
    ranges_[from] = Range{bytes, false, 0};
    return SUCCESS;
}

Result HostMemory::remove(void *pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = ranges_.find(static_cast<char *>(pointer));
    if (found == ranges_.end() || found->second.allocated) return HOST_MEMORY_NOT_REGISTERED;
    ranges_.erase(found);
    return SUCCESS;
}

bool HostMemory::holds(const void *pointer, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    const char *from = static_cast<const char *>(pointer);
    auto after = ranges_.upper_bound(from);
    return after != ranges_.begin() && from + bytes <= std::prev(after)->first + std::prev(after)->second.bytes;
}

bool HostMemory::flags(const void *pointer, unsigned *flags) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = ranges_.find(static_cast<const char *>(pointer));
    if (found == ranges_.end()) return false;
    *flags = found->second.flags;
    return true;
}

size_t HostMemory::allocated_count() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t count = 0;
    for (auto &entry : ranges_) count += entry.second.allocated;
    return count;
}

size_t HostMemory::registered_count() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t count = 0;
    for (auto &entry : ranges_) count += !entry.second.allocated;
    return count;
}

}  // namespace emulator
