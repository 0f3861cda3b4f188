"""The one kind of error that is the user's to mend."""

from __future__ import annotations


class UserError(Exception):
    """Wrong input: the message names the file or key and says how to mend it.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """

    told = False
    """Whether another of many processes says it already."""
