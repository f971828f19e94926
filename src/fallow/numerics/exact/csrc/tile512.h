/* The tile in AVX-512: 6 x 32 sums in twelve registers, their high parts in twelve more. Define DOT(sum, x, y) before. */

#include <immintrin.h>

TARGET static inline __attribute__((always_inline)) void NAME(rows)(const int rows, const int16_t *a, ptrdiff_t row,
                                                                    ptrdiff_t pair, const int16_t *b, int64_t pairs, int add,
                                                                    double *out) {
    __m512i sum[ROWS][2], high[ROWS][2];
    const __m512i lower = _mm512_set1_epi32(0xffff), upper = _mm512_set1_epi32(0x10000); /* pairs: (65535, 0), (0, 1) */
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
            for (int j = 0; j < 2; j++) { /* make room: 2^16 * high + what is left, which with the next sum fits an int32 */
                high[i][j] = DOT(high[i][j], sum[i][j], upper);
                sum[i][j] = _mm512_and_si512(sum[i][j], lower);
            }
    }
    const __m512d unit = _mm512_set1_pd(65536.0);
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
                __m512d whole = _mm512_fmadd_pd(up, unit, down); /* whole numbers below 2^53: nothing is rounded */
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

#define ONTO_GRID
TARGET static void NAME(onto_grid)(const double *tile, double step, int64_t *sums) {
    const __m512d scale = _mm512_set1_pd(step * 1099511627776.0), limit = _mm512_set1_pd(9007199254740992.0);
    const __m512d least = _mm512_set1_pd(-9007199254740992.0);
    for (int j = 0; j < PANEL; j += 8) {
        __m512d v = _mm512_mul_pd(_mm512_loadu_pd(tile + j), scale);
        v = _mm512_max_pd(_mm512_min_pd(v, limit), least);
        __m512i sum = _mm512_add_epi64(_mm512_loadu_si512(sums + j), _mm512_cvtpd_epi64(v)); /* to nearest, ties to even */
        _mm512_storeu_si512(sums + j, sum);
    }
}

/* Sixteen rows of sixteen pairs, turned: pair p of row i goes to panel[p][i]. */
#define TURN NAME(turn)
TARGET static void NAME(turn)(const int16_t *q, int64_t row, int16_t *panel) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(q + i * row);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* a[i + c]: column c of each 128-bit lane, rows i .. i + 3 */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512i even = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), odd = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
        __m512i even2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88), odd2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
        _mm512_storeu_si512(panel + c * 2 * PANEL, _mm512_shuffle_i32x4(even, even2, 0x88));
        _mm512_storeu_si512(panel + (4 + c) * 2 * PANEL, _mm512_shuffle_i32x4(odd, odd2, 0x88));
        _mm512_storeu_si512(panel + (8 + c) * 2 * PANEL, _mm512_shuffle_i32x4(even, even2, 0xdd));
        _mm512_storeu_si512(panel + (12 + c) * 2 * PANEL, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
}
