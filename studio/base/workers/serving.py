"""A worker's own side: it does what it is asked, each job in a thread, and keeps what it is told to keep.

A job is a function of ours with its arguments. Of a generator every step is asked for, so that it stands still while
nobody listens. Knows no model.
"""

import contextlib
import os
import pickle
import socket
import threading
import traceback
from collections.abc import Generator
from enum import IntEnum
from typing import Any

from studio.base.workers.channel import Channel, Gone


class Ask(IntEnum):
    """What the server wants."""

    CALL = 0
    """The result of a function."""
    MAKE = 1
    """The same, but it stays here under a number."""
    RUN = 2
    """The steps of a generator, and its result."""
    NEXT = 3
    CLOSE = 4
    RUN_AHEAD = 5
    """As RUN, a step ahead of the server."""


class Answer(IntEnum):
    """What it gets."""

    ITEM = 0
    RESULT = 1
    ERROR = 2


def serve(control: socket.socket) -> None:
    """Take jobs until the server's side is closed, which ends the process: the life of a worker.

    Each message on ``control`` is a number that need not be kept any longer, or, with a socket, a job.
    """
    objects: dict[int, Any] = {}
    while True:
        message, fds, _, _ = socket.recv_fds(control, 8, 1, socket.MSG_WAITALL)
        if len(message) < 8:
            os._exit(0)  # jobs under way are of no use to anyone
        number = int.from_bytes(message, "little")
        if fds:
            channel = Channel(socket.socket(fileno=fds[0]), objects=objects)
            try:
                threading.Thread(target=_work, args=(channel, number, objects), daemon=True).start()
            except Exception as error:  # the system has no thread left: the other jobs go on
                _refuse(channel, error)
        else:
            objects.pop(number, None)


def _work(channel: Channel, number: int, objects: dict[int, Any]) -> None:
    try:
        _answer(channel, number, objects)
    except Gone:  # the server has lost interest
        pass
    except BaseException as error:  # an answer there must be: without one the server takes the worker for dead
        with contextlib.suppress(Exception):
            channel.send((Answer.ERROR, RuntimeError(type(error).__name__)))
    finally:
        channel.close()


def _refuse(channel: Channel, error: Exception) -> None:
    with contextlib.suppress(Gone), contextlib.closing(channel):
        channel.receive()  # it is under way, and lost with the channel otherwise
        channel.send((Answer.ERROR, _sendable(error)))


def _answer(channel: Channel, number: int, objects: dict[int, Any]) -> None:
    try:
        ask, function, args = channel.receive()
        result = function(*args)
        if ask is Ask.MAKE:
            objects[number] = result
            result = None
        elif ask in (Ask.RUN, Ask.RUN_AHEAD):
            result = _steps(channel, result, ask is Ask.RUN_AHEAD)
        channel.send((Answer.RESULT, result))
    except Gone:
        raise
    except BaseException as error:
        channel.send((Answer.ERROR, _sendable(error)))


def _steps(channel: Channel, steps: Generator[Any, None, Any], is_ahead: bool) -> Any:
    """Send each step when it is asked for; return the result, None where the server wants no more.

    Each is also made when it is asked for, or, ``is_ahead``, while the server still looks at the one before it.
    """
    is_first = True

    def is_wanted() -> bool:
        """Wait for the server's word on what comes next; the first was asked for with the job."""
        return is_first or channel.receive() is not Ask.CLOSE

    try:
        while True:
            if not is_ahead and not is_wanted():
                return None
            try:
                step: tuple[bool, Any] = False, next(steps)
            except StopIteration as finished:
                step = True, finished.value
            except Exception:
                if is_ahead:
                    is_wanted()
                raise
            if is_ahead and not is_wanted():
                return None
            is_first = False
            has_ended, value = step
            if has_ended:
                return value
            channel.send((Answer.ITEM, value))
    finally:
        steps.close()


def _sendable(error: BaseException) -> BaseException:
    """Return the error with its traceback as a note; or, where it cannot be pickled, a RuntimeError with its words."""
    note = "In a worker process:\n" + "".join(traceback.format_exception(error))
    try:
        error.add_note(note)
        error.__traceback__ = error.__cause__ = error.__context__ = None
        pickle.loads(pickle.dumps(error))
    except Exception:
        words = type(error).__name__
        with contextlib.suppress(Exception):
            words = f"{words}: {error}"
        plain = RuntimeError(words)
        plain.add_note(note)
        return plain
    return error
