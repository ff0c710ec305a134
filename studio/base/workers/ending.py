"""How a child ended, and what that means. Knows not what the child was for."""

import signal
from dataclasses import dataclass

from studio.base.errors import ProcessError


@dataclass(frozen=True)
class Ending:
    """Of one process."""

    code: int | None
    """Its exit code, minus the signal that ended it; None where nobody knows it any more."""
    was_ended: bool = False
    """Whether it was still there, and was ended by the server: then the code says nothing of the child."""

    @property
    def was_orphaned(self) -> bool:
        """Whether it went with the process it came from, which alone would know its code."""
        return self.code is None and not self.was_ended

    @property
    def was_memory(self) -> bool:
        """Whether the system ended it, as it does where memory is short."""
        return self.code == -signal.SIGKILL and not self.was_ended

    @property
    def was_time(self) -> bool:
        """Whether it had used the processor time that it was given."""
        return self.code in (-signal.SIGXCPU, -signal.SIGPROF)

    @property
    def reason(self) -> str:
        """The signal's name, or the exit code: what a report needs, and the same in every language."""
        if self.code is None or self.was_ended:
            return "SIGKILL"
        if self.code >= 0:
            return f"exit {self.code}"
        try:
            return signal.Signals(-self.code).name
        except ValueError:  # one of the system's real-time signals
            return f"signal {-self.code}"

    def error(self) -> ProcessError:
        """Return what a user is told of it, where there is nothing better to say."""
        if self.was_ended:
            return ProcessError("worker_hung")
        if self.was_orphaned:
            return ProcessError("worker_orphaned")
        if self.was_memory:
            return ProcessError("worker_memory")
        return ProcessError("worker_crashed", reason=self.reason)


def no_process(error: OSError) -> ProcessError:
    """Return what a user is told where the system starts no process."""
    return ProcessError("no_process", reason=error.strerror or str(error))
