"""Checkpoints of a transformers Trainer that outlive the pod.

A training that was killed goes on from the newest whole checkpoint and ends in the same weights, bit for bit on a CPU,
with no step missing in its history and none twice:

    checkpoints = Checkpoints(place, fingerprint, scratch)
    trainer = DPOTrainer(args=DPOConfig(output_dir=str(checkpoints.folder), **arguments(every), …), …)
    trainer.add_callback(Keeper(checkpoints))
    found = checkpoints.restore()
    trainer.train(resume_from_checkpoint=found and str(found))
    …
    checkpoints.remove()  # when what the training made is complete
"""

from rlhi.dpo.checkpoints.keeper import Keeper, arguments
from rlhi.dpo.checkpoints.kept import VARIABLE, Checkpoints

__all__ = ["VARIABLE", "Checkpoints", "Keeper", "arguments"]
