"""Compares a model with the logged answers, or with other models, on held-out turns (WildChat UserEval).

At every user turn of a held-out conversation the model answers within the logged context, and a judge compares its
answer with the opponent's on three axes (3.4, Figs. 10 to 12): personalization, instruction-following (whose judge sees
no persona) and usereval, both at once. The persona comes from the reference history alone. Who is held out, ingest
decides: users with at least `ingest.eval_min_conversations`, their last `ingest.held_out` conversations each.

Who plays. `--model` is the output of dpo that is evaluated; without it, `model` is evaluated as it is. The
opponents are the log (the paper's), the base model, and a champion: `--champion`, another output of dpo, which is an
opponent by being given, or `champion_model`, or both. All answer the same turns in the same modes. `--earlier` is an
evaluation of another model on the same users: what both won of their common opponents is compared turn by turn, without
asking the judge again.

What is said of it. A turn scores the mean over its two orders, so a judge that contradicts itself counts half for each.
Win rates are over all turns, initial and follow-up turns (Table 5), and with `--traits` (the output of analyze) by what
users prefer (Table 1); each says over how many turns and users. Intervals resample users; p-values flip the signs of
whole users; the length-controlled rate is what would be left were both answers equally long. A question that is not
answered, or not readably, has no verdict: it is counted, its words are kept, and `worst` and `best` say what the rate
could be had all of them been read. The judge's own failings stand beside: how often it contradicts itself when the
order is swapped, and how often it names the answer shown first. The win rate of the reward model stands beside the
judge's; it is never put in its place.

Controls. `shuffled-persona` answers with another user's persona, `shuffled-judge` judges persona-guided answers by
another user's, context-only uses none: if these do as well as the user's own, nothing was personal. Differences between
modes are paired, turn by turn. `over_personalization` tells what quality a persona costs where it does not matter.

The judge. In this process it chooses between [A] and [B] by log-probability; a small judge mostly prefers a position.
A chat judge writes: `--judge.kind openai --judge.server.url ... --judge.model.id ... --method generate`; it may reason
first, the last letter in brackets counts. What it may cost is told before the first question, and
`--judge.server.max_cost` caps it. With RLHI_REPLIES set, every verdict is stored when it comes: a run that is
interrupted, capped or repeated asks for nothing twice. `--orders one` is cheaper by half, and worse.

Example: the trained model against the log and its own base, in all modes, by a hosted judge.

    rlhi evaluate --conversations ingest --personas persona --model dpo --verdicts out \\
      --opponents '["log", "base"]' \\
      --modes '["context-only", "persona-guided", "shuffled-persona", "shuffled-judge"]' --over_personalization true \\
      --method generate --judge.kind openai --judge.model.id o3 --judge.server.url https://api.openai.com/v1 \\
      --judge.server.extra '{"temperature": null, "top_p": null}' --judge.server.logprobs false \\
      --judge.server.price_in 2 --judge.server.price_out 8 --judge.server.max_cost 50

The output holds the verdicts, `turns.parquet`, `contests.parquet` (all answers and rewards), `figures.json` and
`report.html`; `rlhi.evaluate.results` says what is in them, and how the metrics are named.
"""

from collections.abc import Sequence
from dataclasses import replace

from rlhi.analyze.traits import DIMENSIONS
from rlhi.artifacts import Input, Output, user_rows
from rlhi.engine import Engine, open_engine, tally, with_store
from rlhi.errors import InputError
from rlhi.evaluate.answers import Player, answer, with_rewards
from rlhi.evaluate.bearing import with_bearing
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.differences import between_modes, over_personalization
from rlhi.evaluate.earlier import since
from rlhi.evaluate.judge import judge
from rlhi.evaluate.pages import Background, report
from rlhi.evaluate.report import render
from rlhi.evaluate.results import Results, as_metrics, save
from rlhi.evaluate.turns import Contest, HeldOutTurn, held_out_turns, with_other_personas
from rlhi.evaluate.winrates import judged, rewarded, win_rates
from rlhi.manifest import FunnelRow, base_of, count_reasons
from rlhi.personas import Personas
from rlhi.records import Conversation, Dropped, Pair, Persona, Trait, Verdict
from rlhi.reward.stage import open_reward


