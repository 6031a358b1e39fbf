import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rlhi import manifest
from rlhi.artifacts import Input, Output
from rlhi.cli import main
from rlhi.config import StageConfig
from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.execute import Call, execute
from rlhi.persona.stage import PersonaConfig, make, update
from rlhi.persona.timing import Written, per_user
from rlhi.records import Conversation, Dropped, Persona
from tests.rows import persona, talk

CONFIG = PersonaConfig()
Reply = Callable[[Request, int], str]


def infer(
    rows: list[Conversation], reply: Reply = lambda *_: "- short", config: PersonaConfig = CONFIG, limit: int = 4096
) -> Written:
    return per_user(rows, (), partial(make, engine=ScriptedEngine(reply, limit), config=config))


def read(rows: list[Conversation], config: PersonaConfig = CONFIG, limit: int = 4096) -> dict[str, str]:
    """What the model was shown of each user."""
    shown: dict[str, str] = {}

    def reply(request: Request, _: int) -> str:
        shown[request.key] = request.messages[-1].content
        return "- short"

    infer(rows, reply, config, limit)
    return shown


def test_persona_names_user_points_and_conversations() -> None:
    rows = [talk("b1", "Hi.", "Yes?", user="ben"), talk("a1", "Hi.", "Yes?"), talk("a2", "Hi.", "Yes?", day=1)]
    written = infer(rows, lambda request, _: f"- {request.key} likes it short")
    assert written.kept == [
        persona("ben", "- ben likes it short", "b1"),
        persona("ann", "- ann likes it short", "a2", "a1"),
    ]
    assert written.dropped == []
    assert written.counts == {"inferred": 2}


def test_only_the_users_own_words_are_read_newest_conversation_first() -> None:
    rows = [
        talk("old", "First.", "SECRET", "Second."),
        talk("new", "system:SECRET", "Third.", "SECRET", day=1),
        talk("other", "Nothing.", "SECRET", user="ben"),
    ]
    shown = read(rows)
    assert "Third.\n\nFirst.\n\nSecond.\n[The End" in shown["ann"]
    assert "SECRET" not in "".join(shown.values())
    assert "Nothing." not in shown["ann"]


def test_held_out_conversation_is_never_read() -> None:
    rows = [talk("r", "Reference.", "Yes?", split="reference"), talk("h", "Held.", "Yes?", split="held-out", day=1)]
    assert infer(rows).kept[0].conversations == ("r",)
    assert "Held." not in read(rows)["ann"]


def test_user_with_held_out_conversations_only_is_dropped() -> None:
    written = infer([talk("h", "Hi.", "Yes?", split="held-out")])
    assert (written.kept, written.dropped) == ([], [Dropped("ann", "no_message_fits")])


def test_oldest_messages_are_left_out_where_not_all_fit() -> None:
    rows = [talk(f"c{i}", f"first{i} " * 20, "Yes?", f"second{i} " * 20) for i in range(5)]
    rows = [replace(row, timestamp=talk("", day=day).timestamp) for day, row in enumerate(rows)]
    two = len(read(rows[3:])["ann"].split())
    for config, limit in [(replace(CONFIG, history_tokens=two - 1), 4096), (CONFIG, two - 1)]:
        assert infer(rows, config=config, limit=limit).kept[0].conversations == ("c4", "c3")
        shown = read(rows, config, limit)["ann"]
        assert "second3" in shown
        assert "first3" not in shown


def test_user_none_of_whose_messages_fits_is_dropped() -> None:
    rows = [talk("c", "word " * 500, "Yes?"), talk("d", "Hi.", "Yes?", user="ben")]
    written = infer(rows, config=replace(CONFIG, history_tokens=200))
    assert [each.user_id for each in written.kept] == ["ben"]
    assert written.dropped == [Dropped("ann", "no_message_fits")]


