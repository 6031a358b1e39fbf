"""Files of any size in a bucket: in parts, several at a time, each tried again alone."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from botocore.exceptions import ClientError

from rlhi.engine.s3.bucket import Bucket

PART = 64 << 20  # bytes; S3 takes 10,000 parts of a file, so 640 GB
AT_ONCE = 4  # parts on their way, and in memory


class Files(Bucket):
    """A `Bucket` for files. What it raises is the same."""

    def upload(self, name: str, path: Path) -> None:
        """Writes one object, which is there when all of it is."""
        parts = range(0, path.stat().st_size, PART)
        if len(parts) <= 1:
            self.put(name, path.read_bytes())
            return
        given = {"Key": self._key(name)}
        given["UploadId"] = self._ask("create_multipart_upload", None, **given, **self._encryption)["UploadId"]

        def send(start: int) -> str:
            body = _read(path, start)
            answer = self._ask("upload_part", None, PartNumber=start // PART + 1, Body=body, **given)
            return str(answer["ETag"])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            tags = list(pool.map(send, parts))
        listed = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        try:
            self._ask("complete_multipart_upload", None, MultipartUpload={"Parts": listed}, **given)
        except ClientError:  # it was complete, and the answer got lost
            if self.sizes(name).get(name) != path.stat().st_size:
                raise

    def download(
        self,
        name: str,
        path: Path,
        size: int,
        condition: Mapping[str, str] | None = None,
        tell: Callable[[int], object] = bool,
    ) -> None:
        """Reads one object of ``size`` bytes into a file; under a condition: that it still has a tag, `same`.

        ``tell`` is told how many bytes have come with each part.
        """
        with open(path, "wb") as file:

            def fetch(start: int) -> None:
                wanted = f"bytes={start}-{min(start + PART, size) - 1}"
                answer = self._ask("get_object", None, Key=self._key(name), Range=wanted, **(condition or {}))
                os.pwrite(file.fileno(), answer["Body"], start)
                tell(len(answer["Body"]))

            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(fetch, range(0, size, PART)))

    def abandon(self, folder: str) -> None:
        """Frees what uploads that never ended, those of killed processes, have left below ``folder``."""
        found = self._ask("list_multipart_uploads", None, Prefix=self._key(folder)).get("Uploads", [])
        for upload in found:
            with suppress(ClientError):  # it has ended meanwhile
                self._ask("abort_multipart_upload", None, Key=upload["Key"], UploadId=upload["UploadId"])


def _read(path: Path, start: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(PART)
