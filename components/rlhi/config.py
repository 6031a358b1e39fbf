"""Configs are frozen, typed and closed: an unknown field or a value out of range is refused before anything runs.

Every default is the paper's value where the paper gives one, with its section in the description. A variant is
``dataclasses.replace`` of another value.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal, NewType, TypeVar
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rlhi.errors import InputError

# A run-time value of a stage that comes from the environment and is written down nowhere, but for a digest.
Secret = NewType("Secret", str)
CLOSED = ConfigDict(extra="forbid", validate_default=True)


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class StageConfig:
    """What every stage has."""

    seed: int = Field(default=0, ge=0, description="Seed of every random choice, together with the id of the row.")

    def check(self) -> None:
        """Refuses settings that contradict each other, with an `InputError`; asked once all of them are given."""

    @property
    def asks_models(self) -> bool:
        """Whether the stage asks a language model, through an engine."""
        return any(isinstance(value, EngineConfig) for value in vars(self).values())

    @property
    def acts(self) -> bool:
        """Whether the stage changes something outside of its output, so that an earlier output cannot stand for it."""
        return False

    def exit_code(self, dropped: Mapping[str, int]) -> int:
        """What the command ends with, for a stage whose dropped rows, by reason, are an answer."""
        del dropped
        return 0


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ModelConfig:
    """A causal language model and how conversations are rendered for it."""

    id: str = Field(
        default="embedded",
        min_length=1,
        description="Hugging Face id or hf://ORG/NAME@COMMIT, local folder, s3://BUCKET/FOLDER@DIGEST, or 'embedded':"
        " SmolLM2-135M.",
    )
    revision: str | None = Field(
        default=None, description="Commit of a Hugging Face id, digest of a listing on S3; pin it, here or in the id."
    )
    persona_role: Literal["system", "user"] = Field(
        default="system",
        description="Where the persona goes: system message (Fig. 9), or before the first user message (3.4).",
    )
    max_prompt_tokens: int = Field(
        default=4096, ge=32, description="Rows with a longer prompt are dropped with a reason."
    )
    device: str = Field(default="auto", description="torch device; 'auto' is the first GPU, else the CPU.")

    @property
    def name(self) -> str:
        """What a reader knows the model as."""
        return "SmolLM2-135M-Instruct" if self.id == "embedded" else self.id.removeprefix("hf://")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class ServerConfig:
    """An OpenAI-compatible server, how patiently it is asked, and what that may cost. It holds no secret."""

    url: str = Field(default="http://localhost:8000/v1", description="Where /chat/completions is.")
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="Name of the environment variable with the key; unset is no key."
    )
    api_key_file: str | None = Field(default=None, description="File with the key, instead of the variable.")
    concurrency: int = Field(default=256, ge=1, description="Most requests at a time; the server's pace may lower it.")
    max_n: int = Field(default=64, ge=1, description="Samples asked for at once; 1 where the server takes no n.")
    logprobs: bool = Field(default=True, description="Ask for log-probabilities; reasoning models refuse.")
    choice: Literal["structured", "text"] = Field(
        default="structured",
        description="A choice by vLLM's structured outputs, or read out of the text, for servers without them.",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description='More fields of the body, such as {"reasoning_effort": "low"}; null takes a field out.',
    )
    tokenizer: str | None = Field(
        default=None, description="Hugging Face id or folder that counts tokens; null: bytes / 3, an estimate."
    )
    timeout: float = Field(default=600, gt=0, description="Seconds for one try.")
    deadline: float = Field(default=3600, gt=0, description="Seconds for a request over all its tries.")
    give_up_after: float = Field(default=600, gt=0, description="Seconds in which the server answers nothing at all.")
    price_in: float = Field(default=0, ge=0, description="Dollars for a million prompt tokens.")
    price_out: float = Field(default=0, ge=0, description="Dollars for a million answer tokens.")
    max_cost: float | None = Field(
        default=None, gt=0, description="Dollars that a stage may spend, each time it is started."
    )
    max_tokens_total: int | None = Field(
        default=None, ge=1, description="Tokens, in and out, that a stage may use, each time it is started."
    )

    def __post_init__(self) -> None:
        """Refuses what would put a secret into manifests. The messages do not repeat the values, which may be one."""
        if not _is_address(self.url):
            raise InputError("engine.server.url: not an address like http://localhost:8000/v1")
        parts = urlsplit(self.url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError("engine.server.url: holds more than an address; a key goes into the variable api_key_env")
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):  # in capitals, as keys are not
            raise InputError("engine.server.api_key_env: not the NAME of a variable; the key itself is no setting")
        ours = sorted({"messages", "model", "n", "stream"} & self.extra.keys())
        if ours:
            raise InputError(f"engine.server.extra: {', '.join(ours)} cannot be set there")
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise InputError(f"engine.server.max_cost={self.max_cost}: needs price_in and price_out")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class VllmConfig:
    """vLLM in this process, on the GPUs of this machine."""

    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that hold one copy of the model together.")
    data_parallel: int = Field(default=1, ge=1, description="Copies of the model that answer side by side.")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1, description="Share of a GPU's memory to use.")
    max_model_len: int | None = Field(
        default=None, ge=64, description="Tokens of prompt and answer; null: the model's own, or what the memory holds."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Of weights; 'auto' is bfloat16 on a GPU and float32 on a CPU."
    )
    logprobs: bool = Field(default=True, description="Keep the log-probability of each answer.")


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class EngineConfig:
    """Who answers the model calls of a stage."""

    kind: Literal["auto", "vllm", "transformers", "openai", "scripted"] = Field(
        default="auto",
        description="Engine; 'auto' is vllm where it and a GPU are, else transformers; 'openai' asks a server, "
        "'scripted' is for dry runs.",
    )
    model: ModelConfig = Field(default_factory=ModelConfig)
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    server: ServerConfig = Field(default_factory=ServerConfig)
    script: str | None = Field(default=None, description="JSON file with the scripted engine's rules.")
    batch_size: int = Field(default=32, ge=1, description="Sequences computed at a time (transformers).")

    @property
    def name(self) -> str:
        """Who a reader knows to have answered."""
        return "a script" if self.kind == "scripted" else self.model.name


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class SamplingConfig:
    """How answers are drawn."""

    temperature: float = Field(default=0.6, ge=0, description="0 is greedy (3.1: T = 0.6).")
    top_p: float = Field(default=0.9, gt=0, le=1, description="Nucleus (3.1: top-p = 0.9).")
    max_tokens: int = Field(default=1024, ge=1, description="Longest answer.")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in ("http", "https") and parts.port != 0 and bool(host) and not any(map(str.isspace, url))
    except ValueError:  # a port that is none, a host that can be none
        return False


def secret_variable(name: str) -> str:
    """The environment variable that holds a `Secret`; in a manifest, the name of its digest."""
    return f"RLHI_{name.upper()}"


C = TypeVar("C")


def parse(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Builds a config of ``cls`` from nested ``values``; ``where`` names them in the error.

    Raises:
        InputError: an unknown field or a value out of range, in one line.
    """
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise InputError("; ".join(_explain(problem, where) for problem in error.errors())) from None


