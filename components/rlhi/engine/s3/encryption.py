"""How S3 encrypts the objects that this project writes: as ``RLHI_S3_SSE`` says, else as the bucket does."""

import os

from rlhi.errors import InputError

KIND, KEY = "RLHI_S3_SSE", "RLHI_S3_SSE_KMS_KEY_ID"
BY_KMS = ("aws:kms", "aws:kms:dsse")
KINDS = ("AES256", *BY_KMS)


def encryption() -> dict[str, str]:
    """What a request that writes says of it, as boto3 takes it.

    Raises:
        InputError: a kind that S3 does not know, or a key that nothing is encrypted by.
    """
    kind, key = os.environ.get(KIND, ""), os.environ.get(KEY, "")
    if kind and kind not in KINDS:
        raise InputError(f"{KIND}={kind}: is no encryption of S3; give {', '.join(KINDS)}, or nothing for the bucket's")
    if key and kind not in BY_KMS:
        raise InputError(f"{KEY}={key}: is not used with {KIND}={kind or '(not set)'}; set that to aws:kms")
    asked = {"ServerSideEncryption": kind, "SSEKMSKeyId": key}
    return {name: value for name, value in asked.items() if value}
