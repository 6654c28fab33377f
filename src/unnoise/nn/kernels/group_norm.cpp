// Group normalisation of samples whose channels lie innermost, with what usually stands around it: a vector added before, a scale
// and a shift of each channel after, and SiLU.
//
// Within a sample all of it is z = slope x + offset with numbers of the channel, so a sample is read once for its statistics and
// once more, mostly from the cache, for the result. Sums are taken over runs of places that depend on the shape alone, and added
// in their order: the result is the same on any number of threads.

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace {

constexpr int64_t RUN = 16384;  // numbers in a run of places, about what the nearest cache holds

// What is known of each channel of each sample: the parts of its line in `table`.
enum { SLOPE, OFFSET, CENTRE, INVERSE, LEAN, TABLE };

// What the gradients of each channel of each sample are summed to: the parts of its line in `sums`.
enum { OF_WEIGHT, OF_BIAS, OF_SCALE, OF_SHIFT, OF_ADDED, SUMS };

struct Shape {
    int64_t samples, places, channels, groups;
    int64_t run() const { return std::max<int64_t>(1, RUN / channels); }
    int64_t runs() const { return (places + run() - 1) / run(); }
};

// Calls work(first, last) for every run of places of a sample, on some threads.
template <class Work>
void each_run(const Shape& shape, int threads, Work work) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < shape.runs(); r++)
        work(r, r * shape.run(), std::min(shape.places, (r + 1) * shape.run()));
}

// Calls work(sample, threads) for every sample: many samples side by side, few ones one after the other on all threads.
template <class Work>
void each_sample(const Shape& shape, int threads, Work work) {
    if (shape.samples < threads)
        for (int64_t n = 0; n < shape.samples; n++) work(n, threads);
    else {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
        for (int64_t n = 0; n < shape.samples; n++) work(n, 1);
    }
}

// Adds the runs of a sample in their order; `partial` has a line of twice the channels for each run.
void add_runs(const Shape& shape, const float* partial, double* first, double* second) {
    const int64_t channels = shape.channels;
    std::fill_n(first, channels, 0.0);
    std::fill_n(second, channels, 0.0);
    for (int64_t r = 0; r < shape.runs(); r++, partial += 2 * channels)
        for (int64_t c = 0; c < channels; c++) {
            first[c] += partial[c];
            second[c] += partial[channels + c];
        }
}

// The table of a sample from the sums, over its places, of x - pivot and of its square.
void tabulate(const Shape& shape, double* first, double* second, const float* pivot, const float* added,
              const float* scale, const float* shift, const float* weight, const float* bias, float epsilon,
              float* table) {
    const int64_t channels = shape.channels, width = channels / shape.groups, places = shape.places;
    for (int64_t g = 0; g < shape.groups; g++) {
        const int64_t begin = g * width, end = begin + width;
        double mean = 0, squares = 0;
        for (int64_t c = begin; c < end; c++) {
            second[c] -= first[c] * first[c] / places;  // about the mean of the channel
            first[c] = pivot[c] + first[c] / places + (added ? added[c] : 0.0f);
            mean += first[c] / width;
        }
        for (int64_t c = begin; c < end; c++)
            squares += std::max(second[c], 0.0) + places * (first[c] - mean) * (first[c] - mean);
        const double inverse = 1 / std::sqrt(squares / (width * places) + epsilon);
        for (int64_t c = begin; c < end; c++) {
            const double s = scale ? 1.0 + scale[c] : 1.0, centre = mean - (added ? added[c] : 0.0f);
            const double slope = inverse * weight[c] * s;
            table[SLOPE * channels + c] = slope;
            table[OFFSET * channels + c] = bias[c] * s + (shift ? shift[c] : 0.0f) - centre * slope;
            table[CENTRE * channels + c] = centre;
            table[INVERSE * channels + c] = inverse;
            table[LEAN * channels + c] = first[c] - mean;
        }
    }
}

