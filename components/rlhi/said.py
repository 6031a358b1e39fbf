"""What MLflow is told of one run, as a value that can wait in a file."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rlhi import manifest
from rlhi.errors import InputError
from rlhi.manifest import Manifest
from rlhi.runs import Around, Point


@dataclass(frozen=True)
class Said:
    """What MLflow is to be told of a stage, or where there is no ``folder`` of the whole pipeline, when it had ended.

    ``ours`` is whether its run is for us to end, which KFP does of those that it makes.
    """

    manifests: Sequence[Manifest]
    ended: float
    run_id: str | None
    ours: bool = True
    folder: str | None = None
    reused: bool = False
    failed: bool = False
    curves: Sequence[Point] = ()
    around: Around = field(default_factory=Around)

    @property
    def title(self) -> str:
        """What it is about."""
        return "pipeline" if self.folder is None else self.manifests[0].title


def now() -> float:
    """Seconds since 1970, in the milliseconds that MLflow counts in: so differences stay what they are."""
    return round(time.time(), 3)


def as_text(said: Said) -> str:
    """JSON, for `from_text`."""
    return json.dumps(asdict(said), indent=1) + "\n"


def from_text(place: str, text: str) -> Said:
    """What was written at ``place``.

    Raises:
        InputError: something else was.
    """
    try:
        values = json.loads(text)
        manifests = [manifest.read(each) for each in values["manifests"]]
        curves = [(str(name), float(value), int(step)) for name, value, step in values["curves"]]
        return Said(**{**values, "manifests": manifests, "curves": curves, "around": Around(**values["around"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{place}: is nothing that MLflow can be told ({error}); delete it") from None
