"""What vLLM and its processes write, kept aside: one line of it counts, the one that says why it does not work."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

LEVEL = "VLLM_LOGGING_LEVEL"
QUIET = "ERROR"
_ERROR = re.compile(r"\b(?!EngineDead)\w*(?:Error|Exception): (.+)")
_ECHO = ("Engine core initialization failed", "WorkerProc initialization failed", "Worker failed with error")


class Told:
    """Standard output and error of vLLM's processes, in a file without a name; shown where the user sets a level."""

    def __init__(self) -> None:
        self._shown = os.environ.get(LEVEL, QUIET) != QUIET
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the processes

    def close(self) -> None:
        """Forgets what was written."""
        self._file.close()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """What is written in here is kept; processes that start in here write there for good."""
        if self._shown:
            yield
            return
        _flush()
        kept = [(own, os.dup(own)) for own in (1, 2)]
        try:
            for own, _ in kept:
                os.dup2(self._file.fileno(), own)
            yield
        finally:
            _flush()
            for own, copy in kept:
                os.dup2(copy, own)
                os.close(copy)

    def reason(self, error: Exception) -> str:
        """The error's own line, or that of the process in which it happened."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if not re.match(r"\d+ validation error", line)), type(error).__name__)
        return self.cause() if said.startswith(_ECHO) else said

    def cause(self) -> str:
        """The first error that was written and is no echo of another; else where to look."""
        self._file.seek(0)
        found = _ERROR.findall(self._file.read().decode(errors="replace"))
        shown = f"set {LEVEL}=INFO to see all that vllm says"
        return next((line.strip() for line in found if not line.startswith(_ECHO)), shown)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
