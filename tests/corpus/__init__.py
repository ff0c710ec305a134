"""``make hostile``: files that somebody made to do harm, each opened as a user would open it. Knows no page.

A case builds one model, folder or file (``*_cases.py``, one kind a file) and says by which keys of the catalogue it may
be refused; ``run.py`` opens it by the terminal's own command in a child of its own, and looks at what it left.
"""
