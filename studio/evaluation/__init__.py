"""What compressing loses: drift of the predictions, and questions answered otherwise. Knows nothing of pages."""
