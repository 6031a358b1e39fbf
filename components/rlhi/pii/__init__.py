"""Redacts personal data: what a pattern and a checksum can tell, by kind, with a placeholder such as ``[EMAIL]``."""

from rlhi.pii.persona import redact_persona
from rlhi.pii.redaction import KINDS, Kind, redact, redact_column

__all__ = ["KINDS", "Kind", "redact", "redact_column", "redact_persona"]
