"""The analysis as one HTML page that loads nothing: each picture with what it shows and who labelled the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from rlhi.analyze import diversity, messages
from rlhi.analyze.diversity import FEW, Diversity
from rlhi.analyze.estimates import Estimate
from rlhi.analyze.findings import Findings
from rlhi.analyze.messages import Messages, Said
from rlhi.analyze.traits import DIMENSIONS, PREFERENCES
from rlhi.page import as_data, counted, environment, percent, style
from rlhi.records import Dimension, Label, Preference

EXAMPLES = 3  # messages of each kind on the page
PERSONAS = 6
FEW_USERS = 10  # under which a percentile bootstrap is clearly too narrow
SMALLEST = "SmolLM2-135M-Instruct"
SMALL = (  # three plain personas for each preference and for none, in each dimension, calibrated
    f"{SMALLEST} labelled this. It is little better than guessing: of 36 plain personas made up to test it, it reads "
    "16 rightly, where chance gives 12. What it makes shows that the analysis works, not what users do."
)
FEEDBACK: Label = "re-attempt with feedback"


@dataclass(frozen=True, slots=True)
class Judged:
    """A persona and what was read from it; a dimension that could not be judged is absent."""

    user_id: str
    text: str
    preferences: Mapping[Dimension, Preference]


def render(
    found: Findings, pictures: Mapping[str, bytes], said: Mapping[Label, Sequence[Said]], judged: Sequence[Judged]
) -> str:
    """The page. The same findings give the same text."""
    page = environment()
    page.filters.update(bounds=bounds, number=_number, counted=counted)
    return page.from_string(resources.files(__package__).joinpath("analysis.html.j2").read_text()).render(
        found=found,
        style=style(),
        pictures={name: as_data(picture) for name, picture in pictures.items()},
        sentences=sentences(found),
        cautions=cautions(found),
        said=said,
        judged=judged,
        dimensions=DIMENSIONS,
        preferences=PREFERENCES,
        paper=messages,
        paper_distances=diversity.PAPER,
        few=FEW,
        feedback=FEEDBACK,
        shown={"examples": EXAMPLES, "personas": PERSONAS},
    )


def sentences(found: Findings) -> list[str]:
    """What was found, in words."""
    return [*_feedback(found.messages), *_diversity(found.datasets)]


def cautions(found: Findings) -> list[str]:
    """What speaks against reading much into the figures."""
    users = found.messages.turns.users
    cautioned = [SMALL] if SMALLEST in (found.models.labels, found.models.traits) else []
    if 2 <= users < FEW_USERS:
        cautioned.append(f"Only {users} users: intervals from so few are narrower than they should be.")
    if users == 1:
        cautioned.append("One user only: there are no intervals, and nothing here says how users differ.")
    if found.messages.unlabelled:
        cautioned.append(
            f"{counted(found.messages.unlabelled, 'user message')} without a label: left out, not guessed."
        )
    if found.unjudged:
        reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in found.unjudged.items())
        cautioned.append(f"Judgements of personas that were not made or could not be read: {reasons}; left out.")
    return cautioned


def bounds(found: Estimate) -> str:
    """The interval of a share for a reader."""
    if found.low is None or found.high is None:
        return "no interval" if found.count else ""
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def _feedback(said: Messages) -> list[str]:
    share, several, late = said.shares[FEEDBACK], said.shares_of_several[FEEDBACK], said.shares_late[FEEDBACK]
    if share.value is None:
        return ["No user message is labelled, so nothing is known of what kinds there are."]
    if several.value is None:
        return ["No conversation has a second user message: there is no feedback to find."]
    found = (
        f"In conversations of several turns, {percent(several.value)} of user messages are re-attempts with feedback "
        f"({_stands_on(several)}; the paper: {messages.PAPER_SHARES[FEEDBACK]}%); of all user messages it is "
        f"{percent(share.value)}."
    )
    if late.value is None:
        return [found, "No conversation goes on after its fifth user message, where the paper finds mostly feedback."]
    paper = messages.PAPER_LATE[FEEDBACK]
    return [f"{found} After the fifth it is {percent(late.value)} ({_stands_on(late)}; the paper: {paper}%)."]


def _diversity(datasets: Sequence[Diversity]) -> list[str]:
    first, *others = datasets
    if first.distance is None:
        return ["There are not two contexts, so nothing is known of how diverse they are."]
    beside = [f"{each.name} {each.distance:.3f} ({_compared(first, each)})" for each in others if each.distance]
    return [
        f"Two contexts of these conversations lie {first.distance:.3f} apart on average{'; ' if beside else ''}"
        f"{', '.join(beside)}."
    ]


def _compared(first: Diversity, other: Diversity) -> str:
    if first.low is None or first.high is None or other.low is None or other.high is None:
        return "no interval tells whether they differ"
    if first.low > other.high:
        return "less diverse"
    if first.high < other.low:
        return "more diverse"
    return "the intervals do not tell them apart"


def _stands_on(found: Estimate) -> str:
    interval = "no interval" if found.low is None else f"95% interval {bounds(found)}"
    return f"{interval}, {counted(found.count, 'message')} of {counted(found.users, 'user')}"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
