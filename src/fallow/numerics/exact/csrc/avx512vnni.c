/* AVX-512 with VNNI: vpdpwssd, two multiplications and two additions a lane. */
#include "exact.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx512vnni
#define TEXT "avx512vnni"
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define DOT(sum, x, y) _mm512_dpwssd_epi32(sum, x, y)
#include "tile512.h"
#include "generic.h"
#endif
