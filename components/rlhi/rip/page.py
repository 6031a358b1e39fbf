"""The calibrator's page: for each source of pairs what the three rules leave, and whom they throw out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from rlhi.page import as_data, counted, environment, style
from rlhi.records import AnswerSource, Pair
from rlhi.rip.calibration import RULES, Calibration, Proposal, settings, thrown_out
from rlhi.rip.config import Quantiles, RipConfig
from rlhi.rip.rules import RuleName, gap

EXAMPLES = 3  # of each rule
FEW = 50  # pairs, under which a quantile says little of the next run's
HEADINGS: dict[RuleName, tuple[str, str]] = {
    "length": ("Too short", "The rejected answer is shorter than {limits.min_length:,.0f} characters."),
    "reward": ("Reward too low", "The rejected answer's reward is below {limits.min_reward:.4g}."),
    "gap": ("Too far apart", "The chosen answer's reward is more than {limits.max_gap:.4g} higher."),
}


@dataclass(frozen=True, slots=True)
class Calibrated:
    """All that the page shows. ``reward`` says what the rewards are, if anything did."""

    sources: Sequence[Calibration]
    proposal: Proposal | None
    floor: int
    scale: str
    reward: str


@dataclass(frozen=True, slots=True)
class Refused:
    """What one rule throws out at the limits that are shown."""

    title: str
    sentence: str
    pairs: Sequence[Pair]


def render(found: Calibrated, pictures: Mapping[AnswerSource, bytes]) -> str:
    """The page. The same pairs give the same text."""
    page = environment()
    page.filters.update(counted=counted)
    pasted = [] if found.proposal is None else settings(found.proposal, [each.source for each in found.sources])
    return page.from_string(resources.files(__package__).joinpath("calibration.html.j2").read_text()).render(
        found=found,
        pairs=[pair for each in found.sources for pair in each.pairs],
        style=style(),
        pictures={source: as_data(picture) for source, picture in pictures.items()},
        settings=pasted,
        cautions=cautions(found),
        refused={each.source: refused(each) for each in found.sources},
        rip=Quantiles(),
        gap=gap,
        examples=EXAMPLES,
    )


def refused(found: Calibration) -> list[Refused]:
    """What each rule throws out, next to its limit first."""
    if found.shown is None:
        return []
    limits = found.shown.limits
    return [
        Refused(title, sentence.format(limits=limits), thrown_out(found.pairs, limits, rule))
        for rule, (title, sentence) in ((rule, HEADINGS[rule]) for rule in RULES)
    ]


def cautions(found: Calibrated) -> list[str]:
    """What speaks against taking the figures for more than they are."""
    said = []
    if found.scale != RipConfig().scale:
        said.append(
            f"The paper's thresholds stand on the scale of {RipConfig().scale}; these rewards are on the scale "
            f"“{found.scale}”. Their line in the table shows what they would do all the same; only the length can be "
            "compared."
        )
    for each in found.sources:
        if len(each.pairs) < FEW:
            said.append(
                f"Only {counted(len(each.pairs), 'pair')} with a {each.source}: quantiles of so few move with each."
            )
    return said
