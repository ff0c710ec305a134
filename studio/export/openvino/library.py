"""OpenVINO itself, imported when it is asked for: it is no requirement of the studio. Knows nothing of models."""

from importlib.util import find_spec
from typing import Any

from studio.base.errors import ResourceError

PACKAGES = ("openvino", "openvino_tokenizers")
INSTALL = "pip install openvino openvino-tokenizers"


def missing() -> ResourceError | None:
    """Return what is to be installed, None where all is there."""
    if all(find_spec(name) is not None for name in PACKAGES):
        return None
    return ResourceError("to_openvino_missing", command=INSTALL)


def opset() -> Any:
    """Return the operators."""
    import openvino.opset13

    return openvino.opset13
