"""What a persona may not know is not in the pairs that it conditions, from the persona to what is trained on."""

from functools import partial

import pytest

from rlhi.engine import Request
from rlhi.engine.scripted import ScriptedEngine
from rlhi.persona.stage import PersonaConfig, make
from rlhi.persona.timing import per_user, time_safe
from rlhi.personas import Personas
from rlhi.records import Candidates, Conversation
from rlhi.rewrite.stage import RewriteConfig, rewrite
from rlhi.sample.stage import SampleConfig, sample
from tests.rows import talk, together, turn

DAYS = 4


def exchange(name: str, day: int, user: str, split: str = "train") -> Conversation:
    """A conversation whose user says words that nobody else says."""
    words = [f"{name}-asks", "An answer.", f"{name}-corrects", "Another."]
    return talk(name, *words, user=user, day=day, split=split)  # type: ignore[arg-type]


ROWS = [
    *(exchange(f"ann{day}", day, "ann") for day in reversed(range(DAYS))),
    *(exchange(f"ben{day}", day, "ben") for day in range(DAYS)),
    *(exchange(f"eve{day}", day, "eve", "reference" if day < 2 else "held-out") for day in range(DAYS)),
]


def copied(request: Request, _: int) -> str:
    """A persona that gives away every word that it was made from."""
    inside = request.messages[-1].content.split("[The Start of")
    return "\n".join(f"- {word}" for part in inside for word in part.split() if "-asks" in word or "-corrects" in word)


def candidates(*, safe: bool) -> list[Candidates]:
    """What both methods make of all rows, with their personas."""
    maker = partial(make, engine=ScriptedEngine(copied), config=PersonaConfig(max_points=99))
    written = time_safe(ROWS, maker) if safe else per_user(ROWS, (), maker)
    known, by_id = Personas(written.kept), {row.id: row for row in ROWS}
    turns = [turn(row, 0, "initial") for row in ROWS] + [turn(row, 2, "re-attempt with feedback") for row in ROWS]
    engine = ScriptedEngine(lambda _, index: f"Reply {index}.")
    rewrites, _ = rewrite(turns, by_id, known, engine, RewriteConfig())
    samples, _ = together(sample(turns, by_id, known, engine, SampleConfig(n=2)))
    return rewrites + samples


def told(row: Candidates) -> set[str]:
    """The conversations whose words are in the row's persona."""
    return {word.rpartition("-")[0] for word in (row.persona or "").split() if word != "-"}


@pytest.mark.parametrize("safe", [False, True])
def test_held_out_conversation_is_in_no_persona_and_in_no_pair(safe: bool) -> None:
    rows = candidates(safe=safe)
    assert {row.user_id for row in rows} == {"ann", "ben"}
    assert not any({"eve2", "eve3"} & told(row) for row in rows)
    maker = partial(make, engine=ScriptedEngine(copied), config=PersonaConfig(max_points=99))
    known = Personas((time_safe(ROWS, maker) if safe else per_user(ROWS, (), maker)).kept)
    for row in ROWS[-2:]:
        assert "eve1-asks" in (known.of(row) or "")
        assert "eve2" not in (known.of(row) or "")
        assert "eve3" not in (known.of(row) or "")


def test_time_safe_pair_knows_what_its_user_said_before_and_nothing_else() -> None:
    rows = candidates(safe=True)
    assert len(rows) == 2 * 2 * (DAYS - 1)  # users, methods, conversations but the first
    for row in rows:
        name, day = row.id[:3], int(row.id[3])
        assert told(row) == {f"{name}{earlier}" for earlier in range(day)}


def test_persona_of_the_paper_knows_all_of_a_users_conversations() -> None:
    assert all(told(row) == {f"{row.id[:3]}{day}" for day in range(DAYS)} for row in candidates(safe=False))
