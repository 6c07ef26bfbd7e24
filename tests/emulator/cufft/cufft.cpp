// cuFFT's calls: plans of one to three dimensions, batched, with any layout, executed in stream order.
#include <climits>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "../common/cuda_types.h"
#include "../common/injection.h"
#include "transform.h"

using namespace emulator;

namespace {

enum FftResult : int {
    FFT_SUCCESS = 0, FFT_INVALID_PLAN = 1, FFT_ALLOC_FAILED = 2, FFT_INVALID_TYPE = 3, FFT_INVALID_VALUE = 4, FFT_INTERNAL_ERROR = 5,
    FFT_EXEC_FAILED = 6, FFT_SETUP_FAILED = 7, FFT_INVALID_SIZE = 8, FFT_NO_WORKSPACE = 13, FFT_NOT_IMPLEMENTED = 14,
};
enum Type : int { C2C = 41, R2C = 42, C2R = 44, Z2Z = 105, D2Z = 106, Z2D = 108 };

/// How one side of a transform lies in memory, in elements of its own type.
struct Layout {
    long long embed[3], stride, distance;
    long long index(const long long *at) const { return ((at[0] * embed[1] + at[1]) * embed[2] + at[2]) * stride; }
};

struct Plan {
    bool made = false, automatic = true;
    int type = 0;
    long long n[3] = {1, 1, 1}, batch = 1;
    Layout in, out;
    size_t work_bytes = 0;
    DevicePointer own_work = 0, work = 0;
    void *stream = nullptr;
};

std::mutex mutex;
std::map<int, std::shared_ptr<Plan>> &plans() {
    static auto *all = new std::map<int, std::shared_ptr<Plan>>;
    return *all;
}
std::shared_ptr<Plan> plan_of(int handle) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = plans().find(handle);
    return found == plans().end() ? nullptr : found->second;
}
const DriverInterface &cuda() { return *emulator_driver_interface(); }

bool real_input(int type) { return type == R2C || type == D2Z; }
bool real_output(int type) { return type == C2R || type == Z2D; }
bool is_double(int type) { return type >= 100; }

/// Elements of one side along x: a half spectrum on the complex side of a real transform.
long long width(const Plan &plan, bool output) {
    bool half = output ? real_input(plan.type) : real_output(plan.type);
    return half ? plan.n[2] / 2 + 1 : plan.n[2];
}
size_t element_bytes(const Plan &plan, bool output) {
    bool real = output ? real_output(plan.type) : real_input(plan.type);
    return (is_double(plan.type) ? 8 : 4) * (real ? 1 : 2);
}

FftResult fill(Plan &plan, int rank, const long long *n, const long long *in_embed, long long in_stride, long long in_distance,
               const long long *out_embed, long long out_stride, long long out_distance, int type, long long batch) {
    if (type != C2C && type != R2C && type != C2R && type != Z2Z && type != D2Z && type != Z2D) return FFT_INVALID_TYPE;
    if (rank < 1 || rank > 3 || !n || batch < 1) return FFT_INVALID_VALUE;
    plan.type = type;
    plan.batch = batch;
    for (int i = 0; i < 3; ++i) plan.n[i] = i < 3 - rank ? 1 : n[i - (3 - rank)];
    for (long long size : plan.n)
        if (size < 1 || size > 1 << 20) return FFT_INVALID_SIZE;
    auto lay_out = [&](bool output, const long long *embed, long long stride, long long distance) {
        Layout layout;
        // Without embeds cuFFT takes the data as tightly packed, and ignores strides and distances.
        long long packed[3] = {plan.n[0], plan.n[1], width(plan, output)};
        bool given = in_embed && out_embed;
        for (int i = 0; i < 3; ++i) layout.embed[i] = given ? (i < 3 - rank ? 1 : embed[i - (3 - rank)]) : packed[i];
        layout.stride = given ? stride : 1;
        layout.distance = given ? distance : packed[0] * packed[1] * packed[2];
        return layout;
    };
    plan.in = lay_out(false, in_embed, in_stride, in_distance);
    plan.out = lay_out(true, out_embed, out_stride, out_distance);
    // The real one's need depends on the sizes; one more copy of the larger side is of its order.
    size_t points = size_t(plan.n[0] * plan.n[1] * (plan.n[2] / 2 + 1) * batch);
    plan.work_bytes = (points * (is_double(type) ? 16 : 8) + 511) / 512 * 512;
    return FFT_SUCCESS;
}

/// Bytes from the first to the end of the last element of one side.
size_t extent(const Plan &plan, bool output) {
    const Layout &layout = output ? plan.out : plan.in;
    long long last[3] = {plan.n[0] - 1, plan.n[1] - 1, width(plan, output) - 1};
    return size_t((plan.batch - 1) * layout.distance + layout.index(last) + 1) * element_bytes(plan, output);
}

