"""Owns the `ssmfin` command: which commands there are, and how a mistake or an interruption ends the process.

Exit codes: 0 done, 1 some tasks failed, 2 the input is wrong, 130 interrupted. Standard output carries results only.
Nothing heavy is imported here or at the top of a command's module: `ssmfin --help` has to answer at once.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from ssmfin.errors import InputError
from ssmfin_pipelines.commands import (
    compare,
    doctor,
    features,
    init,
    measures,
    models,
    plan,
    report,
    run,
    schema,
    validate,
)

app = typer.Typer(
    name="ssmfin",
    help="Walk-forward studies of forecasts from one YAML file: state-space models against strong baselines.",
    epilog="\b\n"
    "First steps:\n"
    "  ssmfin init prices.csv -o study.yaml    look at a file, write a commented study for it\n"
    "  ssmfin validate study.yaml --data       every mistake in one message, with its line and remedy\n"
    "  ssmfin run study.yaml                   verdict, tables and report; killed, it goes on where it stopped\n"
    "\n"
    "TAB completion: ssmfin --install-completion, then a new shell. Exit codes: 0 done, 1 some tasks failed, 2 the "
    "input is wrong.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from ssmfin import __version__

        typer.echo(f"ssmfin {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# In the order of use; each with examples, the most common first.
_COMMANDS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "init": (
        init.init,
        (
            "ssmfin init prices.csv -o study.yaml",
            "ssmfin init rv.parquet -o study.yaml --schema",
            "ssmfin init prices.csv -o study.yaml --date-format %d/%m/%Y",
        ),
    ),
    "validate": (
        validate.validate,
        ("ssmfin validate study.yaml --data", "ssmfin validate study.yaml --show > everything.yaml"),
    ),
    "plan": (
        plan.plan,
        (
            "ssmfin plan study.yaml",
            "ssmfin plan study.yaml --time",
            "ssmfin plan study.yaml --set walk_forward.test.size=21",
        ),
    ),
    "run": (
        run.run,
        (
            "ssmfin run study.yaml",
            'ssmfin run study.yaml --set data.source.path=rv.parquet --set "target.horizons=[1, 5]"',
            "ssmfin run study.yaml --set models.s4d=null",
            "ssmfin run study.yaml --shard 1/4",
        ),
    ),
    "compare": (
        compare.compare,
        (
            "ssmfin compare runs/vol-0123456789 runs/vol-9876543210",
            "ssmfin compare runs/vol-01* runs/vol-98* --label base --label leverage --report comparison.html",
            "ssmfin compare runs/vol-01* runs/vol-98* --json > comparison.json",
        ),
    ),
    "report": (report.report, ("ssmfin report runs/first-0123456789",)),
    "features": (features.features, ("ssmfin features study.yaml -o features.parquet",)),
    "measures": (
        measures.measures,
        (
            "ssmfin measures bars/ -o rv.parquet --calendar XNYS",
            "ssmfin measures ticks.parquet -o rv.parquet --calendar 24/7 --sampling 1min --quality quality.html",
        ),
    ),
    "models": (
        models.models,
        ("ssmfin models", "ssmfin models s4d", "ssmfin models har_lags", "ssmfin models my_module:MyClass"),
    ),
    "schema": (schema.schema, ("ssmfin schema > study.schema.json",)),
    "doctor": (doctor.doctor, ("ssmfin doctor",)),
}


def _epilog(title: str, lines: Sequence[str]) -> str:
    """Lines that click must not join into a paragraph."""
    return "\n".join(["\b", title, *(f"  {line}" for line in lines)])


for _name, (_command, _examples) in _COMMANDS.items():
    app.command(_name, epilog=_epilog("Examples:" if len(_examples) > 1 else "Example:", _examples))(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; `argv` without the program's name. Returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an id that the terminal cannot show must not end a run
    try:
        app(list(sys.argv[1:] if argv is None else argv), prog_name="ssmfin", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except InputError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output is gone. Without this, flushing at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(_system_error(error), 1 if error.errno in _MACHINE else 2)
    except MemoryError:
        return _fail(
            "the memory is used up; lower execution.workers, or take fewer ids or a shorter start: to end: range.", 1
        )
    return 0


_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_REMEDIES = {
    errno.ENOSPC: "free some space or set output.directory to another disk",
    errno.EDQUOT: "free some of your quota or set output.directory to another disk",
    errno.EACCES: "check its permissions, or choose another path",
    errno.EPERM: "check its permissions, or choose another path",
    errno.EROFS: "choose a path on a disk that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a file stands where a folder should be",
    errno.EISDIR: "give a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def _system_error(error: OSError) -> str:
    what = str(error.filename) if error.filename else "the system"
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    remedy = _REMEDIES.get(error.errno or 0, "see `ssmfin doctor`")
    return f"{what} cannot be read or written, {reason}; {remedy}."


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
