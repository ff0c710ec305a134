"""What the server does for its disk now and then: uploads, what killed programs left, the budget of the cache.

Knows neither visitors nor models.
"""

import logging
import os
import threading
import time
from pathlib import Path

from gradio.utils import get_upload_folder

from studio.base.cache_budget import make_room
from studio.base.workspace import sessions_folder, sweep, sweep_old

EVERY_SECONDS = 60.0
UPLOADS_KEPT_SECONDS = 600.0
"""A text or a recipe is read as soon as it is there, and kept in the session's own folder."""
LOG = logging.getLogger(__name__)


def tidy() -> None:
    """Do it once."""
    uploads = Path(get_upload_folder())
    for folder in (sessions_folder(), uploads):
        sweep(folder)
    if "GRADIO_TEMP_DIR" in os.environ:  # else it is that of all programs
        sweep_old(uploads, UPLOADS_KEPT_SECONDS)
    for gone in make_room():
        LOG.info("%s was removed from the cache: %d bytes", gone.name, gone.nbytes)


def keep_tidy() -> None:
    """Do it from a thread of its own until the process ends."""

    def tidying() -> None:
        while True:
            time.sleep(EVERY_SECONDS)
            try:
                tidy()
            except OSError as error:  # a disk that is away comes back
                LOG.warning("the cache is not tidied: %s", error)

    threading.Thread(target=tidying, daemon=True, name="housekeeping").start()
