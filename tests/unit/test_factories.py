"""Every tensor the studio makes names its dtype: the default is the process's, and whoever loads a model may swap it.

What compiled code writes to names its device too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FACTORIES = frozenset(
    {"arange", "as_tensor", "empty", "empty_strided", "eye", "frombuffer", "full", "hann_window", "linspace"}
    | {"logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor"}
    | {"tril_indices", "triu_indices", "zeros"}
)
"""Of torch's; those that end in ``_like`` take the dtype of their argument."""
TYPES = frozenset({"Tensor", "FloatTensor", "LongTensor", "IntTensor", "set_default_dtype"})
"""Ways round the factories, or to the default itself."""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Yield the calls of ``torch.<name>``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "torch":
                yield node, node.func.attr


def without(tree: ast.AST, keyword: str) -> list[str]:
    """Return what makes a tensor without saying ``keyword``, by line."""
    return [
        f"{call.lineno}: torch.{name}"
        for call, name in calls(tree)
        if name in TYPES or (name in FACTORIES and keyword not in {given.arg for given in call.keywords})
    ]


FILES = sorted((ROOT / "studio").rglob("*.py"))


def all_without(files: list[Path], keyword: str) -> list[str]:
    return [
        f"{file.relative_to(ROOT)}:{each}" for file in files for each in without(ast.parse(file.read_text()), keyword)
    ]


def test_every_new_tensor_names_its_dtype() -> None:
    assert all_without(FILES, "dtype") == []


def test_what_compiled_code_is_given_names_its_device() -> None:
    native = [file for file in FILES if file.parent.name in ("native", "decoder")]
    assert len(native) > 20
    assert [each for each in all_without(native, "device") if not each.endswith("frombuffer")] == []


def test_a_tensor_without_a_dtype_is_noticed() -> None:
    assert without(ast.parse("x = torch.empty(3)\ny = torch.zeros(3, dtype=torch.int8)"), "dtype") == ["1: torch.empty"]
    assert without(ast.parse("torch.set_default_dtype(torch.half)"), "dtype") == ["1: torch.set_default_dtype"]
