# SPDX-License-Identifier: GPL-2.0-only
"""The made fleet, small: as files, and as what is known of it."""

import pytest

try:
    import duckdb  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError:
    collect_ignore_glob = ["test_*.py"]
else:
    from made import made, write_fleet

    from ksm.fleet.files import open_fleet

    @pytest.fixture(scope="session")
    def machines():
        """The machines in the order of their files."""
        return sorted(made(2), key=lambda machine: machine.host)

    @pytest.fixture(scope="session")
    def few(machines):
        """The machines of the first eight hosts."""
        return machines[:80]

    @pytest.fixture(scope="session")
    def few_folder(few, tmp_path_factory):
        folder = tmp_path_factory.mktemp("few")
        write_fleet(folder, few)
        return folder

    @pytest.fixture(scope="session")
    def folder(machines, tmp_path_factory):
        folder = tmp_path_factory.mktemp("fleet")
        write_fleet(folder, machines)
        return folder

    @pytest.fixture(scope="session")
    def fleet(folder):
        return open_fleet([str(folder)])
