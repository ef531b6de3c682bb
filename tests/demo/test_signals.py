"""A signal that comes as several still ends in a clean-up that is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from include.config import REPOSITORY

PROGRAM = """
import os, sys, time
from demo.signals import deferred_signals, terminating

for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        cleaned = False
        with terminating():
            try:
                try:
                    print(os.getpid(), flush=True)
                    time.sleep(0.3)  # a signal in the instant before it begins is only noticed after it
                finally:
                    with deferred_signals():
                        time.sleep(0.002)
                        cleaned = True
            except (SystemExit, KeyboardInterrupt):
                os._exit(0 if cleaned else 1)
            os._exit(2)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_many_signals_at_once_never_cut_a_clean_up_short() -> None:
    times = 200
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(times)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    codes = []
    for attempt in range(times):
        child = int(program.stdout.readline())
        for number in range(40):
            try:
                os.kill(child, signal.SIGINT if number % 3 else signal.SIGTERM)
            except ProcessLookupError:
                break
            later = time.perf_counter() + 0.00001 * (attempt % 20)  # some of them meet the first lines of the clean-up
            while time.perf_counter() < later:
                pass
        codes.append(program.stdout.readline().strip())
    assert program.wait(30) == 0
    assert codes == ["ended 0"] * times
