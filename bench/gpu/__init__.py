"""Everything that waits for a GPU, in one command of a few minutes: `python -m bench.gpu --minutes 5 --out FOLDER`.

steps.py      the steps, and what the process of one is told and keeps
smoke.py, measure.py, marked_tests.py, tuner.py     the steps themselves
targets.py    what the project promises, as data; table.py says what was measured of it
store.py      the files

docs/gpu.md says how to use it.
"""
