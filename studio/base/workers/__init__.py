"""Processes of our own that compute for the server: what ends one of them ends nothing else.

    server  ──fork requests──>  zygote  ──forks──>  child, child, …
       └───────────── a socket each ───────────────────┘

The zygote has torch and transformers imported and runs no thread, so that a child is there in some 30 ms. A child
serves jobs (:class:`Worker`), or whatever function it was started with (:func:`start`). Knows no model.
"""

from studio.base.workers.child import LAST_BREATH, Child, Limits, start, warm_up
from studio.base.workers.ending import Ending, no_process
from studio.base.workers.pulse import Watch
from studio.base.workers.worker import Handle, Here, ProcessWorker, Unwanted, Worker, in_worker, never, new_worker

__all__ = [
    "LAST_BREATH",
    "Child",
    "Ending",
    "Handle",
    "Here",
    "Limits",
    "ProcessWorker",
    "Unwanted",
    "Watch",
    "Worker",
    "in_worker",
    "never",
    "new_worker",
    "no_process",
    "start",
    "warm_up",
]
