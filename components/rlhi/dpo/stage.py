"""Trains the policy by persona-conditioned DPO on the pairs (eq. 1).

    loss = -log sigmoid(beta * ((log pi(y+ | x, p) - log ref(y+ | x, p)) - (log pi(y- | x, p) - log ref(y- | x, p))))

Eq. 1 of the paper lacks the minus sign; taken literally it trains backwards. The persona is part of the prompt, by the
same `render` that serves it. The paper trains all weights (``lora_rank: null``); a LoRA adapter is our default, since
it fits where the paper's does not.

A pair is one prefix tree: the prompt is computed once for both answers, and nothing is padded (`rlhi.trees`;
``packing: off`` is TRL as it comes). A step takes ``batch_size`` pairs, whatever the number of devices. The reference's
log-probabilities are computed once, and kept with the replies of models; with a ``start``, the model of an earlier
round of online training (2.4, 3.2), training goes on from its weights, and the reference stays the base model or is the
model of ``reference``.

``loss_type: sft`` is the baseline of 3.3: the same path, likelihood of the chosen answer only. Pairs that are too long
are dropped with a reason before training: the trainer would cut them without a word. So are the pairs of a share of the
users, on which the model is measured while it trains. The output holds the adapter or the weights, the pairs that
trained it, and the training history.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhi import curves, live
from rlhi.artifacts import Input, Output, user_rows
from rlhi.config import as_json, digest
from rlhi.dpo import job as jobs
from rlhi.dpo.config import DpoConfig
from rlhi.dpo.job import Job
from rlhi.dpo.launch import Work, launch, processes
from rlhi.dpo.tokens import TokenizedPair, tokenize
from rlhi.dpo.trainjob.config import TrainJobConfig
from rlhi.dpo.watch import best_step
from rlhi.errors import InputError
from rlhi.manifest import code_version, count_reasons
from rlhi.records import Dropped, Pair

MADE = ("adapter", "weights")


def run(
    pairs: Input[Pair],
    model: Output[Pair],
    config: DpoConfig,
    start: Input[Pair] | None = None,
    reference: Input[Pair] | None = None,
) -> None:
    """Writes ``adapter/`` (PEFT) or ``weights/``, ``merged/`` if asked for, and the pairs that were trained on.

    Beside them ``history.json``, and a model card with a picture of the curves.

    Raises:
        InputError: no pair can be trained on, or a model cannot be loaded.
    """
    from rlhi.dpo.merge import merge
    from rlhi.dpo.tell import tell
    from rlhi.dpo.train import checkpoints_of
    from rlhi.engine.models import identify

    rows = pairs.read()
    if config.persona == "off":
        rows = [replace(row, persona=None) for row in rows]
    found = identify(config.model)
    kept, tokens, dropped = tokenize(rows, found.renderer, config.max_tokens, needs_persona=config.persona == "on")
    before = {row.user_id for row in start.read()} if start is not None else set()
    users = validation_users({row.user_id for row in kept}, config, before)
    trained = [row for row in kept if row.user_id not in users]
    dropped += [Dropped(row.id, "validation") for row in kept if row.user_id in users]
    if not trained:
        reasons = ", ".join(f"{reason} {n}" for reason, n in count_reasons(dropped).items())
        limit = f"dpo.max_tokens={config.max_tokens}"
        raise InputError(f"{pairs.path}: none of {len(rows)} pairs can be trained on ({reasons}); see {limit}")
    model.holds(users)
    for earlier in filter(None, (start, reference)):  # whose rows made them, made this one too
        model.holds(user_rows(earlier.path))
    model.write(trained, dropped, len(rows))
    models = {"start": start, "reference": reference}
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(Path(scratch), config, _fingerprint(config, tokens, [found.weights, *map(_digest, models.values())]))
        _give(job, models)
        chosen = {row.id for row in trained}
        jobs.write(
            job,
            [pair for pair in tokens if pair.id in chosen],
            [pair for pair in tokens if pair.id not in chosen],
        )
        _launch(job)
        _take(job, model)
        tell(job, model, kept, {"pairs": pairs, **models})
    if config.merge:
        merge(config.model, model.file("adapter"), model.file("merged"))
    model.note(
        "chat template", f"Chat template of the policy: {found.renderer.template_hash} (sha256, first 16 digits)."
    )
    revision = f", revision {config.model.revision}" if config.model.revision else ""
    model.note("base model", f"Base model: {config.model.id}{revision}.")
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints_of(job.fingerprint, Path(scratch)).remove()


def _launch(job: Job) -> None:
    """Has the work done, wherever, and what it makes laid into the job's folder."""
    from rlhi.dpo.checkpoints import VARIABLE
    from rlhi.dpo.work import work

    config = job.config
    copy = f"{os.environ.get(VARIABLE, '')}/job-{job.fingerprint}" if config.nodes > 1 else None
    given = Work(copy or str(job.folder), job.fingerprint, config.nodes, _processes(config))
    if copy is not None and copy.startswith("s3://"):
        jobs.lend(job, copy)
    with live.following(copy or job.folder), launch(given, lambda: work(job), config.trainjob):
        if copy is not None:
            jobs.collect(job, copy)


