"""What came out, as one HTML page that loads nothing, as JSON, and as a table for a document."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from pydantic import TypeAdapter

from rlhi.errors import InputError
from rlhi.evaluate.headline import p_value
from rlhi.page import as_data, counted, environment, percent, style
from rlhi.records import Mode
from rlhi.tastes import pictures
from rlhi.tastes.config import Arm
from rlhi.tastes.experiment import Place
from rlhi.tastes.experiment import write as write_json
from rlhi.tastes.results import ArmFound, Findings, Rate, gather
from rlhi.tastes.work import Tried

RESULTS, PAGE = "results.json", "tastes.html"
NAMES: dict[Arm, str] = {
    "base": "base model",
    "user-based": "DPO, user-based rewards",
    "user-agnostic": "DPO, user-agnostic rewards",
    "sft": "SFT on the chosen answers",
}
MODE_NAMES: dict[Mode, str] = {
    "persona-guided": "with the user's persona",
    "shuffled-persona": "with the opposite user's persona",
    "context-only": "without a persona",
}
EXAMPLES = 6


def write(work: Path, places: Sequence[Place], tried: Tried) -> None:
    """Writes the page and the results into ``work``."""
    found = gather(places, tried)
    write_json(work / RESULTS, asdict(found))
    (work / PAGE).write_text(render(found))


def load(work: Path) -> Findings:
    """The results in ``work``.

    Raises:
        InputError: there are none.
    """
    path = work / RESULTS
    if not path.exists():
        raise InputError(f"{path}: is not there; run the experiment without --table first")
    return TypeAdapter(Findings).validate_json(path.read_bytes())


def render(found: Findings) -> str:
    """The page. The same findings give the same text."""
    page = environment()
    page.filters.update(rate=rate, mean=mean, counted=counted)
    return page.from_string(resources.files(__package__).joinpath("tastes.html.j2").read_text()).render(
        found=found,
        style=style(),
        names=NAMES,
        modes=MODE_NAMES,
        verdicts=verdicts(found),
        wins=as_data(pictures.wins(found, NAMES)),
        nats=as_data(pictures.nats(found, NAMES)),
        examples=found.examples[:EXAMPLES],
    )


def verdicts(found: Findings) -> list[str]:
    """What the figures say, in words: the method works here or it does not."""
    own, agnostic = found.of("user-based"), found.of("user-agnostic")
    guided, swapped = own.wins["persona-guided"], own.wins["shuffled-persona"]
    return [
        f"User-based DPO {_against_half(guided, 'beats')} the base model with the user's persona: {rate(guided)}.",
        f"With the opposite user's persona it {_against_half(swapped, 'still beats')} that: {rate(swapped)}. Swapping "
        f"costs {mean(own.swapped)} of the win rate, where it costs user-agnostic DPO {mean(agnostic.swapped)}.",
        f"Without a persona user-based DPO wins {rate(own.wins['context-only'])}.",
        *(
            f"On the same requests, with the user's persona, it wins {mean(one.difference)} more than {NAMES[arm]}"
            f" (p {p_value(one.p)})."
            for arm, one in found.ahead.items()
        ),
    ]


def _against_half(found: Rate, verb: str) -> str:
    if found.low is None or found.high is None:
        return f"was measured once, and nothing tells whether it {verb}"
    if found.low > 0.5:
        return verb
    return "does worse than" if found.high < 0.5 else "cannot be told from"


def rate(found: Rate) -> str:
    """A share with its interval."""
    return _with_interval(found, percent)


def mean(found: Rate) -> str:
    """A mean with its interval."""
    return _with_interval(found, lambda value: "–" if value is None else f"{value:+.2f}")


def _with_interval(found: Rate, shown: Callable[[float | None], str]) -> str:
    if found.low is None or found.high is None:
        return shown(found.value)
    return f"{shown(found.value)} [{shown(found.low)}, {shown(found.high)}]"


def table(found: Findings) -> str:
    """Two Markdown tables: win rates over the base model, and what else tells whether to believe them."""
    first = ["arm", *MODE_NAMES.values(), "persona minus swapped", "contrast, said for / against"]
    second = [
        "arm",
        "reward",
        " / ".join(found.arms[0].followed),
        "words",
        "cut",
        "repeated",
        "perplexity",
        "accuracy on new pairs",
        "margin (nats × beta)",
    ]
    return "\n".join([*_table(first, map(_wins, found.arms)), "", *_table(second, map(_texts, found.arms)), ""])


def _table(head: Sequence[str], rows: "map[list[str]]") -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (list(head), ["---"] * len(head), *rows)]


def _wins(one: ArmFound) -> list[str]:
    own = [rate(one.wins[mode]) for mode in MODE_NAMES]
    contrast = f"{percent(one.contrasts['for'])} / {percent(one.contrasts['against'])}"
    return [NAMES[one.arm], *own, mean(one.swapped), contrast]


def _texts(one: ArmFound) -> list[str]:
    own = one.texts["persona-guided"]
    learned = [percent(one.first_pass), "–" if one.margin is None else f"{one.margin:.1f}"]
    followed = " / ".join(f"{each.value:+.2f}" for each in one.followed.values())
    figures = [followed, f"{own.words:.0f}", percent(own.cut), percent(own.repeated), f"{own.perplexity:.1f}"]
    return [NAMES[one.arm], mean(own.reward), *figures, *learned]
