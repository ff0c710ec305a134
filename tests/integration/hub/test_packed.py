"""What others packed and put on the Hub: how it came is told, and it opens for a plan, before a weight is fetched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoint import hub
from studio.checkpoint.checkpoint import of_repository
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.provenance import provenance
from tests.hub_server import LocalHub
from tests.packed_models import CompressedTensors, Format, Gptq, packed_folder
from tests.small_repository import REPO


@pytest.mark.parametrize(
    ("kind", "reads"),
    [
        (Gptq(act_order=True), 0),
        (CompressedTensors(bits_of={"down_proj": 8}), 0),
        (CompressedTensors(group_size=-1, bits_of={"down_proj": 8}), 2 * 7),
    ],
    ids=["gptq", "mixed", "mixed-channel"],
)
def test_headers_tell_how_it_came(
    kind: Format, reads: int, server: LocalHub, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "packed"
    packed_folder(tiny_model("llama"), folder, kind)
    server.add(REPO, folder)
    found, near = provenance(REPO), provenance(str(folder))
    assert (found.tensors, found.quantized_by, found.nbytes) == (near.tensors, near.quantized_by, near.nbytes)
    assert found.revision
    header = hub.FIRST_READ_BYTES
    assert server.sent(WEIGHTS) <= header + 16 * reads
    checkpoint = of_repository(hub.inspect(REPO))
    assert checkpoint.folder is None
    assert {each.type for each in checkpoint.came_as} == {each.type for each in near.types}
