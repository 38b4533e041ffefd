"""Results of runs as tables, curves and summaries."""

import numpy as np
import pytest

from pg.runs import execution, results


@pytest.mark.acceptance("J8")
def test_steps_are_counted_beyond_32_bits() -> None:
    """From 2³¹ - 1024 and 2³² - 1024 on, four chunks, in what is written and drawn."""
    for start in (2**31 - 1024, 2**32 - 1024):
        each = np.array([start - 3 * (start // 4), *[start // 4] * 3, *[500] * 8], np.int32)[None]
        metrics = {"env_steps": each, "return": np.ones((1, 12)), "episodes": np.ones((1, 12), int)}
        rows = results.long_form(metrics, seed=np.arange(1))
        steps, _ = results.curve(metrics)
        for total in (rows["total_env_steps"], steps[0]):
            np.testing.assert_array_equal(total[3:], start + 500 * np.arange(9))
            assert (np.diff(total) > 0).all()
        taken = dict.fromkeys(("grad_norm", "nonfinite", "skipped"), np.zeros((1, 12)))
        done = execution.Run(None, metrics | taken, True, None, 0.0, 0.0)
        assert results.summarise(done, None, [0], greedy=False)["env_steps"] == start + 4000
