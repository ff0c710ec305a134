"""The model card: what a stranger who finds the files needs to know. Trusts no word of the original's.

One card for a compressed folder, one for files that were exported of it. Words from outside are shown as code, one line
of plain characters, and stand in the front matter as JSON strings.
"""

from collections.abc import Sequence

from studio.base.units import format_bytes
from studio.checkpoint.file_names import CARD, MANIFEST, RECIPE
from studio.checkpoint.left_out import SHOWN, LeftOut
from studio.checkpoint.recipe import Choices, Exported, Recipe
from studio.evaluation.figures import Evaluation, WindowMean
from studio.export.card_words import front_matter, shown
from studio.export.programs import PROGRAMS

PROGRAM = "Quantization Studio"
MAP = "map.png"
"""The picture beside the card."""


def model_card(recipe: Recipe, weights: int, can_chat: bool = True, extra: LeftOut | None = None) -> str:
    """Return README.md for a compressed folder of ``weights`` parameters; ``extra``: what stands beside them."""
    facts = _facts(recipe, can_chat, "quantization-studio", ["quantization-studio", recipe.choices.mode])
    return f"""{front_matter(facts)}
{_heading(recipe)}
{_size_table(recipe, weights)}
{_schemes(recipe)}
{extra_words(extra, None)}{license_words(recipe)} `{RECIPE}` holds every choice, the versions of the programs and the
checksums of the files; made with the same choices and the same text, the weights come out the same.

## {"Chat with it" if can_chat else "Read it"}
The weights are in the studio's own packed layout (`{recipe.weights_file}`: `codes`, `scale`, `zero_point` or
`offset` beside each weight's name), which transformers, vLLM, llama.cpp and MLX refuse to load.{_commands(can_chat)}
"""


def export_card(
    recipe: Recipe,
    weights: int,
    exports: Sequence[Exported],
    can_chat: bool = True,
    has_map: bool = False,
    quality: Evaluation | None = None,
    folders: Sequence[str] = (),
    missing: LeftOut | None = None,
) -> str:
    """Return README.md for files that were written of a folder of ``weights`` parameters.

    ``has_map``: whether the picture stands beside it; ``quality``: what was measured of the folder, whose numbers are
    those of the files; ``folders``: names of those that stand beside them, each with a card of its own; ``missing``:
    what the folder has and they have not.
    """
    targets = list(dict.fromkeys([*(each.target for each in exports), *folders]))
    library = "gguf" if "gguf" in targets else "quantization-studio"
    facts = _facts(recipe, can_chat, library, [*targets, "quantized", "quantization-studio"])
    rows = [f"| `{each.file}` | {each.nbytes:,} | `{each.sha256}` |" for each in exports]
    files = "\n".join([*rows, *(f"| [`{name}/`]({name}/{CARD}) | a folder | in `{MANIFEST}` |" for name in folders)])
    usage = "\n".join(PROGRAMS[each.target](each, recipe) for each in exports if each.target in PROGRAMS)
    return f"""{front_matter(facts)}
{_heading(recipe)}
| file | bytes | SHA-256 |
| --- | --- | --- |
{files}

{_size_table(recipe, weights)}
{_quality(quality)}{_picture(has_map)}{_schemes(recipe)}
{extra_words(None, missing)}{usage}
## Made again
`{RECIPE}` holds every choice, what was read, the versions of the programs and the checksums: in a copy of {PROGRAM}'s
repository, `python -m studio apply {RECIPE} --out again` makes these files again, the same to the bit on a machine of
the same kind.

{license_words(recipe)}
"""


def folder_card(
    recipe: Recipe,
    weights: int,
    nbytes: int,
    library: str,
    usage: str,
    can_chat: bool = True,
    extra: LeftOut | None = None,
    missing: LeftOut | None = None,
) -> str:
    """Return README.md for a model's folder that another program loads, whose weights take ``nbytes`` there.

    ``library``: the program, as the Hub names it; ``usage``: how the folder is run, in Markdown; ``extra`` and
    ``missing``: what was beside the model and is there, or is not.
    """
    facts = _facts(recipe, can_chat, library, [library, "quantized", "quantization-studio"])
    return f"""{front_matter(facts)}
{_heading(recipe)}
{_size_table(recipe, weights, nbytes)}
{_schemes(recipe)}
{extra_words(extra, missing)}{usage}
{license_words(recipe)}
"""


