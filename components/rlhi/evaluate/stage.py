"""Compares the trained model with the logged answers on held-out turns (WildChat UserEval).

At every user turn of a held-out conversation the model answers within the logged context, and a judge compares its
answer with the logged one on three axes (3.4, Figs. 10 to 12), context-only and persona-guided; the persona comes from
the reference history alone. Beyond the paper: every comparison is made in both orders, a verdict that cannot be read is
null and counted, intervals are clustered by user, the base model is an opponent by choice, and the win rate of the
rewards stands beside the judge's.

The judge chooses between [A] and [B] by their log-probability. A small judge mostly prefers a position: the report says
how often it contradicts itself when the order is swapped.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.artifacts import Input, Output
from rlhi.caps import beyond
from rlhi.classify.shares import LabelShares, measured_shares
from rlhi.config import CLOSED, EngineConfig, ModelConfig, SamplingConfig, StageConfig, as_dict
from rlhi.conversations import answer_after, context_of, turn_id, user_indices
from rlhi.dpo.stage import read_history
from rlhi.engine import Engine, Request, generate, open_engine, with_store
from rlhi.errors import InputError
from rlhi.evaluate.judge import Contest, HeldOutTurn, judge, scores_by_group
from rlhi.evaluate.report import Example, Report, render
from rlhi.evaluate.winrates import WinRate, reward_win_rates, win_rates
from rlhi.manifest import FunnelRow, count_reasons, merge_funnels
from rlhi.personas import Personas
from rlhi.records import (
    Answer,
    Axis,
    Candidates,
    Conversation,
    Dropped,
    Mode,
    Opponent,
    Pair,
    Persona,
    Verdict,
)
from rlhi.reward.stage import RewardConfig, RewardModel, open_reward


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class EvaluateConfig(StageConfig):
    """Who answers, who judges, against whom."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    judge: EngineConfig = Field(default_factory=EngineConfig)
    calibrate: bool = Field(
        default=False, description="Take away each letter's score between two empty answers: for small judges."
    )
    reward: RewardConfig = Field(default_factory=RewardConfig)
    axes: tuple[Axis, ...] = Field(default=("personalization", "instruction-following", "usereval"), description="3.4.")
    modes: tuple[Mode, ...] = Field(default=("context-only", "persona-guided"), description="Inference settings (3.4).")
    opponents: tuple[Opponent, ...] = Field(
        default=("log",), description="The answer in the log (3.4), or the base model's."
    )
    max_users: int = Field(default=100, ge=1, description="Evaluation users taken at most, by seed (3.4: 100).")
    max_turns: int | None = Field(
        default=None, ge=1, description="Held-out turns taken at most, by seed; null takes all."
    )
    batch_size: int = Field(default=32, ge=1, description="Sequences computed at a time.")
    resamples: int = Field(default=2000, ge=100, description="Bootstrap resamples of users for the intervals.")


Answers = Mapping[tuple[str, Mode], str]


class Answering(Protocol):
    """Opens an engine on the trained model or on the base model."""

    def __call__(self, *, trained: bool) -> Engine:
        """The engine, loaded."""


