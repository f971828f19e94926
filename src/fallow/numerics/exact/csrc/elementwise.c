/* Exact operators that are no products: dispatch and threads. Rows and spans are independent, so who computes them does not matter.
   See docs/spec/exact-arithmetic.md; numbers in brackets are its sections. */
#include <stddef.h>
#include <stdint.h>

#define SPAN 8192   /* elements that a thread takes at a time */
#define COLUMNS 256 /* columns of a weight's gradient, likewise */
#define POISON INT64_MIN
#define GRID_LIMIT ((int64_t)1 << 53)

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct elementwise {
    void (*silu_mul)(const float *gate, const float *up, float *out, int64_t n);
    void (*silu_mul_backward)(const float *dy, const float *gate, const float *up, float *d_gate, float *d_up, int64_t n);
    void (*softmax_row)(const float *x, float *p, int64_t n, int64_t start, int64_t stop, double scale);
    void (*softmax_back_row)(const float *p, const float *dp, float *dx, int64_t n, int64_t start, int64_t stop, double scale);
    float (*cross_entropy_row)(const float *x, int64_t n, int64_t target, float *slope);
    double (*rms_norm_row)(const float *x, const float *weight, float *y, int64_t n, double eps);
    void (*rms_norm_back_row)(const float *dy, const float *x, const float *weight, double r, float *dx, int64_t n);
    void (*rms_norm_weight_columns)(const float *dy, const float *x, const double *r, int64_t tokens, int64_t row,
                                    int64_t columns, double bound, int64_t *out);
    void (*rotate_token)(const float *x, const float *cos, const float *sin, float *y, int64_t heads, int64_t half, float turn);
    void (*adamw)(float *p, float *mean, float *square, const float *g, int64_t n, const float *settings);
    void (*gumbel_span)(uint64_t seed, uint32_t stream, uint32_t position, uint64_t block, double *out, int64_t n);
    void (*gradient_mean)(const int64_t *total, float *mean, int64_t n, double tokens);
    uint32_t (*largest_bits)(const float *x, int64_t n);
    int64_t (*squares)(const float *x, int64_t n, double factor);
};

/* [3.4]: a sequence's whole number of steps, high * 2^32 + low, within the limit of the gradient grid. */
static inline int64_t onto_grid(double high, double low) {
    if (high != high || low != low) return POISON;
    int64_t n = (int64_t)high * ((int64_t)1 << 32) + (int64_t)low;
    return n > GRID_LIMIT ? GRID_LIMIT : n < -GRID_LIMIT ? -GRID_LIMIT : n;
}

#define NAME(x) x##_portable
#define TARGET
#define LANES 2
#define WIDEN(t) __builtin_convertvector(t, W)
#include "elementwise_math.h"
#include "elementwise_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2")))
#define LANES 4
#define WIDEN(t) ((W)_mm256_cvtps_pd((__m128)(t)))
#include "elementwise_math.h"
#include "elementwise_rows.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#define LANES 8
#define WIDEN(t) ((W)_mm512_cvtps_pd((__m256)(t)))
#include "elementwise_math.h"
#include "elementwise_rows.h"
#endif

static const struct elementwise *chosen(int cap) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (cap >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &elementwise_avx512;
    if (cap >= 1 && __builtin_cpu_supports("avx2")) return &elementwise_avx2;
#endif
    (void)cap;
    return &elementwise_portable;
}

void fallow_silu_mul(const float *gate, const float *up, float *out, int64_t n, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n > SPAN)
    for (int64_t i = 0; i < n; i += SPAN) kernels->silu_mul(gate + i, up + i, out + i, smaller(SPAN, n - i));
}

void fallow_silu_mul_backward(const float *dy, const float *gate, const float *up, float *d_gate, float *d_up, int64_t n,
                              int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n > SPAN)
    for (int64_t i = 0; i < n; i += SPAN)
        kernels->silu_mul_backward(dy + i, gate + i, up + i, d_gate + i, d_up + i, smaller(SPAN, n - i));
}

/* A row of `bounds`, (start, stop), serves row i of `rows` where i % period is its number; NULL: all of a row counts. */
void fallow_softmax(const float *x, float *p, int64_t rows, int64_t n, const int64_t *bounds, int64_t period, double scale,
                    int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads) if (threads > 1 && rows * n > SPAN)
    for (int64_t i = 0; i < rows; i++) {
        const int64_t *pair = bounds ? bounds + 2 * (i % period) : 0;
        kernels->softmax_row(x + i * n, p + i * n, n, pair ? pair[0] : 0, pair ? pair[1] : n, scale);
    }
}

