/* Sixteen numbers at once, in GCC's vector types: AVX-512, AVX2 and NEON come from the same lines. Only what those types
   cannot say has a variant for each processor. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef int8_t SignedBytes __attribute__((vector_size(16)));
typedef uint16_t Shorts __attribute__((vector_size(32)));

INLINE Floats load(const float *from) { Floats v; memcpy(&v, from, sizeof v); return v; }
INLINE void store(float *to, Floats v) { memcpy(to, &v, sizeof v); }
INLINE Floats all(float number) { return number - (Floats){0}; }
INLINE Floats floats(Ints v) { return __builtin_convertvector(v, Floats); }
INLINE Ints ints(Floats v) { return __builtin_convertvector(v, Ints); }  /* towards zero */
INLINE Floats as_floats(Ints v) { Floats f; memcpy(&f, &v, sizeof f); return f; }
INLINE Ints as_ints(Floats v) { Ints i; memcpy(&i, &v, sizeof i); return i; }
INLINE Ints load_bytes(const uint8_t *from) { Bytes b; memcpy(&b, from, sizeof b); return __builtin_convertvector(b, Ints); }

/* fp16 -> fp32 */
INLINE Floats load_halves(const uint16_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__)
    union { __m256 half[2]; Floats whole; } v;
    v.half[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
    v.half[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 8)));
    return v.whole;
#else
    Floats v;
    for (int i = 0; i < LANES; i++) { _Float16 h; memcpy(&h, from + i, 2); v[i] = (float)h; }
    return v;
#endif
}

/* fp32 -> fp16, to nearest */
INLINE void store_halves(uint16_t *to, Floats v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int i = 0; i < LANES; i++) { _Float16 h = (_Float16)v[i]; memcpy(to + i, &h, 2); }
#endif
}

/* bf16 -> fp32 */
INLINE Floats load_brains(const uint16_t *from) {
    Shorts s;
    memcpy(&s, from, sizeof s);
    return as_floats(__builtin_convertvector(s, Ints) << 16);
}

/* FP8 E4M3 codes -> 2^-8 of what they stand for: the same bits are an fp16 whose exponent counts from 15 instead of 7. */
INLINE Floats load_float8(const uint8_t *from) {
    Bytes b;
    memcpy(&b, from, sizeof b);
    Shorts s = __builtin_convertvector(b, Shorts), halves = ((s & 0x80) << 8) | ((s & 0x7f) << 7);
    uint16_t kept[LANES];
    memcpy(kept, &halves, sizeof kept);
    return load_halves(kept);
}

/* levels[code & 15] of each lane; what stands above those four bits does not matter. */
INLINE Floats look_up(const float *levels, Floats table, Ints codes) {
#if defined(__AVX512F__)
    (void)levels;
    return (Floats)_mm512_permutexvar_ps((__m512i)codes, (__m512)table);
#else
    (void)table;
    Floats v;
    for (int i = 0; i < LANES; i++) v[i] = levels[codes[i] & 15];
    return v;
#endif
}

/* sum + the four products of each lane's unsigned bytes with the four signed ones of `four` */
INLINE Ints dot(Ints sum, Ints bytes, int32_t four) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)bytes, _mm512_set1_epi32(four));
#elif defined(__AVX2__)
    union { Ints whole; __m256i half[2]; } s = {sum}, b = {bytes};
    __m256i x = _mm256_set1_epi32(four), low = _mm256_set1_epi32(0x00ff00ff);
#if defined(__AVXVNNI__)
    for (int i = 0; i < 2; i++) s.half[i] = _mm256_dpbusd_avx_epi32(s.half[i], b.half[i], x);
    (void)low;
#else
    /* as 16-bit numbers: the instruction for bytes saturates */
    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), odd = _mm256_srai_epi16(x, 8);
    for (int i = 0; i < 2; i++) {
        s.half[i] = _mm256_add_epi32(s.half[i], _mm256_madd_epi16(_mm256_and_si256(b.half[i], low), even));
        s.half[i] = _mm256_add_epi32(s.half[i], _mm256_madd_epi16(_mm256_srli_epi16(b.half[i], 8), odd));
    }
#endif
    return s.whole;
#else
    for (int j = 0; j < 4; j++) sum += ((bytes >> (8 * j)) & 255) * (int32_t)(int8_t)(four >> (8 * j));
    return sum;
#endif
}

INLINE float total(Floats v) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

INLINE Floats larger(Floats a, Floats b) {
    Ints takes = a > b;
    return as_floats((as_ints(a) & takes) | (as_ints(b) & ~takes));
}

INLINE float largest(Floats v) {
    float top = v[0];
    for (int i = 1; i < LANES; i++) top = v[i] > top ? v[i] : top;
    return top;
}

/* e^v within 2 units in the last place: 2^n times a polynomial on [-ln2/2, ln2/2] (coefficients of Cephes' expf) */
INLINE Floats exponential(Floats v) {
    v = larger(v, all(-87.0f));
    v = -larger(-v, all(-88.0f));
    Floats scaled = v * 1.44269504088896341f;
    Ints n = ints(scaled + as_floats((as_ints(scaled) & (int32_t)0x80000000) | 0x3f000000));  /* half away from zero */
    Floats r = v - floats(n) * 0.693359375f + floats(n) * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * as_floats((n + 127) << 23);
}
