"""What the owner of a page can see of it: which jobs ran and how they ended. Knows no prompt, file, token or name."""
