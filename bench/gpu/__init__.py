"""Everything that waits for a GPU, in one command of a few minutes; docs/gpu.md says how to use it.

The command starts the steps (steps.py); table.py compares what measure.py and marked_tests.py wrote with targets.py.
"""
