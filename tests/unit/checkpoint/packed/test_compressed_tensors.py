"""What the compressed-tensors package itself packs is read as it unpacks it. Left out where that is not installed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.packed.formats import with_packed
from studio.checkpoint.source_formats import Files, StoredTensor
from tests.small import CountedRanges

peer: Any = pytest.importorskip("compressed_tensors.quantization")


@pytest.mark.parametrize("symmetric", [True, False], ids=["sym", "asym"])
@pytest.mark.parametrize("group_size", [None, 32], ids=["channel", "g32"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_what_the_package_packs_is_read_as_it_unpacks_it(
    bits: int, group_size: int | None, symmetric: bool, tmp_path: Path
) -> None:
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    strategy = "channel" if group_size is None else "group"
    own = {"num_bits": bits, "symmetric": symmetric, "strategy": strategy, "group_size": group_size}
    args = peer.QuantizationArgs(**own)
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(bits))
    groups = weight.unflatten(1, (-1, group_size or 96))
    scale, zero = calculate_qparams(groups.amin(2), groups.amax(2), args)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero.to(torch.int8)}
    scheme = peer.QuantizationScheme(targets=["Linear"], weights=args)
    packed = PackedQuantizationCompressor.compress(state, scheme)
    save_file({f"m.{name}": tensor.contiguous() for name, tensor in packed.items()}, tmp_path / "a.safetensors")
    entries = read_header(tmp_path / "a.safetensors")
    said = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"a": {"weights": own}}}

    def read(entry: TensorEntry) -> bytes:
        return (tmp_path / entry.file).read_bytes()[entry.start : entry.end]

    found = StoredTensor("m.weight", with_packed({"quantization_config": said}, entries, read, True))
    expected = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
    values = found.whole(Files(entries, CountedRanges(tmp_path)))
    assert torch.allclose(values, expected.float(), rtol=1e-6, atol=0)
