"""What the engine's errors become: one class for each of its codes.

Each is also the nearest class of Python's own, so ``except TimeoutError`` and ``except ValueError`` catch what one expects.
"""


class Error(Exception):
    """An error of the engine. ``param`` names the setting at fault, or is empty."""

    def __init__(self, message="", param=""):
        super().__init__(message)
        self.param = param


class InvalidArgumentError(Error, ValueError):
    """Something asked for makes no sense."""


class NotFoundError(Error, LookupError):
    """The thing named does not exist."""


class UnauthenticatedError(Error, PermissionError):
    """Missing or wrong credentials."""


class UnsupportedError(Error, NotImplementedError):
    """It makes sense, but Cadre does not do it."""


class ResourceExhaustedError(Error, MemoryError):
    """Memory or a limit is full."""


class UnavailableError(Error, ConnectionError):
    """A needed peer is gone, or not ready."""


class DeadlineExceededError(Error, TimeoutError):
    """A wait ended without its event; the message names who is missing."""


class CancelledError(Error, RuntimeError):
    """The caller went away."""


class DataLossError(Error, RuntimeError):
    """A file or message is damaged."""


class InternalError(Error, RuntimeError):
    """A fault of the engine that was contained."""