def _processes(config: DpoConfig) -> int:
    """On each node."""
    from rlhi.engine.models import device_of

    if config.processes is None and config.nodes == 1 and device_of(config.model) == "cpu":
        return 1
    return processes(config.processes, config.nodes, config.trainjob)


def validation_users(users: set[str], config: DpoConfig, trained: Collection[str] = ()) -> set[str]:
    """The users whose pairs are measured and not trained on: a share, by seed, at least one and never all.

    Those on whom the model was ``trained`` before come last.
    """
    if not config.validation_share or len(users) < 2:
        return set()
    order = sorted(users, key=lambda user: (user in trained, digest(f"validation {config.seed} {user}")))
    return set(order[: max(1, min(len(users) - 1, round(config.validation_share * len(users))))])


def read_history(model: Path) -> list[dict[str, float]]:
    """The training history in a model's folder, a row per logged step; empty where there is none."""
    path = model / "history.json"
    found: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    return found


def figures(history: Sequence[Mapping[str, float]], pairs: int, of_best: bool) -> dict[str, float]:
    """The closing figures of a training, and those of its last validation or, if its weights were kept, of the best."""
    steps = [row for row in history if "loss" in row]
    validated = [row for row in history if "eval_loss" in row and (not of_best or row["step"] == best_step(history))]
    last = {**steps[-1], **(validated[-1] if validated else {})} if steps else {}
    named = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}
    named |= {f"eval_{key}": f"validation_{name}" for key, name in named.items()}
    measured = {name: last[key] for key, name in named.items() if key in last}
    return {"pairs": float(pairs), "steps": float(len(steps)), **measured}


def _digest(model: Input[Pair] | None) -> str | None:
    return None if model is None else model.manifest.digest


def _fingerprint(config: DpoConfig, tokens: Sequence[TokenizedPair], models: Sequence[str | None]) -> str:
    """Names all that the trained weights hang on; by more processes the same work goes on.

    Not after one alone, whose checkpoints have another form.
    """
    anywhere = replace(config, nodes=1, processes=None, trainjob=TrainJobConfig())
    said: list[Any] = [code_version(), as_json(anywhere), config.nodes * _processes(config) > 1, models]
    said += [[pair.id, pair.prompt_ids, pair.chosen_ids, pair.rejected_ids] for pair in tokens]
    return digest(json.dumps(said))


def _give(job: Job, models: Mapping[str, Input[Pair] | None]) -> None:
    for name, given in models.items():
        if given is not None:
            (job.folder / name).symlink_to(given.path.resolve(), target_is_directory=True)


def _take(job: Job, model: Output[Pair]) -> None:
    """Moves what was made into the output."""
    for name in MADE:
        if (job.trained / name).exists():
            shutil.move(job.trained / name, model.file(name))
    for name in (curves.HISTORY, curves.TIMINGS):
        shutil.move(job.folder / name, model.file(name))
    model.measure(figures(read_history(model.partial), model.kept, job.config.patience is not None) | job.made("speed"))
