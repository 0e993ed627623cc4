"""Errors that end a process of the server. Apart, so that a client's commands, which have no
settings, need not load what reads them.
"""


class SettingsError(ValueError):
    """A setting can't be used; the message names it and where it came from."""
