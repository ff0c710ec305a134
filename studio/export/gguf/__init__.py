"""GGUF, as llama.cpp and what is built on it (Ollama, LM Studio, Jan) load it: names, numbers, tokens, and the file.

Knows nothing of how weights are rounded.
"""
