"""Models that run: on packed weights, compiled steps, or block by block from disk. Knows nothing of why they run."""
