"""What a model's files are called: on the Hub, in a folder, and in an export."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Which shard holds which tensor, where there are several."""
