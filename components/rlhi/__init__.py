"""RLHI: learning from the conversations that people have with an assistant."""

__version__ = "0.1.0"