void fallow_softmax_back(const float *p, const float *dp, float *dx, int64_t rows, int64_t n, const int64_t *bounds,
                         int64_t period, double scale, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads) if (threads > 1 && rows * n > SPAN)
    for (int64_t i = 0; i < rows; i++) {
        const int64_t *pair = bounds ? bounds + 2 * (i % period) : 0;
        kernels->softmax_back_row(p + i * n, dp + i * n, dx + i * n, n, pair ? pair[0] : 0, pair ? pair[1] : n, scale);
    }
}

/* Targets are checked by the caller; a negative one is ignored. `slope` may be NULL, or x. */
void fallow_cross_entropy(const float *x, const int64_t *targets, int64_t rows, int64_t n, float *losses, float *slope,
                          int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && rows * n > SPAN)
    for (int64_t i = 0; i < rows; i++)
        losses[i] = kernels->cross_entropy_row(x + i * n, n, targets[i], slope ? slope + i * n : 0);
}

void fallow_rms_norm(const float *x, const float *weight, float *y, double *r, int64_t rows, int64_t n, double eps, int threads,
                     int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * n > SPAN)
    for (int64_t i = 0; i < rows; i++) r[i] = kernels->rms_norm_row(x + i * n, weight, y + i * n, n, eps);
}

void fallow_rms_norm_back(const float *dy, const float *x, const float *weight, const double *r, float *dx, int64_t rows,
                          int64_t n, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * n > SPAN)
    for (int64_t i = 0; i < rows; i++) kernels->rms_norm_back_row(dy + i * n, x + i * n, weight, r[i], dx + i * n, n);
}

void fallow_rms_norm_weight(const float *dy, const float *x, const double *r, int64_t sequences, int64_t tokens, int64_t n,
                            double bound, int64_t *out, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
    int64_t parts = (n + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && sequences * tokens * n > SPAN)
    for (int64_t i = 0; i < sequences * parts; i++) {
        int64_t sequence = i / parts, column = i % parts * COLUMNS, start = sequence * tokens * n + column;
        kernels->rms_norm_weight_columns(dy + start, x + start, r + sequence * tokens, tokens, n, smaller(COLUMNS, n - column),
                                         bound, out + sequence * n + column);
    }
}

/* x: (tokens, heads, 2 half); token i takes row i % period of the tables. */
void fallow_rotate(const float *x, const float *cos, const float *sin, float *y, int64_t tokens, int64_t period, int64_t heads,
                   int64_t half, float turn, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
    int64_t row = heads * 2 * half;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && tokens * row > SPAN)
    for (int64_t i = 0; i < tokens; i++) {
        int64_t angle = i % period * half;
        kernels->rotate_token(x + i * row, cos + angle, sin + angle, y + i * row, heads, half, turn);
    }
}

void fallow_adamw(float *p, float *mean, float *square, const float *g, int64_t n, const float *settings, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n > SPAN)
    for (int64_t i = 0; i < n; i += SPAN)
        kernels->adamw(p + i, mean + i, square + i, g + i, smaller(SPAN, n - i), settings);
}

void fallow_gradient_mean(const int64_t *total, float *mean, int64_t n, double tokens, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n > SPAN)
    for (int64_t i = 0; i < n; i += SPAN) kernels->gradient_mean(total + i, mean + i, smaller(SPAN, n - i), tokens);
}

uint32_t fallow_largest_bits(const float *x, int64_t n, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
    uint32_t most = 0;
#pragma omp parallel for schedule(static) reduction(max : most) num_threads(threads) if (threads > 1 && n > SPAN)
    for (int64_t i = 0; i < n; i += SPAN) {
        uint32_t one = kernels->largest_bits(x + i, smaller(SPAN, n - i));
        most = one > most ? one : most;
    }
    return most;
}

/* At most 2^26 numbers, so that the sum fits. */
int64_t fallow_squares(const float *x, int64_t n, double factor, int threads, int cap) {
    const struct elementwise *kernels = chosen(cap);
    int64_t sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum) num_threads(threads) if (threads > 1 && n > SPAN)
    for (int64_t i = 0; i < n; i += SPAN) sum += kernels->squares(x + i, smaller(SPAN, n - i), factor);
    return sum;
}

/* Indices 0 to n - 1 of one position each row. */
void fallow_gumbel(uint64_t seed, uint32_t stream, const int64_t *positions, int64_t rows, double *out, int64_t n, int threads,
                   int cap) {
    const struct elementwise *kernels = chosen(cap);
    int64_t parts = (n + SPAN - 1) / SPAN;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && rows * n > SPAN)
    for (int64_t i = 0; i < rows * parts; i++) {
        int64_t row = i / parts, start = i % parts * SPAN;
        kernels->gumbel_span(seed, stream, (uint32_t)positions[row], (uint64_t)start / 4, out + row * n + start,
                             smaller(SPAN, n - start));
    }
}
