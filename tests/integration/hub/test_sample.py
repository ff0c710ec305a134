"""A model on the Hub is sampled where it is: a small share of it is read, and what that tells stays an estimate."""

import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from studio.base.errors import Cancelled, HubError
from studio.base.progress import Progress
from studio.checkpoint import hub, hub_client
from studio.checkpoint.layers import ratio_defining
from studio.planning import sampled_survey as sample_module
from studio.planning.choice import Choice
from studio.planning.sampled_survey import Sample
from studio.quantization.scheme import Mode, Scheme
from studio.session.session import Session
from tests.conftest import save_tiny_model
from tests.hub_server import LocalHub
from tests.steps import finish
from tests.terminal import run

pytestmark = pytest.mark.usefixtures("own_cache")
REPO, OTHER = "owner/wide", "owner/other"
MIXED = Choice(Mode.INT4_ASYM, 64, 0.5)
BLOCKS = 5
WEIGHTS = 7 * BLOCKS + 2
SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": BLOCKS, "head_dim": 64}
RUN_WEIGHTS = 512
"""Two or three rows: of a model of this size, the share that 32,768 weights are of one of some billions."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 37 weights and 9 MB in some shards."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models")
    save_tiny_model("llama", folder / "whole", **SHAPE)
    model = AutoModelForCausalLM.from_pretrained(folder / "whole", dtype="bfloat16")
    for number, parameter in enumerate(model.parameters()):  # layers unlike each other
        if parameter.ndim == 2:
            parameter.data *= 1 + 0.2 * (number % 7)
            parameter.data[:, number % 50] *= 8
    shutil.copytree(folder / "whole", folder / "wide", ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(folder / "wide", max_shard_size="2MB")
    return folder / "wide"


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(hub_client, "WAITS", ())
    monkeypatch.setattr(sample_module, "RUN_WEIGHTS", RUN_WEIGHTS)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    hub._probed.clear()
    with LocalHub() as server:
        server.add(REPO, folder)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def session(server: LocalHub, tmp_path: Path) -> Iterator[Session]:
    visitor = Session(workspace=tmp_path / "workspace")
    finish(visitor.open(REPO))
    visitor.planner.choose(MIXED)
    server.requests.clear()
    yield visitor
    visitor.close()


def weight_bytes(server: LocalHub) -> int:
    return sum(request.sent for request in server.requests if request.path.endswith(".safetensors"))


def test_a_small_share_of_many_tensors_is_read_and_nothing_is_fetched(
    server: LocalHub, session: Session, tmp_path: Path
) -> None:
    checkpoint = session.checkpoint
    assert checkpoint is not None
    assert checkpoint.folder is None
    found = finish(session.measurements.sample())
    assert len(found) == WEIGHTS
    assert weight_bytes(server) == session.model.sample_bytes
    assert 0 < session.model.sample_bytes < checkpoint.source_bytes / 15
    longest = max(768 * -(-RUN_WEIGHTS // 768), 256 * -(-RUN_WEIGHTS // 256))
    assert {request.range is not None for request in server.requests} == {True}
    assert max(request.sent for request in server.requests) <= 2 * longest
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


def test_it_is_the_sample_of_the_files_themselves_and_its_intervals_hold_what_they_say(
    session: Session, folder: Path, tmp_path: Path
) -> None:
    found = finish(session.measurements.sample())
    local = Session(paths=True, workspace=tmp_path / "local")
    finish(local.open(str(folder)))
    assert finish(local.measurements.sample()) == found
    finish(local.measurements.survey())
    held = [
        line.errors[scheme].low <= error <= line.errors[scheme].high
        for name, line in found.items()
        for scheme, error in local.model.known.layers[name].errors.items()
    ]
    assert sum(held) / len(held) > 0.85
    assert all(
        found[name].sensitivity >= line.sensitivity * (1 - 1e-6) for name, line in local.model.known.layers.items()
    )
    local.close()


def test_what_a_sample_tells_never_counts_as_measured(session: Session) -> None:
    assert session.plan is not None
    in_order = session.plan.assignments
    assert not session.plan.is_exact
    finish(session.measurements.sample())
    assert session.model.known.layers == {}
    assert session.model.scores is None
    assert not session.planner.is_surveyed
    assert not session.plan.is_exact, "a maximum over channels is only bounded"
    assert session.plan.assignments != in_order, "but it says more than the order of the layers"
    ranked = session.plan.assignments
    assert not session.planner.choose(Choice(Mode.INT4_ASYM, 64, 0.45)).is_exact
    assert session.planner.choose(Choice(Mode.INT4_ASYM, 64, 1.0)).is_exact, "no score is asked for"
    session.planner.undo()
    assert session.planner.undo() is not None
    assert session.plan.assignments == ranked
    finish(session.fetch())
    finish(session.measurements.survey())
    assert session.planner.is_surveyed
    assert session.plan.is_exact


def test_another_visitor_need_not_ask_for_it_again(server: LocalHub, session: Session, tmp_path: Path) -> None:
    found = finish(session.measurements.sample())
    server.requests.clear()
    other = Session(workspace=tmp_path / "other")
    finish(other.open(REPO))
    assert other.model.sampled == found
    assert other.planner.choose(MIXED) == session.plan
    assert finish(other.measurements.sample()) == found
    starts = {request.range.split("-")[0] for request in server.requests if request.range}
    assert starts == {"bytes=0"}, "headers alone"
    other.close()


def test_a_mode_that_was_not_sampled_is_when_it_is_asked_for(session: Session) -> None:
    finish(session.measurements.sample())
    session.planner.choose(Choice(Mode.INT3_SYM, 64, 0.5))
    assert not any("int3_sym-g64" in line.errors for line in session.model.sampled.values())
    finish(session.measurements.sample())
    assert session.checkpoint is not None
    for layer in ratio_defining(session.checkpoint.layers):
        assert {"int3_sym-g64", "int4_asym-g64"} < session.model.sampled[layer.name].errors.keys()


def until_some(session: Session) -> Generator[Progress, None, Sample]:
    steps = session.measurements.sample()
    while not session.model.sampled:
        next(steps)
    return steps


def test_stop_ends_it_and_what_was_found_is_kept(server: LocalHub, session: Session) -> None:
    steps = until_some(session)
    session.jobs.stop("sample")
    with pytest.raises(Cancelled):
        finish(steps)
    some = dict(session.model.sampled)
    assert 0 < len(some) < WEIGHTS
    server.requests.clear()
    assert finish(session.measurements.sample()).items() > some.items()
    assert weight_bytes(server) < session.model.sample_bytes


def test_another_model_gets_nothing_of_it(
    server: LocalHub, session: Session, tiny_model: Callable[[str], Path]
) -> None:
    server.add(OTHER, tiny_model("llama"))
    steps = until_some(session)
    finish(session.open(OTHER))
    assert session.model.sampled == {}
    with pytest.raises(Cancelled):
        finish(steps)
    assert session.model.sampled == {}


def test_a_model_fetched_meanwhile_is_still_the_same(session: Session) -> None:
    steps = until_some(session)
    finish(session.fetch())
    finish(steps)
    assert len(session.model.sampled) == WEIGHTS


def test_a_server_without_ranges_is_refused_before_it_sends_the_model(server: LocalHub, session: Session) -> None:
    server.fault = "whole"
    server.bytes_per_second = 5e6
    with pytest.raises(HubError, match="read in parts"):
        finish(session.measurements.sample())
    assert session.checkpoint is not None
    assert weight_bytes(server) < session.checkpoint.source_bytes / 5
    assert session.model.sampled == {}


def test_a_line_that_breaks_for_good_is_said(server: LocalHub, session: Session) -> None:
    steps = until_some(session)
    server.status = 503
    with pytest.raises(HubError, match="HTTP 503"):
        finish(steps)
    assert session.model.sampled
    server.status = None
    assert len(finish(session.measurements.sample())) == WEIGHTS


def test_the_terminal_says_what_it_will_read_and_fetches_nothing(server: LocalHub, tmp_path: Path) -> None:
    answer = run("survey", REPO, "--sample", "--runs", 3, "--json")
    assert answer.code == 0, answer.stderr
    facts = answer.json
    assert facts["model"] == REPO
    assert len(facts["layers"]) == WEIGHTS
    headers = sum(request.sent for request in server.requests if (request.range or "").startswith("bytes=0-"))
    assert weight_bytes(server) - headers == facts["sample_bytes"]
    assert re.search(r"A sample reads \d+ kB of \d+(\.\d)? MB", answer.stderr)
    assert not list((tmp_path / "hub").rglob("*.safetensors"))
    scheme = facts["layers"][0]["schemes"][str(Scheme(Mode.INT4_ASYM, 64))]
    assert 0 < scheme["low"] < scheme["relative_error"] < scheme["high"] < 1


def test_weights_elsewhere_are_read_without_asking_the_hub_each_time(server: LocalHub, session: Session) -> None:
    server.elsewhere = True
    finish(session.measurements.sample())
    at_the_hub = [request for request in server.requests if "/resolve/" in request.path]
    shards = [name for name in server.models[REPO].blobs if name.endswith(".safetensors")]
    assert len(shards) > 4
    assert len(at_the_hub) <= sample_module.THREADS * len(shards)
    assert len(at_the_hub) < (len(server.requests) - len(at_the_hub)) / 5
    assert weight_bytes(server) == session.model.sample_bytes
