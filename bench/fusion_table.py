"""What fusion is worth on a GPU, from a stored result, as the Markdown table that the README shows.

python -m bench.fusion_table
"""

from bench.noise_table import GPU, GPU_ELEMENTS, TO_INT8, gpu_seconds
from bench.operations import OURS

ROWS = (
    ("by itself", TO_INT8),
    ("after gelu, and before a dot", f"gelu, {TO_INT8}, dot"),
    ("after layer norm", f"layer norm, {TO_INT8}"),
)
NAMES = ("xla", "pallas")


def table() -> str:
    """The table."""
    card, exponent = GPU.removeprefix("NVIDIA "), GPU_ELEMENTS.bit_length() - 1
    heads = (f"{card}, 2^{exponent} elements of bfloat16 to int8", *(f'`"{name}"`' for name in NAMES))
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for title, operation in ROWS:
        times = (f"{1e6 * gpu_seconds(operation, f'{OURS}, {name}'):.0f} us" for name in NAMES)
        lines.append(f"| {' | '.join((title, *times))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
