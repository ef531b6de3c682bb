"""The one error that people are meant to read."""

from __future__ import annotations


class Refused(Exception):
    """Something given to us cannot be used: the message names the thing, what is wrong with it, and the remedy."""
