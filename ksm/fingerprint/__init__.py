# SPDX-License-Identifier: GPL-2.0-only
# No twin in the kernel: what stands for a page where its bytes are not kept.
"""Fingerprints of pages."""

from ksm.fingerprint.frames import frames_of as frames_of
from ksm.fingerprint.frames import key_name as key_name
