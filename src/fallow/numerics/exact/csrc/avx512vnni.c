/* AVX-512 with VNNI: vpdpwssd, two multiplications and two additions a lane. */
#include "exact.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx512vnni
#define TEXT "avx512vnni"
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define DOT(sum, x, y) dot_avx512vnni(sum, x, y)
#include <immintrin.h>

/* _mm512_dpwssd_epi32 in place: some compilers copy every sum to another register and back in each round. */
TARGET static inline __attribute__((always_inline)) __m512i dot_avx512vnni(__m512i sum, __m512i x, __m512i y) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
    return sum;
}

#include "tile512.h"
#include "generic.h"
#endif
