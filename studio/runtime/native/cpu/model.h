/* A model as it is given from outside: its structures, where their members lie, and whether its numbers go together. Knows no
   step. */
#pragma once
#include "attention.h"
#include "matmul.h"
#include <stddef.h>

#define MOST_TOKENS 128
#define TABLES 2

typedef struct {
    const float *attention_norm, *mlp_norm;        /* before each half */
    const float *attention_after, *mlp_after;      /* behind it, in Gemma 2 and 3; else none */
    const float *query_norm, *key_norm;            /* over a head, in Qwen 3 and Gemma 3; else none */
    const Weight *qkv, *output, *gate_up, *down;   /* arrays: qkv may be one fused weight or three, gate_up one or two */
    int32_t qkv_count, gate_up_count;
    int32_t window;                                /* positions it looks back on, itself included; 0: all */
    int32_t rope_index;                            /* of rotations, -1: none */
} Layer;

typedef struct {
    int32_t layers, hidden, heads, kv_heads, head_dim, intermediate_size, vocabulary;
    int32_t activation;                            /* 0 silu, 1 gelu with tanh, 2 gelu */
    int32_t rotary;                                /* dimensions that rotate */
    float epsilon, embedding_scale, attention_scale, attention_cap, logit_cap, rotation_scale[TABLES];
    const float *frequencies[TABLES];              /* [rotary / 2] */
    const Layer *layer;
    const Weight *embedding, *head;
    const float *final_norm;
} Model;

/* Whether a step stays within its arrays, as far as its numbers alone tell; those of weights are checked once, in Python. */
static int is_sound(const Model *m, const Cache *c, const int32_t *tokens, int32_t count, int32_t position) {
    if (count < 1 || count > MOST_TOKENS || position < 0 || position > c->capacity - count || c->capacity % LANES) return 0;
    if (c->bits != 16 && c->bits != 8 && (c->bits != 4 || m->head_dim % SPAN)) return 0;
    if (m->heads < 1 || m->kv_heads < 1 || m->heads % m->kv_heads || m->hidden < 1 || m->intermediate_size < 1) return 0;
    if (m->head_dim < LANES || m->head_dim % LANES || m->rotary < 0 || m->rotary > m->head_dim) return 0;
    for (int i = 0; i < m->layers; i++) {
        const Layer *l = m->layer + i;
        if (l->rope_index >= TABLES || (l->rope_index >= 0 && !m->frequencies[l->rope_index]) || l->window < 0) return 0;
    }
    for (int t = 0; t < count; t++)
        if (tokens[t] < 0 || tokens[t] >= m->vocabulary) return 0;
    return 1;
}

/* The sizes of what is given from outside and the places of its members by name, in the alphabet's order, for whoever lays it
   out too to compare: two that changed places are then seen. Return how many numbers there are. */
int layout(int32_t *to, int32_t room) {
#define AT(type, member) (int32_t)offsetof(type, member)
    const int32_t found[] = {
        sizeof(Weight), AT(Weight, bias), AT(Weight, block), AT(Weight, codes), AT(Weight, group), AT(Weight, kind),
        AT(Weight, levels), AT(Weight, middle), AT(Weight, offset), AT(Weight, offset_factor), AT(Weight, rows),
        AT(Weight, scale), AT(Weight, scale_factor), AT(Weight, span), AT(Weight, wide_scale), AT(Weight, width),
        AT(Weight, zero),
        sizeof(Layer), AT(Layer, attention_after), AT(Layer, attention_norm), AT(Layer, down), AT(Layer, gate_up),
        AT(Layer, gate_up_count), AT(Layer, key_norm), AT(Layer, mlp_after), AT(Layer, mlp_norm), AT(Layer, output),
        AT(Layer, qkv), AT(Layer, qkv_count), AT(Layer, query_norm), AT(Layer, rope_index), AT(Layer, window),
        sizeof(Model), AT(Model, activation), AT(Model, attention_cap), AT(Model, attention_scale), AT(Model, embedding),
        AT(Model, embedding_scale), AT(Model, epsilon), AT(Model, final_norm), AT(Model, frequencies), AT(Model, head),
        AT(Model, head_dim), AT(Model, heads), AT(Model, hidden), AT(Model, intermediate_size), AT(Model, kv_heads),
        AT(Model, layer), AT(Model, layers), AT(Model, logit_cap), AT(Model, rotary), AT(Model, rotation_scale),
        AT(Model, vocabulary),
        sizeof(Cache), AT(Cache, bits), AT(Cache, capacity), AT(Cache, key_grid), AT(Cache, keys), AT(Cache, value_grid),
        AT(Cache, values),
    };
#undef AT
    const int32_t count = sizeof found / sizeof *found;
    if (count <= room) memcpy(to, found, sizeof found);
    return count;
}
