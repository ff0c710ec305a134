"""The model card: what a stranger who finds the folder needs to know. Trusts no word of the original's."""

import json

from studio.base.units import format_bytes
from studio.checkpoint.recipe import Recipe

PROGRAM = "Quantization Studio"


def model_card(recipe: Recipe, weights: int, can_chat: bool = True) -> str:
    """Return README.md for a compressed folder of ``weights`` parameters."""
    choices, source = recipe.choices, recipe.source
    bits = recipe.compressed_bytes * 8 / weights
    times = recipe.original_bytes / recipe.compressed_bytes
    read = f", calibrated on {_code(choices.calibration)}" if choices.calibration else ""
    rows = "\n".join(f"| {scheme} | {count} |" for scheme, count in sorted(_counts(recipe).items()))
    return f"""---
{_facts(recipe, can_chat)}
---
# {_code(source.title)}, {choices.mode}

Weights of {_code(source.base_model or source.model)} (revision {_code(source.revision)}, stored as
{_code(source.format)}), compressed by {PROGRAM} {recipe.versions.get("quantization-studio", "")}.

| | |
| --- | --- |
| size of the weights | {format_bytes(recipe.compressed_bytes)}, {times:.2f} times smaller than at 16 bits |
| bits per weight, scales and zero points included | {bits:.3f} |
| mode, group size, ratio, backup | {choices.mode}, {choices.group_size}, {choices.ratio:g}, {choices.backup} |
| rounding | {choices.method}{read} |

| scheme | weights of the model |
| --- | --- |
{rows}

{_license(recipe)} `recipe.json` holds every choice, the versions of the programs and the
checksums of the files; made with the same choices and the same text, the weights come out the same.

## {"Chat with it" if can_chat else "Read it"}
The weights are in the studio's own packed layout (`{recipe.weights_file}`: `codes`, `scale`, `zero_point` beside each
weight's name), which transformers, vLLM, llama.cpp and MLX refuse to load.{_commands(can_chat)}
"""


def _facts(recipe: Recipe, can_chat: bool) -> str:
    """Return what machines read, as YAML."""
    source = recipe.source
    facts: dict[str, object] = {
        "base_model": source.base_model,
        "base_model_relation": "quantized" if source.base_model else "",
        "license": source.license.id,
        "license_name": source.license.name,
        "library_name": "quantization-studio",
        "pipeline_tag": "text-generation" if can_chat else "",
        "tags": ["quantization-studio", recipe.choices.mode],
    }
    return "\n".join(f"{key}: {_quoted(value)}" for key, value in facts.items() if value)


def _license(recipe: Recipe) -> str:
    found = recipe.source.license
    return f"The license is that of the original model{f', {_code(found.name or found.id)}' if found.id else ''}."


def _commands(can_chat: bool) -> str:
    """Return how the studio is installed, and asked."""
    if not can_chat:
        return "\nThe model writes no text, so the studio does not run it."
    return f""" In a copy of {PROGRAM}'s
repository (the folder with `requirements.txt`), with Python 3.11 or newer:

```
pip install -r requirements.txt
python -m studio chat PATH_OF_THIS_FOLDER --prompt "What is the capital of France?"
```"""


def _counts(recipe: Recipe) -> dict[str, int]:
    counts: dict[str, int] = {}
    for weight in recipe.weights:
        counts[weight.scheme] = counts.get(weight.scheme, 0) + 1
    return counts


def _quoted(value: object) -> str:
    """Return YAML, of which JSON is a part, for words from outside."""
    plain = [_plain(each) for each in value] if isinstance(value, list) else _plain(str(value))
    return json.dumps(plain, ensure_ascii=False)


def _code(words: str) -> str:
    """Return words from outside as Markdown that is shown as it stands: no link, no markup."""
    return f"`{_plain(words)}`"


def _plain(words: str) -> str:
    """Return words from outside as one line of letters, digits and what names are joined with."""
    return "".join(c for c in words if c.isalnum() or c in " ._/-:+#,@")[:120].strip() or "unnamed"
