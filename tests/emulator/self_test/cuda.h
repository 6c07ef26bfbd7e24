// The calls under test, declared as the vendor's headers declare them (handles as void pointers).
#pragma once
#include <cstddef>
#include <cstdint>

typedef unsigned long long CUdeviceptr;
struct UniqueId {
    char bytes[128];
};
/// ncclConfig_t of NCCL 2.22.
struct NcclConfig {
    size_t size = 48;
    unsigned magic = 0xcafebeef, version = 22200;
    int blocking = 1, cga = -2147483648, min_ctas = -2147483648, max_ctas = -2147483648;
    const char *net = nullptr;
    int split_share = -2147483648;
};

extern "C" {
int cuInit(unsigned);
int cuDeviceGetCount(int *);
int cuDeviceGetUuid(void *, int);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuCtxSynchronize();
int cuMemAlloc_v2(CUdeviceptr *, size_t);
int cuMemFree_v2(CUdeviceptr);
int cuMemGetInfo_v2(size_t *, size_t *);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemFreeHost(void *);
int cuMemcpyHtoD_v2(CUdeviceptr, const void *, size_t);
int cuMemcpyDtoH_v2(void *, CUdeviceptr, size_t);
int cuMemcpyHtoDAsync_v2(CUdeviceptr, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, CUdeviceptr, size_t, void *);
int cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, size_t, void *);
int cuMemsetD8Async(CUdeviceptr, unsigned char, size_t, void *);
int cuMemsetD32_v2(CUdeviceptr, unsigned, size_t);
int cuStreamCreate(void **, unsigned);
int cuStreamDestroy_v2(void *);
int cuStreamSynchronize(void *);
int cuStreamQuery(void *);
int cuStreamWaitEvent(void *, void *, unsigned);
int cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **);
int cuStreamIsCapturing(void *, int *);
int cuEventCreate(void **, unsigned);
int cuEventRecord(void *, void *);
int cuEventQuery(void *);
int cuEventSynchronize(void *);
int cuEventDestroy_v2(void *);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);
int cuGraphLaunch(void *, void *);
int cuGraphDestroy(void *);
int cuGraphExecDestroy(void *);
int cuModuleLoadData(void **, const void *);
int cuModuleUnload(void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuModuleGetGlobal_v2(CUdeviceptr *, size_t *, void *, const char *);
int cuFuncGetAttribute(int *, int, void *);
int cuFuncSetAttribute(void *, int, int);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
int cuLaunchHostFunc(void *, void (*)(void *), void *);

int nvrtcCreateProgram(void **, const char *, const char *, int, const char *const *, const char *const *);
int nvrtcCompileProgram(void *, int, const char *const *);
int nvrtcGetCUBINSize(void *, size_t *);
int nvrtcGetCUBIN(void *, char *);
int nvrtcGetPTXSize(void *, size_t *);
int nvrtcGetPTX(void *, char *);
int nvrtcGetProgramLogSize(void *, size_t *);
int nvrtcGetProgramLog(void *, char *);
int nvrtcDestroyProgram(void **);

int cufftCreate(int *);
int cufftPlanMany(int *, int, int *, int *, int, int, int *, int, int, int, int);
int cufftMakePlanMany(int, int, int *, int *, int, int, int *, int, int, int, int, size_t *);
int cufftSetAutoAllocation(int, int);
int cufftSetWorkArea(int, void *);
int cufftSetStream(int, void *);
int cufftExecR2C(int, float *, void *);
int cufftExecC2R(int, void *, float *);
int cufftDestroy(int);

int ncclGetUniqueId(UniqueId *);
int ncclCommInitRank(void **, int, UniqueId, int);
int ncclCommInitRankConfig(void **, int, UniqueId, int, NcclConfig *);
int ncclCommGetAsyncError(void *, int *);
int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *);
int ncclBroadcast(const void *, void *, size_t, int, int, void *, void *);
int ncclCommFinalize(void *);
int ncclCommDestroy(void *);
int ncclCommAbort(void *);
const char *ncclGetLastError(void *);
}
