"""Packed weights laid out for compiled code, and the code: C for processors, CUDA C++ for GPUs. Knows no chats."""
