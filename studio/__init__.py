"""hub -> checkpoint -> model -> survey -> plan -> compress -> chat -> export: one direction, no going back.

    import studio

    studio.estimate("builtin", ratio=0.9).compressed_bytes

Importing it imports nothing of weight, sets no environment variable and starts no thread; each function brings what it
needs when it is first asked for. ``docs/library.md`` shows them all. Knows no page and no terminal.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.session.api import compress, estimate, evaluate, export_model, load, plan, survey

__version__ = "0.1.0"
__all__ = ["__version__", "compress", "estimate", "evaluate", "export_model", "load", "plan", "survey"]


def __getattr__(name: str) -> Any:
    """Return a public function."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from studio.session import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
