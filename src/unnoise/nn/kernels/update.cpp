// An update of AdamW with all that goes with it, once over memory; twice over the gradient where it is clipped by its norm.
//
// The squares of a block are summed as float, the sums of the blocks as double and in order, so that the norm is the same however
// many threads there are. All else concerns one number at a time.

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace {

constexpr int64_t BLOCK = 4096, WORTH_A_THREAD = 1 << 17;

inline float squares(const float* x, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

inline float norm_of(const std::vector<float>& sums) {
    double total = 0;
    for (const float sum : sums) total += sum;
    return static_cast<float>(std::sqrt(total));
}

}  // namespace

extern "C" {

// clip: the largest norm, or 0. kept: what decay leaves of a weight. rate: the learning rate, corrected for a first moment that
// began at zero; correction: the same for the root of the second. share: of the new weights in their average.
// Returns the norm before clipping.
float adamw(float* weights, float* gradient, float* first, float* second, float* average, int64_t n, float clip,
            float beta_1, float beta_2, float kept, float rate, float correction, float eps, float share, int threads) {
    threads = static_cast<int>(std::min<int64_t>(threads, n / WORTH_A_THREAD + 1));
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    std::vector<float> sums(blocks);
    float scale = 1;
    if (clip > 0) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t b = 0; b < blocks; b++) sums[b] = squares(gradient + b * BLOCK, std::min(BLOCK, n - b * BLOCK));
        scale = clip / (norm_of(sums) + 1e-6f);
        scale = scale > 1 ? 1 : scale;  // a norm that is no number makes everything none
    }
    const float new_1 = 1 - beta_1, new_2 = 1 - beta_2;
    // The difference is added to the nearer of the two, so that a share of 1 gives the new weight itself.
    const bool old_is_nearer = share < 0.5f;
    const float part = old_is_nearer ? share : share - 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t begin = b * BLOCK, end = std::min(n, begin + BLOCK);
        if (clip == 0) sums[b] = squares(gradient + begin, end - begin);
#pragma omp simd
        for (int64_t i = begin; i < end; i++) {
            const float g = scale * gradient[i], old = average[i];
            const float m = first[i] + new_1 * (g - first[i]);
            const float v = beta_2 * second[i] + new_2 * g * g;
            const float w = weights[i] * kept - rate * m / (std::sqrt(v) * correction + eps);
            first[i] = m;
            second[i] = v;
            weights[i] = w;
            average[i] = (old_is_nearer ? old : w) + part * (w - old);
            gradient[i] = 0;
        }
    }
    return norm_of(sums);
}
}
