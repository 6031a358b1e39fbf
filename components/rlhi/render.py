"""The one place where messages, a persona and an answer become tokens.

Sampling, training, reward, evaluation and serving all go through it, so that what is trained is what is served. Two
traps of chat templates are closed here: a template that prints today's date (Llama 3's) gets a fixed one, and a prompt
whose tokens are not a prefix of prompt + answer is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from rlhi.config import digest
from rlhi.errors import InputError
from rlhi.records import Message

DATE = datetime(2024, 7, 26)  # what Llama 3's own template falls back on
_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_PROBE = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))


def with_persona(messages: Sequence[Message], persona: str | None, role: str) -> tuple[Message, ...]:
    """Messages with the prompt of persona-guided inference (Fig. 9), as a system message or before the first user's.

    A system message of the conversation's own stays, after the persona's text. With ``last-user`` both stand before
    the last user's: for models that take no system message.
    """
    if role == "last-user":
        return _without_system(messages, persona)
    if persona is None:
        return tuple(messages)
    text = prompt("rlhi", "persona_guided.j2", persona=persona)
    if role == "system":
        own = [message.content for message in messages if message.role == "system"]
        rest = tuple(message for message in messages if message.role != "system")
        return (Message("system", "\n\n".join([text, *own])), *rest)
    first = next(index for index, message in enumerate(messages) if message.role == "user")
    joined = Message("user", f"{text}\n\n{messages[first].content}")
    return (*messages[:first], joined, *messages[first + 1 :])


def _without_system(messages: Sequence[Message], persona: str | None) -> tuple[Message, ...]:
    text = [] if persona is None else [prompt("rlhi", "persona_guided.j2", persona=persona)]
    text += [message.content for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    last = max(index for index, message in enumerate(rest) if message.role == "user")
    return (*rest[:last], Message("user", "\n\n".join([*text, rest[last].content])), *rest[last + 1 :])


def prompt(package: str, name: str, **values: object) -> str:
    """A prompt file with its variables filled in, once: braces in the values stay what they are.

    Raises:
        jinja2.UndefinedError: a variable is missing.
    """
    return _template(package, name).render(**values)


@lru_cache
def _template(package: str, name: str) -> Template:
    source = resources.files(package).joinpath(name).read_text()
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=False)  # noqa: S701  plain text, no HTML
    return environment.from_string(source)


@dataclass(frozen=True)
class Renderer:
    """Tokens of one model: ``tokenizer`` is a Hugging Face tokenizer with a chat template."""

    tokenizer: Any
    persona_role: str

    def text(self, messages: Sequence[Message], persona: str | None = None, *, answer: str | None = None) -> str:
        """The conversation as the template writes it, ready for the answer, or with ``answer`` and its end."""
        said = [*with_persona(messages, persona, self.persona_role)]
        if answer is not None:
            said.append(Message("assistant", answer))
        turns = [{"role": message.role, "content": self.harmless(message.content)} for message in said]
        shown: str = self.tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=answer is None,
            chat_template=self._pinned(),
            date_string=f"{DATE:%d %b %Y}",
        )
        return shown

    def harmless(self, text: str) -> str:
        """Text in which nothing reads as a special token: a user who types ``<|im_end|>`` ends no turn."""
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]}\u200b{token[1:]}")
        return text

    @cached_property
    def _special(self) -> list[str]:
        """What the tokenizer reads as one special token: those with a name, and all others (Llama 3's headers)."""
        others = {added.content for added in self.tokenizer.added_tokens_decoder.values() if added.special}
        return sorted(token for token in {*self.tokenizer.all_special_tokens, *others} if len(token) > 1)

    def prompt(self, messages: Sequence[Message], persona: str | None = None) -> list[int]:
        """Token ids of the prompt, up to where the answer begins."""
        return self.encode(self.text(messages, persona))

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; the template has written every special token."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def whole(self, messages: Sequence[Message], persona: str | None, answer: str) -> list[int]:
        """Token ids of prompt and answer as the template writes them together."""
        return self.encode(self.text(messages, persona, answer=answer))

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer and the token that ends the turn."""
        return [*self.encode(self.harmless(text)), self.end]

    @property
    def end(self) -> int:
        """The id of the token that ends an answer."""
        found: int = self.tokenizer.eos_token_id
        return found

    def check(self) -> None:
        """Refuses a tokenizer that would render training and serving differently.

        Raises:
            InputError: as `check_prefix`, or an answer does not end with the token that ends it.
        """
        if self.end not in self.check_prefix():
            raise InputError(f"{self.tokenizer.name_or_path}: an answer does not end with {self.tokenizer.eos_token!r}")

    def check_prefix(self) -> list[int]:
        """The tokens that the template puts behind a prompt, for an answer of one word.

        Raises:
            InputError: no chat template, no system role where one is needed, a prompt that is not a prefix, or a date
                that cannot be fixed.
        """
        if not self.tokenizer.chat_template:
            raise InputError(f"{self.tokenizer.name_or_path}: has no chat template; choose an instruct model")
        if "strftime_now(" in self._pinned():
            raise InputError(f"{self.tokenizer.name_or_path}: the chat template prints today's date; take another")
        try:
            before, after = self.text(_PROBE, "- a point"), self.text(_PROBE, "- a point", answer="four")
        except Exception as error:  # a template raises what its author chose
            raise InputError(
                f"{self.tokenizer.name_or_path}: the chat template refuses a {self.persona_role} persona ({error}); "
                "put it elsewhere: model.persona_role=user, or in a reward model's contract persona=last-user"
            ) from None
        whole = self.encode(after)
        if not after.startswith(before) or whole[: len(self.encode(before))] != self.encode(before):
            raise InputError(f"{self.tokenizer.name_or_path}: the prompt is not a token prefix of prompt + answer")
        return whole[len(self.encode(before)) :]

    def _pinned(self) -> str:
        """The chat template with a fixed day wherever it asks for today's."""
        template: str = self.tokenizer.get_chat_template()
        return _TODAY.sub(lambda call: repr(DATE.strftime(call[2])), template)

    @property
    def template_hash(self) -> str:
        """Digest of the chat template, for the manifest."""
        return digest(str(self.tokenizer.chat_template))
