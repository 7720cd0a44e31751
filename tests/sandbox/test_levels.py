"""Which levels are allowed, what is said of one that does not hold, and that none is lowered silently."""

from __future__ import annotations

import os
import sys

import pytest
from identities import run_as

from sandbox import bubblewrap, levels
from sandbox.ended import SandboxError
from sandbox.ground import Ground
from sandbox.run import Sandbox

UNSAFE = "from sandbox.run import Sandbox; print(Sandbox(level='process', unsafe=True).level)"


def test_the_best_comes_first_and_none_below_what_is_required() -> None:
    assert levels.allowed("landlock", None, False) == ["bubblewrap", "landlock"]
    assert levels.allowed("bubblewrap", None, False) == ["bubblewrap"]
    assert levels.allowed("landlock", None, True) == ["bubblewrap", "landlock", "process"]
    assert levels.allowed("landlock", "landlock", False) == ["landlock"]


@pytest.mark.parametrize("arguments", [("process", None, False), ("landlock", "process", False)])
def test_no_isolation_has_to_be_asked_for(arguments: tuple[str, str | None, bool]) -> None:
    with pytest.raises(ValueError, match="--unsafe-sandbox"):
        levels.allowed(*arguments)


def test_an_unknown_level_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="process, landlock, bubblewrap"):
        Sandbox(level="bublewrap")


def test_more_runs_than_can_be_kept_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="choose 1 to 64"):
        Sandbox(workers=65)


@pytest.mark.skipif(os.getuid() != 0, reason="only root is refused")
def test_root_is_never_unsafe() -> None:
    with pytest.raises(SandboxError, match="not for root"):
        Sandbox(level="process", unsafe=True)


def test_an_ordinary_user_may_be_with_a_banner() -> None:
    done = run_as("user", [sys.executable, "-c", UNSAFE])
    assert done.stdout == "process\n", done.stderr
    assert "UNSAFE SANDBOX" in done.stderr


def test_without_bwrap_the_level_fails_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        Sandbox(level="bubblewrap")


def test_an_attack_that_works_is_seen() -> None:
    """The canaries can tell: where nothing is isolated, all of them succeed."""
    code = (
        "from sandbox import canary, levels\nfrom sandbox.launch import Broker\n"
        "worked = levels.attacks_that_worked(Broker('process', 1, 1))\n"
        "print(set(canary.ATTACKS) - set(worked) - {'make a user namespace'})"
    )
    done = run_as("user", [sys.executable, "-c", code])
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_what_bwrap_mounts_has_a_bound() -> None:
    """Each tmpfs has a size, and what holds the mounts is read-only in the end."""
    words = bubblewrap.wrapped(["true"], Ground("bubblewrap", "/tmp/x", 2, 1000, 1, 1))
    for place in ("/tmp/x/0", "/tmp/x/1"):
        at = words.index(place)
        assert words[at - 3 : at] == ["--size", "1000", "--tmpfs"]
    assert words.count("--tmpfs") == 2
    assert words[-6:] == ["--remount-ro", "/dev", "--remount-ro", "/", "--", "true"]
