"""The transformers engine: batches of similar length, shared prompts computed once, rows leave when they are done.

The random numbers of an answer come from seed, key and number of the sample alone, but the logits do hang a little on
the other rows of a batch: sums are taken in another order where the padding or the number of rows differs, and so the
last bits move (1e-6 in float32). A run that was stopped and goes on asks for other batches than one that was not. Its
texts are the same, except where a random number falls within that distance of the border between two tokens, or two
logits tie; its log-probabilities are the same to about 1e-4.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlhi.config import SamplingConfig
from rlhi.engine import Reply, Request, tally
from rlhi.engine.cache import with_room
from rlhi.engine.families import families
from rlhi.engine.models import Policy
from rlhi.engine.prefix import Prefilled, prefill
from rlhi.records import FinishReason
from rlhi.trees import Tree, best_layout, stream_logprobs

CHOOSING = 4096  # tokens of a row of choices: larger ones are hardly faster, and more is lost with a kill
LIKELY = 256  # tokens that nearly always hold the nucleus; finding them is much cheaper than sorting all


class TransformersEngine:
    """Answers with a Hugging Face model, ``batch_size`` sequences at a time."""

    def __init__(self, policy: Policy, batch_size: int) -> None:
        self.policy = policy
        self.batch_size = batch_size

    def stream(
        self, requests: Sequence[Request], sampling: SamplingConfig, samples: Sequence[Sequence[int]], seed: int
    ) -> Iterator[tuple[int, int, Reply]]:
        """Replies batch by batch, the short prompts first; in a batch as they end."""
        asked = [place for place, numbers in enumerate(samples) if numbers]
        if not asked:
            return
        prompts = [self.policy.renderer.prompt(requests[i].messages, requests[i].persona) for i in asked]
        sequences = [len(samples[i]) for i in asked]
        for batch, prefilled in prefill(self.policy, prompts, sequences, self.batch_size):
            places = [(row, asked[i], k) for row, i in enumerate(batch) for k in samples[asked[i]]]
            state = prefilled.select(torch.tensor([row for row, _, _ in places]))
            noise = [_uniforms(seed, requests[i].key, k, sampling.max_tokens) for _, i, k in places]
            for row, drawn in _decode(self.policy, state, sampling, np.stack(noise)):
                tally.add("tokens", len(drawn.tokens))
                yield (*places[row][1:], self._reply(drawn))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def weigh(self, requests: Sequence[Request], choices: Sequence[str]) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities of the choices as beginnings of the answer, row of trees by row."""
        prompts = [self.policy.renderer.prompt(request.messages, request.persona) for request in requests]
        tokens = [self.policy.renderer.encode(choice) for choice in choices]
        for family in families(prompts):
            trees = [Tree(prompts[i], tokens) for i in family]
            for place, scores in stream_logprobs(self.policy.model, trees, best_layout(self.policy.model), CHOOSING):
                yield family[place], scores.tolist()

    def count_tokens(self, request: Request) -> int:
        """Tokens of the rendered prompt."""
        return len(self.policy.renderer.prompt(request.messages, request.persona))

    @property
    def max_prompt_tokens(self) -> int:
        """As configured."""
        return self.policy.config.max_prompt_tokens

    @property
    def identity(self) -> str:
        """Model, template and persona's role, and the kind of number that is computed with."""
        policy = self.policy
        template, role = policy.renderer.template_hash, policy.renderer.persona_role
        return f"transformers {policy.weights} {template} {role} {policy.dtype} {policy.device.type}"

    def _reply(self, drawn: "_Drawn") -> Reply:
        text = self.policy.renderer.tokenizer.decode(drawn.tokens, skip_special_tokens=True).strip()
        return Reply(text, drawn.finish_reason, drawn.logprob)


@dataclass
class _Drawn:
    tokens: list[int]
    logprob: float = 0.0
    finish_reason: FinishReason = "length"


def _uniforms(seed: int, key: str, sample: int, count: int) -> np.ndarray:
    """One number in [0, 1) per token, from the seed, the row and the number of the sample alone."""
    name = hashlib.sha256(f"{seed}\0{key}\0{sample}".encode()).digest()
    return np.random.default_rng(int.from_bytes(name[:16], "big")).random(count)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _decode(
    policy: Policy, state: Prefilled, sampling: SamplingConfig, noise: np.ndarray
) -> Iterator[tuple[int, _Drawn]]:
    """Draws token by token; ``noise`` is (rows, max_tokens). A row that ends leaves the batch, with its number."""
    state.cache = with_room(state.cache)
    drawn = [_Drawn([]) for _ in noise]
    active = list(range(len(drawn)))
    for step in range(sampling.max_tokens):
        tokens = _sample(state.logits, sampling, torch.from_numpy(noise[active, step]).to(policy.device))
        logprobs = state.logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0].tolist()
        for row, token, logprob in zip(active, tokens.tolist(), logprobs, strict=True):
            drawn[row].logprob += logprob
            if token == policy.renderer.end:
                drawn[row].finish_reason = "stop"
            else:
                drawn[row].tokens.append(token)
        going = [i for i, row in enumerate(active) if drawn[row].finish_reason == "length"]
        yield from ((row, drawn[row]) for row in active if drawn[row].finish_reason == "stop")
        if not going or step + 1 == sampling.max_tokens:
            break
        if len(going) < len(active):
            kept = torch.tensor(going)
            state, tokens, active = state.select(kept), tokens[kept], [active[i] for i in going]
        state = _step(policy, state, tokens)
    yield from ((row, drawn[row]) for row in active if drawn[row].finish_reason == "length")


def _step(policy: Policy, state: Prefilled, tokens: torch.Tensor) -> Prefilled:
    mask = torch.cat([state.mask, torch.ones_like(state.mask[:, :1])], 1)
    out = policy.model(
        tokens[:, None],
        attention_mask=mask,
        position_ids=state.length[:, None],
        past_key_values=state.cache,
        use_cache=True,
    )
    return Prefilled(out.past_key_values, mask, state.length + 1, out.logits[:, -1].float())


def _sample(logits: torch.Tensor, sampling: SamplingConfig, uniform: torch.Tensor) -> torch.Tensor:
    """Nucleus sampling by inversion: the token whose share of the nucleus holds ``uniform``."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / sampling.temperature).softmax(-1)
    ordered, ids = probabilities.topk(min(LIKELY, logits.shape[-1]))
    if (ordered.sum(-1) < sampling.top_p).any():  # a wide nucleus: sort them all
        ordered, ids = probabilities.sort(-1, descending=True)
    below = ordered.cumsum(-1) - ordered
    nucleus = torch.where(below < sampling.top_p, ordered, 0.0).cumsum(-1)
    place = torch.searchsorted(nucleus, (uniform.to(nucleus.dtype) * nucleus[:, -1])[:, None], right=True)
    return ids.gather(1, place.clamp(max=ids.shape[1] - 1))[:, 0]
