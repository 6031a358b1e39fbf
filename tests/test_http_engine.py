"""The engine against a real server on loopback that fails as servers do."""

import logging
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rlhi.config import ModelConfig, SamplingConfig, ServerConfig
from rlhi.engine import FILTERED, UNANSWERED, Reply, Request, choose
from rlhi.engine.http.engine import HttpEngine
from rlhi.errors import InputError
from tests.chat_server import ChatServer, Fault
from tests.rows import messages

KEY = "sk-secret/0123456789abcdef"
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.9, max_tokens=20)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def engine(server: ChatServer | str, **settings: Any) -> HttpEngine:
    url = server if isinstance(server, str) else server.url
    return HttpEngine(ModelConfig(id="judge"), ServerConfig(url=url, **settings), first_wait=0.02)


def requests(count: int) -> list[Request]:
    return [Request(f"r{i}", messages(f"question {i}")) for i in range(count)]


def echo(body: dict[str, Any], sample: int) -> str:
    """An answer that tells question, seed and sample, as a server that keeps to seeds would."""
    return f"{body['messages'][-1]['content']} {body['seed'] + sample}"


def ask(
    asked: HttpEngine, rows: Sequence[Request], n: int = 1, seed: int = 0, sampling: SamplingConfig = SAMPLING
) -> dict[tuple[int, int], Reply]:
    return {
        (place, sample): reply for place, sample, reply in asked.stream(rows, sampling, [range(n)] * len(rows), seed)
    }


def gather(places: list[int], asked: HttpEngine, rows: Sequence[Request]) -> None:
    """Puts the places of the rows that are answered into ``places``, also where it ends with an error."""
    for place, _, _ in asked.stream(rows, SAMPLING, [[0]] * len(rows), 0):
        places.append(place)


def bad_days(number: int) -> Fault | None:
    """A tenth of errors, a twentieth hangs, some bodies cut or garbled, and a burst of 429."""
    if 60 <= number < 75:
        return "429"
    drawn = random.Random(number).random()
    for fault, share in (("500", 0.10), ("hang", 0.15), ("truncate", 0.17), ("garble", 0.19)):
        if drawn < share:
            return fault  # type: ignore[return-value]
    return None


def test_every_row_is_answered_on_a_bad_day_and_as_on_a_good_one() -> None:
    rows = requests(300)
    with ChatServer(echo) as good:
        expected = ask(engine(good), rows)
    with ChatServer(echo, bad_days) as bad:
        asked = engine(bad, timeout=0.5, concurrency=64)
        started = time.monotonic()
        assert ask(asked, rows) == expected
        assert time.monotonic() - started < 15
    assert len(expected) == 300
    assert asked.budget.answered == 300
    assert set(asked.budget.retried) == {"500", "429", "timeout", "truncated", "invalid JSON"}
    assert asked.budget.retried.total() == len(bad.bodies) - 300
    assert asked.budget.retried["429"] == 15
    assert str(asked.budget).startswith(f"300 answered, {len(bad.bodies) - 300} tries again (500 ")


def test_samples_are_the_same_alone_among_others_and_from_a_server_that_takes_no_n() -> None:
    rows = requests(3)
    with ChatServer(echo) as server:
        together = ask(engine(server), rows, n=6)
        assert [body["n"] for body in server.bodies] == [6, 6, 6]
        some = list(engine(server, max_n=2).stream(rows, SAMPLING, [[5, 0, 3, 4], [], [2]], 0))
    with ChatServer(echo, takes_n=False) as single:
        assert ask(engine(single), rows, n=6) == together
    assert len({reply.text for reply in together.values()}) == 18
    assert {(place, sample) for place, sample, _ in some} == {(0, 5), (0, 0), (0, 3), (0, 4), (2, 2)}
    assert all(together[place, sample] == reply for place, sample, reply in some)
    with ChatServer(echo) as server:
        assert ask(engine(server), rows, n=6, seed=1).keys() == together.keys()
        assert not {reply.text for reply in ask(engine(server), rows, n=6, seed=1).values()} & {
            reply.text for reply in together.values()
        }


