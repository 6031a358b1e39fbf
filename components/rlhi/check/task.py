"""Checks what a run needs, all at once and within a minute, and lists all that is missing.

That is: the place of the outputs can be written and read, the source holds files, other data is there, the secrets are
set, MLflow and the models' servers answer, the models can be read, and nodes have the accelerators. What cannot be
asked from here is said to be unchecked and fails nothing; nor does a recurring run whose source has nothing new.
"""

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from rlhi.check import probes
from rlhi.check.config import CheckConfig
from rlhi.check.probes import UncheckedError
from rlhi.config import from_flag, parse
from rlhi.errors import InputError

Probe = Callable[[], None]
DATA = ("source", "forget", "compare", "benchmarks")  # the pipeline's parameters, as of `pipelines.graph`


@dataclass
class Report:
    """Lines of what is missing, and of what could not be asked."""

    missing: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def main(argv: Sequence[str]) -> int:
    """``rlhi check``: 0, or 2 after a list.

    Raises:
        InputError: a config that cannot be.
    """
    flags = parser().parse_args(argv)
    given = from_flag(flags.config)
    data = {name: getattr(flags, name) for name in DATA}
    report = check(data, parse(CheckConfig, given, "check"))
    sys.stderr.write("".join(f"not checked: {line}\n" for line in report.unchecked))
    sys.stderr.write("".join(f"missing: {line}\n" for line in report.missing))
    sys.stderr.write(f"check: {len(report.missing)} missing\n")
    return 2 if report.missing else 0


def parser() -> argparse.ArgumentParser:
    """The flags of ``rlhi check``."""
    made = argparse.ArgumentParser(
        prog="rlhi check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--source", metavar="URI", default="", help="Raw logs that must be there.")
    for name in DATA[1:]:
        made.add_argument(f"--{name}", metavar="URIS", default="", help="Data that must be there, commas between.")
    made.add_argument("--config", metavar="JSON", default="{}", help="What is needed, as one JSON object.")
    return made


def check(data: Mapping[str, str], config: CheckConfig) -> Report:
    """Asks everything side by side; what does not answer within ``config.seconds`` counts as missing.

    ``data`` are the URIs that the pipeline is given, by the names of its parameters; an empty one is not asked for.
    """
    asked = _probes(data, config)
    answers: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
    for name, probe in asked.items():  # as daemons: one that hangs must not keep the process
        threading.Thread(target=_ask, args=(name, probe, answers), daemon=True).start()
    found, ends = Report(), time.monotonic() + config.seconds
    waiting = set(asked)
    while waiting:
        try:
            name, said = answers.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            break
        waiting.remove(name)
        _note(found, name, said)
    found.missing += [f"{name}: no answer in {config.seconds:.0f} s" for name in waiting]
    return Report(sorted(found.missing), sorted(found.unchecked))


def _ask(name: str, probe: Probe, answers: "queue.SimpleQueue[tuple[str, Exception | None]]") -> None:
    """Puts what is said to the answers; a defect of a probe too, since its thread has nobody to tell."""
    try:
        probe()
    except Exception as error:
        answers.put((name, error))
    else:
        answers.put((name, None))


def _note(found: Report, name: str, said: Exception | None) -> None:
    if isinstance(said, UncheckedError):
        found.unchecked.append(f"{name}: {said}")
    elif isinstance(said, InputError):
        found.missing.append(f"{name}: {said}")
    elif said is not None:
        raise said


def _probes(data: Mapping[str, str], config: CheckConfig) -> Mapping[str, Probe]:
    """What is asked, by what it is called."""
    asked: dict[str, Probe] = {f"variable {name}": partial(probes.variable, name) for name in config.variables}
    asked |= {f"model {name}": partial(probes.model, name) for name in config.models}
    asked |= {f"server {url}": partial(probes.server, url, key) for url, key in config.servers.items()}
    asked |= {f"accelerator {name}": partial(probes.accelerator, name) for name in config.accelerators}
    asked["MLflow"] = probes.mlflow
    if config.place:
        asked[f"bucket {config.place}"] = partial(probes.bucket, config.place)
    for name, given in data.items():
        if given:
            asked[name] = partial(probes.source if name == "source" else probes.data, given)
    return asked
