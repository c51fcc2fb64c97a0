"""Owns work that is quick, or misbehaves in each of the ways a model can."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssmfin_pipelines.atomic import StorageError
from ssmfin_pipelines.executors import Item


@dataclass(frozen=True)
class ToyWork:
    """Items are (verb, argument); each leaves a file with the process id and the thread caps it ran under."""

    folder: Path
    refuses: bool = False

    def open(self) -> Callable[[Item], float]:
        if self.refuses:
            raise ValueError("the panel is gone")
        (self.folder / f"opened-{os.getpid()}").touch()
        return self.do

    def do(self, item: Item) -> float:
        verb, argument = item.task
        if verb == "sleep":
            (self.folder / f"sleeping-{item.key}").write_text(str(os.getpid()))
            time.sleep(argument)
        elif verb == "kill":
            os.kill(os.getpid(), argument)
            time.sleep(10)
        elif verb == "exit":
            os._exit(argument)
        elif verb == "raise":
            raise ArithmeticError(argument)
        elif verb == "print":
            print(argument)
        elif verb == "full":
            raise StorageError("the disk of the run is full")
        report = [str(os.getpid()), os.environ.get("OMP_NUM_THREADS", ""), str(threads_of_blas()), str(time.time_ns())]
        (self.folder / item.key).write_text("\n".join(report))
        return 0.25


def threads_of_blas() -> int:
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def main() -> None:
    """Run three long sleeps on two workers, as a parent that a test can kill."""
    from ssmfin_pipelines.executors import executor

    items = [Item(f"k{i}", ("sleep", 60.0), 1.0) for i in range(3)]
    try:
        for _ in executor("local")(ToyWork(Path(sys.argv[1])), items, 2):
            pass
    finally:
        Path(sys.argv[1], "unwound").touch()


if __name__ == "__main__":
    if os.name == "posix":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
