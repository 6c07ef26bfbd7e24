// The emulated driver's objects: devices and contexts, streams and what runs on them, events, graphs, modules.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "../common/cuda_types.h"
#include "../common/injection.h"
#include "../kernel/module_interface.h"
#include "memory.h"

namespace emulator {

struct Context;
struct Stream;
struct Capture;
using Work = std::function<Result()>;

/// Something that happens once: an event's recording, the end of an operation.
class Completion {
  public:
    void set();
    bool done() const { return done_.load(std::memory_order_acquire); }
    void wait();
    std::chrono::steady_clock::time_point time() const { return time_; }

  private:
    std::atomic<bool> done_{false};
    std::mutex mutex_;
    std::condition_variable changed_;
    std::chrono::steady_clock::time_point time_;
};

struct Device {
    int ordinal;   // among the visible ones
    int physical;  // of the machine
    Memory memory;
    Device(int ordinal_, int physical_, size_t bytes) : ordinal(ordinal_), physical(physical_), memory(physical_, bytes) {}
    Uuid uuid() const;
};

/// A device's primary context; there are no others.
struct Context {
    Device *device = nullptr;
    std::atomic<int> error{SUCCESS};  // after a kernel has failed, every later call returns its error
    unsigned flags = 0;
    int retained = 0;
    std::shared_ptr<Stream> null_stream;
    std::mutex mutex;
    std::set<std::shared_ptr<Stream>> streams;  // all but the null stream
    void break_with(Result result, const std::string &why);
    void wait_for_all();
};

/// A queue of operations with a system thread which runs them one after another.
struct Stream : std::enable_shared_from_this<Stream> {
    Context *context;
    bool blocking;  // takes part in the null stream's implicit order
    bool is_null;
    uint64_t number;
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::pair<const char *, Work>> queue;
    std::atomic<uint64_t> enqueued{0}, finished{0};  // changed under the mutex
    bool closing = false;
    Capture *capture = nullptr;  // under the global capture lock
    std::vector<int> tail;       // the captured nodes the next one will depend on

    static std::shared_ptr<Stream> create(Context *context, bool blocking, bool is_null);
    /// Runs `work` after what is queued already, or adds it to the capture under way.
    Result submit(const char *label, Work work);
    /// As `submit`, without checking captures and the order of the null stream.
    uint64_t append(const char *label, Work work);
    void wait_until(uint64_t ticket);
    void wait_idle();
    bool idle();
    void close();

  private:
    void serve();
};

struct Event {
    bool timing;
    Context *context;
    std::mutex mutex;
    std::shared_ptr<Completion> recorded;  // none: never recorded
    Capture *capture = nullptr;            // recorded in this capture, after these nodes
    std::vector<int> nodes;
};

struct Node {
    const char *label;
    Work work;
    std::vector<int> after;
    uint64_t stream;  // the one it was captured on: nodes of one stream run on one thread
};

struct Capture {
    Stream *origin;
    int mode;
    std::thread::id owner;
    uint64_t number;
    bool invalid = false;
    bool ended = false;  // it is kept all the same, for events that were recorded in it
    std::vector<Node> nodes;
    std::set<Stream *> streams;
};

struct Graph {
    std::vector<Node> nodes;
};

struct GraphExecution {
    std::shared_ptr<const std::vector<Node>> nodes;
    std::vector<std::vector<int>> chains;  // the first one runs on the launching stream
    std::vector<std::shared_ptr<Stream>> helpers;
    std::mutex running;  // an executable graph never runs twice at a time
};

/// A span of the module's thread-local block, relative to its anchor.
struct SharedSpan {
    std::string name;
    ptrdiff_t offset;
    size_t bytes;
};

struct LoadedModule {
    Context *context;
    void *library;
    const Module *description;
    std::string file;
    std::vector<std::pair<std::string, std::pair<void *, size_t>>> variables;
    std::vector<SharedSpan> shared;
};

struct Function {
    LoadedModule *module;
    const Kernel *kernel;
    std::vector<SharedSpan> shared;  // its static shared variables
    size_t static_shared = 0;
    int max_dynamic_shared = 48 * 1024;
    int carveout = -1;
};

/// Handles the program holds, so that a wrong or stale one is an error and what is left at the end can be reported.
template <class T>
class Registry {
  public:
    void add(T *object, std::shared_ptr<T> owner) {
        std::lock_guard<std::mutex> lock(mutex_);
        objects_[object] = std::move(owner);
    }
    std::shared_ptr<T> find(const void *handle) {
        std::lock_guard<std::mutex> lock(mutex_);
        auto found = objects_.find(static_cast<const T *>(handle));
        return found == objects_.end() ? nullptr : found->second;
    }
    std::shared_ptr<T> take(const void *handle) {
        std::lock_guard<std::mutex> lock(mutex_);
        auto found = objects_.find(static_cast<const T *>(handle));
        if (found == objects_.end()) return nullptr;
        std::shared_ptr<T> object = found->second;
        objects_.erase(found);
        return object;
    }
    template <class Which>
    void drop(Which which) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto at = objects_.begin(); at != objects_.end();) at = which(*at->second) ? objects_.erase(at) : std::next(at);
    }
    size_t count() {
        std::lock_guard<std::mutex> lock(mutex_);
        return objects_.size();
    }

  private:
    std::mutex mutex_;
    std::unordered_map<const T *, std::shared_ptr<T>> objects_;
};

/// Everything of the process. It is never destroyed: streams' threads may still run while the process ends.
struct Driver {
    std::vector<std::unique_ptr<Device>> devices;
    std::vector<std::unique_ptr<Context>> contexts;
    HostMemory host;
    Registry<Stream> streams;
    Registry<Event> events;
    Registry<Graph> graphs;
    Registry<GraphExecution> executions;
    Registry<LoadedModule> modules;
    Registry<Function> functions;
    std::mutex counters_mutex;
    std::vector<std::pair<std::string, int>> counters;  // of cuFFT and NCCL
    std::mutex captures_mutex;
    std::vector<std::unique_ptr<Capture>> captures;
    uint64_t captures_begun = 0;
    int process = 0;
};
Driver &driver();
bool initialised();

extern thread_local Context *current_context;
extern thread_local bool in_host_function;

/// What a call checks first: a current context in good state, and that no host function makes the call.
Result usable();
/// The stream a handle names in the current context; null for a wrong handle. 0 and 1 are the null stream.
std::shared_ptr<Stream> stream_of(void *handle);
/// A call that must not be made by a thread that is capturing, as CUDA's capture mode has it: ends the capture if so.
Result forbidden_in_capture();
/// Forbids a call on a stream which is being captured (synchronising it, querying it): ends the capture if so.
Result forbidden_on(Stream &stream);
bool contains(const std::vector<int> &values, int value);

Result enqueue_host_function(Stream &stream, void (*function)(void *), void *data);
void install_fault_handler();

}  // namespace emulator
