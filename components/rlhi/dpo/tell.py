"""What is left beside a trained model for people to read: warnings, model card, and a picture of the curves."""

import logging
from collections.abc import Mapping, Sequence

from rlhi.artifacts import Input, Output
from rlhi.dpo.card import CURVES, NAME, Card, measure, render
from rlhi.dpo.figures import curves_png
from rlhi.dpo.job import Job
from rlhi.dpo.stage import read_history
from rlhi.dpo.watch import length_warnings, mean_length, warnings
from rlhi.manifest import FunnelRow, Manifest, code_version
from rlhi.records import Pair

TOKENS = "answer_tokens"  # the figure by which rounds see their answers grow
log = logging.getLogger("rlhi")


def tell(job: Job, model: Output[Pair], rows: Sequence[Pair], given: Mapping[str, Input[Pair] | None]) -> None:
    """Notes warnings in ``model``, and writes card and picture.

    ``rows`` are the pairs trained on and measured, ``given`` the inputs of the stage by name.
    """
    found = {name: each.manifest for name, each in given.items() if each is not None}
    history, users = read_history(model.partial), {row.id: row.user_id for row in rows}
    warned = {**_lengths(job, model, found.get("start")), **warnings(history, job.config.beta)}
    for name, text in warned.items():
        model.note(name, text)
    gains = [(users[one["id"]], one["chosen"], one["rejected"]) for one in job.made("validation")]
    card = Card(
        config=job.config,
        pairs=model.kept,
        users=len({users[pair.id] for pair in job.train()}),
        digests={**found["pairs"].data, "pairs": found["pairs"].digest},
        funnel=[*found["pairs"].funnel, FunnelRow("dpo", model.rows_in, model.kept, model.dropped)],
        history=history,
        measured=measure(gains if job.config.refers else [], job.config.beta, job.config.seed),
        warnings=list(warned.values()),
        code_version=code_version(),
        **{name: found[name].digest for name in ("start", "reference") if name in found},
    )
    model.file(NAME).write_text(render(card))
    model.file(CURVES).write_bytes(curves_png(history))


def _lengths(job: Job, model: Output[Pair], before: Manifest | None) -> dict[str, str]:
    """The warnings of the answers' lengths, which nobody has said yet."""
    pairs = job.train()
    lengths = [len(pair.chosen_ids) for pair in pairs], [len(pair.rejected_ids) for pair in pairs]
    model.measure({TOKENS: mean_length(*lengths)})
    warned = length_warnings(*lengths, before.metrics.get(TOKENS) if before else None)
    for text in warned.values():
        log.warning("training: %s", text)
    return warned
