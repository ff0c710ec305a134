"""GGUF files -> a folder with safetensors that the rest of the studio reads. Knows nothing of plans or chats."""
