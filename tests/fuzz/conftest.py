"""Inputs for examples, and a line of progress for each property."""

from __future__ import annotations

import os

import pytest
from fuzz_profile import SHARES, count
from fuzz_world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Say what a long run does, each property when it is done."""
    if "EXAMPLES" in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "fuzz-progress")


class Progress:
    """One line for each property."""

    def __init__(self, config: pytest.Config):
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::test_")[2]
        if report.when != "call" or name not in SHARES:
            return
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        said = "clean" if report.passed else "FAULT"
        terminal.write_line(f"\n   {name}: {count(name):,} examples in {report.duration:.0f} s: {said}")
