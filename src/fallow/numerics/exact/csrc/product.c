/* [3.2, 3.3] products. */
#include <stdlib.h>
#include <string.h>

#include "exact.h"

#define TERMS 2048    /* terms at a time: a panel's part stays in the second cache */
#define AREA (1 << 18) /* integers of A at a time, likewise */
#define MAX_ROWS 480
#define SCANNED 4 /* parts of a row in which stretches of zeros are looked for */
#define STRETCH 32

struct product {
    const int16_t *a; /* (batch, m, k), with these strides in int16 */
    const float *a_step;
    int64_t a_batch, a_row, a_term;
    const int16_t *b; /* (batch, n, k) likewise, or NULL */
    const float *b_step; /* (batch, n), or NULL: ones */
    int64_t b_batch, b_column, b_term;
    const int16_t *panels; /* B packed already (one for the whole batch), or NULL */
    float *out;            /* (batch, m, n) */
    int64_t batch, m, n, k;
    const int32_t *visible; /* (m): so many columns of a row are computed, the others +0; or NULL */
    int16_t *scratch;
    int64_t scratch_size;
    int64_t threads, cap;
};

static int64_t panel_size(int64_t k) { return (k + 1) / 2 * 2 * PANEL; }
static int64_t panel_count(int64_t n) { return (n + PANEL - 1) / PANEL; }

/* int16 that `fallow_pack` writes. */
int64_t fallow_packed_size(int64_t n, int64_t k) { return panel_count(n) * panel_size(k); }

static void pack_panel(const struct kernels *kernels, const int16_t *q, int64_t column, int64_t term, int64_t j, int64_t n,
                       int64_t k, int16_t *panel) {
    int columns = (int)smaller(PANEL, n - j);
    if (term == 1)
        kernels->pack_rows(q + j * column, column, columns, k, panel);
    else
        kernels->pack_terms(q + j, term, columns, k, panel);
}

/* B, (n, k) with strides of which one is 1, as panels. */
void fallow_pack(const int16_t *q, int64_t column, int64_t term, int64_t n, int64_t k, int16_t *panels, int threads, int cap) {
    const struct kernels *kernels = fallow_kernels(cap);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t p = 0; p < panel_count(n); p++)
        pack_panel(kernels, q, column, term, p * PANEL, n, k, panels + p * panel_size(k));
}

/* A's rows must be read in pairs of terms: as they lie where terms are side by side and even in number, else from a copy. */
static int pairs_lie_right(const struct product *job) { return job->a_term == 1 && job->k % 2 == 0; }

static int64_t a_copy_size(const struct product *job) {
    return pairs_lie_right(job) ? 0 : (job->k + 1) / 2 * 2 * job->m;
}

/* int16 of scratch that a product needs. */
int64_t fallow_product_scratch(const struct product *job) {
    int64_t b = job->panels ? 0 : fallow_packed_size(job->n, job->k);
    return job->batch * (b + a_copy_size(job));
}

static void copy_a(const struct kernels *kernels, const struct product *job, int64_t one, int16_t *to) {
    const int16_t *a = job->a + one * job->a_batch;
    int64_t pairs = (job->k + 1) / 2;
    if (job->a_term != 1) {
        kernels->pack_pairs(a, job->a_term, job->m, job->k, to, 2 * job->m);
        return;
    }
    for (int64_t i = 0; i < job->m; i++) {
        memcpy(to + i * 2 * pairs, a + i * job->a_row, (size_t)job->k * sizeof *to);
        if (job->k & 1) to[i * 2 * pairs + job->k] = 0;
    }
}

struct left { /* A of one batch item, ready: row i's pair p at q + i * row + p * pair */
    const int16_t *q;
    ptrdiff_t row, pair;
};

static struct left left_of(const struct product *job, int64_t one, const int16_t *copies) {
    int64_t pairs = (job->k + 1) / 2;
    if (pairs_lie_right(job)) return (struct left){job->a + one * job->a_batch, job->a_row, 2};
    const int16_t *copy = copies + one * a_copy_size(job);
    return job->a_term == 1 ? (struct left){copy, 2 * pairs, 2} : (struct left){copy, 2, 2 * job->m};
}

