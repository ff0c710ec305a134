/* The compiled twin of studio/rounding for the modes people wait for: INT8, INT4 and sixteen-level formats, rounded,
   packed and measured in one pass over a row. Plain C: the loops are written so that compilers vectorise them.
   Codes, scales and zero points are those of the torch code, bit for bit; build without -ffast-math. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EPSILON 0x1p-23f

enum { F16, BF16, F32 };
enum { SYM, ASYM, LEVELS };

static void load_row(const void *source, int dtype, long k, float *restrict row) {
    if (dtype == F32) {
        memcpy(row, source, k * sizeof(float));
    } else if (dtype == BF16) {
        const uint16_t *from = source;
        for (long i = 0; i < k; i++) {
            uint32_t bits = (uint32_t)from[i] << 16;
            memcpy(row + i, &bits, sizeof bits);
        }
    } else {
        const _Float16 *from = source;
        for (long i = 0; i < k; i++) row[i] = (float)from[i];
    }
}

/* Sixteen weights at a time, in the vector types of gcc and clang, which fit any processor. */
#define LANES 16
#define INLINE static inline __attribute__((always_inline))
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

INLINE floats all(float x) { return (floats){0} + x; }
INLINE floats either(ints where, floats a, floats b) { return (floats)((where & (ints)a) | (~where & (ints)b)); }

/* Beyond the end of a group stand zeros, which every format keeps as they are: they cost no error. */
INLINE floats load(const float *w, long lanes) {
    floats x = {0};
    memcpy(&x, w, lanes >= LANES ? sizeof x : lanes * sizeof(float));
    return x;
}

INLINE void keep(uint8_t *codes, ints code, long lanes) {
    bytes narrow = __builtin_convertvector(code, bytes);
    memcpy(codes, &narrow, lanes >= LANES ? LANES : lanes);
}

/* A vector folded to one number, half onto half: four steps instead of fifteen, each of which waits for the one before. */
#define FOLD(x, step)                                                        \
    do {                                                                     \
        float part[LANES];                                                   \
        memcpy(part, &(x), sizeof part);                                     \
        for (int l = 0; l < 8; l++) part[l] = step(part[l], part[l + 8]);    \
        for (int l = 0; l < 4; l++) part[l] = step(part[l], part[l + 4]);    \
        for (int l = 0; l < 2; l++) part[l] = step(part[l], part[l + 2]);    \
        return step(part[0], part[1]);                                       \
    } while (0)
#define SUM(a, b) ((a) + (b))
#define LEAST(a, b) ((b) < (a) ? (b) : (a))
#define MOST(a, b) ((b) > (a) ? (b) : (a))

INLINE float total(floats x) { FOLD(x, SUM); }
INLINE float least_of(floats x) { FOLD(x, LEAST); }
INLINE float most_of(floats x) { FOLD(x, MOST); }

