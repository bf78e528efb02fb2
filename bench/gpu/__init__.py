"""Everything that waits for a GPU, in one command of a few minutes: `python -m bench.gpu --minutes 5 --out FOLDER`.

plan.py       the steps, in the order of their worth, and how they share the time
child.py      a step is a process of its own, which is killed when it is late
store.py      the files that a call leaves, at most eight
task.py       what a step is told
probe.py      which card this is, before anything is written
smoke.py, measure.py, marked_tests.py, tuner.py     the steps themselves
targets.py    what the project promises, as data; summary.py prints what was measured of it

docs/gpu.md says how to use it.
"""
