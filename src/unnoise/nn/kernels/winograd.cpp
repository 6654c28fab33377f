// Transforms of convolutions of 3 x 3 places by Winograd's way, in tiles of 4 x 4 results; channels of pictures lie innermost.
//
// A tile of results is A^T [(G w G^T) * (B^T d B)] A, with d the 6 x 6 places that it sees. What stands between the transforms is a
// product of matrices for each of the 36 places of a transformed tile, with a quarter of the multiplications. It is worked out for
// a few tiles and channels at a time, so that what is transformed is used while it lies in the nearer caches. The points at which
// polynomials are taken are 0, +-3/4, +-3/2 and infinity, with which results in float32 are about as near to the exact ones as
// those of the plain sum. Every channel and tile is transformed by itself, alike on any number of threads.

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace {

constexpr int LANES = 8, SEEN = 6, TILE = 4, WEIGHT = 3, PLACES = SEEN * SEEN;
constexpr float A = 0.75f, B = 1.5f, A2 = A * A, B2 = B * B, A3 = A2 * A, B3 = B2 * B;
constexpr float SCALE_0 = 1 / (A2 * B2), SCALE_A = 1 / (2 * A2 * (A2 - B2)), SCALE_B = 1 / (2 * B2 * (B2 - A2));

// Eight numbers, wherever they begin.
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// Sums of ROWS tiles by two vectors of channels are held in registers while a product is worked out.
#ifdef __AVX512F__
constexpr int WIDE = 16, ROWS = 12;
#else
constexpr int WIDE = 8, ROWS = 6;
#endif
typedef float wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));
constexpr int PANEL = 2 * WIDE;  // channels that leave together
constexpr int SOME = 48;         // tiles whose products are worked out one after another, a multiple of ROWS
constexpr int MOST = 128;        // channels for which they are

inline const vec& at(const float* x) { return *reinterpret_cast<const vec*>(x); }
inline vec& at(float* x) { return *reinterpret_cast<vec*>(x); }

// What a point and its opposite give, by the even and the odd powers of two such pairs of points.
template <int to>
inline void pairs(const vec& even_a, const vec& odd_a, const vec& even_b, const vec& odd_b, vec* out) {
    out[to] = even_a + odd_a;
    out[2 * to] = even_a - odd_a;
    out[3 * to] = even_b + odd_b;
    out[4 * to] = even_b - odd_b;
}

// One dimension of B^T d, of the numbers at d[0], d[step], ...
template <int step, int to>
inline void see(const vec* d, vec* out) {
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const vec even_a = d4 - B2 * d2, odd_a = A * (d3 - B2 * d1), even_b = d4 - A2 * d2, odd_b = B * (d3 - A2 * d1);
    out[0] = A2 * B2 * d0 - (A2 + B2) * d2 + d4;
    pairs<to>(even_a, odd_a, even_b, odd_b, out);
    out[5 * to] = A2 * B2 * d1 - (A2 + B2) * d3 + d5;
}

// One dimension of A^T m: six numbers become four.
template <int step, int to>
inline void gather(const vec* m, vec* out) {
    const vec sum_a = m[step] + m[2 * step], gap_a = m[step] - m[2 * step];
    const vec sum_b = m[3 * step] + m[4 * step], gap_b = m[3 * step] - m[4 * step];
    out[0] = m[0] + sum_a + sum_b;
    out[to] = A * gap_a + B * gap_b;
    out[2 * to] = A2 * sum_a + B2 * sum_b;
    out[3 * to] = A3 * gap_a + B3 * gap_b + m[5 * step];
}

// One dimension of A y: four numbers become six.
template <int step, int to>
inline void spread(const vec* y, vec* out) {
    const vec y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const vec even_a = y0 + A2 * y2, odd_a = A * y1 + A3 * y3, even_b = y0 + B2 * y2, odd_b = B * y1 + B3 * y3;
    out[0] = y0;
    pairs<to>(even_a, odd_a, even_b, odd_b, out);
    out[5 * to] = y3;
}

// One dimension of G w: three numbers become six.
template <int step, int to>
inline void weigh(const vec* w, vec* out) {
    const vec w0 = w[0], w1 = w[step], w2 = w[2 * step];
    const vec even_a = SCALE_A * (w0 + A2 * w2), odd_a = (SCALE_A * A) * w1;
    const vec even_b = SCALE_B * (w0 + B2 * w2), odd_b = (SCALE_B * B) * w1;
    out[0] = SCALE_0 * w0;
    pairs<to>(even_a, odd_a, even_b, odd_b, out);
    out[5 * to] = w2;
}

