"""Rules on what tasks are given: its size, its place in JSON, and caches of what KFP does not see change."""

import json
import re
from collections.abc import Iterator
from typing import Any

from rlhi.lint.findings import Rule
from rlhi.lint.pipeline import Given, Task, walk
from rlhi.lint.placeholders import ANY, parameters_in, texts

PARAMETERS = 10_000  # bytes of all parameters of a run, KFP's API server takes no more
ARGUMENT = 64 * 1024  # half of Linux's limit: KFP passes a task as one argument, escaped

URI = re.compile(r"^(?!file:)[a-z][a-z0-9+.-]*://\S+$")
PINNED = re.compile(r"[0-9a-f]{40}|@[\w.-]+$|[?&#](?:versionId|generation|revision)=", re.IGNORECASE)
PLACES = {"uri", "uris", "url", "urls", "source", "sources", "path", "paths", "location", "bucket", "glob"}
TARGETS = {"output", "out", "target", "dest", "destination", "tracking", "server", "endpoint", "base", "callback"}
DIGESTS = {"digest", "digests", "hash", "sha256", "md5", "checksum", "etag", "version", "revision", "fingerprint"}


def sizes(root: Task) -> Iterator[tuple[Task, str]]:
    """Parameters and arguments that are too big on the way to the pod."""
    declared = root.component.get("inputDefinitions", {}).get("parameters", {})
    defaults = {name: each["defaultValue"] for name, each in declared.items() if "defaultValue" in each}
    if (size := _size(defaults)) > PARAMETERS:
        yield root, f"the defaults of its parameters are {size} bytes; KFP takes {PARAMETERS}"
    for task in walk(root):
        given = {name: each.constant for name, each in task.parameters.items() if each.parameter is None}
        items = task.spec.get("parameterIterator", {}).get("items", {}).get("raw", "")
        for what, size in (("its parameters", _size(given)), ("its argv", _size(task.argv)), ("items", _size(items))):
            if size > ARGUMENT:
                yield task, f"{what}: {size} bytes; beyond {ARGUMENT} the pod may not start"


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def in_json(root: Task) -> Iterator[tuple[Task, str]]:
    """Parameters that are put into the text of a JSON argument."""
    for task in walk(root):
        constants = {name: str(given.constant) for name, given in task.parameters.items() if given.parameter is None}
        for name, text in constants.items():
            if found := _inside(text):
                yield task, f"parameter {name} is JSON with {found} put into it"
        for text in (text for part in task.argv for text in texts(part)):
            if found := _inside(text):
                yield task, f"an argument is JSON with {found} put into it"


def _inside(text: str) -> str:
    """The parameters that are put into ``text``, if it is JSON else."""
    names = parameters_in(text)
    if not names or not ANY.sub("x", text).lstrip().startswith(("{", "[")):
        return ""
    return ", ".join(dict.fromkeys(name.removeprefix("pipelinechannel--") for name in names))


def caches(root: Task) -> Iterator[tuple[Task, str]]:
    """Cached tasks that read what can change behind an unchanged name.

    A task that reads an artifact which every run makes anew is computed again by every run, whatever its caching.
    """
    for task in walk(root):
        if not task.cached or not task.container or _anew(task) or DIGESTS & _words(*task.parameters):
            continue
        for made in task.reads:
            if "importer" in made.executor and (name := _imported(made)):
                yield task, f"may be taken from the cache when what {made.path} imports ({name}) has changed"
        for name, given in task.parameters.items():
            if _is_outside(name, given):
                yield task, f"may be taken from the cache when what parameter {name} points at has changed"


def _anew(task: Task) -> bool:
    """Whether an artifact that ``task`` reads is another one in every run."""
    return any(_always_made(made) or _anew(made) for made in task.reads)


def _always_made(task: Task) -> bool:
    importer = task.executor.get("importer")
    return bool(importer.get("reimport")) if importer is not None else not task.cached


def _imported(importer: Task) -> str:
    """What an importer reads, unless the name pins it."""
    given = importer.parameters.get("uri", Given())
    if isinstance(given.constant, str) and PINNED.search(given.constant):
        return ""
    return str(given.constant or given.parameter or "an output")


def _is_outside(name: str, given: Given) -> bool:
    if isinstance(given.constant, str) and URI.match(given.constant):
        return not PINNED.search(given.constant) and not TARGETS & _words(name)
    words = _words(name, given.parameter or "")
    return given.parameter is not None and bool(PLACES & words) and not TARGETS & words


def _words(*names: str) -> set[str]:
    return {word for name in names for word in re.split(r"[^a-z0-9]+", name.lower())}


RULES = (
    Rule(
        "big-parameter",
        "KFP refuses a run whose parameters are beyond 10,000 bytes, and passes a task as one argument to the process"
        " that starts it, which Linux limits to 128 KiB.",
        "write it to a file in the bucket and pass the URI, or pass it as an artifact",
        sizes,
    ),
    Rule(
        "parameter-in-json",
        "The order in which placeholders are filled in is not defined, and a quote or a brace in the value breaks the"
        " JSON.",
        "pass it as an argument of its own, or pass the whole JSON as one parameter",
        in_json,
    ),
    Rule(
        "cached-outside-data",
        "KFP's cache goes by image, argv, parameters and input artifacts, not by the content behind an unchanged URI:"
        " a run on new data ends with the results of the old.",
        "set_caching_options(False) on the task, reimport=True on an importer, a URI with a digest or version in it, or"
        " a digest of the data as a parameter",
        caches,
    ),
)
