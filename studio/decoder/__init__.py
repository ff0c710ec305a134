"""Models that speak: the same steps for every column of a chat, by the fastest way that a model has on this machine."""
