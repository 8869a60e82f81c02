# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: a machine behind a page.
"""`ksm study --serve`: the page with a machine for each visitor, on this computer alone.

actions.py says what a visitor may do, visits.py keeps a machine for each, server.py speaks HTTP.
"""
