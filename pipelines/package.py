"""A recipe or an experiment as the file that a KFP server takes, for `compile` and for `submit`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import experiments, flags, nodes, plan, profiles
from pipelines.profiles import Profile
from rlhi.engine.replies import REMOTE
from rlhi.errors import InputError

if TYPE_CHECKING:
    from pipelines import graph

PROFILE_HELP = "The cluster: a YAML file such as profiles/gke.yaml."


def add(command: argparse.ArgumentParser) -> None:
    """The flags of `compile`."""
    flags.add_recipe(command, "NAME")
    command.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="The YAML file to write.")
    command.add_argument("--profile", metavar="FILE", type=Path, help=PROFILE_HELP)
    command.add_argument(
        "--replies",
        metavar="S3_URI",
        default="",
        help="Where all pods keep the replies of models, so that none is asked for twice: s3://BUCKET/PREFIX."
        " Needed for shards; with a profile, below its root.",
    )
    command.add_argument(
        "--checkpoints",
        metavar="S3_URI",
        default="",
        help="Where training keeps its checkpoints, so that a pod that is killed goes on: s3://BUCKET/PREFIX."
        " With a profile, below its root.",
    )


def write(given: argparse.Namespace) -> int:
    """`compile`: writes the file, says so, and gives the exit code.

    Raises:
        InputError: bad input, or the file cannot be written.
    """
    profile = profiles.load(given.profile) if given.profile else None
    run = nodes.placed(flags.run_of(given, experiments.find_any), profile)
    for flag in ("replies", "checkpoints"):
        if (place := getattr(given, flag)) and not place.startswith(REMOTE):
            raise InputError(f"--{flag} {place}: pods have no disk in common; give s3://BUCKET/PREFIX")
    from pipelines import graph

    graph.compile_to(run, given.output, cluster_of(profile, given.replies, given.checkpoints))
    held = f"{len(run.arms)} arms" if len(run.arms) > 1 else f"{len(run.arms[0].stages)} stages"
    sys.stdout.write(f"{given.output}: {run.name}, {held}, {plan.count(run)} tasks\n")
    return 0


def cluster_of(
    profile: Profile | None, replies: str = "", checkpoints: str = "", watermark: str = ""
) -> "graph.Cluster":
    """What the graph is told of the cluster; what no flag names lies below the profile's root."""
    from pipelines import graph

    if profile is not None:
        replies, checkpoints = replies or profile.below("replies"), checkpoints or profile.below("checkpoints")
    return graph.Cluster(replies, checkpoints, profile, watermark)
