# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: it merges within one host.
"""Who shares with whom over many hosts, from fingerprint files: docs/fleet.md explains it."""
