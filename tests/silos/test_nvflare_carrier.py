import random
import subprocess
import sys

import pytest

from coterie.core.errors import Mistake
from coterie.silos.carrier import Failure

pytest.importorskip("nvflare")

from tests.silos.rehearsal import NAMES, Rehearsal, processes_of, wait_until


@pytest.mark.long
def test_three_silos_answer_over_tls_and_nothing_is_left_running(tmp_path):
    """One rehearsal, since starting it takes most of the time: a broadcast, messages that differ, one too large."""
    mega = random.Random(0).randbytes(2_000_000)
    with Rehearsal(tmp_path) as rehearsal:
        coordinator = rehearsal.coordinator(quorum=3, max_bytes=2_000_000)
        for name in NAMES:
            rehearsal.silo(name)

        answers = dict(coordinator.ask(dict.fromkeys(NAMES, b"12"), 120.0))
        assert answers == {name: b"21" + name.encode() for name in NAMES}
        assert coordinator.sites() == NAMES

        answers = dict(coordinator.ask({"north": mega[:-5], "south": b"", "nobody": b"1"}, 30.0))
        assert answers == {
            "north": mega[:-5][::-1] + b"north",
            "south": b"south",
            "nobody": Failure("is not connected"),
        }

        (answer,) = coordinator.ask({"north": mega}, 30.0)  # five bytes too many on the way back
        assert answer == ("north", Failure("the answer has 2000005 bytes, above the largest message of 2000000"))
        with pytest.raises(Mistake, match="the message for north has 2000001 bytes"):
            coordinator.ask({"north": mega + b"1"}, 30.0)
        processes = processes_of(tmp_path)
        assert len(processes) == 8  # of each party: NVFlare's own, and a job's

    assert wait_until(lambda: not processes_of(tmp_path), 5.0)


def test_a_relay_loads_no_pytorch_when_its_job_ends():
    """NVFlare's clean-up of tensors, which a relay never has, would import it."""
    script = (
        "import sys; import coterie.silos.nvflare_relay\n"
        "from nvflare.apis.impl.wf_comm_server import WFCommServer\n"
        "WFCommServer._cleanup_inflight_tensor_downloads(None, None)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
