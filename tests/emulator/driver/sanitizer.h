// Annotations for AddressSanitizer: bytes out of bounds, and switches to a fiber's stack. Empty without it.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitizing() { return true; }
inline void sanitizer_poison(void *from, size_t bytes) { __asan_poison_memory_region(from, bytes); }
inline void sanitizer_unpoison(void *from, size_t bytes) { __asan_unpoison_memory_region(from, bytes); }
inline void sanitizer_leaves(void **fake, const void *stack, size_t bytes) { __sanitizer_start_switch_fiber(fake, stack, bytes); }
inline void sanitizer_arrives(void *fake, const void **stack, size_t *bytes) { __sanitizer_finish_switch_fiber(fake, stack, bytes); }
#else
constexpr bool sanitizing() { return false; }
inline void sanitizer_poison(void *, size_t) {}
inline void sanitizer_unpoison(void *, size_t) {}
inline void sanitizer_leaves(void **, const void *, size_t) {}
inline void sanitizer_arrives(void *, const void **, size_t *) {}
#endif

}  // namespace emulator
