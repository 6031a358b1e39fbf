"""`submit`: a recipe or an experiment to a KFP server, once or again and again, and followed to its end."""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines import experiments, flags, needs, nodes, package, preflight, profiles, reach, running
from pipelines.plan import Run, check_items, data_of
from pipelines.profiles import Profile
from rlhi.config import digest
from rlhi.engine.replies import REMOTE
from rlhi.errors import InputError
from rlhi.sources import uris

if TYPE_CHECKING:
    from pipelines.kfp_server import Order, Server

HELP = """\
Compiles a recipe or an experiment for the cluster of a profile, checks what can be checked from here, uploads it if the
server does not hold it yet, and starts it, or with --schedule makes a recurring run, which reads only what is new each
time.

examples:
  python -m pipelines submit user-guided-rewrites --profile profiles/gke.yaml --dry-run
  python -m pipelines submit user-guided-rewrites --profile mine.yaml --source s3://logs/chat --port-forward --wait
  python -m pipelines submit user-based-rewards --profile mine.yaml --source s3://logs/chat \\
      --host https://kfp.example.com --token-file token --schedule '0 3 * * *'
"""
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 15.0  # seconds between two looks at a run
PATIENCE = 900.0  # seconds without an answer: more than an upgrade of a control plane takes


@dataclass(frozen=True)
class Plan:
    """All that would be sent."""

    run: Run
    profile: Profile
    version: str
    text: bytes
    order: "Order"


def add(command: argparse.ArgumentParser) -> None:
    """The flags of `submit`."""
    flags.add_recipe(command, "NAME")
    command.add_argument("--profile", metavar="FILE", type=Path, required=True, help=package.PROFILE_HELP)
    command.add_argument("--source", metavar="S3_URI", default="", help="Raw logs: a file, folder or glob on S3.")
    command.add_argument("--forget", metavar="S3_URI", default="", help="File of user ids whose rows are left out.")
    command.add_argument("--compare", metavar="S3_URIS", default="", help="Datasets that analyze compares with.")
    command.add_argument("--benchmarks", metavar="S3_URIS", default="", help="Benchmarks that no pair may hold.")
    command.add_argument("--items", metavar="S3_URIS", default="", help=running.ITEMS_HELP)
    command.add_argument("--experiment", metavar="NAME", help="KFP's experiment. [rlhi, or an experiment's own name]")
    command.add_argument("--name", metavar="NAME", help="Of the run. [as the recipe, and the time]")
    command.add_argument(
        "--schedule", metavar="CRON", default="", help="Run again and again: '0 3 * * *' is at 3:00 UTC."
    )
    command.add_argument("--wait", action="store_true", help="Follow the run to its end; 1 if it fails.")
    command.add_argument("--dry-run", action="store_true", help="Print what would be sent, and send nothing.")
    _add_server(command)


def _add_server(command: argparse.ArgumentParser) -> None:
    server = command.add_argument_group("server (without any of these: that of the cluster whose pod this is)")
    server.add_argument("--host", metavar="URL", help="Of KFP.")
    server.add_argument("--port-forward", action="store_true", help="Reach it through kubectl instead.")
    server.add_argument("--token-file", metavar="FILE", type=Path, help="Sent as bearer; read anew each time.")
    server.add_argument("--context", metavar="NAME", help="Of the kubeconfig, for kubectl and to look for Secrets.")
    server.add_argument("--ui", metavar="URL", help="Of KFP's UI, for whole links. [as --host]")


def command(given: argparse.Namespace) -> int:
    """Runs `submit`; gives the exit code.

    Raises:
        InputError: bad input; nothing is created then.
    """
    plan = _plan(given)
    if given.dry_run:
        sys.stdout.write(yaml.safe_dump(shown(plan), sort_keys=False, allow_unicode=True, width=110))
        return 0
    if not given.source:
        raise InputError("--source: is missing; give the logs, s3://BUCKET/PREFIX")
    if given.schedule and given.wait:
        raise InputError("--wait: a recurring run has no end; leave it out")
    return _send(given, plan)


def _plan(given: argparse.Namespace) -> Plan:
    profile = profiles.load(given.profile)
    run = nodes.placed(flags.run_of(given, experiments.find_any), profile)
    if any(arm.benchmark is not None for arm in run.arms) and not given.benchmarks:
        raise InputError("benchmark: has nothing to ask; give --benchmarks, the files of the benchmarks")
    check_items(run, given.items)
    data = {name: getattr(given, name) for name in data_of(run)}
    for uri in (each for listed in data.values() for each in uris(listed)):
        if not uri.startswith(REMOTE):
            raise InputError(f"{uri}: pods do not see this machine's files; give s3://BUCKET/PREFIX")
    from pipelines.kfp_server import Order

    cron = _cron(given.schedule)
    name = given.name or (run.name if cron else f"{run.name} {datetime.now():%Y-%m-%d %H:%M}")
    watermark = profile.below(f"watermarks/{_part(name)}") if cron else ""
    text = _compiled(run, profile, watermark)
    order = Order(
        name=name,
        experiment=given.experiment or (run.name if len(run.arms) > 1 else "rlhi"),
        parameters=data,
        root=profile.below("runs"),
        service_account=profile.service_account,
        cron=cron,
    )
    return Plan(run, profile, f"{run.name}-{digest(text)}", text, order)


def _compiled(run: Run, profile: Profile, watermark: str) -> bytes:
    from pipelines import graph

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        graph.compile_to(run, path, package.cluster_of(profile, watermark=watermark))
        return path.read_bytes()


