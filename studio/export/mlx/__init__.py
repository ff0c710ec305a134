"""The MLX target: a folder that mlx-lm, LM Studio and others load on a Mac. Knows no other target."""
