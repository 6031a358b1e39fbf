from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlhi.cli import main
from rlhi.config import SamplingConfig
from rlhi.engine import Request, choose, generate
from rlhi.engine.scripted import ScriptedEngine
from rlhi.engine.sharded import Shard, ShardEngine
from tests.rows import messages

SHARD = Shard(1, 2)
NOBODYS = Request("nobody", messages("Fruit?"))


@pytest.mark.parametrize(
    ("stage", "shard", "store", "message"),
    [
        ("classify", "0/3", True, "shard 0/3: not one of 1/N to N/N"),
        ("classify", "4/3", True, "shard 4/3: not one of"),
        ("classify", "1/65", True, "with N at most 64"),
        ("classify", "half", True, "shard half: write I/N"),
        ("classify", "1/3", False, "set RLHI_REPLIES"),
        ("rip", "1/3", True, "--shard: rip asks no model"),
    ],
)
def test_shard_that_cannot_be_is_refused_in_one_line(
    stage: str,
    shard: str,
    store: bool,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if store:
        monkeypatch.setenv("RLHI_REPLIES", str(tmp_path / "replies.sqlite"))
    names = {"classify": ("conversations", "turns"), "rip": ("scored", "pairs")}[stage]
    argv = [part for name in names for part in (f"--{name}", str(tmp_path / name))]
    assert main([stage, *argv, "--shard", shard]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_every_user_is_in_one_shard_and_shards_are_of_a_size() -> None:
    users = [f"u{i}" for i in range(2000)]
    for count in (1, 3, 64):
        shards = [Shard(number, count) for number in range(1, count + 1)]
        sizes = Counter(next(shard.number for shard in shards if shard.has(user)) for user in users)
        assert all(sum(shard.has(user) for shard in shards) == 1 for user in users)
        assert max(sizes.values()) < 2 * len(users) / count
        assert all(shard.has(None) for shard in shards)
    assert Shard.parse("3/8") == Shard(3, 8)
    # now and on every machine
    assert [user for user in users[:12] if Shard(1, 3).has(user)] == ["u0", "u2", "u3", "u4", "u5", "u6", "u9"]


@dataclass
class Asked:
    """The engine of the first of two shards, before one that says who asked, and who was asked about."""

    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.requests = [*(Request(f"u{i}", messages("Fruit?"), None, f"u{i}") for i in range(6)), NOBODYS]
        self.own = [each.key for each in self.requests if SHARD.has(each.user_id)]
        model = ScriptedEngine(lambda request, n: f"{request.key} {n}", hear=lambda key, _: self.heard.append(key))
        self.engine = ShardEngine(model, SHARD)


def test_shard_has_replies_for_its_own_users_and_for_nobody() -> None:
    asked = Asked()
    replies = generate(asked.engine, asked.requests, SamplingConfig(), 2, 0)
    for request, own in zip(asked.requests, replies, strict=True):
        expected = [f"{request.key} 0", f"{request.key} 1"] if request.key in asked.own else ["", ""]
        assert [reply.text for reply in own] == expected
    assert asked.heard == [key for key in asked.own for _ in range(2)]
    assert 1 < len(asked.own) < len(asked.requests)


def test_shard_has_scores_for_its_own_users_and_for_nobody() -> None:
    asked = Asked()
    scores = choose(asked.engine, asked.requests, ["nobody 0", "no"])
    for request, own in zip(asked.requests, scores, strict=True):
        assert own == ([-1.0 * (request is not NOBODYS), -1.0] if request.key in asked.own else [0.0, 0.0])
    assert asked.heard == asked.own


def test_prompts_of_others_are_too_long_for_a_shard() -> None:
    asked = Asked()
    fits = [each.key for each in asked.requests if asked.engine.count_tokens(each) <= asked.engine.max_prompt_tokens]
    assert fits == asked.own
