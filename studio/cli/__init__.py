"""The studio from a terminal. Decides nothing that the page would decide."""
