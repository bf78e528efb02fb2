"""What is run once for a statement in the README, and not by every user.

python -m tools.readme_tables  its tables of stored times and counts
python -m tools.bias           the mean error of stochastic rounding; draws docs/bias.svg
python -m tools.battery        statistical tests of the random words, which `tools.stream` writes
"""