def _explain(problem: Any, where: str) -> str:
    path = ".".join(str(part) for part in problem["loc"] if part != "function-after")
    if problem["type"] == "unexpected_keyword_argument":
        return f"{where}.{path}: no such field; 'rlhi {where.split('.')[0]} --help' lists them"
    return f"{where}.{path}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


def override(config: C, path: str, text: str, where: str) -> C:
    """``config`` with the field at the dotted ``path`` set from ``text`` (JSON, or else a plain string)."""
    values: dict[str, Any] = as_dict(config)
    node: Any = values
    *parents, leaf = path.split(".")
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            raise InputError(f"{where}.{path}: no such field; 'rlhi {where} --help' lists them")
        node = node[parent]
    node[leaf] = from_text(text)
    return parse(type(config), values, where)


def from_text(text: str) -> Any:
    """A flag's value: JSON where it parses, else the string itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def from_flag(text: str) -> dict[str, Any]:
    """The settings in the value of ``--config``.

    Raises:
        InputError: it is no JSON object.
    """
    values = from_text(text)
    if not isinstance(values, dict):
        raise InputError(f"--config: expected a JSON object, got {text!r}")
    return values


def as_dict(config: object) -> dict[str, Any]:
    """Plain nested values, ready for JSON."""
    return asdict(config)  # type: ignore[call-overload,no-any-return]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each leaf of nested values by its dotted path, as JSON."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False, default=str)


def as_json(config: object) -> str:
    """Canonical JSON: the same config is the same text."""
    return json.dumps(as_dict(config), sort_keys=True)


def digest(text: str | bytes) -> str:
    """The first 16 hex digits of the sha256."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]
