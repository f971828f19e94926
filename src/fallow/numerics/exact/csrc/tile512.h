/* The tile in AVX-512: 6 x 32 sums in twelve registers, their high parts in twelve more. Define DOT(sum, x, y) before. */

#include <immintrin.h>

TARGET static inline __attribute__((always_inline)) void NAME(rows)(const int rows, const int16_t *a, ptrdiff_t row,
                                                                    ptrdiff_t pair, const int16_t *b, int64_t pairs, int add,
                                                                    double *out) {
    __m512i sum[ROWS][2], high[ROWS][2];
    const __m512i mask = _mm512_set1_epi32(0x3fff);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = high[i][0] = high[i][1] = _mm512_setzero_si512();
    for (int64_t start = 0; start < pairs; start += FLUSH) {
        int64_t end = smaller(start + FLUSH, pairs);
        for (int64_t p = start; p < end; p++) {
            __m512i left = _mm512_loadu_si512(b + p * 2 * PANEL), right = _mm512_loadu_si512(b + p * 2 * PANEL + PANEL);
#pragma GCC unroll 6
            for (int i = 0; i < rows; i++) {
                int32_t two;
                __builtin_memcpy(&two, a + i * row + p * pair, 4);
                __m512i x = _mm512_set1_epi32(two);
                sum[i][0] = DOT(sum[i][0], x, left);
                sum[i][1] = DOT(sum[i][1], x, right);
            }
        }
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) { /* make room: 2^14 * high + what is left */
                high[i][j] = _mm512_add_epi32(high[i][j], _mm512_srai_epi32(sum[i][j], 14));
                sum[i][j] = _mm512_and_si512(sum[i][j], mask);
            }
    }
    const __m512d unit = _mm512_set1_pd(16384.0);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++)
#pragma GCC unroll 2
            for (int part = 0; part < 2; part++) {
                __m512d up = _mm512_cvtepi32_pd(part ? _mm512_extracti64x4_epi64(high[i][j], 1)
                                                     : _mm512_castsi512_si256(high[i][j]));
                __m512d down = _mm512_cvtepi32_pd(part ? _mm512_extracti64x4_epi64(sum[i][j], 1)
                                                       : _mm512_castsi512_si256(sum[i][j]));
                __m512d whole = _mm512_add_pd(_mm512_mul_pd(up, unit), down);
                double *to = out + i * PANEL + 16 * j + 8 * part;
                _mm512_storeu_pd(to, add ? _mm512_add_pd(whole, _mm512_loadu_pd(to)) : whole);
            }
}

TARGET static void NAME(tile)(const int16_t *a, ptrdiff_t row, ptrdiff_t pair, int rows, const int16_t *b, int64_t pairs, int add,
                              double *out) {
    switch (rows) {
    case 1: NAME(rows)(1, a, row, pair, b, pairs, add, out); break;
    case 2: NAME(rows)(2, a, row, pair, b, pairs, add, out); break;
    case 3: NAME(rows)(3, a, row, pair, b, pairs, add, out); break;
    case 4: NAME(rows)(4, a, row, pair, b, pairs, add, out); break;
    case 5: NAME(rows)(5, a, row, pair, b, pairs, add, out); break;
    default: NAME(rows)(6, a, row, pair, b, pairs, add, out); break;
    }
}