def test_greedy_samples_are_asked_for_one_by_one() -> None:
    with ChatServer(echo) as server:
        ask(engine(server), requests(1), n=3, sampling=SamplingConfig(temperature=0))
    assert [body.get("n") for body in server.bodies] == [None] * 3


def test_request_says_what_the_settings_say() -> None:
    with ChatServer() as server:
        asked = engine(server, extra={"reasoning_effort": "low", "temperature": None}, logprobs=False)
        list(asked.stream([Request("r", messages("Hi."), "- short")], SAMPLING, [[0]], 0))
    (body,) = server.bodies
    assert body.pop("messages")[0]["role"] == "system"
    assert body.pop("seed") >= 0
    assert body == {"model": "judge", "top_p": 0.9, "max_completion_tokens": 20, "reasoning_effort": "low"}
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_no_key_is_sent_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer() as server:
        ask(engine(server), requests(1))
    assert "Authorization" not in server.headers[0]


def test_key_comes_from_the_variable_or_the_file_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUDGE_KEY", "from-variable")
    (tmp_path / "key").write_text("from-file\n")
    with ChatServer() as server:
        ask(engine(server, api_key_env="JUDGE_KEY"), requests(1))
        ask(engine(server, api_key_file=str(tmp_path / "key")), requests(1))
    assert [sent["Authorization"] for sent in server.headers] == ["Bearer from-variable", "Bearer from-file"]


def choice(text: str | None, reason: str, logprobs: list[float] | None = None) -> dict[str, Any]:
    tokens = logprobs and {"content": [{"token": "x", "logprob": each, "top_logprobs": []} for each in logprobs]}
    return {"message": {"role": "assistant", "content": text}, "finish_reason": reason, "logprobs": tokens}


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (choice(" Fig. ", "stop", [-0.5, -1.0]), Reply("Fig.", "stop", -1.5)),
        (choice("A fig is", "length"), Reply("A fig is", "length", None)),
        (choice(None, "length"), Reply("", "length", None)),
        (choice("A fi", "content_filter"), FILTERED),
        (choice(None, "tool_calls"), FILTERED),
    ],
)
def test_how_an_answer_ended_is_told(said: dict[str, Any], reply: Reply) -> None:
    with ChatServer(lambda body, k: said) as server:
        asked = engine(server)
        assert ask(asked, requests(1)) == {(0, 0): reply}
        reason = said["finish_reason"]
        assert dict(asked.budget.unanswered) == ({} if reason in ("stop", "length") else {reason: 1})


def test_prompt_that_a_filter_refuses_is_unanswered_and_the_others_are_not() -> None:
    refusal = web.json_response({"error": {"code": "content_filter", "message": "no"}}, status=400)
    with ChatServer(echo, lambda number: refusal if number == 1 else None) as server:
        asked = engine(server, concurrency=1)
        replies = ask(asked, requests(3))
    assert [reply.lack for reply in replies.values()] == [None, "filtered", None]
    assert dict(asked.budget.unanswered) == {"content_filter": 1}


def test_server_that_comes_back_is_asked_on() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    server = ChatServer(echo, port=port)
    starting = threading.Timer(0.5, server.__enter__)
    starting.start()
    try:
        asked = engine(f"http://127.0.0.1:{port}/v1", give_up_after=10)
        assert len(ask(asked, requests(20))) == 20
        assert any("refused" in cause for cause in asked.budget.retried)
    finally:
        starting.join()
        server.__exit__()


def test_server_that_stays_silent_ends_the_stage_with_one_sentence() -> None:
    asked = engine("http://127.0.0.1:9/v1", give_up_after=0.3)
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/v1: no answer in 0\.\d+ s .*start again to go on"):
        ask(asked, requests(20))


def test_server_that_hangs_ends_the_stage_too() -> None:
    with (
        ChatServer(fault=lambda number: "hang") as server,
        pytest.raises(InputError, match=r"no answer in .* \(at last: timeout\)"),
    ):
        ask(engine(server, timeout=0.2, give_up_after=0.5), requests(3))


