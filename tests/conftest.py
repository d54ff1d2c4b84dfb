import socket

import pytest

LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Whole pipelines and processes of their own: minutes each, so they start first, and short files fill up the end.
LONGEST = ("test_pipeline.py", "test_distributed.py", "test_full_scale.py", "test_train_kill.py", "test_notebooks.py")


def pytest_collection_modifyitems(items):
    """The longest files first; else the order stays."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that would reach another machine fails where it tries."""
    connect = socket.socket.connect

    def connect_to_loopback(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise AssertionError(f"a test wanted to connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_loopback)
