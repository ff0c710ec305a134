"""What a program of the studio's asks of the libraries beneath it, before they load. Knows none of them.

Programs begin with :func:`prepare`: the terminal's commands, the page, and through their environment all workers. Who
only imports the studio keeps an environment of their own.
"""

import os

DEFAULTS = {
    # The Hub's client and transformers read these once, whoever imports them first: no telemetry, no bars on our
    # output, no conversion of pickles by a service, no attention kernels from the Hub.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "USE_HUB_KERNELS": "0",
    # torch's threads spin while they wait for each other; on a machine that others use too, long spinning costs ten
    # times the speed it wins on a quiet one. Calibrated rounding of the built-in model on two cores, quiet and beside a
    # program that takes one of them: 1,000 turns 40 and 51 s, 3,000 29 and 60 s, 10,000 28 s and over 85. Read by
    # libgomp when torch loads.
    "GOMP_SPINCOUNT": "3000",
}
"""Environment variables, where nobody set them otherwise."""


def prepare() -> None:
    """Set what is not set yet; to be called before torch, transformers or the Hub's client is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
