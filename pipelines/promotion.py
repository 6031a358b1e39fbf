"""`python -m pipelines promote`: makes what the gate needs for the model of a run, and lets the gate decide."""

import argparse
import dataclasses
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import erasure
from pipelines.plan import parts_of
from pipelines.rollback import store_of
from pipelines.variants import safety_of
from rlhi import manifest, tracking, undelivered
from rlhi.config import ModelConfig, StageConfig, as_json, override, parse
from rlhi.errors import InputError
from rlhi.evaluate.config import EvaluateConfig
from rlhi.manifest import Manifest
from rlhi.promote.config import PromoteConfig
from rlhi.promote.files import folder_of
from rlhi.promote.registry import CHAMPION, Registry, Version
from rlhi.records import Opponent
from rlhi.runs import PARENT
from rlhi.safety.stage import SafetyConfig

HELP = """\
Registers the model of a run in MLflow, and makes it champion if it surely beats the champion that there is (or, the
first time, the base model), if safety has not got worse and if answers have not grown: 'rlhi promote --help' says how
that is decided. What is missing for it is made first: the comparison with the champion on the run's held-out turns, and
the safety figures of both models. What is done is kept in DIR/store, as always.

exit code: 0 where the model is champion, 1 where it is not, 2 after one line on bad input

examples:
  python -m pipelines promote --work out --dry-run
  python -m pipelines promote --work out --tracking-uri http://mlflow:5000 --name assistant
  python -m pipelines promote --work out --set evaluate.max_turns=null --set promote.min_users=20
"""
Settings = Mapping[str, Sequence[tuple[str, str]]]  # fields and values by stage
PREFIX = "promote-"  # of folders in that of a run


def add(command: argparse.ArgumentParser) -> None:
    """The flags."""
    command.add_argument("--work", metavar="DIR", type=Path, required=True, help="The folder of the runs.")
    command.add_argument("--run", metavar="RUN", default="", help="A run by its name in DIR/runs. [the latest]")
    command.add_argument("--arm", metavar="ARM", default="", help="Whose model it is, of the run of an experiment.")
    command.add_argument("--name", metavar="MODEL", help="Name of the registered model. [rlhi]")
    command.add_argument("--items", metavar="URIS", default="", help="Items of safety of your own. [ours]")
    command.add_argument(
        "--set",
        metavar="STAGE.FIELD=VALUE",
        action="append",
        default=[],
        help="One setting of evaluate, safety or promote, for instance promote.min_win_rate=0.55; give it again for"
        " more.",
    )
    command.add_argument("--dry-run", action="store_true", help="Measure and judge; register and move nothing.")
    command.add_argument("--tracking-uri", metavar="URI", help="An MLflow server or store. [sqlite:///DIR/mlflow.db]")


@dataclass(frozen=True)
class Run:
    """The outputs of a run that promotion needs: folders, each with its manifest."""

    folder: Path
    model: Path
    verdicts: Path
    conversations: Path
    personas: Path


def command(given: argparse.Namespace) -> int:
    """Makes what is missing, and decides; the exit code is that of `rlhi promote`."""
    run, uri = (
        find(given.work.expanduser().absolute(), given.run, given.arm),
        given.tracking_uri or store_of(given.work),
    )
    settings = _settings(given.set)
    for usual, stage in ((EvaluateConfig(), "evaluate"), (SafetyConfig(), "safety")):
        _changed(usual, settings, stage)  # refused before anything runs
    promote = _promote(given, settings)
    registry = Registry(promote.name, uri)
    champion = registry.holder(CHAMPION)
    place = run.folder / f"{PREFIX}{datetime.datetime.now(datetime.UTC):%Y-%m-%d-%H-%M-%S-%f}"
    parent = tracking.start_pipeline("promote", {"run": run.folder.name, "model": promote.name}, uri)
    environment = _environment(given.work, uri, parent)
    step = Steps(place, {**os.environ, **environment})
    failed = True
    try:
        if not _is_champion(champion, run):
            measure(step, run, _opponent(registry, champion, place), settings, given.items)
        code = step("promote", promote, "decision", model=run.model, verdicts=step.made.get("verdicts", run.verdicts))
        failed = False
    finally:
        kept = environment[undelivered.VARIABLE]
        tracking.finish_pipeline(parent, list(step.manifests), uri, failed=failed, place=kept)
    sys.stdout.write(f"decision {place / 'decision' / 'decision.md'}\n")
    return code


@dataclass
class Steps:
    """Runs stages one after the other as processes, each into a folder of ``place``; ``made`` are these by name."""

    place: Path
    environment: Mapping[str, str]
    made: dict[str, Path] = dataclasses.field(default_factory=dict)

    def __call__(self, stage: str, config: StageConfig, output: str, **inputs: Path | str) -> int:
        """Runs a stage into its ``output``; 0, or 1 for an answer that is no.

        Raises:
            InputError: it failed; it has said why.
        """
        port = "grades" if stage == "safety" else output
        known = {f"--{name}": self.made[name] for name in ("safety", "opponent-safety") if name in self.made}
        given = {f"--{name.replace('_', '-')}": value for name, value in inputs.items() if value}
        flags = {**given, **(known if stage == "promote" else {}), f"--{port}": self.place / output}
        argv = [str(part) for pair in flags.items() for part in pair]
        from pipelines.adapter import YIELDING, here, run_process  # kfp, which takes seconds

        code = run_process(here(["rlhi", stage, *argv, "--config", as_json(config)]), {**YIELDING, **self.environment})
        if code not in (0, 1) or not (self.place / output / manifest.NAME).exists():
            raise InputError(f"promote: {stage} failed, see above; mend that and start again, what is done is reused")
        self.made[output] = self.place / output
        return code

    @property
    def manifests(self) -> Iterator[Manifest]:
        """Of what was made."""
        return map(manifest.load, self.made.values())


