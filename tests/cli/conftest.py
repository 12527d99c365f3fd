from tests.support.cards import card, changed, llama_bench, profile
from tests.support.hub import hub

__all__ = ["card", "changed", "hub", "llama_bench", "profile"]
