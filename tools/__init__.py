"""What the maintainers of the package run, and not its users.

python -m tools.tune           the block sizes and warps of the kernels for a GPU: rows of kernels/gpu/tuning.py
python -m tools.readme_tables  tables of stored times and counts, for the README and docs/implementations.md
python -m tools.bias           the mean error of stochastic rounding; draws docs/bias.svg
python -m tools.ptx            what the compiled code of a kernel does, run on a CPU: counts, and a trace of one thread
python -m tools.battery        dieharder, PractRand or TestU01 on the random words that `tools.stream` writes
"""
