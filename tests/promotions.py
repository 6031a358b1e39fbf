"""What promotion reads, for tests: a trained model, its evaluation, and safety figures, as their stages write them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhi.artifacts import Input, Output
from rlhi.config import StageConfig
from rlhi.dpo.config import DpoConfig
from rlhi.evaluate.config import EvaluateConfig
from rlhi.evaluate.results import as_metrics, save
from rlhi.execute import Call, execute
from rlhi.records import Conversation, Pair, Persona, SafetyGrade, SafetyKind, Verdict
from rlhi.rip.config import RipConfig
from rlhi.safety.stage import SafetyConfig
from tests.evaluations import evaluated, held_out, likes
from tests.rows import pair

ITEMS = 30  # of each kind, as ours
RECORDS: Mapping[str, type[Any]] = {"conversations": Conversation, "personas": Persona}
NOTHING: Mapping[str, Path] = {}


def model(folder: Path, said: str = "the first", config: DpoConfig | None = None) -> Path:
    """An output of dpo, whose weights are the text ``said``."""

    def make(out: Output[Pair], config: DpoConfig, **_: Any) -> None:
        out.write([pair("c1/0")], [], 1)
        out.file("README.md").write_text(f"---\ntags:\n- dpo\n---\n\n# A card of {said}\n")
        out.file("training.png").write_bytes(b"curves")
        out.file("adapter/adapter_model.safetensors").write_text(said)
        out.measure({"loss": 0.5, "speed/tokens": 9.0})

    def learn_from(out: Output[Pair], config: RipConfig) -> None:
        out.write([pair("c1/0")], [], 1)

    pairs = _made("rip", learn_from, Output(folder.with_name(f"{folder.name}-pairs"), Pair), RipConfig(), {})
    return _made("dpo", make, Output(folder, Pair), config or DpoConfig(), {"pairs": pairs})


def verdicts(
    folder: Path,
    of: Path,
    champion: Path | None = None,
    *,
    liked: str = "OURS",
    said: str = "OURS",
    users: int = 12,
    named: bool = True,
    more: Mapping[str, Path] = NOTHING,
) -> Path:
    """An evaluation against the champion, or without one against the base model, by a judge that likes a word.

    The model's answers begin with ``said``. As in a pipeline, the settings need not have ``named`` the champion.
    """
    config = EvaluateConfig(
        resamples=200,
        opponents=("base" if champion is None else "champion",),
        axes=("usereval",),
        modes=("persona-guided",),
    )
    results = evaluated(likes(liked), config, said, held_out(users))

    def make(out: Output[Verdict], config: EvaluateConfig, **_: Any) -> None:
        out.write(results.verdicts, [], len(results.turns), count=len(results.turns))
        out.measure(as_metrics(results))
        save(results, out)

    inputs = {"model": of, **more} | ({} if champion is None else {"champion": champion})
    given = config if named else replace(config, opponents=("base",))
    return _made("evaluate", make, Output(folder, Verdict), given, inputs)


def safety(
    folder: Path, of: Path | None = None, config: SafetyConfig | None = None, items: int = ITEMS, **failed: int
) -> Path:
    """Safety figures of a model, or of the base model: of each kind the first so many of the items failed."""
    kinds: tuple[SafetyKind, ...] = ("unsafe", "sycophancy")
    rows = [
        SafetyGrade(kind, f"{kind}/{n}", None, f"{kind} {n}?", "An answer.", None, float(n < failed.get(kind, 3)), None)
        for kind in kinds
        for n in range(items)
    ]

    def make(out: Output[SafetyGrade], config: SafetyConfig, **_: Any) -> None:
        out.write(rows, [], len(rows))

    inputs = {} if of is None else {"model": of}
    return _made("safety", make, Output(folder, SafetyGrade), config or SafetyConfig(), inputs)


def _made(stage: str, make: Any, output: Output[Any], config: StageConfig, inputs: Mapping[str, Path]) -> Path:
    given = {name: Input(path, RECORDS.get(name, Pair)) for name, path in inputs.items()}
    with pytest.MonkeyPatch.context() as environment:  # tracked is what is tested alone
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        execute(Call(stage, make, given, {}, "out", output, config))
    return output.path
