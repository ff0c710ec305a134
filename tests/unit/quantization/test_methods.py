"""The names of methods: every one is read, and an unknown one is answered with all that there are."""

import pytest

from studio.base.errors import SchemeError
from studio.quantization.methods import BEST, Method, parse_method


@pytest.mark.parametrize("method", Method, ids=str)
def test_every_method_has_its_name(method: Method) -> None:
    assert parse_method(method.value) is method


def test_the_best_is_the_one_we_recommend() -> None:
    assert parse_method("best") is BEST


def test_an_unknown_name_is_answered_with_all_there_are() -> None:
    with pytest.raises(SchemeError) as refused:
        parse_method("x" * 1000)
    assert refused.value.values["methods"] == ", ".join(("best", *Method))
    assert len(str(refused.value.values["method"])) == 40


def test_only_what_rounds_by_itself_needs_no_inputs() -> None:
    assert {method for method in Method if not method.needs_inputs} == {Method.NEAREST, Method.HALF_QUADRATIC}
