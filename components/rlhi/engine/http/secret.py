"""The key of a server: read at the last moment, sent in one header, and taken out of whatever comes back."""

import os
from dataclasses import dataclass
from pathlib import Path

from rlhi.config import ServerConfig
from rlhi.errors import InputError

HIDDEN = "***"


@dataclass(frozen=True, repr=False)
class Key:
    """A key, or none. It has no repr, so that no log, error or traceback shows it."""

    value: str | None

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {} if self.value is None else {"Authorization": f"Bearer {self.value}"}

    def redact(self, text: str) -> str:
        """``text`` without the key: a server may echo what it was sent."""
        if not self.value:
            return text
        return text.replace(self.value, HIDDEN).replace(self.value.replace("/", "\\/"), HIDDEN)


def read_key(server: ServerConfig) -> Key:
    """The key out of its file, else out of its variable; none where neither is.

    Raises:
        InputError: the file cannot be read, or what is in it cannot be a key.
    """
    if server.api_key_file is None:
        return _key(os.environ.get(server.api_key_env, ""), f"engine.server.api_key_env: ${server.api_key_env}")
    where = f"engine.server.api_key_file={server.api_key_file!r}"
    try:
        text = Path(server.api_key_file).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"{where}: cannot be read: {reason}") from None
    if not text.strip():
        raise InputError(f"{where}: is empty")
    return _key(text, where)


def _key(text: str, where: str) -> Key:
    key = text.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(f"{where}: holds something that is no key: it has spaces, lines or characters beyond ASCII")
    return Key(key or None)
