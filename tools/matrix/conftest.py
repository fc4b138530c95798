"""Options, the cases of one environment, and what the tests note beside pass or fail."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from matrix.hosts import HOSTS
from matrix.program import WORK
from matrix.runs import RUNS


def pytest_addoption(parser: pytest.Parser) -> None:
    environments = sorted({host.environment for host in HOSTS})
    parser.addoption("--environment", choices=environments, default="today", help="whose rows run")
    parser.addoption("--fresh", action="store_true", help="run what passed before, too")


def pytest_configure(config: pytest.Config) -> None:
    os.environ["SOLO_OOD_CACHE"] = str(WORK / "cache")
    # As an exception, so that the run in progress is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every host of the environment with every run."""
    if {"host", "column"} <= set(metafunc.fixturenames):
        environment = metafunc.config.getoption("environment")
        hosts = [host for host in HOSTS if host.environment == environment]
        cases = [pytest.param(h, c, id=f"{h.key}-{c}") for h in hosts for c in RUNS]
        metafunc.parametrize(("host", "column"), cases)


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("fresh"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the notes of ``record_property``, also those of tests that passed."""
    terminalreporter.section("notes")
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, text in getattr(report, "user_properties", ()):
                if name == "note" and report.when == "call":
                    terminalreporter.line(f"{report.nodeid.rpartition('::')[2]}: {text}")
