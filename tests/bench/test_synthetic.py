"""Shapes without a file: the catalogue's sizes, llama.cpp's tensor types, weights a model can be run on."""

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest

from seventy.bench.compare import side_by_side
from seventy.bench.quants import Mixed, more_bits, quant_name, tensor_type
from seventy.bench.run import Bench, BenchOptions
from seventy.bench.synthetic import Synthetic, choose_layers, find_shape, fitting_layers, random_blocks
from seventy.bench.table import markdown
from seventy.catalog.models import all_models, find_model
from seventy.engine.model import Model, Segment, Step
from seventy.errors import SeventyError
from seventy.formats import formats
from seventy.gguf.file import GGUF
from seventy.measure.profile import Profile
from seventy.plan.wanted import catalogue_load
from tests.support.shapes import small, write_whole

TINY = small()
MIXTURE = {
    "expert_count": 16, "expert_used_count": 2, "expert_feed_forward_length": 128, "feed_forward_length": 1024,
}  # fmt: skip


def runs(name: str) -> bool:
    """Whether the engine runs the model and the catalogue knows its numbers."""
    try:
        find_shape(name)
    except SeventyError:
        return False
    return True


KNOWN = [model.name for model in all_models() if runs(model.name)]


@pytest.mark.parametrize("quant", ["Q2_K", "Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16"])
@pytest.mark.parametrize("name", ["llama-3.3-70b", "qwen2.5-72b", "qwen3-32b", "llama-3.1-405b"])
def test_sizes_are_those_of_published_files(name: str, quant: str) -> None:
    # A file has norms and a vocabulary beside its matrices.
    assert find_shape(name).whole(quant).nbytes / 1e9 == pytest.approx(find_model(name).size(quant), rel=2e-3)


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_the_model(name: str) -> None:
    """What the architecture asks for, of the released metadata: no tensor too many, too few or of another shape."""
    model, tensors = find_model(name), find_shape(name).whole("Q8_0").tensors.values()
    # Some are known to three figures, some count an MTP block or more than a file of the text model has.
    assert sum(prod(info.shape) for info in tensors) / 1e9 == pytest.approx(model.params_b, rel=0.013)


MIXTURES = [name for name in KNOWN if find_model(name).mixture and find_model(name).read_gb]


@pytest.mark.parametrize("name", MIXTURES)
def test_active_bytes_are_those_of_the_model(name: str) -> None:
    known = find_model(name).read_gb
    # In files of gpt-oss only what stands beside the experts changes.
    quants = known if name.startswith("gpt-oss") else ["Q8_0" if "Q8_0" in known else "Q4_K_M"]
    for quant in quants:
        read = find_shape(name).whole(quant).program.bytes_of_one_row()
        assert read / 1e9 == pytest.approx(known[quant], rel=0.02)


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_take_what_predictions_count(name: str) -> None:
    tensors = find_shape(name).whole("Q8_0").tensors.values()
    experts = sum(info.nbytes for info in tensors if info.name.endswith("_exps.weight"))
    # A file that keeps an MTP block has more than its layers have.
    assert experts / 1e9 == pytest.approx(catalogue_load(name, "Q8_0").expert_gb, rel=0.04)


def test_known_are_models_of_every_architecture() -> None:
    assert {find_model(name).arch for name in KNOWN} >= {"llama", "qwen2", "qwen3", "qwen3moe"}
    assert {"Qwen3-30B-A3B", "Qwen3-235B-A22B", "Qwen3-Coder-480B-A35B-Instruct"} <= set(KNOWN)


def test_a_small_model_is_tied() -> None:
    assert "output.weight" not in find_shape("llama-3.2-1b").whole("Q8_0").tensors
    assert "output.weight" in find_shape("llama-3.1-8b").whole("Q8_0").tensors


