"""Which of Pallas' two compilers for CUDA, Triton and Mosaic GPU, should be `implementation="pallas"` on a card.

And which of ours should quantize rows by their largest magnitudes, where XLA is the third.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

from bench import results
from bench.gpu.targets import MOSAIC, NONE_IS_A_KERNEL, PALLAS, ROWS, TRITON, XLA
from bench.names import INTERPRETED, INTERPRETED_MOSAIC, OURS
from bench.results import Measured, Report

LEAST, LARGE = 0.01, 1 << 24  # the share of the time that counts, since less is chance; and elements


def variants(pallas: str) -> dict[str, tuple[str, ...]]:
    """The variants, on a GPU and rehearsed, that targets mean by the two and by `"pallas"`, whose row is `pallas`."""
    triton, mosaic = (f"{OURS}, {name}" for name in (INTERPRETED, INTERPRETED_MOSAIC))
    return {PALLAS: (f"{OURS}, {pallas}", triton), TRITON: (TRITON, triton), MOSAIC: (MOSAIC, mosaic)}


def share(case: Measured) -> tuple[float, str] | None:
    """Mosaic's time divided by Triton's, and the clock of both; None if one has no time or is wrong."""
    right = [name for name, found in case["results"].items() if "wrong" not in found]
    triton, mosaic = ([name for name in right if name in variants("")[one]] for one in (TRITON, MOSAIC))
    found = results.times(case, mosaic[0], triton[0]) if triton and mosaic else None
    return (found[0] / found[1], found[2]) if found else None


def lines(cases: Iterable[Measured]) -> list[str]:
    """A line for each operation and dtype in which both were timed, with Mosaic's time over Triton's at each size."""
    found = defaultdict[str, list[str]](list)
    for case in cases:
        if (one := share(case)) is not None:
            said = f"{one[0]:.2f} of {results.size_text(case)} elements by {one[1]} time"
            found[f"{case['operation']}, {case['dtype']}"].append(said)
    return [f"{name} | {'; '.join(said)}" for name, said in found.items()]


def quicker(cases: Iterable[Measured], pallas: str) -> tuple[str, str]:
    """Which of the two should be `"pallas"`, where it is `pallas` now, and what was measured.

    The measure is the geometric mean over the large cases that `implementation=None` gives to a kernel by itself.
    """
    deciding = (c for c in cases if c["operation"] in NONE_IS_A_KERNEL and c["dtype"] == "bfloat16")
    shares = [found[0] for c in deciding if results.elements(c) >= LARGE and (found := share(c))]
    if not shares:
        return pallas, "no case was timed with both"
    mean = math.exp(math.fsum(map(math.log, shares)) / len(shares))
    best = "pallas_mosaic_gpu" if mean < 1 - LEAST else "pallas_triton" if mean > 1 + LEAST else pallas
    return best, f"Mosaic takes {mean:.3f} of Triton's time, the mean of {len(shares)} cases"


def advice(bench: Report, card: str, is_right: bool) -> str:
    """Which of the two should be `"pallas"` on a card, in one line, and what to edit for it."""
    pallas, rows = bench.get("pallas", "unknown"), bench.get("rows", {})
    best, why = quicker(bench.get("cases", []), pallas)
    counts = ", ".join(f"{name} {n}" for name, n in rows.items())
    why += f"; rows of kernels/gpu/tuning.py for this card: {counts}" if counts else ""
    if best == pallas or not is_right or not bench.get("pallas_is_a_choice"):
        reason = "" if best == pallas else " on this JAX" if is_right else " until all results are right"
        return f'"pallas" stays {pallas}{reason}: {why}'
    edit = f'take "{card}" out of' if best == "pallas_triton" else f'add "{card}" to'
    return f'"pallas" should be {best}: {why}; {edit} MOSAIC_IS_FASTER in kernels/gpu/pallas.py'


def advice_on_rows(bench: Report, card: str, is_right: bool) -> str:
    """Which of ours should quantize rows to integers and scales on a card, in one line."""
    names = (XLA, TRITON, MOSAIC)
    timed = [case for case in bench.get("cases", []) if case["operation"] in ROWS and case["dtype"] == "bfloat16"]
    over = {results.title(case): relative for case in timed if (relative := over_xla(case, names))}
    there = [name for name in names if over and all(name in relative for relative in over.values())]
    if len(there) < 2:
        return "no case was timed with XLA and a kernel"
    means = {name: math.exp(math.fsum(math.log(one[name]) for one in over.values()) / len(over)) for name in there}
    best, kernel = (min(among, key=means.__getitem__) for among in (there, [name for name in there if name != XLA]))
    quickest = {where: min(there, key=one.__getitem__) for where, one in over.items()}
    others = [
        f"{_short(name)} in {where} ({over[where][name] / over[where][best]:.2f} of its time)"
        for where, name in quickest.items()
        if over[where][name] < (1 - LEAST) * over[where][best]
    ]
    said = ", ".join(f"{_short(name)} {means[name]:.2f}" for name in there[1:])
    line = f'None should be {_short(best)} and "pallas" {_short(kernel)}'
    line += "" if is_right else " once all results are right"
    line += f": of XLA's time, the mean of {len(over)} cases, {said}; quicker than {_short(best)} is "
    return f"{line}{'; '.join(others) or 'no other in any case'}; edit of_absmax in intnumerics/_fastest.py"


def over_xla(case: Measured, names: Iterable[str]) -> dict[str, float]:
    """The time of those that are right divided by XLA's, by one clock; nothing if XLA has none."""
    found = {name: results.times(case, name, XLA) for name in names if "wrong" not in case["results"].get(name, {})}
    return {name: one[0] / one[1] for name, one in found.items() if one} if XLA in found else {}


def _short(name: str) -> str:
    return name.removeprefix(f"{OURS}, ")