def _heading(recipe: Recipe) -> str:
    source, choices = recipe.source, recipe.choices
    decided = _decided(choices)
    kind = choices.mode if decided is None else decided[1]
    return f"""# {shown(source.title)}, {kind}

Weights of {shown(source.base_model or source.model)} (revision {shown(source.revision)}, stored as
{shown(source.format)}), compressed by {PROGRAM} {shown(recipe.versions.get("quantization-studio", "?"), False)}.
"""


def _decided(choices: Choices) -> tuple[str, str] | None:
    """Return what decided the schemes in place of a mode, and how it is called; None where a mode did."""
    if choices.budget != "none":
        return "budget, spent on the schemes of", f"{shown(choices.budget)}, {shown(choices.target)}"
    return None if choices.mix == "none" else ("mix", choices.mix.upper())


def _size_table(recipe: Recipe, weights: int, nbytes: int | None = None) -> str:
    """Return the table of sizes; ``nbytes`` of the weights, where they are not those of the studio's own folder."""
    choices = recipe.choices
    nbytes = recipe.compressed_bytes if nbytes is None else nbytes
    bits = nbytes * 8 / weights
    times = recipe.original_bytes / nbytes
    read = f", calibrated on {shown(str(choices.calibration))}" if choices.calibration else ""
    made = f"{choices.mode}, {choices.group_size}, {choices.ratio:g}, {choices.backup}"
    how = _decided(choices) or ("mode, group size, ratio, backup", made)
    return f"""| | |
| --- | --- |
| size of the weights | {format_bytes(nbytes)}, {times:.2f} times smaller than at 16 bits |
| bits per weight, scales and zero points included | {bits:.3f} |
| {how[0]} | {how[1]} |
| rounding | {choices.method}{read} |
"""


def _schemes(recipe: Recipe) -> str:
    rows = "\n".join(f"| {scheme} | {count} |" for scheme, count in sorted(_counts(recipe).items()))
    return f"""| scheme | weights of the model |
| --- | --- |
{rows}
"""


def _quality(found: Evaluation | None) -> str:
    """Return the table of what was measured, with standard errors; nothing where nothing was."""
    if found is None:
        return ""
    rows = [
        ("KL divergence from the original, nats a token", _with_error(found.kld, 4)),
        ("same likeliest next token", _with_error(found.same_top, 4)),
        ("perplexity", _with_error(found.perplexity, 2)),
        ("perplexity of the original", _with_error(found.original_perplexity, 2)),
    ]
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""| measured over {found.tokens:,} tokens, ± standard error | |
| --- | --- |
{lines}

"""


def _with_error(figure: WindowMean, digits: int) -> str:
    error = "" if figure.standard_error is None else f" ± {figure.standard_error:.{digits}f}"
    return f"{figure.mean:.{digits}f}{error}"


def _picture(has_map: bool) -> str:
    return f"![What every weight of every block became, by its bits]({MAP})\n\n" if has_map else ""


def _facts(recipe: Recipe, can_chat: bool, library: str, tags: list[str]) -> dict[str, object]:
    """Return what machines read."""
    source = recipe.source
    return {
        "base_model": source.base_model,
        "base_model_relation": "quantized" if source.base_model else "",
        "license": source.license.id,
        "license_name": source.license.name,
        "language": list(source.languages),
        "library_name": library,
        "pipeline_tag": "text-generation" if can_chat else "",
        "tags": tags,
    }


def extra_words(extra: LeftOut | None, missing: LeftOut | None) -> str:
    """Return what is said of tensors that no program runs as part of the model: those that are here, as they came, and
    those that are not."""
    words = ""
    if extra is not None:
        words += f"""The original's files hold {_tensors(extra)} beside the model, which transformers does not run.
They are here as they came, byte for byte, and not in the sizes above.

"""
    if missing is not None:
        words += f"""The original's files hold {_tensors(missing)} beside the model, which transformers does not run.
They are not here.

"""
    return words


def _tensors(found: LeftOut) -> str:
    named = ", ".join(map(shown, found.parts[:SHOWN])) + (", …" if len(found.parts) > SHOWN else "")
    return f"{found.tensors} more tensors of {found.nbytes:,} bytes ({named})"


def license_words(recipe: Recipe) -> str:
    """Return what is said of the license."""
    found = recipe.source.license
    said = f"The license is that of the original model{f', {shown(found.name or found.id)}' if found.id else ''}."
    if found.forbids_derivatives:
        said += " It forbids to share what was derived from the model, as these files are: ask its owners first."
    return said


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