@pytest.mark.parametrize(("name", "why"), [("gemma-2-27b", "gemma2"), ("no-such", "no model")])
def test_what_it_cannot_make(name: str, why: str) -> None:
    with pytest.raises(SeventyError, match=why):
        find_shape(name)


def test_q4_k_m_of_a_70b() -> None:
    layers = [layer for layer in range(80) if more_bits(layer, 80)]
    assert layers[:12] == [*range(10), 12, 15] and layers[-11:] == [69, *range(70, 80)] and len(layers) == 40
    model = Mixed("llama", 80, 8, 0, tied=False)

    def kind(name: str, columns: int, layer: int) -> str:
        return tensor_type("Q4_K_M", f"{name}.weight", (1024, columns), layer, model)

    kinds = {name: kind(name, 8192, 11) for name in ("attn_q", "attn_v", "ffn_down", "output", "token_embd")}
    assert kinds == {"attn_q": "Q4_K", "attn_v": "Q5_K", "ffn_down": "Q4_K", "output": "Q6_K", "token_embd": "Q4_K"}
    assert kind("attn_v", 8192, 12) == "Q6_K"
    assert kind("ffn_down", 28672, 12) == "Q6_K" and kind("ffn_down", 29568, 11) == "Q5_0"
    with pytest.raises(SeventyError, match="Q9_K"):
        quant_name("Q9_K")


def test_types_of_experts() -> None:
    """A dense matrix's, but where llama.cpp has rules for mixtures, and what gpt-oss was trained in."""
    air, oss = Mixed("glm4moe", 46, 12, 128, tied=False), Mixed("gpt-oss", 36, 8, 128, tied=False)
    mixtral = Mixed("llama", 32, 4, 8, tied=False)
    experts, plain = (128, 4096, 1408), (4096, 4096)
    for quant, name, shape, model, kind in [
        ("Q4_K_M", "ffn_gate_exps.weight", (128, 1408, 4096), air, "Q4_K"),
        ("Q4_K_M", "ffn_down_exps.weight", experts, air, "Q8_0"),
        ("Q4_K_M", "ffn_down_shexp.weight", (4096, 1536), air, "Q6_K"),
        ("Q4_K_M", "ffn_gate_inp.weight", (128, 4096), air, "F32"),
        ("Q4_K_M", "exp_probs_b.bias", (128,), air, "F32"),
        ("MXFP4_MOE", "ffn_down_exps.weight", experts, air, "MXFP4"),
        ("MXFP4_MOE", "attn_q.weight", plain, air, "Q8_0"),
        ("Q4_K_M", "ffn_down_exps.weight", (128, 2880, 2880), oss, "MXFP4"),
        ("Q4_K_M", "attn_q.weight", (4096, 2880), oss, "Q5_0"),
        ("Q4_K_M", "ffn_gate_exps.bias", (128, 2880), oss, "F32"),
        ("Q4_K_M", "attn_k.weight", plain, mixtral, "Q8_0"),
        ("Q4_K_M", "attn_v.weight", plain, mixtral, "Q8_0"),
        ("Q4_K_M", "attn_output.weight", plain, mixtral, "Q5_K"),
        ("IQ3_XXS", "attn_output.weight", plain, mixtral, "Q5_K"),
        ("IQ2_M", "attn_output.weight", plain, mixtral, "Q5_K"),
        ("IQ2_M", "attn_k.weight", plain, mixtral, "Q4_K"),
        ("IQ2_M", "attn_v.weight", plain, mixtral, "Q4_K"),
        ("IQ2_XXS", "attn_v.weight", plain, Mixed("qwen3moe", 48, 1, 128, tied=False), "Q4_K"),
        ("IQ3_XXS", "ffn_down_exps.weight", experts, air, "IQ4_NL"),
        ("Q2_K", "ffn_down_exps.weight", experts, air, "Q4_0"),
    ]:
        assert tensor_type(quant, name, shape, 0, model) == kind, (quant, name)
    assert quant_name("mxfp4") == "MXFP4_MOE"


