def plan() -> None:
    """What to buy."""
