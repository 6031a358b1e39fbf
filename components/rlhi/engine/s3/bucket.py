"""Objects under a prefix of an S3 bucket, for writers on many machines: with conditional writes, and with patience.

Endpoint, region and credentials come from the usual ``AWS_*`` variables, the same that `rlhi.sources` reads logs by. A
server that does not answer, or says that it is busy, is asked again for as long as the caller has patience.
"""

import logging
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlhi.engine.s3.encryption import encryption
from rlhi.errors import InputError

log = logging.getLogger("rlhi")
T = TypeVar("T")
PATIENCE = 600.0  # seconds that a server is waited for
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two tries
CONNECT, READ = 5, 10  # seconds for one try
AT_ONCE = 1000  # names in one request to delete: the limit of S3
PASSING = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)
BUSY = ("SlowDown", "RequestTimeout", "RequestTimeoutException", "Throttling")
REFUSED = "the server knows no conditional writes, without which workers cannot share replies"


NEW = {"IfNoneMatch": "*"}  # the condition that there is no such object yet


def same(tag: str) -> dict[str, str]:
    """The condition that the object is still the one that had ``tag``."""
    return {"IfMatch": tag}


class ConflictError(Exception):
    """The object is not what the condition of a write says: another writer was first."""


class MissingError(InputError):
    """There is no such bucket."""


class AwayError(InputError):
    """The server did not answer for as long as it was waited for."""

    def __init__(self, server: str, said: str, seconds: float) -> None:
        self.server, self.said = server, said
        super().__init__(f"{server}: no answer in {seconds:.0f} s (at last: {said}); start again when it is back")


@dataclass(frozen=True)
class Found:
    """An object as it was at ``time``, in seconds since 1970 by the clock of the server; without body where none is."""

    body: bytes | None
    tag: str | None
    time: float


@dataclass(frozen=True)
class Object:
    """What a listing says of an object: its bytes, the tag of its content, and when it was written, in seconds."""

    size: int
    tag: str
    changed: float = 0.0