/// The transforms of all rows along one axis of a dense array with the axis lengths `shape`.
void along(std::vector<Complex> &data, const long long *shape, int axis, int sign, std::vector<Complex> &scratch) {
    if (shape[axis] == 1) return;
    auto transform = Transform::of(size_t(shape[axis]));
    long long inner = 1, outer = 1;
    for (int i = axis + 1; i < 3; ++i) inner *= shape[i];
    for (int i = 0; i < axis; ++i) outer *= shape[i];
    std::vector<Complex> row(size_t(shape[axis]));
    for (long long o = 0; o < outer; ++o)
        for (long long i = 0; i < inner; ++i) {
            Complex *first = data.data() + o * shape[axis] * inner + i;
            for (long long k = 0; k < shape[axis]; ++k) row[size_t(k)] = first[k * inner];
            transform->run(row.data(), sign, scratch);
            for (long long k = 0; k < shape[axis]; ++k) first[k * inner] = row[size_t(k)];
        }
}

template <class Real>
void execute(const Plan &plan, const Real *in, Real *out, int sign) {
    bool from_real = real_input(plan.type), to_real = real_output(plan.type);
    const long long *n = plan.n, half = n[2] / 2 + 1;
    // A real transform is done on the half spectrum along y and z; only the rows along x are whole.
    long long shape[3] = {n[0], n[1], from_real || to_real ? half : n[2]};
    std::vector<Complex> data(size_t(shape[0] * shape[1] * shape[2])), row(static_cast<size_t>(n[2])), scratch;
    auto x_transform = Transform::of(size_t(n[2]));
    for (long long b = 0; b < plan.batch; ++b) {
        const Real *from = in + b * plan.in.distance * (from_real ? 1 : 2);
        Real *to = out + b * plan.out.distance * (to_real ? 1 : 2);
        for (long long z = 0; z < n[0]; ++z)
            for (long long y = 0; y < n[1]; ++y) {
                Complex *line = &data[size_t((z * n[1] + y) * shape[2])];
                for (long long x = 0; x < (from_real ? n[2] : shape[2]); ++x) {
                    long long at[3] = {z, y, x}, k = plan.in.index(at);
                    Complex value = from_real ? Complex(double(from[k])) : Complex(double(from[2 * k]), double(from[2 * k + 1]));
                    (from_real ? row[size_t(x)] : line[x]) = value;
                }
                if (!from_real) continue;
                x_transform->run(row.data(), -1, scratch);
                for (long long x = 0; x < half; ++x) line[x] = row[size_t(x)];
            }
        int direction = from_real ? -1 : to_real ? 1 : sign;
        for (int axis = 0; axis < (from_real || to_real ? 2 : 3); ++axis) along(data, shape, axis, direction, scratch);
        for (long long z = 0; z < n[0]; ++z)
            for (long long y = 0; y < n[1]; ++y) {
                const Complex *line = &data[size_t((z * n[1] + y) * shape[2])];
                if (to_real) {
                    // The other half of the row is the conjugate; what has no conjugate partner must be real.
                    for (long long x = 0; x < n[2]; ++x) row[size_t(x)] = x < half ? line[x] : std::conj(line[n[2] - x]);
                    row[0] = row[0].real();
                    if (n[2] % 2 == 0) row[size_t(n[2] / 2)] = row[size_t(n[2] / 2)].real();
                    x_transform->run(row.data(), 1, scratch);
                }
                for (long long x = 0; x < (to_real ? n[2] : shape[2]); ++x) {
                    long long at[3] = {z, y, x}, k = plan.out.index(at);
                    Complex value = to_real ? row[size_t(x)] : line[x];
                    if (to_real) to[k] = Real(value.real());
                    else to[2 * k] = Real(value.real()), to[2 * k + 1] = Real(value.imag());
                }
            }
    }
}

struct Execution {
    Plan plan;
    const void *in;
    void *out;
    int sign;
};

Result run(void *payload) {
    Execution &execution = *static_cast<Execution *>(payload);
    Plan &plan = execution.plan;
    size_t in_bytes = extent(plan, false), out_bytes = extent(plan, true);
    if (Result error = cuda().check_range(execution.in, in_bytes, "FFT input")) return error;
    if (Result error = cuda().check_range(execution.out, out_bytes, "FFT output")) return error;
    if (Result error = cuda().check_range(reinterpret_cast<void *>(uintptr_t(plan.work)), plan.work_bytes, "FFT work area")) return error;
    memset(reinterpret_cast<void *>(uintptr_t(plan.work)), 0xFF, plan.work_bytes);  // whatever the program kept there is gone
    bool in_place = execution.in == execution.out;
    // In place each batch item is read before it is written, but the next one must not have been touched by then.
    std::vector<char> copy;
    const void *in = execution.in;
    if (in_place) {
        copy.assign(static_cast<const char *>(in), static_cast<const char *>(in) + in_bytes);
        in = copy.data();
    }
    if (is_double(plan.type)) execute(plan, static_cast<const double *>(in), static_cast<double *>(execution.out), execution.sign);
    else execute(plan, static_cast<const float *>(in), static_cast<float *>(execution.out), execution.sign);
    // The real one may use the input of a complex-to-real transform as scratch: nobody may rely on it.
    if (real_output(plan.type) && !in_place) memset(const_cast<void *>(execution.in), 0xFF, in_bytes);
    return SUCCESS;
}

