"""Which checkpoints are kept, and which of them a training goes on from.

Trainer writes ``dpo-FINGERPRINT/checkpoint-N/``; `listing` tells when one is whole. Where the place is on S3 it is sent
while the next steps run. The newest two that are whole stay, and the best one where Trainer knows it.

With several processes the first of each node lists and sends what its node wrote. A place that is a folder must be the
same for all nodes; there the first process of all does it alone.
"""

import json
import logging
import shutil
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rlhi.dpo.checkpoints import listing, ranks
from rlhi.dpo.checkpoints.listing import DamagedError, Listing, UnfinishedError
from rlhi.dpo.checkpoints.places import Disk, Mirror
from rlhi.engine.s3.bucket import AwayError
from rlhi.errors import InputError

VARIABLE = "RLHI_CHECKPOINTS"
REMOTE = "s3://"
STATE = "trainer_state.json"  # Trainer's
log = logging.getLogger("rlhi")


class Checkpoints:
    """The checkpoints of the training with ``fingerprint`` at ``place``, a folder or ``s3://bucket/prefix``.

    ``folder`` is Trainer's ``output_dir``; it is below ``scratch`` where the place is on S3. Each process of a training
    has one of these.

    Raises:
        InputError: the place is none.
    """

    def __init__(self, place: str, fingerprint: str, scratch: Path) -> None:
        remote = place.startswith(REMOTE)
        if not remote and "://" in place:
            raise InputError(f"{VARIABLE}={place}: unknown scheme; give a folder or s3://bucket/prefix")
        self.folder = (scratch if remote else Path(place)) / f"dpo-{fingerprint}"
        self._fingerprint = fingerprint
        self._disk = Disk(self.folder)
        self._mirror = Mirror(f"{place.rstrip('/')}/dpo-{fingerprint}") if remote else None
        self._first = ranks.number("RANK", 0) == 0
        self._leads = ranks.number("LOCAL_RANK", 0) == 0 if remote else self._first
        self._node = ranks.number("GROUP_RANK", 0) if remote else 0
        self._nodes = ranks.number("GROUP_WORLD_SIZE", 1) if remote else 1
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._going: Future[None] | None = None

    def restore(self) -> Path | None:
        """The newest whole checkpoint, on this disk and verified; none where there is none. Every process calls this.

        What is damaged is passed over with a warning. All that is newer than what is found is deleted. To be called
        when torch.distributed is up, which the making of Trainer's arguments sees to.

        Raises:
            InputError: a checkpoint there is of another training, or the server stays away or refuses.
        """
        steps = ranks.from_first(self._steps() if self._first else [])
        found = next((step for step in steps if ranks.everywhere(not self._leads or self._obtain(step))), None)
        if self._leads:
            if found is not None and (best := self._best(found)) not in (None, found):
                self._obtain(best)
            self._disk.delete(_after(found, self._disk.found()))
        if self._first and self._mirror is not None:
            self._mirror.delete(_after(found, self._mirror.found()))
            self._mirror.abandon()
        ranks.barrier()
        return None if found is None else self._disk.at(found)

    def keep(self, step: int, best: int | None) -> None:
        """Takes what the processes have just written for a step; each calls this. The checkpoint of ``best`` stays too.

        Raises:
            InputError: the server refuses.
        """
        self.flush()
        ranks.barrier()
        if self._leads:
            self._going = self._pool.submit(self._keep, step, best)

    def flush(self) -> None:
        """Waits until what was given to `keep` is safe. A server that stays away is warned of, and left at that.

        Raises:
            InputError: the server refuses.
        """
        going, self._going = self._going, None
        try:
            if going is not None:
                going.result()
        except AwayError as error:
            log.warning("%s; the last checkpoint is on this disk only", str(error))

    def remove(self) -> None:
        """Deletes all checkpoints of this training, to be called when what it made is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._mirror is not None:
            self._mirror.erase()

    def _keep(self, step: int, best: int | None) -> None:
        folder, name = self._disk.at(step), listing.listing_name(self._node)
        made = listing.make(folder, self._fingerprint, self._nodes)
        listing.write(folder / name, made.encode())
        self._disk.delete(listing.old(self._disk.found(), 1, best))  # while a server is away too, or the disk fills
        if self._mirror is not None:
            self._mirror.send(folder, (*made.files, name))
            if self._first:
                self._mirror.delete(listing.old(self._mirror.found(), self._nodes, best))

    def _steps(self) -> list[int]:
        """The steps of all checkpoints that may be whole, newest first."""
        there = self._mirror.found() if self._mirror is not None else {}
        return sorted({*self._disk.found(), *there}, reverse=True)

    def _obtain(self, step: int) -> bool:
        """Whether the checkpoint is whole on this disk, or now is."""
        folder = self._disk.at(step)
        try:
            listing.verify(folder, self._read(str(folder), self._disk.listings(step).values()))
        except DamagedError as error:
            _tell(str(folder), error)
            return self._mirror is not None and self._fetch(step, self._mirror)
        return True

    def _fetch(self, step: int, mirror: Mirror) -> bool:
        """Whether the checkpoint could be read from S3."""
        folder = self._disk.at(step)
        try:
            bodies = mirror.listings(step)
            listings = self._read(mirror.at(step), bodies.values())
            mirror.fetch(folder, {name: size for each in listings for name, (size, _) in each.files.items()})
            listing.verify(folder, listings)
        except DamagedError as error:
            _tell(mirror.at(step), error)
            return False
        for name, body in bodies.items():
            listing.write(folder / name, body)
        return True

    def _read(self, where: str, bodies: Iterable[bytes]) -> list[Listing]:
        found = listing.decode(bodies)
        for each in found:
            if each.fingerprint != self._fingerprint:
                raise InputError(
                    f"{where}: is a checkpoint of training {each.fingerprint}, this is {self._fingerprint}; remove it,"
                    f" or set {VARIABLE} to another place"
                )
        return found

    def _best(self, step: int) -> int | None:
        found: int | None = json.loads((self._disk.at(step) / STATE).read_text())["best_global_step"]
        return found


def _after(found: int | None, steps: Iterable[int]) -> list[int]:
    return [step for step in steps if found is None or step > found]


def _tell(where: str, error: DamagedError) -> None:
    # what a kill left unfinished is nothing to worry about
    log.log(logging.INFO if isinstance(error, UnfinishedError) else logging.WARNING, "%s: %s; left out", where, error)
