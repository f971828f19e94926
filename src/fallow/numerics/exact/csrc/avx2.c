/* AVX2: vpmaddwd, and int32 sums emptied into memory. */
#include "exact.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define NAME(x) x##_avx2
#define TEXT "avx2"
#define TARGET __attribute__((target("avx2")))
#define HALF 16 /* columns at a time: 6 x 16 sums fill the registers */

/* sums += high * 2^14 + low, exactly. */
TARGET static inline void spill_avx2(__m256i high, __m256i low, int add, double *out) {
    for (int part = 0; part < 2; part++) {
        __m256d up = _mm256_cvtepi32_pd(part ? _mm256_extracti128_si256(high, 1) : _mm256_castsi256_si128(high));
        __m256d down = _mm256_cvtepi32_pd(part ? _mm256_extracti128_si256(low, 1) : _mm256_castsi256_si128(low));
        __m256d sum = _mm256_add_pd(_mm256_mul_pd(up, _mm256_set1_pd(16384.0)), down);
        double *to = out + 4 * part;
        _mm256_storeu_pd(to, add ? _mm256_add_pd(sum, _mm256_loadu_pd(to)) : sum);
    }
}

TARGET static inline __attribute__((always_inline)) void half_avx2(const int rows, const int16_t *a, ptrdiff_t row,
                                                                   ptrdiff_t pair, const int16_t *b, int64_t pairs, int add,
                                                                   double *out) {
    __m256i sum[ROWS][2], high[ROWS][2];
    const __m256i mask = _mm256_set1_epi32(0x3fff);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = high[i][0] = high[i][1] = _mm256_setzero_si256();
    for (int64_t start = 0; start < pairs; start += FLUSH) {
        int64_t end = smaller(start + FLUSH, pairs);
        for (int64_t p = start; p < end; p++) {
            const __m256i *line = (const __m256i *)(b + p * 2 * PANEL);
            __m256i left = _mm256_loadu_si256(line), right = _mm256_loadu_si256(line + 1);
#pragma GCC unroll 6
            for (int i = 0; i < rows; i++) {
                int32_t two;
                __builtin_memcpy(&two, a + i * row + p * pair, 4);
                __m256i x = _mm256_set1_epi32(two);
                sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(x, left));
                sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(x, right));
            }
        }
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                high[i][j] = _mm256_add_epi32(high[i][j], _mm256_srai_epi32(sum[i][j], 14));
                sum[i][j] = _mm256_and_si256(sum[i][j], mask);
            }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) spill_avx2(high[i][j], sum[i][j], add, out + i * PANEL + 8 * j);
}

TARGET static void tile_avx2(const int16_t *a, ptrdiff_t row, ptrdiff_t pair, int rows, const int16_t *b, int64_t pairs, int add,
                             double *out) {
    for (int half = 0; half < 2; half++, b += 2 * HALF, out += HALF) switch (rows) {
        case 1: half_avx2(1, a, row, pair, b, pairs, add, out); break;
        case 2: half_avx2(2, a, row, pair, b, pairs, add, out); break;
        case 3: half_avx2(3, a, row, pair, b, pairs, add, out); break;
        case 4: half_avx2(4, a, row, pair, b, pairs, add, out); break;
        case 5: half_avx2(5, a, row, pair, b, pairs, add, out); break;
        default: half_avx2(6, a, row, pair, b, pairs, add, out); break;
        }
}

/* rint(v * 2^40) of |v| <= 2^13 as an integer, the whole part and the rest, each exactly: there is no conversion to int64 before
   AVX-512DQ, and adding 1.5 * 2^52 makes one for |v| < 2^51, so the 2^53 here goes in two halves. */
#define ONTO_GRID
TARGET static void onto_grid_avx2(const double *tile, double step, int64_t *sums) {
    const __m256d scale = _mm256_set1_pd(step * 1099511627776.0), most = _mm256_set1_pd(9007199254740992.0);
    const __m256d least = _mm256_set1_pd(-9007199254740992.0), magic = _mm256_set1_pd(6755399441055744.0);
    const __m256d half = _mm256_set1_pd(1048576.0), unhalf = _mm256_set1_pd(0.00000095367431640625); /* 2^20, 2^-20 */
    const __m256i bias = _mm256_castpd_si256(magic);
    for (int j = 0; j < PANEL; j += 4) {
        __m256d v = _mm256_mul_pd(_mm256_loadu_pd(tile + j), scale);
        v = _mm256_max_pd(_mm256_min_pd(v, most), least);
        __m256d up = _mm256_add_pd(_mm256_mul_pd(v, unhalf), magic);
        __m256d whole = _mm256_mul_pd(_mm256_sub_pd(up, magic), half);
        __m256d rest = _mm256_add_pd(_mm256_sub_pd(v, whole), magic); /* an exact difference of at most 2^19, then rounded */
        __m256i high = _mm256_slli_epi64(_mm256_sub_epi64(_mm256_castpd_si256(up), bias), 20);
        __m256i low = _mm256_sub_epi64(_mm256_castpd_si256(rest), bias);
        __m256i *to = (__m256i *)(sums + j);
        _mm256_storeu_si256(to, _mm256_add_epi64(_mm256_loadu_si256(to), _mm256_add_epi64(high, low)));
    }
}

#include "generic.h"
#endif
