"""When one ends the other must not go on: vLLM's processes without us, nor we waiting for them.

Left alone they outlive a ``kill -9`` of this process, and hold the memory of their GPUs. And where one of them is
killed (the machine has no memory left), vLLM waits for its answers for ever.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


class Watch:
    """A shell that waits for the end of this process, however it comes, and then kills ``processes``.

    ``tell`` is called, in a thread, when one of them has ended.
    """

    def __init__(self, processes: Sequence[BaseProcess], tell: Callable[[], None]) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        if not processes:
            return
        argv = ["/bin/sh", "-c", 'read _; kill -9 "$@"', "watch", *(str(each.pid) for each in processes)]
        self._shell = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
        ends = [each.sentinel for each in processes]

        def wait_and_tell() -> None:
            wait(ends)
            tell()

        threading.Thread(target=wait_and_tell, name="rlhi-vllm-watch", daemon=True).start()

    def end(self) -> None:
        """Kills them no longer."""
        if self._shell is not None and self._shell.poll() is None:
            self._shell.kill()
            self._shell.communicate()