def test_message_longer_than_what_is_left_is_passed_over_and_not_cut() -> None:
    rows = [talk("old", "Be brief.", "Yes?", "word " * 500), talk("pasted", "word " * 500, "Yes?", day=1)]
    config = replace(CONFIG, history_tokens=200)
    assert infer(rows, config=config).kept[0].conversations == ("old",)
    assert "word" not in read(rows, config)["ann"]
    assert "Be brief." in read(rows, config)["ann"]


def test_reply_of_no_use_is_dropped_with_its_reason() -> None:
    replies = {"ann": " \n- \n*", "ben": "I'm sorry, I can't help with that.", "eve": "- short"}
    rows = [talk(user, "Hi.", "Yes?", user=user) for user in replies]
    written = infer(rows, lambda request, _: replies[request.key])
    assert [each.user_id for each in written.kept] == ["eve"]
    assert written.dropped == [Dropped("ann", "empty_persona"), Dropped("ben", "refused_persona")]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("- short answers\n- no jokes at all", 4),
        ("- short answers, please", 3),
        ("He likes:\n- short answers, please", 4),
    ],
)
def test_point_that_the_length_limit_cut_is_left_out_unless_it_is_the_only_one(reply: str, words: int) -> None:
    config = replace(CONFIG, sampling=replace(CONFIG.sampling, max_tokens=words))
    (found,) = infer([talk("c", "Hi.")], lambda *_: reply, config).kept
    assert found.text.rstrip(",") == "- short answers"


PRIVATE = "- Prefers short answers, Zelda Quux\n- zelda@quux.io\n- Ship to 12 Elm Street\n- Likes numbers"


def test_names_addresses_and_ids_stay_out_of_a_persona() -> None:
    rows = [talk("c", "Hi, my name is Zelda Quux, mail me at zelda@quux.io.", "Yes?")]
    written = infer(rows, lambda *_: PRIVATE)
    (found,) = written.kept
    assert "Zelda" not in found.text
    assert "quux" not in found.text
    assert "Elm Street" not in found.text
    assert found.text.splitlines()[0].startswith("- Prefers short answers")
    assert len(found.text.splitlines()) == 3  # of the mail address nothing was left
    assert written.counts["redacted/EMAIL"] == 1
    assert written.counts["redacted/ADDRESS"] == 1
    assert written.counts["redacted/NAME"] >= 1


def test_persona_of_placeholders_alone_is_dropped() -> None:
    rows = [talk("c", "Hi, my name is Zelda Quux.", "Yes?")]
    assert infer(rows, lambda *_: "- Zelda Quux\n- zelda@quux.io").dropped == [Dropped("ann", "empty_persona")]


def test_update_lets_no_name_in() -> None:
    engine = ScriptedEngine(lambda *_: "- short\n- is called Zelda Quux")
    assert "Zelda" not in update("- short", ["My name is Zelda Quux."], engine, CONFIG)


def test_prompt_asks_for_as_many_points_as_configured() -> None:
    assert "at most 3 key points" in read([talk("c", "Hi.", "Yes?")], config=replace(CONFIG, max_points=3))["ann"]


def test_update_reads_the_points_and_the_new_messages() -> None:
    seen: list[Request] = []

    def reply(request: Request, _: int) -> str:
        seen.append(request)
        return "Here is the updated list:\n- long\n- formal"

    assert update("- short\n- formal", ["At length.", "More!"], ScriptedEngine(reply), CONFIG) == "- long\n- formal"
    (message,) = seen[0].messages
    assert "Points]\n- short\n- formal\n[The End" in message.content
    assert "Messages]\nAt length.\n\nMore!\n[The End" in message.content


@pytest.mark.parametrize("reply", ["", "I'm sorry, but I can't do that."])
def test_update_of_no_use_leaves_the_persona_as_it_is(reply: str) -> None:
    assert update("- short", ["At length."], ScriptedEngine(lambda *_: reply), CONFIG) == "- short"


