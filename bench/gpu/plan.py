"""The steps, in the order of their worth, and how they share the time."""

import dataclasses
from collections.abc import Sequence

MOST_MINUTES = 9.0
RESERVE = 4.0  # seconds at the end: a late step is killed, and the table is written
LEAST = 10.0  # seconds without which a step is not begun: JAX alone takes some of them to start


@dataclasses.dataclass(frozen=True)
class Step:
    """A process of its own.

    Attributes:
        number: What `--from` takes beside the name; two steps may share it.
        name: What it is called.
        module: What is run, in `bench.gpu`.
        share: Seconds of a call of five minutes; longer and shorter calls are divided alike.
        what: What it does, for a person.
    """

    number: int
    name: str
    module: str
    share: float
    what: str


STEPS = (
    Step(1, "smoke", "smoke", 30, "one kernel of each operation and dtype, bits against the reference"),
    Step(2, "headline", "measure", 105, "the headline cases, the most valuable first"),
    Step(3, "tests", "marked_tests", 70, "the tests marked gpu, one of each distinct kernel first"),
    Step(4, "tuner", "tuner", 40, "block sizes and warps, the shortest list first"),
    Step(4, "again", "measure", 20, "the headline cases of operations whose row the tuner changed"),
    Step(5, "rest", "measure", 20, "the rest of the benchmark"),
)
NAMES = tuple(step.name for step in STEPS)


def from_step(text: str) -> tuple[Step, ...]:
    """The steps from a name or a number on.

    Raises:
        ValueError: There is no such step.
    """
    for i, step in enumerate(STEPS):
        if text in (step.name, str(step.number)):
            return STEPS[i:]
    known = ", ".join(f"{step.number} or {step.name}" for step in STEPS)
    raise ValueError(f"--from {text}: there is no such step; use one of {known}")


def seconds_for(steps: Sequence[Step], left: float, alike: bool = False) -> float:
    """The limit of the first of the steps that remain: its share, but `LEAST` at least where so much is left.

    What it leaves over is for the others.

    Args:
        steps: What remains, the next first.
        left: Seconds that remain for all of them.
        alike: Whether all have the same share, as in a rehearsal, which ends when all is done.
    """
    shares = [1.0 if alike else step.share for step in steps]
    return max(0.0, min(left, max(LEAST, left * shares[0] / sum(shares))))