/* Halves go to even, as rintf's do; exact below 2^22, and no code is that large. */
INLINE floats rounded(floats x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

INLINE float stored(float scale) { return (float)(_Float16)scale; }

INLINE void range(const float *w, long n, float *low, float *high) {
    floats l = all(w[0]), h = l;
    long i = 0;
    for (; i + LANES <= n; i += LANES) {
        floats x = load(w + i, LANES);
        l = either(x < l, x, l), h = either(x > h, x, h);
    }
    *low = least_of(l), *high = most_of(h);
    for (; i < n; i++) *low = w[i] < *low ? w[i] : *low, *high = w[i] > *high ? w[i] : *high;
}

/* The scale and zero point of a group from its range, NNCF's formulas (see studio/quantization/rounding/integer.py). */
INLINE float symmetric_scale(float low, float high, float half) {
    float a = fabsf(low), s = (a >= high ? a : -high) / half;
    return fabsf(s) < EPSILON ? EPSILON : s;
}

INLINE float asymmetric_scale(float low, float high, float top, float *zero) {
    low = low < 0 ? low : 0, high = high > 0 ? high : 0;
    float s = (high - low) / top;
    s = s < EPSILON ? EPSILON : s;
    float z = -rintf(low / s);
    *zero = z < 0 ? 0 : z > top ? top : z;
    return s;
}

INLINE float level_scale(float low, float high, float top) {
    float a = fabsf(low), b = fabsf(high), s = (a > b ? a : b) / top;
    return s < EPSILON ? EPSILON : s;
}

/* Float formats floor the magnitude before dividing (see scale_to and power_of_two in studio/quantization/rounding/rounded.py). */
INLINE float float_scale(float low, float high, float top) {
    float a = fabsf(low), b = fabsf(high), largest = a > b ? a : b;
    return (largest < EPSILON ? EPSILON : largest) / top;
}

/* Round a group with `scale`; return the sum of squared differences from what `kept` (the stored scale) makes of the
   codes. `codes` may be null. Integer codes run from `least` to `most`; what is written is code - least. */
INLINE float integers(const float *w, long n, float scale, float kept, float zero, float least, float most,
                      uint8_t *codes) {
    floats sums = {0}, bottom = all(least), top = all(most);
    for (long i = 0; i < n; i += LANES) {
        floats x = load(w + i, n - i), q = rounded(x / scale + zero);
        q = either(q < bottom, bottom, q), q = either(q > top, top, q);
        floats d = (q - zero) * kept - x;
        sums += d * d;
        if (codes) keep(codes + i, __builtin_convertvector(q - least, ints), n - i);
    }
    return total(sums);
}

/* levels: 16 numbers, none falling, one of them zero, then the 15 bounds between them; a number above a bound takes the next
   level. The search is a chain of selects: nothing is looked up in memory. */
INLINE float sixteen(const float *w, long n, float scale, float kept, const float *levels, uint8_t *codes) {
    floats sums = {0};
    for (long i = 0; i < n; i += LANES) {
        floats from = load(w + i, n - i), x = from / scale, value = all(levels[0]);
        ints code = {0};
#pragma GCC unroll 15
        for (int j = 0; j < 15; j++) {
            ints above = x > levels[16 + j];
            value = either(above, all(levels[j + 1]), value);
            code -= above;
        }
        floats d = value * kept - from;
        sums += d * d;
        if (codes) keep(codes + i, code, n - i);
    }
    return total(sums);
}

INLINE float squares(const float *w, long n) {
    floats sums = {0};
    for (long i = 0; i < n; i += LANES) {
        floats x = load(w + i, n - i);
        sums += x * x;
    }
    return total(sums);
}

/* NaN once it was there: a comparison with it is false. */
INLINE float larger(float a, float b) { return a != a || b <= a ? a : b; }

/* A channel's mean squared int8_asym error with the exact scale: what NNCF's sensitivity is the largest of. */
INLINE float channel_error(const float *row, long k) {
    float low, high, zero;
    range(row, k, &low, &high);
    float scale = asymmetric_scale(low, high, 255, &zero);
    return integers(row, k, scale, scale, zero, 0, 255, NULL) / k;
}

typedef struct {
    int32_t kind;
    float half;   /* SYM: codes from -half to half - 1; ASYM: from 0 to 2 * half - 1 */
    int64_t size; /* of a group */
    float levels[31];
    int32_t scale; /* of LEVELS: 0 a codebook's, 1 a float format's, 2 the same as a power of two */
} Candidate;

INLINE float next_power(float scale) {
    float power = ceilf((float)log((double)scale) * (float)(1 / 0.693147180559945309417));
    return exp2f(power < -127 ? -127 : power);
}

static double difference(const Candidate *c, const float *row, long k) {
    double sum = 0;
    for (long i = 0; i < k; i += c->size) {
        const float *w = row + i;
        float low, high, zero = 0, scale;
        range(w, c->size, &low, &high);
        if (c->kind == SYM) {
            scale = symmetric_scale(low, high, c->half);
            sum += integers(w, c->size, scale, stored(scale), 0, -c->half, c->half - 1, NULL);
        } else if (c->kind == ASYM) {
            scale = asymmetric_scale(low, high, 2 * c->half - 1, &zero);
            sum += integers(w, c->size, scale, stored(scale), zero, 0, 2 * c->half - 1, NULL);
        } else {
            scale = c->scale ? float_scale(low, high, c->levels[15]) : level_scale(low, high, c->levels[15]);
            scale = c->scale == 2 ? next_power(scale) : scale;
            sum += sixteen(w, c->size, scale, c->scale == 2 ? scale : stored(scale), c->levels, NULL);
        }
    }
    return sum;
}

/* Squared differences of rows [n, k], `stride` numbers apart, in every candidate (`sums`), and the weights' squares.
   `worst`: the largest channel_error. Returns 0. */
int survey_rows(const void *weight, int dtype, long n, long k, long stride, const Candidate *candidates, long count,
                double *sums, double *square, float *worst) {
    float *row = malloc(k * sizeof(float));
    if (!row) return 1;
    long width = dtype == F32 ? 4 : 2;
    for (long r = 0; r < n; r++) {
        load_row((const char *)weight + r * stride * width, dtype, k, row);
        *worst = larger(*worst, channel_error(row, k));
        *square += squares(row, k);
        for (long c = 0; c < count; c++) sums[c] += difference(candidates + c, row, k);
    }
    free(row);
    return 0;
}

/* The largest channel_error of rows [n, k]. Returns 0. */
int score_rows(const void *weight, int dtype, long n, long k, long stride, float *worst) {
    float *row = malloc(k * sizeof(float));
    if (!row) return 1;
    long width = dtype == F32 ? 4 : 2;
    for (long r = 0; r < n; r++) {
        load_row((const char *)weight + r * stride * width, dtype, k, row);
        *worst = larger(*worst, channel_error(row, k));
    }
    free(row);
    return 0;
}

/* Round and pack rows [n, k] in groups of `size`. `kind` SYM or ASYM with 4 or 8 `bits`, or LEVELS (4 bits, `levels`).
   codes: [n, k] bytes at 8 bits (symmetric: two's complement), else [n, ceil(k / 2)], low half first. scales: fp16
   [n, k / size]. zeros: [n, k / size] bytes, packed by the caller. sums: squared differences, squares. */
int pack_rows(const void *weight, int dtype, long n, long k, long stride, int kind, int bits, long size,
              const float *levels, uint8_t *codes, uint16_t *scales, uint8_t *zeros, double *sums) {
    float *row = malloc(k * sizeof(float));
    uint8_t *q = malloc(k + 1);
    if (!row || !q) return free(row), free(q), 1;
    long width = dtype == F32 ? 4 : 2;
    float half = bits == 8 ? 128 : 8, top = bits == 8 ? 255 : 15;
    for (long r = 0; r < n; r++) {
        load_row((const char *)weight + r * stride * width, dtype, k, row);
        for (long i = 0, g = 0; i < k; i += size, g++) {
            const float *w = row + i;
            float low, high, zero = 0, scale;
            range(w, size, &low, &high);
            if (kind == SYM) {
                scale = symmetric_scale(low, high, half);
                sums[0] += integers(w, size, scale, stored(scale), 0, -half, half - 1, q + i);
            } else if (kind == ASYM) {
                scale = asymmetric_scale(low, high, top, &zero);
                sums[0] += integers(w, size, scale, stored(scale), zero, 0, top, q + i);
            } else {
                scale = level_scale(low, high, levels[15]);
                sums[0] += sixteen(w, size, scale, stored(scale), levels, q + i);
            }
            _Float16 kept = (_Float16)scale;
            memcpy(scales + r * (k / size) + g, &kept, 2);
            if (zeros) zeros[r * (k / size) + g] = (uint8_t)zero;
        }
        sums[1] += squares(row, k);
        if (bits == 8) {
            uint8_t flip = kind == SYM ? 0x80 : 0;
            for (long i = 0; i < k; i++) codes[r * k + i] = q[i] ^ flip;
        } else {
            uint8_t *out = codes + r * ((k + 1) / 2);
            q[k] = 0;
            for (long i = 0; i < (k + 1) / 2; i++) out[i] = q[2 * i] | q[2 * i + 1] << 4;
        }
    }
    free(row), free(q);
    return 0;
}
