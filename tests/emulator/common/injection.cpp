// Failures on demand, the environment's numbers, and the one way to write to stderr.
#include "injection.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <unistd.h>
#include <vector>

namespace emulator {
namespace {

struct Entry {
    std::string kind, name;
    long long call;  // 0: every one
    long long seen;
};

std::vector<std::string> split(const std::string &text, char at) {
    std::vector<std::string> parts;
    size_t from = 0;
    for (;;) {
        size_t to = text.find(at, from);
        parts.push_back(text.substr(from, to - from));
        if (to == std::string::npos) return parts;
        from = to + 1;
    }
}

bool is_number(const std::string &text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

std::vector<Entry> read_entries() {
    std::vector<Entry> entries;
    const char *list = getenv("CRYOSPLAT_EMULATOR_FAIL");
    const char *only = getenv("CRYOSPLAT_EMULATOR_FAIL_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!list || !*list || (only && *only && (!rank || strcmp(only, rank) != 0))) return entries;
    for (const std::string &text : split(list, ',')) {
        std::vector<std::string> parts = split(text, ':');
        static const char *const plain[] = {"alloc", "pinned", "memcpy", "memset", "load", "compile", "stream", "fft"};
        static const char *const named[] = {"launch", "nccl-init", "nccl-vanish", "nccl-die", "nccl-error"};
        bool known = false;
        Entry entry{parts[0], "", 0, 0};
        for (const char *kind : plain)
            if (parts[0] == kind && (parts.size() == 1 || (parts.size() == 2 && is_number(parts[1])))) {
                known = true;
                if (parts.size() == 2) entry.call = atoll(parts[1].c_str());
            }
        for (const char *kind : named)
            if (parts[0] == kind && (parts.size() == 2 || (parts.size() == 3 && is_number(parts[2])))) {
                known = true;
                entry.name = parts[1];
                if (parts.size() == 3) entry.call = atoll(parts[2].c_str());
            }
        if (!known) {  // else a test with a mistyped failure would pass without testing anything
            report("CRYOSPLAT_EMULATOR_FAIL: '%s' is not understood", text.c_str());
            _exit(2);
        }
        entries.push_back(entry);
    }
    return entries;
}

bool count(const char *kind, const std::string *name) {
    static std::mutex *mutex = new std::mutex;
    static std::vector<Entry> *entries = new std::vector<Entry>(read_entries());
    if (entries->empty()) return false;
    std::lock_guard<std::mutex> lock(*mutex);
    bool fails = false;
    for (Entry &entry : *entries)
        if (entry.kind == kind && (!name || entry.name == *name)) fails |= ++entry.seen == entry.call || entry.call == 0;
    if (fails) report("made to fail: %s%s%s", kind, name ? " " : "", name ? name->c_str() : "");
    return fails;
}

}  // namespace

bool fails_now(const char *kind) { return count(kind, nullptr); }
bool fails_now(const char *kind, const std::string &name) { return count(kind, &name); }

long long environment_number(const char *name, long long otherwise) {
    const char *text = getenv(name);
    char *end = nullptr;
    long long value = text ? strtoll(text, &end, 10) : 0;
    return text && *text && !*end ? value : otherwise;
}

void report(const char *format, ...) {
    char line[1024];
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    int length = rank ? snprintf(line, sizeof line, "emulator (rank %s): ", rank) : snprintf(line, sizeof line, "emulator: ");
    va_list arguments;
    va_start(arguments, format);
    length += vsnprintf(line + length, sizeof line - size_t(length) - 1, format, arguments);
    va_end(arguments);
    if (length > int(sizeof line) - 2) length = int(sizeof line) - 2;
    line[length++] = '\n';
    // One write, so that lines of several ranks do not mix; a signal handler may call this too.
    if (write(2, line, size_t(length)) < 0) return;
}

}  // namespace emulator
