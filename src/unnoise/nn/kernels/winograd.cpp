// Transforms of convolutions of 3 x 3 places by Winograd's way, in tiles of 4 x 4 results; channels of pictures lie innermost.
//
// A tile of results is A^T [(G w G^T) * (B^T d B)] A, with d the 6 x 6 places that it sees. What stands between the transforms is a
// product of matrices for each of the 36 places of a transformed tile, with a quarter of the multiplications. The points at which
// polynomials are taken are 0, +-3/4, +-3/2 and infinity, with which results in float32 are about as near to the exact ones as
// those of the plain sum. Every channel and tile is transformed by itself, alike on any number of threads.

#include <algorithm>

#include "numbers.h"

namespace {

constexpr int LANES = 8, SEEN = 6, TILE = 4, WEIGHT = 3;
constexpr float A = 0.75f, B = 1.5f, A2 = A * A, B2 = B * B, A3 = A2 * A, B3 = B2 * B;
constexpr float SCALE_0 = 1 / (A2 * B2), SCALE_A = 1 / (2 * A2 * (A2 - B2)), SCALE_B = 1 / (2 * B2 * (B2 - A2));

// Eight numbers, wherever they begin.
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

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
template <int step>
inline void see(const vec* d, vec* out) {
    const vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const vec even_a = d4 - B2 * d2, odd_a = A * (d3 - B2 * d1), even_b = d4 - A2 * d2, odd_b = B * (d3 - A2 * d1);
    out[0] = A2 * B2 * d0 - (A2 + B2) * d2 + d4;
    pairs<step>(even_a, odd_a, even_b, odd_b, out);
    out[5 * step] = A2 * B2 * d1 - (A2 + B2) * d3 + d5;
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

// The places of a tile that begins `before` places ahead of it, those outside of the picture as zeros.
template <int size>
inline void load(const float* x, const Place& place, int before, int64_t channels, int64_t c, vec* d) {
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            const int64_t y = place.row + i - before, z = place.column + j - before;
            d[size * i + j] = place.holds(y, z) ? at(x + place.number(y, z) * channels + c) : vec{};
        }
}

}  // namespace

extern "C" {

// B^T d B of tiles `first` to `first + tiles`: of x of shape (samples, height, width, channels) to shape (36, tiles, channels).
void winograd_see(const float* x, float* out, int64_t first, int64_t tiles, int64_t height, int64_t width,
                  int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t tile = 0; tile < tiles; tile++) {
        const Place place(first + tile, height, width);
        for (int64_t c = 0; c < channels; c += LANES) {
            vec d[SEEN * SEEN], half[SEEN * SEEN];
            load<SEEN>(x, place, 1, channels, c, d);
            for (int j = 0; j < SEEN; j++) see<SEEN>(d + j, half + j);
            for (int i = 0; i < SEEN; i++) see<1>(half + SEEN * i, d + SEEN * i);
            for (int k = 0; k < SEEN * SEEN; k++) at(out + (k * tiles + tile) * channels + c) = d[k];
        }
    }
}

// A^T m A of m of shape (36, tiles, channels), and a bias where there is one, to where these tiles lie in y.
void winograd_gather(const float* m, const float* bias, float* y, int64_t first, int64_t tiles, int64_t height,
                     int64_t width, int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t tile = 0; tile < tiles; tile++) {
        const Place place(first + tile, height, width);
        for (int64_t c = 0; c < channels; c += LANES) {
            vec d[SEEN * SEEN], half[TILE * SEEN], out[TILE * TILE];
            for (int k = 0; k < SEEN * SEEN; k++) d[k] = at(m + (k * tiles + tile) * channels + c);
            for (int j = 0; j < SEEN; j++) gather<SEEN, SEEN>(d + j, half + j);
            for (int i = 0; i < TILE; i++) gather<1, 1>(half + SEEN * i, out + TILE * i);
            const vec more = bias ? at(bias + c) : vec{};
            for (int i = 0; i < TILE; i++)
                for (int j = 0; j < TILE; j++)
                    if (place.holds(place.row + i, place.column + j))
                        at(y + place.number(place.row + i, place.column + j) * channels + c) = out[TILE * i + j] + more;
        }
    }
}

// A g A^T of the gradients of tiles of results, to shape (36, tiles, channels).
void winograd_spread(const float* g, float* out, int64_t first, int64_t tiles, int64_t height, int64_t width,
                     int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t tile = 0; tile < tiles; tile++) {
        const Place place(first + tile, height, width);
        for (int64_t c = 0; c < channels; c += LANES) {
            vec d[TILE * TILE], half[SEEN * TILE], whole[SEEN * SEEN];
            load<TILE>(g, place, 0, channels, c, d);
            for (int j = 0; j < TILE; j++) spread<TILE, TILE>(d + j, half + j);
            for (int i = 0; i < SEEN; i++) spread<1, 1>(half + TILE * i, whole + SEEN * i);
            for (int k = 0; k < SEEN * SEEN; k++) at(out + (k * tiles + tile) * channels + c) = whole[k];
        }
    }
}

// G w G^T of weights of shape (rows, columns, 3, 3) to shape (36, rows, columns), turned by half a circle where that is asked for.
void winograd_weigh(const float* weight, float* out, int64_t rows, int64_t columns, int turned, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < columns; c += LANES) {
            const float* from = weight + (row * columns + c) * WEIGHT * WEIGHT;
            vec w[WEIGHT * WEIGHT], half[SEEN * WEIGHT], whole[SEEN * SEEN];
            for (int k = 0; k < WEIGHT * WEIGHT; k++)
                for (int lane = 0; lane < LANES; lane++)
                    w[turned ? WEIGHT * WEIGHT - 1 - k : k][lane] = from[lane * WEIGHT * WEIGHT + k];
            for (int j = 0; j < WEIGHT; j++) weigh<WEIGHT, WEIGHT>(w + j, half + j);
            for (int i = 0; i < SEEN; i++) weigh<1, 1>(half + WEIGHT * i, whole + SEEN * i);
            for (int k = 0; k < SEEN * SEEN; k++) at(out + (k * rows + row) * columns + c) = whole[k];
        }
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
