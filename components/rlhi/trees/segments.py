"""The segments of a packed row: which tokens see which."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

Span = tuple[int, int]  # first token, and the one after the last


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens ``start`` to ``stop`` of a row. They see ``context``, spans of earlier tokens in order, and themselves."""

    start: int
    stop: int
    context: tuple[Span, ...]

    @property
    def length(self) -> int:
        """Its own tokens."""
        return self.stop - self.start

    @property
    def before(self) -> int:
        """Tokens of its context."""
        return sum(stop - start for start, stop in self.context)

    @property
    def spans(self) -> tuple[Span, ...]:
        """All that its last token sees."""
        return (*self.context, (self.start, self.stop))


@dataclass(frozen=True, slots=True)
class Index:
    """The segments as tensors. ``seen`` are the tokens that each segment sees, one segment after the other."""

    seen: torch.Tensor
    own_starts: torch.Tensor
    seen_starts: torch.Tensor
    longest_own: int
    longest_seen: int


class Segments:
    """The segments of a row, in its order and without gaps. What layers ask for is made once: all ask for the same."""

    def __init__(self, each: Sequence[Segment]) -> None:
        self.each = tuple(each)
        self._masks: dict[int, torch.Tensor] = {}
        self._index: Index | None = None

    def mask(self, segment: Segment, like: torch.Tensor) -> torch.Tensor:
        """0, or minus infinity on what a token must not see: (own tokens, context and own tokens), as ``like`` is.

        Segments whose contexts are of one length cut theirs from one mask.
        """
        before = segment.before
        if before not in self._masks:
            longest = max(each.length for each in self.each if each.before == before)
            hidden = torch.ones(longest, before + longest, dtype=torch.bool, device=like.device).triu(before + 1)
            self._masks[before] = torch.zeros_like(hidden, dtype=like.dtype).masked_fill_(hidden, float("-inf"))
        return self._masks[before][: segment.length, : before + segment.length]

    def index(self, device: torch.device) -> Index:
        """For kernels that take all segments at once; starts are int32, one more than there are segments."""
        if self._index is None:
            own = [each.length for each in self.each]
            seen = [each.before + each.length for each in self.each]
            spans = [torch.arange(start, stop) for each in self.each for start, stop in each.spans]
            self._index = Index(
                torch.cat(spans).to(device), _starts(own, device), _starts(seen, device), max(own), max(seen)
            )
        return self._index


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32, device=device)