def test_what_mixtures_of_1_to_3_bits_hold() -> None:
    names = ("token_embd", "output", "attn_q", "attn_v", "attn_output", "ffn_up", "ffn_down")

    def kinds(quant: str, layer: int, group: int) -> tuple[str, ...]:
        model = Mixed("llama", 80, group, 0, tied=False)
        return tuple(tensor_type(quant, f"{name}.weight", (8192, 8192), layer, model) for name in names)

    assert kinds("IQ2_M", 9, 8) == ("IQ3_S", "Q5_K", "IQ2_S", "Q4_K", "IQ3_S", "IQ2_S", "IQ3_S")
    assert kinds("IQ2_XXS", 10, 1) == ("Q2_K", "Q5_K", "IQ2_XXS", "Q2_K", "IQ2_XXS", "IQ2_XXS", "IQ2_XXS")
    assert kinds("IQ1_S", 10, 8) == ("Q2_K", "Q5_K", "IQ1_S", "Q4_K", "IQ2_XXS", "IQ1_S", "IQ1_S")
    assert kinds("IQ3_XXS", 10, 1) == ("IQ3_S", "Q5_K", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ3_XXS", "IQ3_XXS")
    assert kinds("IQ3_XS", 9, 8) == ("IQ3_S", "Q6_K", "IQ3_XXS", "Q5_K", "IQ3_S", "IQ3_S", "IQ3_S")
    assert kinds("IQ3_XS", 10, 1) == ("IQ3_S", "Q6_K", "IQ3_XXS", "IQ3_S", "IQ3_S", "IQ3_XXS", "IQ3_S")
    assert kinds("IQ3_M", 10, 8) == ("IQ3_S", "Q6_K", "IQ3_S", "Q5_K", "Q4_K", "IQ3_S", "IQ3_S")
    assert kinds("Q2_K_S", 9, 8) == ("Q2_K", "Q6_K", "Q2_K", "Q5_K", "Q2_K", "Q2_K", "Q4_K")
    assert kinds("Q3_K_L", 10, 8) == ("Q3_K", "Q6_K", "Q3_K", "Q5_K", "Q5_K", "Q3_K", "Q5_K")
    narrow = tensor_type("IQ2_M", "ffn_down.weight", (8192, 29568), 11, Mixed("llama", 80, 8, 0, tied=False))
    assert narrow == "IQ4_NL"


def test_chosen_layers_are_as_the_whole() -> None:
    shape = find_shape("llama-3.3-70b")
    for count in (2, 4, 10):
        heavy = [more_bits(layer, 80) for layer in choose_layers(shape, "Q4_K_M", count)]
        assert len(heavy) == count and sum(heavy) == count / 2
    assert choose_layers(shape, "Q4_K_M", 80) == list(range(80))
    assert Synthetic(shape, "Q4_K_M", choose_layers(shape, "Q4_K_M", 4)).layer_scale == pytest.approx(20)


PARTLY = [name for name in KNOWN if find_model(name).active_params_b < find_model(name).params_b]


@pytest.mark.parametrize("name", PARTLY)
def test_chosen_layers_are_of_every_kind(name: str) -> None:
    """Dense layers first, windows by turns: a layer made has the tensors and the cache of the one it stands for."""
    shape = find_shape(name)
    whole = shape.whole("Q4_K_M")
    kinds = {whole.kind(layer) for layer in range(shape.layers)}
    for count in (2, 4, shape.layers - 1):
        layers = choose_layers(shape, "Q4_K_M", count)
        made = Synthetic(shape, "Q4_K_M", layers)
        assert len(set(layers)) == count and len(made.caches) == count
        assert [made.kind(place) for place in range(count)] == [whole.kind(layer) for layer in layers]
        # Of fewer layers than stand between two of one kind, that kind may be missing.
        if count >= max(shape.metadata.get(f"{shape.architecture}.full_attention_interval", 1), len(kinds)):
            assert {whole.kind(layer) for layer in layers} == kinds


def test_experts_run_and_are_counted() -> None:
    """Bytes of the made layers are some of every size, and a row reads its own experts only."""
    shape = small("qwen3moe", **MIXTURE)
    layers = choose_layers(shape, "Q4_K_M", 2)
    source = Synthetic(shape, "Q4_K_M", layers)
    assert more_bits(layers[0], 8) != more_bits(layers[1], 8)
    assert source.tensors["blk.1.ffn_down_exps.weight"].shape == (16, 256, 128)
    with Model(source, 2, 128) as model:
        assert not step(model, list(range(40))).bad
        assert model.program.step_experts() > 2
        one = step(model, [7])
        assert one.weight_bytes == model.program.bytes_of_one_row() == source.program.bytes_of_one_row()
        assert model.program.step_experts() == 2


def test_a_card_of_a_mixture(profile: Profile) -> None:
    """It says how many experts a token uses and a pass read, and what that is in bytes."""
    wish = BenchOptions(prompts=(32,), depths=(0,), users=(3,), tokens=4, repeats=1)
    bench = Bench.load(Synthetic(small("qwen3moe", layers=2, **MIXTURE), "Q6_K"), wish, 2, None)
    card = bench.run(profile)
    bench.model.close()
    prompt, users, alone = card.results
    assert (card.model.experts, card.model.experts_used, alone.experts) == (16, 2, 2)
    assert users.experts and 2 < users.experts <= 6
    # By chance 32 rows leave one or none of 16 out.
    assert prompt.experts and 13 < prompt.experts <= 16
    assert alone.gbs / alone.tokens_per_second.median >= card.model.token_bytes / 1e9 > 0
    assert card.model.token_bytes < card.weight_bytes / 2
    assert "experts read of 16 |" in markdown(card)
    shown = list(side_by_side([card], ["here"]).columns[1].cells)
    assert "qwen3moe, random weights, 2 layers of 256, 2 of 16 experts" in shown


def test_a_file_of_experts_is_the_same_model(tmp_path: Path) -> None:
    source = Synthetic(small("qwen3moe", layers=2, **MIXTURE), "MXFP4")
    path = write_whole(tmp_path / "shapes.gguf", source)
    with GGUF(path) as file:
        assert {info.name: (info.shape, info.type, info.nbytes) for info in file.tensors.values()} == {
            info.name: (info.shape, info.type, info.nbytes) for info in source.tensors.values()
        }
    found = []
    for each in (source, path):
        with Model(each, 2, 64) as model:
            found.append(step(model, [1, 2, 3]).logits.copy())
    assert (found[0] == found[1]).all()


def test_llama_cpp_loads_a_file_of_experts(tmp_path: Path) -> None:
    native = pytest.importorskip("cyllama.llama.llama_cpp", reason="the oracle extra (cyllama) is not installed")
    path = write_whole(tmp_path / "shapes.gguf", Synthetic(small("qwen3moe", layers=2, **MIXTURE), "Q4_K_M"))
    parameters, settings = native.LlamaModelParams(), native.LlamaContextParams()
    parameters.n_gpu_layers, settings.n_ctx = 0, 32
    context = native.LlamaContext(native.LlamaModel(str(path), parameters, verbose=False), settings)
    assert context.decode(native.llama_batch_get_one([1, 2, 3])) == 0


def test_layers_that_fit() -> None:
    shape = find_shape("llama-3.3-70b")
    assert fitting_layers(shape, "Q4_K_M", 4096, 64 << 30, None) == 80
    whole = shape.whole("Q4_K_M").footprint
    assert whole.need(4096).total == pytest.approx(44.4e9, rel=1e-3)
    assert fitting_layers(shape, "Q4_K_M", 4096, whole.need(4096).total, None) == 80
    assert fitting_layers(shape, "Q4_K_M", 4096, whole.need(4096).total - 1, None) < 80
    assert fitting_layers(shape, "Q4_K_M", 4096, 40 << 30, None) == 16
    assert fitting_layers(shape, "Q4_K_M", 4096, 8 << 30, None) == 6
    assert fitting_layers(shape, "Q4_K_M", 4096, 8 << 30, 7) == 7
    for free, wanted, why in ((8 << 30, 20, "B are free"), (1 << 30, None, "B are free"), (64 << 30, 81, "not 81")):
        with pytest.raises(SeventyError, match=why):
            fitting_layers(shape, "Q4_K_M", 4096, free, wanted)


@pytest.mark.parametrize("name", [entry.name for entry in formats().values()])
def test_random_blocks_are_weights(name: str) -> None:
    format = next(entry for entry in formats().values() if entry.name == name)
    blocks = random_blocks(format, 500, 8192**-0.5)
    weights = format.dequantize(blocks)
    assert blocks.shape == (500, format.nbytes) and np.isfinite(weights).all()
    assert np.sqrt(np.mean(np.square(weights))) == pytest.approx(8192**-0.5, rel=0.05)
    assert len(np.unique(blocks, axis=0)) > 300


def test_any_part_of_a_tensor_is_the_same_bytes() -> None:
    source = Synthetic(TINY, "Q4_K_M")
    info = source.tensors["blk.0.ffn_up.weight"]
    whole = source.read(info)
    assert len(whole) == info.nbytes
    assert (source.pread(info, 144 * 7, 144 * 9) == whole[144 * 7 : 144 * 16]).all()
    norm = source.read(source.tensors["output_norm.weight"]).view(np.float32)
    assert norm.shape == (256,) and (norm == 1).all()


def step(model: Model, tokens: list[int]) -> Step:
    sequence = model.new_sequence()
    sequence.reserve(len(tokens))
    return model.step([Segment(0, tokens, 1, sequence.pages)])


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "IQ2_M", "IQ4_XS", "Q8_0", "F16"])
def test_a_model_runs_on_it(quant: str) -> None:
    with Model(Synthetic(TINY, quant, [0, 3]), 2, 64) as model:
        logits = step(model, list(range(40))).logits
        assert logits.shape == (1, 500) and np.isfinite(logits).all() and logits.std() > 0
        assert model.config.layers == 2