def poisoned(*ends: str) -> Callable[[dict[str, Any], int], str | dict[str, Any]]:
    """A server that has no answer to prompts with one of these ends."""

    def says(body: dict[str, Any], sample: int) -> str | dict[str, Any]:
        return {"no": "message"} if body["messages"][0]["content"].endswith(ends) else "[B]"

    return says


@pytest.mark.parametrize("limits", [{"deadline": 0.3}, {"give_up_after": 0.3}])
def test_one_request_that_keeps_failing_is_given_up_after_all_others_are_answered(limits: dict[str, float]) -> None:
    with ChatServer(poisoned("n 13")) as server:
        asked = engine(server, **limits)
        replies = ask(asked, requests(20), n=2)
        chosen = choose(engine(server, **limits), requests(14), ["[A]", "[B]"])
    assert chosen[12:] == [[-1.0, 0.0], "unanswered"]
    assert list(replies)[-2:] == [(13, 0), (13, 1)]
    assert [place for (place, _), reply in replies.items() if reply == UNANSWERED] == [13, 13]
    assert {reply.lack for reply in replies.values()} == {None, "unanswered"}
    assert dict(asked.budget.unanswered) == {"no chat completion": 2}


def test_more_than_a_few_requests_that_are_given_up_end_the_stage_after_all_others_are_answered() -> None:
    with ChatServer(poisoned("3")) as server:
        replies: list[int] = []
        with pytest.raises(
            InputError, match=r"/v1: no answer in .*no chat completion\); given up were 2 of 20 requests"
        ):
            gather(replies, engine(server, deadline=0.3), requests(20))
        assert sorted(replies) == [i for i in range(20) if i not in (3, 13)]


def test_requests_on_which_a_server_falls_silent_are_not_given_up_unless_it_lives() -> None:
    with (
        ChatServer(poisoned("n 13"), lives=False) as server,
        pytest.raises(InputError, match=r"no answer in .*no chat completion\); see to the server, and start again"),
    ):
        ask(engine(server, give_up_after=0.3), requests(20))


def test_server_that_falls_silent_while_much_is_left_to_ask_ends_the_stage() -> None:
    with ChatServer(echo, lambda number: "500" if number >= 90 else None) as server:
        replies: list[int] = []
        with pytest.raises(InputError, match=r"at last: 500\); see to the server"):
            gather(replies, engine(server, give_up_after=0.3, concurrency=4), requests(100))
    assert len(replies) == 90


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_status_that_may_pass_is_asked_again(status: int) -> None:
    with ChatServer(echo, lambda number: web.Response(status=status) if number < 2 else None) as server:
        asked = engine(server)
        assert len(ask(asked, requests(3))) == 3
    assert dict(asked.budget.retried) == {str(status): 2}


def test_server_that_only_asks_for_patience_is_not_silent() -> None:
    with ChatServer(echo, lambda number: "429" if number < 8 else None, retry_after="0") as server:
        asked = engine(server, give_up_after=0.1)
        started = time.monotonic()
        assert len(ask(asked, requests(1))) == 1
        assert time.monotonic() - started > 0.2


def test_try_that_broke_off_counts_as_if_it_had_been_answered() -> None:
    with ChatServer(echo, lambda number: ("hang", "truncate", "garble", "500", None)[number]) as server:
        asked = engine(server, timeout=0.6)
        ask(asked, requests(1))
    assert asked.budget.used.tokens_out == 3 * SAMPLING.max_tokens + 5


def test_wait_beyond_the_deadline_is_not_waited_for() -> None:
    with (
        ChatServer(fault=lambda number: "429", retry_after="86400") as server,
        pytest.raises(InputError, match="at last: 429, asks to wait 86,400 s"),
    ):
        ask(engine(server), requests(1))


