// Mixed radix for lengths of small prime factors, Bluestein's convolution for the others.
#include "transform.h"

#include <cmath>
#include <map>
#include <mutex>

namespace emulator {
namespace {

constexpr size_t LARGEST_FACTOR = 31;

Complex root(size_t numerator, size_t denominator) {
    double angle = -2.0 * M_PI * double(numerator % denominator) / double(denominator);
    return Complex(std::cos(angle), std::sin(angle));
}

// The standard operator checks for infinities, which costs more than the product.
inline Complex product(Complex a, Complex b) {
    return Complex(a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real());
}

}  // namespace

Transform::Transform(size_t length) : length_(length) {
    size_t left = length;
    for (size_t factor : {4, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31})
        for (; left % factor == 0 && left > 1; left /= factor) factors_.push_back(factor);
    roots_.resize(length);
    for (size_t k = 0; k < length; ++k) roots_[k] = root(k, length);
    if (left == 1) return;
    factors_.clear();
    size_t padded = 1;
    while (padded < 2 * length - 1) padded *= 2;
    power_of_two_ = Transform::of(padded);
    chirp_.resize(length);
    for (size_t k = 0; k < length; ++k) chirp_[k] = root(k * k % (2 * length), 2 * length);
    chirp_spectrum_.assign(padded, Complex(0.0));
    for (size_t k = 0; k < length; ++k) chirp_spectrum_[k] = chirp_spectrum_[(padded - k) % padded] = std::conj(chirp_[k]);
    std::vector<Complex> scratch;
    power_of_two_->run(chirp_spectrum_.data(), -1, scratch);
}

std::shared_ptr<const Transform> Transform::of(size_t length) {
    static auto *mutex = new std::recursive_mutex;
    static auto *made = new std::map<size_t, std::shared_ptr<const Transform>>;
    std::lock_guard<std::recursive_mutex> lock(*mutex);
    auto &entry = (*made)[length];
    if (!entry) {
        auto created = std::make_shared<const Transform>(length);  // may itself add another length
        (*made)[length] = created;
        return created;
    }
    return entry;
}

void Transform::mixed_radix(const Complex *from, Complex *to, size_t length, size_t stride, size_t step, bool inverse,
                            const size_t *factor) const {
    if (length == 1) {
        *to = *from;
        return;
    }
    size_t radix = *factor, part = length / radix;
    for (size_t r = 0; r < radix && part > 1; ++r)
        mixed_radix(from + r * stride, to + r * part, part, stride * radix, step * radix, inverse, factor + 1);
    struct {
        double real, imaginary;
    } storage[LARGEST_FACTOR];  // left as it is: std::complex would be set to zero each time
    Complex *values = reinterpret_cast<Complex *>(storage);
    auto twiddle = [&](size_t index) { return inverse ? std::conj(roots_[index]) : roots_[index]; };
    for (size_t k = 0; k < part; ++k) {
        for (size_t r = 0; r < radix; ++r)
            values[r] = part == 1 ? from[r * stride] : r == 0 || k == 0 ? to[r * part + k] : product(to[r * part + k], twiddle(r * k * step));
        if (radix == 2) {
            to[k] = values[0] + values[1];
            to[part + k] = values[0] - values[1];
        } else if (radix == 4) {
            Complex a = values[0] + values[2], b = values[0] - values[2], c = values[1] + values[3], d = values[1] - values[3];
            Complex turned = inverse ? Complex(-d.imag(), d.real()) : Complex(d.imag(), -d.real());
            to[k] = a + c, to[part + k] = b + turned, to[2 * part + k] = a - c, to[3 * part + k] = b - turned;
        } else {
            size_t unit = length_ / radix;
            for (size_t q = 0; q < radix; ++q) {
                Complex sum = values[0];
                for (size_t r = 1; r < radix; ++r) sum += product(values[r], twiddle(q * r % radix * unit));
                to[q * part + k] = sum;
            }
        }
    }
}

void Transform::chirp(Complex *data, bool inverse, std::vector<Complex> &scratch) const {
    size_t padded = power_of_two_->length();
    std::vector<Complex> work(padded, Complex(0.0));
    // The inverse is the forward transform of the conjugate, conjugated.
    for (size_t k = 0; k < length_; ++k) work[k] = product(inverse ? std::conj(data[k]) : data[k], chirp_[k]);
    power_of_two_->run(work.data(), -1, scratch);
    for (size_t k = 0; k < padded; ++k) work[k] = product(work[k], chirp_spectrum_[k]);
    power_of_two_->run(work.data(), 1, scratch);
    for (size_t k = 0; k < length_; ++k) {
        Complex value = product(work[k] / double(padded), chirp_[k]);
        data[k] = inverse ? std::conj(value) : value;
    }
}

void Transform::run(Complex *data, int sign, std::vector<Complex> &scratch) const {
    if (power_of_two_) return chirp(data, sign > 0, scratch);
    if (scratch.size() < length_) scratch.resize(length_);
    std::copy(data, data + length_, scratch.begin());
    mixed_radix(scratch.data(), data, length_, 1, 1, sign > 0, factors_.data());
}

}  // namespace emulator
