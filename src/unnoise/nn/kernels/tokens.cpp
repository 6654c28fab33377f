// What a transformer does to its tokens between products of matrices, each in one pass over memory.
//
// Numbers are bfloat16 or float32 in memory and float32 in between. Loops are plain and left to the compiler's vectors.

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace {

// GELU(x) = x sigmoid(u(x)) with u(x) = 2 sqrt(2 / pi) (x + 0.044715 x^3); the same as by its hyperbolic tangent.
constexpr float LINEAR = 1.5957691216f, CUBIC = 0.0713548162726f;

template <class Number>
inline float gate_of(float x) {
    return sigmoid<Number>(x * (LINEAR + CUBIC * x * x));
}

template <class Number>
void gelu(const Number* x, Number* y, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float v = widen(x[i]);
        narrow(v * gate_of<Number>(v), &y[i]);
    }
}

template <class Number>
void gelu_backward(const Number* g, const Number* x, Number* dx, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float v = widen(x[i]), s = gate_of<Number>(v), slope = LINEAR + 3 * CUBIC * v * v;
        narrow(widen(g[i]) * (s + v * s * (1.0f - s) * slope), &dx[i]);
    }
}

// In place: e^x of each row, divided by its sum. The largest of a row is taken away first, so that none is too large.
template <class Number>
void softmax(Number* x, int64_t rows, int64_t width, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> powers(width);
        float* power = powers.data();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            Number* at = x + row * width;
            float most = widen(at[0]), sum = 0;
#pragma omp simd reduction(max : most)
            for (int64_t c = 0; c < width; c++) most = std::max(most, widen(at[c]));
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < width; c++) {
                power[c] = exponential<Number>(widen(at[c]) - most);
                sum += power[c];
            }
            const float share = 1.0f / sum;
#pragma omp simd
            for (int64_t c = 0; c < width; c++) narrow(power[c] * share, &at[c]);
        }
    }
}

// y = (x - mean) / root of the variance * (1 + scale) + shift; statistics: mean and inverse root, two of each token.
template <class Number>
void modulated_norm(const Number* x, const Number* shift, const Number* scale, int64_t shift_stride, int64_t scale_stride,
                    Number* y, float* statistics, int64_t samples, int64_t tokens, int64_t width, float epsilon,
                    int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < samples * tokens; row++) {
        const Number *in = x + row * width, *h = shift + row / tokens * shift_stride, *s = scale + row / tokens * scale_stride;
        Number* out = y + row * width;
        float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < width; c++) sum += widen(in[c]);
        const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
        for (int64_t c = 0; c < width; c++) squares += (widen(in[c]) - mean) * (widen(in[c]) - mean);
        const float inverse = 1.0f / std::sqrt(squares / width + epsilon);
        statistics[2 * row] = mean;
        statistics[2 * row + 1] = inverse;
#pragma omp simd
        for (int64_t c = 0; c < width; c++)
            narrow((widen(in[c]) - mean) * inverse * (1.0f + widen(s[c])) + widen(h[c]), &out[c]);
    }
}

// Tokens of a sample are shared out among `parts`, and the gradients of shift and scale are sums over each part.
template <class Number>
void modulated_norm_backward(const Number* g, const Number* x, const Number* scale, int64_t scale_stride,
                             const float* statistics, Number* dx, float* dshift, float* dscale, int64_t samples,
                             int64_t tokens, int64_t width, int64_t parts, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < samples * parts; part++) {
        const int64_t sample = part / parts, share = part % parts;
        const Number* s = scale + sample * scale_stride;
        float *dh = dshift + part * width, *ds = dscale + part * width;
        std::memset(dh, 0, width * sizeof(float));
        std::memset(ds, 0, width * sizeof(float));
        for (int64_t token = tokens * share / parts; token < tokens * (share + 1) / parts; token++) {
            const int64_t row = sample * tokens + token;
            const Number *in = x + row * width, *pull = g + row * width;
            Number* out = dx + row * width;
            const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
            float along = 0, across = 0;
#pragma omp simd reduction(+ : along, across)
            for (int64_t c = 0; c < width; c++) {
                const float normed = (widen(in[c]) - mean) * inverse, v = widen(pull[c]), scaled = v * (1.0f + widen(s[c]));
                along += scaled;
                across += scaled * normed;
                dh[c] += v;
                ds[c] += v * normed;
            }
            along /= width;
            across /= width;
#pragma omp simd
            for (int64_t c = 0; c < width; c++) {
                const float normed = (widen(in[c]) - mean) * inverse, scaled = widen(pull[c]) * (1.0f + widen(s[c]));
                narrow(inverse * (scaled - along - normed * across), &out[c]);
            }
        }
    }
}

