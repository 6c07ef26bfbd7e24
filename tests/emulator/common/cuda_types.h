// The names, numbers and layouts of the CUDA driver interface that the emulator answers to, as its documentation gives them.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))

enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    UNSUPPORTED_LIMIT = 215,
    FILE_NOT_FOUND = 301,
    SHARED_OBJECT_INIT_FAILED = 303,
    OPERATING_SYSTEM = 304,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    ASSERT = 710,
    HOST_MEMORY_ALREADY_REGISTERED = 712,
    HOST_MEMORY_NOT_REGISTERED = 713,
    LAUNCH_FAILED = 719,
    NOT_PERMITTED = 800,
    NOT_SUPPORTED = 801,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_INVALIDATED = 901,
    STREAM_CAPTURE_MERGE = 902,
    STREAM_CAPTURE_UNMATCHED = 903,
    STREAM_CAPTURE_UNJOINED = 904,
    STREAM_CAPTURE_ISOLATION = 905,
    STREAM_CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    STREAM_CAPTURE_WRONG_THREAD = 908,
    EXTERNAL_DEVICE = 911,
    UNKNOWN = 999,
};

typedef unsigned long long DevicePointer;
struct Uuid {
    unsigned char bytes[16];
};

/// What the emulated cuFFT and NCCL need of the emulated driver; they get it from `emulator_driver_interface()`.
struct DriverInterface {
    /// Appends work to a stream (or to its capture). `body` may run many times (graph replay); `release` runs once, after.
    Result (*enqueue)(void *stream, const char *label, Result (*body)(void *payload), void *payload, void (*release)(void *payload));
    /// Whether [pointer, pointer + bytes) lies in one live allocation of the current device; if not, reports it on stderr.
    Result (*check_range)(const void *pointer, size_t bytes, const char *what);
    /// Counts handles of other libraries for the report of leaks at the end of the process.
    void (*count)(const char *kind, int change);
    /// The current context's device and its identity.
    Result (*current_device)(int *device, Uuid *uuid);
    Result (*allocate)(DevicePointer *pointer, size_t bytes);
    Result (*release)(DevicePointer pointer);
};
EMULATOR_EXPORT const DriverInterface *emulator_driver_interface();