/* Bit c: whether rows i.. have anything but zeros in terms 32 c .. 32 c + 31 from pair `start` on. Zeros add nothing. */
static uint64_t stretches(struct left a, int64_t i, int rows, int64_t start, int64_t pairs) {
    uint64_t found = 0;
    for (int64_t p = 0; p < pairs; p += STRETCH / 2) {
        int64_t end = smaller(p + STRETCH / 2, pairs);
        int16_t any = 0;
        if (a.pair == 2)
            for (int r = 0; r < rows && !any; r++) {
                const int16_t *q = a.q + (i + r) * a.row + 2 * (start + p);
                for (int64_t t = 0; t < 2 * (end - p); t++) any |= q[t];
            }
        else
            for (int64_t t = p; t < end && !any; t++) {
                const int16_t *q = a.q + i * 2 + (start + t) * a.pair;
                for (int r = 0; r < 2 * rows; r++) any |= q[r];
            }
        found |= (uint64_t)(any != 0) << (p / (STRETCH / 2));
    }
    return found;
}

/* The tile over the stretches that are not zero; `add` to what is there. */
static void tile_over(const struct kernels *kernels, struct left a, int64_t i, int rows, const int16_t *b, int64_t start,
                      int64_t pairs, uint64_t found, int add, double *out) {
    int64_t count = (pairs + STRETCH / 2 - 1) / (STRETCH / 2), c = 0;
    while (c < count) {
        if (!(found >> c & 1)) {
            c++;
            continue;
        }
        int64_t from = c;
        while (c < count && found >> c & 1) c++;
        int64_t first = start + from * (STRETCH / 2), last = start + smaller(c * (STRETCH / 2), pairs);
        kernels->tile(a.q + i * a.row + first * a.pair, a.row, a.pair, rows, b + first * 2 * PANEL, last - first, add, out);
        add = 1;
    }
    if (!add) memset(out, 0, (size_t)rows * PANEL * sizeof *out);
}

struct work { /* rows [i, i + rows) by panels [panel, panel + panels) of one batch item */
    struct left a;
    const int16_t *b;
    const float *a_step, *b_step;
    float *out;
    int64_t i, rows, panel, panels;
};

static int sees(const struct product *job, int64_t i, int rows, int64_t j) {
    if (!job->visible) return 1;
    for (int r = 0; r < rows; r++)
        if (job->visible[i + r] > j) return 1;
    return 0;
}

static void store_rows(const struct kernels *kernels, const struct product *job, const struct work *work, int64_t i, int rows,
                       int64_t j, const double *tile) {
    int columns = (int)smaller(PANEL, job->n - j);
    for (int r = 0; r < rows; r++) {
        int64_t left = job->visible ? job->visible[i + r] - j : PANEL;
        int visible = left < 0 ? 0 : left > PANEL ? PANEL : (int)left;
        kernels->store(tile + r * PANEL, columns, work->a_step[i + r], work->b_step ? work->b_step + j : NULL,
                       work->out + (i + r) * job->n + j, visible);
    }
}

static void multiply(const struct kernels *kernels, const struct product *job, const struct work *work) {
    _Alignas(64) double sums[MAX_ROWS * PANEL];
    uint64_t found[MAX_ROWS / ROWS][SCANNED];
    int64_t pairs = (job->k + 1) / 2, parts = (pairs + TERMS / 2 - 1) / (TERMS / 2);
    for (int64_t i = 0; i < work->rows; i += ROWS)
        for (int64_t part = 0; part < parts && parts <= SCANNED; part++)
            found[i / ROWS][part] = stretches(work->a, work->i + i, (int)smaller(ROWS, work->rows - i), part * (TERMS / 2),
                                              smaller(TERMS / 2, pairs - part * (TERMS / 2)));
    for (int64_t panel = work->panel; panel < work->panel + work->panels; panel++) {
        const int16_t *b = work->b + panel * panel_size(job->k);
        for (int64_t part = 0; part < parts; part++)
            for (int64_t i = 0; i < work->rows; i += ROWS) {
                int rows = (int)smaller(ROWS, work->rows - i);
                double *tile = sums + i * PANEL;
                if (sees(job, work->i + i, rows, panel * PANEL))
                    tile_over(kernels, work->a, work->i + i, rows, b, part * (TERMS / 2),
                              smaller(TERMS / 2, pairs - part * (TERMS / 2)),
                              parts <= SCANNED ? found[i / ROWS][part] : ~(uint64_t)0, part > 0, tile);
                if (part == parts - 1) store_rows(kernels, job, work, work->i + i, rows, panel * PANEL, tile);
            }
    }
}

