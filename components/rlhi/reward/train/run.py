"""From pairs to a reward model, and what it is worth on pairs that it has not seen."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhi.config import ModelConfig, as_dict, digest
from rlhi.errors import InputError
from rlhi.records import Answer, Candidates
from rlhi.reward.classifier import load_classifier
from rlhi.reward.model import Unscored
from rlhi.reward.reading import Reader
from rlhi.reward.train.config import TrainingConfig
from rlhi.reward.train.loop import TokenizedPreference, open_base, save, train
from rlhi.reward.train.preferences import Preference, read_preferences
from rlhi.sources import content_digest


def run(source: str, out: Path, config: TrainingConfig) -> dict[str, float]:
    """Trains on the pairs at ``source`` and writes the checkpoint, its contract and its card; gives the figures.

    Raises:
        InputError: ``out`` exists, pairs that cannot be read, too few of them, or a model that cannot be trained.
    """
    if out.exists():
        raise InputError(f"{out}: exists; choose another folder")
    if config.batch_size % config.micro_batch_size:
        raise InputError(
            f"batch_size={config.batch_size}: is no multiple of micro_batch_size={config.micro_batch_size}"
        )
    pairs, dropped = read_preferences(source)
    base = open_base(config, out.name)
    trained, held_out = split(pairs, config)
    tokens = tokenize(trained, base.reader)
    dropped["too_long"] += len(trained) - len(tokens)
    if not tokens or not held_out:
        raise InputError(f"{source}: {len(tokens)} pairs to train on and {len(held_out)} held out; give more")
    history = train(base, tokens, config)
    save(base, out)
    figures = {"pairs": float(len(tokens)), **evaluate(out, held_out)}
    (out / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    (out / "README.md").write_text(card(source, config, figures, dropped))
    return figures


def split(pairs: Sequence[Preference], config: TrainingConfig) -> tuple[list[Preference], list[Preference]]:
    """Those to train on, and those held out, whole groups by seed."""
    groups = sorted({pair.group for pair in pairs}, key=lambda group: digest(f"held out {config.seed} {group}"))
    away = set(groups[: math.ceil(config.held_out * len(groups))])
    return [pair for pair in pairs if pair.group not in away], [pair for pair in pairs if pair.group in away]


def tokenize(pairs: Sequence[Preference], reader: Reader) -> list[TokenizedPreference]:
    """Both answers of each pair as the classifier will read them; pairs of which one cannot be read are left out."""
    found = []
    for pair in pairs:
        chosen, rejected = _reader_of(pair, reader).read(as_candidates(pair))
        if not isinstance(chosen, Unscored) and not isinstance(rejected, Unscored):
            found.append(TokenizedPreference(chosen, rejected))
    return found


def evaluate(model: Path, held_out: Sequence[Preference]) -> dict[str, float]:
    """How many of the held-out pairs the saved model ranks right, with a 95% interval; a tie is half right.

    ``longer`` is the share in which the chosen answer is the longer one.
    """
    right, longer = [], []
    for knows in (True, False):
        own = [pair for pair in held_out if (pair.persona is not None) == knows]
        if not own:
            continue
        classifier = load_classifier(ModelConfig(id=str(model)), None, "packed", knows_persona=knows)
        for pair, scores in zip(own, classifier.score([as_candidates(pair) for pair in own]), strict=True):
            chosen, rejected = scores
            if not isinstance(chosen, Unscored) and not isinstance(rejected, Unscored):
                right.append(_share(chosen, rejected))
                longer.append(_share(len(pair.chosen), len(pair.rejected)))
    if not right:
        raise InputError(f"{model}: none of {len(held_out)} held-out pairs is short enough; raise max_tokens")
    rate = sum(right) / len(right)
    margin = 1.96 * math.sqrt(rate * (1 - rate) / len(right))
    return {
        "held_out": float(len(right)),
        "accuracy": rate,
        "accuracy_low": max(0.0, rate - margin),
        "accuracy_high": min(1.0, rate + margin),
        "longer": sum(longer) / len(longer),
    }


def as_candidates(pair: Preference) -> Candidates:
    """A pair as a row to score."""
    answers = tuple(Answer(text, "sample", None, None, None) for text in (pair.chosen, pair.rejected))
    return Candidates(pair.group, pair.group, pair.context, pair.persona, None, answers)


def card(source: str, config: TrainingConfig, figures: dict[str, float], dropped: Mapping[str, int]) -> str:
    """What the model was trained on, and what it is worth."""
    left = ", ".join(f"{why} {n}" for why, n in dropped.items() if n) or "none"
    low, high = figures["accuracy_low"], figures["accuracy_high"]
    settings = json.dumps(as_dict(config), indent=2, sort_keys=True)
    return (
        f"# A reward model on {config.model.name}\n\n"
        f"Trained on {figures['pairs']:.0f} preference pairs (content {content_digest(source)}); left out: {left}.\n"
        f"Of {figures['held_out']:.0f} held-out pairs it ranks {figures['accuracy']:.1%} right (95% interval {low:.1%} "
        f"to {high:.1%}); the longer answer is the chosen one in {figures['longer']:.1%}.\n\n"
        f"Use: `rlhi reward --kind classifier --model.id FOLDER`. How it reads is in `contract.json`.\n\n"
        f"```json\n{settings}\n```\n"
    )


def _reader_of(pair: Preference, reader: Reader) -> Reader:
    return Reader(reader.renderer, reader.contract, pair.persona is not None)


def _share(one: float, other: float) -> float:
    return 0.5 if one == other else float(one > other)
