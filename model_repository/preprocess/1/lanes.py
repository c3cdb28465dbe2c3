"""Two lanes of decoding workers: quick pictures side by side, expensive ones one after the other at low priority."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

from cage import LOW_PRIORITY, Worker, WorkerSource
from cost import Cost
from structure import MAX_MEMORY

# Seconds and bytes, estimated, up to which a picture counts as quick: a 12-megapixel PNG, a 24-megapixel JPEG.
QUICK_SECONDS = 0.4
QUICK_MEMORY = 192 << 20
# What a worker may take beyond the estimate: the file (32 MiB), the block in which the picture is handed over (80 MiB),
# strips, the heap, the colour transform, and address space that is reserved but not used.
SPARE_MEMORY = 168 << 20
# One more than the processors, so that one quick picture that is slower than it looks delays nobody; at least two.
SPARE_WORKERS = 1
# Requests and bytes of files in a lane at most, waiting and worked on. Quick ones are decoded faster than the models
# behind take them, so that few ever wait; an expensive one takes up to 3 s, so that the last of 16 waits for most of a
# minute. Bytes: eight files of the largest kind.
QUICK_WAITING, SLOW_WAITING = 64, 16
MAX_WAITING_BYTES = 256 << 20

Job = Callable[[Worker], None]


class Lane:
    """A queue of jobs, and as many threads as workers, each of which takes a job and a worker.

    The worker that was used last is taken first: where one is enough, only one holds the memory of large pictures.

    Args:
        workers: one for each thread.
        most: jobs in the lane, waiting and worked on.
    """

    def __init__(self, workers: Sequence[Worker], most: int) -> None:
        self._most = most
        self._queue: queue.SimpleQueue[tuple[Job, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self.waiting, self._bytes = 0, 0
        self._idle = list(workers)
        self._threads = [threading.Thread(target=self._run, name="decode") for _ in workers]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def submit(self, size: int, job: Job) -> bool:
        """Add a job with files of ``size`` bytes; False while as many wait as may."""
        with self._lock:
            if self.waiting >= self._most or self._bytes + size > MAX_WAITING_BYTES:
                return False
            self.waiting, self._bytes = self.waiting + 1, self._bytes + size
        self._queue.put((job, size))
        return True

    def close(self) -> None:
        """Finish what waits and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for worker in self._idle:
            worker.close()

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            job, size = taken
            worker = self._idle.pop()  # there are as many as threads
            try:
                job(worker)
            finally:
                self._idle.append(worker)
                with self._lock:
                    self.waiting, self._bytes = self.waiting - 1, self._bytes - size


class Lanes:
    """The two lanes, and the process that their workers come from.

    Args:
        max_bytes: the longest file.
    """

    def __init__(self, max_bytes: int) -> None:
        self._source = WorkerSource(max_bytes)
        count = len(os.sched_getaffinity(0)) + SPARE_WORKERS
        quick = [Worker(self._source, QUICK_MEMORY + SPARE_MEMORY) for _ in range(count)]
        slow = Worker(self._source, MAX_MEMORY + SPARE_MEMORY, LOW_PRIORITY)
        quick[-1].start()  # the first one to be taken; others start when they are needed, in 8 ms
        self.workers = [*quick, slow]
        self._quick, self._slow = Lane(quick, QUICK_WAITING), Lane([slow], SLOW_WAITING)

    @property
    def waiting(self) -> int:
        """Quick jobs that wait or are worked on."""
        return self._quick.waiting

    @property
    def expensive_waiting(self) -> int:
        """Expensive jobs that wait or are worked on."""
        return self._slow.waiting

    def submit(self, costs: Sequence[Cost], size: int, job: Job) -> bool:
        """Let a worker do a job: that of a request with pictures of these costs and files of ``size`` bytes together.

        Returns:
            Whether it was taken; False while as many wait as may.
        """
        quick = sum(c.seconds for c in costs) <= QUICK_SECONDS and all(c.memory <= QUICK_MEMORY for c in costs)
        return (self._quick if quick else self._slow).submit(size, job)

    def close(self) -> None:
        """Finish what waits, and end every worker."""
        self._quick.close()
        self._slow.close()
        self._source.close()
