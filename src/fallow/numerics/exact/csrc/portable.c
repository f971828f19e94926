/* Plain C: any processor, any compiler. */
#include "exact.h"

#define NAME(x) x##_portable
#define TEXT "portable"
#define TARGET

static void tile_portable(const int16_t *a, ptrdiff_t row, ptrdiff_t pair, int rows, const int16_t *b, int64_t pairs, int add,
                          double *out) {
    for (int i = 0; i < rows; i++) {
        int64_t sum[PANEL] = {0};
        for (int64_t start = 0; start < pairs; start += FLUSH) {
            int64_t end = smaller(start + FLUSH, pairs);
            int32_t part[PANEL] = {0};
            for (int64_t p = start; p < end; p++) {
                int32_t first = a[i * row + p * pair], second = a[i * row + p * pair + 1];
                const int16_t *line = b + p * 2 * PANEL;
                for (int j = 0; j < PANEL; j++) part[j] += first * line[2 * j] + second * line[2 * j + 1];
            }
            for (int j = 0; j < PANEL; j++) sum[j] += part[j];
        }
        for (int j = 0; j < PANEL; j++) out[i * PANEL + j] = (add ? out[i * PANEL + j] : 0.0) + (double)sum[j];
    }
}

#include "generic.h"
