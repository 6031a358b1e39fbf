"""Tables 2 to 5 of the paper, each row with ours beside it; what was not measured stays empty."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from rlhi import paper
from rlhi.comparison.arms import Arm
from rlhi.comparison.benchmarks import Answered, Cell
from rlhi.comparison.methods import RECIPES
from rlhi.evaluate.tables import SETTINGS
from rlhi.evaluate.winrates import ALL, WinRate
from rlhi.records import Axis, Suite, TurnKind

AXES: tuple[str, ...] = get_args(Axis)
PARTS: tuple[str, ...] = (*get_args(TurnKind), ALL)
STANDARD = ("alpaca-eval/length_controlled", "alpaca-eval", "arena-hard")
REASONING: tuple[Suite, ...] = ("minerva", "olympiadbench", "gpqa", "mmlu-pro")
MEAN = "mean"


@dataclass(frozen=True)
class Seen:
    """What was measured of an arm: its win rates, and its answers to benchmarks, null where none were asked for."""

    arm: Arm
    rates: Sequence[WinRate] = ()
    answered: Answered | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A method, mostly of the paper, and an arm of ours that is it, or null where none is, in a mode if it has any.

    ``ours`` and ``paper`` are in the order of the columns: fractions with bounds, and percents.
    """

    method: str
    arm: str | None
    mode: str
    ours: tuple[Cell | None, ...]
    paper: tuple[float | None, ...]

    @property
    def fills(self) -> str | None:
        """The recipe that would fill a row without an arm."""
        return RECIPES.get(self.method) if self.arm is None else None


@dataclass(frozen=True)
class Layout:
    """What a table shows: the paper's figures by method and mode, and how ours are read of an arm in a mode."""

    key: str
    title: str
    columns: Sequence[str]
    modes: Sequence[str]
    published: Mapping[tuple[str, str], Sequence[float]]
    read: Callable[[Seen, str], Mapping[str, Cell]]
    note: str
    fill: str


@dataclass(frozen=True)
class Table:
    """One table. ``empty`` are the columns that no arm of ours has."""

    layout: Layout
    rows: Sequence[Row]

    @property
    def measured(self) -> bool:
        """Whether any of its figures is ours."""
        return len(self.empty) < len(self.layout.columns)

    @property
    def empty(self) -> list[str]:
        """Columns to be filled."""
        columns = enumerate(self.layout.columns)
        return [name for place, name in columns if all(row.ours[place] is None for row in self.rows)]


def tables(seen: Sequence[Seen]) -> list[Table]:
    """All of `LAYOUTS`, measured or not."""
    return [Table(layout, list(_rows(layout, seen))) for layout in LAYOUTS]


def _rows(layout: Layout, seen: Sequence[Seen]) -> list[Row]:
    """The paper's methods with the arms that are them, or none; then the arms that are none of these."""
    methods = list(dict.fromkeys(method for method, _ in layout.published))
    rows = []
    for method in methods:
        own: list[Seen | None] = [each for each in seen if _method(each) == method]
        rows += [_row(layout, method, each, mode) for each in own or [None] for mode in layout.modes]
    others = [each for each in seen if _method(each) not in methods]
    for each in others:
        found = [_row(layout, each.arm.title, each, mode) for mode in layout.modes]
        rows += found if any(cell is not None for row in found for cell in row.ours) else []
    return rows


def _row(layout: Layout, method: str, seen: Seen | None, mode: str) -> Row:
    ours = {} if seen is None else layout.read(seen, mode)
    theirs = layout.published.get((method, mode), [None] * len(layout.columns))
    name = None if seen is None else seen.arm.name
    return Row(method, name, mode, tuple(ours.get(column) for column in layout.columns), tuple(theirs))


def _method(seen: Seen) -> str | None:
    """Few users are none of the paper's tables, whatever they are trained by."""
    return seen.arm.method if seen.arm.users is None else None


def _axes(seen: Seen, mode: str) -> dict[str, Cell]:
    return {rate.metric: cell for rate, cell in _against_log(seen, mode) if rate.part == ALL}


def _parts(seen: Seen, mode: str) -> dict[str, Cell]:
    return {rate.part: cell for rate, cell in _against_log(seen, mode) if rate.metric == "usereval"}


def _against_log(seen: Seen, mode: str) -> list[tuple[WinRate, Cell]]:
    rates = [rate for rate in seen.rates if (rate.opponent, rate.mode) == ("log", mode)]
    return [(rate, cell) for rate in rates if (cell := cell_of(rate)) is not None]


def cell_of(rate: WinRate) -> Cell | None:
    """A win rate as a cell; null is not measured."""
    return None if rate.rate is None else Cell(rate.rate, rate.low, rate.high, rate.turns, rate.users)


def _answers(seen: Seen, _: str) -> dict[str, Cell]:
    """The figures of each suite and, where all four of Table 4 are there, their mean, which has no interval."""
    cells = {} if seen.answered is None else dict(seen.answered.cells)
    four = [cells[suite] for suite in REASONING if suite in cells]
    if len(four) == len(REASONING):
        cells[MEAN] = Cell(sum(each.value for each in four) / 4, None, None, sum(each.count for each in four))
    return cells


def standard(seen: Seen) -> float | None:
    """The mean of AlpacaEval's length-controlled win rate and Arena-Hard's score (Fig. 3); null without both."""
    cells = {} if seen.answered is None else seen.answered.cells
    two = [cells[name].value for name in (STANDARD[0], STANDARD[2]) if name in cells]
    return sum(two) / 2 if len(two) == 2 else None


LAYOUTS = (
    Layout(
        key="table-2",
        title="Table 2: win rates against the answers in the log",
        columns=AXES,
        modes=SETTINGS,
        published={(method, mode): figures for method, mode, figures in paper.WIN_RATES},
        read=_axes,
        note="The paper's: Llama-3.1-8B-Instruct, judged by o3, on 100 users of WildChat.",
        fill="evaluate.opponents has to name the log",
    ),
    Layout(
        key="table-3",
        title="Table 3: AlpacaEval 2, length-controlled and raw, and Arena-Hard",
        columns=STANDARD,
        modes=("",),
        published={(method, ""): [own[name] for name in STANDARD] for method, own in paper.STANDARD},
        read=_answers,
        note="The paper's: judged by GPT-4 Turbo. Bounds of AlpacaEval are of 95%, those of Arena-Hard of 90%; both are"
        " drawn over items.",
        fill='run with --benchmarks FILES and benchmark.suites=["alpaca-eval","arena-hard"]',
    ),
    Layout(
        key="table-4",
        title="Table 4: accuracy in reasoning",
        columns=(*REASONING, MEAN),
        modes=("",),
        published={
            (method, ""): [*(own[suite] for suite in REASONING), sum(own[suite] for suite in REASONING) / 4]
            for method, own in paper.REASONING
        },
        read=_answers,
        note="The paper's: the mean of 50 answers to each problem; its rewrites were of math conversations. Bounds are"
        " drawn over problems.",
        fill="run with --benchmarks FILES",
    ),
    Layout(
        key="table-5",
        title="Table 5: usereval by turn",
        columns=PARTS,
        modes=SETTINGS,
        published={(method, mode): figures for method, mode, figures in paper.TURN_WIN_RATES},
        read=_parts,
        note="Judged as in Table 2.",
        fill="evaluate.axes has to name usereval, and evaluate.opponents the log",
    ),
)
