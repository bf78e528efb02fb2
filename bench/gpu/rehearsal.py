"""What a rehearsal must have done: every step, and a line of the table for each target."""

import pathlib

from bench.gpu import judge, plan, store

UNMEASURED = {"torch.compile"}  # what the environment of a rehearsal need not have


def complaints(folder: pathlib.Path) -> list[str]:
    """What is missing or wrong."""
    steps = store.read(folder / store.RUN)["steps"]
    found = []
    for step in plan.STEPS:
        how = steps.get(step.name, {"status": "not run"})
        if how["status"] != "ran":
            found.append(f"step {step.number} {step.name}: {how['status']}: {how.get('why', '')}")
    for verdict in judge.verdicts(folder):
        needed = not any(word in verdict.target.name for word in UNMEASURED)
        if needed and verdict.status in (judge.NOT_MEASURED, judge.SO_FAR):
            found.append(f"{verdict.target.name}: {verdict.status}: {verdict.measured}")
        if isinstance(verdict.target, judge.Right) and verdict.status == judge.NOT_MET:
            found.append(f"{verdict.target.name}: {verdict.measured}")
    found += [f"{name} is missing" for name in store.FILES if not (folder / name).exists()]
    return found
