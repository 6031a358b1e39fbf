"""Rewards of a vLLM server that runs a sequence classifier: ``vllm serve MODEL --runner pooling``, its /classify.

What is sent are token ids, made here as the contract says, so that the server neither renders nor cuts. vLLM puts a
sigmoid on a single label unless it is told not to, so it is told; that it obeys, the probe shows. One request asks for
all answers of a row, whose shared beginning the server computes once.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from rlhi.config import EngineConfig, digest
from rlhi.engine import tally
from rlhi.engine.http.budget import Load
from rlhi.engine.http.client import Client, Service
from rlhi.engine.http.secret import read_key
from rlhi.engine.http.sending import Sender, UnansweredError
from rlhi.engine.http.thread import Put
from rlhi.engine.http.wire import UnreadableError
from rlhi.errors import InputError
from rlhi.records import Candidates
from rlhi.render import prompt
from rlhi.reward.contract import Contract, as_text, checked, contract_of, told
from rlhi.reward.model import Score, Unscored, number
from rlhi.reward.reading import Reader, Tokens

Rewards = list[float | None]


@dataclass(frozen=True, slots=True)
class _Job:
    place: int
    wholes: list[Tokens]

    @property
    def most(self) -> Load:
        return Load(sum(map(len, self.wholes)), 0)

    @property
    def replies(self) -> int:
        return 1


class ServedClassifier:
    """Asks the server for the scores of rows; ``reader`` makes their tokens."""

    def __init__(self, engine: EngineConfig, reader: Reader, first_wait: float = 0.5) -> None:
        server = engine.server
        url = f"{server.url.rstrip('/').removesuffix('/v1')}/classify"  # it lies beside the API of OpenAI's making
        self.reader = reader
        self.scale = reader.contract.scale
        self.bounded = reader.contract.bounded
        self.name = engine.model.id
        self._sender = Sender(Service(server, read_key(server), url, read_scores), first_wait)
        self._extra = server.extra
        self._revision = engine.model.revision

    def score(self, rows: Sequence[Candidates]) -> list[list[Score]]:
        """Rewards on the scale of the model.

        Null for an empty answer, a missing persona, what is too long, and a row that the server does not answer.

        Raises:
            InputError: the server refuses, is silent, has other labels than one, or too many requests were given up.
        """
        read = [self.reader.read(row) for row in rows]
        jobs = [
            _Job(place, wholes)
            for place, own in enumerate(read)
            if (wholes := [one for one in own if not isinstance(one, Unscored)])
        ]
        rewards: dict[int, Rewards] = {}
        try:
            for place, own in self._sender.send(jobs, self._ask):
                rewards[place] = own
        except UnansweredError as error:
            self._sender.bear(error)
        return [_beside(own, rewards.get(place, [])) for place, own in enumerate(read)]

    @property
    def note(self) -> str:
        """The model, what was checked of it, and whether it sees the persona."""
        seen = "" if self.reader.knows_persona else " without the persona (user-agnostic)"
        pad = self.reader.renderer.tokenizer.pad_token_id
        return f"The reward is the score of {self.name} on a server{seen}. {told(self.reader.contract, pad)}"

    @property
    def identity(self) -> str:
        """The model's name there and how it is asked; not where, how fast or with whose key."""
        persona = [prompt("rlhi", "persona_guided.j2", persona=""), self.reader.knows_persona]
        how = [as_text(self.reader.contract), self._extra, self._revision, persona]
        return f"classify {self.name} {digest(str(how))}"

    async def _ask(
        self, client: Client[Rewards], job: "_Job", waiting: "deque[_Job]", put: Put[tuple[int, Rewards]]
    ) -> None:
        del waiting  # a row is asked for whole
        budget, most = self._sender.budget, job.most
        await budget.reserve(most)
        try:
            asked = {"model": self.name, "input": job.wholes, "use_activation": False, **self._extra}
            rewards = await client.ask(orjson.dumps(asked), most)
            if rewards is None or len(rewards) != len(job.wholes):
                raise InputError(f"{self.name}: the server answered {len(job.wholes)} texts with other than one score")
            budget.spend(most)
            tally.add("prompt_tokens", most.tokens_in)
            budget.answered += 1
            await put((job.place, rewards))
        finally:
            budget.settle(most)


def served_classifier(engine: EngineConfig, given: Contract | None, *, knows_persona: bool) -> ServedClassifier:
    """The classifier behind ``engine.server``, whose tokenizer is read here.

    Raises:
        InputError: no tokenizer or no contract, or the tokenizer does not do what the contract says.
    """
    from rlhi.engine.http.engine import load_renderer

    tokenizer = engine.server.tokenizer
    if tokenizer is None:
        raise InputError(
            "reward.engine.server.tokenizer: is not set; give the Hugging Face id or folder of the reward model, whose "
            "tokens are sent"
        )
    if engine.model.id == "embedded":
        raise InputError("reward.engine.model.id='embedded': give the name that the server has for its model")
    contract = contract_of(tokenizer, given)
    renderer = load_renderer(tokenizer, contract.persona)
    return ServedClassifier(engine, Reader(renderer, checked(contract, renderer, None), knows_persona))


def read_scores(raw: bytes) -> Rewards:
    """One score per text, in the order in which they were sent.

    Raises:
        UnreadableError: no answer of /classify.
        InputError: the model has other labels than one.
    """
    try:
        rows = sorted(orjson.loads(raw)["data"], key=lambda row: row["index"])
        scores = [list(row["probs"]) for row in rows]
    except (ValueError, KeyError, TypeError):
        raise UnreadableError("no scores") from None
    if any(len(own) != 1 for own in scores):
        raise InputError(f"reward server: its model has {len(scores[0])} labels, a reward model has one")
    return [own[0] for own in scores]


def _beside(read: Sequence[Tokens | Unscored], rewards: Rewards) -> list[Score]:
    left = map(_number, rewards)
    return [one if isinstance(one, Unscored) else next(left, Unscored("unanswered")) for one in read]


def _number(value: float | None) -> Score:
    return Unscored("not_a_number") if value is None else number(value)
