"""Times of calls."""

import os
import subprocess
import sys
import time
from pathlib import Path

from micronet.deployment.timing import time_calls


def test_time_calls_are_positive_and_in_the_order_of_the_calls():
    slow, fast = time_calls([lambda: time.sleep(0.02), lambda: None], rounds=3).medians
    assert slow > fast > 0


def test_a_latency_is_the_median_of_calls_that_take_turns():
    seen = []
    time_calls([lambda: seen.append("a"), lambda: seen.append("b")], rounds=5)
    assert "".join(seen[-10:]) == "ab" * 5


def test_a_machine_that_is_busy_with_other_work_is_noticed():
    """More processes than processors, each always at work."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(4 * os.cpu_count())]
    try:
        timing = time_calls([lambda: sum(range(200_000))], rounds=200)
    finally:
        for other in others:
            other.kill()
            other.wait()
    if Path("/proc/self/task").exists():
        assert timing.disturbed
