"""What every room stands on: errors, settings, units, texts, caches, threads, processes, the compiler. Knows no
model.
"""
