"""The command `python -m tests.chaos`; it ends with code 1 where something did not hold."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import shim
from .campaign import Campaign, Report
from .faults import FAULTS, available
from .scenarios import SCENARIOS

_QUIET = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip


def main() -> int:
    """Run a campaign."""
    asked = _arguments()
    os.environ.update(_QUIET)
    if shim.reason() is None:
        shim.preload()
    from .show import Screen

    faults, unavailable = available([f for f in FAULTS if not asked.faults or f.__name__ in asked.faults])
    kinds = [s for s in SCENARIOS if (s.name in asked.only if asked.only else not s.asked)]
    report, began = Report(asked.seed, unavailable=unavailable), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="chaos.", dir=asked.folder))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Screen(report, 60 * asked.minutes) as screen:
        try:
            campaign = Campaign(kinds, folder, screen.say)
            drawn = campaign.run(faults, asked.seed, 60 * asked.minutes, asked.trials)
            for result in campaign.run_each_call(asked.seed) if asked.each_call else drawn:
                report.results.append(result)
                screen.tell(result)
        except KeyboardInterrupt:
            screen.say("Stopped.")
        finally:
            report.seconds = time.monotonic() - began
            shutil.rmtree(folder, ignore_errors=True)
            shim.remove()
    screen.table()
    if asked.output:
        asked.output.write_text(json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 1 if report.broken else 0


def _arguments() -> argparse.Namespace:
    names = [kind.name for kind in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A campaign of faults.")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn [0]")
    parser.add_argument("--minutes", type=float, default=2.0, help="after which no trial begins [2]")
    parser.add_argument("--trials", type=int, default=sys.maxsize, help="after which no trial begins")
    parser.add_argument("--only", nargs="+", choices=names, metavar="COMMAND", help=", ".join(names))
    parser.add_argument(
        "--faults",
        nargs="+",
        choices=[f.__name__ for f in FAULTS],
        metavar="FAULT",
        help=", ".join(f.__name__ for f in FAULTS),
    )
    parser.add_argument(
        "--each-call", action="store_true", help="instead: the disk is full from the first call that changes a file on, from the "
        "second, and so on to the last; without a limit of time",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file of the report")
    parser.add_argument("--folder", type=Path, help="where the folder of the campaign is made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
