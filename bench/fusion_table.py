"""What fusion is worth on a GPU, from a stored result, as the Markdown table that the README shows.

python -m bench.fusion_table
"""

from bench import results
from bench.noise_table import DTYPES, GPU, GPU_ELEMENTS, TO_INT8, on_gpu
from bench.operations import OURS

ROWS = (
    ("by itself", TO_INT8),
    ("after gelu, and before a dot", f"gelu, {TO_INT8}, dot"),
    ("after layer norm", f"layer norm, {TO_INT8}"),
)
NAMES = ("xla", "pallas")


def microseconds(operation: str, name: str, dtype: str = DTYPES[1]) -> float:
    """The device's time for an operation on the largest array."""
    wanted = (operation, dtype, GPU_ELEMENTS)
    [found] = [c for c in on_gpu()["cases"] if (c["operation"], c["dtype"], results.elements(c)) == wanted]
    seconds = results.device_seconds(found, name)
    assert seconds is not None
    return 1e6 * seconds


def table() -> str:
    """The table."""
    card, exponent = GPU.removeprefix("NVIDIA "), GPU_ELEMENTS.bit_length() - 1
    heads = (f"{card}, 2^{exponent} elements of bfloat16 to int8", *(f'`"{name}"`' for name in NAMES))
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for title, operation in ROWS:
        times = (f"{microseconds(operation, f'{OURS}, {name}'):.0f} us" for name in NAMES)
        lines.append(f"| {' | '.join((title, *times))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
