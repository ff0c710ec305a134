"""A model's name -> its headers, layers and tensors, from the Hub, a folder or a GGUF file. Knows nothing of plans."""
