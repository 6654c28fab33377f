// Numbers of two sizes, and functions of them that compilers turn into vectors.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

// The number of the thread that asks, among those that share a loop.
inline int this_thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

using bf16 = std::uint16_t;  // the upper half of a float
using std::int64_t;

inline float widen(float value) { return value; }

inline float widen(bf16 half) {
    std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void narrow(float value, float* to) { *to = value; }

inline void narrow(float value, bf16* to) {  // to the nearest, ties to even
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    *to = static_cast<bf16>(value != value ? 0x7fc0u : bits);
}

// exp(x) to 2e-7 of its value for a float, to 5e-5 for a bf16: 2^n e^f with n whole and |f| <= ln(2) / 2, the latter by its Taylor
// polynomial.
template <class Number>
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    const float whole = std::nearbyint(x * 1.44269504f);
    const float f = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln(2) in two parts, the first of few bits
    float p = 1.0f / 24;
    if (sizeof(Number) > 2) p += f * (1.0f / 120 + f * (1.0f / 720 + f * (1.0f / 5040)));
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

template <class Number>
inline float sigmoid(float x) {
    return 1.0f / (1.0f + exponential<Number>(-x));
}

}  // namespace
