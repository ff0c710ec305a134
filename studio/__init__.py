"""hub -> checkpoint -> model -> survey -> plan -> compress -> chat -> export: one direction, no going back."""

import os

__version__ = "0.1.0"

# The Hub's client and transformers read these once, whoever imports them first: no telemetry, no bars on our output, no
# conversion of pickles by a service, no attention kernels from the Hub.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
os.environ.setdefault("USE_HUB_KERNELS", "0")

# torch's threads spin while they wait for each other; on a machine that others use too, long spinning costs ten times
# the speed it wins on a quiet one. Calibrated rounding of the built-in model on two cores, quiet and beside a program
# that takes one of them: 1,000 turns 40 and 51 s, 3,000 29 and 60 s, 10,000 28 s and over 85. Read by libgomp when
# torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