// The gradients of gate * h: those of h, and sums over each part of the tokens for those of the gate.
template <class Number>
void gated_backward(const Number* g, const Number* gate, int64_t gate_stride, const Number* h, Number* dh, float* dgate,
                    int64_t samples, int64_t tokens, int64_t width, int64_t parts, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < samples * parts; part++) {
        const int64_t sample = part / parts, share = part % parts;
        const Number* scale = gate + sample * gate_stride;
        float* sum = dgate + part * width;
        std::memset(sum, 0, width * sizeof(float));
        for (int64_t token = tokens * share / parts; token < tokens * (share + 1) / parts; token++) {
            const int64_t at = (sample * tokens + token) * width;
#pragma omp simd
            for (int64_t c = 0; c < width; c++) {
                const float v = widen(g[at + c]);
                sum[c] += v * widen(h[at + c]);
                narrow(v * widen(scale[c]), &dh[at + c]);
            }
        }
    }
}

// Calls work with a number of the kind that lies in memory.
template <class Work>
void of_kind(int half, Work work) {
    if (half)
        work(bf16{});
    else
        work(float{});
}

template <class Number>
const Number* as(Number, const void* at) {
    return static_cast<const Number*>(at);
}

template <class Number>
Number* as(Number, void* at) {
    return static_cast<Number*>(at);
}

}  // namespace

extern "C" {

void gelu(const void* x, void* y, int64_t n, int half, int threads) {
    of_kind(half, [&](auto kind) { gelu(as(kind, x), as(kind, y), n, threads); });
}

void gelu_backward(const void* g, const void* x, void* dx, int64_t n, int half, int threads) {
    of_kind(half, [&](auto kind) { gelu_backward(as(kind, g), as(kind, x), as(kind, dx), n, threads); });
}

void softmax(void* x, int64_t rows, int64_t width, int half, int threads) {
    of_kind(half, [&](auto kind) { softmax(as(kind, x), rows, width, threads); });
}

void modulated_norm(const void* x, const void* shift, const void* scale, int64_t shift_stride, int64_t scale_stride,
                    void* y, float* statistics, int64_t samples, int64_t tokens, int64_t width, float epsilon, int half,
                    int threads) {
    of_kind(half, [&](auto kind) {
        modulated_norm(as(kind, x), as(kind, shift), as(kind, scale), shift_stride, scale_stride, as(kind, y), statistics,
                       samples, tokens, width, epsilon, threads);
    });
}

void modulated_norm_backward(const void* g, const void* x, const void* scale, int64_t scale_stride,
                             const float* statistics, void* dx, float* dshift, float* dscale, int64_t samples,
                             int64_t tokens, int64_t width, int64_t parts, int half, int threads) {
    of_kind(half, [&](auto kind) {
        modulated_norm_backward(as(kind, g), as(kind, x), as(kind, scale), scale_stride, statistics, as(kind, dx), dshift,
                                dscale, samples, tokens, width, parts, threads);
    });
}

void gated_backward(const void* g, const void* gate, int64_t gate_stride, const void* h, void* dh, float* dgate,
                    int64_t samples, int64_t tokens, int64_t width, int64_t parts, int half, int threads) {
    of_kind(half, [&](auto kind) {
        gated_backward(as(kind, g), as(kind, gate), gate_stride, as(kind, h), as(kind, dh), dgate, samples, tokens, width,
                       parts, threads);
    });
}
}
