"""A cache that outlives its process: the same texts, and prompts that are not read again."""

from pathlib import Path

import pytest

from seventy import LLM
from seventy.cache.store import DiskCache
from tests.support.families import gpt_oss, qwen35

# Ids below the end of every one of these vocabularies.
PROMPT = [3 + (7 * at) % 50 for at in range(200)]


@pytest.mark.parametrize("family", ["llama", "windows", "recurrent"])
def test_a_prompt_is_read_once(tmp_path: Path, tiny: Path, family: str) -> None:
    path = {"windows": gpt_oss.write, "recurrent": qwen35.write}.get(family, lambda path: tiny)(tmp_path / "m.gguf")
    disk = DiskCache(tmp_path / "cache", 100_000_000)

    def answer(prompt: list[int], disk: DiskCache | None) -> tuple[list[int], int]:
        with LLM(path, threads=2, context=512, draft="off", disk=disk) as llm:
            said = llm.generate(prompt, 8, temperature=0, ignore_eos=True)
            return said.token_ids, said.timings.cached_tokens

    fresh, cached = answer(PROMPT, disk)
    assert cached == 0
    again, cached = answer(PROMPT, disk)
    assert again == fresh and cached >= 160
    # Another text that begins so, as without the disk.
    other = [*PROMPT[:170], *PROMPT[:40]]
    assert answer(other, disk)[0] == answer(other, None)[0]
    # The file was written again: another model, for all that is known.
    path.touch()
    if family != "llama":
        assert answer(PROMPT, disk) == (fresh, 0)
