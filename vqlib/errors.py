"""Mistakes that a user can mend. Each message is one line that names the thing, the key and what it may be (of
``verify`` one line for each thing that is damaged).

Programs print the message alone and exit with 2; no traceback for what a user can cause.
"""


class UserError(Exception):
    """Base of all errors that are shown as one line."""


class ParameterError(UserError):
    """A parameter is unknown, of the wrong type or out of its range."""


class DataError(UserError):
    """Source or prepared data are missing, damaged or not those that were asked for."""


class DeviceError(UserError):
    """The device that was asked for is not there."""


class StorageError(UserError, OSError):
    """A disk is full, read-only or failing."""


class BusyError(UserError):
    """Another process works on the same directory."""


class DivergedError(UserError):
    """Loss or gradients stopped being finite. ``report`` (JSON) says where, on which batch, in which state."""

    report: dict | None = None


class StaleCodeError(UserError):
    """The code changed while a run that used it was going on."""


class ReportError(UserError):
    """Results are missing or damaged, or a text asks for a number that they do not hold."""
