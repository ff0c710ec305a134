"""Which weights NNCF gives the primary mode at a ratio, and the table it prints: asked of its own algorithm object.

A weight's score does not depend on the ratio, so NNCF computes it once; all that follows from it is asked again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nncf
from nncf.common.factory import build_graph
from nncf.quantization.algorithms.weight_compression.algorithm import WeightCompression
from torch import Tensor

from studio.planning.plan import DistributionRow
from studio.quantization.scheme import Mode, Scheme
from tests.parity.nncf_side import listening, model

Row = tuple[str, str, str]
"""A line of the table: mode, share of all weights, share of the ratio-defining ones."""


class Selection:
    """NNCF's answers for one model, mode and group size, at any ratio."""

    def __init__(self, weights: Mapping[str, Tensor], embedding: tuple[str, Tensor], mode: Mode, group: int) -> None:
        self._model = model(weights, embedding, tied=True)
        self._graph = build_graph(self._model)
        self._options = {"mode": nncf.CompressWeightsMode(mode.value), "group_size": group}
        self._mode = mode
        self.scores: dict[str, float] = {}

    def at(self, ratio: float) -> tuple[set[str], list[Row]]:
        """Return the names of the weights that take the primary mode, and the table."""
        algorithm = self._algorithm(ratio)
        every, defining, skipped = algorithm.get_weight_compression_parameters(self._model, self._graph)
        criterion = algorithm._mixed_precision_algo
        criterion._set_backend_entity(self._model)
        if not self.scores:
            with listening():
                scores = criterion._calc_sensitivity(self._model, self._graph, defining)
            self.scores = dict(zip((one.weight_name for one in defining), scores, strict=True))
        criterion._calc_sensitivity = lambda *_: [self.scores[one.weight_name] for one in defining]
        algorithm.apply_mixed_precision(defining, self._model, self._graph, None)
        algorithm.validate_group_size(defining)
        primary = {one.weight_name for one in every if one.compression_config.mode.value == self._mode.value}
        return primary, table(algorithm.get_bitwidth_distribution_str(every, defining, skipped))

    def _algorithm(self, ratio: float) -> Any:
        algorithm = WeightCompression(
            ratio=ratio,
            ignored_scope=nncf.IgnoredScope(),
            all_layers=False,
            sensitivity_metric=nncf.SensitivityMetric.WEIGHT_QUANTIZATION_ERROR,
            awq=False,
            subset_size=1,
            scale_estimation=False,
            gptq=False,
            lora_correction=False,
            backup_mode=nncf.BackupMode.INT8_ASYM,
            **self._options,
        )
        algorithm.set_backend_entity(self._model)
        return algorithm


def table(printed: str) -> list[Row]:
    """Return the rows of the table that NNCF prints."""
    return list(_rows(printed))[1:]


def _rows(printed: str) -> Iterator[Row]:
    for line in printed.splitlines():
        if line.startswith("│"):
            label, every, defining = (cell.strip() for cell in line.strip("│").split("│"))
            yield label, every, defining


def our_table(shares: Sequence[DistributionRow]) -> list[Row]:
    """Return our distribution in NNCF's words."""
    weights, layers = sum(share.weights for share in shares), sum(share.layers for share in shares)
    defining, defining_layers = (
        sum(share.ratio_weights for share in shares),
        sum(share.ratio_layers for share in shares),
    )
    return [
        (
            _label(share.scheme),
            f"{share.weights / weights * 100:.0f}% ({share.layers} / {layers})",
            f"{share.ratio_weights / defining * 100:.0f}% ({share.ratio_layers} / {defining_layers})",
        )
        for share in shares
    ]


def _label(scheme: str) -> str:
    if scheme == "float16":
        return "float"
    parsed = Scheme.parse(scheme)
    return f"{parsed.mode}, {'per-channel' if parsed.group_size < 0 else f'group size {parsed.group_size}'}"
