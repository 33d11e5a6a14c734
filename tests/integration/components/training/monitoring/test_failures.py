import sys
from pathlib import Path

from components.training.launch.launcher import GRACE_SECONDS, _start
from tests.helpers.waiting import HANG_SECONDS


def test_torchrun_gives_its_ranks_the_time_that_a_save_may_take(tmp_path: Path) -> None:
    """It would kill them half a minute after the request to stop, with the checkpoint half written."""
    asked = "from torch.distributed.launcher.api import LaunchConfig as C; print(C(1, 1, 1).shutdown_timeout)"
    process = _start([sys.executable, "-c", asked], tmp_path)
    assert 30 < int(process.communicate(timeout=HANG_SECONDS)[0].splitlines()[-1]) < GRACE_SECONDS