def test_everything_waits_as_long_as_the_server_asks() -> None:
    with ChatServer(echo, lambda number: "429" if number < 5 else None, retry_after="1") as server:
        started = time.monotonic()
        assert len(ask(engine(server), requests(40))) == 40
        assert 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, '{"error": {"message": "Incorrect key %s"}}', r"401 Incorrect key \*\*\*; put the key into \$OPENAI_API"),
        (404, '{"error": {"message": "no model judge", "code": 404}}', r"404 no model judge; is engine\.server\.url"),
        (422, '{"detail": "n is too large"}', r"422 \{.*n is too large"),
        (400, "sorry,\n%s", r"400 sorry, \*\*\*; change"),
        (302, "", "302 it has moved to None"),
    ],
)
def test_refusal_ends_the_stage_at_once_in_the_servers_words(status: int, body: str, said: str) -> None:
    text = body.replace("%s", KEY)
    with ChatServer(fault=lambda number: web.Response(status=status, text=text)) as server:
        with pytest.raises(InputError, match=said) as caught:
            ask(engine(server, concurrency=4), requests(50))
        assert len(server.bodies) <= 4
    assert "\n" not in str(caught.value)


def test_spending_stops_at_the_cap_and_nothing_that_was_sent_is_lost() -> None:
    rows = [Request(f"r{i}", messages("question " * (i * 7 % 40))) for i in range(200)]  # some fit where others do not
    with ChatServer(echo, delay=0.01) as server:
        asked = engine(server, price_in=1000, price_out=10_000, max_cost=2)  # six cents a request, 20 to 32 at most
        places: list[int] = []
        with pytest.raises(
            InputError, match=r"max_cost=2\.0: .*\(3\d answered, .* \$1\.[89]\d\); start again to go on"
        ):
            gather(places, asked, rows)
    assert len(places) == len(server.bodies) == asked.budget.answered
    assert asked.budget.cost(asked.budget.used) == pytest.approx(0.06 * len(places))
    assert asked.budget.cost(asked.budget.used) <= 2


def test_cap_of_tokens_is_kept_over_calls() -> None:
    with ChatServer(echo) as server:
        asked = engine(server, max_tokens_total=100)
        assert len(ask(asked, requests(4))) == 4
        with pytest.raises(InputError, match=r"max_tokens_total=100: "):
            ask(asked, requests(4))
    assert asked.budget.used.total <= 100


def test_server_that_slows_down_is_asked_less_at_a_time() -> None:
    with ChatServer(echo, delay=0.02) as server:
        ask(engine(server, concurrency=64), requests(400))
        assert 32 < server.most_at_once <= 64
    with ChatServer(echo, lambda number: "429" if number % 20 == 19 else None, retry_after="0", delay=0.02) as server:
        asked = engine(server, concurrency=64)
        ask(asked, requests(400))
        assert server.most_at_once <= 40


def test_consumer_may_stop_early() -> None:
    before = threading.active_count()
    with ChatServer(echo) as server:
        replies = engine(server).stream(requests(500), SAMPLING, [[0]] * 500, 0)
        assert len(list(islice(replies, 3))) == 3
        replies.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before + 1
        assert len(server.bodies) < 500
        assert len(ask(engine(server), requests(5))) == 5


def test_slow_consumer_holds_the_requests_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhi.engine.http.thread.HELD", 10)
    with ChatServer(echo) as server:
        replies = engine(server, concurrency=8).stream(requests(200), SAMPLING, [[0]] * 200, 0)
        next(replies)
        time.sleep(0.3)
        assert len(server.bodies) < 40
        assert len(list(replies)) == 199