/* Rows at a time, and how the rest is cut so that every thread finds work. */
static int64_t rows_at_a_time(const struct product *job, int64_t threads) {
    int64_t rows = AREA / smaller(job->k < 1 ? 1 : job->k, TERMS) / ROWS * ROWS;
    rows = rows > MAX_ROWS ? MAX_ROWS : rows;
    int64_t pieces = (job->m + rows - 1) / rows;
    if (panel_count(job->n) * job->batch * pieces < 2 * threads && threads > 1) pieces = pieces * 2 * threads;
    rows = (job->m + pieces - 1) / pieces;
    return (rows + ROWS - 1) / ROWS * ROWS;
}

int fallow_product(const struct product *job) {
    if (job->scratch_size < fallow_product_scratch(job)) return 1;
    if (job->batch * job->m * job->n == 0) return 0;
    const struct kernels *kernels = fallow_kernels((int)job->cap);
    int threads = (int)job->threads;
    int64_t panels = panel_count(job->n), size = fallow_packed_size(job->n, job->k);
    int16_t *packed = job->scratch, *copies = job->scratch + (job->panels ? 0 : job->batch * size);
    int64_t rows = rows_at_a_time(job, threads), pieces = (job->m + rows - 1) / rows;
    int64_t groups = smaller(panels, (8 * threads + job->batch * pieces - 1) / (job->batch * pieces));
    int64_t packs = job->panels ? 0 : job->batch * panels, copied = a_copy_size(job) ? job->batch : 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < packs + copied; p++) {
            if (p < packs)
                pack_panel(kernels, job->b + p / panels * job->b_batch, job->b_column, job->b_term, p % panels * PANEL, job->n,
                           job->k, packed + p / panels * size + p % panels * panel_size(job->k));
            else
                copy_a(kernels, job, p - packs, copies + (p - packs) * a_copy_size(job));
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < job->batch * pieces * groups; task++) {
            int64_t one = task / (pieces * groups), piece = task / groups % pieces, group = task % groups;
            int64_t first = panels * group / groups, last = panels * (group + 1) / groups;
            struct work work = {
                .a = left_of(job, one, copies),
                .b = job->panels ? job->panels : packed + one * size,
                .a_step = job->a_step + one * job->m,
                .b_step = job->b_step ? job->b_step + (job->panels ? 0 : one * job->n) : NULL,
                .out = job->out + one * job->m * job->n,
                .i = piece * rows,
                .rows = smaller(rows, job->m - piece * rows),
                .panel = first,
                .panels = last - first,
            };
            multiply(kernels, job, &work);
        }
    }
    return 0;
}

/* W, (n, k) float32 with rows `row` apart, onto its grids [3.1] and into panels for both directions, in one pass. `forward`
   or `back` may be NULL. Returns 2 when there is no memory. */
int fallow_weights(const float *w, int64_t row, int64_t n, int64_t k, float *step, int16_t *forward, int16_t *back, int threads,
                   int cap) {
    const struct kernels *kernels = fallow_kernels(cap);
    int failed = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        int16_t *q = malloc((size_t)(PANEL * k) * sizeof *q);
#pragma omp for schedule(dynamic)
        for (int64_t j = 0; j < n; j += PANEL) {
            if (!q) {
                failed = 2;
                continue;
            }
            int columns = (int)smaller(PANEL, n - j);
            for (int i = 0; i < columns; i++) kernels->quantise_row(w + (j + i) * row, NULL, k, q + i * k, step + j + i);
            if (forward) kernels->pack_rows(q, k, columns, k, forward + j / PANEL * panel_size(k));
            for (int64_t c = 0; back && c < k; c += PANEL) /* these rows are terms of the way back: PANEL is even */
                kernels->pack_terms(q + c, k, (int)smaller(PANEL, k - c), columns, back + c / PANEL * panel_size(n) + j * PANEL);
        }
        free(q);
    }
    return failed;
}

/* x, (m, k) float32, quantised by rows into `q` and `step`, times weights: the job's a and a_step are these. */
int fallow_linear(const float *x, int16_t *q, float *step, struct product *job) {
    fallow_quantise(x, job->k, NULL, 1, job->m, job->k, q, step, job->m > 1 ? (int)job->threads : 1, (int)job->cap);
    return fallow_product(job);
}
