/* [3.1, 3.3] onto grids. */
#include "exact.h"

/* x: (rows, k), rows `x_row` apart; fold: (rows / group, k) or NULL, one line for `group` rows; q: (rows, k); step: (rows). */
void fallow_quantise(const float *x, int64_t x_row, const float *fold, int64_t group, int64_t rows, int64_t k, int16_t *q,
                     float *step, int threads, int cap) {
    const struct kernels *kernels = fallow_kernels(cap);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < rows; i++)
        kernels->quantise_row(x + i * x_row, fold ? fold + i / group * k : NULL, k, q + i * k, step + i);
}

/* x: (batch, k, n); fold: (batch, k) or NULL; q: (batch, k, n), not transposed; step: (batch, n). */
void fallow_quantise_columns(const float *x, const float *fold, int64_t batch, int64_t k, int64_t n, int16_t *q, float *step,
                             int threads, int cap) {
    const struct kernels *kernels = fallow_kernels(cap);
    int64_t blocks = (n + WIDTH - 1) / WIDTH;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < batch * blocks; block++) {
        int64_t one = block / blocks, j = block % blocks * WIDTH;
        kernels->quantise_columns(x + one * k * n + j, n, fold ? fold + one * k : NULL, k, (int)smaller(WIDTH, n - j),
                                  q + one * k * n + j, n, 0, step + one * n + j);
    }
}
