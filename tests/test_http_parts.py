"""The parts of the HTTP engine that need no server."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from rlhi.config import ServerConfig, parse
from rlhi.engine.http.budget import Budget, Load
from rlhi.engine.http.client import retry_after
from rlhi.engine.http.pace import START, Pace
from rlhi.engine.http.secret import read_key
from rlhi.engine.http.wire import UnreadableError, error_message, read
from rlhi.engine.seeds import runs, seed_of
from rlhi.errors import InputError


@pytest.mark.parametrize(
    ("samples", "most", "expected"),
    [
        ([0, 1, 2, 3], 64, [range(4)]),
        ([0, 1, 2, 3, 4], 2, [range(2), range(2, 4), range(4, 5)]),
        ([7, 3, 4], 64, [range(3, 5), range(7, 8)]),
        ([2, 2], 64, [range(2, 3)]),
        ([0, 1], 1, [range(1), range(1, 2)]),
        ([], 64, []),
    ],
)
def test_samples_become_runs_without_gaps(samples: list[int], most: int, expected: list[range]) -> None:
    assert runs(samples, most) == expected


def test_seeds_fit_32_bits_and_follow_row_seed_and_sample() -> None:
    seeds = [seed_of(seed, key, sample) for seed in range(5) for key in ("a", "b") for sample in (0, 1)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed_of(0, str(key), 64) < 2**31 for key in range(10_000))
    assert seed_of(3, "row", 5) == seed_of(3, "row", 0) + 5


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"index": 0}]}',
        b'{"error": "busy"}',
        b"\xff",
    ],
)
def test_body_that_is_no_completion_is_unreadable(raw: bytes) -> None:
    with pytest.raises(UnreadableError):
        read(raw)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": "many", "completion_tokens": 2.5, "prompt_tokens_details": "none"},
        {"prompt_tokens_details": {"cached_tokens": None}},
    ],
)
def test_usage_that_is_missing_or_odd_is_unknown(usage: Any) -> None:
    choice = {"index": 0, "message": {"content": "Fig."}, "finish_reason": "stop"}
    found = read(orjson.dumps({"choices": [choice], "usage": usage}))
    assert (found.said[0].text, found.tokens_in, found.tokens_out) == ("Fig.", None, None)
    assert found.tokens_cached is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"error": {"message": "no", "code": "content_filter"}}', ("no", "content_filter")),
        (b'{"error": {"message": "no", "code": 400}}', ("no", "400")),
        (b'{"error": "no"}', ("no", "")),
        (b'{"object": "error", "message": "no"}', ("no", "")),
        (b"<html>no</html>", ("<html>no</html>", "")),
        (b"[1]", ("[1]", "")),
        (b'{"error": null}', ("None", "")),
        (b"\xff", ("\ufffd", "")),
    ],
)
def test_servers_words_are_found(raw: bytes, expected: tuple[str, str]) -> None:
    assert error_message(raw) == expected


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("7") == 7
    assert retry_after("0.5") == 0.5
    assert retry_after("-3") == 0
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=2)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


async def _passed(pace: Pace) -> int:
    """How many go at once now."""

    async def one() -> None:
        await pace.acquire()
        going.append(1)
        await asyncio.sleep(3600)

    going: list[int] = []
    tasks = [asyncio.create_task(one()) for _ in range(1000)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in going:
        pace.release()
    return len(going)


def test_pace_doubles_until_the_first_objection_and_then_creeps() -> None:
    async def scene() -> None:
        pace = Pace(most=300)
        assert await _passed(pace) == START
        for _ in range(START):
            pace.grow()
        assert await _passed(pace) == 2 * START
        before = asyncio.get_running_loop().time()
        pace.halve(before)
        assert await _passed(pace) == START
        pace.halve(before)  # sent before the halving: it says nothing new
        assert await _passed(pace) == START
        for _ in range(START):
            pace.grow()
        assert pace.limit == pytest.approx(START + 1, abs=0.05)
        for _ in range(100_000):
            pace.grow()
        assert await _passed(pace) == 300

    asyncio.run(scene())


def test_pace_never_stops_all() -> None:
    async def scene() -> None:
        pace = Pace(most=4)
        for _ in range(20):
            await asyncio.sleep(0.001)
            pace.halve(asyncio.get_running_loop().time())
        assert await _passed(pace) == 1

    asyncio.run(scene())


def test_nothing_goes_while_it_is_held() -> None:
    async def scene() -> None:
        held = Pace(most=4)
        held.hold(3600)
        assert await _passed(held) == 0
        pace = Pace(most=4)
        clock = asyncio.get_running_loop().time
        begun = clock()
        pace.hold(0.2)
        await pace.acquire()
        assert clock() - begun >= 0.2
        pace.release()
        assert await _passed(pace) == 4

    asyncio.run(scene())


def test_cap_waits_for_what_is_under_way_before_it_ends_the_stage() -> None:
    async def scene() -> None:
        budget = Budget(ServerConfig(max_tokens_total=100))
        await budget.reserve(Load(10, 80))
        waiting = asyncio.create_task(budget.reserve(Load(10, 20)))
        await asyncio.sleep(0)
        assert not waiting.done()
        budget.used += Load(10, 5)
        budget.settle(Load(10, 80))
        await waiting
        budget.settle(Load(10, 20))
        with pytest.raises(InputError, match="max_tokens_total=100"):
            await budget.reserve(Load(10, 80))

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "localhost:8000"}, "url: not an address"),
        ({"url": "ftp://host/v1"}, "url: not an address"),
        ({"url": "http://"}, "url: not an address"),
        ({"url": "http://host:99999/v1"}, "url: not an address"),
        ({"url": "http://a..b/v1"}, "url: not an address"),
        ({"url": "http://a b/v1"}, "url: not an address"),
        ({"url": "http://me:hidden@host/v1"}, "url: holds more than an address"),
        ({"url": "http://host/v1?key=hidden"}, "url: holds more than an address"),
        ({"api_key_env": "sk-hidden"}, "api_key_env: not the NAME of a variable"),
        ({"api_key_env": "hidden123"}, "api_key_env: not the NAME of a variable"),
        ({"extra": {"n": 3}}, "extra: n cannot be set there"),
        ({"max_cost": 3}, r"max_cost=3\.0: needs price_in and price_out"),
        ({"max_cost": 0}, "max_cost: input should be greater than 0"),
        ({"speed": 3}, "no such field"),
    ],
)
def test_setting_that_cannot_be_is_refused_and_no_secret_repeated(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse(ServerConfig, settings, "judge")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", ["two words", "line\nline", "caf\u00e9", "tab\there", "nul\0"])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match=r"api_key_file='.*key': holds something that is no key") as caught:
        read_key(ServerConfig(api_key_file=str(tmp_path / "key")))
    assert text not in str(caught.value)
    if "\0" not in text:
        monkeypatch.setenv("OPENAI_API_KEY", text)
        with pytest.raises(InputError, match=r"\$OPENAI_API_KEY: holds something"):
            read_key(ServerConfig())


def test_key_file_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"api_key_file='.*none': cannot be read: No such file"):
        read_key(ServerConfig(api_key_file=str(tmp_path / "none")))
    (tmp_path / "key").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_key(ServerConfig(api_key_file=str(tmp_path / "key")))


def test_key_has_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    assert "hidden" not in repr(read_key(ServerConfig()))
