"""The folder that transformers, vLLM and SGLang load: compressed-tensors, ``pack-quantized``."""
