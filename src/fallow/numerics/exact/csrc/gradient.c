/* [3.4] weight gradients, each sequence's on the gradient grid, added up. */
#include <string.h>

#include "exact.h"

#define AREA (1 << 22) /* integers of dY at a time */

struct gradient {
    const float *dy; /* (sequences, tokens, n) */
    const int16_t *x; /* (sequences, tokens, k) */
    const float *x_step; /* (sequences, tokens) */
    int64_t *total; /* (n, k) */
    int64_t sequences, tokens, n, k;
    int16_t *scratch;
    int64_t scratch_size; /* int16 */
    int64_t threads, cap;
};

static int64_t pairs_of(const struct gradient *job) { return (job->tokens + 1) / 2; }
static int64_t panels_of(const struct gradient *job) { return (job->k + PANEL - 1) / PANEL; }
static int64_t right_size(const struct gradient *job) { return panels_of(job) * pairs_of(job) * 2 * PANEL; }

/* Rows of the total at a time: as many columns of dY, quantised, as stay in the last cache; whole tiles, whole blocks. */
static int64_t rows_of(const struct gradient *job) {
    int64_t rows = AREA / (job->sequences * pairs_of(job) * 2) / WIDTH * WIDTH;
    return smaller(rows < WIDTH ? WIDTH : rows, (job->n + WIDTH - 1) / WIDTH * WIDTH);
}

/* int16 of scratch: X in panels, columns of dY in pairs, and their steps. */
int64_t fallow_gradient_scratch(const struct gradient *job) {
    return job->sequences * (right_size(job) + pairs_of(job) * 2 * rows_of(job) + 2 * rows_of(job));
}

/* Rows [start, start + count) of the total. `left` has for each sequence (`size` int16) and each WIDTH columns of dY, its
   pairs of rows, so that a tile reads along the memory. */
struct chunk {
    int64_t start, count, size;
    int16_t *left;
    const int16_t *right;
    float *steps;
};

static void prepare(const struct kernels *kernels, const struct gradient *job, const struct chunk *chunk, int64_t one, int64_t j) {
    const float *dy = job->dy + one * job->tokens * job->n + chunk->start + j;
    kernels->quantise_columns(dy, job->n, job->x_step + one * job->tokens, job->tokens, (int)smaller(WIDTH, chunk->count - j),
                              chunk->left + one * chunk->size + 2 * j * pairs_of(job), 2 * WIDTH, 1,
                              chunk->steps + one * chunk->count + j);
}

static void add_tile(const struct kernels *kernels, const struct gradient *job, const struct chunk *chunk, int64_t i,
                     int64_t panel) {
    _Alignas(64) double tile[ROWS * PANEL];
    _Alignas(64) int64_t sums[ROWS * PANEL] = {0};
    int rows = (int)smaller(ROWS, chunk->count - i), columns = (int)smaller(PANEL, job->k - panel * PANEL);
    int poisoned[ROWS] = {0};
    for (int64_t one = 0; one < job->sequences; one++) {
        kernels->tile(chunk->left + one * chunk->size + i / WIDTH * WIDTH * 2 * pairs_of(job) + i % WIDTH * 2, 2, 2 * WIDTH, rows,
                      chunk->right + one * right_size(job) + panel * 2 * PANEL * pairs_of(job), pairs_of(job), 0, tile);
        for (int r = 0; r < rows; r++) {
            float step = chunk->steps[one * chunk->count + i + r];
            if (step != step)
                poisoned[r] = 1;
            else
                kernels->onto_grid(tile + r * PANEL, step, sums + r * PANEL);
        }
    }
    for (int r = 0; r < rows; r++)
        kernels->accumulate(sums + r * PANEL, columns, poisoned[r],
                            job->total + (chunk->start + i + r) * job->k + panel * PANEL);
}

int fallow_add_gradient(const struct gradient *job) {
    if (job->scratch_size < fallow_gradient_scratch(job)) return 1;
    if (job->sequences * job->tokens * job->n * job->k == 0) return 0;
    const struct kernels *kernels = fallow_kernels((int)job->cap);
    int threads = (int)job->threads;
    int64_t panels = panels_of(job), most = rows_of(job);
    int16_t *right = job->scratch, *left = right + job->sequences * right_size(job);
    float *steps = (float *)(left + job->sequences * pairs_of(job) * 2 * most);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t task = 0; task < job->sequences * panels; task++) {
            int64_t one = task / panels, j = task % panels * PANEL;
            kernels->pack_terms(job->x + one * job->tokens * job->k + j, job->k, (int)smaller(PANEL, job->k - j), job->tokens,
                                right + one * right_size(job) + j * 2 * pairs_of(job));
        }
        for (int64_t start = 0; start < job->n; start += most) {
            int64_t count = smaller(most, job->n - start), blocks = (count + WIDTH - 1) / WIDTH;
            int64_t parts = smaller(panels, (4 * threads + blocks - 1) / blocks);
            struct chunk chunk = {start, count, pairs_of(job) * 2 * WIDTH * blocks, left, right, steps};
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < job->sequences * blocks; task++)
                prepare(kernels, job, &chunk, task / blocks, task % blocks * WIDTH);
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < blocks * parts; task++) { /* a few whole rows of the total: pages in a row */
                int64_t first = task / parts * WIDTH, part = task % parts;
                for (int64_t panel = panels * part / parts; panel < panels * (part + 1) / parts; panel++)
                    for (int64_t i = first; i < smaller(first + WIDTH, count); i += ROWS)
                        add_tile(kernels, job, &chunk, i, panel);
            }
        }
    }
    return 0;
}
