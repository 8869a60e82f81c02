# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""What runs the queries of a fleet: DuckDB inside this process, or on the workers of a Dask cluster. steps.py is what both do."""