// One dimension of G^T u: six numbers become three.
template <int step, int to>
inline void unweigh(const vec* u, vec* out) {
    const vec sum_a = SCALE_A * (u[step] + u[2 * step]), gap_a = SCALE_A * (u[step] - u[2 * step]);
    const vec sum_b = SCALE_B * (u[3 * step] + u[4 * step]), gap_b = SCALE_B * (u[3 * step] - u[4 * step]);
    out[0] = SCALE_0 * u[0] + sum_a + sum_b;
    out[to] = A * gap_a + B * gap_b;
    out[2 * to] = A2 * sum_a + B2 * sum_b + u[5 * step];
}

// Where a tile lies, of pictures of height x width places.
struct Place {
    int64_t height, width, sample, row, column;

    Place(int64_t tile, int64_t height, int64_t width) : height(height), width(width) {
        const int64_t across = (width + TILE - 1) / TILE, down = (height + TILE - 1) / TILE;
        sample = tile / (down * across);
        row = tile / across % down * TILE;
        column = tile % across * TILE;
    }
    bool holds(int64_t y, int64_t x) const { return y >= 0 && y < height && x >= 0 && x < width; }
    int64_t number(int64_t y, int64_t x) const { return (sample * height + y) * width + x; }
};

// Where the numbers of a tile of size x size places lie that begins `before` places ahead of it; those outside of the picture lie
// at `outside`.
template <int size, class Number>
inline void find(Number* x, Number* outside, const Place& place, int before, int64_t channels, Number** out) {
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            const int64_t y = place.row + i - before, z = place.column + j - before;
            out[size * i + j] = place.holds(y, z) ? x + place.number(y, z) * channels : outside;
        }
}

// B^T d B of a tile, to the places of `out`, a plane apart.
inline void see_tile(const float* x, const float* zeros, const Place& place, int64_t channels, float* out, int64_t plane) {
    const float* from[PLACES];
    find<SEEN>(x, zeros, place, 1, channels, from);
    for (int64_t c = 0; c < channels; c += LANES) {
        vec half[PLACES];
#pragma GCC unroll 6
        for (int j = 0; j < SEEN; j++) {
            vec d[SEEN];
#pragma GCC unroll 6
            for (int i = 0; i < SEEN; i++) d[i] = at(from[SEEN * i + j] + c);
            see<1, SEEN>(d, half + j);
        }
#pragma GCC unroll 6
        for (int i = 0; i < SEEN; i++) {
            vec d[SEEN];
            see<1, 1>(half + SEEN * i, d);
#pragma GCC unroll 6
            for (int j = 0; j < SEEN; j++) at(out + (SEEN * i + j) * plane + c) = d[j];
        }
    }
}

// A g A^T of a tile of gradients, the same.
inline void spread_tile(const float* g, const float* zeros, const Place& place, int64_t channels, float* out,
                        int64_t plane) {
    const float* from[TILE * TILE];
    find<TILE>(g, zeros, place, 0, channels, from);
    for (int64_t c = 0; c < channels; c += LANES) {
        vec half[SEEN * TILE];
#pragma GCC unroll 4
        for (int j = 0; j < TILE; j++) {
            vec d[TILE];
#pragma GCC unroll 4
            for (int i = 0; i < TILE; i++) d[i] = at(from[TILE * i + j] + c);
            spread<1, TILE>(d, half + j);
        }
#pragma GCC unroll 6
        for (int i = 0; i < SEEN; i++) {
            vec d[SEEN];
            spread<1, 1>(half + TILE * i, d);
#pragma GCC unroll 6
            for (int j = 0; j < SEEN; j++) at(out + (SEEN * i + j) * plane + c) = d[j];
        }
    }
}

