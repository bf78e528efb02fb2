"""What the maintainers of the package run, and not its users.

python -m tools.tune           the block sizes and warps of the kernels for a GPU: rows of kernels/gpu/tuning.py
python -m tools.readme_tables  tables of stored times and counts, for the README and docs/implementations.md
python -m tools.bias           the mean error of stochastic rounding; draws docs/bias.svg
python -m tools.battery        statistical tests of the random words, which `tools.stream` writes
"""
