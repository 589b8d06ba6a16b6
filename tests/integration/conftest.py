"""What the tests of whole commands share: real OpenSSH servers on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.test_openssh import Servers


@pytest.fixture
def servers(tmp_path: Path, ssh_home: Path) -> Iterator[Servers]:
    """Starts servers when asked, and ends them all."""
    from tests.integration.test_openssh import Servers

    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what the service does before it starts
    made = Servers(tmp_path, ssh_home)
    yield made
    for server in made.running:
        server.close()
