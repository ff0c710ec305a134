"""A stranger's tokenizer and chat template, read in a process that can be ended. Knows no weights."""
