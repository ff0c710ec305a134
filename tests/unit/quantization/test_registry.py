"""A class of registered words is asked as an enum is, and can grow."""

import pickle
from collections import OrderedDict
from collections.abc import Iterator

import pytest

from studio.quantization.registry import Word, later


class Fruit(Word):
    """Words of this test alone."""

    weight: int


class Tree(Word):
    """Others, which share no names with them."""


@pytest.fixture(autouse=True)
def fruits() -> Iterator[None]:
    Fruit._add("apple", weight=150)
    Fruit._add("plum", weight=40)
    yield
    for name in list(Fruit):
        Fruit.remove(name)


def test_a_word_is_its_text_and_the_same_object_however_it_is_asked_for() -> None:
    plum = Fruit("plum")
    assert plum == "plum"
    assert f"{plum}" == plum.value == "plum"
    assert type(plum.value) is str
    assert plum is Fruit.PLUM
    assert plum is Fruit(plum)
    assert plum.weight == 40


def test_a_word_is_the_same_object_after_a_pickle() -> None:
    assert pickle.loads(pickle.dumps(Fruit.PLUM)) is Fruit.PLUM


def test_words_come_in_the_order_in_which_they_were_registered() -> None:
    Fruit._add("fig", weight=50)
    assert list(Fruit) == ["apple", "plum", "fig"]
    assert len(Fruit) == 3


def test_every_class_has_words_of_its_own() -> None:
    assert "plum" in Fruit
    assert "plum" not in Tree
    assert list(Tree) == []


@pytest.mark.parametrize("name", ["pear", "PLUM", "", "x" * 1000])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="there are apple, plum") as raised:
        Fruit(name)
    assert len(str(raised.value)) < 200, "what was typed is cut short"


@pytest.mark.parametrize("name", ["PEAR", "plum", "Plum", "_known_not"])
def test_an_attribute_that_is_no_word_in_capitals_is_none(name: str) -> None:
    assert not hasattr(Fruit, name)


@pytest.mark.parametrize("name", ["Plum", "a b", "1st", "", "prune-dry", "pflaumä"])
def test_what_could_be_no_option_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        Fruit._add(name, weight=1)
    assert list(Fruit) == ["apple", "plum"]


def test_a_name_is_registered_once_until_it_is_removed() -> None:
    plum = Fruit.PLUM
    with pytest.raises(ValueError, match="registered already"):
        Fruit._add("plum", weight=1)
    assert Fruit.PLUM.weight == 40
    Fruit.remove("plum")
    assert "plum" not in Fruit
    assert plum.weight == 40, "what was made of it goes on"
    Fruit._add("plum", weight=1)
    assert Fruit.PLUM.weight == 1


def test_later_imports_nothing_before_it_is_asked() -> None:
    asked = later("no.such.module", "anything")
    with pytest.raises(ModuleNotFoundError):
        asked()


def test_later_returns_the_thing_or_what_it_makes_of_what_is_given() -> None:
    assert later("collections", "OrderedDict")() is OrderedDict
    assert later("collections", "OrderedDict", [("a", 1)])() == OrderedDict(a=1)
