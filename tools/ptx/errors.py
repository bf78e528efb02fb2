"""What can go wrong when PTX runs."""


class Error(Exception):
    """Any of the errors below."""


class UnsupportedError(Error, NotImplementedError):
    """PTX that the interpreter does not know, or whose result the manual leaves open."""


class AccessError(Error):
    """Memory out of bounds or misaligned, or memory or a register that nobody wrote."""


class RaceError(Error):
    """Two threads that use one place without a barrier between them."""


class DeadlockError(Error):
    """Threads wait for others that will never arrive, or a loop does not end."""