def test_update_without_a_message_that_fits_asks_nobody() -> None:
    def fail(request: Request, _: int) -> str:
        raise AssertionError("nothing to ask")

    assert update("- short", ["word " * 500], ScriptedEngine(fail, 300), CONFIG) == "- short"
    assert update("- short", [], ScriptedEngine(fail), CONFIG) == "- short"


class Runs:
    """`rlhi persona` run after run, each on conversations of its own, with a script that echoes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "script.json"
        self.runs = 0
        self.says("- first")

    def says(self, *points: str) -> None:
        self.script.write_text(json.dumps([{"contains": "", "reply": "\n".join(points)}]))

    def persona(self, rows: list[Conversation], previous: Path | None = None, **settings: object) -> Path:
        self.runs += 1
        read, made = self.folder / f"rows{self.runs}", self.folder / f"personas{self.runs}"
        execute(Call("ingest", _written(rows), {}, {}, "output", Output(read, Conversation), StageConfig()))
        config = {"engine": {"kind": "scripted", "script": str(self.script)}, **settings}
        argv = ["persona", "--conversations", str(read), "--personas", str(made), "--config", json.dumps(config)]
        self.status = main([*argv, *(["--previous", str(previous)] if previous else [])])
        return made


def _written(rows: list[Conversation]) -> Callable[..., None]:
    def run(output: Output[Conversation], config: StageConfig) -> None:
        output.write(rows, [], len(rows))

    return run


def texts(folder: Path) -> dict[str, str]:
    return {each.user_id: each.text for each in Input(folder, Persona).read()}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_recurring_run_keeps_updates_infers_and_forgets(runs: Runs) -> None:
    users = ("kept", "updated", "erased", "left")
    first = runs.persona([talk(f"{user}{day}", "Hi.", user=user, day=day) for user in users for day in (0, 1)])
    runs.says("- second")
    rows = [talk(f"{user}{day}", "Hi.", user=user, day=day) for user in users[:3] for day in (0, 1)]
    rows = [row for row in rows if row.id != "erased0"] + [talk("updated2", "Hi.", user="updated", day=2)]
    second = runs.persona([*rows, talk("new0", "Hi.", user="new")], previous=first)
    assert texts(second) == {"kept": "- first", "updated": "- second", "erased": "- second", "new": "- second"}
    described = manifest.load(second)
    counted = {name: count for name, count in described.metrics.items() if name.startswith("personas/")}
    assert counted == {"personas/inferred": 2, "personas/updated": 1, "personas/unchanged": 1}
    assert described.inputs.keys() == {"conversations", "previous"}
    assert [row.stage for row in described.funnel] == ["ingest", "persona"]
    assert described.funnel[-1].rows_in == 4


def test_run_without_an_earlier_one_reads_conversations_alone(runs: Runs) -> None:
    assert manifest.load(runs.persona([talk("c", "Hi.")])).inputs.keys() == {"conversations"}


def test_time_safe_run_counts_training_conversations_and_evaluation_users(runs: Runs) -> None:
    rows = [talk(f"c{day}", "Hi.", day=day) for day in range(3)]
    rows += [talk("r", "Hi.", user="eve", split="reference"), talk("h", "Hi.", user="eve", split="held-out")]
    described = manifest.load(runs.persona(rows, time_safe=True))
    assert (described.rows_in, described.kept) == (4, 3)
    assert described.dropped == {"no_earlier_conversation": 1}


def test_time_safe_personas_neither_go_on_nor_are_gone_on_from(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [talk(f"c{day}", "Hi.", day=day) for day in range(3)]
    plain, safe = runs.persona(rows), runs.persona(rows, time_safe=True)
    runs.persona(rows, previous=plain, time_safe=True)
    assert runs.status == 2
    assert "persona.time_safe: cannot go on from earlier personas; leave --previous out" in capsys.readouterr().err
    runs.persona(rows, previous=safe)
    assert runs.status == 2
    assert "--previous: holds a persona for conversation c1 alone" in capsys.readouterr().err
