"""What an arm says to the tests, and how likely it finds answers that it is shown."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlhi.engine import Request, generate
from rlhi.engine.models import Policy
from rlhi.engine.transformers import TransformersEngine
from rlhi.evaluate.turns import answered_for
from rlhi.records import Message, Mode
from rlhi.tastes.config import TastesConfig
from rlhi.tastes.heldout import Forced, HeldOut, forced
from rlhi.tastes.people import Said
from rlhi.tastes.rule import Dimension, reward
from rlhi.trees import Tree, best_layout, branch_logprobs

MODES: tuple[Mode, ...] = ("persona-guided", "shuffled-persona", "context-only")
WAYS: tuple[Said, ...] = ("for", "against")
TOGETHER = 4  # words that, said again, are a repetition
ROW = 16384  # tokens scored at a time


@dataclass(frozen=True, slots=True)
class Given:
    """An answer to a test in one mode. ``reward`` is by the user's rule; ``cut`` says that it ended by length.

    ``repeated`` is the share of runs of four words that came before; ``nats`` by token is under the base model.
    """

    turn_id: str
    user_id: str
    mode: Mode
    text: str
    reward: float
    cut: bool
    words: int
    repeated: float
    tokens: int
    nats: float


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much more the right persona than the swapped one speaks for the right answer, in nats.

    (log p(a | u) - log p(b | u)) - (log p(a | v) - log p(b | v)) for a user u who likes a best, and v, who likes b best
    and differs in one ``dimension`` alone, as do a and b.
    """

    said: Said
    dimension: Dimension
    new_family: bool
    nats: float


def answers(policy: Policy, base: Policy, tests: Sequence[HeldOut], config: TastesConfig) -> list[Given]:
    """What the policy says to every test in every mode."""
    engine = TransformersEngine(policy, config.batch_size)
    asked = [(test, mode) for mode in MODES for test in tests]
    requests = [
        Request(f"{test.turn.id} {mode}", test.turn.context, answered_for(test.turn, mode)) for test, mode in asked
    ]
    replies = [one for (one,) in generate(engine, requests, config.sampling, 1, config.seed)]
    scores = likelihoods(
        base, [(test.turn.context, reply.text) for (test, _), reply in zip(asked, replies, strict=True)]
    )
    return [
        Given(
            turn_id=test.turn.id,
            user_id=test.turn.user_id,
            mode=mode,
            text=reply.text,
            reward=reward(test.person.taste, reply.text),
            cut=reply.finish_reason == "length",
            words=len(reply.text.split()),
            repeated=repetition(reply.text),
            tokens=tokens,
            nats=nats,
        )
        for (test, mode), reply, (tokens, nats) in zip(asked, replies, scores, strict=True)
    ]


def guided(policy: Policy, tests: Sequence[HeldOut], config: TastesConfig) -> dict[str, float]:
    """The mean reward of what is said to the tests with the user's persona, and the share that was cut."""
    engine = TransformersEngine(policy, config.batch_size)
    requests = [Request(test.turn.id, test.turn.context, test.turn.persona) for test in tests]
    replies = [one for (one,) in generate(engine, requests, config.sampling, 1, config.seed)]
    rewards = [reward(test.person.taste, reply.text) for test, reply in zip(tests, replies, strict=True)]
    cut = [reply.finish_reason == "length" for reply in replies]
    return {"reward": math.fsum(rewards) / len(tests), "cut": sum(cut) / len(tests)}


def likelihoods(policy: Policy, said: Sequence[tuple[tuple[Message, ...], str]]) -> list[tuple[int, float]]:
    """Tokens and log-probability of each text behind its context, without a persona."""
    own = policy.renderer
    trees = [Tree(own.prompt(context), [own.answer(text)]) for context, text in said]
    scores = _scores(policy, trees)
    return [(len(tree.branches[0]), float(score[0])) for tree, score in zip(trees, scores, strict=True)]


def contrasts(policy: Policy, config: TastesConfig) -> list[Contrast]:
    """On requests, users and wordings of the test, with tastes said for and against."""
    shown = [
        (said, one) for said in WAYS for one in forced("test", said, config.contrasts, config.seed, config.dimensions)
    ]
    found = spoken_for(policy, [one for _, one in shown])
    return [Contrast(said, one.dimension, one.new_family, nats) for (said, one), nats in zip(shown, found, strict=True)]


def spoken_for(policy: Policy, shown: Sequence[Forced]) -> list[float]:
    """The contrast of each, in nats: see `Contrast`."""
    scores = _scores(policy, [tree for one in shown for tree in _trees(policy, one)])
    return [(own[0] - own[1]) - (other[0] - other[1]) for own, other in zip(scores[0::2], scores[1::2], strict=True)]


def repetition(text: str) -> float:
    """The share of runs of four words that came before in the text; 0 where it is too short for two."""
    words = re.findall(r"\w+", text.lower())
    runs = Counter(zip(*(words[start:] for start in range(TOGETHER)), strict=False))
    total = sum(runs.values())
    return 1 - len(runs) / total if total else 0.0


def perplexity(said: Sequence[Given]) -> float:
    """Of all texts together, under the base model."""
    return math.exp(-math.fsum(one.nats for one in said) / sum(one.tokens for one in said))


def _trees(policy: Policy, one: Forced) -> list[Tree]:
    own, context = policy.renderer, (Message("user", one.ask.text),)
    branches = [own.answer(text) for text in one.answers]
    return [Tree(own.prompt(context, persona), branches) for persona in one.personas]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _scores(policy: Policy, trees: Sequence[Tree]) -> list[list[float]]:
    found = branch_logprobs(policy.model, trees, best_layout(policy.model), ROW)
    return [one.tolist() for one in found]
