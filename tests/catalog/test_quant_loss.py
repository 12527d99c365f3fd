import pytest

from seventy.catalog.quant_loss import QuantLoss, loss_of, quant_losses
from seventy.catalog.quants import known_quant


def test_every_row_is_of_a_known_quant_and_losses_grow_as_bits_shrink() -> None:
    assert all(known_quant(row.quant) == row.quant and row.source.startswith("https://") for row in quant_losses())
    ordered = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "IQ3_M", "IQ3_XXS", "IQ2_M", "IQ2_XXS", "IQ1_M", "IQ1_S"]
    kl = [loss.kl or 0 for quant in ordered if (loss := loss_of(quant, 8))]
    assert kl == sorted(kl) and len(kl) == len(ordered)


def test_the_model_nearest_in_size_is_taken_and_nothing_is_made_up() -> None:
    large, small = loss_of("IQ2_M", 671), loss_of("iq2_m", 3)
    assert large and small and (large.model, small.model) == ("Llama 3 70B", "Llama 3 8B")
    only_small = loss_of("Q2_K", 70)
    assert only_small and only_small.model == "Llama 3 8B"
    assert loss_of("UD-IQ2_M", 70) is None and loss_of("TQ1_0", 70) is None


def test_half_a_measurement_is_refused() -> None:
    with pytest.raises(ValueError, match="KL with both perplexities, or MMLU with the best"):
        QuantLoss("A", 8, "IQ2_M", 0.3, None, None, None, None, "", "2024-04", "https://example.org")
