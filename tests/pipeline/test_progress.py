"""What a run says while it works where stderr is no terminal."""

import io

from rich.console import Console

from micronet.pipeline.progress import Reporter


def test_a_step_says_every_minute_how_far_it_is():
    seconds = iter([0.0, 1.0, 59.0, 61.0, 100.0, 125.0])
    stderr = io.StringIO()
    reporter = Reporter(Console(file=stderr), clock=lambda: next(seconds))
    with reporter.step("[1/2] train") as bar:
        for done, loss in ((1, 2.5), (10, None), (25, None), (50, 0.125), (60, None)):
            bar.update(done, 100, loss)
    assert stderr.getvalue().splitlines() == [
        "[1/2] train  25%  loss 2.500  4 min left",
        "[1/2] train  60%  loss 0.125  2 min left",
    ]


def test_other_processes_say_nothing():
    seconds = iter([0.0, 100.0])
    stderr = io.StringIO()
    reporter = Reporter(Console(file=stderr), enabled=False, clock=lambda: next(seconds))
    with reporter.step("[1/2] train") as bar:
        bar.update(1, 2)
    assert stderr.getvalue() == ""