int launch(int handle, int type, const void *in, void *out, int sign) {
    auto plan = plan_of(handle);
    if (!plan || !plan->made || plan->type != type) return FFT_INVALID_PLAN;
    if (!in || !out) return FFT_INVALID_VALUE;
    if (!plan->work) return FFT_NO_WORKSPACE;
    if (fails_now("fft")) return FFT_EXEC_FAILED;
    auto *execution = new Execution{*plan, in, out, sign};
    auto release = [](void *payload) { delete static_cast<Execution *>(payload); };
    return cuda().enqueue(plan->stream, "cuFFT", run, execution, release) == SUCCESS ? FFT_SUCCESS : FFT_EXEC_FAILED;
}

int make(int handle, int rank, const long long *n, const long long *in_embed, long long in_stride, long long in_distance,
         const long long *out_embed, long long out_stride, long long out_distance, int type, long long batch, size_t *work) {
    auto plan = plan_of(handle);
    if (!plan || plan->made) return FFT_INVALID_PLAN;
    FftResult result = fill(*plan, rank, n, in_embed, in_stride, in_distance, out_embed, out_stride, out_distance, type, batch);
    if (result != FFT_SUCCESS) return result;
    if (plan->automatic) {
        if (cuda().allocate(&plan->own_work, plan->work_bytes) != SUCCESS) return FFT_ALLOC_FAILED;
        plan->work = plan->own_work;
    }
    plan->made = true;
    if (work) *work = plan->work_bytes;
    return FFT_SUCCESS;
}

/// The same call with 32-bit sizes.
struct Wide {
    long long values[3];
    const long long *pointer;
    Wide(int rank, const int *from) : pointer(from ? values : nullptr) {
        for (int i = 0; from && i < rank && i < 3; ++i) values[i] = from[i];
    }
};

}  // namespace

EMULATOR_EXPORT int cufftCreate(int *handle) {
    static int last = 0;
    std::lock_guard<std::mutex> lock(mutex);
    plans()[*handle = ++last] = std::make_shared<Plan>();
    cuda().count("cuFFT plans", 1);
    return FFT_SUCCESS;
}

EMULATOR_EXPORT int cufftDestroy(int handle) {
    std::shared_ptr<Plan> plan;
    {
        std::lock_guard<std::mutex> lock(mutex);
        auto found = plans().find(handle);
        if (found == plans().end()) return FFT_INVALID_PLAN;
        plan = found->second;
        plans().erase(found);
    }
    cuda().count("cuFFT plans", -1);
    if (plan->own_work) cuda().release(plan->own_work);
    return FFT_SUCCESS;
}

EMULATOR_EXPORT int cufftMakePlanMany64(int handle, int rank, long long *n, long long *in_embed, long long in_stride, long long in_distance,
                                        long long *out_embed, long long out_stride, long long out_distance, int type, long long batch,
                                        size_t *work) {
    return make(handle, rank, n, in_embed, in_stride, in_distance, out_embed, out_stride, out_distance, type, batch, work);
}
EMULATOR_EXPORT int cufftMakePlanMany(int handle, int rank, int *n, int *in_embed, int in_stride, int in_distance, int *out_embed,
                                      int out_stride, int out_distance, int type, int batch, size_t *work) {
    Wide sizes(rank, n), in(rank, in_embed), out(rank, out_embed);
    return make(handle, rank, sizes.pointer, in.pointer, in_stride, in_distance, out.pointer, out_stride, out_distance, type, batch, work);
}
EMULATOR_EXPORT int cufftMakePlan1d(int handle, int nx, int type, int batch, size_t *work) {
    return cufftMakePlanMany(handle, 1, &nx, nullptr, 1, 0, nullptr, 1, 0, type, batch, work);
}
EMULATOR_EXPORT int cufftMakePlan2d(int handle, int nx, int ny, int type, size_t *work) {
    int n[] = {nx, ny};
    return cufftMakePlanMany(handle, 2, n, nullptr, 1, 0, nullptr, 1, 0, type, 1, work);
}
EMULATOR_EXPORT int cufftMakePlan3d(int handle, int nx, int ny, int nz, int type, size_t *work) {
    int n[] = {nx, ny, nz};
    return cufftMakePlanMany(handle, 3, n, nullptr, 1, 0, nullptr, 1, 0, type, 1, work);
}
EMULATOR_EXPORT int cufftPlanMany(int *handle, int rank, int *n, int *in_embed, int in_stride, int in_distance, int *out_embed,
                                  int out_stride, int out_distance, int type, int batch) {
    cufftCreate(handle);
    int result = cufftMakePlanMany(*handle, rank, n, in_embed, in_stride, in_distance, out_embed, out_stride, out_distance, type, batch, nullptr);
    if (result != FFT_SUCCESS) cufftDestroy(*handle);
    return result;
}
EMULATOR_EXPORT int cufftPlan1d(int *handle, int nx, int type, int batch) {
    return cufftPlanMany(handle, 1, &nx, nullptr, 1, 0, nullptr, 1, 0, type, batch);
}
EMULATOR_EXPORT int cufftPlan2d(int *handle, int nx, int ny, int type) {
    int n[] = {nx, ny};
    return cufftPlanMany(handle, 2, n, nullptr, 1, 0, nullptr, 1, 0, type, 1);
}
EMULATOR_EXPORT int cufftPlan3d(int *handle, int nx, int ny, int nz, int type) {
    int n[] = {nx, ny, nz};
    return cufftPlanMany(handle, 3, n, nullptr, 1, 0, nullptr, 1, 0, type, 1);
}