def _cron(text: str) -> str:
    """As KFP takes it: six fields, the first are seconds."""
    fields = text.split()
    if not fields:
        return ""
    if len(fields) not in (5, 6) or not all(re.fullmatch(r"[0-9A-Za-z*?/,\-#]+", each) for each in fields):
        raise InputError(f"--schedule {text!r}: not five fields, minute hour day month weekday, like '0 3 * * *'")
    return " ".join(["0", *fields][-6:])


def _part(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            f"--name {name!r}: what a recurring run has read is kept under it; give letters, digits, . _ -"
        )
    return name


def shown(plan: Plan) -> dict[str, Any]:
    """What would be sent, for a reader."""
    order = plan.order
    first, platform = _documents(plan.text)
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    sent: dict[str, Any] = {
        "pipeline": plan.run.name,
        "version": plan.version,
        "experiment": order.experiment,
        "recurring run" if order.cron else "run": order.name,
        **({"cron": order.cron} if order.cron else {}),
        "service_account": order.service_account,
        "pipeline_root": order.root,
        "parameters": dict(order.parameters),
        "tasks": {},
    }
    for name, executor in first["deploymentSpec"]["executors"].items():
        container = executor["container"]
        sent["tasks"][name.removeprefix("exec-")] = _pod(container, pods.get(name, {}))
    return sent


def _documents(text: bytes) -> Iterator[Any]:
    return yaml.load_all(text, Loader=yaml.CSafeLoader)  # the one in C: such a file is long


def _pod(container: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    resources = container.get("resources", {})
    accelerator = resources.get("accelerator", {})
    found = {
        "image": container["image"],
        "accelerator": f"{accelerator['resourceCount']} {accelerator['resourceType']}" if accelerator else None,
        "cpu": resources.get("resourceCpuLimit"),
        "memory": resources.get("resourceMemoryLimit"),
        "nodes": pod.get("nodeSelector", {}).get("labels"),
        "queue": pod.get("podMetadata", {}).get("labels", {}).get("kueue.x-k8s.io/queue-name"),
    }
    return {name: value for name, value in found.items() if value}


def _send(given: argparse.Namespace, plan: Plan) -> int:
    from pipelines.kfp_server import Server, check_version

    with ExitStack() as stack:
        host = given.host
        if given.port_forward:
            host = stack.enter_context(reach.forwarded(plan.profile.namespace, given.context))
        address = reach.address(host, given.token_file, plan.profile.namespace)
        check_version(address)
        for line in preflight.check(_asked(plan), plan.profile, given.context):
            sys.stderr.write(f"not checked: {line}\n")
        ui = "" if given.port_forward and given.ui is None else given.ui  # the port is gone when the links are read
        return _start(Server(address, plan.profile.namespace, ui), plan, wait=given.wait)


def _asked(plan: Plan) -> preflight.Asked:
    executors = next(_documents(plan.text))["deploymentSpec"]["executors"].values()
    images = sorted({each["container"]["image"] for each in executors})
    return preflight.Asked(images, needs.secrets(plan.run, plan.profile), [*plan.order.parameters.values()])


def _start(server: "Server", plan: Plan, *, wait: bool) -> int:
    """Uploads, then starts or schedules, with a link to each; the exit code is the outcome where it is waited for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        path.write_bytes(plan.text)
        version = server.upload(plan.run.name, plan.version, path, plan.run.summary)
    told = "uploaded" if version.new else "is there already"
    sys.stdout.write(
        f"{plan.version}: {told}\n  {server.ui}/#/pipelines/details/{version.pipeline}/version/{version.id}\n"
    )
    if plan.order.cron:
        recurring, new = server.schedule(plan.order, version)
        told = "scheduled" if new else "is scheduled already"
        sys.stdout.write(f"{plan.order.name}: {told}\n  {server.ui}/#/recurringrun/details/{recurring}\n")
        return 0
    run = server.start(plan.order, version)
    link = f"{server.ui}/#/runs/details/{run}"
    sys.stdout.write(f"{plan.order.name}: started\n  {link}\n")
    sys.stdout.flush()
    return follow(server, run, link) if wait else 0


def follow(server: "Server", run: str, link: str) -> int:
    """Tells what happens to a run until it has ended: 0 where it succeeded, else 1; 130 when interrupted.

    Raises:
        InputError: the server refuses, or does not answer for a quarter of an hour.
    """
    from pipelines.kfp_server import NoAnswerError

    told: dict[str, str] = {}
    answered, pause = time.monotonic(), FIRST_PAUSE
    try:
        while True:
            try:
                now = server.state(run)
                answered = time.monotonic()
            except NoAnswerError as error:
                if time.monotonic() - answered > PATIENCE:
                    raise
                sys.stderr.write(f"{error}; asked again\n")
            else:
                _tell(now, told)
                if now.state in ENDED:
                    sys.stdout.write(f"{now.state.lower()}: {link}\n")
                    return 0 if now.state == "SUCCEEDED" else 1
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)
    except KeyboardInterrupt:
        sys.stderr.write(f"not followed any more; the run goes on: {link}\n")
        return 130


def _tell(now: Any, told: dict[str, str]) -> None:
    """A line for each task that stands otherwise than it was told; of what failed, why."""
    for task, state in now.tasks.items():
        if told.get(task) == state or task.endswith("-driver"):
            continue
        told[task] = state
        why = f": {' '.join(now.errors[task].split())}" if now.errors.get(task) else ""
        sys.stdout.write(f"{datetime.now():%H:%M:%S} {task}: {state.lower()}{why}\n")
    sys.stdout.flush()
