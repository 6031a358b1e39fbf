"""An experiment in MLflow: an experiment of its own, one run for the whole, and one for each arm beside it.

Arms stand beside the whole and not inside it, since MLflow charts what is not folded in; their tag ``study`` names it.
The runs of stages are nested in that of their arm, or in the whole's where arms share them. An arm's run has the
metrics that the run of a recipe has, under the same names, so that MLflow's own comparison of runs needs no setting up;
its tags ``differs.SETTING`` tell it from the first arm. The page that compares the arms is an artifact of the whole.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi import manifest, tracking
from rlhi.runs import ARMS, ORIGIN, PARENT, experiment, fill, refused, tolerated

if TYPE_CHECKING:
    from mlflow import MlflowClient

KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow opens it on the table of runs and their charts
FOLDER = "comparison"  # of the page, among the artifacts of the whole
PAGE = "report.html"


@dataclass(frozen=True)
class Study:
    """The run of the whole, and those of the arms by name, in order."""

    run: str
    arms: Mapping[str, str]

    @property
    def env(self) -> dict[str, str]:
        """By which a stage finds the run that its own is nested in."""
        return {PARENT: self.run, ARMS: json.dumps(dict(self.arms))}


def start(name: str, summary: str, arms: Mapping[str, Mapping[str, str]], params: Mapping[str, str], uri: str) -> Study:
    """Opens the runs of the experiment ``name``. ``arms`` are, by name, the settings that the first arm does not have.

    Raises:
        InputError: MLflow cannot be reached at ``uri``; nothing has run yet.
    """
    with refused(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        place = experiment(client, uri, name)
        for key, value in {"mlflow.note.content": summary, **KIND}.items():
            client.set_experiment_tag(place, key, value)
        whole = client.create_run(place, tags=ORIGIN, run_name=f"{name} {datetime.now():%m-%d %H:%M}").info.run_id
        fill(client, whole, params, [], {"experiment": name, "mlflow.note.content": summary})
        runs = {}
        for arm, differs in arms.items():
            runs[arm] = client.create_run(place, tags=ORIGIN, run_name=arm).info.run_id
            tags = {f"differs.{setting}": value for setting, value in differs.items()}
            fill(client, runs[arm], params, [], {"experiment": name, "study": whole, "recipe": arm, "arm": arm, **tags})
    return Study(whole, runs)


def finish(study: Study, compared: Path | None, note: str, uri: str, *, failed: bool) -> None:
    """Closes the run of the whole, with the comparison's output if there is one, and ``note`` as its description."""
    with tolerated(uri):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        try:
            link = _log_page(client, study.run, compared) if compared is not None else ""
            fill(client, study.run, {}, [], {"mlflow.note.content": "\n\n".join(filter(None, [link, note]))})
        finally:
            client.set_terminated(study.run, "FAILED" if failed else "FINISHED")


def _log_page(client: "MlflowClient", run: str, folder: Path) -> str:
    """Logs the page with its pictures, and the manifest by which it can be found to be deleted; gives a link to it."""
    for pattern in (manifest.NAME, *tracking.PICTURES):
        for path in sorted(folder.glob(pattern)):
            client.log_artifact(run, str(path), FOLDER)
    place = client.get_run(run).info.experiment_id
    return f"[The arms side by side](#/experiments/{place}/runs/{run}/artifacts/{FOLDER}/{PAGE})"
