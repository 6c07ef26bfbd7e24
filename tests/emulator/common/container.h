// The emulated "cubin" and "PTX": a compiled shared object in a container with its length, since the driver receives a bare
// pointer. The PTX form is the same as text, which survives being treated as a C string.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>

namespace emulator {

constexpr char CUBIN_MAGIC[17] = "EMULATOR-CUBIN-1";
constexpr char PTX_MAGIC[] = "// Emulated PTX, to be loaded by the emulated driver only\n.version 8.8\n.target sm_90\n// ";

inline std::string wrap_cubin(const std::string &library) {
    uint64_t length = library.size();
    return std::string(CUBIN_MAGIC, 16) + std::string(reinterpret_cast<const char *>(&length), 8) + library;
}

inline std::string wrap_ptx(const std::string &library) {
    static const char digits[] = "0123456789abcdef";
    std::string text = PTX_MAGIC;
    text.reserve(text.size() + library.size() * 2 + 2);
    for (unsigned char byte : library) text += digits[byte >> 4], text += digits[byte & 15];
    return text + "\n";
}

/// The shared object in either form; false if it is neither.
inline bool unwrap(const void *image, std::string *library) {
    const char *text = static_cast<const char *>(image);
    if (memcmp(text, CUBIN_MAGIC, 16) == 0) {
        uint64_t length;
        memcpy(&length, text + 16, 8);
        library->assign(text + 24, length);
        return true;
    }
    if (strncmp(text, PTX_MAGIC, sizeof PTX_MAGIC - 1) != 0) return false;
    library->clear();
    auto value = [](char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; };
    for (text += sizeof PTX_MAGIC - 1; text[0] && text[0] != '\n'; text += 2) {
        if (!text[1]) return false;
        *library += char(value(text[0]) << 4 | value(text[1]));
    }
    return true;
}

}  // namespace emulator
