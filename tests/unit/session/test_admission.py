"""Jobs that read a model block by block: what they take by the model's shapes, and the refusal with the arithmetic."""

from functools import partial
from pathlib import Path

import pytest

from studio.base.errors import ResourceError
from studio.base.text import LANGUAGES
from studio.base.units import format_bytes
from studio.chat import model_pool
from studio.chat.model_pool import Pool
from studio.quantization.methods import Method
from studio.runtime.decoder import MOST_TOKENS
from studio.session import admission
from studio.session.admission import Need, admitted, calibration_need, drift_need, no_drift
from tests.small import a_few_weights, saved

NEED = Need(3 << 20, 2 << 20, 1 << 20)
NO = partial(no_drift, command="")


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_pool, "available_memory", lambda: 10 << 20)


@pytest.mark.usefixtures("_short")
def test_a_job_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ResourceError) as caught, admitted(Pool(), NEED, partial(no_drift, command="do it")):
        raise AssertionError("it began")
    for language in LANGUAGES:
        said = caught.value.sentence(language)
        parts = (NEED.nbytes, NEED.block, NEED.states, NEED.statistics, admission.PIECES, int(0.9 * (10 << 20)))
        assert all(format_bytes(part) in said for part in parts)
        assert said.endswith("do it")


def test_what_is_promised_to_one_job_is_not_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_pool, "available_memory", lambda: int(1.5 * NEED.nbytes / model_pool.HEADROOM))
    pool = Pool()
    with admitted(pool, NEED, NO):
        with pytest.raises(ResourceError), admitted(pool, NEED, NO):
            pass
        with admitted(pool, None, NO):
            pass
    with admitted(pool, NEED, NO):
        pass


def test_needs_follow_from_shapes(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, a_few_weights())
    largest = max(50 * 64, 96 * 64, 64 * 128, 3 * 20 * 64)
    calibration, drift = calibration_need(checkpoint), drift_need(checkpoint)
    assert drift.block >= calibration.block >= 2 * largest
    assert calibration.statistics == 3 * 4 * (64 * 64 + 128 * 128)
    assert drift.statistics == 4 * 4 * 50 * MOST_TOKENS
    two_sided, distilled = (calibration_need(checkpoint, each) for each in (Method.TWO_SIDED, Method.DISTILLED))
    assert calibration.nbytes < two_sided.nbytes < distilled.nbytes
    assert two_sided.statistics > calibration.statistics
    assert distilled.block == 4 * two_sided.block
    assert calibration.nbytes == admission.PIECES + calibration.block + calibration.states + calibration.statistics
