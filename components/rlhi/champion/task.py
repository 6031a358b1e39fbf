"""Fetches the champion of a registered model, as the registry names it when this runs: whom a new model has to beat.

Written is the champion's folder as dpo made it, by the same digest, without the rows that quote users. Where there is
no champion yet, the folder says so: `--champion` of evaluate and `--model` of safety take that as if nothing was given,
and then the base model is who must be beaten.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rlhi import manifest
from rlhi.artifacts import Output, link_tree
from rlhi.champion.config import ChampionConfig
from rlhi.config import as_dict, as_json, digest, from_flag, parse
from rlhi.errors import InputError
from rlhi.execute import explained, tell_kfp
from rlhi.manifest import NOBODY, Manifest
from rlhi.promote.files import folder_of
from rlhi.promote.register import FILES
from rlhi.promote.registry import CHAMPION, Registry, Version, registry_uri
from rlhi.records import Pair


def main(argv: Sequence[str]) -> int:
    """``rlhi champion``: 0 when the champion is there, or there is none.

    Raises:
        InputError: a config that cannot be, MLflow cannot be asked, or the champion's files are gone.
    """
    flags = parser().parse_args(argv)
    given = from_flag(flags.config)
    config = parse(ChampionConfig, given, "champion")
    registry, place = Registry(config.name, registry_uri()), Path(flags.champion).absolute()
    if place.exists() and any(place.iterdir()):
        raise InputError(f"{place}: is not empty; choose another folder")
    version = registry.holder(CHAMPION)
    with explained(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if version is None:
            _leave_empty(place, config)
        else:
            _fetch(registry, version, place)
    number = "none" if version is None else version.number
    tell_kfp(flags.executor_input, "champion", {"version": number, "digest": manifest.load(place).digest})
    who = "has no champion yet, so the base model stands for it" if version is None else f"version {number}"
    sys.stderr.write(f"champion: {config.name} {who}\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The flags of ``rlhi champion``."""
    made = argparse.ArgumentParser(
        prog="rlhi champion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--champion", metavar="FOLDER", required=True, help="Written: the champion's folder.")
    made.add_argument("--config", metavar="JSON", default="{}", help='Settings as one JSON object: {"name": "rlhi"}.')
    made.add_argument("--executor-input", metavar="JSON", help="What KFP passes; tells where to report the outputs.")
    return made


def _fetch(registry: Registry, version: Version, place: Path) -> None:
    """Through a folder beside it, since what is registered may be anywhere, and hold more."""
    with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.fetched") as beside:
        link_tree(folder_of(registry, version, Path(beside)), place, FILES)


def _leave_empty(place: Path, config: ChampionConfig) -> None:
    """What stands where an output of dpo would."""
    with Output(place, Pair) as made:
        made.write([], [], 0)
        made.commit(
            Manifest(
                stage="dpo",
                record=NOBODY,
                digest=manifest.folder_digest(made.partial),
                rows_in=0,
                kept=0,
                dropped={},
                funnel=[],
                config=as_dict(config),
                config_hash=digest(as_json(config)),
                inputs={},
                prompt_hashes={},
                code_version=manifest.code_version(),
                created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                seconds=0.0,
            )
        )
