"""Owns the life of one worker process: prepare once, do the items it is handed, die with its parent."""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from ssmfin.errors import InputError
from ssmfin_pipelines.executors.contract import Work

ORPHANED = 3  # exit code of a worker whose parent is gone


def serve(connection: Connection) -> None:
    """Entry point of the spawned process. The first message is the work, each further one an item, None the end.

    Answers, in order of messages: ("ready",), then per item ("done", seconds), ("failed", line, traceback) or
    ("storage", message). While preparing: ("refused", message) if the input is wrong, else ("broken", line, traceback).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    os.dup2(2, 1)  # what a library prints must not mix with results on standard output
    faulthandler.enable()
    try:
        work: Work = connection.recv()
        do = work.open()
    except (EOFError, ConnectionError):
        return
    except InputError as error:
        connection.send(("refused", str(error)))
        return
    except Exception as error:
        connection.send(("broken", *_told(error)))
        return
    _cap_torch()
    connection.send(("ready",))
    while True:
        try:
            item = connection.recv()
        except (EOFError, ConnectionError):
            return
        if item is None:
            return
        connection.send(_answer(do, item))


def _answer(do: Any, item: Any) -> tuple[Any, ...]:
    from ssmfin_pipelines.atomic import StorageError

    try:
        _cap_torch()
        return ("done", do(item))
    except StorageError as error:
        return ("storage", str(error))
    except Exception as error:
        return ("failed", *_told(error))


def _told(error: BaseException) -> tuple[str, str]:
    from ssmfin_pipelines.executors.inline import in_one_line

    return in_one_line(error), traceback.format_exc()


def _cap_torch() -> None:
    """torch reads OMP_NUM_THREADS when it loads; a model may since have asked for more."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _die_with_parent() -> None:
    """Exit at once when the parent does, however it ended: nobody would take the result."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(ORPHANED)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
