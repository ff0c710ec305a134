"""What children see of the server's environment: what they need by name, and nothing else. Knows not what they do."""

import os
import re
from pathlib import Path

import studio
from studio.base.settings import settings
from studio.base.startup import DEFAULTS

NAMES = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH",
    "CC", "CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH",
    "HF_HOME", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS",
    "DISABLE_SAFETENSORS_CONVERSION", "USE_HUB_KERNELS", "TOKENIZERS_PARALLELISM", "TQDM_DISABLE",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy",
    "SYSTEMROOT", "WINDIR", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PATHEXT", "COMSPEC",
)  # fmt: skip
PREFIXES = (
    "STUDIO_", "LC_", "XDG_", "OMP_", "MKL_", "GOMP_", "OPENBLAS_", "KMP_", "CUDA_", "CUBLAS_", "NVIDIA_", "TRITON_",
    "TORCH_", "PYTORCH_", "TRANSFORMERS_", "PYTHON", "MALLOC_",
)  # fmt: skip
SUFFIXES = ("SAN_OPTIONS",)
SECRET = re.compile(
    r"TOKEN|SECRET|PASS|CREDENTIAL|KEY|AUTH|COOKIE|PRIVATE|LOGIN|BEARER|(?:^|_)(?:PAT|PWD|DSN)(?:_|$)", re.IGNORECASE
)
"""Names that may begin as they like, and are not given."""
NOT_FOR_CHILDREN = frozenset({"PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT"})


def is_given(name: str) -> bool:
    """Return whether children get the variable of this name."""
    if name in NAMES:
        return True
    is_known = name.startswith(PREFIXES) or name.endswith(SUFFIXES)
    return is_known and name not in NOT_FOR_CHILDREN and not SECRET.search(name)


def environment() -> dict[str, str]:
    """Return the environment of children: what :func:`is_given`, what programs begin with, this package to be found
    from any folder, and the server's own word on where it listens and who comes there, which may not come from a
    variable: on it depends whose login is used."""
    kept = DEFAULTS | {name: value for name, value in os.environ.items() if is_given(name)}
    here = str(Path(studio.__file__).parent.parent)
    paths = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and path != here]
    return {**kept, "PYTHONPATH": os.pathsep.join([here, *paths]), **_place()}


def _place() -> dict[str, str]:
    access = "private" if settings().is_private else "public"
    return {"STUDIO_HOST": settings().host, "STUDIO_ACCESS": access}


def working_folder() -> str | None:
    """Return the folder that names of files are relative to, None where it was removed.

    Children come from a process that began in whatever folder the server was in then.
    """
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None
