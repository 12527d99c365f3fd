"""Runs `seventy bench` and prints what docs/performance.md wants of it: command, machine, date and the rows.

usage: python benchmarks/performance.py ARGUMENTS OF seventy bench    (or: --card CARD.json, for one made elsewhere)
"""

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from seventy.bench import card as cards
from seventy.bench.table import markdown


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--card"]:
        card, command = cards.read(Path(arguments[1])), ""
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "card.json"
            done = subprocess.run(
                [sys.executable, "-m", "seventy", "bench", *arguments, "--report", str(path)], stdout=2
            )
            if done.returncode:
                sys.exit(done.returncode)
            card, command = cards.read(path), f"`seventy bench {shlex.join(arguments)}`; "
    machine, shape = card.machine, card.model
    layers = f"{shape.layers} of {shape.whole_layers} layers" if shape.layers < shape.whole_layers else ""
    kinds = ", ".join(f"{name} {nbytes / 1e9:.2f} GB" for name, nbytes in sorted(shape.format_bytes.items()))
    peer = card.peer
    against = f"{peer.name} {peer.version}{f' built for {peer.isa}' if peer.isa else ''}" if peer else ""
    where = f"{machine.cpu}, {machine.cores} cores", f"{card.threads} threads, {card.isa}"
    about = [*where, kinds, layers, against, card.date]
    print(f"{command}{'; '.join(part for part in about if part)}\n\n{markdown(card)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