def test_architectures_have_their_vectors() -> None:
    biases = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
    for architecture, tensors in (("qwen2", biases), ("qwen3", ())):
        source = Synthetic(small(architecture, layers=2, tensors=tensors), "Q4_K_M")
        assert ("blk.0.attn_q.bias" in source.tensors, "blk.0.attn_q_norm.weight" in source.tensors) == (
            architecture == "qwen2", architecture == "qwen3",
        )  # fmt: skip
        with Model(source, 2, 64) as model:
            assert not step(model, [1]).bad


def test_the_real_mix() -> None:
    source = Synthetic(find_shape("llama-3.3-70b"), "Q4_K_M", [0, 10])
    kinds = Counter(formats()[info.type].name for info in source.tensors.values() if len(info.shape) == 2)
    assert kinds == {"Q4_K": 12, "Q6_K": 3, "Q5_K": 1}
    assert source.tensors["output.weight"].shape == (128256, 8192)


def test_fewer_layers_are_extrapolated(profile: Profile) -> None:
    wish = BenchOptions(prompts=(16,), depths=(0,), users=(2,), tokens=4, repeats=2)
    bench = Bench.load(Synthetic(TINY, "Q4_K_M", choose_layers(TINY, "Q4_K_M", 2)), wish, 2, None)
    card = bench.run(profile)
    bench.model.close()
    assert (card.model.layers, card.model.whole_layers, card.model.synthetic) == (2, 8, True)
    assert card.results and all(result.whole_model for result in card.results)