// A^T m A of a tile's products, a plane apart, for some of the channels that leave and a bias where there is one, to where it lies
// in y.
inline void gather_tile(const float* m, int64_t plane, const float* bias, float* y, float* lost, const Place& place,
                        int64_t channels, int64_t leaving) {
    float* to[TILE * TILE];
    find<TILE>(y, lost, place, 0, leaving, to);
    for (int64_t c = 0; c < channels; c += LANES) {
        vec half[TILE * SEEN];
#pragma GCC unroll 6
        for (int j = 0; j < SEEN; j++) {
            vec d[SEEN];
#pragma GCC unroll 6
            for (int i = 0; i < SEEN; i++) d[i] = at(m + (SEEN * i + j) * plane + c);
            gather<1, SEEN>(d, half + j);
        }
        const vec more = bias ? at(bias + c) : vec{};
#pragma GCC unroll 4
        for (int i = 0; i < TILE; i++) {
            vec out[TILE];
            gather<1, 1>(half + SEEN * i, out);
#pragma GCC unroll 4
            for (int j = 0; j < TILE; j++) at(to[TILE * i + j] + c) = out[j] + more;
        }
    }
}

// The weights of a convolution of shape (out, in, 3, 3), there or back: then what leaves is what entered, and all is turned round.
struct Weights {
    const float* first;
    int64_t channels, leaving;  // that enter and leave
    bool back;

    const float* of(int64_t c, int64_t l) const {
        return first + (back ? c * leaving + l : l * channels + c) * WEIGHT * WEIGHT;
    }
    int turned(int k) const { return back ? WEIGHT * WEIGHT - 1 - k : k; }
};

// G w G^T of the weights of one channel that enters and a panel of those that leave, to 36 planes of shape (channels, PANEL).
inline void weigh_panel(const Weights& weights, int64_t c, int64_t panel, float* out) {
    for (int64_t l = 0; l < PANEL; l += LANES) {
        vec w[WEIGHT * WEIGHT] = {}, half[SEEN * WEIGHT], whole[PLACES];
        if (panel + l < weights.leaving)
            for (int lane = 0; lane < LANES; lane++) {
                const float* from = weights.of(c, panel + l + lane);
#pragma GCC unroll 9
                for (int k = 0; k < WEIGHT * WEIGHT; k++) w[weights.turned(k)][lane] = from[k];
            }
        for (int j = 0; j < WEIGHT; j++) weigh<WEIGHT, WEIGHT>(w + j, half + j);
        for (int i = 0; i < SEEN; i++) weigh<1, 1>(half + WEIGHT * i, whole + SEEN * i);
        for (int k = 0; k < PLACES; k++) at(out + (k * weights.channels + c) * PANEL + l) = whole[k];
    }
}

// The products of ROWS tiles, each a row of channels, and a panel of shape (channels, PANEL), to rows that lie `apart`.
inline void multiply(const float* seen, const float* panel, int64_t channels, float* out, int64_t apart) {
    wide sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = wide{};
    for (int64_t c = 0; c < channels; c++) {
        const wide left = *reinterpret_cast<const wide*>(panel + c * PANEL);
        const wide right = *reinterpret_cast<const wide*>(panel + c * PANEL + WIDE);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            const float s = seen[r * channels + c];
            sums[r][0] += s * left;
            sums[r][1] += s * right;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
        *reinterpret_cast<wide*>(out + r * apart) = sums[r][0];
        *reinterpret_cast<wide*>(out + r * apart + WIDE) = sums[r][1];
    }
}

// What a thread works in: products, and what comes out for places outside of the picture.
constexpr int64_t PRODUCTS = PLACES * (SOME * MOST + PANEL), WORKSPACE = PRODUCTS + MOST;

}  // namespace

