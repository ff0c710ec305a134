"""The compressed-tensors target: a folder that transformers, vLLM and SGLang load. Knows no other target."""
