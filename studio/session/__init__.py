"""What one visitor holds, and the stages called in order. Knows nothing of pages or terminals."""
