"""What a model's files are called: on the Hub, in a folder, and in an export."""

CONFIG = "config.json"
CARD = "README.md"
WEIGHTS = "model.safetensors"
PACKED = "weights.studio"
"""An export's weights, a safetensors file too. No other program takes a file of this name for weights it can read:
under the usual one transformers loads a model, fills what it does not find with random numbers, and only warns."""
INDEX = "model.safetensors.index.json"
"""Which shard holds which tensor, where there are several."""
