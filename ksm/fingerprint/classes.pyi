# SPDX-License-Identifier: GPL-2.0-only
# The types of classes.pyx.
from typing_extensions import Buffer

CLASSES: tuple[str, ...]
FORMS: int

def classes_of(data: Buffer, *, form: int = 0) -> bytes: ...
