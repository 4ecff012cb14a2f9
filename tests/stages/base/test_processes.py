"""Work in processes: its order, and a process that ends."""

import os

import pytest
from hmnet_pipe.manifests.errors import StageError
from hmnet_pipe.stages.base.processes import in_processes


def test_results_come_in_order_and_a_process_that_ends_is_one_sentence_with_what_a_script_lacks() -> None:
    with in_processes(2, "reading texts") as each:
        assert list(each(abs, range(-20, 0))) == list(range(20, 0, -1))
        with pytest.raises(StageError, match=r"was reading texts has ended; .*under `if __name__ ==") as seen:
            list(each(os._exit, [1]))
        assert "was memory short" in str(seen.value)