def run(
    conversations: Input[Conversation],
    personas: Input[Persona],
    model: Input[Pair],
    verdicts: Output[Verdict],
    config: EvaluateConfig,
) -> None:
    """Writes the verdicts, their win rates and ``report.html``."""

    def answering(*, trained: bool) -> Engine:
        from rlhi.engine.models import load_policy
        from rlhi.engine.transformers import TransformersEngine

        policy = load_policy(config.model, model.path / "adapter" if trained else None)
        return with_store(TransformersEngine(policy, config.batch_size))

    rows, known, pairs = conversations.read(), personas.read(), model.read()
    turns, dropped = held_out_turns(rows, Personas(known), config)
    if not turns:
        raise InputError(_no_turns(rows, dropped))
    contests, too_long = answer(turns, answering, config)
    turns, dropped = [turn for turn in turns if turn.id not in {row.id for row in too_long}], dropped + too_long
    if not turns:
        raise InputError(_no_turns(rows, dropped))
    kept = judge(contests, config.axes, open_engine(config.judge), calibrate=config.calibrate)
    rates = _rates(contests, kept, config)
    verdicts.holds(one.user_id for one in known)  # on the report, as are the pairs and the turns
    verdicts.holds(one.user_id for one in pairs)
    verdicts.write(kept, dropped, len(turns) + len(dropped), count=len(turns))
    verdicts.measure(as_metrics(rates))
    upstream = [conversations.manifest, personas.manifest, model.manifest]
    notes = {name: text for each in upstream for name, text in each.notes.items()}
    own = FunnelRow("evaluate", verdicts.rows_in, verdicts.kept, verdicts.dropped)
    page = Report(
        title="What users said, what was learned, and how sure that is",
        summary=f"{config.model.name} with a LoRA adapter, trained on {model.manifest.kept} preference pairs.",
        funnel=[*merge_funnels([each.funnel for each in upstream]), own],
        win_rates=rates,
        pairs=pairs,
        personas=known,
        history=read_history(model.path),
        examples=examples(contests, kept),
        labels=LabelShares(notes.pop("labels", ""), measured_shares(model.manifest.measured.get("classify", {}))),
        notes=list(notes.values()),
        settings={**upstream[0].settings, **upstream[1].settings, **upstream[2].settings, "evaluate": as_dict(config)},
    )
    verdicts.file("report.html").write_text(render(page))


def _rates(contests: Sequence[Contest], verdicts: Sequence[Verdict], config: EvaluateConfig) -> list[WinRate]:
    """The judge's win rates, and the reward's beside them."""
    scored = scores_by_group(contests, reward_scores(contests, open_reward(config.reward)))
    judged = win_rates(verdicts, config.resamples, config.seed)
    return judged + reward_win_rates(scored, config.resamples, config.seed)


def held_out_turns(
    rows: Sequence[Conversation], personas: Personas, config: EvaluateConfig
) -> tuple[list[HeldOutTurn], list[Dropped]]:
    """The user turns of held-out conversations that have a logged answer and a persona, capped by seed."""
    held_out = [row for row in rows if row.split == "held-out"]
    others = beyond((row.user_id for row in held_out), config.max_users, config.seed)
    turns, dropped = [], []
    for row in held_out:
        for index in user_indices(row):
            key, logged, persona = turn_id(row, index), answer_after(row, index), personas.of(row)
            if row.user_id in others:
                dropped.append(Dropped(key, "user_cap"))
            elif logged is None:
                dropped.append(Dropped(key, "no_logged_answer"))
            elif persona is None:
                dropped.append(Dropped(key, "no_persona"))
            else:
                turns.append(HeldOutTurn(key, row.user_id, context_of(row, index), persona, logged))
    capped = beyond((turn.id for turn in turns), config.max_turns, config.seed)
    dropped += [Dropped(turn.id, "turn_cap") for turn in turns if turn.id in capped]
    return [turn for turn in turns if turn.id not in capped], dropped


def answer(
    turns: Sequence[HeldOutTurn], answering: Answering, config: EvaluateConfig
) -> tuple[list[Contest], list[Dropped]]:
    """Lets the trained model answer every turn in every mode, and the base model where it is an opponent."""
    trained = answering(trained=True)
    long = {turn.id for turn in turns if trained.count_tokens(_longest(turn)) > trained.max_prompt_tokens}
    turns = [turn for turn in turns if turn.id not in long]
    ours = _answers(turns, trained, config)
    base = _answers(turns, answering(trained=False), config) if "base" in config.opponents else {}
    contests = [
        Contest(turn, mode, opponent, ours[turn.id, mode], turn.logged if opponent == "log" else base[turn.id, mode])
        for opponent in config.opponents
        for mode in config.modes
        for turn in turns
    ]
    return contests, [Dropped(key, "prompt_too_long") for key in sorted(long)]


