# SPDX-License-Identifier: GPL-2.0-only
"""The notebooks of docs/: they run, they say what they show, and they are kept without outputs."""

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

FOLDER = Path(__file__).resolve().parents[1] / "docs/notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_they_are_kept_without_outputs():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert [cell["id"] for cell in cells(path) if cell.get("outputs") or cell.get("execution_count")] == []
        assert "SPDX-License-Identifier: GPL-2.0-only" in "".join(cells(path)[0]["source"])


def test_they_run(tmp_path):
    """One after the other in one kernel, which takes a second to begin. Their assertions are part of them."""
    if os.environ.get("CI"):
        import nbclient
        import nbformat
    else:
        nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
        pytest.importorskip("ipykernel")
    whole = nbformat.read(NOTEBOOKS[0], 4)
    for path in NOTEBOOKS[1:]:
        whole.cells += nbformat.read(path, 4).cells
    nbclient.NotebookClient(whole, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in whole.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert kinds == {"text/plain", "text/html", "image/svg+xml"} and list(tmp_path.iterdir()) == []
