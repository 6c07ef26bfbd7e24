// Compiles CUDA source with the host's compiler.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace emulator {

struct Source {
    std::string name, text;
    std::vector<std::pair<std::string, std::string>> headers;  // include name, text
};

struct Compiled {
    bool good = false;
    std::string library;  // the bytes of a shared object
    std::string log;
};

/// `options` as NVRTC takes them; those which mean nothing here are passed over.
Compiled compile(const Source &source, const std::vector<std::string> &options);

}  // namespace emulator
