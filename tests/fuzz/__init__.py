# SPDX-License-Identifier: GPL-2.0-only
"""A fuzzer over the whole of `import ksm`: python -m fuzz, with tests/ on the path; `tox -e fuzz` makes a build with sanitizers for it.

A life is a machine, and what is done to it. It comes from a number, its seed: grammar.py makes actions of it, as data; player.py and what
it is made of (memory.py, images.py, devices.py, files.py, strange.py, forks.py) carry them out, and know from shadow.py what every byte has
to be; hunt.py gives each life a process of its own, watches it, and writes down what it found; shrink.py drops actions from a life for as
long as it goes wrong in the same way. Nothing is left out because of a fault that is known: a finding is a fault, of ksm or of the fuzzer.
"""
