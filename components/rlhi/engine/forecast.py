"""What a judge may be asked and may cost, told before the first question is sent."""

from collections.abc import Sequence

from rlhi.config import EngineConfig


def forecast(who: str, prompts: Sequence[int], longest: int, judge: EngineConfig) -> str:
    """A sentence, from the tokens of each prompt and of the longest answer, and the prices of the judge's server."""
    tokens_in, tokens_out = sum(prompts), len(prompts) * longest
    return (
        f"{who}: {len(prompts):,} questions to the judge, about {tokens_in:,} prompt tokens and at most"
        f" {tokens_out:,} of answers{_dollars(judge, tokens_in, tokens_out)}; what is in the store of replies is"
        " not asked again"
    )


def _dollars(judge: EngineConfig, tokens_in: int, tokens_out: int) -> str:
    """What the tokens cost where the judge's server has prices, and the cap."""
    server = judge.server
    if judge.kind != "openai" or not (server.price_in or server.price_out):
        return ""
    least, answers = tokens_in * server.price_in / 1e6, tokens_out * server.price_out / 1e6
    cap = "no cap" if server.max_cost is None else f"judge.server.max_cost={server.max_cost}"
    return f": ${least:.2f} to ${least + answers:.2f} ({cap})"
