"""Answers side by side, where they differ, and the pool of models that give them. Knows nothing of pages."""
