// Stream capture, and graphs: a graph is the captured operations with the order that streams and events gave them. At a
// launch each captured stream's operations run on a thread of their own, so that a missing dependency shows here too.
#include <algorithm>

#include "driver.h"

namespace emulator {
namespace {

constexpr int GLOBAL = 0, THREAD_LOCAL = 1;

/// Whether all nodes of the capture come before `tail`.
bool joined(const Capture &capture, const std::vector<int> &tail) {
    std::vector<bool> reached(capture.nodes.size(), false);
    std::vector<int> open = tail;
    while (!open.empty()) {
        int node = open.back();
        open.pop_back();
        if (reached[size_t(node)]) continue;
        reached[size_t(node)] = true;
        for (int before : capture.nodes[size_t(node)].after) open.push_back(before);
    }
    return std::all_of(reached.begin(), reached.end(), [](bool value) { return value; });
}

Result run_graph(std::shared_ptr<GraphExecution> execution, Context *context) {
    std::lock_guard<std::mutex> once(execution->running);
    const std::vector<Node> &nodes = *execution->nodes;
    std::vector<std::shared_ptr<Completion>> done;
    for (size_t i = 0; i < nodes.size(); ++i) done.push_back(std::make_shared<Completion>());
    auto run_chain = [&nodes, done, context](const std::vector<int> &chain) {
        for (int index : chain) {
            const Node &node = nodes[size_t(index)];
            for (int before : node.after) done[size_t(before)]->wait();
            Result result = node.work();
            if (result != SUCCESS)
                context->break_with(result, std::string(node.label) + " failed with error " + std::to_string(result) + " in a graph");
            done[size_t(index)]->set();
        }
    };
    std::vector<uint64_t> tickets;
    for (size_t i = 1; i < execution->chains.size(); ++i)
        tickets.push_back(execution->helpers[i - 1]->append("graph", [run_chain, &execution, i] {
            run_chain(execution->chains[i]);
            return SUCCESS;
        }));
    if (!execution->chains.empty()) run_chain(execution->chains[0]);
    for (size_t i = 0; i < tickets.size(); ++i) execution->helpers[i]->wait_until(tickets[i]);
    return SUCCESS;
}

}  // namespace

bool contains(const std::vector<int> &values, int value) { return std::find(values.begin(), values.end(), value) != values.end(); }

Result forbidden_in_capture() {
    std::lock_guard<std::mutex> lock(driver().captures_mutex);
    Result result = SUCCESS;
    for (auto &capture : driver().captures) {
        bool own = capture->owner == std::this_thread::get_id();
        if (capture->ended || !((own && capture->mode <= THREAD_LOCAL) || capture->mode == GLOBAL)) continue;
        capture->invalid = true;
        result = STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

Result forbidden_on(Stream &stream) {
    std::lock_guard<std::mutex> lock(driver().captures_mutex);
    if (!stream.capture) return SUCCESS;
    stream.capture->invalid = true;
    return STREAM_CAPTURE_UNSUPPORTED;
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT Result cuStreamBeginCapture_v2(void *handle, int mode) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->is_null) return STREAM_CAPTURE_UNSUPPORTED;
    std::lock_guard<std::mutex> lock(driver().captures_mutex);
    if (stream->capture) return INVALID_VALUE;
    std::unique_ptr<Capture> capture(new Capture);
    capture->origin = stream.get();
    capture->mode = mode;
    capture->owner = std::this_thread::get_id();
    capture->number = ++driver().captures_begun;
    capture->streams.insert(stream.get());
    stream->capture = capture.get();
    stream->tail.clear();
    driver().captures.push_back(std::move(capture));
    return SUCCESS;
}

EMULATOR_EXPORT Result cuStreamEndCapture(void *handle, void **graph) {
    if (Result error = usable()) return error;
    *graph = nullptr;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    std::lock_guard<std::mutex> lock(driver().captures_mutex);
    Capture *capture = stream->capture;
    if (!capture) return INVALID_VALUE;
    if (capture->origin != stream.get()) return STREAM_CAPTURE_UNMATCHED;
    if (capture->mode <= THREAD_LOCAL && capture->owner != std::this_thread::get_id()) return STREAM_CAPTURE_WRONG_THREAD;
    Result result = capture->invalid                  ? STREAM_CAPTURE_INVALIDATED
                    : joined(*capture, stream->tail)  ? SUCCESS
                                                      : STREAM_CAPTURE_UNJOINED;
    for (Stream *member : capture->streams) member->capture = nullptr, member->tail.clear();
    capture->streams.clear();
    capture->ended = true;
    if (result == SUCCESS) {
        auto created = std::make_shared<Graph>();
        created->nodes = std::move(capture->nodes);
        driver().graphs.add(created.get(), created);
        *graph = created.get();
    }
    capture->nodes.clear();
    return result;
}

EMULATOR_EXPORT Result cuStreamIsCapturing(void *handle, int *status) {
    if (Result error = usable()) return error;
    auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    std::lock_guard<std::mutex> lock(driver().captures_mutex);
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuStreamGetCaptureInfo_v2(void *handle, int *status, uint64_t *number, void **graph, const void ***after,
                                                 size_t *after_count) {
    if (Result error = cuStreamIsCapturing(handle, status)) return error;
    auto stream = stream_of(handle);
    std::lock_guard<std::mutex> lock(driver().captures_mutex);
    if (number && stream->capture) *number = stream->capture->number;
    // The graph under way has no handle here, nor have its nodes.
    if (graph) *graph = nullptr;
    if (after) *after = nullptr;
    if (after_count) *after_count = 0;
    return SUCCESS;
}

EMULATOR_EXPORT Result cuThreadExchangeStreamCaptureMode(int *mode) {
    static thread_local int current = GLOBAL;
    std::swap(current, *mode);
    return SUCCESS;
}

EMULATOR_EXPORT Result cuGraphInstantiateWithFlags(void **execution, void *handle, unsigned long long flags) {
    if (Result error = usable()) return error;
    auto graph = driver().graphs.find(handle);
    if (!graph) return INVALID_HANDLE;
    if (flags & ~15ull || (flags & 4 && flags & ~4ull)) return INVALID_VALUE;  // a device-side graph takes no other flag
    auto created = std::make_shared<GraphExecution>();
    created->nodes = std::make_shared<const std::vector<Node>>(graph->nodes);
    std::vector<uint64_t> streams;
    for (size_t i = 0; i < graph->nodes.size(); ++i) {
        uint64_t stream = graph->nodes[i].stream;
        size_t chain = size_t(std::find(streams.begin(), streams.end(), stream) - streams.begin());
        if (chain == streams.size()) {
            streams.push_back(stream);
            created->chains.emplace_back();
        }
        created->chains[chain].push_back(int(i));
    }
    for (size_t i = 1; i < created->chains.size(); ++i) created->helpers.push_back(Stream::create(current_context, false, false));
    driver().executions.add(created.get(), created);
    *execution = created.get();
    return SUCCESS;
}

EMULATOR_EXPORT Result cuGraphUpload(void *execution, void *stream) {
    if (Result error = usable()) return error;
    return driver().executions.find(execution) && stream_of(stream) ? SUCCESS : INVALID_HANDLE;
}

EMULATOR_EXPORT Result cuGraphLaunch(void *handle, void *stream_handle) {
    if (Result error = usable()) return error;
    auto execution = driver().executions.find(handle);
    auto stream = stream_of(stream_handle);
    if (!execution || !stream) return INVALID_HANDLE;
    Context *context = current_context;
    return stream->submit("graph", [execution, context] { return run_graph(execution, context); });
}

EMULATOR_EXPORT Result cuGraphGetNodes(void *handle, void **, size_t *count) {
    auto graph = driver().graphs.find(handle);
    if (!graph) return INVALID_HANDLE;
    *count = graph->nodes.size();
    return SUCCESS;
}

EMULATOR_EXPORT Result cuGraphDestroy(void *handle) { return driver().graphs.take(handle) ? SUCCESS : INVALID_HANDLE; }

EMULATOR_EXPORT Result cuGraphExecDestroy(void *handle) {
    auto execution = driver().executions.take(handle);
    if (!execution) return INVALID_HANDLE;
    for (auto &helper : execution->helpers) helper->close();
    return SUCCESS;
}