EMULATOR_EXPORT int cufftEstimateMany(int rank, int *n, int *in_embed, int in_stride, int in_distance, int *out_embed, int out_stride,
                                      int out_distance, int type, int batch, size_t *work) {
    Plan plan;
    Wide sizes(rank, n), in(rank, in_embed), out(rank, out_embed);
    FftResult result = fill(plan, rank, sizes.pointer, in.pointer, in_stride, in_distance, out.pointer, out_stride, out_distance, type, batch);
    *work = plan.work_bytes;
    return result;
}
EMULATOR_EXPORT int cufftGetSizeMany(int handle, int rank, int *n, int *in_embed, int in_stride, int in_distance, int *out_embed,
                                     int out_stride, int out_distance, int type, int batch, size_t *work) {
    if (!plan_of(handle)) return FFT_INVALID_PLAN;
    return cufftEstimateMany(rank, n, in_embed, in_stride, in_distance, out_embed, out_stride, out_distance, type, batch, work);
}
EMULATOR_EXPORT int cufftGetSize(int handle, size_t *work) {
    auto plan = plan_of(handle);
    if (!plan) return FFT_INVALID_PLAN;
    *work = plan->work_bytes;
    return FFT_SUCCESS;
}

EMULATOR_EXPORT int cufftSetAutoAllocation(int handle, int automatic) {
    auto plan = plan_of(handle);
    if (!plan || plan->made) return FFT_INVALID_PLAN;
    plan->automatic = automatic != 0;
    return FFT_SUCCESS;
}
EMULATOR_EXPORT int cufftSetWorkArea(int handle, void *area) {
    auto plan = plan_of(handle);
    if (!plan) return FFT_INVALID_PLAN;
    if (plan->own_work) cuda().release(plan->own_work);
    plan->own_work = 0;
    plan->work = DevicePointer(uintptr_t(area));
    return FFT_SUCCESS;
}
EMULATOR_EXPORT int cufftSetStream(int handle, void *stream) {
    auto plan = plan_of(handle);
    if (!plan) return FFT_INVALID_PLAN;
    plan->stream = stream;
    return FFT_SUCCESS;
}
EMULATOR_EXPORT int cufftGetVersion(int *version) {
    *version = 11400;
    return FFT_SUCCESS;
}
EMULATOR_EXPORT int cufftGetProperty(int which, int *value) {
    *value = which == 0 ? 11 : which == 1 ? 4 : 0;
    return FFT_SUCCESS;
}

EMULATOR_EXPORT int cufftExecR2C(int handle, float *in, void *out) { return launch(handle, R2C, in, out, -1); }
EMULATOR_EXPORT int cufftExecC2R(int handle, void *in, float *out) { return launch(handle, C2R, in, out, 1); }
EMULATOR_EXPORT int cufftExecC2C(int handle, void *in, void *out, int direction) { return launch(handle, C2C, in, out, direction); }
EMULATOR_EXPORT int cufftExecD2Z(int handle, double *in, void *out) { return launch(handle, D2Z, in, out, -1); }
EMULATOR_EXPORT int cufftExecZ2D(int handle, void *in, double *out) { return launch(handle, Z2D, in, out, 1); }
EMULATOR_EXPORT int cufftExecZ2Z(int handle, void *in, void *out, int direction) { return launch(handle, Z2Z, in, out, direction); }