def find(work: Path, name: str, arm: str = "") -> Run:
    """The outputs of a run in ``work``, the latest without a name: the evaluation, and what that was made of.

    Raises:
        InputError: no such run, or one without an evaluation of a trained model, or with several and no ``arm``.
    """
    folder = (work / "runs" / name if name else work / "latest").resolve()
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in (work / "runs").glob("*"))) or "none yet"
        raise InputError(f"{folder}: no such run; there are: {known}")
    found = (path.parent for path in folder.rglob(manifest.NAME))
    own = [each for each in found if not each.relative_to(folder).parts[0].startswith(PREFIX)]
    made = {each: manifest.load(each) for each in own}
    evaluated = _of_arm([each for each, described in made.items() if described.stage == "evaluate"], folder, arm)
    if not evaluated:
        raise InputError(f"{folder}: has no evaluation of a model; run the recipe to its end")
    by_digest = {described.digest: each for each, described in made.items()}
    inputs = made[evaluated[0]].inputs
    try:
        needed = [by_digest[inputs[name]] for name in ("model", "conversations", "personas")]
    except KeyError:
        raise InputError(f"{evaluated[0]}: is not of a model that this run trained; choose another --run") from None
    return Run(folder, needed[0], evaluated[0], needed[1], needed[2])


def _of_arm(evaluated: Sequence[Path], folder: Path, arm: str) -> list[Path]:
    """The evaluations of an arm, or the only one.

    Raises:
        InputError: there is no such arm, or none is named where there are several.
    """
    arms = {each: parts_of(each.relative_to(folder).parts[0])[1] or "" for each in evaluated}
    found = [each for each, own in arms.items() if own == arm or not arm]
    if len(found) != 1 and evaluated:
        known = ", ".join(sorted(filter(None, arms.values())))
        way_out = f"give one of {known}" if known else "the run is of a recipe; leave it out"
        raise InputError(f"--arm {arm}: does not say whose model it is; {way_out}")
    return found


@dataclass(frozen=True)
class Opposing:
    """Whom the model must beat: the champion, with its folder and its base model, or the base model."""

    kind: Opponent
    folder: Path | None
    digest: str | None


def _opponent(registry: Registry, champion: Version | None, place: Path) -> Opposing:
    if champion is None:
        return Opposing("base", None, None)
    return Opposing("champion", folder_of(registry, champion, place / "champion"), champion.digest)


def _is_champion(champion: Version | None, run: Run) -> bool:
    return champion is not None and champion.digest == manifest.load(run.model).digest


def measure(step: Callable[..., int], run: Run, opponent: Opposing, settings: Settings, items: str) -> None:
    """The comparison on held-out turns, if the run has not made it, and the safety figures of both models."""
    described, trained = manifest.load(run.verdicts), manifest.load(run.model)
    base = None if opponent.folder is None else manifest.load(opponent.folder).config["model"]
    evaluate = _evaluation(described, opponent, base, settings)
    met = opponent.kind in (*described.config["opponents"], *described.inputs)
    known = met and described.inputs.get("champion") == opponent.digest
    if not known or "evaluate" in settings:
        given: dict[str, Any] = {"conversations": run.conversations, "personas": run.personas, "model": run.model}
        step("evaluate", evaluate, "verdicts", **given, champion=opponent.folder or "")
    own = trained.config["model"]
    ours, theirs = (_changed(_safety(evaluate, model), settings, "safety") for model in (own, base or own))
    step("safety", ours, "safety", model=run.model, items=items)
    step("safety", theirs, "opponent-safety", model=opponent.folder or "", items=items)


def _evaluation(described: Manifest, opponent: Opposing, base: Any, settings: Settings) -> EvaluateConfig:
    """As the run evaluated, against this opponent alone."""
    given = {**described.config, "opponents": [opponent.kind], "champion_model": base}
    changed: EvaluateConfig = _changed(parse(EvaluateConfig, given, "evaluate"), settings, "evaluate")
    return changed


def _safety(evaluate: EvaluateConfig, model: Mapping[str, Any]) -> SafetyConfig:
    return safety_of(evaluate, parse(ModelConfig, model, "safety.engine.model"))


def _promote(given: argparse.Namespace, settings: Settings) -> PromoteConfig:
    own = [("name", given.name)] if given.name else []
    changed: PromoteConfig = _changed(PromoteConfig(), {"promote": [*settings.get("promote", ()), *own]}, "promote")
    return replace(changed, dry_run=given.dry_run or changed.dry_run)


def _settings(given: Sequence[str]) -> Settings:
    """Field and value by stage.

    Raises:
        InputError: not of that form, or a setting of another stage.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for each in given:
        path, equals, value = each.partition("=")
        stage, dot, field = path.partition(".")
        if not (equals and dot) or stage not in ("evaluate", "safety", "promote"):
            raise InputError(f"--set {each}: give evaluate.FIELD=VALUE, or one of safety or promote")
        found.setdefault(stage, []).append((field, value))
    return found


def _changed(config: Any, settings: Settings, stage: str) -> Any:
    for field, value in settings.get(stage, ()):
        config = override(config, field, value, stage)
    config.check()
    return config


def _environment(work: Path, uri: str, parent: str) -> dict[str, str]:
    folder = work.expanduser().absolute()
    places = {"RLHI_STORE": str(folder / erasure.STORE), undelivered.VARIABLE: str(folder / undelivered.FOLDER)}
    return {**places, "MLFLOW_TRACKING_URI": uri, PARENT: parent}
