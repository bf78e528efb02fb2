"""Everything that waits for a GPU, in one command of a few minutes; docs/gpu.md says how to use it.

steps.py      the steps, and what the process of one is told and keeps
measure.py, marked_tests.py     the steps themselves, but for tools/tune.py
targets.py    what the project promises, as data; table.py says what was measured of it
store.py      the files
"""
