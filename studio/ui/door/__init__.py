"""What stands before the page: who may knock, whose is whose, and how often. Knows nothing of what is on the page."""