class Bucket:
    """The objects whose names begin with the prefix of ``url``. For any number of threads.

    Every method raises `AwayError` where the server is silent for longer than ``patience`` seconds (those of the
    bucket, unless a call has its own), and `InputError` at once where it refuses: no such bucket, no right, no
    credentials.
    """

    def __init__(self, url: str) -> None:
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]+)(/[^?#*]*)?", url)
        if found is None:
            raise InputError(f"{url}: is no address on S3; give s3://bucket/prefix")
        self.url = url.rstrip("/")
        self.patience = PATIENCE
        self._bucket, self._prefix = found[1], (found[2] or "").strip("/")
        self._encryption = encryption()
        self._client = _client(url)

    def names(self, folder: str, patience: float | None = None) -> list[str]:
        """The names below ``folder`` (which ends in a slash), sorted; relative to the prefix, as all names are."""
        return sorted(self.sizes(folder, patience))

    def sizes(self, folder: str, patience: float | None = None) -> dict[str, int]:
        """The names below ``folder`` and how many bytes each object has."""
        return {name: found.size for name, found in self.objects(folder, patience).items()}

    def objects(self, folder: str, patience: float | None = None) -> dict[str, Object]:
        """What lies below ``folder``, by name."""
        found: dict[str, Object] = {}
        given: dict[str, str] = {"Prefix": self._key(folder)}
        while True:
            page = self._ask("list_objects_v2", patience, **given)
            for item in page.get("Contents", []):
                found[item["Key"].removeprefix(self._key(""))] = Object(
                    item["Size"], item["ETag"], item["LastModified"].timestamp()
                )
            if not page.get("IsTruncated"):
                return found
            given["ContinuationToken"] = page["NextContinuationToken"]

    def get(self, name: str, patience: float | None = None) -> Found:
        """One object."""
        try:
            answer = self._ask("get_object", patience, Key=self._key(name))
        except ClientError as error:
            if _status(error) != 404:
                raise
            return Found(None, None, _time(error.response))
        return Found(answer["Body"], answer["ETag"], _time(answer))

    def put(
        self, name: str, body: bytes, patience: float | None = None, condition: Mapping[str, str] | None = None
    ) -> None:
        """Writes an object, under a condition if one is given: `NEW`, or that it still has a tag: `same`.

        A try whose answer is lost can succeed, and the next then meet its own object.

        Raises:
            ConflictError: the condition is not met.
        """
        try:
            given = {"Key": self._key(name), "Body": body, **self._encryption, **(condition or {})}
            self._ask("put_object", patience, **given)
        except ClientError as error:
            # 404: what should be replaced is gone; 409: another write is under way
            if condition and _status(error) in (404, 409, 412):
                raise ConflictError(name) from None
            raise

    def delete(self, names: Sequence[str], patience: float | None = None) -> None:
        """Deletes objects, be they there or not; in a bucket that keeps versions, the versions too."""
        for start in range(0, len(names), AT_ONCE):
            keys = [{"Key": self._key(name)} for name in names[start : start + AT_ONCE]]
            self._delete(keys, patience)

    def erase(self, folder: str) -> bool:
        """Deletes all below ``folder`` with every version that the bucket keeps; whether there was anything."""
        given: dict[str, str] = {"Prefix": self._key(folder)}
        erased = False
        while True:
            try:
                page = self._ask("list_object_versions", None, **given)
            except ClientError:  # a server without versions
                names = self.names(folder)
                self.delete(names)
                return bool(names)
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            self._delete([{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found], None)
            erased = erased or bool(found)
            if not page.get("IsTruncated"):
                return erased
            given |= {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}

    def check(self) -> None:
        """Tries whether the server keeps to conditions.

        Raises:
            InputError: it does not.
        """
        name = f"probe/{uuid.uuid4().hex}"
        try:
            self.put(name, b"")
            for condition in (NEW, same('"another"')):
                if self._kept_to(name, condition):
                    continue
                raise InputError(f"{self.url}: {REFUSED}; use another server, or a file for each worker")
        finally:
            self.delete([name])

    def must_exist(self, patience: float | None = None) -> None:
        """Asks for the bucket itself.

        Raises:
            MissingError: there is none of that name.
        """
        try:
            self._ask("head_bucket", patience)
        except ClientError:  # of what is not refused in one line, 404 is all that is left
            raise MissingError(f"{self.url}: no bucket {self._bucket} is there; make it, or correct its name") from None

    def _kept_to(self, name: str, condition: Mapping[str, str]) -> bool:
        try:
            self.put(name, b"", condition=condition)
        except ConflictError:
            return True
        except ClientError as error:
            if _status(error) == 501:
                return False
            raise
        return False

    def _delete(self, keys: list[dict[str, str]], patience: float | None) -> None:
        if not keys:
            return
        answer = self._ask("delete_objects", patience, Delete={"Objects": keys, "Quiet": True})
        for failed in answer.get("Errors", []):
            raise InputError(f"s3://{self._bucket}/{failed['Key']}: cannot be deleted ({failed.get('Message')})")

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _ask(self, operation: str, patience: float | None, **given: Any) -> dict[str, Any]:
        """Calls the client until it is answered."""
        ask = getattr(self._client, operation)

        def call() -> dict[str, Any]:
            answer: dict[str, Any] = ask(Bucket=self._bucket, **given)
            if operation == "get_object":
                answer["Body"] = _all_of(answer["Body"].read(), given.get("Range"))
            return answer

        return self._patiently(call, self.patience if patience is None else patience)

    def _patiently(self, call: Callable[[], T], patience: float) -> T:
        started, wait = time.monotonic(), FIRST_WAIT
        while True:
            try:
                return call()
            except (BotoCoreError, ClientError) as error:
                passed = time.monotonic() - started
                if not _passes(error):
                    self._refused(error)
                if passed + wait > patience:
                    server = f"{self.url} at {self._client.meta.endpoint_url}"
                    raise AwayError(server, _said(error), passed) from None
                if wait == FIRST_WAIT:
                    log.warning("%s: %s; trying again for %.0f s", self.url, _said(error), patience)
            time.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT)

    def _refused(self, error: Exception) -> NoReturn:
        """Raises what the user can mend in one line, and the rest as it is."""
        if isinstance(error, ClientError) and _status(error) in (404, 409, 412, 501) and _code(error) != "NoSuchBucket":
            raise error
        raise InputError(f"{self.url}: {_said(error)}; look at the bucket, and at AWS_* for who may use it") from None


def _client(url: str) -> Any:
    # of an endpoint of one's own, buckets are folders, as for Arrow; where each has a host name, only Amazon tells
    own = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    config = Config(
        connect_timeout=CONNECT,
        read_timeout=READ,
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",  # servers other than Amazon's know the new ones by chance
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if own else "auto"},
    )
    try:
        return boto3.Session().client("s3", config=config, region_name=os.environ.get("AWS_REGION"))
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"{url}: {error}; see the AWS_* variables") from None


def _all_of(body: bytes, asked: str | None) -> bytes:
    """``body``, unless it is shorter than the range that was asked for."""
    if asked is not None:
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        if len(body) != last + 1 - first:
            raise exceptions.IncompleteReadError(actual_bytes=len(body), expected_bytes=last + 1 - first)
    return body


def _passes(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return (_status(error) >= 500 and _status(error) != 501) or _status(error) == 429 or _code(error) in BUSY
    return isinstance(error, PASSING)


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


def _said(error: Exception) -> str:
    return " ".join(str(error).split())


def _time(answer: Any) -> float:
    """When the server answered, by its own clock."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date).timestamp() if date else time.time()