// The results of a sample whose line of the table is known.
template <class Number>
void apply(const Number* in, Number* out, const float* line, const Shape& shape, bool silu, int threads) {
    const int64_t channels = shape.channels;
    const float *slope = line + SLOPE * channels, *offset = line + OFFSET * channels;
    each_run(shape, threads, [&](int64_t, int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++) {
            const Number* at = in + p * channels;
            Number* to = out + p * channels;
            if (silu)
#pragma omp simd
                for (int64_t c = 0; c < channels; c++) {
                    const float z = slope[c] * widen(at[c]) + offset[c];
                    narrow(z * sigmoid<Number>(z), to + c);
                }
            else
#pragma omp simd
                for (int64_t c = 0; c < channels; c++) narrow(slope[c] * widen(at[c]) + offset[c], to + c);
        }
    });
}

template <class Number>
void forward(const Number* x, const float* weight, const float* bias, const float* added, const float* scale,
             const float* shift, Number* y, float* table, Shape shape, float epsilon, bool silu, int threads) {
    const int64_t channels = shape.channels, size = shape.places * channels;
    each_sample(shape, threads, [&](int64_t n, int inner) {
        const Number* in = x + n * size;
        Number* out = y + n * size;
        float* line = table + n * TABLE * channels;
        std::vector<float> pivot(channels), partial(shape.runs() * 2 * channels);
        std::vector<double> first(channels), second(channels);
        for (int64_t c = 0; c < channels; c++) pivot[c] = widen(in[c]);
        each_run(shape, inner, [&](int64_t r, int64_t begin, int64_t end) {
            float *sum = &partial[r * 2 * channels], *squares = sum + channels;
            const float* about = pivot.data();
            for (int64_t p = begin; p < end; p++) {
                const Number* at = in + p * channels;
#pragma omp simd
                for (int64_t c = 0; c < channels; c++) {
                    const float v = widen(at[c]) - about[c];
                    sum[c] += v;
                    squares[c] += v * v;
                }
            }
        });
        add_runs(shape, partial.data(), first.data(), second.data());
        const auto of = [&](const float* each) { return each ? each + n * channels : nullptr; };
        tabulate(shape, first.data(), second.data(), pivot.data(), of(added), of(scale), of(shift), weight, bias,
                 epsilon, line);
        apply(in, out, line, shape, silu, inner);
    });
}

// The derivative of the loss to z, of that to SiLU(z).
template <class Number, bool silu>
inline float pull(float gradient, float z) {
    if (!silu) return gradient;
    const float s = sigmoid<Number>(z);
    return gradient * (s * (1.0f + z * (1.0f - s)));
}

