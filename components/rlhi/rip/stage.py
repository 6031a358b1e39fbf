"""Forms preference pairs and keeps those of high quality (RIP).

A rewrite is chosen over its original only where its reward is not lower (2.3); of sampled answers the best is chosen
over the worst (eq. 2). Answers that ended by length are in no pair; equal texts and, among samples, equal rewards form
none. Then the three rules of C.2 apply to the rejected answer's length in characters, to its reward, and to the gap: a
*small* gap is kept, since a large one tells of a prompt that can be read in several ways. Rewrites and samples have
rules of their own: best over worst of 64 lies much further apart than a rewrite and its original.

The paper's thresholds stand on the scale of its reward model; for rewards of another scale they are refused, unless
`scale` names that. `thresholds: quantile` takes quantiles of this run's own pairs of the same source instead.
`python -m rlhi.rip.calibrate` shows which thresholds leave how many pairs, and what each rule throws out.

Beyond the paper, in this order: pairs whose context holds an item of `benchmarks` leave, and so do a user's nearly
equal prompts but the first; both before the rules, so that they move no quantile. After the rules, by choice, a model
is asked whether follow-ups are safe to learn from, and conversations, users and all pairs are capped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

import numpy as np

from rlhi.artifacts import Input, Output, user_rows
from rlhi.engine import Engine, open_engine
from rlhi.errors import InputError
from rlhi.figures import margins
from rlhi.manifest import FunnelRow
from rlhi.questions import Said, keep_unread
from rlhi.records import AnswerSource, Candidates, Dropped, Pair, Reason
from rlhi.rip import calibration, contamination, follow_ups, guards
from rlhi.rip.advice import too_few
from rlhi.rip.config import RipConfig
from rlhi.rip.contamination import Benchmark, Match
from rlhi.rip.figures import survival
from rlhi.rip.pairs import form
from rlhi.rip.rules import UNKNOWN, Limits, by_source, check, gap, limits_of, refused

SCALE = "reward_scale"  # the note in which reward says what scale its rewards are on


def run(
    scored: Input[Candidates],
    pairs: Output[Pair],
    config: RipConfig,
    benchmarks: Annotated[str, "Benchmarks whose items no pair may hold: files or folders, commas between them."] = "",
) -> None:
    """Writes the pairs that survive, pictures of their margins and of what the rules leave.

    Raises:
        InputError: thresholds that cannot be meant, a benchmark that cannot be read, or fewer pairs than ``min_pairs``;
            then with the whole funnel and with thresholds that would leave enough.
    """
    rows = scored.read()
    check(sources_of(rows), scored.manifest.notes.get(SCALE, UNKNOWN), config)
    if config.check_follow_ups and rows and all(row.follow_up is None for row in rows):
        raise InputError("rip.check_follow_ups=true: none of the answers has a follow-up; leave it out")
    known = contamination.read(benchmarks)
    found = form_and_filter(rows, config, known, open_engine(config.engine) if config.check_follow_ups else None)
    pairs.holds(user_rows(scored.path))  # what could not be read is kept too; and who taught the policy that answered
    pairs.write(found.kept, found.dropped, len(rows))
    if len(found.kept) < config.min_pairs:
        own = FunnelRow("rip", len(rows), len(found.kept), pairs.dropped)
        raise InputError(_too_few(found, [*scored.manifest.funnel, own], scored, config))
    _tell(found, pairs, known, config)


@dataclass
class Filtered:
    """What became of the candidates. ``ruled`` are the pairs that the rules were applied to, by source."""

    kept: list[Pair]
    dropped: list[Dropped]
    ruled: Mapping[AnswerSource, list[Pair]]
    limits: Mapping[AnswerSource, Limits | None]
    matches: list[Match] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)


def form_and_filter(
    rows: Sequence[Candidates],
    config: RipConfig,
    benchmarks: Sequence[Benchmark] = (),
    engine: Engine | None = None,
) -> Filtered:
    """Pairs in order; quantiles are taken over the pairs of a source that the rules are applied to."""
    pairs, reasons = formed(rows, config)
    matches = contamination.matches(pairs, benchmarks)
    reasons |= dict.fromkeys((match.id for match in matches), "contaminated")
    pairs = _left(pairs, reasons)
    if config.near_duplicates is not None:
        reasons |= dict.fromkeys(guards.bursts(pairs, config.near_duplicates, config.seed), "prompt_burst")
    pairs = _left(pairs, reasons)
    ruled = by_source(pairs)
    limits = {source: limits_of(own, config.rules(source)) for source, own in ruled.items()}
    reasons |= refused(pairs, limits)
    pairs = _left(pairs, reasons)
    said = follow_ups.check(pairs, engine, config.method) if engine is not None else []
    reasons |= follow_ups.refused(said)
    reasons |= guards.over_caps(_left(pairs, reasons), config)
    dropped = [Dropped(row.id, reasons[row.id]) for row in rows if row.id in reasons]
    return Filtered(_left(pairs, reasons), dropped, ruled, limits, matches, said)


def formed(rows: Iterable[Candidates], config: RipConfig) -> tuple[list[Pair], dict[str, Reason]]:
    """The pairs that can be formed, and why the other rows form none."""
    made = {row.id: form(row, keep_cut=config.keep_cut) for row in rows}
    pairs = [each for each in made.values() if isinstance(each, Pair)]
    return pairs, {key: each for key, each in made.items() if not isinstance(each, Pair)}


def sources_of(rows: Iterable[Candidates]) -> set[AnswerSource]:
    """The sources of the answers that could be chosen."""
    return {answer.source for row in rows for answer in row.answers} - {"original"}


def _left(pairs: Iterable[Pair], reasons: Mapping[str, Reason]) -> list[Pair]:
    return [pair for pair in pairs if pair.id not in reasons]


def _tell(found: Filtered, pairs: Output[Pair], benchmarks: Sequence[Benchmark], config: RipConfig) -> None:
    """Figures, notes and pictures beside the rows."""
    pairs.measure({"margin/median": float(np.median([gap(pair) for pair in found.kept]))})
    pairs.file("margins.png").write_bytes(margins(found.kept))
    proposal = calibration.propose(found.ruled, config.min_pairs)
    floor = config.min_pairs if len(found.ruled) == 1 else 1  # it counts pairs of all sources, a picture those of one
    for source, own in found.ruled.items():
        limits = found.limits[source]
        measured = calibration.measure(source, own, limits)
        pairs.file(f"calibration-{source}.png").write_bytes(survival(measured, floor, proposal))
        if limits is not None:
            pairs.measure({f"limit/{source}/{name}": value for name, value in asdict(limits).items()})
            pairs.note(f"rules_{source}", _rules_told(source, limits))
    if benchmarks:
        counts = {each.name: sum(match.benchmark == each.name for match in found.matches) for each in benchmarks}
        pairs.measure({f"contaminated/{name}": float(count) for name, count in counts.items()})
        pairs.note("contamination", contamination.told(counts))
        lines = (json.dumps(asdict(match), ensure_ascii=False) for match in found.matches)
        pairs.file("contaminated.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if config.check_follow_ups:
        pairs.note("follow_ups_checked", follow_ups.told(found.said, config.engine.name))
        keep_unread(pairs, found.said)


def _rules_told(source: AnswerSource, limits: Limits) -> str:
    return (
        f"Pairs with a {source} were kept where the rejected answer has at least {limits.min_length:,.0f} characters "
        f"and a reward of at least {limits.min_reward:.4g}, and the chosen one has at most {limits.max_gap:.4g} more."
    )


def _too_few(found: Filtered, funnel: Sequence[FunnelRow], scored: Input[Candidates], config: RipConfig) -> str:
    def left(passed: Sequence[Pair]) -> int:
        gone = follow_ups.refused(found.said)
        pairs = _left(passed, gone)
        return len(pairs) - len(guards.over_caps(pairs, config))

    proposal = calibration.propose(found.ruled, config.min_pairs, left)
    return too_few(funnel, config, list(found.ruled), proposal, scored.path)
