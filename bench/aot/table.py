"""The stored counts."""

import functools
import json
import pathlib
from typing import Any

COUNTS = pathlib.Path(__file__).parent / "counts"
PLATFORMS = ("cuda", "jax_triton", "tpu")


@functools.cache
def reports() -> dict[str, dict[str, Any]]:
    return {platform: json.loads((COUNTS / f"{platform}.json").read_text()) for platform in PLATFORMS}


def counts() -> dict[tuple[str, str], dict[str, Any]]:
    """Every stored row by its case and chip."""
    return {(row["case"], row["chip"]): row for report in reports().values() for row in report["cases"]}
