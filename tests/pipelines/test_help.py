"""Help that can be followed: every command has an example that parses, kinds explain themselves, TAB completes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ssmfin.features.kinds import KINDS as FEATURES
from ssmfin.models.registry import KINDS, forecaster_class
from ssmfin_pipelines.cli import _COMMANDS, app, main

GROUP = typer.main.get_command(app)
EXAMPLES = [(name, example) for name, (_, examples) in _COMMANDS.items() for example in examples]


@pytest.mark.parametrize("name, example", EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_examples_in_help_are_commands_that_exist(name: str, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, command, *arguments = shlex.split(example.partition(" > ")[0])
    assert (program, command) == ("ssmfin", name)
    GROUP.commands[name].make_context(name, list(arguments))  # type: ignore[attr-defined]  # raises on a wrong option
    assert main([name, "--help"]) == 0
    assert f"\n    {example}\n" in capsys.readouterr().out


def test_help_has_one_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = lines[lines.index("Commands:") + 1 :]
    listed = listed[: listed.index("")]
    assert [line.split()[0] for line in listed] == list(_COMMANDS)
    assert all(line.endswith(".") and len(line) <= 80 for line in listed)


def test_all_kinds_are_listed_on_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    found = [line.split()[0].rstrip("*+") for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert sorted(found) == sorted([*KINDS, *FEATURES])


@pytest.mark.parametrize("kind", [*KINDS, *FEATURES])
def test_every_parameter_is_explained(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", kind]) == 0
    out = capsys.readouterr().out
    fields = {
        **(forecaster_class(kind).model_fields if kind in KINDS else {}),
        **(FEATURES[kind].model_fields if kind in FEATURES else {}),
    }
    for name, info in fields.items():
        if name != "kind":
            assert f"\n  {name} " in out
            assert info.description, f"{kind}.{name} has no description"


def test_what_is_allowed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "s4d"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "blocks, one after the other (1 to 64)" in out
    assert "share of activations dropped in training (at least 0, below 1)" in out
    assert "(lin, inv, legs or real)" in out


def complete(words: str) -> list[str]:
    """What bash would offer for the last of these words."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "_SSMFIN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "from ssmfin_pipelines.cli import main; raise SystemExit(main([]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    "words, expected",
    [
        ("ssmfin va", {"validate"}),
        ("ssmfin run --s", {"--set", "--shard"}),
        ("ssmfin models s4", {"s4", "s4d"}),
        ("ssmfin models har_l", {"har_lags"}),
    ],
)
def test_the_shell_completes_commands_options_and_kinds(words: str, expected: set[str]) -> None:
    assert set(complete(words)) == expected


def test_completion_can_be_installed(tmp_path: Path) -> None:
    """For bash, in a home of its own; a parent process that is a shell is what tells which one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": str(tmp_path)}
    code = "from ssmfin_pipelines.cli import main; raise SystemExit(main(['--show-completion', 'bash']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**environment, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "complete -o default -F _ssmfin_completion ssmfin" in done.stdout
