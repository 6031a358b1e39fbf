"""What each arm is and learned from: its method, its pairs, its training, and what it was given in other settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rlhi.artifacts import Input
from rlhi.comparison.methods import Settings, few_users, method_of
from rlhi.config import ModelConfig, flat, parse
from rlhi.evaluate.costs import costs, total
from rlhi.manifest import FunnelRow, Manifest, merge_funnels
from rlhi.records import Grade, Pair, Verdict
from rlhi.rip.stage import SCALE

UNTOLD = ("evaluate", "benchmark")  # whose settings the page tells by itself, or refuses to differ
STEPS = ("rip", "dpo")  # of which the page shows what left


@dataclass(frozen=True)
class Given:
    """What the stage reads of one arm; null is lacking."""

    name: str
    verdicts: Input[Verdict] | None = None
    pairs: Input[Pair] | None = None
    model: Input[Pair] | None = None
    answers: Input[Grade] | None = None

    @property
    def manifests(self) -> list[Manifest]:
        """Of all of it, the last of the run first."""
        given = (self.verdicts, self.answers, self.model, self.pairs)
        return [each.manifest for each in given if each is not None]


@dataclass(frozen=True, slots=True)
class Learned:
    """The pairs: how many, of how many users, and the mean characters of both answers."""

    pairs: int
    users: int
    chosen: float
    rejected: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The training; null is not known. ``seconds`` are those of the run that made it, be it long ago.

    ``pairs`` are those trained on, of ``users``: without those that were kept out to measure it.
    """

    pairs: float | None
    users: int | None
    steps: float | None
    learning_rate: float | None
    accuracy: float | None
    margin: float | None
    seconds: float | None


@dataclass(frozen=True)
class Arm:
    """One arm: its ``method``, by the paper's name if it is one of the paper's, and what it was made of.

    ``users`` is the cap on users whose pairs were taken; ``funnel`` holds the rows of `STEPS`. ``model`` is what
    training started from; ``warnings`` are of training, and of folders that do not belong together.
    """

    name: str
    method: str | None
    users: int | None
    model: str | None
    reward: str | None
    learned: Learned | None
    trained: Trained | None
    funnel: Sequence[FunnelRow]
    settings: Settings
    data: Mapping[str, str]
    dollars: float | None
    warnings: Sequence[str] = ()

    @property
    def title(self) -> str:
        """What it is, for a reader; a dash where no setting tells."""
        return f"{self.method or '–'}, {self.users} users at most" if self.users is not None else self.method or "–"


def arm(given: Given) -> Arm:
    """What is known of one arm. What does not belong to its evaluation is left out, with a warning."""
    strays = _strays(given)
    if strays:
        given = replace(given, pairs=None, model=None)
    settings = {stage: own for made in reversed(given.manifests) for stage, own in made.settings.items()}
    return Arm(
        name=given.name,
        method=method_of(settings, _is_trained(given)),
        users=few_users(settings),
        model=_model(given),
        reward=next((made.notes[SCALE] for made in given.manifests if SCALE in made.notes), None),
        learned=None if given.pairs is None else _learned(given.pairs.read()),
        trained=_trained(given),
        funnel=_funnel(given),
        settings={stage: own for stage, own in settings.items() if stage not in UNTOLD},
        data={} if given.verdicts is None else given.verdicts.manifest.data,
        dollars=_dollars(given),
        warnings=[*strays, *_warned(given)],
    )


def differing(arms: Sequence[Arm]) -> dict[str, list[str | None]]:
    """Each setting, as ``stage.field``, in which arms differ, and its value in each; null where the stage did not run.

    A stage that only some ran is a row of its own.
    """
    rows: dict[str, list[str | None]] = {}
    for stage in dict.fromkeys(stage for each in arms for stage in each.settings):
        ran = [stage in each.settings for each in arms]
        if not all(ran):
            rows[stage] = ["runs" if one else None for one in ran]
        leaves = [dict(flat(each.settings.get(stage, {}), f"{stage}.")) for each in arms]
        for name in dict.fromkeys(name for own in leaves for name in own):
            values = [own.get(name) for own in leaves]
            if len({value for value, own in zip(values, ran, strict=True) if own}) > 1:
                rows[name] = values
    return rows


def _strays(given: Given) -> list[str]:
    """What says that the folders are not of one run."""
    found = []
    model, pairs = given.model, given.pairs
    for told, made in (("evaluation", given.verdicts), ("benchmark", given.answers)):
        if made is not None and model is not None and made.manifest.inputs.get("model") != model.manifest.digest:
            found.append(f"{given.name}: its {told} is not of the model given, whose pairs and training are left out.")
    if model is not None and pairs is not None and model.manifest.inputs.get("pairs") != pairs.manifest.digest:
        found.append(f"{given.name}: its model was not trained on the pairs given; both are left out.")
    return found


def _is_trained(given: Given) -> bool:
    return given.model is not None or any(
        "model" in each.manifest.inputs for each in (given.verdicts, given.answers) if each is not None
    )


def _model(given: Given) -> str | None:
    for each in (given.verdicts, given.model, given.answers):
        if each is not None:
            config = each.manifest.config
            return parse(ModelConfig, config["model"] if "model" in config else config["engine"]["model"], "model").name
    return None


def _learned(pairs: Sequence[Pair]) -> Learned | None:
    if not pairs:
        return None
    chosen, rejected = fmean(len(pair.chosen) for pair in pairs), fmean(len(pair.rejected) for pair in pairs)
    return Learned(len(pairs), len({pair.user_id for pair in pairs}), chosen, rejected)


def _trained(given: Given) -> Trained | None:
    """Of the last round; from the model, or else from what the evaluation inherited of it."""
    made = next((each for each in given.manifests if "dpo" in each.settings), None)
    if made is None:
        return None
    measured, settings = made.measured.get("dpo", {}), made.settings["dpo"]
    return Trained(
        pairs=measured.get("pairs") if given.model is None else given.model.manifest.kept,
        users=None if given.model is None else len({pair.user_id for pair in given.model.read()}),
        steps=measured.get("steps"),
        learning_rate=settings.get("learning_rate"),
        accuracy=measured.get("validation_accuracy"),
        margin=measured.get("validation_margin"),
        seconds=None if given.model is None else given.model.manifest.seconds,
    )


def _funnel(given: Given) -> list[FunnelRow]:
    rows = merge_funnels([each.funnel for each in given.manifests])
    return [row for row in rows if row.stage.partition("-")[0] in STEPS]


def _dollars(given: Given) -> float | None:
    measured = {stage: own for made in reversed(given.manifests) for stage, own in made.measured.items()}
    return total(costs(measured))


def _warned(given: Given) -> list[str]:
    notes = {} if given.model is None else given.model.manifest.notes
    return [f"{given.name}: {text}" for name, text in notes.items() if name.startswith("warning: ")]
