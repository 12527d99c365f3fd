from tests.support.cards import card, changed, llama_bench, profile

__all__ = ["card", "changed", "llama_bench", "profile"]
