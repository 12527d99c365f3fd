"""ISA levels against each other on one machine: the same loaded model, taking turns, medians.

usage: python benchmarks/levels.py MODEL.gguf LEVEL LEVEL ...    ratios are to the first level
Times the first operations of a step (engine/trials.py), with one row, 8 and 128; every physical core.
"""

import statistics
import sys
from pathlib import Path

from seventy.engine.model import SUPPORT, Model
from seventy.engine.trials import Trials
from seventy.machine import topology
from seventy.runtime.tuning import ExecutionConfig

ROUNDS = 15


def main(path: Path, levels: list[str]) -> None:
    machine = topology.read()
    with Model(path, len(machine.spread()), context=512, isa_name=levels[0]) as model:
        cpus = machine.cpus_for(model.threads)
        sequence, vocabulary = model.new_sequence(), model.config.vocabulary
        cache_bytes = machine.last_level_cache_bytes
        with Trials(model.program, sequence, vocabulary, model.library, SUPPORT, cpus, cache_bytes) as trials:
            for rows in (1, 8, 128):
                seconds: dict[str, list[float]] = {level: [] for level in levels}
                for turn in range(ROUNDS + 1):
                    for level in levels:
                        found = trials.seconds(ExecutionConfig.usual(level, model.threads), rows)
                        if turn:
                            seconds[level].append(found)
                for level in levels:
                    pairs = sorted(a / b for a, b in zip(seconds[levels[0]], seconds[level], strict=True))
                    low, median, high = statistics.quantiles(pairs, n=4, method="inclusive")
                    print(f"{rows:4} rows  {level:14} {statistics.median(seconds[level]) * 1e3:8.2f} ms  "
                          f"speed to {levels[0]}: {median:.2f} ({low:.2f}-{high:.2f})")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
