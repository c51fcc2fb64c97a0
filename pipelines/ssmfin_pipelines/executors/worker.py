"""Owns the life of one worker process: prepare once, do the items it is handed, die with its parent."""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from multiprocessing.connection import Connection

from ssmfin_pipelines.executors.answers import perform, prepare

ORPHANED = 3  # exit code of a worker whose parent is gone


def serve(connection: Connection) -> None:
    """Entry point of the spawned process. The first message is the work, each further one an item, None the end.

    Each message is answered, in order (`answers.py`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    os.dup2(2, 1)  # what a library prints must not mix with results on standard output
    faulthandler.enable()
    try:
        work = connection.recv_bytes()
    except (EOFError, ConnectionError):
        return
    do, answer = prepare(work)
    connection.send(answer)
    while do is not None:
        try:
            item = connection.recv()
        except (EOFError, ConnectionError):
            return
        if item is None:
            return
        connection.send(perform(do, item))


def _die_with_parent() -> None:
    """Exit at once when the parent does, however it ended: nobody would take the result."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(ORPHANED)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
