"""The process that forks: it imports once what every child needs, and then waits. Knows neither jobs nor models.

Run as ``python -m studio.base.workers.zygote FD``. It has one thread of Python's, has computed nothing, and holds no
lock, so a fork of it is sound. Children are killed with it, and it ends when the server's side of its socket is closed.
Linux only: elsewhere :mod:`studio.base.workers.child` starts each child from nothing.
"""

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from studio.base.workers import shared_page
from studio.base.workers.forking import MESSAGE, ZYGOTE

PRELOAD = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.utils.chat_template_utils",
    "jinja2.ext",
    "studio.checkpoint.tensor_reader",
    "studio.checkpoint.tokenizer.process",
    "studio.chat.columns",
    "studio.session.model_jobs",
    "studio.planning.output_error",
)
"""Modules by name; one that cannot be imported is left to the child that needs it."""
SWEEP = 1.0
"""Seconds between looks at children that were killed and are not gone yet."""
PAUSE = 0.1
"""Seconds until a request is read again for which the system had no memory."""
PR_SET_PDEATHSIG = 1
LIKELY_VICTIM = "500"
"""Added to a child's badness where memory ends, so that the system ends it rather than the server."""


def serve(control: socket.socket) -> None:
    """Answer requests until the server's side is closed."""
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    shared_page.create()
    gc.collect()
    gc.freeze()  # pages that no collection writes to stay shared with the children
    asking = selectors.DefaultSelector()
    asking.register(control, selectors.EVENT_READ, set())
    dying: set[int] = set()
    while True:
        for key, _ in asking.select(SWEEP if dying else None):
            place, pids = key.fileobj, key.data
            assert isinstance(place, socket.socket)
            try:
                message, fds, flags, _ = socket.recv_fds(place, MESSAGE, 1)
            except ConnectionResetError:
                message, fds, flags = b"", [], 0
            except OSError:
                time.sleep(PAUSE)
                continue
            if not message and place is control:
                return
            if not message:  # a child has ended, and those that it asked for go with it
                asking.unregister(place)
                place.close()
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                dying |= pids
                continue
            answer = _answer(message, fds, flags, asking, pids, dying)
            for fd in fds:
                os.close(fd)
            with contextlib.suppress(OSError):
                place.sendall(json.dumps(answer).encode())
        for pid in list(dying):
            _reaped(pid, dying)


def _answer(
    message: bytes, fds: list[int], flags: int, asking: selectors.BaseSelector, pids: set[int], dying: set[int]
) -> dict[str, Any]:
    """Fork or reap; ``pids`` are the children of whoever asks. What cannot be done is an answer too: were it the end of
    this process, it would be that of all its children."""
    try:
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "a request is too long")
        request = json.loads(message)
        if request["op"] == "fork":
            if not fds:  # the system drops one that there is no room for
                raise OSError(errno.EMFILE, "no descriptor is left")
            pid = _forked(request, fds[0], asking)
            pids.add(pid)
            return {"pid": pid}
        pids.discard(request["pid"])
        return {"code": _reaped(request["pid"], dying)}
    except Exception as error:
        number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EINVAL
        return {"error": (isinstance(error, OSError) and error.errno) or number}


def _forked(request: dict[str, Any], fd: int, asking: selectors.BaseSelector) -> int:
    """Fork; a child that nothing limits may ask for children of its own, over a socket that is heard from now on."""
    parent = os.getpid()
    pair = None if request["memory"] is not None else socket.socketpair(type=socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as lost:
        for end in pair or ():
            lost.enter_context(end)
        if pair is not None:
            asking.register(pair[0], selectors.EVENT_READ, set())
            lost.callback(asking.unregister, pair[0])
        with contextlib.suppress(Exception):  # where nobody reads them any more
            sys.stdout.flush()
            sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _born(request, fd, asking, pair, parent)
        lost.pop_all()
    if pair is not None:
        pair[1].close()
    return pid


def _born(
    request: dict[str, Any],
    fd: int,
    asking: selectors.BaseSelector,
    pair: tuple[socket.socket, socket.socket] | None,
    parent: int,
) -> NoReturn:
    """Be the child from its first moment; whatever fails, it never goes on as a second zygote."""
    try:
        for key in list(asking.get_map().values()):  # or nobody would hear that another has ended
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        asking.close()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            if pair is not None:
                ZYGOTE.inherit(pair[1])
            become(request, fd)
    finally:
        os._exit(1)


def become(request: dict[str, Any], fd: int) -> NoReturn:
    """Be a child: with its environment and limits, call the function it is for with its socket, and end."""
    status = 1
    try:
        os.environ.clear()
        os.environ.update(request["env"])
        from studio.base.settings import settings

        settings.cache_clear()  # they were read from another environment
        if request["folder"] is not None:
            with contextlib.suppress(OSError):  # removed just now
                os.chdir(request["folder"])
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(LIKELY_VICTIM)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if request["niceness"]:
            os.nice(request["niceness"])
        if request["memory"] is not None:
            most = most_memory(_address_space() + request["memory"], resource.getrlimit(resource.RLIMIT_AS)[1])
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        module, _, name = request["target"].partition(":")
        getattr(importlib.import_module(module), name)(socket.socket(fileno=fd), *request["args"])
        status = 0
    except KeyboardInterrupt:
        pass
    finally:
        with contextlib.suppress(Exception):
            if status and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def most_memory(wanted: int, allowed: int) -> int:
    """Return the limit that a process may set itself: whoever started the server may allow less (``ulimit -v``)."""
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)


def _address_space() -> int:
    """Return the bytes of address space this process has, 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _reaped(pid: int, dying: set[int]) -> int | None:
    """Return the exit code of a child that has ended, minus the signal that ended it; None for one that is not ours, or
    is not gone yet: ``dying`` has it until it is, since who waits here makes all others wait."""
    try:
        gone, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        gone, status = pid, None
    if gone:
        dying.discard(pid)
    else:
        dying.add(pid)
    return os.waitstatus_to_exitcode(status) if gone and status is not None else None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = socket.socket(fileno=int(sys.argv[1]))
    if len(sys.argv) > 2:  # a child that was started from nothing
        become(json.loads(sys.argv[2]), place.detach())
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(place)
