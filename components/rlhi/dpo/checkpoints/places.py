"""Where the checkpoints of one training are: a folder, and a mirror of it on S3."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlhi.dpo.checkpoints.listing import DamagedError, is_listing, name_of, step_of
from rlhi.engine.s3.files import Files


class Disk:
    """A folder, with Trainer's checkpoints in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / name_of(step)

    def found(self) -> dict[int, int]:
        """The steps of the checkpoints there, with the number of their listings."""
        steps = {step: path for path in self.folder.glob("*") if (step := step_of(path.name)) is not None}
        return {step: sum(is_listing(each.name) for each in path.iterdir()) for step, path in steps.items()}

    def listings(self, step: int) -> dict[str, bytes]:
        """The text of the listings of a checkpoint, by name."""
        return {path.name: path.read_bytes() for path in self.at(step).glob("*") if is_listing(path.name)}

    def delete(self, steps: Iterable[int]) -> None:
        """Deletes checkpoints, their listings first: what is half deleted is not whole."""
        for step in steps:
            for path in self.at(step).glob("*"):
                if is_listing(path.name):
                    path.unlink()
            shutil.rmtree(self.at(step))


class Mirror:
    """The same below ``url``. Methods raise what `Files` raises."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files = Files(url)

    def at(self, step: int) -> str:
        """The address of one checkpoint."""
        return f"{self.url}/{name_of(step)}"

    def found(self) -> dict[int, int]:
        """The steps of the checkpoints there, with the number of their listings."""
        counts: dict[int, int] = {}
        for name in self._files.names(""):
            folder, _, inner = name.partition("/")
            step = step_of(folder)
            if step is not None:
                counts[step] = counts.get(step, 0) + is_listing(inner)
        return counts

    def listings(self, step: int) -> dict[str, bytes]:
        """The text of the listings of a checkpoint, by name."""
        names = [name for name in self._names(step) if is_listing(Path(name).name)]
        return {Path(name).name: self._files.get(name).body or b"" for name in names}

    def send(self, folder: Path, names: Iterable[str]) -> None:
        """Writes files of a checkpoint, in this order."""
        for name in names:
            self._files.upload(f"{folder.name}/{name}", folder / name)

    def fetch(self, folder: Path, wanted: Mapping[str, int]) -> None:
        """Reads files of a checkpoint, given with their bytes; nothing else is in ``folder`` then.

        Raises:
            DamagedError: one is missing or of another size.
        """
        shutil.rmtree(folder, ignore_errors=True)
        there = self._files.sizes(f"{folder.name}/")
        for name, size in wanted.items():
            if there.get(f"{folder.name}/{name}") != size:
                raise DamagedError(f"{name} is missing or of another size")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._files.download(f"{folder.name}/{name}", folder / name, size)

    def delete(self, steps: Iterable[int]) -> None:
        """Deletes checkpoints, their listings first: what is half deleted is not whole."""
        for step in steps:
            names = self._names(step)
            self._files.delete([name for name in names if is_listing(Path(name).name)])
            self._files.delete(names)

    def abandon(self) -> None:
        """Frees what killed processes have left half sent."""
        self._files.abandon("")

    def erase(self) -> None:
        """Deletes all, with every version that the bucket keeps."""
        self._files.abandon("")
        self._files.erase("")

    def _names(self, step: int) -> list[str]:
        return self._files.names(f"{name_of(step)}/")
