"""A comparison that never ends, or takes its process down; light to load, since processes load it within their time."""

import os
import signal
import time

from rlhi.benchmark.checking import Comparison


def stuck_or_dead(comparison: Comparison) -> bool:
    if comparison.given == "stuck":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
        time.sleep(600)
    if comparison.given == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    return comparison.given == comparison.gold
