"""Words that are registered, each once, with what it stands for: what an enum is, but open. Knows no word."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Self, TypeVar

T = TypeVar("T", bound="Word")


class Registry(type):
    """Of a class of words. The class is asked as an enum is: ``for mode in Mode``, ``Mode("nf4")``, ``Mode.NF4``."""

    def __init__(cls, *given: Any) -> None:
        super().__init__(*given)
        cls._known: dict[str, Any] = {}

    def __iter__(cls: type[T]) -> Iterator[T]:  # type: ignore[misc]  # as typeshed has Enum's
        return iter([*cls._known.values()])

    def __contains__(cls, name: object) -> bool:
        return name in cls._known

    def __len__(cls) -> int:
        return len(cls._known)

    def __getattr__(cls: type[T], name: str) -> T:  # type: ignore[misc]
        word = cls._known.get(name.lower()) if name.isupper() else None
        if word is None:
            raise AttributeError(f"no {cls.__name__} is registered as {name}; there are {', '.join(cls._known)}")
        return word  # type: ignore[no-any-return]


class Word(str, metaclass=Registry):
    """A registered name. It is its text, and the same object wherever it is asked for, in other processes too."""

    def __new__(cls, name: str) -> Self:
        """Return the word of this name. Raises ValueError with the known ones."""
        registered = cls._known.get(name)
        if registered is None:
            raise ValueError(f"there is no {cls.__name__} {name!r:.60}; there are {', '.join(cls._known)}")
        return registered  # type: ignore[no-any-return]

    @property
    def value(self) -> str:
        """The name as plain text."""
        return str.__str__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.value,)

    @classmethod
    def _add(cls, name: str, **facts: Any) -> Self:
        """Register a name with what it stands for. Raises ValueError for one that is taken, or cannot be an option."""
        if not name.isascii() or not name.isidentifier() or name != name.lower():
            raise ValueError(f"{name!r:.60} is no name: lower-case letters, digits and _ only, and a letter first")
        if name in cls._known:
            raise ValueError(f"{cls.__name__} {name!r} is registered already")
        word = str.__new__(cls, name)
        word.__dict__.update(facts)
        cls._known[name] = word
        return word

    @classmethod
    def remove(cls, name: str) -> None:
        """Forget a name. What was made of it goes on."""
        del cls._known[name]


def later(module: str, name: str, *given: object) -> Callable[[], Any]:
    """Return a function that imports ``module`` and returns its ``name``, called with what is ``given``, if anything.

    So that what is registered can be listed without torch.
    """

    def imported() -> Any:
        thing = getattr(import_module(module), name)
        return thing(*given) if given else thing

    return imported
