# SPDX-License-Identifier: GPL-2.0-only
"""The running kernel as oracle: the same workload on the kernel's KSM and on the port, and where they differ.

    workload    what a workload is, and the code that runs one on either side; check refuses what is not one, or too large
    generate    random workloads
    kernel      the kernel's side, with process (real processes), observe (their pages, trace events) and proc
    replay      the port's side
    compare     the first difference
    verify      runs both sides, and again if they differ
    recorded    the kernel's outcome in a file

`python -m ksm.oracle --help` is the command.
"""
