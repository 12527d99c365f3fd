"""Runs the suite's property tests with fresh examples until the time is up; see scripts/fuzz."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings

BATCH = 2000
# Before the tests are imported: they take their settings then.
settings.register_profile("fuzz", max_examples=BATCH, deadline=None)
settings.load_profile("fuzz")

from tests.gguf import test_file as test_gguf  # noqa: E402
from tests.text import test_harmony, test_reasoning, test_stops, test_template, test_tokenizer  # noqa: E402


def targets(folder: Path) -> dict[str, Callable[[], None]]:
    damaged: Any = test_gguf.test_damaged_files_never_crash
    hostile: Any = test_gguf.test_hostile_headers_never_crash
    return {
        "damaged files": lambda: damaged(tmp_path=folder),
        "hostile headers": lambda: hostile(tmp_path=folder),
        "tokenizer metadata": test_tokenizer.test_any_metadata_is_a_tokenizer_or_one_sentence,
        "tokenizer text": test_tokenizer.test_any_text_comes_back,
        "tokenizer pieces": test_tokenizer.test_sentence_pieces_equal_the_slow_search,
        "stream": test_tokenizer.test_stream_of_any_ids,
        "template": test_template.test_any_template_is_text_or_one_sentence,
        "stop strings": test_stops.test_equals_the_slow_search,
        "thinking": test_reasoning.test_any_cut_gives_the_same_and_nothing_is_lost,
        "harmony": test_harmony.test_any_cut_gives_the_same,
    }


def main() -> None:
    end = time.monotonic() + 60 * float(sys.argv[1])
    tried = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        ready = targets(Path(folder))
        while time.monotonic() < end:
            for name, test in ready.items():
                test()
                tried[name] += BATCH
    print(", ".join(f"{name} {count}" for name, count in tried.items()), "cases, no finds")


if __name__ == "__main__":
    main()
