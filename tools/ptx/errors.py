"""What can go wrong when PTX runs."""


class Error(Exception):
    """Any of the errors below."""


class Unsupported(Error, NotImplementedError):
    """PTX that the interpreter does not know, or whose result the manual leaves open."""


class InvalidAccess(Error):
    """Memory out of bounds or misaligned, or memory or a register that nobody wrote."""


class DataRace(Error):
    """Two threads that use one place without a barrier between them."""


class Deadlock(Error):
    """Threads that wait for others which will not come."""