extern "C" {

// Tiles that are multiplied together: `seen` has room for a multiple of it.
int64_t winograd_rows() { return ROWS; }

// Channels that leave together: `weighed` has room for a multiple of it.
int64_t winograd_panel() { return PANEL; }

// Numbers of memory that every thread works in.
int64_t winograd_workspace() { return WORKSPACE; }

// Tiles `first` to `first + tiles` of a convolution, there or back, of x of shape (samples, height, width, channels). `seen` has
// room for 36 planes of their transforms, `weighed` for those of the weights of `held` panels, which are there already where they
// are all and not fresh, `workspace` for what each thread works in.
void winograd_convolve(const float* x, const float* weight, const float* bias, float* y, float* seen, float* weighed,
                       float* workspace, int64_t first, int64_t tiles, int64_t height, int64_t width, int64_t channels,
                       int64_t leaving, int64_t plane, int64_t held, int fresh, int back, int threads) {
    const Weights weights{weight, channels, leaving, back != 0};
    const std::vector<float> zeros(channels);
    const int64_t rows = (tiles + ROWS - 1) / ROWS * ROWS, panels = (leaving + PANEL - 1) / PANEL;
    // So many panels at a time that every thread has something to do, and their products lie in a near cache.
    const int64_t shares = (rows + SOME - 1) / SOME, most = std::min<int64_t>(MOST / PANEL, held * shares / (2 * threads));
    const int64_t together = std::max<int64_t>(1, most), apart = together * PANEL, between = SOME * apart + PANEL;
    const int64_t one = PLACES * channels * PANEL;  // numbers of a panel's weights
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < rows; tile++) {
            float* to = seen + tile * channels;
            if (tile < tiles)
                see_tile(x, zeros.data(), Place(first + tile, height, width), channels, to, plane);
            else
                for (int64_t k = 0; k < PLACES; k++) std::fill_n(to + k * plane, channels, 0.0f);
        }
        for (int64_t begin = 0; begin < panels; begin += held) {
            const int64_t end = std::min(panels, begin + held);
            if (fresh || held < panels) {
#pragma omp for schedule(static) collapse(2)
                for (int64_t p = begin; p < end; p++)
                    for (int64_t c = 0; c < channels; c++) weigh_panel(weights, c, p * PANEL, weighed + (p - begin) * one);
            }
#pragma omp for schedule(dynamic) collapse(2)
            for (int64_t t = 0; t < rows; t += SOME)
                for (int64_t q = begin; q < end; q += together) {
                    float *products = workspace + this_thread() * WORKSPACE, *lost = products + PRODUCTS;
                    const int64_t some = std::min<int64_t>(SOME, rows - t), last = std::min(end, q + together);
                    for (int64_t k = 0; k < PLACES; k++)
                        for (int64_t p = q; p < last; p++)
                            for (int64_t r = 0; r < some; r += ROWS)
                                multiply(seen + k * plane + (t + r) * channels,
                                         weighed + (p - begin) * one + k * channels * PANEL, channels,
                                         products + k * between + r * apart + (p - q) * PANEL, apart);
                    const int64_t of = q * PANEL, part = std::min(last * PANEL, leaving) - of;
                    for (int64_t r = 0; r < some && t + r < tiles; r++)
                        gather_tile(products + r * apart, between, bias ? bias + of : nullptr, y + of, lost,
                                    Place(first + t + r, height, width), part, leaving);
                }
        }
    }
}

// B^T d B of tiles `first` to `first + tiles`: of x of shape (samples, height, width, channels) to 36 planes of (tiles, channels).
void winograd_see(const float* x, float* out, int64_t first, int64_t tiles, int64_t height, int64_t width,
                  int64_t channels, int64_t plane, int threads) {
    const std::vector<float> zeros(channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t tile = 0; tile < tiles; tile++)
        see_tile(x, zeros.data(), Place(first + tile, height, width), channels, out + tile * channels, plane);
}

// A g A^T of the gradients of tiles of results, to 36 planes of (tiles, channels).
void winograd_spread(const float* g, float* out, int64_t first, int64_t tiles, int64_t height, int64_t width,
                     int64_t channels, int64_t plane, int threads) {
    const std::vector<float> zeros(channels);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t tile = 0; tile < tiles; tile++)
        spread_tile(g, zeros.data(), Place(first + tile, height, width), channels, out + tile * channels, plane);
}

// G^T u G of u of shape (36, rows, columns) to shape (rows, columns, 3, 3).
void winograd_unweigh(const float* u, float* out, int64_t rows, int64_t columns, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < columns; c += LANES) {
            float* to = out + (row * columns + c) * WEIGHT * WEIGHT;
            vec whole[SEEN * SEEN], half[WEIGHT * SEEN], w[WEIGHT * WEIGHT];
            for (int k = 0; k < SEEN * SEEN; k++) whole[k] = at(u + (k * rows + row) * columns + c);
            for (int j = 0; j < SEEN; j++) unweigh<SEEN, SEEN>(whole + j, half + j);
            for (int i = 0; i < WEIGHT; i++) unweigh<1, 1>(half + SEEN * i, w + WEIGHT * i);
            for (int k = 0; k < WEIGHT * WEIGHT; k++)
                for (int lane = 0; lane < LANES; lane++) to[lane * WEIGHT * WEIGHT + k] = w[k][lane];
        }
}
}
