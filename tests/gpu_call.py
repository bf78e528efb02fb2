"""A card that is not there, for the tests of `python -m bench.gpu`."""

from typing import Any

ABOUT: dict[str, Any] = {
    "device": "NVIDIA H100 80GB HBM3",
    "platform": "cuda",
    "versions": {"python": "3.12.3", "jax": "0.11.2", "torch": "2.11.0+cu130"},
    "clocks": {},
    "system": "Linux",
    "commit": "c0ffee",
}
FOLDER = "nvidia-h100-80gb-hbm3_jax-0.11.2_torch-2.11.0-cu130"
