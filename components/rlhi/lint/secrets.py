"""The rule on secrets: none in the environment, the argv, or the parameters, where KFP stores and shows them."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from rlhi.lint.findings import Rule
from rlhi.lint.pipeline import Task, walk
from rlhi.lint.placeholders import is_placeholder, parameters_in, texts
from rlhi.pii.credentials import key_spans, secret_spans

# what a name ends in, as words; a token of text, as in --eos-token, is none
NAMES = re.compile(
    r"(?:^|_)(?:(?<!eos_)(?<!bos_)(?<!pad_)(?<!unk_)(?<!cls_)(?<!sep_)(?<!mask_)(?<!stop_)(?<!new_)(?<!image_)token"
    r"|secret|password|passwd|passphrase|credentials?|(?:api|access|secret|private|auth|account)_?key)$"
)
FLAG = re.compile(r"^--?([A-Za-z][\w.-]*)(?:=(.*))?$", re.DOTALL)
REFERENCE = re.compile(r"^\$[({]\w+[)}]$|^\$\w+$|^$")  # the shell or Kubernetes fills it in
LITERALS = {"true", "false", "none", "null"}


def secrets(root: Task) -> Iterator[tuple[Task, str]]:
    """Values that are secrets by their form, or by the name that they are given to; never shows one."""
    for name, declared in root.component.get("inputDefinitions", {}).get("parameters", {}).items():
        if _is_secret(name, declared.get("defaultValue")):
            yield root, f"the default of parameter {name} is a secret"
    for task in walk(root):
        for where in dict.fromkeys((*_environment(task), *_argv(task), *_constants(task))):
            yield task, where


def _environment(task: Task) -> Iterator[str]:
    for variable in task.container.get("env", ()):
        if _is_secret(variable["name"], variable.get("value")):
            yield f"environment variable {variable['name']} holds a secret"


def _argv(task: Task) -> Iterator[str]:
    parts = [text for part in task.argv for text in texts(part)]
    for part, following in zip_longest(parts, parts[1:], fillvalue=""):
        if (flag := FLAG.match(part)) is not None and _is_secret(flag[1], flag[2] or following):
            yield f"argument --{flag[1]} is given a secret"
        elif _looks_secret(part):
            yield "an argument holds a secret"


def _constants(task: Task) -> Iterator[str]:
    for name, given in task.parameters.items():
        if given.parameter is None and _is_secret(name, given.constant):
            yield f"parameter {name} is a secret"


def _is_secret(name: str, value: Any) -> bool:
    """Whether ``value`` is a secret, or a run's parameter is put where one belongs."""
    if not isinstance(value, str) or REFERENCE.match(value) or value.startswith("--") or value.lower() in LITERALS:
        return False
    if _looks_secret(value):
        return True
    named = bool(NAMES.search(_words(name)))
    return named and (bool(parameters_in(value)) or not is_placeholder(value))


def _looks_secret(text: str) -> bool:
    return bool(secret_spans(text) or key_spans(text))


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


RULES = (
    Rule(
        "secret-in-clear",
        "What stands in the environment, the argv or a parameter is kept in KFP's database, shown in its UI, and can"
        " be read in the pod's description.",
        "kubernetes.use_secret_as_env or use_secret_as_volume, or a profile with secrets; and change a secret that was"
        " compiled",
        secrets,
    ),
)
