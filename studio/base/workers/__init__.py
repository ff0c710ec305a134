"""Processes of our own that compute for the server: what ends one of them ends nothing else.

    server  ──fork requests──>  zygote  ──forks──>  child, child, …
       └───────────── a socket each ───────────────────┘

The zygote has torch and transformers imported and runs no thread, so that a child is there in some 30 ms. A child
serves jobs (:class:`Worker`), or whatever function it was started with (:func:`start`). Knows no model.
"""

from studio.base.workers.child import (
    BACKGROUND,
    EXIT_GRACE_SECONDS,
    Child,
    Limits,
    are_alive,
    restarts,
    start,
    warm_up,
)
from studio.base.workers.ending import Ending, no_process
from studio.base.workers.pulse import Watch
from studio.base.workers.worker import (
    Handle,
    Here,
    IsUnwanted,
    ProcessWorker,
    Worker,
    always_wanted,
    in_worker,
    new_worker,
)

__all__ = [
    "BACKGROUND",
    "EXIT_GRACE_SECONDS",
    "Child",
    "Ending",
    "Handle",
    "Here",
    "IsUnwanted",
    "Limits",
    "ProcessWorker",
    "Watch",
    "Worker",
    "always_wanted",
    "are_alive",
    "in_worker",
    "new_worker",
    "no_process",
    "restarts",
    "start",
    "warm_up",
]
