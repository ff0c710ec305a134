"""llama.cpp's formats: codes in blocks with their scales among them, as GGUF files hold them. Knows no files."""
