"""Registers a model in MLflow and moves the alias ``champion`` to it only past a statistical gate.

Beyond the paper, which promotes nothing. All four rules must hold (`rlhi.promote.rules`):

- win rate: on held-out turns, its answers head to head with the current champion's, by the judge of evaluate in both
  orders; the lower end of the 95% interval, users drawn, is above one half;
- unsafe, sycophancy: neither share of safety has grown beyond a margin, by the upper end of the 95% interval;
- length: the mean answer has grown by less than a bound.

Head to head, and not the difference of two evaluations against the log: the question is which of the two answers users
prefer, both meet on every turn, and the judge is asked it directly. It costs a new evaluation for every champion.

The first model of all has no champion to beat. Its opponent is the base model, by the same rules: who does not surely
beat what training began with has no place. What is not measured fails its rule; so do figures that are of another model
than this one or than the champion that the registry names when the stage runs.

Past the gate the model gets the alias ``champion``; else ``candidate``, with the rules that failed in its tags and its
description, and exit code 1. Either way it is registered once, known by its digest, with its card, its data and its
figures in the run that the version links to. Files that lie on S3 (``source``) stay there.

Example: a candidate against the champion that a registry holds, whose folder is `champion`.

    rlhi evaluate --conversations ingest --personas persona --model dpo --champion champion --verdicts out/verdicts \\
      --opponents '["champion"]'
    rlhi safety --model dpo --grades out/safety
    rlhi safety --model champion --grades out/champion-safety
    rlhi promote --model dpo --verdicts out/verdicts --safety out/safety --opponent-safety out/champion-safety \\
      --decision out/decision

The output holds the rules that held, ``decision.json`` (all of them) and ``decision.md``. `python -m pipelines promote`
does all of this for a run, and `python -m pipelines rollback` takes a promotion back.
"""

import dataclasses
import json
import logging

from rlhi.artifacts import Input, Output
from rlhi.promote.config import PromoteConfig
from rlhi.promote.decision import Decision
from rlhi.promote.evidence import Evidence
from rlhi.promote.register import register
from rlhi.promote.registry import CANDIDATE, CHAMPION, Registry, Version, registry_uri
from rlhi.promote.rules import judge
from rlhi.records import Dropped, Pair, Rule, SafetyGrade, Verdict

log = logging.getLogger("rlhi")


def run(
    model: Input[Pair],
    verdicts: Input[Verdict],
    decision: Output[Rule],
    config: PromoteConfig,
    safety: Input[SafetyGrade] | None = None,
    opponent_safety: Input[SafetyGrade] | None = None,
) -> None:
    """Judges, registers and moves an alias; writes the rules that held, and the decision.

    Raises:
        InputError: MLflow cannot be asked, the verdicts are of another model, or the champion changed meanwhile.
    """
    registry = Registry(config.name, registry_uri())
    champion = registry.holder(CHAMPION)
    found = decide(Evidence(model, verdicts, safety, opponent_safety), champion, config)
    failed = [Dropped(rule.name, rule.failed) for rule in found.rules if rule.failed is not None]
    decision.write([rule for rule in found.rules if rule.failed is None], failed, len(found.rules))
    decision.measure({f"gate/{rule.name}": rule.value for rule in found.rules if rule.value is not None})
    if not found.already and not config.dry_run:
        version = act(registry, found, champion)
        found = dataclasses.replace(found, version=version.number)
    decision.measure({"promoted": float(found.promoted)})
    decision.note("promote", found.headline)
    decision.file("decision.json").write_text(json.dumps(dataclasses.asdict(found.told), indent=1) + "\n")
    decision.file("decision.md").write_text(found.markdown)
    for line in found.lines:
        log.info("%s", line)


def decide(evidence: Evidence, champion: Version | None, config: PromoteConfig) -> Decision:
    """Whether the model becomes champion. One that is champion already is not judged against itself."""
    already = champion is not None and champion.digest == evidence.model.manifest.digest
    rules = [] if already else judge(evidence.against(champion), config)
    return Decision(config, evidence, champion, rules, already=already)


def act(registry: Registry, found: Decision, champion: Version | None) -> Version:
    """Registers the model, and gives it the alias that it has earned.

    Raises:
        InputError: MLflow cannot be asked, or the champion is another one than ``champion`` by now.
    """
    registry.still(champion)
    version = register(registry, found)
    if found.promoted:
        registry.crown(version.number, instead_of=champion)
    else:
        registry.point(CANDIDATE, version.number)
    return version
