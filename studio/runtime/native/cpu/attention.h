/* Attention over a cache whose keys lie in blocks of sixteen positions, one position a lane: a query's score with sixteen
   keys needs no sum across lanes. Values lie one position after the other, sixteen of their dimensions to a vector.

   At 8 and 4 bits each position's 32 dimensions share a step and a lowest value: x = lowest + code * step. */
#pragma once
#include "simd.h"
#include "threads.h"

#define SPAN 32  /* dimensions that share a step */

typedef struct {
    int32_t bits;       /* 16, 8 or 4 */
    int32_t capacity;   /* positions, a multiple of 16 */
    uint8_t *keys;      /* [layers][kv heads][capacity / 16][head_dim][16] codes */
    uint8_t *values;    /* [layers][kv heads][capacity][head_dim] codes */
    uint16_t *key_grid, *value_grid; /* fp16; of keys [...][capacity / 16][spans][2][16], of values [...][capacity][spans][2] */
} Cache;

typedef struct {
    const uint8_t *keys, *values;
    const uint16_t *key_grid, *value_grid;
    int bits, head_dim, spans;
} Head;

/* One layer's keys and values of one kv head. */
static Head head_of(const Cache *c, int index, int head_dim) {
    size_t numbers = (size_t)c->capacity * head_dim, spans = (head_dim + SPAN - 1) / SPAN;
    size_t grid = (size_t)c->capacity * spans * 2;
    return (Head){c->keys + numbers * c->bits / 8 * index, c->values + numbers * c->bits / 8 * index,
                  c->key_grid + grid * index, c->value_grid + grid * index, c->bits, head_dim, (int)spans};
}

static uint16_t half_of(float number) {
    uint16_t halves[LANES];
    store_halves(halves, all(number));
    return halves[0];
}

static float from_half(uint16_t half) {
    uint16_t halves[LANES] = {half};
    return load_halves(halves)[0];
}

