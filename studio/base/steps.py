"""Work that is done step by step: a generator that yields where it stands and returns what came of it.

Knows nothing of the work.
"""

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import TypeVar

Step = TypeVar("Step")
Said = TypeVar("Said")
Result = TypeVar("Result")


def relayed(steps: Generator[Step, None, Result], say: Callable[[Step], Said]) -> Generator[Said, None, Result]:
    """Yield what ``say`` makes of each step, and return what the steps return; closing this closes them."""
    try:
        while True:
            yield say(next(steps))
    except StopIteration as finished:
        result: Result = finished.value
        return result
    finally:
        steps.close()


def held(steps: Generator[object, None, Result], said: Said) -> Generator[Said, None, Result]:
    """Yield ``said`` at each step, for work of which nobody needs to know where it stands; return what it returns."""
    return (yield from relayed(steps, lambda _: said))


def as_it_is(step: Step) -> Step:
    """Return a step: what is said of it is what it is."""
    return step


def threaded(work: Callable[[Callable[[Step], None]], Result]) -> Generator[Step, None, Result]:
    """Yield what ``work`` says and return its result; it runs in a thread, and waits after each thing it says."""
    said: SimpleQueue[Step | None] = SimpleQueue()
    heard: SimpleQueue[bool] = SimpleQueue()
    results: list[Result] = []
    errors: list[BaseException] = []

    def say(step: Step) -> None:
        said.put(step)
        if not heard.get():
            raise _Closed

    def body() -> None:
        try:
            results.append(work(say))
        except _Closed:
            pass
        except BaseException as error:  # raised again where it is waited for
            errors.append(error)
        said.put(None)

    thread = threading.Thread(target=body, daemon=True)  # daemon: one that waits for a lost reader lets Python end
    thread.start()
    try:
        while (step := said.get()) is not None:
            yield step
            heard.put(True)
        if errors:
            raise errors.pop()
        return results.pop()
    finally:
        heard.put(False)
        thread.join()


class _Closed(BaseException):
    """The reader wants no more."""
