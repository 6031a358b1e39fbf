"""Which method of the paper an arm is, told by its settings: what its rows stand beside, and what would fill others."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Mapping[str, Any]]  # stage to config
BASE, SCRATCH, AGNOSTIC = "Llama-3.1-8B-Instruct", "RL, rewrites from scratch", "RL, user-agnostic rewards"
REWRITES, REWARDS = "RLHI, user-guided rewrites", "RLHI, user-based rewards"
SFT_REWRITES, SFT_REWARDS = "SFT, rewrites", "SFT, best samples"
UNFILTERED, UNFILTERED_REWARDS = "RLHI without filter, rewrites", "RLHI without filter, rewards"

RECIPES: Mapping[str, str] = {  # which recipe is which method
    BASE: "base-model",
    SCRATCH: "rewrites-from-scratch",
    AGNOSTIC: "user-agnostic-rewards",
    REWRITES: "user-guided-rewrites",
    REWARDS: "user-based-rewards",
    SFT_REWRITES: "sft-rewrites",
    SFT_REWARDS: "sft-rewards",
    UNFILTERED: "no-filter",
}


def method_of(settings: Settings, trained: bool) -> str | None:
    """The paper's name of the method; null where no setting tells. A model that nobody ``trained`` is the base."""
    if not trained:
        return BASE
    if "dpo" not in settings or not {"rewrite", "sample"} & settings.keys():
        return None
    return _of_rewrites(settings) if "rewrite" in settings else _of_samples(settings)


def few_users(settings: Settings) -> int | None:
    """How many users' pairs were taken at most; null for all."""
    found = settings.get("rip", {}).get("max_users")
    return None if found is None else int(found)


def _of_rewrites(settings: Settings) -> str | None:
    if list(settings["dpo"]["loss_type"]) == ["sft"]:
        return SFT_REWRITES
    if settings["rewrite"]["from_scratch"]:
        return SCRATCH
    return UNFILTERED if _unfiltered(settings, "rewrite") else REWRITES


def _of_samples(settings: Settings) -> str | None:
    if list(settings["dpo"]["loss_type"]) == ["sft"]:
        return SFT_REWARDS
    if settings.get("reward", {}).get("persona") == "off":
        return AGNOSTIC
    return UNFILTERED_REWARDS if _unfiltered(settings, "sample") else REWARDS


def _unfiltered(settings: Settings, source: str) -> bool:
    return bool(settings.get("rip", {}).get(source, {}).get("thresholds") == "off")
