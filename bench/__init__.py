"""Benchmarks, beside what could be used instead, and what can be told without a device.

python -m bench          times of every operation: `operations.py` says of which, `runner.py` how
python -m bench.gpu      all that waits for a GPU, within a few minutes
python -m bench.report   the page and the plots that show them
python -m bench.aot      machine instructions, counted ahead of time
"""
