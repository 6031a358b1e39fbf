"""Shows how many pairs RIP's three rules leave at which thresholds, what each throws out, and proposes quantiles.

Reads the output of reward and forms the pairs as rip would; nothing is filtered and no model is asked. Writes into OUT

  calibration.html        the page: pictures, tables, and examples of what each rule throws out
  calibration-SOURCE.png  the picture, for rewrites or samples

and shows the tables here, with the settings to paste behind 'python -m pipelines run'. The proposal is the strictest of
twenty steps from no filter to the quantiles of RIP's sweep (length 0.5, reward 0.6, gap 0.5) that leaves --min-pairs
pairs. The paper's own thresholds (1878 characters, reward -1, gap 1) hold for Athene-RM-8B alone.

The page quotes users. No list of users lies beside it: delete it when it has been looked at.

example:
  python -m rlhi.rip.calibrate --scored out/latest/reward/scored --out look --min-pairs 2000
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhi.argv import positive
from rlhi.artifacts import Input
from rlhi.errors import InputError, one_line
from rlhi.records import AnswerSource, Candidates, Pair
from rlhi.rip import guards
from rlhi.rip.calibration import Calibration, Count, Proposal, measure, propose, settings
from rlhi.rip.config import RipConfig
from rlhi.rip.figures import survival
from rlhi.rip.page import Calibrated, render
from rlhi.rip.rules import UNKNOWN, at_quantiles, by_source
from rlhi.rip.stage import SCALE, formed


@one_line
def main(argv: Sequence[str] | None = None) -> int:
    """0 when the page is written, 2 after one line on bad input."""
    given = parser().parse_args(argv)
    config = RipConfig(min_pairs=given.min_pairs, keep_cut=given.keep_cut)
    sys.stdout.write(calibrate(Input(given.scored, Candidates), given.out, config))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m rlhi.rip.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--scored", metavar="FOLDER", type=Path, required=True, help="Output of reward.")
    made.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="Where page and pictures go.")
    made.add_argument("--min-pairs", metavar="N", type=positive, default=1, help="Pairs that must be left. [1]")
    made.add_argument(
        "--keep-cut", action="store_true", help="Take answers that ended by length, as rip.keep_cut does."
    )
    return made


def calibrate(scored: Input[Candidates], out: Path, config: RipConfig) -> str:
    """Writes the page and the pictures; gives the tables.

    Raises:
        InputError: no pair can be formed of the rows, or the folder cannot be written.
    """
    rows = scored.read()
    pairs, reasons = formed(rows, config)
    bursts = guards.bursts(pairs, config.near_duplicates or 1, config.seed)
    groups = by_source(pair for pair in pairs if pair.id not in bursts)
    if not groups:
        counts = ", ".join(f"{reason} {n}" for reason, n in Counter(reasons.values()).most_common())
        raise InputError(f"{scored.path}: its {len(rows)} rows make no pair ({counts or 'it has none'})")
    proposal = propose(groups, config.min_pairs)
    measured = [_measured(source, own, proposal) for source, own in groups.items()]
    floor = config.min_pairs if len(measured) == 1 else 1  # it counts pairs of all sources, a picture those of one
    pictures = {each.source: survival(each, floor, proposal) for each in measured}
    notes = scored.manifest.notes
    page = Calibrated(measured, proposal, config.min_pairs, notes.get(SCALE, UNKNOWN), notes.get("reward", ""))
    _write(out, render(page, pictures), pictures)
    lost = Counter([*reasons.values(), *("prompt_burst" for _ in bursts)])
    first = f"{len(rows):,} rows; no pair: {', '.join(f'{reason} {n:,}' for reason, n in lost.most_common()) or 'none'}"
    return "\n".join([first, "", *_told(measured, proposal, config), "", f"{out / 'calibration.html'}", ""])


def _measured(source: AnswerSource, pairs: Sequence[Pair], proposal: Proposal | None) -> Calibration:
    return measure(source, pairs, None if proposal is None else at_quantiles(pairs, proposal.quantiles))


def _write(out: Path, page: str, pictures: Mapping[AnswerSource, bytes]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "calibration.html").write_text(page)
        for source, picture in pictures.items():
            (out / f"calibration-{source}.png").write_bytes(picture)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


def _told(measured: Sequence[Calibration], proposal: Proposal | None, config: RipConfig) -> list[str]:
    lines = [line for each in measured for line in [*_table(each), ""]]
    if proposal is None:
        lines += [f"There are fewer than {config.min_pairs} pairs even without the rules: give more conversations."]
    else:
        lines += [f"These quantiles leave {proposal.kept} pairs:"]
        lines += [f"  --set {setting}" for setting in settings(proposal, [each.source for each in measured])]
    return lines


def _table(found: Calibration) -> list[str]:
    """The levels, the paper's thresholds and the proposal, as lines of text."""
    head = ("each refuses", "length ≥", "left", "reward ≥", "left", "gap ≤", "left", "all three")
    rows = [(f"{level:.0%}", count) for level, count in found.levels.items()]
    rows += [("the paper's", found.paper)] + ([("proposed", found.shown)] if found.shown is not None else [])
    title = f"{found.source}: {len(found.pairs)} pairs"
    return [title, _row(head), *(_row((name, *_cells(count))) for name, count in rows)]


def _cells(count: Count) -> tuple[str, ...]:
    limits, alone = count.limits, count.alone
    return (
        f"{limits.min_length:,.0f}",
        f"{alone['length']:,}",
        f"{limits.min_reward:.4g}",
        f"{alone['reward']:,}",
        f"{limits.max_gap:.4g}",
        f"{alone['gap']:,}",
        f"{count.jointly:,}",
    )


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    return f"  {first:<12}" + "".join(f"{cell:>11}" for cell in rest)


if __name__ == "__main__":
    sys.exit(main())