def _longest(turn: HeldOutTurn) -> Request:
    """The longest of a turn's prompts: a turn is answered in every mode or in none."""
    return Request(turn.id, turn.context, turn.persona)


def _answers(turns: Sequence[HeldOutTurn], engine: Engine, config: EvaluateConfig) -> Answers:
    asked = [(turn, mode) for turn in turns for mode in config.modes]
    requests = [
        Request(turn.id, turn.context, turn.persona if mode == "persona-guided" else None) for turn, mode in asked
    ]
    replies = generate(engine, requests, config.sampling, 1, config.seed)
    return {(turn.id, mode): reply.text for (turn, mode), (reply,) in zip(asked, replies, strict=True)}


def reward_scores(contests: Sequence[Contest], model: RewardModel) -> list[tuple[float | None, float | None]]:
    """Rewards of both answers of each contest, always with the user's persona; a turn's answers are one row."""
    turns = {contest.turn.id: contest.turn for contest in contests}
    texts: dict[str, dict[str, None]] = {key: {} for key in turns}
    for contest in contests:
        texts[contest.turn.id] |= {contest.ours: None, contest.theirs: None}
    rows = [_as_candidates(turn, list(texts[key])) for key, turn in turns.items()]
    rewards = {
        (row.id, answer.text): reward
        for row, own in zip(rows, model.score(rows), strict=True)
        for answer, reward in zip(row.answers, own, strict=True)
    }
    return [(rewards[each.turn.id, each.ours], rewards[each.turn.id, each.theirs]) for each in contests]


def _as_candidates(turn: HeldOutTurn, texts: Sequence[str]) -> Candidates:
    answers = tuple(Answer(text, "sample", None, None, None) for text in texts)
    return Candidates(turn.id, turn.user_id, turn.context, turn.persona, None, answers)


def as_metrics(rates: Sequence[WinRate]) -> dict[str, float]:
    """``win_rate/OPPONENT/METRIC/MODE`` and its interval; what was not measured is absent."""
    metrics: dict[str, float] = {}
    for rate in rates:
        name = f"win_rate/{rate.opponent}/{rate.metric}/{rate.mode}"
        values = {"": rate.rate, "/low": rate.low, "/high": rate.high, "/disagreement": rate.disagreement}
        metrics |= {f"{name}{end}": value for end, value in values.items() if value is not None}
        metrics[f"{name}/unread"] = float(rate.unread)
    return metrics


def examples(contests: Sequence[Contest], verdicts: Sequence[Verdict]) -> list[Example]:
    """Each persona-guided turn (or whatever mode there is) with all its answers and what the judge said."""
    last = contests[-1].mode if contests else None
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    turns = {contest.turn.id: contest.turn for contest in contests if contest.mode == last}
    for contest in contests:
        if contest.mode == last:
            answers[contest.turn.id] |= {"trained": contest.ours, contest.opponent: contest.theirs}
    said: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.mode == last and verdict.axis == "usereval":
            ours = "A" if verdict.order == "model-first" else "B"
            won = {None: "no verdict", ours: "trained wins"}.get(verdict.winner, f"{verdict.opponent} wins")
            said[verdict.turn_id].append(f"{verdict.order}, against {verdict.opponent}: {won}")
    return [
        Example(turn.user_id, turn.persona, turn.context, answers[key], "; ".join(said[key]))
        for key, turn in turns.items()
    ]


def _no_turns(rows: Sequence[Conversation], dropped: Sequence[Dropped]) -> str:
    if any(row.split == "held-out" for row in rows):
        counts = ", ".join(f"{reason} {n}" for reason, n in count_reasons(dropped).items())
        return f"evaluate: none of {len(dropped)} held-out turns can be judged ({counts})"
    return (
        "evaluate: no conversation is held out; more users are needed, or a larger ingest.eval_share, or a smaller "
        "ingest.eval_min_conversations"
    )
