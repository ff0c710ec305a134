"""``make fuzz``: what the studio reads of strangers, spoiled at random, until something gives way.

A target (``targets.py``) reads bytes that ``spoiling.py`` made of sound ones; ``child.py`` lets it, in a process with a
limit on memory and on each input's time. What was found is kept in ``seeds``, and tried again each time.
"""
