// One-dimensional complex Fourier transforms of any length, in double precision.
#pragma once
#include <complex>
#include <memory>
#include <vector>

namespace emulator {

using Complex = std::complex<double>;

/// A transform of one length. Calls of one object from several threads at a time are safe: it holds tables only.
class Transform {
  public:
    explicit Transform(size_t length);
    size_t length() const { return length_; }
    /// In place and unnormalised: sum over j of data[j] exp(sign 2 pi i j k / length). `scratch` is resized as needed.
    void run(Complex *data, int sign, std::vector<Complex> &scratch) const;
    /// The transform of this length, made once a process.
    static std::shared_ptr<const Transform> of(size_t length);

  private:
    void mixed_radix(const Complex *from, Complex *to, size_t length, size_t stride, size_t step, bool inverse, const size_t *factor) const;
    void chirp(Complex *data, bool inverse, std::vector<Complex> &scratch) const;
    size_t length_;
    std::vector<size_t> factors_;
    std::vector<Complex> roots_;  // exp(-2 pi i k / length)
    // For lengths with a large prime factor, by Bluestein's identity jk = (j^2 + k^2 - (k - j)^2) / 2:
    std::shared_ptr<const Transform> power_of_two_;
    std::vector<Complex> chirp_, chirp_spectrum_;
};

}  // namespace emulator
