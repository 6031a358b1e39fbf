"""What a reward model was trained to read, and what its numbers mean.

A reward model that reads another template, one token too few at the start or the persona in the wrong place gives
numbers all the same. So each comes with its contract: of the models named here, in ``contract.json`` beside a
checkpoint (what this project converts or trains has one), or by setting. Without one a model is not used.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhi.config import CLOSED, as_dict, as_json, parse
from rlhi.errors import InputError
from rlhi.render import Renderer

FILE = "contract.json"
MOST_BOS = 2


@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Contract:
    """How a conversation becomes the tokens of one reward model."""

    scale: str = Field(min_length=1, description="Name of the scale; thresholds hold on one scale only.")
    persona: Literal["system", "last-user"] = Field(
        default="system",
        description="System message, or before the last user message; then no system message is written at all.",
    )
    bos: int = Field(default=1, ge=0, le=MOST_BOS, description="Tokens of beginning, whatever the template writes.")
    max_tokens: int = Field(default=4096, ge=32, description="Longest input.")
    closing: str | None = Field(default=None, description="Special token behind the answer's end, where it is read.")
    bounded: bool = Field(default=False, description="Whether all scores lie in [0, 1] by design.")
    template: str | None = Field(
        default=None, description="Digest of the chat template (sha256, 16 digits); null takes what is there."
    )


# its tokenizer writes a second <|begin_of_text|> before the template's own, and cuts at 4096 tokens
ATHENE = Contract(scale="Athene-RM-8B", bos=2, max_tokens=4096, closing="<|reserved_special_token_1|>")
SKYWORK = Contract(scale="Skywork-Reward-V2", persona="last-user", max_tokens=16384)
KNOWN = {"Nexusflow/Athene-RM-8B": ATHENE} | {
    f"Skywork/Skywork-Reward-V2-{name}": replace(SKYWORK, scale=f"Skywork-Reward-V2-{name}", bos=bos)
    for bos, names in {
        1: ("Llama-3.1-8B", "Llama-3.1-8B-40M", "Llama-3.2-1B", "Llama-3.2-3B"),
        0: ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B"),
    }.items()
    for name in names
}


def contract_of(name: str, given: Contract | None, folder: Path | None = None) -> Contract:
    """The contract of the model ``name``: as given, else the one beside its checkpoint, else the known one.

    ``folder`` is that of the checkpoint, where the name is another.

    Raises:
        InputError: there is none, or its file cannot be read.
    """
    if given is not None:
        return given
    path = (folder or Path(name)) / FILE
    if path.exists():
        return _load(path)
    if name in KNOWN:
        return KNOWN[name]
    raise InputError(
        f"reward model {name!r}: nobody says how it reads a conversation; set reward.contract, for instance to "
        + json.dumps({"scale": Path(name).name, "persona": "system", "bos": 1, "max_tokens": 4096})
    )


def save_contract(contract: Contract, folder: Path) -> None:
    """Writes ``contract.json`` beside a checkpoint."""
    (folder / FILE).write_text(json.dumps(as_dict(contract), indent=2, sort_keys=True) + "\n")


def checked(contract: Contract, renderer: Renderer, pad: int | None) -> Contract:
    """``contract`` with the digest of the template that is there, once the tokenizer keeps to it.

    ``pad`` is the token that stock code takes for padding: where a text ended with it, the score would be read before.

    Raises:
        InputError: what the tokenizer does is not what the contract says.
    """
    name, tokenizer = renderer.tokenizer.name_or_path, renderer.tokenizer
    ends = renderer.check_prefix()
    if contract.template not in (None, renderer.template_hash):
        raise InputError(
            f"{name}: the chat template is {renderer.template_hash}, the contract says {contract.template}; take the "
            "tokenizer that the model was trained with"
        )
    if contract.bos and tokenizer.bos_token_id is None:
        raise InputError(f"{name}: has no token of beginning, the contract says bos={contract.bos}; set it to 0")
    if contract.closing is not None:
        ends = [closing_id(contract.closing, tokenizer)]
    if pad is not None and ends[-1] == pad:
        raise InputError(
            f"{name}: texts end with {tokenizer.convert_ids_to_tokens(pad)!r}, which is the padding token too; set "
            "another pad_token_id in its config.json"
        )
    return replace(contract, template=renderer.template_hash)


def closing_id(closing: str, tokenizer: Any) -> int:
    """The id of the closing token.

    Raises:
        InputError: the tokenizer has no such single token.
    """
    ids: list[int] = tokenizer.encode(closing, add_special_tokens=False)
    if len(ids) != 1:
        raise InputError(
            f"{tokenizer.name_or_path}: {closing!r} is no single token of it; set closing in reward.contract"
        )
    return ids[0]


def padding(tokenizer: Any, last: int, wanted: int | None) -> int:
    """A token for padding: any will do with which no text ends, ``wanted`` where that is one.

    Raises:
        InputError: all special tokens are the ``last`` one.
    """
    for found in (wanted, tokenizer.pad_token_id, tokenizer.eos_token_id, *tokenizer.all_special_ids):
        if isinstance(found, int) and found != last:
            return found
    raise InputError(f"{tokenizer.name_or_path}: has no token for padding but the last of every text; add one")


def told(contract: Contract, pad: int | None) -> str:
    """The contract as a sentence, for manifest and report."""
    where = "in the system message" if contract.persona == "system" else "before the last user message, no system role"
    closing = f"closing token {contract.closing}" if contract.closing else "no closing token"
    padding = "none" if pad is None else str(pad)
    return (
        f"It reads chat template {contract.template} (sha256, first 16 digits), tokens of beginning: {contract.bos}, "
        f"the persona {where}, at most {contract.max_tokens} tokens, {closing}, padding token: {padding}. Its scale is "
        f"{contract.scale}."
    )


def _load(path: Path) -> Contract:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); set reward.contract instead") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no contract; set reward.contract instead")
    return parse(Contract, values, "reward.contract")


def as_text(contract: Contract) -> str:
    """Canonical text: the same contract is the same text."""
    return as_json(contract)
