"""What the command `experiment` tells of the arms when it ends."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipelines import experiment
from pipelines.experiments import TABLE_4, Experiment
from pipelines.local import Done, Progress
from pipelines.recipes import BASE_MODEL, NO_FILTER
from tests.test_rounds import done

PAIR = Experiment(name="pair", summary="Two arms.", arms=(BASE_MODEL, NO_FILTER))
RATE = "win_rate/log/usereval"
TASKS = [
    done("evaluate-base-model", **{f"{RATE}/context-only": 0.4, f"{RATE}/persona-guided": 0.25}),
    done("rip"),
    done("dpo", validation_accuracy=0.625),
    done(
        "evaluate-no-filter",
        **{f"{RATE}/context-only": 0.5, f"{RATE}/context-only/low": 0.25, f"{RATE}/context-only/high": 0.75},
    ),
]


def column(rows: list[list[str]], name: str) -> list[str]:
    place = rows[0].index(name)
    return [row[place] for row in rows[1:]]


def test_arms_have_their_rates_by_how_they_answer_and_what_they_learned_from() -> None:
    rows = experiment.figures(PAIR, TASKS)
    assert column(rows, "arm") == ["base-model", "", "no-filter"]
    assert column(rows, "answers") == ["context-only", "persona-guided", "context-only"]
    assert column(rows, "usereval") == ["40.0", "25.0", "50.0 (25 to 75)"]
    assert column(rows, "personalization") == ["", "", ""]
    assert column(rows, "pairs") == ["", "", "3"]
    assert column(rows, "validation") == ["", "", "62.5"]


def test_arm_that_is_not_done_is_empty() -> None:
    rows = experiment.figures(PAIR, TASKS[:2])
    assert rows[-1] == ["no-filter", "", "", "", "", "3", ""]


def test_benchmarks_have_a_column_each() -> None:
    asked = [
        done(
            "benchmark-base-model",
            **{"accuracy/minerva": 0.1, "accuracy/minerva/low": 0.0, "accuracy/minerva/unread": 2},
        ),
        done("benchmark-math-rewrites", **{"accuracy/minerva": 0.2, "accuracy/gpqa": 0.3}),
    ]
    rows = experiment.figures(TABLE_4, asked)
    assert column(rows, "minerva") == ["10.0", "20.0"]
    assert column(rows, "gpqa") == ["", "30.0"]
    assert column(rows, "arm") == ["base-model", "math-rewrites"]


def test_table_leaves_out_what_was_not_measured() -> None:
    told = io.StringIO()
    Console(file=told, width=120).print(experiment.as_table(experiment.figures(PAIR, TASKS)))
    assert "usereval" in told.getvalue()
    assert "personalization" not in told.getvalue()
    assert ["no-filter", "context-only", "50.0", "(25", "to", "75)", "3", "62.5"] in [
        line.replace("│", " ").split() for line in told.getvalue().splitlines()
    ]


def test_description_in_mlflow_is_a_table_of_as_many_columns_in_every_line() -> None:
    lines = experiment.as_markdown(experiment.figures(PAIR, TASKS)).splitlines()
    assert {line.count("|") for line in lines} == {4}
    assert set(lines[1]) == {"-", "|"}
    assert "personalization" not in lines[0]


def test_last_words_name_the_page(tmp_path: Path) -> None:
    told = io.StringIO()
    made = done("comparison")
    compared = Done(replace(made.task, outputs={"comparison": tmp_path}), 1.0, made.described, False)

    progress = Progress(Console(file=told, width=200), tmp_path, 5, [*TASKS, compared])
    experiment.tell(PAIR, progress, tmp_path, "http://localhost:5000")
    lines = [line.split() for line in told.getvalue().splitlines()]
    assert ["page", str(tmp_path / "report.html")] in lines
    assert ["MLflow", "http://localhost:5000"] in lines
    assert ["evaluate-no-filter", "5", "3", "turn_cap", "2", "1", "s"] in [
        line.replace("│", " ").split() for line in told.getvalue().splitlines()
    ]
