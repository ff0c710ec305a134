"""JSON that Python's parser takes and the safetensors library does not is no header."""

import pytest

from studio.checkpoint.header_json import claims_of

REFUSED = {
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a pair in a name": b'{"\\ud800": 1}',
    "half a pair in the metadata": b'{"__metadata__": {"a": "\\ud800"}}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a name twice": b'{"a": 1, "a": 1}',
    "minus nothing": b'{"a": -0}',
    "a number in the metadata": b'{"__metadata__": {"a": 1}}',
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_library_refuses_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of JSON, of unicode or of ours: the reader says one sentence
        claims_of(raw)


def test_metadata_are_no_claim() -> None:
    claim = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    raw = b'{"__metadata__": {"format": "pt"}, "\\u00e9": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    assert claims_of(raw) == {"é": claim}
