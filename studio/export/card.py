"""The model card: what a stranger who finds the folder needs to know."""

from studio.recipe import Recipe
from studio.units import format_bytes


def model_card(recipe: Recipe, weights: int) -> str:
    """Return README.md for a compressed folder of ``weights`` parameters."""
    choices, source = recipe.choices, recipe.source
    bits = recipe.compressed_bytes * 8 / weights
    times = recipe.original_bytes / recipe.compressed_bytes
    base = f"base_model: {_plain(source.model)}\nbase_model_relation: quantized\n" if "/" in source.model else ""
    read = f", calibrated on {_plain(choices.calibration)}" if choices.calibration else ""
    rows = "\n".join(f"| {scheme} | {count} |" for scheme, count in sorted(_counts(recipe).items()))
    return f"""---
{base}library_name: quantization-studio
pipeline_tag: text-generation
tags: [quantization-studio, {choices.mode}]
---
# {_plain(source.model.rsplit("/", 1)[-1])}, {choices.mode}

Weights of **{_plain(source.model)}** (revision `{_plain(source.revision)}`, stored as
{_plain(source.format)}), compressed by Quantization Studio.

| | |
| --- | --- |
| size of the weights | {format_bytes(recipe.compressed_bytes)}, {times:.2f} times smaller than at 16 bits |
| bits per weight, scales and zero points included | {bits:.3f} |
| mode, group size, ratio, backup | {choices.mode}, {choices.group_size}, {choices.ratio:g}, {choices.backup} |
| rounding | {choices.method}{read} |

| scheme | weights of the model |
| --- | --- |
{rows}

The licence is that of the original model. `recipe.json` holds every choice, the versions of the programs and the
checksums of the files; made with the same choices and the same text, the weights come out the same.

## Load it
The weights are in the studio's own packed layout (`codes`, `scale`, `zero_point` beside each weight's name), which
transformers, vLLM and llama.cpp do not read.

```
python -m studio chat PATH_OF_THIS_FOLDER --prompt "What is the capital of France?"
```
"""


def _counts(recipe: Recipe) -> dict[str, int]:
    counts: dict[str, int] = {}
    for weight in recipe.weights:
        counts[weight.scheme] = counts.get(weight.scheme, 0) + 1
    return counts


def _plain(words: str) -> str:
    """Return words from outside as harmless Markdown: one line, no markup."""
    return "".join(c for c in words if c.isalnum() or c in " ._/-:+")[:120]
