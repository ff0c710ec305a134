"""Texts, what layers are given while a model reads them, and what each token counts. Knows nothing of plans."""
