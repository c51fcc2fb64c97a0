"""Owns running tasks one after another in this process."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Generator, Sequence

from ssmfin_pipelines.atomic import StorageError
from ssmfin_pipelines.executors.answers import in_one_line
from ssmfin_pipelines.executors.contract import Event, Item, Waiting, Work
from ssmfin_pipelines.executors.machine import one_thread_here


def run_inline(work: Work, items: Sequence[Item], workers: int = 1) -> Generator[Event]:
    """Do all items here, with one thread; `workers` is not used.

    What a library prints goes to standard error: standard output carries results only.

    Raises:
        StorageError: a result could not be stored.
    """
    if not items:
        return
    with contextlib.redirect_stdout(sys.stderr), one_thread_here():
        do = work.open()
    waiting = Waiting(items)
    while (item := waiting.take()) is not None:
        yield Event("started", item.key)
        try:
            with contextlib.redirect_stdout(sys.stderr), one_thread_here():
                seconds = do(item)
        except StorageError:
            raise
        except Exception as error:
            waiting.ended(item)
            yield Event("failed", item.key, error=in_one_line(error), traceback=traceback.format_exc())
        else:
            waiting.ended(item)
            yield Event("done", item.key, seconds=seconds)
