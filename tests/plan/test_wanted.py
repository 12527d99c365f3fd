"""Models from a GGUF file and machines from /proc/cpuinfo and a measured profile."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from seventy.bench.synthetic import Synthetic, find_shape
from seventy.catalog.models import all_models
from seventy.errors import SeventyError
from seventy.plan import here
from seventy.plan.owned import owned
from seventy.plan.roofline import guess_layers, predict
from seventy.plan.wanted import catalogue_load, gguf_load, wanted


def tensor(name: str, shape: tuple[int, ...], nbytes: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, shape=shape, type="Q4_K", offset=0, nbytes=nbytes)


@pytest.fixture
def tiny() -> SimpleNamespace:
    tensors = {
        "token_embd.weight": tensor("token_embd.weight", (4096, 100_000), 200_000_000),
        "output.weight": tensor("output.weight", (4096, 100_000), 300_000_000),
        "blk.0.ffn_up_exps.weight": tensor("blk.0.ffn_up_exps.weight", (4096, 1000, 64), 160_000_000),
        "blk.0.attn_q.weight": tensor("blk.0.attn_q.weight", (4096, 4096), 10_000_000),
    }
    metadata = {
        "general.architecture": "llama", "general.name": "Tiny", "llama.block_count": 2, "llama.expert_count": 64,
        "llama.expert_used_count": 8, "llama.attention.head_count": 32, "llama.attention.head_count_kv": 8,
        "llama.embedding_length": 4096,
    }  # fmt: skip
    return SimpleNamespace(path="tiny.gguf", metadata=metadata, tensors=tensors)


def test_a_gguf_file_is_read_by_its_tensors(tiny: SimpleNamespace) -> None:
    load = gguf_load(tiny)
    assert load.file_gb == pytest.approx(0.67)
    assert load.read_gb == pytest.approx(0.67 - 0.2 - 0.16 * 7 / 8), "no embedding table, an eighth of the experts"
    assert load.footprint.position_bytes == 2 * 8 * 128 * 2 * 2 and load.layers == 2
    assert load.need(4096).weights == 670_000_000 and load.need(4096).cache == 4096 * 8192
    assert (load.expert_gb, load.used_share) == (pytest.approx(0.16), 1 / 8)
    assert load.mixture


def test_tied_embeddings_are_read_whole(tiny: SimpleNamespace) -> None:
    del tiny.tensors["output.weight"]
    assert gguf_load(tiny).read_gb == pytest.approx(0.37 - 0.16 * 7 / 8)


def test_blocks_of_multi_token_prediction_are_not_read(tiny: SimpleNamespace) -> None:
    whole = gguf_load(tiny)
    for name in ("blk.2.ffn_up_exps.weight", "blk.2.nextn.eh_proj.weight"):
        tiny.tensors[name] = tensor(name, (4096, 1000), 50_000_000)
    tiny.metadata |= {"llama.block_count": 3, "llama.nextn_predict_layers": 1}
    load = gguf_load(tiny)
    assert load.file_gb == pytest.approx(whole.file_gb + 0.1) and load.layers == whole.layers
    assert load.read_gb == pytest.approx(whole.read_gb) and load.active_params_b == whole.active_params_b


def test_a_vocabulary_alone_is_no_load(tiny: SimpleNamespace) -> None:
    tiny.tensors.clear()
    with pytest.raises(SeventyError, match=r"tiny\.gguf has no tensors"):
        gguf_load(tiny)


def test_metadata_that_is_no_number_is_as_good_as_none(tiny: SimpleNamespace) -> None:
    whole = gguf_load(tiny)
    tiny.metadata |= {"llama.attention.key_length": "wide", "llama.attention.head_count_kv": [2, 8, 4]}
    assert gguf_load(tiny) == whole
    tiny.metadata |= {"llama.expert_used_count": float("nan"), "llama.block_count": "two"}
    assert gguf_load(tiny).read_gb == pytest.approx(0.67 - 0.2 - 0.16)


def test_quants_in_any_case_and_unknown_ones() -> None:
    assert catalogue_load("70b", "q4_k_m").quant == "Q4_K_M"
    with pytest.raises(SeventyError, match="No quant 'Q9'"):
        catalogue_load("70b", "Q9")


def test_layers_where_nobody_says() -> None:
    assert [guess_layers(8), guess_layers(30.5, 3.3), guess_layers(671, 37)] == [32, 35, 64]


def test_profile_is_used_and_a_broken_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "machine.json"
    monkeypatch.setattr(here, "profile_path", lambda: profile)
    assert here.this_machine().measured_gbs is None
    profile.write_text(json.dumps({"read_bandwidth_gbs": 17.5, "int8_gops": 900}))
    machine = here.this_machine()
    assert machine.measured_gbs == 17.5 and machine.measured_int8_gops == 900
    profile.write_text(json.dumps({"int8_gops": {"generic": 90, "avx2": 360}, "disk_read_gbs": 0.9}))
    assert (here.this_machine().measured_int8_gops, here.this_machine().ssd_gbs) == (360, 0.9)
    profile.write_text("{")
    with pytest.raises(SeventyError, match="delete it and measure again"):
        here.this_machine()


def test_machine_from_text() -> None:
    found = owned("2x E5-2680 v4 + 4x16@2400")[0]
    assert (found.machine.sockets, found.machine.channels, str(found.dimms)) == (2, 4, "4x16@2400")


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gemma-3-12b-it", "Qwen3-Next-80B-A3B-Instruct", "Qwen3-30B-A3B"])
def test_a_name_counts_the_caches_that_the_shapes_of_its_layers_have(name: str) -> None:
    by_name, by_shape = catalogue_load(name, "Q4_K_M").footprint, Synthetic(find_shape(name), "Q4_K_M").footprint
    for context in (1, 1000, 30_000):
        assert by_name.need(context).cache == by_shape.need(context).cache
        assert by_name.seen_bytes(context) == by_shape.seen_bytes(context)
    assert by_name.state_bytes == by_shape.state_bytes and by_name.max_rows == by_shape.max_rows


@pytest.mark.parametrize(
    ("name", "full", "windowed"),
    [
        # Of 35 layers 15 have a cache: 3 of them see all, with a head of 512, and 12 a window, with one of 256.
        ("gemma-4-e2b", 3 * 2 * 2 * 512, 12 * 2 * 2 * 256),
        ("gemma-4-e4b", 4 * 2 * 2 * 2 * 512, 20 * 2 * 2 * 2 * 256),
        # Nobody says what a token takes of these: their shapes do.
        ("gemma-4-26b-a4b", 5 * 2 * 2 * 2 * 512, 25 * 2 * 2 * 8 * 256),
        ("gemma-3-270m", 3 * 2 * 2 * 256, 15 * 2 * 2 * 256),
    ],
)
def test_positions_are_those_of_the_layers_that_have_some(name: str, full: int, windowed: int) -> None:
    footprint = wanted(name, "Q4_K_M").load.footprint
    assert (footprint.position_bytes, footprint.window_bytes) == (full, windowed)


def test_a_longer_text_takes_no_less_of_memory() -> None:
    for model in all_models():
        load = catalogue_load(model.name, next(iter(model.size_gb)))
        assert load.need(4096).total >= load.need(1024).total > load.footprint.weights, model.name


def test_every_model_that_keeps_keys_and_values_says_how_much() -> None:
    for model in all_models():
        footprint = catalogue_load(model.name, next(iter(model.size_gb))).footprint
        assert footprint.position_bytes > 0, model.name


@pytest.mark.parametrize("name", ["gemma-4-31b-it", "Qwen3.6-27B", "GLM-4.7-Flash", "gemma-4-E2B-it", "MiniMax-M2"])
@pytest.mark.parametrize("quant", ["Q4_K_M", "Q8_0"])
def test_reads_and_caches_are_those_of_the_tensors(name: str, quant: str) -> None:
    load, made = catalogue_load(name, quant), Synthetic(find_shape(name), quant)
    assert load.read_gb / load.file_gb == pytest.approx(
        made.program.bytes_of_one_row(outputs=True) / made.nbytes, rel=0.002
    )
    assert load.footprint.seen_bytes(3000) == pytest.approx(made.footprint.seen_bytes(3000), rel=0.001)
    # Its embeddings of layers stay in the file (Gemma 4 E2B).
    assert load.footprint.weights / load.file_gb / 1e9 == pytest.approx(made.footprint.weights / made.nbytes, rel=0.03)


def test_a_long_text_costs_latent_attention_arithmetic() -> None:
    machine = owned("EPYC 7302 8x64@3200")[0].machine
    r1, llama = catalogue_load("deepseek-r1-671b", "Q4_K_M"), catalogue_load("llama-3.1-405b", "Q4_K_M")
    assert r1.latent is not None and r1.latent.decode_ops == 2 * 128 * 61 * (576 + 512) and llama.latent is None
    near, far = (predict(machine, r1, context) for context in (0, 8192))
    assert far.decode.mid < 0.75 * near.decode.mid and far.prefill.mid < near.prefill.mid
    # An indexer chooses 2048 positions.
    glm = catalogue_load("GLM-5", "Q4_K_M")
    assert glm.latent is not None and glm.latent.positions(10_000) == 2048


def test_tables_of_layers_are_no_experts() -> None:
    load = catalogue_load("gemma-4-E2B-it", "Q8_0")
    assert load.active_params_b < 0.6 * load.params_b and not load.mixture
    # Four texts read what one reads.
    assert load.step_gb(4) == load.step_gb(1) == load.read_gb


@pytest.mark.parametrize("quant, found", [(None, "Q4_0"), ("Q4_K_M", "Q4_K_M"), ("Q8_0", "Q8_0")])
def test_a_quant_that_a_name_implies_gives_way_to_one_that_was_asked(quant: str | None, found: str) -> None:
    assert wanted("llama3:8b", quant).load.quant == found


def test_three_layers_of_four_of_llama_4_keep_a_chunk_only() -> None:
    near, far = (catalogue_load("llama-4-scout", "Q4_K_M").footprint.seen_bytes(at) for at in (8192, 32 * 8192))
    assert near == 8192 * 192 * 1024
    assert far == near * (3 / 4 + 32 / 4)
