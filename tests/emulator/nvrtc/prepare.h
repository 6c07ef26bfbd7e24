// Turns a preprocessed CUDA source into C++: finds kernels, rewrites dynamic shared arrays, appends the module's table.
#pragma once
#include <string>
#include <vector>

namespace emulator {

struct Prepared {
    std::string source;
    std::vector<std::string> kernels;
    std::string error;  // empty: none
};

Prepared prepare(const std::string &preprocessed);

}  // namespace emulator