SCRIPT = """
import sys
from rlhi.config import ModelConfig, SamplingConfig, ServerConfig
from rlhi.engine import Request
from rlhi.engine.http.engine import HttpEngine
from rlhi.records import Message
engine = HttpEngine(ModelConfig(id="judge"), ServerConfig(url=sys.argv[1]))
rows = [Request(str(i), (Message("user", "Hi."),)) for i in range(1000)]
for place, _, _ in engine.stream(rows, SamplingConfig(), [[0]] * 1000, 0):
    sys.stdout.write("one\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize(("how", "last"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "")])
def test_interrupt_ends_a_stream_without_a_murmur(how: signal.Signals, last: str) -> None:
    with ChatServer(echo, delay=0.2) as server:
        argv = [sys.executable, "-X", "dev", "-c", SCRIPT, server.url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.send_signal(how)
            assert process.wait(10) in (-how, 130, 1)
            lines = process.stderr.read().splitlines()
    assert not any("Warning" in line or "Unclosed" in line or "never" in line for line in lines)
    assert [line for line in lines[-1:] if last] == ([last] if last else [])


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """What is logged, printed and raised during a test, gathered by the test at its end."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    yield said
    out, err = capfd.readouterr()
    text = "\n".join([*said, caplog.text, out, err])
    assert "judge" in text or "127.0.0.1" in text
    assert KEY not in text
    assert KEY.replace("/", "\\/") not in text
    assert KEY[3:12] not in text


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503])
@pytest.mark.parametrize("form", ['{"error": {"message": "key %s"}}', '{"error": "%s"}', "%s", '{"x": "%s', "[]"])
def test_key_is_in_no_error_and_no_log(status: int, form: str, everything: list[str]) -> None:
    body = form.replace("%s", KEY)

    def fault(number: int) -> web.Response:
        return web.Response(status=status, reason=f"no {KEY}", text=body, headers={"Location": f"http://x/{KEY}"})

    with ChatServer(fault=fault) as server:
        with pytest.raises(InputError) as caught:
            ask(engine(server, deadline=0.1, timeout=0.1), requests(3))
        everything += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("fault", ["hang", "truncate", "garble"])
def test_key_is_in_no_error_of_a_broken_answer(fault: Fault, everything: list[str]) -> None:
    with ChatServer(fault=lambda number: fault) as server:
        asked = engine(server, deadline=0.1, timeout=0.1)
        with pytest.raises(InputError) as caught:
            ask(asked, requests(3))
        everything += [str(caught.value), repr(asked), repr(asked.__dict__), asked.identity]


def test_key_that_a_server_echoes_is_in_no_reply(everything: list[str]) -> None:
    with ChatServer(lambda body, k: choice(f"you sent {KEY}", "stop")) as server:
        asked = engine(server)
        ((_, reply),) = ask(asked, requests(1)).items()
        assert reply.text == "you sent ***"
        assert choose(asked, requests(1), ["[A]", "[B]"]) == [[-1.0, -1.0]]
    with ChatServer(lambda body, k: choice("", KEY)) as server:
        asked = engine(server)
        ask(asked, requests(1))
        everything += [str(asked.budget), server.url]


def test_identity_tells_what_replies_depend_on_and_nothing_else() -> None:
    def of(model: str = "judge", **settings: Any) -> str:
        return HttpEngine(ModelConfig(id=model), ServerConfig(**settings)).identity

    assert of() == of(url="http://elsewhere/v1", concurrency=3, max_cost=1, price_in=1, api_key_env="OTHER")
    assert len({of(), of("other"), of(extra={"reasoning_effort": "low"}), of(logprobs=False), of(choice="text")}) == 5
    assert KEY not in of()


def test_tokens_are_counted_by_the_tokenizer_where_there_is_one(tiny_model: Path) -> None:
    request = Request("r", messages("Name a fruit, please."), "- short")
    from rlhi.engine.models import load_policy

    renderer = load_policy(ModelConfig(id=str(tiny_model))).renderer
    exact = engine("http://127.0.0.1:9/v1", tokenizer=str(tiny_model)).count_tokens(request)
    assert exact == len(renderer.prompt(request.messages, request.persona))
    longer = Request("r", messages("Name a fruit, please." * 10), "- short")
    estimated = engine("http://127.0.0.1:9/v1")
    assert estimated.count_tokens(longer) - estimated.count_tokens(request) == 21 * 9 // 3


def test_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"engine\.server\.tokenizer='.*none'"):
        engine("http://127.0.0.1:9/v1", tokenizer=str(tmp_path / "none")).count_tokens(requests(1)[0])


def test_model_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"engine\.model\.id='embedded'"):
        HttpEngine(ModelConfig(), ServerConfig())


def test_nothing_is_asked_for_nothing() -> None:
    asked = engine("http://127.0.0.1:9/v1")
    assert list(asked.stream([], SAMPLING, [], 0)) == []
    assert list(asked.stream(requests(2), SAMPLING, [[], []], 0)) == []
    assert choose(asked, [], ["[A]"]) == []
