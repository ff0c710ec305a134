"""Processes of our own that compute for the server: what ends one of them ends nothing else.

    server  ──fork requests──>  zygote  ──forks──>  child, child, …
       └───────────── a socket each ───────────────────┘

The zygote has torch and transformers imported and runs no thread, so that a child is there in some 30 ms. A child
serves jobs (:class:`Worker`), or whatever function it was started with (:func:`start`). Knows no model.
"""

from studio.workers.child import Child, Limits, start, warm_up
from studio.workers.worker import Handle, Here, ProcessWorker, Worker, in_worker, new_worker

__all__ = [
    "Child",
    "Handle",
    "Here",
    "Limits",
    "ProcessWorker",
    "Worker",
    "in_worker",
    "new_worker",
    "start",
    "warm_up",
]
