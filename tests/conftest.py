from hypothesis import settings

# scripts/fuzz has one with many more.
settings.register_profile("suite", max_examples=200, deadline=None)
settings.load_profile("suite")
