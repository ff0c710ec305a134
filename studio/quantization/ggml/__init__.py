"""llama.cpp's number formats: blocks of codes with their scales among them, as a GGUF file holds them. Knows no files."""