def run(
    conversations: Input[Conversation],
    personas: Input[Persona],
    verdicts: Output[Verdict],
    config: EvaluateConfig,
    model: Input[Pair] | None = None,
    champion: Input[Pair] | None = None,
    traits: Input[Trait] | None = None,
    earlier: Input[Verdict] | None = None,
) -> None:
    """Writes the verdicts, what they are of, the figures and ``report.html``.

    Raises:
        InputError: nothing is held out or can be judged, an opponent or another user's persona is missing, a model or
            the judge cannot be asked, or the earlier evaluation is not comparable.
    """
    config = _against(config, champion)
    players, asked = Players(config, model, champion), tally.since()
    rows, known = conversations.read(), personas.read()
    pairs = [] if model is None else model.read()
    turns, dropped = _turns(rows, known, config)
    contests, too_long = answer(turns, players, config)
    turns, dropped = [turn for turn in turns if turn.id not in {row.id for row in too_long}], dropped + too_long
    engine = open_engine(config.judge)
    kept = judge(contests, engine, config)
    if config.over_personalization:
        turns = with_bearing(turns, engine, config)
    verdicts.holds(one.user_id for one in known)  # on the report, as are the pairs and the turns
    for trained in filter(None, (model, champion)):  # what they say was learned from these
        verdicts.holds(user_rows(trained.path))
    verdicts.write(kept, dropped, len(turns) + len(dropped), count=len(turns))
    if not turns:  # told after the rows: a shard, which ends with them, may have no turn of its own
        raise InputError(_no_turns(rows, dropped))
    contests = with_rewards(contests, open_reward(config.reward))
    found = figures(turns, contests, kept, config, [] if traits is None else traits.read())
    if earlier is not None:
        outcomes = {**judged(kept), **rewarded(contests)}
        found = replace(found, differences=[*found.differences, *since(earlier, outcomes, config)])
    verdicts.measure(as_metrics(found))
    save(found, verdicts)
    upstream = [each for each in (conversations, personas, model) if each is not None]
    own = FunnelRow("evaluate", verdicts.rows_in, verdicts.kept, verdicts.dropped)
    page = report(found, Background(upstream, known, pairs, model), own, config, tally.metrics(asked()))
    verdicts.file("report.html").write_text(render(page))


def _against(config: EvaluateConfig, champion: Input[Pair] | None) -> EvaluateConfig:
    """A champion that is given is an opponent, and answers with the model that it was trained from."""
    if champion is None:
        return config
    known = config.champion_model or base_of(champion.manifest, config.model)
    opponents = config.opponents if "champion" in config.opponents else (*config.opponents, "champion")
    return replace(config, opponents=opponents, champion_model=known)


class Players:
    """Opens the engine of the evaluated model, of its base, or of the champion.

    Raises:
        InputError: the champion is an opponent, but nobody says who that is.
    """

    def __init__(self, config: EvaluateConfig, model: Input[Pair] | None, champion: Input[Pair] | None) -> None:
        if "champion" in config.opponents and champion is None and config.champion_model is None:
            raise InputError(
                "evaluate.opponents: who is the champion? Give --champion (an output of dpo), champion_model, or both"
            )
        self._config = config
        self._trained = {"trained": model, "champion": champion}

    def __call__(self, player: Player) -> Engine:
        """The engine, which loads its weights when it is first asked."""
        from rlhi.engine.models import load_policy, trained_in
        from rlhi.engine.transformers import TransformersEngine

        trained = self._trained.get(player)
        named = self._config.champion_model if player == "champion" else None
        policy = load_policy(named or self._config.model, None if trained is None else trained_in(trained.path))
        return with_store(TransformersEngine(policy, self._config.batch_size))


def figures(
    turns: Sequence[HeldOutTurn],
    contests: Sequence[Contest],
    verdicts: Sequence[Verdict],
    config: EvaluateConfig,
    traits: Sequence[Trait] = (),
) -> Results:
    """What the verdicts and the rewards come to."""
    how = (config.resamples, config.seed)
    named: dict[str, list[str]] = {}
    for each in traits:
        name = DIMENSIONS[each.dimension].names[each.preference]
        named.setdefault(each.user_id, []).append(f"{each.dimension}/{name}")
    outcomes = {**judged(verdicts), **rewarded(contests)}
    lost = over_personalization(outcomes, turns, *how) if config.over_personalization else []
    rates = win_rates(outcomes, *how, named)
    return Results(turns, contests, verdicts, rates, between_modes(outcomes, *how), lost)


def _turns(
    rows: Sequence[Conversation], known: Sequence[Persona], config: EvaluateConfig
) -> tuple[list[HeldOutTurn], list[Dropped]]:
    turns, dropped = held_out_turns(rows, Personas(known), config)
    if not turns:
        raise InputError(_no_turns(rows, dropped))
    shuffled = any(mode.startswith("shuffled") for mode in config.modes)
    return with_other_personas(turns, config.seed) if shuffled else turns, dropped


def _no_turns(rows: Sequence[Conversation], dropped: Sequence[Dropped]) -> str:
    if any(row.split == "held-out" for row in rows):
        counts = ", ".join(f"{reason} {n}" for reason, n in count_reasons(dropped).items())
        return f"evaluate: none of {len(dropped)} held-out turns can be judged ({counts})"
    return (
        "evaluate: no conversation is held out; more users are needed, or a larger ingest.eval_share, or a smaller "
        "ingest.eval_min_conversations"
    )