/* Find the grid of up to 32 numbers; its ends are fp16, as they are kept. */
static void grid_of(const float *x, int count, int bits, float *lowest, float *step) {
    float low = x[0], high = x[0];
    for (int i = 1; i < count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *lowest = from_half(half_of(low));
    *step = from_half(half_of((high - *lowest) / (float)((1 << bits) - 1)));
}

static int code_of(float x, float lowest, float step, int bits) {
    float code = step > 0 ? nearbyintf((x - lowest) / step) : 0;
    float top = (float)((1 << bits) - 1);
    return (int)(code < 0 ? 0 : code > top ? top : code);
}

/* Keep a key and a value [head_dim] at a position. */
static void kv_append(const Head *h, int position, const float *key, const float *value) {
    const int D = h->head_dim, lane = position % LANES;
    uint8_t *keys = (uint8_t *)h->keys, *values = (uint8_t *)h->values;
    if (h->bits == 16) {
        uint16_t *to = (uint16_t *)keys + ((size_t)(position / LANES) * D) * LANES + lane;
        for (int d = 0; d < D; d++) to[(size_t)d * LANES] = half_of(key[d]);
        uint16_t *out = (uint16_t *)values + (size_t)position * D;
        for (int d = 0; d < D; d += LANES) store_halves(out + d, load(value + d));
        return;
    }
    uint16_t *key_grid = (uint16_t *)h->key_grid + (size_t)(position / LANES) * h->spans * 2 * LANES + lane;
    uint16_t *value_grid = (uint16_t *)h->value_grid + (size_t)position * h->spans * 2;
    for (int s = 0; s < h->spans; s++) {
        int from = s * SPAN, count = D - from < SPAN ? D - from : SPAN;
        float low, step;
        grid_of(key + from, count, h->bits, &low, &step);
        key_grid[(size_t)(2 * s) * LANES] = half_of(low);
        key_grid[(size_t)(2 * s + 1) * LANES] = half_of(step);
        for (int d = from; d < from + count; d++) {
            int code = code_of(key[d], low, step, h->bits);
            if (h->bits == 8) keys[((size_t)(position / LANES) * D + d) * LANES + lane] = (uint8_t)code;
            else {  /* two dimensions to a byte */
                uint8_t *at = keys + ((size_t)(position / LANES) * (D / 2) + d / 2) * LANES + lane;
                *at = d % 2 ? (uint8_t)((*at & 0x0f) | code << 4) : (uint8_t)((*at & 0xf0) | code);
            }
        }
        grid_of(value + from, count, h->bits, &low, &step);
        value_grid[2 * s] = half_of(low);
        value_grid[2 * s + 1] = half_of(step);
        for (int d = from; d < from + count; d++) {
            int code = code_of(value[d], low, step, h->bits);
            if (h->bits == 8) values[(size_t)position * D + d] = (uint8_t)code;
            else {  /* dimensions i and i + 16 of each 32 to a byte */
                uint8_t *at = values + (size_t)position * (D / 2) + (d - d % SPAN) / 2 + d % LANES;
                *at = d % SPAN >= LANES ? (uint8_t)((*at & 0x0f) | code << 4) : (uint8_t)((*at & 0xf0) | code);
            }
        }
    }
}

/* q . k of sixteen positions, for Q queries [head_dim] `stride` apart: 1 or 4, named for the sake of registers. */
INLINE void scores_at(const Head *h, int block, const float *q, size_t stride, const int Q, Floats *scores) {
    const int D = h->head_dim;
    const float *q1 = q + (Q > 1 ? stride : 0), *q2 = q1 + (Q > 1 ? stride : 0), *q3 = q2 + (Q > 1 ? stride : 0);
    if (h->bits == 16) {
        const uint16_t *keys = (const uint16_t *)h->keys + (size_t)block * D * LANES;
        Floats a = all(0), b = a, c = a, d = a, e = a, f = a, g = a, i = a;
        for (int k = 0; k < D; k += 2, keys += 2 * LANES) {
            const Floats even = load_halves(keys), odd = load_halves(keys + LANES);
            a += even * q[k], b += odd * q[k + 1];
            if (Q == 1) continue;
            c += even * q1[k], d += odd * q1[k + 1];
            e += even * q2[k], f += odd * q2[k + 1];
            g += even * q3[k], i += odd * q3[k + 1];
        }
        scores[0] = a + b;
        if (Q > 1) scores[1] = c + d, scores[2] = e + f, scores[3] = g + i;
        return;
    }
    for (int n = 0; n < Q; n++, q += stride) {
        scores[n] = all(0);
        for (int s = 0; s < h->spans; s++) {
            const int from = s * SPAN, stop = D - from < SPAN ? D : from + SPAN;
            const uint16_t *grid = h->key_grid + ((size_t)block * h->spans + s) * 2 * LANES;
            float sum = 0;
            Floats products = all(0);
            if (h->bits == 8) {
                const uint8_t *keys = h->keys + (size_t)block * D * LANES;
                for (int d = from; d < stop; d++) {
                    products += floats(load_bytes(keys + (size_t)d * LANES)) * q[d];
                    sum += q[d];
                }
            } else {
                const uint8_t *keys = h->keys + (size_t)block * (D / 2) * LANES;
                for (int d = from; d < stop; d += 2) {
                    Ints both = load_bytes(keys + (size_t)(d / 2) * LANES);
                    products += floats(both & 15) * q[d] + floats(both >> 4) * q[d + 1];
                    sum += q[d] + q[d + 1];
                }
            }
            scores[n] += load_halves(grid) * sum + load_halves(grid + LANES) * products;
        }
    }
}

/* Sixteen dimensions of one position's value. */
INLINE Floats value_at(const Head *h, int position, int part) {
    const int D = h->head_dim;
    if (h->bits == 16) return load_halves((const uint16_t *)h->values + (size_t)position * D + part * LANES);
    const uint16_t *grid = h->value_grid + ((size_t)position * h->spans + part / 2) * 2;
    Ints codes;
    if (h->bits == 8) codes = load_bytes(h->values + (size_t)position * D + part * LANES);
    else {
        Ints both = load_bytes(h->values + (size_t)position * (D / 2) + part / 2 * LANES);
        codes = part % 2 ? both >> 4 : both & 15;
    }
    return floats(codes) * from_half(grid[1]) + from_half(grid[0]);
}

/* Q queries [head_dim] over positions first..last, the last one position further for each -> out [head_dim], both `stride`
   and `out_stride` apart. `scores` has room for Q times all positions and sixteen more. A positive `cap` bounds the scores
   as Gemma 2 does. A query's arithmetic does not depend on Q. */
INLINE void attend_to(const Head *h, const float *q, size_t stride, const int Q, int window, int last, float scale, float cap,
                      float *scores, size_t room, float *out, size_t out_stride) {
    int first[4];
    float most[4], sum[4];
    for (int n = 0; n < Q; n++) first[n] = window && last + n >= window ? last + n - window + 1 : 0;
    const int begin = first[0] / LANES * LANES, end = last + Q - 1;
    for (int p = begin; p <= end; p += LANES) {
        Floats found[4];
        scores_at(h, p / LANES, q, stride, Q, found);
        for (int n = 0; n < Q; n++) {
            Floats score = found[n] * scale;
            if (cap > 0) for (int i = 0; i < LANES; i++) score[i] = cap * tanhf(score[i] / cap);
            if (p < first[n] || p + LANES - 1 > last + n)
                for (int i = 0; i < LANES; i++) if (p + i < first[n] || p + i > last + n) score[i] = -INFINITY;
            store(scores + n * room + (p - begin), score);
        }
    }
    for (int n = 0; n < Q; n++) {
        float *own = scores + n * room;
        Floats top = all(-INFINITY), shares = all(0);
        for (int p = begin; p <= end; p += LANES) top = larger(top, load(own + (p - begin)));
        most[n] = largest(top);
        for (int p = begin; p <= end; p += LANES) {
            Floats share = exponential(load(own + (p - begin)) - most[n]);
            if (p < first[n] || p + LANES - 1 > last + n)
                for (int i = 0; i < LANES; i++) if (p + i < first[n] || p + i > last + n) share[i] = 0;
            store(own + (p - begin), share);
            shares += share;
        }
        sum[n] = total(shares);
    }
    const float *s0 = scores - begin, *s1 = s0 + (Q > 1 ? room : 0), *s2 = s1 + (Q > 1 ? room : 0), *s3 = s2 + (Q > 1 ? room : 0);
    for (int part = 0; part < h->head_dim / LANES; part++) {
        Floats a = all(0), b = a, c = a, d = a;
        for (int p = first[0]; p <= end; p++) {
            const Floats value = value_at(h, p, part);
            a += value * s0[p];
            if (Q > 1) b += value * s1[p], c += value * s2[p], d += value * s3[p];
        }
        float *to = out + part * LANES;
        store(to, a / sum[0]);
        if (Q > 1) store(to + out_stride, b / sum[1]), store(to + 2 * out_stride, c / sum[2]), store(to + 3 * out_stride, d / sum[3]);
    }
}

/* The same for `count` queries, four at a time. */
static void attend(const Head *h, const float *q, size_t stride, int count, int window, int last, float scale, float cap,
                   float *scores, size_t room, float *out, size_t out_stride) {
    if (count == 4) attend_to(h, q, stride, 4, window, last, scale, cap, scores, room, out, out_stride);
    else for (int n = 0; n < count; n++)
        attend_to(h, q + n * stride, stride, 1, window, last + n, scale, cap, scores, room, out + n * out_stride, out_stride);
}
