"""Errors that end a process of the server. In a module of their own, so that a client's commands
need not load the settings.
"""


class SettingsError(ValueError):
    """A setting can't be used; the message names it and where it came from."""
