"""The benchmark of searches, with little data."""

from __future__ import annotations

import pytest

from benchmarks.searches import main


def test_every_way_finds_all_and_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--instances", "1200", "--rounds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Processor seconds for 1,200 instances: the least of 1 rounds; median ratio"
    assert [line.rpartition(" ")[2][-1] for line in lines[1:5]] == ["x"] * 4