template <class Number, bool silu>
void backward(const Number* gradient, const Number* x, const float* weight, const float* bias, const float* scale,
              const float* table, Number* dx, float* sums, Shape shape, int threads) {
    const int64_t channels = shape.channels, size = shape.places * channels, width = channels / shape.groups;
    each_sample(shape, threads, [&](int64_t n, int inner) {
        const Number *in = x + n * size, *pulls = gradient + n * size;
        Number* out = dx + n * size;
        const float* line = table + n * TABLE * channels;
        const float *slope = line + SLOPE * channels, *offset = line + OFFSET * channels;
        const float *centre = line + CENTRE * channels, *inverse = line + INVERSE * channels;
        std::vector<float> partial(shape.runs() * 2 * channels), along(channels), level(channels);
        std::vector<double> first(channels), second(channels);  // sums of dz, and of dz (x - centre)
        each_run(shape, inner, [&](int64_t r, int64_t begin, int64_t end) {
            float *sum = &partial[r * 2 * channels], *moment = sum + channels;
            for (int64_t p = begin; p < end; p++) {
                const Number *at = in + p * channels, *pulled = pulls + p * channels;
#pragma omp simd
                for (int64_t c = 0; c < channels; c++) {
                    const float v = widen(at[c]), dz = pull<Number, silu>(widen(pulled[c]), slope[c] * v + offset[c]);
                    sum[c] += dz;
                    moment[c] += dz * (v - centre[c]);
                }
            }
        });
        add_runs(shape, partial.data(), first.data(), second.data());
        for (int64_t g = 0; g < shape.groups; g++) {
            double mean = 0, turn = 0;
            for (int64_t c = g * width; c < (g + 1) * width; c++) {
                mean += slope[c] * first[c] / (width * shape.places);
                turn += slope[c] * second[c] / (width * shape.places) * inverse[c] * inverse[c];
            }
            for (int64_t c = g * width; c < (g + 1) * width; c++) {
                along[c] = -turn;
                level[c] = turn * centre[c] - mean;
                const double normed = inverse[c] * second[c], s = scale ? 1.0 + scale[n * channels + c] : 1.0;
                float* own = sums + n * SUMS * channels + c;
                own[OF_WEIGHT * channels] = s * normed;
                own[OF_BIAS * channels] = s * first[c];
                own[OF_SCALE * channels] = weight[c] * normed + bias[c] * first[c];
                own[OF_SHIFT * channels] = first[c];
                own[OF_ADDED * channels] =
                    slope[c] * first[c] - shape.places * (turn * line[LEAN * channels + c] + mean);
            }
        }
        each_run(shape, inner, [&](int64_t, int64_t begin, int64_t end) {
            for (int64_t p = begin; p < end; p++) {
                const Number *at = in + p * channels, *pulled = pulls + p * channels;
                Number* to = out + p * channels;
#pragma omp simd
                for (int64_t c = 0; c < channels; c++) {
                    const float v = widen(at[c]), dz = pull<Number, silu>(widen(pulled[c]), slope[c] * v + offset[c]);
                    narrow(slope[c] * dz + (along[c] * v + level[c]), to + c);
                }
            }
        });
    });
}

}  // namespace

extern "C" {

// `added`, `scale` and `shift` have a line of channels for each sample, or are null.
void group_norm(const void* x, const float* weight, const float* bias, const float* added, const float* scale,
                const float* shift, void* y, float* table, int64_t samples, int64_t places, int64_t channels,
                int64_t groups, float epsilon, int silu, int half, int threads) {
    const Shape shape{samples, places, channels, groups};
    if (half)
        forward(static_cast<const bf16*>(x), weight, bias, added, scale, shift, static_cast<bf16*>(y), table, shape,
                epsilon, silu, threads);
    else
        forward(static_cast<const float*>(x), weight, bias, added, scale, shift, static_cast<float*>(y), table, shape,
                epsilon, silu, threads);
}

// What `group_norm` gave, once more, by the table that it wrote.
void group_norm_again(const void* x, void* y, const float* table, int64_t samples, int64_t places, int64_t channels,
                      int64_t groups, int silu, int half, int threads) {
    const Shape shape{samples, places, channels, groups};
    const auto run = [&](auto kind) {
        using Number = decltype(kind);
        const int64_t size = places * channels;
        each_sample(shape, threads, [&](int64_t n, int inner) {
            apply(static_cast<const Number*>(x) + n * size, static_cast<Number*>(y) + n * size,
                  table + n * TABLE * channels, shape, silu, inner);
        });
    };
    if (half)
        run(bf16{});
    else
        run(float{});
}

// `total` has two lines of channels: the gradients of weight and bias.
void group_norm_backward(const void* gradient, const void* x, const float* weight, const float* bias,
                         const float* scale, const float* table, void* dx, float* sums, float* total, int64_t samples,
                         int64_t places, int64_t channels, int64_t groups, int silu, int half, int threads) {
    const Shape shape{samples, places, channels, groups};
    const auto run = [&](auto kind) {
        using Number = decltype(kind);
        (silu ? backward<Number, true> : backward<Number, false>)(
            static_cast<const Number*>(gradient), static_cast<const Number*>(x), weight, bias, scale, table,
            static_cast<Number*>(dx), sums, shape, threads);
    };
    if (half)
        run(bf16{});
    else
        run(float{});
    std::fill_n(total, 2 * channels, 0.0f);
    for (int64_t n = 0; n < samples; n++)
        for (int64_t c = 0; c < 2 * channels; c++) total[c] += sums[n * SUMS * channels + c];
}
}
