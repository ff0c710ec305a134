"""Memory that was freed goes back to the system. Knows nothing of what it held.

glibc keeps what a thread freed for that thread's next wish, so that a server whose threads come and go seems to hold
what it gave up long ago: about 80 MB after two models were loaded, mostly pieces of weights on their way.
"""

import ctypes
import platform


def release_free_memory() -> None:
    """Return what is free to the system, which takes a few milliseconds; where there is no glibc nothing happens."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
