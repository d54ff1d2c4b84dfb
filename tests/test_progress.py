"""The line that a pipeline's log shows: at most one in a while, with speed and time left."""

import pytest

from vqlib import progress
from vqlib.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by the test; nobody watches."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.delitem(progress.sys.modules, "ipykernel", raising=False)
    return now


def test_a_line_has_speed_and_time_left(clock, capsys):
    shown = Progress("sample vq-0", total=4000, unit="images", start=1000, seconds=10)
    clock[0] += 20
    shown.update(2000, "train error 0.1")
    line = capsys.readouterr().err
    assert line == "sample vq-0: 2,000/4,000 images (50%), 50 images/s, 0.7 min left; train error 0.1\n"


def test_lines_are_rare_but_the_last_always_comes(clock, capsys):
    shown = Progress("x", total=100, unit="images", seconds=10)
    for done in range(1, 100):
        clock[0] += 1
        shown.update(done)
    assert len(capsys.readouterr().err.splitlines()) == 9
    shown.update(100)
    shown.close()
    assert "100/100 images (100%)" in capsys.readouterr().err


def test_a_remark_comes_at_once(clock, capsys):
    Progress("x", total=100, unit="images").say("going on after step 7")
    assert capsys.readouterr().err == "going on after step 7\n"


def test_a_person_sees_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    shown = Progress("x", total=100, unit="images", start=20)
    shown.update(60, "a note")
    shown.close()
    assert shown.bar.n == 60
    assert "60.0/100" in capsys.readouterr().err
