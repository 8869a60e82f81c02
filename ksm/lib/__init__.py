# SPDX-License-Identifier: GPL-2.0-only
"""What lib/ has in the kernel: red-black trees and hashes."""
