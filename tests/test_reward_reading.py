from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlhi.errors import InputError
from rlhi.records import Candidates
from rlhi.render import Renderer
from rlhi.reward.contract import KNOWN, Contract, checked, contract_of, save_contract
from rlhi.reward.model import Unscored
from rlhi.reward.reading import Reader, shortened
from tests.rewards import CHATML
from tests.rows import answer, candidates, messages

OLD = ("Tell me of figs. " * 9, "Figs are sweet. " * 9, "And of dates?", "Dates are sweet too.")


def reader(model: Path, contract: Contract, *, knows_persona: bool = True) -> Reader:
    return Reader(Renderer(AutoTokenizer.from_pretrained(str(model)), contract.persona), contract, knows_persona)


def texts(own: Reader, row: Candidates) -> list[str]:
    """What the model reads, as text; the reason where it reads nothing."""
    decode = own.renderer.tokenizer.decode
    return [one.why if isinstance(one, Unscored) else decode(one) for one in own.read(row)]


def long(row: Candidates, *said: str) -> Candidates:
    return replace(row, context=(*messages(*said), *row.context))


def test_persona_stands_where_the_contract_puts_it(tiny_model: Path) -> None:
    row = long(candidates("c", answer("Fig."), answer("Date.")), "system:Be kind.", "Hello.", "Hi.")
    system, _ = texts(reader(tiny_model, CHATML), row)
    assert system.startswith("<|im_start|>system\nYou are a helpful assistant who adapts")
    assert system.endswith("Name a fruit.<|im_end|>\n<|im_start|>assistant\nFig.<|im_end|>\n")
    last, _ = texts(reader(tiny_model, replace(CHATML, persona="last-user")), row)
    assert "system" not in last
    assert last.startswith(
        "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>user\nYou "
    )
    assert "- short\n\nBe kind.\n\nName a fruit.<|im_end|>" in last
    plain, _ = texts(reader(tiny_model, CHATML, knows_persona=False), row)
    assert plain.startswith("<|im_start|>system\nBe kind.<|im_end|>")


def test_beginning_and_end_are_as_the_contract_says_whatever_the_template_writes(tiny_model: Path) -> None:
    own = reader(tiny_model, replace(CHATML, bos=2, closing="<|pad|>"))
    own.renderer.tokenizer.bos_token = "<|im_start|>"  # which the template writes as well, once
    first, second = own.read(candidates("c", answer("Fig."), answer("Say <|pad|>!")))
    begins, closes = own.renderer.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|pad|>"])
    for ids in (first, second):
        assert isinstance(ids, list)
        assert ids[:2] == [begins, begins]
        assert ids[2] != begins
        assert [i for i, token in enumerate(ids) if token == closes] == [len(ids) - 1]  # an answer cannot write it


def test_oldest_turns_are_cut_first_and_for_all_answers_of_a_row(tiny_model: Path) -> None:
    row = long(candidates("c", answer("Fig."), answer("A date. " * 12)), *OLD)
    wholes = [len(one) for one in reader(tiny_model, CHATML).read(row)]  # type: ignore[arg-type]
    own = reader(tiny_model, replace(CHATML, max_tokens=max(wholes) - 1))
    for text in texts(own, row):
        assert "Tell me of figs" not in text
        assert "And of dates?<|im_end|>" in text
        assert "- short" in text
    assert texts(own, row)[1].endswith("A date. " * 11 + "A date. <|im_end|>\n")


def test_answer_that_does_not_fit_behind_the_last_message_is_null_and_the_others_are_not(tiny_model: Path) -> None:
    row = long(candidates("c", answer("Fig."), answer("A date. " * 99), answer(" ")), *OLD)
    read = texts(reader(tiny_model, replace(CHATML, max_tokens=400)), row)
    assert read[0].endswith("Name a fruit.<|im_end|>\n<|im_start|>assistant\nFig.<|im_end|>\n")
    assert "Figs are sweet" not in read[0] or len(read[0]) < 2000
    assert read[1:] == ["too_long", "empty_answer"]
    assert texts(reader(tiny_model, CHATML), candidates("c", answer("Fig."), persona=None)) == ["no_persona"]
    assert texts(reader(tiny_model, replace(CHATML, max_tokens=32)), candidates("c", answer("Fig."))) == ["too_long"]


def test_context_is_shortened_by_whole_turns_and_keeps_the_system_message() -> None:
    said = messages("system:Be kind.", "one", "two", "three", "four", "five")
    assert list(shortened(said)) == [said, (said[0], *said[3:]), (said[0], said[5])]


def test_contract_is_the_given_one_else_the_one_beside_the_checkpoint_else_the_known_one(tmp_path: Path) -> None:
    other = replace(CHATML, scale="other")
    with pytest.raises(InputError, match=r'nobody says how it reads a conversation; set reward.contract.*"bos": 1'):
        contract_of(str(tmp_path), None)
    save_contract(CHATML, tmp_path)
    assert contract_of(str(tmp_path), None) == CHATML
    assert contract_of(str(tmp_path), other) == other
    assert contract_of("Nexusflow/Athene-RM-8B", None).closing == "<|reserved_special_token_1|>"
    (tmp_path / "contract.json").write_text('{"scale": "tiny", "bos": 3}')
    with pytest.raises(InputError, match=r"reward.contract.bos: input should be less than or equal to 2, got 3"):
        contract_of(str(tmp_path), None)
    (tmp_path / "contract.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read"):
        contract_of(str(tmp_path), None)


def test_no_two_known_models_share_a_scale() -> None:
    assert len({contract.scale for contract in KNOWN.values()}) == len(KNOWN)


@pytest.mark.parametrize(
    ("contract", "pad", "said"),
    [
        (replace(CHATML, template="0123456789abcdef"), None, r"the contract says 0123456789abcdef; take the tokenizer"),
        (replace(CHATML, bos=1), None, r"has no token of beginning, the contract says bos=1; set it to 0"),
        (replace(CHATML, closing="<|none|>"), None, r"'<\|none\|>' is no single token of it"),
        (replace(CHATML, closing="<|pad|>"), 2, r"texts end with '<\|pad\|>', which is the padding token too"),
    ],
)
def test_tokenizer_that_does_not_keep_to_the_contract_is_refused(
    tiny_model: Path, contract: Contract, pad: int | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        checked(contract, Renderer(AutoTokenizer.from_pretrained(str(tiny_model)), contract.persona), pad)


def test_checked_contract_holds_the_template_that_is_there(tiny_model: Path) -> None:
    renderer = Renderer(AutoTokenizer.from_pretrained(str(tiny_model)), "system")
    found = checked(CHATML, renderer, 2)
    assert found.template == renderer.template_hash
    assert checked(found, renderer, 2) == found
