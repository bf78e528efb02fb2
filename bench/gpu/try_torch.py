"""Whether PyTorch compiles here: `python -m bench.gpu.try_torch cuda`, beside the first step, which is not timed.

It fills what PyTorch's compilers keep on disk, and reads its libraries from there for the first time.
PyTorch is imported when the function is called: `pytest bench` imports this module where it need not be installed.
"""

import sys

from bench.libraries import compiled, formula


def main(device: str) -> None:
    """Compiles a small function, and fails if its result is wrong."""
    import torch

    x = torch.arange(-200.0, 200.0, device=device)
    y = compiled(formula("int8", False))(x)
    if y.cpu().tolist() != [max(-127, min(127, n)) for n in range(-200, 200)]:
        sys.exit("torch.compile gave a wrong result")
    print("PyTorch compiles")


if __name__ == "__main__":
    main(*sys.argv[1:])
